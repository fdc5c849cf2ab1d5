//! Runs `c100k` on a small scale: several server and client processes on one port, and what can come in their way.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A hundred bytes' worth of pages is nothing: with so few connections the memory says nothing.
const SMALL: [&str; 3] = ["--allow-drops", "--memory-limit", "0"];

fn c100k(more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    command.arg("c100k").args(SMALL).args(more);
    if !more.contains(&"--hold") {
        command.args(["--hold", "100ms"]);
    }
    command
}

/// The same under a lower limit of descriptors.
fn limited(limit: u32, inner: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
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

#[track_caller]
fn assert_holds(text: &str, facts: &[&str]) {
    for fact in facts {
        assert!(text.contains(fact), "no `{fact}` in:\n{text}");
    }
}

#[test]
fn connections_are_spread_over_processes_where_one_has_too_few_descriptors() {
    let file = scratch("stand-spread.json");
    let mut inner = c100k(&["--connections", "300", "--duration", "300ms", "--active", "50"]);
    inner.arg("--json").arg(&file);
    let Output { status, stdout, stderr } = limited(300, &inner).output().unwrap();
    let (report, said) = (text(&stdout), text(&stderr));
    assert!(status.success(), "{said}");
    assert_holds(&said, &["RLIMIT_NOFILE", "taken around it: 2 server and 2 client processes"]);
    let facts = [
        "300 asked for, 300 opened, 0 lost",
        "each of 2 server processes takes",
        "150 connections active",
        "held    wake storm: all 300 connections answer a message, every byte right",
        "shutdown of one server after the other: 300 open, 300 drained, 0 cut off",
    ];
    assert_holds(&report, &facts);
    let result = read(&file);
    assert!(result["failure"].is_null() && result["limits"][0].as_str().unwrap().contains("RLIMIT_NOFILE"));
    let skew = &result["targets"][2]["skew"];
    for values in [&skew["connections"], &skew["messages"]] {
        let values: Vec<u64> = serde_json::from_value(values.clone()).unwrap();
        assert_eq!((values.len(), values.iter().sum::<u64>()), (2, 300));
    }
    assert_eq!(result["targets"][2]["phases"]["reply"]["corrected"]["count"], 300);
}

#[test]
fn two_servers_may_have_three_clients() {
    let more =
        ["--connections", "200", "--server-processes", "2", "--client-processes", "3", "--duration", "100ms"];
    let Output { status, stdout, stderr } = c100k(&more).output().unwrap();
    assert!(status.success(), "{}", text(&stderr));
    assert_holds(
        &text(&stdout),
        &["200 opened, 0 lost", "each of 2 server processes", "200 open, 200 drained"],
    );
}

#[test]
fn headroom_for_an_uneven_spread_is_kept() {
    // Twice 110 would fit if the kernel's hash spread them evenly.
    let more =
        ["--connections", "219", "--server-processes", "2", "--client-processes", "2", "--duration", "100ms"];
    let Output { status, stdout, stderr } = limited(150, &c100k(&more)).output().unwrap();
    let said = text(&stderr);
    assert!(status.success(), "{said}");
    assert_holds(
        &said,
        &["RLIMIT_NOFILE is 150 in each of 2 server and 2 client processes", "instead of 219"],
    );
    assert_holds(&text(&stdout), &["drained, 0 cut off"]);
}

/// A run for a minute, if nothing comes in its way.
struct Long {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
    /// Of all workers.
    workers: Vec<Pid>,
}

impl Long {
    /// Starts two servers and two clients, and waits until all connections are open.
    fn start(more: &[&str]) -> Self {
        Self::start_until("100 connections open", more)
    }

    /// The same, and waits until this was said.
    fn start_until(until: &str, more: &[&str]) -> Self {
        let spread = ["--connections", "100", "--server-processes", "2", "--client-processes", "2"];
        let mut command = c100k(&[&spread, more].concat());
        command.args(["--duration", "60s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(until) {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let workers = children(child.id());
        assert_eq!(workers.len(), 4, "{said}");
        Self { child, stderr, said, workers }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// The worker with these words in its command line.
    fn worker(&self, words: &str) -> Pid {
        let is = |pid: &&Pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains(words))
        };
        *self.workers.iter().find(is).unwrap()
    }

    /// Expects it to end with this status, and all its workers too. Returns what it printed and what it said.
    fn ends(mut self, code: Option<i32>) -> (String, String) {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let Output { status, stdout, .. } = self.child.wait_with_output().unwrap();
        assert_eq!(status.code(), code, "{}", self.said);
        let deadline = Instant::now() + Duration::from_secs(10);
        for pid in &self.workers {
            while is_running(*pid) {
                assert!(Instant::now() < deadline, "process {pid} is still there");
                std::thread::yield_now();
            }
        }
        (text(&stdout), self.said)
    }
}

/// The processes that this one has started.
fn children(of: u32) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).unwrap().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: HashSet<i32> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.into_iter().map(Pid::from_raw).collect()
}

/// Whether the process lives; one that nobody has waited for does not.
fn is_running(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

#[test]
fn a_server_that_dies_is_named_with_what_it_held() {
    let run = Long::start(&[]);
    let server = run.worker("echo-server");
    kill(server, Signal::SIGKILL).unwrap();
    let (_, said) = run.ends(Some(3));
    assert_holds(&said, &[&format!("(process {server}) ended: signal: 9 (SIGKILL)"), "of 2", "it held "]);
}

#[test]
fn a_server_that_runs_out_of_descriptors_is_named() {
    // At every step on the way up it waits for the memory to settle: here is the time to take something away.
    let run = Long::start_until("20 connections open", &["--hold", "5s"]);
    let server = run.worker("echo-server");
    let lowered =
        Command::new("prlimit").args(["--pid", &server.to_string(), "--nofile=30"]).status().unwrap();
    assert!(lowered.success());
    let (_, said) = run.ends(Some(5));
    let named = format!("(process {server}) has run out of descriptors: RLIMIT_NOFILE is 30");
    assert_holds(&said, &["corelane-bench: server ", &named, "it holds ", "--server-processes"]);
}

#[test]
fn a_client_that_dies_is_named_with_what_it_held() {
    let file = scratch("stand-client-dies.json");
    let run = Long::start(&["--json", file.to_str().unwrap()]);
    let client = run.worker("\0worker\0");
    kill(client, Signal::SIGKILL).unwrap();
    let (report, said) = run.ends(Some(1));
    let fact = format!("(process {client}) ended: signal: 9 (SIGKILL); it held 50 connections");
    assert_holds(&said, &["corelane-bench: client ", &fact]);
    // What had been measured is there, and is said to be a part.
    assert_holds(&report, &["PARTIAL: ", "100 opened", "failed: client ", &fact]);
    let result = read(&file);
    assert_eq!(result["partial"], true);
    assert!(result["failure"].as_str().unwrap().contains(&fact));
    assert!(result["targets"][0]["memory"][0]["points"].as_array().unwrap().len() >= 4);
}

#[test]
fn an_interrupted_run_tells_what_it_has_and_leaves_nothing() {
    let file = scratch("stand-interrupted.json");
    let run = Long::start(&["--json", file.to_str().unwrap()]);
    kill(run.pid(), Signal::SIGINT).unwrap();
    let (report, said) = run.ends(Some(130));
    assert_holds(&said, &["corelane-bench: interrupted"]);
    assert_holds(&report, &["PARTIAL: ", "100 opened", "failed: interrupted"]);
    assert_eq!(read(&file)["partial"], true);
}

#[test]
fn a_coordinator_that_is_killed_leaves_no_worker() {
    let run = Long::start(&[]);
    kill(run.pid(), Signal::SIGKILL).unwrap();
    run.ends(None);
}

#[test]
fn a_worker_is_not_for_people() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    let Output { status, stderr, .. } = command.arg("worker").stdin(Stdio::null()).output().unwrap();
    assert!(!status.success());
    assert_holds(&text(&stderr), &["started by other commands"]);
}
