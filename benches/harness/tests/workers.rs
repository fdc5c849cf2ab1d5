//! Runs `run` with several client processes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// corelane's echo server.
struct Server {
    child: Child,
    target: String,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
        command.args(["echo-server", "--reactors", "1"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        Self { child, target: format!("tcp://{address}") }
    }

    fn load(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
        command.args(["run", &self.target, "--warmup", "0s"]).args(more);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn read(file: &PathBuf) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_plan_is_spread_over_processes() {
    let (server, file) = (Server::start(), scratch("workers.json"));
    let mut command =
        server.load(&["--connections", "50", "--workers", "3", "--reactors", "1", "--duration", "500ms"]);
    let Output { status, stderr, .. } = command.arg("--json").arg(&file).output().unwrap();
    assert!(status.success(), "{}", text(&stderr));
    let result = read(&file);
    let target = &result["targets"][0];
    let counts = &target["counts"];
    assert_eq!(counts["connections_opened"], 50, "{counts}");
    assert_eq!((&counts["connections_lost"], &counts["never_sent"]), (&0.into(), &0.into()), "{counts}");
    let sent = ["received", "outstanding"].map(|name| counts[name].as_u64().unwrap());
    assert!(sent.iter().sum::<u64>() >= 50, "{counts}");
    assert_eq!(counts["verified_bytes"], counts["received_bytes"]);
    assert_eq!(target["phases"]["reply"]["raw"]["count"], counts["received"]);
}

#[test]
fn a_rate_is_shared() {
    let (server, file) = (Server::start(), scratch("workers-rate.json"));
    let more =
        ["--connections", "6", "--workers", "2", "--reactors", "1", "--rate", "1000", "--duration", "1s"];
    // The test machine may be too busy to keep a schedule: that is what is counted, then, and no failure here.
    let mut command = server.load(&[&more[..], &["--late-after", "5s"]].concat());
    let Output { status, stderr, .. } = command.arg("--json").arg(&file).output().unwrap();
    assert!(matches!(status.code(), Some(0 | 6)), "{}", text(&stderr));
    let counts = &read(&file)["targets"][0]["counts"];
    let due = counts["sent"].as_u64().unwrap() + counts["never_sent"].as_u64().unwrap();
    assert_eq!(due, 1_000, "{counts}");
}

/// A run for a minute over two workers, if nothing comes in its way.
struct Long {
    child: Child,
    workers: Vec<Pid>,
}

impl Long {
    fn start(server: &Server, more: &[&str]) -> Self {
        let mut command =
            server.load(&["--connections", "20", "--workers", "2", "--reactors", "1", "--duration", "60s"]);
        let child = command.args(more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut long = Self { child, workers: Vec::new() };
        let deadline = Instant::now() + Duration::from_secs(20);
        // Its reactor is the thread beside the main one and the channel's: the run has begun.
        while long.workers.len() != 2 || long.workers.iter().any(|pid| threads(*pid) < 3) {
            assert!(Instant::now() < deadline, "no two workers");
            std::thread::yield_now();
            long.workers = children(long.child.id());
        }
        long
    }

    /// Expects this status, and no worker. Returns what it said.
    fn ends(mut self, code: i32) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{said}");
        for pid in self.workers {
            assert!(kill(pid, None).is_err(), "process {pid} is still there");
        }
        said
    }
}

fn children(of: u32) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

fn threads(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

#[test]
fn a_worker_that_dies_is_named() {
    let server = Server::start();
    let run = Long::start(&server, &[]);
    let victim = run.workers[1];
    kill(victim, Signal::SIGKILL).unwrap();
    let said = run.ends(1);
    let named = format!("worker 2 of 2 (process {victim}) ended: signal: 9 (SIGKILL)");
    assert!(said.contains(&named), "{said}");
}

#[test]
fn an_interrupted_run_has_partial_results() {
    let (server, file) = (Server::start(), scratch("workers-interrupted.json"));
    let run = Long::start(&server, &["--json", file.to_str().unwrap()]);
    kill(Pid::from_raw(run.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    run.ends(130);
    assert_eq!(read(&file)["partial"], true);
}

#[test]
fn workers_end_with_a_coordinator_that_is_killed() {
    let server = Server::start();
    let mut run = Long::start(&server, &[]);
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    // Nobody may have waited for what is left of one.
    let lives = |pid: &Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while run.workers.iter().any(lives) {
        assert!(Instant::now() < deadline, "workers live on: {:?}", run.workers);
        std::thread::yield_now();
    }
}

#[test]
fn nobody_listening_has_its_status() {
    let target = {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("tcp://{}", closed.local_addr().unwrap())
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    command.args(["run", &target, "--connections", "4", "--workers", "2", "--duration", "100ms"]);
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = text(&stderr);
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("corelane-bench: worker "), "{said}");
}
