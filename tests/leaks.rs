//! A hundred thousand connections come and go: memory and descriptors stay as they were.

mod support;

use std::thread;

use corelane::{Address, Balance, Flow, Server, Shared};
use support::{Client, Script, TestServer, descriptors, eventually, resident};

const THREADS: usize = 4;
const ROUNDS: usize = 25_000;
const WARM_UP: usize = 2_500;

#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() {
    // Each leaves unconsumed input, unsent output and an unanswered receipt behind, one way or another.
    let script = Script::new()
        .quiet()
        .data(|conn, input, report| {
            input.consume(input.len() / 2);
            conn.write_shared(&Shared::from(b"reply"));
            conn.write_with_receipt(b"more", report.receipt(1));
            if input.peek().len() > 1 { Flow::Close } else { Flow::Continue }
        })
        .eof(|_, _, _| Flow::Abort);
    let server = Server::new().listen("127.0.0.1:0").reactors(2).balance(Balance::RoundRobin);
    let server = TestServer::configured(server, script);
    churn(&server, WARM_UP);
    let (memory, files) = (resident(), descriptors());
    churn(&server, ROUNDS);
    assert_eq!(descriptors(), files);
    let growth = resident().saturating_sub(memory);
    assert!(growth < 32 << 20, "memory grew by {growth} bytes");
    let total = server.total();
    assert_eq!(total.accepted, total.accepted_ended);
    assert_eq!(total.accepted, total.closed_in_all());
    assert_eq!((total.active, total.accept_errors), (0, 0));
}

/// Every thread opens and closes so many connections.
fn churn(server: &TestServer, rounds: usize) {
    let before = server.total();
    let threads = (0..THREADS).map(|_| {
        let address = server.address().clone();
        thread::spawn(move || (0..rounds).for_each(|round| one(&address, round)))
    });
    for thread in threads.collect::<Vec<_>>() {
        // Reports are read as they come, else they would be what grows.
        while !thread.is_finished() {
            server.rest();
            thread::yield_now();
        }
        thread.join().unwrap();
    }
    // Linux hands over connections that were reset in the queue too, so that all of them count.
    let all = before.accepted_ended + (THREADS * rounds) as u64;
    eventually("the end of all connections", || {
        server.rest();
        server.total().accepted_ended == all
    });
    server.rest();
}

/// A connection that says something, or nothing, and is reset so that no port waits for its end.
fn one(address: &Address, round: usize) {
    let mut client = Client::connect(address);
    match round % 4 {
        0 => {}
        1 => client.send(b"x"),
        2 => client.send(b"hello"),
        _ => {
            client.send(b"ab");
            client.receive(1);
        }
    }
    client.reset();
}
