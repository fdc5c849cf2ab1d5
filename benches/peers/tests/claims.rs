//! The servers of the claims echo to the byte in every mode, and their client counts and holds.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

mod support;

use support::Server;

const SERVER: &str = env!("CARGO_BIN_EXE_peer-claims");
const CLIENT: &str = env!("CARGO_BIN_EXE_claims-client");

/// Flags of every mode. A message of one byte makes every length a whole number of messages.
const MODES: [&[&str]; 4] = [
    &["--mode", "echo", "--size", "1"],
    &["--mode", "hash", "--size", "1"],
    &["--mode", "hash-elsewhere", "--size", "1"],
    &["--mode", "hash-elsewhere", "--size", "1024"],
];

/// Those whose size need not be the message's.
const BY_HAND: [&[&str]; 3] = [
    &["--mode", "small-reads", "--size", "1000"],
    &["--mode", "small-writes", "--size", "1000"],
    &["--mode", "buffered"],
];

#[test]
fn every_mode_echoes() {
    for flags in MODES.into_iter().chain(BY_HAND) {
        let server = Server::start_as(Command::new(SERVER).args(flags));
        let target = server.addr.to_string();
        let ping = |more: &[&str]| {
            let output = Command::new(CLIENT)
                .args(["ping", &target, "--server", &server.pid().to_string(), "--time", "50"])
                .args(more)
                .output()
                .unwrap();
            let figures = String::from_utf8(output.stdout).unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{flags:?} {more:?}: {stderr}");
            let figures: Vec<f64> =
                figures.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
            assert!(figures.len() == 4 && figures.iter().all(|figure| *figure > 0.0), "{figures:?}");
        };
        ping(&["--connections", "8", "--size", "1024"]);
        ping(&["--connections", "1", "--size", "30720"]);
    }
}

/// What the client does not take is kept, and taken from it no more than that.
#[test]
fn those_by_hand_stand_what_peers_stand() {
    for flags in BY_HAND {
        support::stands(&Server::start_as(Command::new(SERVER).args(flags)));
    }
}

#[test]
fn connections_are_held() {
    let server = Server::start_as(Command::new(SERVER).args(["--mode", "echo", "--size", "1"]));
    let mut client = Command::new(CLIENT)
        .args(["hold", &server.addr.to_string(), "--connections", "50"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut input = client.stdin.take().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "idle");
    input.write_all(b"\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "echoed");
    input.write_all(b"\n").unwrap();
    assert!(client.wait().unwrap().success());
}
