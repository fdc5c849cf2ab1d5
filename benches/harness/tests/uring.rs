//! `run --engine uring`: every protocol, what the result tells, wrong data, and being interrupted.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Ended, bench, ended_with_result, run, scratch, target, web};

const COMMON: &str = "--engine uring --connections 8 --duration 400ms --warmup 50ms --tolerance 100";

/// Whether the kernel offers io_uring; a test that needs it is skipped where it does not.
fn is_offered(ended: &Ended) -> bool {
    let is_offered = !ended.stderr.contains("io_uring is not available");
    if !is_offered {
        eprintln!("skipped: io_uring is not available");
    }
    is_offered
}

/// The only target of a run in which all went well.
fn measured(name: &str, arguments: &str) -> Option<Value> {
    let (ended, result) = ended_with_result(name, &format!("run {COMMON} {arguments}"));
    if !is_offered(&ended) {
        return None;
    }
    assert_eq!(ended.status, 0, "{}\n{}", ended.stdout, ended.stderr);
    let checks = support::checks(&result);
    assert!(checks.contains(&("all answered", true)), "{checks:?}");
    let target = result["targets"][0].clone();
    let counts = &target["counts"];
    // On a machine that is held up, replies may all come behind the window.
    let answered = counts["received"].as_u64().unwrap() + counts["outstanding"].as_u64().unwrap();
    assert!(answered > 0, "{counts}");
    assert!(counts["verified_bytes"].as_u64().unwrap() > 0, "{counts}");
    assert_eq!(counts["connections_opened"], 8);
    Some(target)
}

#[test]
fn every_protocol_is_spoken() {
    for server in [
        "--server builtin",
        "--server builtin --depth 16",
        "--server builtin --depth 3 --mix 3:10,1:20k,1:100k",
        "--server redis",
        "--server redis --depth 16 --mix 6:get:64,3:set:64,1:ping --keys 100",
        "--server redis --depth 16 --mix 1:set:3,1:get:3,1:get:20k --keys 10 --resp true",
        "--server frames --depth 4 --mix 3:10,1:20k",
    ] {
        if measured("uring-protocols", server).is_none() {
            return;
        }
    }
    let address = target(web);
    for depth in [1, 16] {
        measured("uring-http", &format!("http://{address}/ --mix 2:/,1:/chunks --depth {depth}"));
    }
}

#[test]
fn phases_series_and_costs_are_told() {
    let Some(target) = measured("uring-told", "--server builtin --duration 2200ms") else { return };
    let count = |phase: &str| target["phases"][phase]["raw"]["count"].as_u64().unwrap();
    assert_eq!(count("connect"), 8);
    assert_eq!((count("first_byte"), count("reply")), (count("reply"), received(&target)));
    let series = target["series"].as_array().unwrap();
    let seconds: Vec<_> = series.iter().map(|second| second["second"].as_u64().unwrap()).collect();
    assert_eq!(seconds, [0, 1, 2]);
    let in_all: u64 = series.iter().map(|second| second["received"].as_u64().unwrap()).sum();
    assert_eq!(in_all, received(&target));
    for cost in ["server_cost", "client_cost"] {
        assert!(target[cost]["cpu_s"].as_f64().unwrap() > 0.0, "{cost}: {target}");
    }
    let generator = &target["generator"];
    assert!(generator["utilisation"].is_f64() && generator["server_utilisation"].is_f64(), "{generator}");
}

fn received(target: &Value) -> u64 {
    target["counts"]["received"].as_u64().unwrap()
}

#[test]
fn schedules_send_what_is_due() {
    for (model, due) in [
        ("--rate 500", 200),
        ("--load burst --burst 50 --rate 500", 200),
        ("--steps 500x200ms,1000x200ms", 300),
        ("--ramp 0..1000 --reactors 2", 200),
    ] {
        let Some(target) = measured("uring-open", &format!("--server builtin {model}")) else { return };
        let counts = &target["counts"];
        assert_eq!((&counts["sent"], &counts["never_sent"]), (&due.into(), &0.into()), "{model}");
        assert_eq!(target["phases"]["reply"]["corrected"]["count"], due, "{model}");
        assert_eq!(target["phases"]["reply"]["raw"]["count"], due, "{model}");
    }
}

/// Answers the first hundred reads with `right`, and then with `wrong`.
fn turns_bad(mut stream: TcpStream, right: fn(&[u8]) -> Vec<u8>, wrong: fn(&[u8]) -> Vec<u8>) {
    let mut buffer = [0; 64 * 1024];
    let mut reads = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        reads += 1;
        let reply = if reads < 100 { right(&buffer[..length]) } else { wrong(&buffer[..length]) };
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

fn page(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn wrong_data_is_found() {
    let echo =
        target(|stream| turns_bad(stream, <[u8]>::to_vec, |bytes| bytes.iter().map(|b| b ^ 1).collect()));
    let redis = target(|stream| turns_bad(stream, |_| b"+PONG\r\n".to_vec(), |_| b"-ERR\r\n".to_vec()));
    let more = target(|stream| turns_bad(stream, <[u8]>::to_vec, |bytes| [bytes, b"x"].concat()));
    let http = target(|stream| turns_bad(stream, |_| page("ok"), |_| page("no")));
    for (target, reason) in [
        (format!("tcp://{echo}"), "wrong byte at 0"),
        (format!("redis://{redis}"), "expected `+PONG"),
        (format!("tcp://{more}"), "not asked for"),
        (format!("http://{http}/"), "a body of / differs from the first one"),
    ] {
        let ended = run(bench(&format!("run {target} {COMMON}")));
        if !is_offered(&ended) {
            return;
        }
        assert_eq!(ended.status, 4, "{target}: {}", ended.stderr);
        assert!(ended.stderr.contains(reason), "{target}: {}", ended.stderr);
    }
}

#[test]
fn a_target_that_closes_is_told() {
    let at_once = target(drop);
    let announced = target(|stream| {
        let reply = |_: &[u8]| b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
        turns_bad(stream, reply, reply);
    });
    for (target, reason) in
        [(format!("tcp://{at_once}"), "lost"), (format!("http://{announced}/"), "closes it behind a reply")]
    {
        let ended = run(bench(&format!("run {target} {COMMON}")));
        if !is_offered(&ended) {
            return;
        }
        assert_eq!(ended.status, 3, "{target}: {}", ended.stderr);
        assert!(ended.stderr.contains(reason), "{target}: {}", ended.stderr);
    }
}

#[test]
fn what_it_does_not_know_is_refused() {
    for (arguments, reason) in [
        ("--scenario churn", "no scenario but"),
        ("--think 5ms", "closed loops without --think"),
        ("--workers 2", "from one process"),
        ("--active 50", "every connection active"),
    ] {
        let ended = run(bench(&format!("run --server builtin --engine uring {arguments}")));
        assert_eq!(ended.status, 2, "{arguments}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("--engine: uring") && ended.stderr.contains(reason),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn an_interrupted_run_tells_what_it_had() {
    let file = scratch("uring-interrupted.json");
    let mut command = bench("run --server builtin --engine uring --duration 60s --warmup 0s");
    command.arg("--json").arg(&file).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    // Up to the first line that tells of latencies: a second has been measured.
    while !said.contains("p50") && stderr.read_line(&mut said).unwrap() > 0 {}
    let _ = kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT);
    stderr.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    if said.contains("io_uring is not available") {
        return;
    }
    assert_eq!(status.code(), Some(130), "{said}");
    let result: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(result["partial"], true);
    let target = &result["targets"][0];
    assert!(received(target) > 0, "{}", target["counts"]);
    assert!(!target["series"].as_array().unwrap().is_empty());
    assert_eq!(target["phases"]["connect"]["raw"]["count"], 64);
}

#[test]
fn the_self_test_holds_for_this_engine_too() {
    let arguments =
        "self-test --engine uring --duration 2s --pause 500ms --every 1s --attempts 5 --allow 200ms";
    let (ended, result) = ended_with_result("uring-self-test", arguments);
    if is_offered(&ended) {
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        assert!(support::checks(&result).contains(&("every message", true)), "{}", ended.stdout);
    }
}

#[test]
fn what_each_engine_adds_is_told() {
    let (ended, result) =
        ended_with_result("added-latency", "added-latency --rate 1000 --duration 100ms --rounds 2");
    if !is_offered(&ended) {
        return;
    }
    assert_eq!(ended.status, 0, "{}\n{}", ended.stdout, ended.stderr);
    let targets = result["targets"].as_array().unwrap();
    let labels: Vec<_> = targets.iter().map(|target| target["label"].as_str().unwrap()).collect();
    let waiting = ["bare", "corelane", "uring"];
    assert_eq!(labels[..3], waiting);
    assert_eq!(labels[3..], waiting.map(|label| format!("{label} spinning")));
    for target in targets {
        // At the end a reply may be outstanding for which what is due has to wait, and on a busy machine the
        // warm-up leaves some of what was due in it.
        let counts = |name: &str| target["counts"][name].as_u64().unwrap();
        assert!(counts("sent") + counts("never_sent") >= 200, "{target}");
        for kind in ["raw", "corrected"] {
            assert_eq!(target["phases"]["reply"][kind]["count"], counts("sent"), "{target}");
        }
    }
    let notes = result["notes"].as_array().unwrap();
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(notes[0].as_str().unwrap().starts_with("corelane adds to bare: from the send p50 "), "{notes:?}");
}
