//! What makes no sense, and targets that do not behave: one clear line, and a status of its own.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use support::{Ended, bench, run, target};

/// Expects one line on stderr that says this, and this status.
fn fails(command: Command, status: i32, says: &str) {
    let shown = format!("{command:?}");
    let Ended { status: got, stderr, .. } = run(command);
    assert_eq!(got, status, "{shown}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("corelane-bench: ") && last.contains(says), "{shown}: no `{says}` in: {stderr}");
    let about_us =
        stderr.lines().filter(|line| line.starts_with("corelane-bench: ") || line.starts_with("error"));
    assert_eq!(about_us.count(), 1, "{shown}: {stderr}");
}

#[test]
fn arguments_that_cannot_be_read_are_told_in_one_line() {
    for (arguments, says) in [
        ("run tcp://127.0.0.1:1 --connections abc", "invalid value 'abc' for '--connections <N>': "),
        ("run tcp://127.0.0.1:1 --duration 5", "invalid value '5' for '--duration <TIME>': "),
        (
            "run tcp://127.0.0.1:1 --engine steam",
            "invalid value 'steam' for '--engine <ENGINE>' [possible values: ",
        ),
        ("run tcp://127.0.0.1:1 --fail-if p99>2parsecs", "'--fail-if "),
        (
            "run tcp://127.0.0.1:1 --ratee 5",
            "unexpected argument '--ratee' found tip: a similar argument exists: '--rate'",
        ),
        ("compare", "the following required arguments were not provided: "),
        ("measure", "unrecognized subcommand 'measure'"),
    ] {
        let Ended { status, stderr, .. } = run(bench(arguments));
        assert_eq!((status, stderr.lines().count()), (2, 1), "{arguments}: {stderr}");
        assert!(stderr.starts_with("corelane-bench: ") && stderr.contains(says), "{arguments}: {stderr}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (flags, says) in [
        ("--scenario earthquake", "--scenario: `earthquake` is none of load, idle-hold"),
        ("--rate 0", "--rate: must be above 0"),
        ("--connections 0", "--connections: must be 1 to"),
        ("--load poisson", "--rate: how many"),
        ("--duration 0s", "--duration: must be"),
        ("--mix x", "--mix: `x` is not WEIGHT:BYTES"),
        ("--scenario broadcast", "--publish: where"),
        ("--file /no/such/file", "--file: /no/such/file: "),
    ] {
        fails(bench(&format!("run tcp://127.0.0.1:1 {flags}")), 2, says);
    }
    for (arguments, says) in [
        ("run", "--target: none"),
        ("run ftp://127.0.0.1:1", "is not tcp://"),
        ("run tcp://127.0.0.1:1 --server-pid 4294967295", "--server-pid: there is no process 4294967295"),
        ("run --server no-such-server", "--server: no `no-such-server`"),
        ("run --server builtin tcp://127.0.0.1:1 --protocol echo", "--server: starts its own target"),
        ("find-max tcp://127.0.0.1:1 --limit 0s", "--limit: must be above 0"),
        ("find-max tcp://127.0.0.1:1 --load closed", "--rate: a closed loop has none"),
        ("sweep tcp://127.0.0.1:1 --server-reactors-list 1,2", "--server-reactors-list: needs --server"),
        ("self-test --pause 2s --every 1s", "--pause must be"),
        ("c10k --active 0", "--active must be more than 0"),
        ("c100k --rounds 0", "--rounds must be at least 1"),
        ("c1m --connections 0", "--connections must be 1 to"),
        ("preflight --connections 0", "--connections must be 1 to"),
    ] {
        fails(bench(arguments), 2, says);
    }
}

#[test]
fn a_file_with_an_unknown_key_is_refused() {
    let file = support::scratch("nonsense.toml");
    std::fs::write(&file, "connections = 5\nspeed = 7\n").unwrap();
    fails(bench(&format!("run --file {}", file.display())), 2, "line 2: unknown field `speed`");
}

#[test]
fn a_target_that_is_not_there_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails(bench(&format!("run tcp://{address}")), 3, "nobody listens there");
    fails(bench(&format!("run redis://{address} --mix 1:get")), 3, "cannot connect to");
    fails(bench("run unix:/no/such/socket"), 3, "nobody listens there");
}

#[test]
fn a_target_that_closes_is_named() {
    let at_once = target(drop);
    fails(bench(&format!("run tcp://{at_once} -c 3")), 3, "the target ended connection");
    let later = target(|mut stream| {
        let mut buffer = [0; 64];
        for _ in 0..5 {
            if stream.read_exact(&mut buffer).is_err() || stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
    fails(bench(&format!("run tcp://{later} -c 3")), 3, "the target ended connection");
}

#[test]
fn a_target_that_falls_silent_is_named() {
    let silent = target(|mut stream| {
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    });
    let command = bench(&format!("run tcp://{silent} -c 3 --deadline 300ms"));
    fails(command, 3, "the target stopped answering: no reply on");
}

#[test]
fn a_target_that_sends_garbage_is_named() {
    let garbage = target(|mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    });
    fails(bench(&format!("run tcp://{garbage}")), 4, "wrong byte at 0 of a reply");
    fails(bench(&format!("run http://{garbage}/")), 4, "no reply of HTTP/1.1");
    fails(bench(&format!("run redis://{garbage}")), 4, "expected `+PONG");
    fails(bench(&format!("run frames://{garbage}")), 4, "wrong byte at 0");
    let talkative = target(|mut stream| {
        let _ = stream.write_all(b"welcome\r\n");
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    });
    fails(bench(&format!("run tcp://{talkative}")), 4, "of a reply");
    let page = target(support::web);
    fails(bench(&format!("run http://{page}/no/such/page")), 4, "status 404 instead of 200");
}

/// A command under a lower limit of descriptors.
fn limited(limit: u32, inner: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

#[test]
fn more_connections_than_descriptors_are_refused() {
    let address = target(|_| {});
    let command = limited(200, &bench(&format!("run tcp://{address} --connections 5000")));
    fails(command, 5, "RLIMIT_NOFILE is 200: at most 136 connections fit");
}

/// However many processes the client is.
#[test]
fn more_connections_than_a_server_started_here_can_have_are_refused_before_it_starts() {
    for more in ["", "--scenario hostile --hostile 100"] {
        let connections = if more.is_empty() { 150 } else { 80 };
        let arguments = format!("run --server builtin --connections {connections} --workers 2 {more}");
        let command = limited(200, &bench(&arguments));
        fails(command, 5, "in the server, which --server starts as one process, but RLIMIT_NOFILE is 200");
        let Ended { stderr, .. } = run(limited(200, &bench(&arguments)));
        assert_eq!(stderr.lines().count(), 1, "nothing was started before: {stderr}");
    }
}
