//! However a connection ends: the peer gets everything it was sent, the handler is told once and why, and
//! nothing spins or hangs.

mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelane::{
    Address, CloseReason, Deadlines, Delivery, Flow, Server, Shared, SocketOptions, Watermarks, Written,
};
use support::{Client, End, Event, Random, Script, TempDir, TestServer, eventually};

const ROOMY: Watermarks = Watermarks { high: 64 << 10, low: 16 << 10, cap: 64 << 20 };

/// More than the kernels of both sides hold for a peer that does not read.
const BACKLOG: usize = 16 << 20;

/// How many turns the reactor makes while nobody asks it for anything.
fn idle_turns(server: &TestServer) -> u64 {
    let (begun, before) = (Instant::now(), server.total().turns);
    server.core(|core| core.set_timer(Duration::from_millis(100), 77));
    server.expect(Event::Timer(77));
    let turns = server.total().turns - before;
    // With mio's poll(2) backend a reactor naps for 10 ms at most.
    turns.saturating_sub(begun.elapsed().as_millis() as u64 / 10)
}

fn patient_for(stall: Duration) -> Server {
    Server::new().watermarks(ROOMY).deadlines(Deadlines { write_stall: Some(stall), ..Deadlines::default() })
}

#[test]
fn closing_while_the_send_buffer_is_full_neither_spins_nor_hangs() {
    let script = Script::new().data(|conn, input, _| {
        input.take_all();
        conn.write(&vec![1; BACKLOG]);
        Flow::Close
    });
    let server = TestServer::with(patient_for(Duration::from_secs(5)), script);
    let (mut client, id) = server.connect_narrow();
    client.send(b"go");
    server.data(id);
    assert!(server.core(move |core| core.pending_output(id)).is_some_and(|bytes| bytes > 0));
    assert_eq!(server.core(move |core| core.write(id, b"more")), Written::Closed);
    let turns = idle_turns(&server);
    assert!(turns < 50, "{turns} turns while nothing happens");
    // The peer takes nothing: it is reset, for it does not have the whole.
    assert_eq!(server.closed(id), CloseReason::WriteStall);
    assert_eq!(client.receive_rest().1, End::Reset);
}

#[test]
fn closing_while_the_send_buffer_is_full_delivers_everything_to_a_peer_that_reads_late() {
    let reply = Random::new(1).bytes(BACKLOG);
    let expected = reply.clone();
    let script = Script::new().data(move |conn, input, _| {
        input.take_all();
        conn.write(&reply);
        Flow::Close
    });
    let server = TestServer::with(Server::new().watermarks(ROOMY), script);
    let (mut client, id) = server.connect_narrow();
    client.send(b"go");
    server.data(id);
    server.core(|_| ());
    assert!(client.receive_all() == expected);
    drop(client);
    assert_eq!(server.closed(id), CloseReason::Local);
}

#[test]
fn a_peer_that_sends_everything_before_it_reads_gets_the_last_reply() {
    let reply = Random::new(4).bytes(BACKLOG);
    let expected = reply.clone();
    // Whether input waits in the kernel at the close, or comes later; and whoever closes.
    for (read_buffer, is_own) in [(512, true), (64 << 10, true), (64 << 10, false)] {
        let reply = reply.clone();
        let script = Script::new().quiet().data(move |conn, input, _| {
            input.take_all();
            conn.write(&reply);
            if is_own {
                return Flow::Close;
            }
            let id = conn.id();
            conn.core().close(id);
            Flow::Continue
        });
        let server = TestServer::with(Server::new().read_buffer(read_buffer).watermarks(ROOMY), script);
        let (mut client, id) = server.connect_narrow();
        client.send(&vec![1; BACKLOG]);
        client.finish();
        assert!(client.receive_all() == expected, "{read_buffer}, {is_own}");
        assert_eq!(server.closed(id), CloseReason::Local);
    }
}

#[test]
fn a_peer_that_only_sends_cannot_keep_a_closing_connection() {
    let script = Script::new().quiet().data(|conn, input, _| {
        input.take_all();
        conn.write(&vec![1; BACKLOG]);
        Flow::Close
    });
    let server = TestServer::with(patient_for(Duration::from_millis(200)), script);
    let (mut client, id) = server.connect_narrow();
    while client.write_all(&[7; 10_000]).is_ok() {}
    assert_eq!(server.closed(id), CloseReason::WriteStall);
}

#[test]
fn a_peer_that_dies_with_data_queued_is_over_at_once() {
    // Closing or not makes no difference.
    for flow in [Flow::Continue, Flow::Close] {
        let script = Script::new().data(move |conn, input, report| {
            input.take_all();
            conn.write_with_receipt(&vec![1; BACKLOG], report.receipt(1));
            flow
        });
        let server = TestServer::with(Server::new().watermarks(ROOMY), script);
        let (mut client, id) = server.connect_narrow();
        client.send(b"go");
        server.data(id);
        server.core(|_| ());
        client.reset();
        let sent = server.find("the receipt's answer", |seen| match seen.event {
            Event::Delivered(1, delivery) => Some(delivery),
            _ => None,
        });
        assert!(matches!(sent, Delivery::Failed { sent } if sent < BACKLOG), "{sent:?}");
        assert_eq!(server.closed(id), CloseReason::Reset);
        assert_eq!(server.total().active, 0);
    }
}

#[test]
fn an_error_reported_together_with_room_ends_the_connection_once() {
    // A reset makes the kernel report input, output, hang-up and error at once.
    let server = TestServer::with(Server::new().watermarks(ROOMY), Script::new());
    let (client, id) = server.connect_narrow();
    server.core(move |core| core.write(id, &vec![1; BACKLOG]));
    server.core(|_| ());
    client.reset();
    assert_eq!(server.next(), Event::Close(id, CloseReason::Reset));
    server.core(|_| ());
    assert_eq!(server.rest(), []);
}

#[test]
fn closing_with_unread_input_keeps_the_last_reply() {
    const REPLY: usize = 100_000;
    let reply = Random::new(2).bytes(REPLY);
    let expected = reply.clone();
    let script = Script::new().quiet().data(move |conn, input, _| {
        input.consume(1);
        conn.write(&reply);
        Flow::Close
    });
    // Small reads: much of what the peer sends is still in the kernel when the connection closes.
    let server = TestServer::with(Server::new().read_buffer(512), script);
    for round in 0..20 {
        let (mut client, id) = server.connect();
        client.send(&vec![7; 10_000 * (1 + round % 5)]);
        // Another piece comes when the server has replied already.
        let reply_begins = client.receive(1);
        client.send(&[8; 50_000]);
        client.finish();
        let rest = client.receive_all();
        assert!([reply_begins, rest].concat() == expected);
        assert_eq!(server.closed(id), CloseReason::Local);
    }
}

#[test]
fn a_peer_that_never_closes_is_waited_for_until_the_linger_deadline() {
    let deadlines = Deadlines { linger: Duration::from_millis(100), ..Deadlines::default() };
    let server = TestServer::with(
        Server::new().deadlines(deadlines),
        Script::new().data(|conn, input, _| {
            conn.write(input.take_all());
            Flow::Close
        }),
    );
    let (mut client, id) = server.connect();
    client.echo(b"all there is");
    assert_eq!(client.receive_all(), b"");
    // Its side is still open, and it goes on sending.
    assert_eq!(server.data(id), b"all there is");
    while client.write_all(b"on and on").is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(server.closed(id), CloseReason::Local);
    assert_eq!(server.rest(), [], "what came while lingering is nobody's");
}

#[test]
fn every_byte_before_a_fin_arrives_and_then_one_end() {
    let directory = TempDir::new();
    for unix in [false, true] {
        // Whatever the size of reads and turns.
        for (read_buffer, budget) in [(64 << 10, 256 << 10), (512, 1), (4096, 10_000)] {
            let address =
                if unix { Address::Unix(directory.join("fin")) } else { "127.0.0.1:0".parse().unwrap() };
            let server =
                Server::new().listen(address).reactors(1).read_buffer(read_buffer).byte_budget(budget);
            let server = TestServer::configured(server, Script::new());
            for seed in 0..3 {
                let bytes = Random::new(seed).bytes(1 << 20);
                let (mut client, id) = server.connect();
                client.send(&bytes);
                client.finish();
                assert_eq!(client.receive_all(), b"");
                assert_eq!(server.closed(id), CloseReason::PeerClosed);
                let mut received = Vec::new();
                let mut ends = 0;
                for event in server.rest() {
                    match event {
                        Event::Data(_, bytes) => {
                            assert!(!bytes.is_empty() && ends == 0);
                            received.extend(bytes);
                        }
                        Event::Eof(_, rest) => {
                            assert_eq!(rest, b"");
                            ends += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(ends, 1);
                assert!(received == bytes, "unix {unix}, buffer {read_buffer}: {} bytes", received.len());
            }
        }
    }
}

#[test]
fn a_fin_that_comes_while_reading_is_paused_is_told_after_the_bytes_before_it() {
    let script = Script::new().open(|conn, _| {
        conn.pause();
        corelane::Open::Accept(())
    });
    let server = TestServer::start(script);
    let (mut client, id) = server.connect();
    client.send(b"last words");
    client.finish();
    let turns = idle_turns(&server);
    assert!(turns < 50, "{turns} turns while nothing happens");
    assert_eq!(server.rest(), []);
    assert!(server.core(move |core| core.resume(id)));
    assert_eq!(server.next(), Event::Data(id, b"last words".to_vec()));
    assert_eq!(server.next(), Event::Eof(id, Vec::new()));
    assert_eq!(server.next(), Event::Close(id, CloseReason::PeerClosed));
}

#[test]
fn the_end_of_a_stream_is_never_shown_as_empty_input() {
    let server = TestServer::start(Script::new());
    for _ in 0..50 {
        let (client, id) = server.connect();
        client.finish();
        assert_eq!(server.next(), Event::Eof(id, Vec::new()));
        drop(client);
        assert_eq!(server.next(), Event::Close(id, CloseReason::PeerClosed));
    }
    // Nor where part of the input was left unconsumed: that comes with the end.
    let picky = TestServer::start(Script::new().data(|_, input, _| {
        input.consume(input.len() - 1);
        Flow::Continue
    }));
    let (mut client, id) = picky.connect();
    client.send(b"abc");
    assert_eq!(picky.next(), Event::Data(id, b"abc".to_vec()));
    client.finish();
    assert_eq!(picky.next(), Event::Eof(id, b"c".to_vec()));
    assert_eq!(picky.next(), Event::Close(id, CloseReason::PeerClosed));
}

#[test]
fn a_reset_of_an_idle_paused_connection_is_noticed_and_costs_nothing() {
    let server = TestServer::start(Script::new());
    let (mut client, id) = server.connect();
    assert!(server.core(move |core| core.pause(id)));
    client.send(b"never read");
    client.reset();
    assert_eq!(server.next(), Event::Close(id, CloseReason::Reset));
    let turns = idle_turns(&server);
    assert!(turns < 50, "{turns} turns while nothing happens");
}

#[test]
fn a_reset_after_the_peers_end_is_noticed() {
    // The handler has seen the end and keeps the connection open for a reply that is still being made.
    let server = TestServer::start(Script::new().eof(|_, _, _| Flow::Continue));
    let (client, id) = server.connect();
    client.finish();
    server.expect(Event::Eof(id, Vec::new()));
    client.reset();
    assert_eq!(server.closed(id), CloseReason::Reset);
    let turns = idle_turns(&server);
    assert!(turns < 50, "{turns} turns while nothing happens");
}

#[test]
fn an_error_of_a_write_is_not_hidden() {
    let server = TestServer::start(Script::new());
    let (client, id) = server.connect();
    // The reactor has not looked at its events when it writes.
    let hold = server.hold(0);
    client.reset();
    server.handle.write_with_receipt(id, "to nobody", server.receipt(1)).unwrap();
    drop(hold);
    assert_eq!(server.next(), Event::Delivered(1, Delivery::Failed { sent: 0 }));
    assert_eq!(server.next(), Event::Close(id, CloseReason::Reset));
    server.handle.write_with_receipt(id, "to nobody", server.receipt(2)).unwrap();
    assert_eq!(server.next(), Event::Delivered(2, Delivery::Failed { sent: 0 }));
    assert_eq!(server.total().errors, [], "a reset is told as one, not as an error");
}

#[test]
fn an_error_of_a_write_in_a_callback_ends_the_connection() {
    // The peer has gone when its request is answered; later writes say so.
    let (write, gone) = (Arc::new(AtomicBool::new(false)), Shared::from(vec![1; 20_000]));
    let go = Arc::clone(&write);
    let script = Script::new().data(move |conn, input, report| {
        input.take_all();
        eventually("the peer's reset", || go.load(Ordering::Relaxed));
        for _ in 0..3 {
            report.send(Event::Wrote(conn.write(&gone)));
        }
        Flow::Continue
    });
    let server = TestServer::start(script);
    let (mut client, id) = server.connect();
    client.send(b"request");
    server.data(id);
    client.reset();
    write.store(true, Ordering::Relaxed);
    // The first write finds out; from then on the connection is closed.
    assert!(matches!(server.next(), Event::Wrote(_)));
    assert_eq!(server.next(), Event::Wrote(Written::Closed));
    assert_eq!(server.next(), Event::Wrote(Written::Closed));
    assert_eq!(server.next(), Event::Close(id, CloseReason::Reset));
}

#[test]
fn an_abort_resets_and_drops_what_was_not_sent() {
    let script = Script::new().data(|conn, input, report| {
        input.take_all();
        conn.write_with_receipt(b"never sent?", report.receipt(1));
        Flow::Abort
    });
    let server = TestServer::start(script);
    let (mut client, id) = server.connect();
    client.send(b"x");
    assert_eq!(client.receive_rest().1, End::Reset);
    assert_eq!(server.closed(id), CloseReason::Aborted);
}

#[test]
fn our_end_first_then_the_peers() {
    let server = TestServer::start(Script::new());
    let (mut client, id) = server.connect();
    server.core(move |core| {
        assert!(core.write(id, b"that is all").is_taken());
        assert!(core.finish(id));
        assert_eq!(core.write(id, b"or not"), Written::Closed);
    });
    assert_eq!(client.receive_all(), b"that is all");
    // The peer may go on.
    client.send(b"I am not done");
    assert_eq!(server.data(id), b"I am not done");
    drop(client);
    assert_eq!(server.closed(id), CloseReason::PeerClosed);
}

#[test]
fn a_connection_that_ends_resets_a_peer_that_lacks_part_of_the_output() {
    // Whatever ended it: a stream that is cut off must not look complete.
    let deadlines = Deadlines { idle: Some(Duration::from_millis(100)), ..Deadlines::default() };
    let small = SocketOptions { send_buffer: Some(4096), ..SocketOptions::default() };
    let server = Server::new().watermarks(ROOMY).deadlines(deadlines).socket_options(small);
    let script = Script::new().open(|conn, _| {
        conn.write(&vec![1; BACKLOG]);
        corelane::Open::Accept(())
    });
    let server = TestServer::with(server, script);
    let (mut client, id) = server.connect_narrow();
    assert_eq!(server.closed(id), CloseReason::Idle);
    let (bytes, end) = client.receive_rest();
    assert!(bytes.len() < BACKLOG);
    assert_eq!(end, End::Reset);
}

#[test]
fn a_refused_connection_gets_its_farewell() {
    let server = TestServer::start(Script::new().open(|conn, _| {
        conn.write(b"not today");
        corelane::Open::Refuse
    }));
    for _ in 0..20 {
        let mut client = Client::connect(server.address());
        client.send(b"hello?");
        assert_eq!(client.receive_all(), b"not today");
    }
    eventually("the end of all of them", || server.total().active == 0);
    let total = server.total();
    assert_eq!((total.accepted, total.refused, total.closed_in_all()), (20, 20, 0));
}
