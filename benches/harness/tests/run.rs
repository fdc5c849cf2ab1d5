//! `run`: load models and protocols end to end, what the result tells, and being interrupted.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{bench, ended_with_result, result, run, scratch, target, web};

/// What a run counted, after a check that all that was asked was answered.
fn counts(name: &str, arguments: &str) -> Value {
    let common = "--connections 8 --duration 400ms --warmup 50ms --tolerance 100";
    let result = result(name, &format!("run {common} {arguments}"));
    let target = &result["targets"][0];
    let checks = support::checks(&result);
    assert!(checks.contains(&("all answered", true)), "{checks:?}");
    let notes = target["notes"].to_string();
    assert!(notes.contains("verified: "), "{notes}");
    target["counts"].clone()
}

fn number(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().unwrap()
}

#[test]
fn a_closed_loop_counts_and_verifies() {
    let counts = counts("run-closed", "--server builtin --depth 4 --size 1k");
    assert!(number(&counts, "received") > 0 && number(&counts, "late") == 0, "{counts}");
    assert!(number(&counts, "verified_bytes") >= 1_024 * number(&counts, "received"));
}

/// Every load model with a schedule sends exactly as many as are due.
#[test]
fn open_loops_send_what_is_due() {
    for (model, due) in [
        ("--rate 500", 200),
        ("--load burst --burst 50 --rate 500", 200),
        ("--steps 500x200ms,1000x200ms", 300),
        ("--ramp 0..1000", 200),
    ] {
        let counts = counts("run-open", &format!("--server builtin {model}"));
        assert_eq!((number(&counts, "sent"), number(&counts, "never_sent")), (due, 0), "{model}");
    }
    let poisson = number(&counts("run-poisson", "--server builtin --load poisson --rate 2500"), "sent");
    assert!((900..1_100).contains(&poisson), "{poisson} of about 1000");
}

#[test]
fn corrected_and_raw_latencies_stand_side_by_side() {
    let result = result("run-phases", "run --server builtin --rate 300 --duration 500ms --tolerance 100");
    let phases = &result["targets"][0]["phases"];
    for phase in ["reply", "first_byte"] {
        let [corrected, raw] = ["corrected", "raw"].map(|which| phases[phase][which]["count"].as_u64());
        assert_eq!((corrected, raw), (Some(150), Some(150)), "{phases}");
    }
    assert!(phases["connect"]["raw"]["count"].as_u64() >= Some(64));
    let generator = &result["targets"][0]["generator"];
    assert!(generator["utilisation"].is_f64() && generator["server_utilisation"].is_f64(), "{generator}");
}

#[test]
fn connections_may_come_one_by_one() {
    let counts = counts("run-ramp-up", "--server builtin --ramp-up 200ms --connections 20");
    assert_eq!(number(&counts, "connections_opened"), 20);
}

#[test]
fn connections_may_think() {
    let counts = counts("run-think", "--server builtin --think 50ms --think-spread exponential");
    // Eight connections that pause 50 ms each time cannot send thousands.
    assert!((1..2_000).contains(&number(&counts, "received")), "{counts}");
}

#[test]
fn sizes_are_mixed() {
    let counts = counts("run-mix", "--server builtin --mix 80:64,20:16k");
    let mean = number(&counts, "sent_bytes") / number(&counts, "sent");
    assert!((1_500..6_000).contains(&mean), "{mean} bytes on average");
}

#[test]
fn web_servers_are_loaded() {
    let address = target(web);
    counts("run-http", &format!("http://{address}/"));
    counts("run-http-pipelined", &format!("http://{address}/ --depth 16"));
    counts("run-http-rate", &format!("http://{address}/ --mix 2:/,1:/chunks --rate 500"));
}

#[test]
fn redis_is_loaded() {
    counts("run-redis", "--server redis --mix 6:get:64,3:set:64,1:ping --keys 100");
    counts("run-redis-pipelined", "--server redis --mix 1:set:200,1:get:1k --keys 10 --depth 16");
}

#[test]
fn frames_are_loaded() {
    counts("run-frames", "--server frames --mix 3:10,1:20k --depth 4");
}

#[test]
fn unix_sockets_are_loaded() {
    let path = scratch("run-unix.sock");
    let exe = env!("CARGO_BIN_EXE_corelane-bench");
    for address in
        [format!("unix:{}", path.display()), format!("unix:@corelane-bench-{}", std::process::id())]
    {
        let mut command = bench("run --connections 8 --duration 300ms --warmup 0s");
        command.arg("--server").arg(format!("{exe} echo-server --listen {address}"));
        let ended = run(command);
        assert_eq!(ended.status, 0, "{}", ended.stderr);
        assert!(ended.stdout.contains("every byte verified"), "{}", ended.stdout);
    }
    assert!(!path.exists(), "the socket file stays behind");
}

#[test]
fn a_scenario_file_says_what_flags_do_not() {
    let file = scratch("run-file.toml");
    std::fs::write(&file, "server = \"builtin\"\nconnections = 3\nduration = \"200ms\"\nwarmup = \"0s\"\n")
        .unwrap();
    let result = result("run-file", &format!("run --file {} --connections 5", file.display()));
    assert_eq!(result["plan"]["connections"], 5);
    assert_eq!(result["plan"]["duration"], "200ms");
}

#[test]
fn a_schedule_that_was_not_kept_fails_the_run() {
    let arguments = "run --server builtin --rate 1000 --duration 300ms --warmup 0s --late-after 1ns";
    let (ended, result) = ended_with_result("run-late", arguments);
    assert_eq!(ended.status, 6, "{}", ended.stderr);
    assert!(ended.stderr.contains("the generator was late with"), "{}", ended.stderr);
    assert!(result["targets"][0]["counts"]["late"].as_u64().unwrap() > 0);
}

/// One connection with room for one message, and a target that takes 50 ms for each.
#[test]
fn what_a_slow_target_keeps_from_being_sent_is_counted() {
    let address = target(|mut stream| {
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            if std::io::Write::write_all(&mut stream, &buffer).is_err() {
                return;
            }
        }
    });
    let arguments = format!(
        "run tcp://{address} -c 1 --depth 1 --rate 1000 --duration 500ms --warmup 0s --late-after 100ms"
    );
    let (ended, result) = ended_with_result("run-never-sent", &arguments);
    assert_eq!(ended.status, 6, "{}", ended.stderr);
    let counts = &result["targets"][0]["counts"];
    let (sent, never) = (number(counts, "sent"), number(counts, "never_sent"));
    assert!(sent <= 12 && sent + never == 500, "{counts}");
    assert!(ended.stderr.contains("does not keep up"), "{}", ended.stderr);
}

#[test]
fn an_interrupted_run_tells_what_it_had() {
    let file = scratch("run-interrupted.json");
    let mut command = bench("run --server builtin --duration 60s --warmup 0s");
    command.arg("--json").arg(&file).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("64 connections") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    let result: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(result["partial"], true);
    let target = &result["targets"][0];
    assert!(target["counts"]["received"].as_u64().unwrap() > 0, "{}", target["counts"]);
    assert!(target["seconds"].as_f64().unwrap() > 0.0);
}
