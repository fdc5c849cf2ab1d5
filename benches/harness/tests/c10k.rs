//! Runs `c10k` on a small scale, and with things in its way.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn c10k(more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    command.args(["c10k", "--hold", "100ms"]).args(more);
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
        "200 held, none lost",
        "/s of 64 B",
        "every byte verified",
        "p50 ",
        "p99 ",
        "p99.9 ",
        "max ",
        "B per connection idle",
        "B after traffic",
        "per message in the server",
        "served 200 connections",
        "200 open, 200 drained, 0 cut off",
    ];
    assert_holds(&report, &facts);
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(written["failure"].is_null());
    let outcome = &written["outcome"];
    assert_eq!(outcome["connections"], 200);
    assert!(outcome["limited"].is_null());
    assert!(outcome["messages_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(outcome["latency_ns"]["count"], outcome["messages"]);
    assert!(outcome["fewest_on_a_connection"].as_u64().unwrap() >= 1);
    assert!(outcome["server_cpu_ns_per_message"].as_f64().unwrap() > 0.0);
    assert!(outcome["server_memory"]["idle"].as_u64().unwrap() > 100_000);
}

#[test]
fn sizes_rounds_and_reactors_are_taken() {
    let mut command = c10k(&["--connections", "10", "--size", "300000", "--duration", "0s"]);
    command.args(["--rounds", "7", "--reactors", "3", "--client-reactors", "1"]);
    let report = report(command);
    let facts = ["3 reactors in the server, 1 in the client", "of 300000 B: 70 in", "7 to 7 on each"];
    assert_holds(&report, &facts);
}

#[test]
fn the_descriptor_limit_is_named_and_what_fits_is_held() {
    let report = report(limited(150, &c10k(&["--connections", "5000", "--duration", "300ms"])));
    let facts = ["RLIMIT_NOFILE is 150 in the server and 150 in the client", "connections instead of 5,000"];
    assert_holds(&report, &facts);
    let held: u32 = report.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((90..134).contains(&held), "{report}");
    assert_holds(&report, &[&format!("holding {held} connections"), &format!("{held} drained")]);
}

#[test]
fn a_limit_that_nothing_fits_under_is_a_failure() {
    let output = limited(20, &c10k(&["--reactors", "1", "--client-reactors", "1"])).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_holds(&said, &["RLIMIT_NOFILE is 20", "not one connection fits"]);
}

#[test]
fn the_memory_slope_is_told() {
    let file = scratch("c10k-slope.json");
    let mut command = c10k(&["--memory-slope", "--connections", "1000", "--json"]);
    command.arg(&file);
    let report = report(command);
    assert_holds(&report, &["after 1 KiB echo", "\n         200 ", "\n       1,000 ", "each", "R²"]);
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for series in ["idle", "after_echo"] {
        let series = &written["outcome"][series];
        assert_eq!(series["points"].as_array().unwrap().len(), 5, "{series}");
        assert!(series["line"]["slope"].is_f64(), "{series}");
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
    /// Starts it, and waits until its connections are open.
    fn start(more: &[&str]) -> Self {
        let mut command = c10k(&["--connections", "100", "--duration", "60s"]);
        let mut child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("connections open") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let (_, rest) = said.split_once("server: process ").unwrap();
        let server = Pid::from_raw(rest.split(',').next().unwrap().parse().unwrap());
        Self { child, stderr, server, said }
    }

    /// Expects it to fail for these reasons, and its server to be gone.
    fn fails(mut self, reasons: &[&str]) {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{}", self.said);
        assert_holds(&self.said, reasons);
        assert_eq!(kill(self.server, None), Err(Errno::ESRCH), "the server is still there");
    }
}

#[test]
fn a_server_that_dies_is_named() {
    let run = Long::start(&[]);
    kill(run.server, Signal::SIGKILL).unwrap();
    run.fails(&["the server ended (signal: 9 (SIGKILL))"]);
}

#[test]
fn a_server_that_falls_silent_is_named() {
    let run = Long::start(&["--deadline", "500ms"]);
    kill(run.server, Signal::SIGSTOP).unwrap();
    run.fails(&["did not arrive within 500ms"]);
}

#[test]
fn an_interrupted_run_ends_its_server() {
    let run = Long::start(&[]);
    kill(Pid::from_raw(run.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    run.fails(&["interrupted"]);
}
