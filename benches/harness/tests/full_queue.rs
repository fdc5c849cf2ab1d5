//! `run` against a Unix listener whose queue is full most of the time: connections wait, and none is lost.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use support::{checks, result, scratch};

/// What the target takes for each connection.
const PAUSE: Duration = Duration::from_millis(10);

const CONNECTIONS: u64 = 40;

/// An echo server with room for hardly any connection that it has not let in, and that lets one in after each pause.
fn slow_to_accept(name: &str) -> String {
    let path = scratch(name);
    let _ = std::fs::remove_file(&path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(1).unwrap();
    let listener = UnixListener::from(socket);
    thread::spawn(move || {
        loop {
            thread::sleep(PAUSE);
            let Ok((stream, _)) = listener.accept() else { return };
            thread::spawn(move || echo(stream));
        }
    });
    format!("unix:{}", path.display())
}

fn echo(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn opened(result: &Value) -> u64 {
    result["targets"][0]["counts"]["connections_opened"].as_u64().unwrap()
}

/// The last of a storm has waited for nearly all the others: two may stand in the queue behind the one before them.
#[test]
fn a_connection_is_wanted_since_it_was_first_dialed() {
    let target = slow_to_accept("full-queue-storm.sock");
    let result = result(
        "full-queue-storm",
        &format!(
            "run {target} --scenario connect-storm -c {CONNECTIONS} --reactors 1 --duration 100ms --warmup 0s"
        ),
    );
    assert_eq!(opened(&result), CONNECTIONS);
    let connect = &result["targets"][0]["phases"]["connect"]["raw"];
    let (max, p50) = (connect["max_us"].as_f64().unwrap(), connect["p50_us"].as_f64().unwrap());
    let pause = PAUSE.as_secs_f64() * 1e6;
    assert!(max >= pause * (CONNECTIONS - 5) as f64, "{max}: {connect}");
    assert!(p50 >= pause * (CONNECTIONS / 2 - 5) as f64, "{p50}: {connect}");
}

/// They come faster than they are let in, and every one of them comes to stand.
#[test]
fn connections_that_come_over_time_are_dialed_again() {
    let target = slow_to_accept("full-queue-ramp.sock");
    let result = result(
        "full-queue-ramp",
        &format!(
            "run {target} -c {CONNECTIONS} --ramp-up 50ms --think 5ms --duration 1s --warmup 0s --deadline 60s"
        ),
    );
    assert!(checks(&result).contains(&("all opened", true)), "{result}");
    assert_eq!(opened(&result), CONNECTIONS);
}

/// Those that are ended come back, however often they are turned away meanwhile.
#[test]
fn a_storm_waits_for_those_that_were_turned_away() {
    let target = slow_to_accept("full-queue-reconnect.sock");
    let result = result(
        "full-queue-reconnect",
        &format!(
            "run {target} --scenario reconnect-storm -c 10 --duration 300ms --every 100ms --warmup 0s --deadline 60s"
        ),
    );
    assert!(checks(&result).iter().all(|(_, held)| *held), "{result}");
    assert_eq!(opened(&result), 10 * 4);
}
