//! Runs `c10k` on a small scale, and with things in its way.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn c10k(more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    command.args(["c10k", "--hold", "100ms", "--allow-drops"]).args(more);
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

/// What it prints where it succeeds.
fn report(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{status}: {}", text(&stderr));
    text(&stdout)
}

fn assert_holds(text: &str, facts: &[&str]) {
    for fact in facts {
        assert!(text.contains(fact), "no `{fact}` in:\n{text}");
    }
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn a_small_run_tells_what_it_measured() {
    let file = scratch("c10k.json");
    let mut command = c10k(&["--connections", "200", "--duration", "1s", "--json"]);
    command.arg(&file);
    let report = report(command);
    let facts = [
        "200 asked for, 200 opened, 0 lost",
        "of 64 B on each",
        "every byte verified",
        "99.9 ",
        "idle: user ",
        "after traffic",
        "per message",
        "held    wake storm: all 200 connections answer a message, every byte right",
        "served 200 connections",
        "200 open, 200 drained, 0 cut off",
    ];
    assert_holds(&report, &facts);
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((&written["schema"], &written["command"]), (&1.into(), &"c10k".into()));
    assert!(written["failure"].is_null() && written["partial"] == false);
    let [idle, talk, storm] = [0, 1, 2].map(|index| &written["targets"][index]);
    assert_eq!(idle["counts"]["connections_opened"], 200);
    assert_eq!(idle["memory"][0]["points"].as_array().unwrap().len(), 5);
    // User space (PSS, RSS) and kernel (caches, buffers) apart, in every point.
    for series in idle["memory"].as_array().unwrap() {
        for point in series["points"].as_array().unwrap() {
            let [user, resident, kernel, buffers] =
                ["user_bytes", "resident_bytes", "kernel_bytes", "buffer_bytes"]
                    .map(|key| point[key].as_u64());
            assert!(user > Some(100_000) && resident >= user && kernel > Some(100_000), "{point}");
            assert!(buffers.is_some(), "{point}");
        }
    }
    assert_eq!(idle["phases"]["connect"]["raw"]["count"], 200);
    assert!(talk["messages_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(talk["phases"]["reply"]["raw"]["count"], talk["counts"]["received"]);
    assert_eq!(talk["counts"]["verified_bytes"], talk["counts"]["received_bytes"]);
    assert!(talk["settings"]["fewest_on_a_connection"].as_u64().unwrap() >= 1);
    assert!(talk["server_cost"]["cpu_us_per_message"].as_f64().unwrap() > 0.0);
    // Counted beside what is measured, or not counted where the kernel refuses, which is said then.
    let calls = ["server_cost", "client_cost"].map(|side| &talk[side]["system_calls_per_message"]);
    let said = talk["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap());
    let said: Vec<_> = said.filter(|note| note.starts_with("system calls ")).collect();
    assert_eq!(said.len(), 1, "{talk}");
    let is_counted = said[0].starts_with("system calls were counted in a talk before");
    assert!(calls.iter().all(|calls| calls.as_f64().is_some_and(|calls| calls > 0.1) == is_counted));
    assert_eq!(storm["counts"]["received"], 200);
    for target in [talk, storm] {
        for kind in ["raw", "corrected"] {
            let count = |phase: &str| target["phases"][phase][kind]["count"].as_u64().unwrap();
            assert_eq!(count("first_byte"), count("reply"), "{target}");
        }
    }
    assert!(written["checks"].as_array().unwrap().iter().all(|check| check["held"] == true));
}

#[test]
fn sizes_rounds_and_reactors_are_taken() {
    let mut command = c10k(&["--connections", "10", "--size", "300000", "--duration", "0s"]);
    command.args(["--rounds", "7", "--reactors", "3", "--client-reactors", "1"]);
    let report = report(command);
    let facts = [
        "1 server processes (3 reactors each",
        "70 sent, 70 answered",
        "7 to 7 messages of 300000 B on each",
    ];
    assert_holds(&report, &facts);
}

/// The wake storm of a run with so many messages in flight, and what its check says.
fn storm(in_flight: &str) -> (Value, String) {
    let file = scratch(&format!("c10k-in-flight-{in_flight}.json"));
    let mut command = c10k(&["--connections", "200", "--duration", "0s", "--client-reactors", "1"]);
    report({
        command.args(["--in-flight", in_flight, "--json"]).arg(&file);
        command
    });
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let checks = written["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "wake storm").unwrap();
    assert_eq!(check["held"], true);
    (written["targets"][2].clone(), check["detail"].as_str().unwrap().to_owned())
}

#[test]
fn a_storm_is_of_all_at_once_if_asked_for() {
    let (storm, said) = storm("all");
    let settings = &storm["settings"];
    assert_eq!((&settings["in_flight_at_most"], &settings["most_in_flight"]), (&200.into(), &200.into()));
    assert_holds(&said, &["sent all at once; 200 answered"]);
}

#[test]
fn a_storm_that_is_paced_says_so() {
    let (storm, said) = storm("3");
    let settings = &storm["settings"];
    assert_eq!((&settings["in_flight_at_most"], &settings["most_in_flight"]), (&3.into(), &3.into()));
    assert_eq!(storm["counts"]["received"], 200);
    assert_holds(&said, &["at most 3 in flight", "--in-flight all"]);
}

#[test]
fn fewer_in_flight_than_reactors_are_refused() {
    let mut command = c10k(&["--connections", "10", "--client-reactors", "3", "--in-flight", "2"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_holds(&text(&output.stderr), &["--in-flight must be at least 3"]);
}

#[test]
fn the_descriptor_limit_is_named_and_what_fits_is_held() {
    let more = [
        "--connections",
        "5000",
        "--duration",
        "300ms",
        "--server-processes",
        "1",
        "--client-processes",
        "1",
    ];
    let report = report(limited(150, &c10k(&more)));
    let facts =
        ["RLIMIT_NOFILE is 150 in each of 1 server and 1 client processes", "connections instead of 5,000"];
    assert_holds(&report, &facts);
    let (_, rest) = report.split_once("5,000 asked for, ").unwrap();
    let held: u32 = rest.split_whitespace().next().unwrap().parse().unwrap();
    assert!((90..134).contains(&held), "{report}");
    assert_holds(&report, &[&format!("holding {held} connections"), &format!("{held} drained")]);
}

#[test]
fn a_limit_that_nothing_fits_under_is_a_failure() {
    let output = limited(20, &c10k(&["--reactors", "1", "--client-reactors", "1"])).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert_holds(&said, &["RLIMIT_NOFILE is 20", "not one connection fits"]);
}

#[test]
fn the_memory_slope_is_told() {
    let file = scratch("c10k-slope.json");
    let mut command = c10k(&["--memory-slope", "--connections", "1000", "--json"]);
    command.arg(&file);
    let report = report(command);
    assert_holds(
        &report,
        &["after a 1 KiB echo: user ", " 200 connections: user ", " 1,000 connections", "idle: user ", "R²"],
    );
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for series in [0, 1].map(|index| &written["targets"][0]["memory"][index]) {
        assert_eq!(series["points"].as_array().unwrap().len(), 5, "{series}");
        assert!(series["user"]["slope"].is_f64(), "{series}");
    }
}

/// A run for a minute, if nothing comes in its way.
struct Long {
    child: Child,
    stderr: BufReader<ChildStderr>,
    server: Pid,
    said: String,
}

impl Long {
    /// Starts it, and waits until it has said this.
    fn start(more: &[&str], until: &str) -> Self {
        let mut command = c10k(&["--connections", "100", "--duration", "60s"]);
        let mut child = command.args(more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(until) {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let (_, rest) = said.split_once("server: process ").unwrap();
        let server = Pid::from_raw(rest.split(',').next().unwrap().parse().unwrap());
        Self { child, stderr, server, said }
    }

    /// Expects it to fail with this status for these reasons, and its server to be gone.
    fn fails(mut self, code: i32, reasons: &[&str]) {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{}", self.said);
        assert_holds(&self.said, reasons);
        assert_eq!(kill(self.server, None), Err(Errno::ESRCH), "the server is still there");
    }
}

#[test]
fn a_server_that_dies_is_named() {
    let run = Long::start(&[], "100 connections open");
    kill(run.server, Signal::SIGKILL).unwrap();
    run.fails(3, &["the server (process ", "ended: signal: 9 (SIGKILL)", "it held 100 connections"]);
}

#[test]
fn a_server_that_falls_silent_is_named() {
    let run = Long::start(&["--deadline", "500ms"], "messages of 64 B");
    kill(run.server, Signal::SIGSTOP).unwrap();
    run.fails(3, &["did not arrive within 500ms"]);
}

/// While anything counts system calls, each costs more.
#[test]
fn nothing_counts_system_calls_while_messages_are_measured() {
    let run = Long::start(&[], "messages of 64 B");
    let deadline = Instant::now() + Duration::from_secs(20);
    let counters = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", run.child.id())).unwrap();
        let links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("perf_event")).count()
    };
    while counters() > 0 {
        assert!(Instant::now() < deadline, "{} counters", counters());
        std::thread::yield_now();
    }
    kill(Pid::from_raw(run.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    run.fails(130, &["interrupted"]);
}

#[test]
fn an_interrupted_run_ends_its_server() {
    let run = Long::start(&[], "100 connections open");
    kill(Pid::from_raw(run.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    run.fails(130, &["interrupted"]);
}
