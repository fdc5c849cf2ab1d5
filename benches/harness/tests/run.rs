//! `run`: load models and protocols end to end, what the result tells, and being interrupted.

mod support;

use std::io::{BufRead, BufReader, Read, Write as _};
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
    // Where the machine stands still for that long, they are under way still.
    assert!(number(&counts, "received") + number(&counts, "outstanding") > 0, "{counts}");
    assert_eq!(number(&counts, "late"), 0, "{counts}");
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

/// A closed loop has no intended start: what it corrects is an estimate, and says how it was made.
#[test]
fn a_closed_loop_has_both_latencies_too() {
    let file = scratch("run-closed-phases.csv");
    let arguments = "run --server builtin -c 4 --duration 1500ms --warmup 50ms";
    let (ended, result) =
        ended_with_result("run-closed-phases", &format!("{arguments} --csv {}", file.display()));
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let reply = &result["targets"][0]["phases"]["reply"];
    let [corrected, raw] = ["corrected", "raw"].map(|which| reply[which]["count"].as_u64().unwrap());
    assert!(corrected >= raw && raw > 0, "{reply}");
    assert!(reply["filled_every_us"].as_f64().unwrap() > 0.0, "{reply}");
    assert!(
        ended.stdout.contains("reply corrected") && ended.stdout.contains("reply raw"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("corrected is an estimate"), "{}", ended.stdout);
    let rows = std::fs::read_to_string(&file).unwrap();
    assert!(rows.contains("target,reply,corrected,") && rows.contains("target,reply,raw,"), "{rows}");
}

/// What was sent in the measured time and what was answered add up, whatever was under way at its ends.
#[test]
fn counts_are_consistent() {
    let of = |name: &str, arguments: &str| {
        let common = "--server builtin --connections 16 --duration 400ms --warmup 100ms --tolerance 100";
        let result = result(name, &format!("run {common} {arguments}"));
        result["targets"][0]["counts"].clone()
    };
    for (name, arguments) in [
        ("counts-closed", "--depth 8"),
        ("counts-workers", "--depth 8 --workers 2"),
        ("counts-open", "--rate 5000"),
        ("counts-churn", "--scenario churn --requests 3"),
        ("counts-reset", "--scenario reset-storm --every 100ms"),
    ] {
        let counts = of(name, arguments);
        let of = |name: &str| number(&counts, name);
        let came = of("received") + of("outstanding") + of("unanswered");
        assert_eq!(of("sent") + of("carried_in"), came, "{name}: {counts}");
        // A reset leaves every request unanswered, and nothing else does.
        let is_struck = name == "counts-reset";
        assert_eq!(of("received") + of("outstanding") > 0, !is_struck, "{name}: {counts}");
        assert_eq!(of("unanswered") > 0, is_struck, "{name}: {counts}");
    }
    let counts = of("counts-broadcast", "--scenario broadcast --server broadcast --rate 500 --size 100");
    let deliveries = number(&counts, "received") + number(&counts, "outstanding");
    assert_eq!(number(&counts, "sent") * 16 + number(&counts, "carried_in"), deliveries, "{counts}");
}

/// What c10k tells of its servers, `run` tells of the one that it starts.
#[test]
fn a_result_has_what_both_sides_took() {
    let file = scratch("run-costs.csv");
    let arguments = format!(
        "run --server builtin --server-reactors 2 -c 16 --duration 500ms --warmup 200ms --csv {}",
        file.display()
    );
    let (ended, result) = ended_with_result("run-costs", &arguments);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(
        result["title"].as_str().unwrap().starts_with("closed loop, depth 1, 16 connections, 64 B, tcp://")
    );
    let target = &result["targets"][0];
    let notes = target["notes"].to_string();
    for side in ["server", "client"] {
        let cost = &target[format!("{side}_cost")];
        for figure in ["cpu_s", "cpu_us_per_message", "utilisation", "switches_per_message"] {
            assert!(cost[figure].as_f64().unwrap() > 0.0, "{side} {figure}: {cost}");
        }
        // Where the kernel does not let us count, the result says so.
        match cost["system_calls_per_message"].as_f64() {
            // A message takes a read and a write of each side, and shares of waits.
            Some(calls) => assert!((1.0..8.0).contains(&calls), "{side}: {cost}"),
            None => {
                assert!(notes.contains(&format!("of the {side} system calls are not counted")), "{notes}")
            }
        }
    }
    let memory = target["memory"].as_array().unwrap();
    let connections: Vec<&Value> =
        memory.iter().flat_map(|series| series["points"].as_array().unwrap()).collect();
    assert_eq!(connections.len(), 3, "before, with all open, and after: {memory:?}");
    for point in connections {
        let [user, resident] = ["user_bytes", "resident_bytes"].map(|name| point[name].as_u64().unwrap());
        assert!(0 < user && user <= resident, "{point}");
        assert!(point["kernel_bytes"].as_u64() > Some(0) && point["buffer_bytes"].is_u64(), "{point}");
    }
    let skew = &target["skew"];
    let sum = |name: &str| skew[name].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!((skew["connections"].as_array().unwrap().len(), sum("connections")), (2, 16), "{skew}");
    // The warm-up counts too, and so may what is outstanding.
    assert!(sum("messages") >= target["counts"]["received"].as_u64().unwrap(), "{skew}");
    let kernel = target["kernel"].as_array().unwrap();
    assert!(kernel.iter().any(|counter| counter["name"] == "TcpExt.ListenOverflows"), "{kernel:?}");
    let figures = std::fs::read_to_string(scratch("run-costs-figures.csv")).unwrap();
    for figure in
        ["counts.sent,", "server_cost.cpu_s,", "kernel.TcpExt.ListenDrops.after,", "skew.connections.1,"]
    {
        assert!(figures.contains(&format!("target,{figure}")), "{figure}: {figures}");
    }
    for line in ["memory", "reactors", "kernel", "generator"] {
        assert!(ended.stdout.lines().any(|other| other.starts_with(line)), "{line}: {}", ended.stdout);
    }
}

/// A target whose work is done by a child of the process that was started.
#[test]
fn children_of_the_server_are_counted() {
    let file = scratch("run-children.sh");
    let exe = env!("CARGO_BIN_EXE_corelane-bench");
    // The shell stays, as nginx's master does.
    std::fs::write(
        &file,
        format!("{exe} echo-server --listen 127.0.0.1:0 &\ntrap 'kill $!; wait' TERM\nwait\n"),
    )
    .unwrap();
    let mut command = bench("run --duration 300ms --warmup 0s -c 4");
    let json = scratch("run-children.json");
    command.arg("--server").arg(format!("sh {}", file.display())).arg("--json").arg(&json);
    let ended = run(command);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let result: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let target = &result["targets"][0];
    assert_eq!(target["server"]["processes"], 2, "{}", target["server"]);
    assert!(target["server_cost"]["cpu_s"].as_f64().unwrap() > 0.001, "{}", target["server_cost"]);
}

/// How busy the server is depends on what else this machine does; that it is told, and what follows, does not.
#[test]
fn a_rate_that_is_not_the_servers_is_marked() {
    let (ended, result) =
        ended_with_result("run-bound", "run --server builtin -c 1 --duration 300ms --warmup 0s");
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let generator = &result["targets"][0]["generator"];
    let is_saturated = generator["server_busiest"].as_f64().unwrap() >= 0.9;
    assert!(generator["server_utilisation"].is_f64() && generator["busiest"].is_f64(), "{generator}");
    assert_eq!(generator["generator_bound"], !is_saturated, "{generator}");
    assert_eq!(generator["reason"].is_string(), !is_saturated, "{generator}");
    assert_eq!(ended.stdout.contains("GENERATOR-BOUND: "), !is_saturated, "{}", ended.stdout);
    assert!(ended.stdout.contains("the server's busiest thread"), "{}", ended.stdout);
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

/// Each is started by its name, and spoken to in its own way.
#[test]
fn peers_are_loaded_by_name() {
    counts("run-nginx", "--server peer-nginx --server-reactors 1");
    counts("run-peer-redis", "--server peer-redis --server-reactors 1 --mix 1:set:64,1:get:64");
    counts("run-netapp", "--server netapp --depth 4");
}

#[test]
fn servers_of_others_tell_their_version() {
    for (server, says) in [("peer-nginx", "nginx version: "), ("peer-redis", "Redis server v=")] {
        let result = result("run-version", &format!("run --server {server} --duration 200ms --warmup 0s"));
        let version = &result["targets"][0]["server"]["version"];
        assert!(version.as_str().is_some_and(|version| version.starts_with(says)), "{version}");
    }
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

/// Nobody is found who listens at a socket that has another name now: its server cannot be watched.
#[test]
fn of_a_server_that_cannot_be_watched_the_client_is_not_said_to_be_no_limit() {
    let [bound, path] = ["bound", "sock"].map(|end| scratch(&format!("run-unwatched.{end}")));
    let _ = std::fs::remove_file(&bound);
    let listener = std::os::unix::net::UnixListener::bind(&bound).unwrap();
    std::fs::rename(bound, &path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, mut buffer) = (listener.accept().unwrap().0, [0; 4_096]);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            // The client has next to nothing to do meanwhile.
            std::thread::sleep(std::time::Duration::from_millis(5));
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    let arguments = format!("run unix:{} -c 1 --duration 300ms --warmup 0s", path.display());
    let (ended, result) = ended_with_result("run-unwatched", &arguments);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let generator = &result["targets"][0]["generator"];
    // A busy machine may leave the client itself no CPU.
    let is_exhausted = generator["busiest"].as_f64().unwrap() >= 0.9;
    assert_eq!(generator["generator_bound"], is_exhausted, "{generator}");
    assert_eq!(generator["limit_unknown"].as_bool().unwrap_or(false), !is_exhausted, "{generator}");
    assert_eq!(ended.stdout.contains("LIMIT NOT KNOWN: "), !is_exhausted, "{}", ended.stdout);
    assert!(!ended.stdout.contains("not the limit"), "{}", ended.stdout);
    let _ = std::fs::remove_file(&path);
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
    // It went its whole time: it is not partial, and has the check that failed.
    assert_eq!(result["partial"], false);
    assert!(
        support::checks(&result).contains(&("schedule kept", false)),
        "{}",
        result["targets"][0]["checks"]
    );
    assert!(!ended.stdout.contains("PARTIAL"), "{}", ended.stdout);
    assert!(ended.stdout.contains("FAILED  schedule kept: "), "{}", ended.stdout);
}

/// Interrupts a command once its load goes on, and returns the partial result that it wrote.
fn interrupted(name: &str, arguments: &str, says: &str) -> Value {
    let file = scratch(&format!("{name}.json"));
    let mut command = bench(arguments);
    command.arg("--json").arg(&file).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(says) {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    let result: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(result["partial"], true);
    result
}

/// The server never says where it listens; what it has started goes with it.
#[test]
fn a_server_that_starts_is_not_waited_for_after_a_signal() {
    for (name, command) in [("run", "run --duration 1s --server"), ("compare", "compare --b true --a")] {
        let [told, script] = ["pid", "sh"].map(|end| scratch(&format!("starting-{name}.{end}")));
        let _ = std::fs::remove_file(&told);
        let text = format!("sleep 60 &\necho $! > {0}.new && mv {0}.new {0}\nwait\n", told.display());
        std::fs::write(&script, text).unwrap();
        let mut command = bench(command);
        command.arg(format!("sh {}", script.display())).stderr(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        eventually(|| told.exists());
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let ended: support::Ended = child.wait_with_output().unwrap().into();
        assert_eq!(ended.status, 130, "{}", ended.stderr);
        assert!(ended.stderr.contains("did not start: interrupted"), "{}", ended.stderr);
        let started = std::fs::read_to_string(&told).unwrap();
        let stat = format!("/proc/{}/stat", started.trim());
        eventually(|| std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
    }
}

fn eventually(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "not within 20 s");
        std::thread::yield_now();
    }
}

#[test]
fn an_interrupted_command_tells_what_it_had() {
    for (name, arguments) in [
        ("run-interrupted", "run --server builtin --duration 60s --warmup 0s"),
        ("find-max-interrupted", "find-max --server builtin --duration 60s --warmup 0s -c 64"),
        ("sweep-interrupted", "sweep --server builtin --connections-list 64,1 --duration 60s --warmup 0s"),
    ] {
        let result = interrupted(name, arguments, "p50");
        let target = &result["targets"][0];
        assert!(target["counts"]["received"].as_u64().unwrap() > 0, "{name}: {}", target["counts"]);
        assert!(target["seconds"].as_f64().unwrap() > 0.0);
        assert!(target["server_cost"]["cpu_s"].is_f64(), "{name}: {}", target["server_cost"]);
    }
}
