//! The counters add up, and say what happened.

mod support;

use std::thread;
use std::time::Duration;

use corelane::{Balance, CloseReason, Deadlines, Flow, Open, Server, Snapshot};
use support::{Client, Script, TestServer, eventually};

#[test]
fn connections_bytes_and_reasons_are_counted() {
    let script = Script::new().quiet().data(|conn, input, _| match input.take_all() {
        b"close" => Flow::Close,
        b"abort" => Flow::Abort,
        b"panic" => panic!("as it was told"),
        bytes => {
            conn.write(bytes);
            Flow::Continue
        }
    });
    let deadlines = Deadlines { first_byte: Some(Duration::from_secs(3)), ..Deadlines::default() };
    let server = TestServer::with(Server::new().deadlines(deadlines), script);
    let mut echoes: Vec<_> = (0..3).map(|_| server.client()).collect();
    for client in &mut echoes {
        client.echo(b"0123456789");
    }
    let now = server.total();
    assert_eq!((now.active, now.peak, now.accepted, now.closed_in_all()), (3, 3, 3, 0));
    assert_eq!((now.bytes_in, now.bytes_out), (30, 30));
    echoes.pop().unwrap().reset();
    drop(echoes);
    for word in ["close", "abort", "panic"] {
        let mut client = server.client();
        client.send(word.as_bytes());
        client.receive_rest();
    }
    server.client().receive_rest();
    eventually("the end of all", || server.total().active == 0);
    let total = server.total();
    assert_eq!((total.accepted, total.accepted_ended, total.closed_in_all(), total.panics), (7, 7, 7, 1));
    for (reason, count) in [
        (CloseReason::PeerClosed, 2),
        (CloseReason::Reset, 1),
        (CloseReason::Local, 1),
        (CloseReason::Aborted, 1),
        (CloseReason::HandlerPanic, 1),
        (CloseReason::FirstByte, 1),
        (CloseReason::Idle, 0),
    ] {
        assert_eq!(total.closed_by(reason), count, "{reason:?}");
        assert_eq!(total.closed[reason.index()], count);
    }
    assert_eq!(total.bytes_in, 30 + 15);
    assert_eq!(total.bytes_out, 30);
    assert_eq!((total.dialed, total.refused, total.accept_errors, total.handed_over), (0, 0, 0, 0));
    assert_eq!(total.errors, []);
}

#[test]
#[cfg(not(mio_unsupported_force_poll_poll))] // which needs reads that find nothing, and sleeps briefly
fn a_request_and_its_reply_cost_one_read_and_one_write() {
    const REQUESTS: u64 = 500;
    let server = TestServer::start(Script::echo());
    let (mut client, _) = server.connect();
    client.echo(b"warm");
    let before = server.total();
    for _ in 0..REQUESTS {
        client.echo(b"ping");
    }
    let after = server.total();
    assert_eq!(after.reads - before.reads, REQUESTS);
    assert_eq!(after.writes - before.writes, REQUESTS);
    assert_eq!(
        (after.empty_reads - before.empty_reads, after.blocked_writes - before.blocked_writes),
        (0, 0)
    );
    assert_eq!(after.bytes_in - before.bytes_in, 4 * REQUESTS);
    assert_eq!(after.bytes_out - before.bytes_out, 4 * REQUESTS);
    // A few turns are the counting's own.
    assert!(after.polls - before.polls <= REQUESTS + 10, "{} polls", after.polls - before.polls);
}

#[test]
#[cfg(not(mio_unsupported_force_poll_poll))] // which needs reads that find nothing, and sleeps briefly
fn an_idle_server_does_nothing() {
    let server = TestServer::start(Script::echo());
    let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    server.settle();
    let before = server.total();
    server.core(|core| core.set_timer(Duration::from_millis(200), 1));
    server.expect(support::Event::Timer(1));
    let after = server.total();
    assert!(after.turns - before.turns < 20, "{} turns", after.turns - before.turns);
    assert_eq!((after.reads, after.writes), (before.reads, before.writes));
    drop(clients);
}

#[test]
fn blocked_writes_and_exhausted_budgets_are_counted() {
    let server = TestServer::with(Server::new().byte_budget(1).read_buffer(512), Script::new().quiet());
    let (mut client, id) = server.connect_narrow();
    server.core(move |core| core.write(id, &vec![1; 3 << 20]));
    let total = server.total();
    assert!(total.bytes_out < 3 << 20);
    client.receive(3 << 20);
    server.expect(support::Event::Drained(id));
    let hold = server.hold(0);
    client.send(&[1; 10_000]);
    drop(hold);
    eventually("all of it", || server.total().bytes_in == 10_000);
    let total = server.total();
    assert_eq!(total.bytes_out, 3 << 20);
    assert!(total.budget_exhausted > 0 && total.reads >= 20);
}

#[test]
fn reactors_are_counted_apart_and_together() {
    let server = Server::new().listen("127.0.0.1:0").reactors(3).balance(Balance::RoundRobin);
    let mut server = TestServer::configured(server, Script::echo());
    let mut clients: Vec<_> = (0..9).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.echo(b"hello"));
    let total = server.total();
    let each = server.handle.counters();
    assert_eq!(each.iter().map(|reactor| reactor.accepted).collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(each.iter().map(|reactor| reactor.handed_over).collect::<Vec<_>>(), [6, 0, 0]);
    assert_eq!(each.iter().map(|reactor| reactor.bytes_in).collect::<Vec<_>>(), [15, 15, 15]);
    assert_eq!((total.accepted, total.active, total.peak, total.bytes_out), (9, 9, 9, 45));
    drop(clients);
    let report = server.stop();
    let mut sum = Snapshot::default();
    report.reactors.iter().for_each(|reactor| sum.add(reactor));
    assert_eq!(sum, report.total);
    let names: Vec<_> = report.total.named().collect();
    assert!(names.contains(&("accepted", 9)) && names.contains(&("bytes_in", 45)));
}

#[test]
fn refusals_and_stale_commands_are_counted() {
    let server = TestServer::start(Script::new().open(|_, _| Open::Refuse));
    for _ in 0..5 {
        let client = Client::connect(server.address());
        let id = server.opened();
        drop(client);
        eventually("its end", || server.total().active == 0);
        server.handle.close(id).unwrap();
    }
    let total = server.total();
    assert_eq!((total.accepted, total.refused, total.accepted_ended, total.closed_in_all()), (5, 5, 5, 0));
    assert_eq!(total.stale_commands, 5);
}

#[test]
fn a_snapshot_is_of_one_moment() {
    // What belongs together is never seen apart, however fast it changes.
    let server = TestServer::start(Script::echo());
    let address = server.address().clone();
    let clients = thread::spawn(move || {
        for _ in 0..500 {
            let mut client = Client::connect(&address);
            client.echo(b"0123456789");
            client.reset();
        }
    });
    while !clients.is_finished() {
        let now = server.handle.total();
        assert_eq!(now.accepted - now.accepted_ended, now.active);
        assert_eq!(now.accepted_ended, now.closed_in_all());
        assert_eq!(now.bytes_in, now.bytes_out);
        assert!(now.peak >= now.active && now.empty_reads <= now.reads);
    }
    clients.join().unwrap();
}
