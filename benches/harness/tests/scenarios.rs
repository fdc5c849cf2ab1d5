//! Every scenario, small: it succeeds, and what it asserts holds.

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use support::{checks, result};

/// Runs a scenario against the server inside the program, and expects these checks among those that held.
fn scenario(name: &str, more: &str, expected: &[&str]) -> Value {
    // The machine may be busy with other tests: that sends are late is no matter here.
    let arguments = format!(
        "run --server builtin --scenario {name} --connections 12 --duration 500ms --every 100ms --warmup 50ms \
         --tolerance 100 {more}"
    );
    // Tests run at the same time, some of them the same scenario.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let result = result(&format!("scenario-{name}-{run}"), &arguments);
    let checks = checks(&result);
    for check in expected {
        assert!(checks.contains(&(check, true)), "no `{check}` among {checks:?}");
    }
    assert!(checks.iter().all(|(_, held)| *held), "{checks:?}");
    let target = &result["targets"][0];
    assert!(target["counts"]["connections_opened"].as_u64().unwrap() >= 12, "{target}");
    assert_eq!(target["counts"]["connections_lost"], 0);
    result
}

fn counts(result: &Value, name: &str) -> u64 {
    result["targets"][0]["counts"][name].as_u64().unwrap()
}

#[test]
fn idle_hold() {
    let result = scenario("idle-hold", "", &["all opened", "none lost", "used after the hold"]);
    assert_eq!(counts(&result, "sent"), 0, "nothing is sent while they are held");
}

#[test]
fn partly_active() {
    for model in ["", "--rate 1000"] {
        let more = format!("--active 25 {model}");
        let expected = ["none lost", "the others idle", "idle ones used at the end"];
        let result = scenario("partly-active", &more, &expected);
        assert!(counts(&result, "received") > 0);
        assert_eq!(detail(&result, "the others idle"), "3 did");
    }
}

/// However many processes and reactors share the connections, a tenth of them is a tenth, and gets all that is due.
#[test]
fn partly_active_in_many_parts() {
    static MESSAGES: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let address = support::target(|mut stream| {
        use std::io::{Read, Write};
        let index = {
            let mut messages = MESSAGES.lock().unwrap();
            messages.push(0);
            messages.len() - 1
        };
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            MESSAGES.lock().unwrap()[index] += 1;
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    let arguments = format!(
        "run tcp://{address} --scenario partly-active -c 16 --workers 8 --reactors 2 --rate 400 --duration 500ms \
         --warmup 0s --tolerance 100 --deadline 60s"
    );
    let result = result("scenario-partly-active-parts", &arguments);
    assert!(checks(&result).iter().all(|(_, held)| *held), "{result}");
    assert_eq!((counts(&result, "sent"), detail(&result, "the others idle")), (200, "2 did".to_owned()));
    // Each has the message that proves it and the one at the end.
    let mut messages = MESSAGES.lock().unwrap().clone();
    messages.sort_unstable();
    assert_eq!(messages[..14], [2; 14]);
    assert_eq!(messages[14] + messages[15], 200 + 4);
}

#[test]
fn ping_pong() {
    let result = scenario("ping-pong", "", &["all answered"]);
    assert!(counts(&result, "verified_bytes") >= 64 * counts(&result, "received"));
}

#[test]
fn pipelined() {
    scenario("pipelined", "--depth 32", &["all answered", "in order"]);
}

#[test]
fn connect_storm() {
    scenario("connect-storm", "", &["all opened", "none lost", "used after the storm"]);
}

#[test]
fn wake_storm() {
    let result = scenario("wake-storm", "", &["woken"]);
    let check = result["targets"][0]["checks"].as_array().unwrap().last().unwrap().clone();
    assert!(check["asserted"].as_str().unwrap().contains("each of 5 rounds"), "{check}");
}

#[test]
fn churn_with_fin() {
    let result = scenario("churn", "--end fin --requests 2", &["came and went", "all answered"]);
    assert!(counts(&result, "connections_opened") > 12, "they come and go");
}

#[test]
fn churn_with_rst() {
    scenario("churn", "--end rst", &["came and went", "all answered"]);
}

#[test]
fn slow_reader() {
    scenario(
        "slow-reader",
        "--hostile 50 --duration 2s",
        &["honest ones answered", "the others were there", "slow ones intact", "much left unread"],
    );
}

/// What slow readers leave unread fills the buffers of their connections: the target cannot send, and has to wait.
#[test]
fn slow_readers_have_the_target_wait() {
    static WAITS: AtomicU32 = AtomicU32::new(0);
    let address = support::target(|mut stream| {
        use std::io::{ErrorKind, Read, Write};
        socket2::SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            stream.set_nonblocking(true).unwrap();
            let sent = match stream.write(&buffer[..length]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                sent => sent.unwrap_or(length),
            };
            WAITS.fetch_add(u32::from(sent < length), Ordering::Relaxed);
            stream.set_nonblocking(false).unwrap();
            if stream.write_all(&buffer[sent..length]).is_err() {
                return;
            }
        }
    });
    let arguments = format!(
        "run tcp://{address} --scenario slow-reader -c 4 --hostile 50 --duration 2s --warmup 0s --tolerance 100"
    );
    let result = result("scenario-slow-reader-waits", &arguments);
    assert!(checks(&result).contains(&("much left unread", true)), "{result}");
    assert!(WAITS.load(Ordering::Relaxed) > 0, "{}", detail(&result, "much left unread"));
}

#[test]
fn slow_writer() {
    // Ten ticks of a tenth of a second for a request, and time to spare for a busy machine.
    let more = "--hostile 50 --duration 4s";
    scenario("slow-writer", more, &["honest ones answered", "slow ones intact"]);
}

/// What the check of this name tells beside that it held.
fn detail(result: &Value, name: &str) -> String {
    let checks = result["targets"][0]["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    check["detail"].as_str().unwrap().to_owned()
}

#[test]
fn slowloris() {
    let result = scenario(
        "slowloris",
        "--hostile 50 --duration 2s",
        &["honest ones answered", "the others were there"],
    );
    // The server inside the program has no deadline.
    let told = detail(&result, "the others were there");
    assert!(told.starts_with("6 did; 6 let in, 0 refused, 0 cut off"), "{told}");
    assert!(told.contains("6 standing at the end: the target has no deadline"), "{told}");
}

/// Whether this user may take a connection down without a word.
fn may_vanish() -> bool {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & CAP_NET_ADMIN != 0
}

#[test]
fn half_open() {
    if !may_vanish() {
        return;
    }
    let expected = ["honest ones answered", "the others were there", "peers vanished"];
    let result = scenario("half-open", "--hostile 50", &expected);
    let told = detail(&result, "peers vanished");
    assert_eq!(told, "the target had 0 connections without a peer before, 6 then, 6 at the end");
}

/// The connections of a listener of both families are listed apart from their clients'.
#[test]
fn half_open_at_a_listener_of_both_families() {
    let Ok(listener) = std::net::TcpListener::bind("[::]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    if !may_vanish() {
        return;
    }
    let arguments = format!(
        "run tcp://127.0.0.1:{port} --scenario half-open --connections 4 --hostile 50 --duration 200ms \
         --warmup 0s --tolerance 100"
    );
    let result = result("scenario-half-open-both", &arguments);
    assert!(detail(&result, "peers vanished").contains(" 2 then,"), "{result}");
}

#[test]
fn half_open_that_may_not_be_done_does_not_pass() {
    let arguments = "run --server builtin --scenario half-open --connections 4 --hostile 50 --duration 200ms \
                     --warmup 0s --tolerance 100";
    let inner = support::bench(arguments);
    let command = if may_vanish() {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command
    } else {
        inner
    };
    let ended = support::run(command);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    let said = "FAILED  peers vanished: ";
    let line = ended.stdout.lines().find(|line| line.contains(said)).unwrap_or(&ended.stdout);
    assert!(line.contains("not done: the kernel refuses TCP_REPAIR (needs CAP_NET_ADMIN)"), "{line}");
}

#[test]
fn half_close() {
    scenario("half-close", "--requests 5", &["came and went", "all answered"]);
}

#[test]
fn reset_storm() {
    let result = scenario("reset-storm", "", &["back after resets", "requests in flight"]);
    assert_eq!(counts(&result, "connections_opened"), 12 * 6, "five storms");
    assert_eq!(detail(&result, "requests in flight"), "60 of 60");
}

#[test]
fn reconnect_storm() {
    for end in ["fin", "rst"] {
        let result = scenario("reconnect-storm", &format!("--end {end}"), &["back after ends"]);
        assert_eq!(counts(&result, "connections_opened"), 12 * 6, "five storms");
    }
}

/// A storm that came before the connections of the last were back lost count of them, and the run did not end.
#[test]
fn a_storm_waits_until_all_are_back_from_the_last() {
    let slow = support::target(|mut stream| {
        use std::io::{Read, Write};
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            std::thread::sleep(std::time::Duration::from_millis(120));
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    for name in ["reset-storm", "reconnect-storm"] {
        let arguments = format!(
            "run tcp://{slow} --scenario {name} --connections 3 --duration 200ms --every 50ms --deadline 5s \
             --warmup 0s --tolerance 100"
        );
        let result = result(&format!("scenario-slow-{name}"), &arguments);
        assert!(checks(&result).iter().all(|(_, held)| *held), "{result}");
        assert_eq!(counts(&result, "connections_opened"), 3 * 5, "four storms");
    }
}

#[test]
fn hostile() {
    let result = scenario(
        "hostile",
        "--hostile 100 --duration 2s",
        &["honest ones answered", "the others were there"],
    );
    let phases = &result["targets"][0]["phases"]["reply"];
    assert!(phases["corrected"]["p99_9_us"].as_f64().unwrap() > 0.0, "the result is the honest ones' tail");
    let told = detail(&result, "the others were there");
    assert!(told.starts_with("12 did; "), "{told}");
}

#[test]
fn broadcast() {
    let arguments = "run --server broadcast --scenario broadcast --connections 12 --duration 500ms --rate 200 \
                     --size 100 --tolerance 100";
    let result = result("scenario-broadcast", arguments);
    let held = checks(&result);
    assert!(held.contains(&("every line to everybody", true)), "{held:?}");
    // What was published at the very end arrives after it.
    assert!(counts(&result, "received") <= counts(&result, "sent") * 12, "{held:?}");
    assert_eq!(counts(&result, "sent"), 100, "200 lines a second for half a second");
}

#[test]
fn all_are_listed() {
    let listed = support::run(support::bench("run --scenario help")).stdout;
    for name in ["idle-hold", "partly-active", "broadcast", "slowloris", "reconnect-storm", "hostile"] {
        assert!(listed.lines().any(|line| line.starts_with(name)), "{listed}");
    }
}

/// Shares of a scenario in two processes make up the same whole.
#[test]
fn every_scenario_over_two_processes() {
    let listed = support::run(support::bench("run --scenario help")).stdout;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let mut tried = 0;
    for name in names.filter(|name| *name != "broadcast" && (*name != "half-open" || may_vanish())) {
        // Others than the honest ones need their time; a slow writer takes a second for a request.
        let more = match name {
            "slow-writer" => "--duration 4s",
            "slow-reader" | "slowloris" | "hostile" | "half-open" => "--duration 2s",
            _ => "",
        };
        scenario(name, &format!("--workers 2 {more}"), &[]);
        tried += 1;
    }
    assert!(tried >= 15, "{listed}");
    let arguments = "run --server broadcast --scenario broadcast --connections 12 --duration 500ms --rate 200 \
                     --size 100 --tolerance 100 --workers 2";
    let result = result("scenario-broadcast-workers", arguments);
    assert!(checks(&result).contains(&("every line to everybody", true)), "{result}");
    assert_eq!(counts(&result, "sent"), 100, "one publishes, not each process");
}
