//! Runs `compare` against echo servers, some of which do not echo what they should.
//!
//! The servers are this very test program, asked to run nothing but [`serve`].

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::sched_getaffinity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Tells the program, run as a server, what to do wrong.
const FAULT: &str = "CORELANE_BENCH_TEST_FAULT";

/// How many reads a server does right before it does something wrong.
const RIGHT_READS: usize = 40;

/// A server, if this program was started as one.
#[test]
#[ignore = "a server for the other tests"]
fn serve() {
    let Ok(fault) = env::var(FAULT) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        let fault = fault.clone();
        thread::spawn(move || echo(stream.unwrap(), &fault));
    }
}

fn echo(mut stream: TcpStream, fault: &str) {
    static READS: AtomicUsize = AtomicUsize::new(0);
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        match fault {
            "slow" => thread::sleep(Duration::from_millis(30)),
            "busy" => work(Duration::from_millis(1)),
            _ => {}
        }
        if READS.fetch_add(1, Ordering::Relaxed) > RIGHT_READS {
            match fault {
                "wrong byte" => buffer[length / 2] ^= 0x20,
                "closed" => return,
                "exit" => std::process::exit(3),
                "silent" => continue,
                _ => {}
            }
        }
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Takes a CPU for a while.
fn work(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A server that brings everybody what publishers send, if this program was started as one.
#[test]
#[ignore = "a server for the other tests"]
fn serve_feed() {
    let Ok(fault) = env::var(FAULT) else {
        return;
    };
    let [subscribers, publishers] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    println!("listening on {}", subscribers.local_addr().unwrap());
    println!("publish on {}", publishers.local_addr().unwrap());
    let members = Arc::new(Mutex::new(Vec::new()));
    let joined = Arc::clone(&members);
    thread::spawn(move || {
        subscribers.incoming().for_each(|stream| joined.lock().unwrap().push(stream.unwrap()))
    });
    for stream in publishers.incoming() {
        let (mut stream, mut buffer, mut reads) = (stream.unwrap(), [0; 64 * 1024], 0);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            reads += 1;
            match fault.as_str() {
                "wrong byte" if reads > 5 => buffer[length / 2] ^= 0x20,
                "silent" if reads > 5 => continue,
                "closed" if reads > 5 => members.lock().unwrap().clear(),
                _ => {}
            }
            members.lock().unwrap().retain_mut(|member| member.write_all(&buffer[..length]).is_ok());
        }
    }
}

/// The command line of a server with a fault.
fn server(fault: &str) -> String {
    server_of("serve", fault)
}

fn server_of(test: &str, fault: &str) -> String {
    let program = env::current_exe().unwrap();
    format!("env '{FAULT}={fault}' '{}' --exact {test} --ignored --nocapture", program.display())
}

/// A short comparison of a server that broadcasts with a faultless one.
fn broadcast(a: &str) -> Command {
    let (a, b) = (server_of("serve_feed", a), server_of("serve_feed", "none"));
    compare("none", &["--mode", "broadcast", "--size", "100", "--depth", "4", "--a", &a, "--b", &b])
}

/// A short comparison of a server with a faultless one, on a single CPU.
fn compare(a: &str, more: &[&str]) -> Command {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpu = (0..).find(|&cpu| allowed.is_set(cpu) == Ok(true)).unwrap();
    let cpu = cpu.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    command.args(["compare", "--a", &server(a), "--b", &server("none")]);
    command.args(["--server-cpus", &cpu, "--client-cpus", &cpu]);
    command.args(["--connections", "8", "--pairs", "2"]);
    command.args(["--slice", "300ms", "--warmup", "100ms"]);
    command.args(more);
    command
}

/// What came of the command; `None` where the kernel does not offer io_uring.
fn run(mut command: Command) -> Option<Output> {
    let output = command.output().unwrap();
    let offered = !text(&output.stderr).contains("io_uring is not available");
    if !offered {
        eprintln!("skipped: io_uring is not available");
    }
    offered.then_some(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Expects a comparison to succeed, and returns what it wrote.
fn succeeds(name: &str, more: &[&str]) -> Option<Value> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    let mut command = compare("none", more);
    command.arg("--json").arg(&file);
    let output = run(command)?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    assert!(report.contains("A / B") && report.contains("B' / B"), "{report}");
    let written = std::fs::read_to_string(&file).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    let targets = written["targets"].as_array().unwrap();
    let labels: Vec<_> = targets.iter().map(|target| target["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["A", "B", "B'"]);
    for target in targets {
        let slices = target["slices"].as_array().unwrap();
        assert_eq!(slices.len(), 2);
        // On a busy machine one of them may pass without a reply.
        let has_messages = |slice: &&Value| slice["messages"].as_u64().unwrap() > 0;
        let answered: Vec<_> = slices.iter().filter(has_messages).collect();
        assert!(
            !answered.is_empty() && answered.iter().all(|slice| slice["p50_us"].as_f64().unwrap() > 0.0),
            "{target}"
        );
    }
    assert!(written["failure"].is_null() && written["partial"] == false);
    targets.iter().for_each(costs_are_told);
    let rate = &written["comparisons"][0];
    assert_eq!((&rate["metric"], &rate["a"], &rate["b"]), (&"rate".into(), &"A".into(), &"B".into()));
    assert!(rate["ratio"]["median"].as_f64().unwrap() > 0.0, "{rate}");
    Some(written)
}

/// What each server and the client took is known, whatever the load.
fn costs_are_told(target: &Value) {
    for cost in ["server_cost", "client_cost"] {
        let cost = &target[cost];
        assert!(cost["switches_per_message"].is_f64(), "{target}");
        // Not every host allows to count system calls, and not every warm-up has a reply; then that is said.
        let notes = target["notes"].to_string();
        let uncounted = notes.contains("system calls are not ");
        assert!(uncounted || cost["system_calls_per_message"].as_f64().unwrap() > 0.0, "{target}");
    }
    let memory = target["memory"].as_array().unwrap();
    let point = &memory.last().unwrap()["points"][0];
    assert!(point["user_bytes"].as_u64().unwrap() > 0, "{point}");
    assert!(point["resident_bytes"].as_u64().unwrap() > 0, "{point}");
    let counters = target["kernel"].as_array().unwrap();
    assert!(counters.iter().any(|counter| counter["name"] == "TcpExt.ListenOverflows"), "{counters:?}");
}

/// Expects a comparison to fail with a status and for a reason, told in one line.
fn fails(command: Command, status: i32, reason: &str) {
    let Some(output) = run(command) else {
        return;
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("corelane-bench: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(reason), "{said}");
}

#[test]
fn a_closed_loop_is_measured() {
    let Some(written) = succeeds("closed", &[]) else { return };
    for target in written["targets"].as_array().unwrap() {
        let reply = &target["phases"]["reply"];
        let count = |kind: &str| reply[kind]["count"].as_u64().unwrap();
        // For what was slow the corrected ones have more.
        assert!(count("raw") > 0 && count("corrected") >= count("raw"), "{reply}");
        assert!(reply["filled_every_us"].as_f64().unwrap() > 0.0, "{reply}");
        let open = &target["memory"][0];
        assert_eq!(open["state"], "open, each used by one message");
        assert_eq!(open["points"][1]["connections"], 8, "{open}");
    }
    succeeds("deep", &["--depth", "20", "--size", "5000"]);
}

#[test]
fn large_messages_are_measured() {
    succeeds("large", &["--size", "300000", "--connections", "2"]);
}

#[test]
fn further_servers_take_their_turns() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("further.json");
    let further = format!("third={}", server("none"));
    let mut command = compare("none", &["--also", &further, "--json"]);
    command.arg(&file);
    let Some(output) = run(command) else {
        return;
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("third / B"), "{}", text(&output.stdout));
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let targets = written["targets"].as_array().unwrap();
    let labels: Vec<_> = targets.iter().map(|target| target["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["A", "B", "B'", "third"]);
    assert!(targets.iter().all(|target| target["slices"].as_array().unwrap().len() == 2));
    // Five numbers each of A and of the third, and of the control once.
    assert_eq!(written["comparisons"].as_array().unwrap().len(), 15);
}

#[test]
fn several_threads_share_the_load() {
    succeeds("threads", &["--client-threads", "3"]);
}

#[test]
fn a_firehose_runs_beside() {
    let Some(written) = succeeds("firehose", &["--background-firehose", "2"]) else {
        return;
    };
    let carried = &written["targets"][0]["slices"][0]["firehose_bytes_per_second"];
    assert!(carried.as_f64().unwrap() > 0.0);
}

#[test]
fn a_constant_rate_is_kept() {
    // How well a busy machine keeps it is no matter here.
    let rate = ["--mode", "rate", "--rate", "500", "--tolerance", "100"];
    let Some(written) = succeeds("rate", &rate) else {
        return;
    };
    for server in written["targets"].as_array().unwrap() {
        // Each message that was due within the two slices counts, however late its reply.
        let count = server["phases"]["reply"]["corrected"]["count"].as_u64().unwrap();
        assert!((298..=302).contains(&count), "{count}");
    }
}

#[test]
fn a_rate_that_is_not_the_servers_decides_nothing() {
    let (slow, busy) = (server("slow"), server("busy"));
    let more = ["--warmup", "200ms", "--slice", "300ms", "--a", &slow, "--b", &busy];
    let Some(written) = succeeds("bound", &more) else { return };
    let generator = |target: usize| &written["targets"][target]["generator"];
    // Neither side of A was busy.
    assert_eq!(generator(0)["generator_bound"], true, "{}", generator(0));
    assert!(generator(0)["reason"].as_str().unwrap().contains("fill neither"), "{}", generator(0));
    // How much of its CPU the server B gets is the machine's affair: nine tenths are all of it.
    for target in 0..3 {
        let share = |side: &str| generator(target)[side].as_f64().unwrap();
        let is_saturated = share("server_busiest").max(share("server_utilisation")) >= 0.9;
        assert_eq!(generator(target)["generator_bound"], !is_saturated, "{}", generator(target));
    }
    let rate = &written["comparisons"][0];
    assert_eq!((&rate["metric"], &rate["verdict"]), (&"rate".into(), &"undecided".into()));
    assert_eq!(rate["reason"], "the client was the limit of A", "{rate}");
}

#[test]
fn a_schedule_that_is_not_kept_fails_and_decides_nothing() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("late.json");
    let mut command = compare("none", &["--mode", "rate", "--rate", "500", "--late-after", "1ns"]);
    command.arg("--json").arg(&file);
    let Some(output) = run(command) else {
        return;
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("corelane-bench: A: the generator was late with "), "{said}");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(written["failure"].as_str().unwrap().contains("B': the generator was late"), "{written}");
    assert_eq!(written["partial"], false, "all of it was measured");
    for target in written["targets"].as_array().unwrap() {
        let check = &target["checks"][0];
        assert_eq!((&check["name"], &check["held"]), (&"schedule kept".into(), &false.into()), "{check}");
        assert_eq!(target["slices"].as_array().unwrap().len(), 2);
    }
    let comparisons = written["comparisons"].as_array().unwrap().iter();
    for comparison in comparisons.filter(|comparison| comparison["control"] == false) {
        assert_eq!(comparison["verdict"], "undecided", "{comparison}");
        if comparison["metric"].as_str().unwrap().starts_with('p') {
            assert_eq!(comparison["reason"], "the schedule of A was not kept", "{comparison}");
        }
    }
}

/// A server that knows `PING` alone, and one that knows `GET /` alone.
#[test]
#[ignore = "a server for the other tests"]
fn serve_replies() {
    let Ok(reply) = env::var(FAULT) else {
        return;
    };
    let (reply, request) = match reply.as_str() {
        "http" => ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "\r\n\r\n"),
        _ => ("+PONG\r\n", "\r\n"),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        thread::spawn(move || {
            let (mut stream, mut buffer) = (stream.unwrap(), [0; 4096]);
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let requests = text(&buffer[..length]).matches(request).count();
                let _ = stream.write_all(reply.repeat(requests).as_bytes());
            }
        });
    }
}

#[test]
fn other_protocols_are_spoken() {
    for (protocol, depth) in [("redis", "1"), ("http", "1")] {
        let server = server_of("serve_replies", protocol);
        let servers = ["--protocol", protocol, "--depth", depth, "--a", &server, "--b", &server];
        let Some(written) = succeeds(&format!("protocol-{protocol}"), &servers) else { return };
        for target in written["targets"].as_array().unwrap() {
            let counts = &target["counts"];
            assert!(counts["verified_bytes"].as_u64() >= counts["received"].as_u64(), "{counts}");
        }
    }
    let refused = compare("none", &["--protocol", "http", "--mode", "churn"]);
    fails(refused, 2, "go with --mode closed and rate");
    let differ = compare("none", &["--a", "redis://127.0.0.1:1"]);
    fails(differ, 2, "B is spoken to by echo, not redis");
}

/// A server that was started by nobody but this test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both are one process, which is told of by its number as the second, and found out as the first.
#[test]
fn servers_that_run_already_are_measured() {
    let mut program = Command::new(env::current_exe().unwrap());
    program.args(["--exact", "serve", "--ignored", "--nocapture"]).env(FAULT, "none");
    let mut server = Running(program.stdout(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(server.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = said.find_map(|line| line.split_once("listening on ").map(|(_, at)| at.to_owned()));
    let address = format!("tcp://{}", address.unwrap());
    let pid = format!("B={}", server.0.id());
    let servers = ["--a", &address, "--b", &address, "--server-pid", &pid];
    let Some(written) = succeeds("running", &servers) else { return };
    for target in written["targets"].as_array().unwrap() {
        assert!(target["server_cost"]["cpu_s"].as_f64().unwrap() > 0.0, "{target}");
        assert!(target["server"]["command"].is_null(), "{target}");
    }
    fails(compare("none", &["--server-pid", "A=1"]), 2, "no server that runs already is called `A`");
    fails(compare("none", &["--a", "tcp://127.0.0.1:1"]), 3, "cannot connect");
}

#[test]
fn polling_works_in_every_mode() {
    succeeds("spin-closed", &["--spin"]);
    succeeds("spin-rate", &["--spin", "--mode", "rate", "--rate", "500", "--tolerance", "100"]);
}

#[test]
fn connections_come_and_go() {
    succeeds("churn", &["--mode", "churn", "--concurrency", "3"]);
    succeeds("churn-reset", &["--mode", "churn", "--reset", "--spin"]);
}

#[test]
fn a_broadcast_is_measured() {
    let (a, b) = (server_of("serve_feed", "none"), server_of("serve_feed", "none"));
    succeeds("broadcast", &["--mode", "broadcast", "--size", "100", "--a", &a, "--b", &b]);
    succeeds(
        "broadcast-deep",
        &["--mode", "broadcast", "--size", "5000", "--depth", "30", "--a", &a, "--b", &b],
    );
}

#[test]
fn what_a_broadcast_does_wrong_is_found() {
    fails(broadcast("wrong byte"), 4, "wrong bytes came");
    fails(broadcast("closed"), 3, "lost");
    fails(broadcast("silent"), 3, "stopped answering");
    fails(compare("none", &["--mode", "broadcast", "--size", "100"]), 3, "takes no publishers");
}

#[test]
fn a_wrong_byte_is_found() {
    fails(compare("wrong byte", &[]), 4, "wrong byte");
    fails(compare("wrong byte", &["--mode", "churn"]), 4, "wrong byte");
    fails(compare("wrong byte", &["--background-firehose", "1", "--depth", "9"]), 4, "wrong byte");
}

#[test]
fn a_lost_connection_is_found() {
    fails(compare("closed", &[]), 3, "lost");
    fails(compare("closed", &["--mode", "rate", "--rate", "10000"]), 3, "lost");
    fails(compare("closed", &["--mode", "churn"]), 3, "lost");
}

#[test]
fn a_server_that_ends_is_found() {
    fails(compare("exit", &[]), 3, "the server ended (exit status: 3)");
}

#[test]
fn a_server_that_falls_silent_is_found() {
    fails(compare("silent", &[]), 3, "stopped answering");
}

#[test]
fn a_failure_is_written_too() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("failure.json");
    let mut command = compare("closed", &[]);
    command.arg("--json").arg(&file);
    if run(command).is_none() {
        return;
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(written["failure"].as_str().unwrap().contains("lost"), "{written}");
}

#[test]
fn too_few_descriptors_are_named() {
    let inner = compare("none", &["--connections", "100"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 150 && exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    fails(command, 5, "RLIMIT_NOFILE is 150: at most 86 connections fit");
}

#[test]
fn an_interrupted_run_ends_its_servers() {
    let mut command = compare("none", &["--pairs", "1000"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.starts_with("round 1/")) {
        match lines.next() {
            Some(line) => said.push(line.unwrap()),
            None => break,
        }
    }
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let _ = kill(pid, Signal::SIGINT);
    said.extend(lines.map(Result::unwrap));
    let status = child.wait().unwrap();
    let said = said.join("\n");
    if said.contains("io_uring is not available") {
        return;
    }
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    for server in said.lines().filter_map(|line| line.split_once(": 127.0.0.1:")) {
        let address = format!("127.0.0.1:{}", server.1);
        assert!(TcpStream::connect(&address).is_err(), "{address} still listens");
    }
}
