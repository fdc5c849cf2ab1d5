//! `run`: no latency that was due is missing, however long a target stands still and whenever it does.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::{Ended, ended_with_result, target};

/// A target stands still before it answers this message of a connection, the first of all among them.
const STILL_AT: usize = 800;

/// It stands still for so long: longer than what is measured lasts.
const STILL_FOR: Duration = Duration::from_secs(2);

const ENGINES: [&str; 2] = ["corelane", "uring"];

/// The models, each of which has about a thousand messages in a second.
const MODELS: [&str; 4] = [
    "--rate 1000",
    "--load poisson --rate 1000",
    "--steps 500x500ms,1500x500ms",
    "--load burst --burst 50 --rate 1000",
];

/// Echoes messages of 64 bytes, and does something before each of them.
fn echo(mut stream: TcpStream, mut before: impl FnMut(usize)) {
    let mut message = [0; 64];
    for number in 1.. {
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        before(number);
        if stream.write_all(&message).is_err() {
            return;
        }
    }
}

fn stands_still(stream: TcpStream) {
    echo(stream, |number| {
        if number == STILL_AT {
            thread::sleep(STILL_FOR);
        }
    });
}

/// Runs a load; `None` if the kernel does not offer the engine.
fn loaded(name: &str, arguments: &str) -> Option<(Ended, Value)> {
    if !arguments.contains("uring") {
        return Some(ended_with_result(name, arguments));
    }
    let probe =
        support::run(support::bench("run --server builtin --engine uring --duration 50ms --warmup 0s"));
    let is_offered = !probe.stderr.contains("io_uring is not available");
    is_offered.then(|| ended_with_result(name, arguments))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// That the counts of a target add up, and every message that was due has a latency; how many were due.
fn due(target: &Value) -> u64 {
    let count = |name: &str| number(&target["counts"][name]);
    assert_eq!(
        count("sent") + count("carried_in"),
        count("received") + count("outstanding") + count("unanswered"),
        "{}",
        target["counts"]
    );
    let due = count("sent") + count("never_sent");
    for phase in ["reply", "first_byte"] {
        assert_eq!(number(&target["phases"][phase]["corrected"]["count"]), due, "{}", target["counts"]);
    }
    assert_eq!(
        number(&target["phases"]["reply"]["raw"]["count"]),
        count("sent") - count("unanswered"),
        "{}",
        target["counts"]
    );
    due
}

/// What falls due while the target stands still at the end is sent when it goes on. All of the last fifth have waited for
/// a second at least: the pause began after 0 s, lasted 2 s, and they were due within 1 s.
#[test]
fn what_was_due_in_a_pause_at_the_end_is_in_the_percentiles() {
    let address = target(stands_still);
    for engine in ENGINES {
        for (place, model) in MODELS.iter().enumerate() {
            let arguments = format!(
                "run tcp://{address} -c 1 --depth 1 {model} --duration 1s --warmup 0s --deadline 60s --tolerance 100 \
                 --engine {engine}"
            );
            let Some((ended, result)) = loaded(&format!("omission-{engine}-{place}"), &arguments) else {
                return;
            };
            assert_eq!(ended.status, 0, "{arguments}: {}", ended.stderr);
            let target = &result["targets"][0];
            assert!((890..1_150).contains(&due(target)), "{arguments}: {}", target["counts"]);
            assert_eq!(target["counts"]["never_sent"], 0, "{arguments}: {}", target["counts"]);
            let p90 = target["phases"]["reply"]["corrected"]["p90_us"].as_f64().unwrap();
            assert!(p90 >= 0.999e6, "{arguments}: {p90}");
            assert!(support::checks(&result).contains(&("all answered", true)), "{arguments}");
        }
    }
}

/// A pause that keeps less than the tolerance from being sent in time is for the percentiles to show, and for a condition
/// on them to find. One that keeps more is a rate that the target does not keep up with.
#[test]
fn a_pause_at_the_end_fails_what_is_asked_of_the_run() {
    let address = target(stands_still);
    for engine in ENGINES {
        for (more, status, says) in [
            ("--tolerance 50 --fail-if p99>500ms", 1, "p99>500ms"),
            ("--tolerance 1", 6, "does not keep up with this rate"),
        ] {
            let arguments = format!(
                "run tcp://{address} -c 1 --depth 1 --rate 1000 --duration 1s --warmup 0s --deadline 60s \
                 --late-after 60s --engine {engine} {more}"
            );
            let Some((ended, _)) = loaded(&format!("omission-fails-{engine}-{status}"), &arguments) else {
                return;
            };
            assert_eq!(ended.status, status, "{arguments}: {}", ended.stderr);
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.contains(says), "{arguments}: {said}");
        }
    }
}

/// One connection with room for one message, and a target that takes 100 ms for each: most have not been sent a second
/// after the end either. They have waited for that second at least.
#[test]
fn what_a_slow_target_keeps_from_being_sent_is_counted() {
    let address = target(|stream| echo(stream, |_| thread::sleep(Duration::from_millis(100))));
    for engine in ENGINES {
        let arguments = format!(
            "run tcp://{address} -c 1 --depth 1 --rate 1000 --duration 500ms --warmup 0s --deadline 1s \
             --late-after 10s --engine {engine}"
        );
        let Some((ended, result)) = loaded(&format!("omission-slow-{engine}"), &arguments) else { return };
        assert_eq!(ended.status, 6, "{arguments}: {}", ended.stderr);
        assert!(ended.stderr.contains("does not keep up"), "{}", ended.stderr);
        let target = &result["targets"][0];
        assert_eq!(due(target), 500, "{}", target["counts"]);
        assert!(number(&target["counts"]["never_sent"]) >= 400, "{}", target["counts"]);
        for phase in ["reply", "first_byte"] {
            let p50 = target["phases"][phase]["corrected"]["p50_us"].as_f64().unwrap();
            assert!(p50 >= 0.999e6, "{phase}: {p50}");
        }
    }
}

/// What is left to be sent at the end may need connections that are still to be opened.
#[test]
fn connections_that_the_target_closes_are_replaced_after_the_end_too() {
    let address = target(|mut stream| {
        let (mut requests, mut buffer) = (Vec::new(), [0; 4096]);
        for number in 1..=10 {
            while !requests.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(length @ 1..) => requests.extend_from_slice(&buffer[..length]),
                    _ => return,
                }
            }
            requests.clear();
            thread::sleep(Duration::from_millis(5));
            let last = if number == 10 { "Connection: close\r\n" } else { "" };
            if write!(stream, "HTTP/1.1 200 OK\r\n{last}Content-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    });
    let arguments = format!(
        "run http://{address}/ -c 1 --depth 1 --rate 500 --duration 200ms --warmup 0s --deadline 60s --tolerance 100"
    );
    let (ended, result) = ended_with_result("omission-closing", &arguments);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let target = &result["targets"][0];
    assert_eq!((due(target), &target["counts"]["never_sent"]), (100, &0.into()), "{}", target["counts"]);
}
