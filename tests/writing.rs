//! What is written arrives: every byte, once, in order, however the kernel takes it; and a receipt is
//! answered exactly once, whatever becomes of its write.

mod support;

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use corelane::{
    Address, CloseReason, Delivery, Dial, Flow, Open, Receipt, Server, Shared, SlowConsumer, SocketOptions,
    Watermarks, Written,
};
use support::{Client, End, Event, Random, Script, TempDir, TestServer, eventually};

const ROOMY: Watermarks = Watermarks { high: 64 << 10, low: 16 << 10, cap: 64 << 20 };

/// The kernel takes little at a time.
fn narrow() -> Server {
    let options = SocketOptions { send_buffer: Some(4096), ..SocketOptions::default() };
    Server::new().socket_options(options).watermarks(ROOMY)
}

/// Reads to the end in chunks of random sizes.
fn read_in_chunks(client: &mut Client, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 30_000];
    loop {
        let limit = 1 + random.below(chunk.len());
        match client.read(&mut chunk[..limit]).unwrap() {
            0 => return bytes,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

#[test]
fn partial_writes_neither_repeat_nor_drop_bytes() {
    let directory = TempDir::new();
    let unix = Address::Unix(directory.join("narrow"));
    for address in ["127.0.0.1:0".parse().unwrap(), unix] {
        let reply = Arc::new(Random::new(3).bytes(600 << 10));
        let whole = Arc::clone(&reply);
        // Pieces of all sizes and kinds, with room in between and without.
        let script = Script::new().quiet().data(move |conn, input, _| {
            let mut random = Random::new(u64::from(input.take_all()[0]));
            let most = [100, 5_000, 20_000, 300_000][random.below(4)];
            for piece in random.pieces(&whole, most) {
                let written = match random.below(4) {
                    0 => conn.write_shared(&Shared::from(piece)),
                    1 => {
                        let pieces = random.pieces(piece, 1 + piece.len() / 3);
                        conn.write_slices(&pieces)
                    }
                    2 => {
                        let id = conn.id();
                        conn.core().write(id, piece)
                    }
                    _ => conn.write(piece),
                };
                assert!(written.is_taken(), "{written:?}");
            }
            Flow::Close
        });
        let server = TestServer::configured(narrow().listen(address).reactors(1), script);
        for seed in 0..12 {
            let mut client = server.client();
            client.send(&[seed]);
            let received = read_in_chunks(&mut client, &mut Random::new(seed.into()));
            assert_eq!(received.len(), reply.len());
            assert!(received == *reply, "seed {seed}");
        }
    }
}

#[test]
fn more_slices_than_the_kernel_takes_at_once() {
    for (count, size, backlog) in [
        (1_025, 1, false),
        (1_025, 64, false),
        (1_025, 64, true),
        (5_000, 1, false),
        (5_000, 7, true),
        (5_000, 300, false),
    ] {
        // Empty slices among them count for nothing.
        let slices: Vec<Vec<u8>> =
            (0..count).map(|n| Random::new(n).bytes(size * (n % 50 != 0) as usize)).collect();
        let mut expected = if backlog { vec![9; 1 << 20] } else { Vec::new() };
        expected.extend(slices.concat());
        let script = Script::new().data(move |conn, input, _| {
            input.take_all();
            if backlog {
                conn.write(&vec![9; 1 << 20]);
            }
            let slices: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
            assert!(conn.write_slices(&slices).is_taken());
            Flow::Close
        });
        let server = TestServer::with(if backlog { narrow() } else { Server::new() }, script);
        let mut client = server.client();
        client.send(b"go");
        assert!(client.receive_all() == expected, "{count} slices of {size}, backlog {backlog}");
    }
}

#[test]
fn more_shared_payloads_than_the_kernel_takes_at_once() {
    let payloads: Vec<Shared> =
        (0..3_000).map(|n| Shared::from(Random::new(n).bytes(n as usize % 90))).collect();
    let expected: Vec<u8> = payloads.iter().flat_map(|payload| payload.to_vec()).collect();
    let server = TestServer::start(Script::new());
    let (mut client, id) = server.connect();
    server.core(move |core| {
        payloads.iter().for_each(|payload| assert!(core.write_shared(id, payload).is_taken()));
        core.close(id)
    });
    assert!(client.receive_all() == expected);
}

#[test]
fn more_than_two_gigabytes_in_one_backlog() {
    const PAYLOAD: usize = 32 << 20;
    const COUNT: usize = 66;
    const { assert!(PAYLOAD * COUNT > 1 << 31) };
    let payload = Shared::from(Random::new(4).bytes(PAYLOAD));
    let server =
        TestServer::with(Server::new().watermarks(Watermarks { cap: 4 << 30, ..ROOMY }), Script::new());
    let (mut client, id) = server.connect();
    let receipt = server.receipt(1);
    let copy = payload.clone();
    let waiting = server.core(move |core| {
        for _ in 1..COUNT {
            assert_eq!(core.write_shared(id, &copy), Written::High);
        }
        assert_eq!(core.write_with_receipt(id, &copy, receipt), Written::High);
        core.pending_output(id)
    });
    // The kernel has taken a little of it.
    assert!(waiting.is_some_and(|waiting| waiting > 1 << 31), "{waiting:?}");
    let mut chunk = vec![0; 4 << 20];
    for _ in 0..COUNT {
        for part in payload.chunks(chunk.len()) {
            client.read_exact(&mut chunk).unwrap();
            assert!(chunk == part);
        }
    }
    server.expect(Event::Delivered(1, Delivery::Sent));
    server.expect(Event::Drained(id));
    assert_eq!(server.total().bytes_out, (PAYLOAD * COUNT) as u64);
}

#[test]
fn a_wake_during_a_backlog_repeats_neither_output_nor_input() {
    // The handler keeps half a message, owes a long reply, and is woken again and again meanwhile.
    let reply = Arc::new(Random::new(5).bytes(4 << 20));
    let long = Arc::clone(&reply);
    let script = Script::new().data(move |conn, input, _| {
        input.consume(7);
        conn.write(&long);
        Flow::Continue
    });
    let server = TestServer::with(narrow(), script);
    let (mut client, id) = server.connect_narrow();
    client.send(b"requestrest");
    assert_eq!(server.data(id), b"requestrest");
    let handle = server.handle.clone();
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    // In order behind the reply, from another thread.
    let pushes = thread::spawn(move || {
        let mut pushed = Vec::new();
        for n in 0..2_000u32 {
            handle.write(id, n.to_le_bytes().to_vec()).unwrap();
            pushed.extend(n.to_le_bytes());
            while handle.total().commands + 500 < u64::from(n) && !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        }
        handle.close(id).unwrap();
        pushed
    });
    for _ in 0..200 {
        server.core(|_| ());
    }
    let received = read_in_chunks(&mut client, &mut Random::new(6));
    done.store(true, Ordering::Relaxed);
    let pushed = pushes.join().unwrap();
    assert_eq!(received.len(), reply.len() + pushed.len());
    assert!(received[..reply.len()] == reply[..]);
    assert!(received[reply.len()..] == pushed[..]);
    drop(client);
    assert_eq!(server.closed(id), CloseReason::Local);
    let shown = server.rest().into_iter().filter(|event| matches!(event, Event::Data(..))).count();
    assert_eq!(
        shown, 0,
        "the rest of the input was shown again although nothing came and nothing was paused"
    );
}

#[test]
fn a_big_write_in_on_open_arrives_whole_and_the_connection_works_on() {
    let greeting = Arc::new(Random::new(7).bytes(3 << 20));
    let long = Arc::clone(&greeting);
    let script = Script::echo().open(move |conn, report| {
        report.send(Event::Wrote(conn.write(&long)));
        Open::Accept(())
    });
    let server = TestServer::with(Server::new().watermarks(ROOMY), script);
    for _ in 0..5 {
        let (mut client, id) = server.connect_narrow();
        assert_eq!(server.next(), Event::Wrote(Written::High));
        assert!(client.receive(greeting.len()) == *greeting);
        assert_eq!(server.next(), Event::Drained(id));
        client.echo(b"and now something else");
        client.finish();
        assert_eq!(client.receive_all(), b"");
        assert_eq!(server.closed(id), CloseReason::PeerClosed);
        server.rest();
    }
}

#[test]
fn a_big_write_in_on_open_arrives_whole_before_a_refusal() {
    let farewell = Arc::new(Random::new(8).bytes(1 << 20));
    let long = Arc::clone(&farewell);
    let script = Script::new().open(move |conn, _| {
        assert!(conn.write(&long).is_taken());
        Open::Refuse
    });
    let server = TestServer::with(narrow(), script);
    assert!(server.client().receive_all() == *farewell);
}

#[test]
fn small_writes_of_a_callback_leave_together() {
    let server = TestServer::start(Script::new().data(|conn, input, _| {
        input.take_all().iter().for_each(|byte| assert!(conn.write(&[*byte]).is_taken()));
        assert_eq!(conn.pending_output(), 1_000);
        Flow::Continue
    }));
    let (mut client, id) = server.connect();
    let before = server.total().writes;
    client.send(&[5; 1_000]);
    assert_eq!(client.receive(1_000), [5; 1_000]);
    assert_eq!(server.data(id).len(), 1_000);
    assert_eq!(server.total().writes - before, 1);
}

#[test]
fn a_large_write_to_another_connection_leaves_at_once_in_its_place() {
    let other = Arc::new(Mutex::new(None));
    let target = Arc::clone(&other);
    let large = Random::new(9).bytes(12_000);
    let expected = [b"before", &large[..], b"after"].concat();
    let script = Script::new().quiet().data(move |conn, input, _| {
        input.take_all();
        let Some(other) = *target.lock().unwrap() else { return Flow::Continue };
        conn.write(b"mine, ");
        let core = conn.core();
        assert_eq!(core.write(other, b"before"), Written::Accepted);
        assert_eq!(core.pending_output(other), Some(6));
        assert_eq!(core.write(other, &large), Written::Accepted);
        assert_eq!(core.pending_output(other), Some(0));
        assert_eq!(core.write(other, b"after"), Written::Accepted);
        assert_eq!(core.pending_output(other), Some(5));
        assert_eq!(conn.pending_output(), 6, "what the callback gathered is where it was");
        conn.write(b"and mine");
        Flow::Continue
    });
    let server = TestServer::start(script);
    let (mut reader, id) = server.connect();
    let (mut writer, _) = server.connect();
    *other.lock().unwrap() = Some(id);
    let before = server.total().writes;
    writer.send(b"go");
    assert_eq!(writer.receive(14), b"mine, and mine");
    assert!(reader.receive(expected.len()) == expected);
    assert_eq!(server.total().writes - before, 3);
}

#[test]
fn writes_to_another_connection_arrive_in_order_however_the_kernel_takes_them() {
    for seed in 0..12 {
        let server = TestServer::with(narrow(), Script::new());
        let (mut client, id) = server.connect_narrow();
        let bytes = Random::new(seed).bytes(600 << 10);
        let whole = bytes.clone();
        let drains = server.core(move |core| {
            let mut random = Random::new(seed);
            let most = [5_000, 20_000, 300_000][random.below(3)];
            let mut last = Written::Accepted;
            for piece in random.pieces(&whole, most) {
                last = match random.below(4) {
                    0 => core.write_shared(id, &Shared::from(piece)),
                    1 => core.write_slices(id, &random.pieces(piece, 1 + piece.len() / 3)),
                    _ => core.write(id, piece),
                };
                assert!(last.is_taken());
            }
            last == Written::High
        });
        assert!(drains, "the client has read nothing yet");
        assert_eq!(server.rest(), [], "nothing is told from within the call");
        assert!(client.receive(bytes.len()) == bytes, "seed {seed}");
        server.expect(Event::Drained(id));
    }
}

#[test]
fn a_large_write_to_another_connection_that_fails_is_told_after_the_callback() {
    let (write, other) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let (go, target) = (Arc::clone(&write), Arc::clone(&other));
    let script = Script::new().quiet().data(move |conn, input, report| {
        input.take_all();
        eventually("the peer's reset", || go.load(Ordering::Relaxed));
        let other = target.lock().unwrap().unwrap();
        report.send(Event::Wrote(conn.core().write(other, &[1; 20_000])));
        report.send(Event::Wrote(conn.core().write(other, &[1; 20_000])));
        report.note("the callback ends");
        Flow::Continue
    });
    let server = TestServer::start(script);
    let (reader, id) = server.connect();
    let (mut writer, _) = server.connect();
    *other.lock().unwrap() = Some(id);
    writer.send(b"go");
    reader.reset();
    write.store(true, Ordering::Relaxed);
    assert!(matches!(server.next(), Event::Wrote(_)));
    assert_eq!(server.next(), Event::Wrote(Written::Closed));
    assert_eq!(server.next(), Event::Note("the callback ends".into()));
    assert_eq!(server.next(), Event::Close(id, CloseReason::Reset));
}

/// Counts answers by name.
#[derive(Debug, Clone, Default)]
struct Answers(Arc<Mutex<HashMap<&'static str, Vec<Delivery>>>>);

impl Answers {
    fn receipt(&self, name: &'static str) -> Receipt {
        let answers = self.clone();
        Receipt::new(move |delivery| answers.0.lock().unwrap().entry(name).or_default().push(delivery))
    }

    fn of(&self, name: &str) -> Vec<Delivery> {
        self.0.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    #[track_caller]
    fn expect(&self, name: &str, expected: Delivery) {
        eventually(&format!("the answer to {name}"), || !self.of(name).is_empty());
        assert_eq!(self.of(name), [expected], "{name}");
    }
}

const NOTHING: Delivery = Delivery::Failed { sent: 0 };

#[test]
fn a_receipt_is_answered_exactly_once_whatever_happens() {
    let answers = Answers::default();
    let given = answers.clone();
    let script = Script::new().data(move |conn, input, _| {
        match input.take_all() {
            b"whole" => assert!(conn.write_with_receipt(b"whole", given.receipt("whole")).is_taken()),
            b"empty" => assert!(conn.write_with_receipt(b"", given.receipt("empty")).is_taken()),
            b"panic" => {
                conn.write_with_receipt(b"never", given.receipt("a panic of the callback"));
                panic!("as it was told");
            }
            b"abort" => {
                conn.write_with_receipt(b"sent all the same", given.receipt("an abort in the callback"));
                return Flow::Abort;
            }
            b"close" => {
                conn.write_with_receipt(b"last", given.receipt("a close in the callback"));
                return Flow::Close;
            }
            _ => {
                conn.finish();
                assert_eq!(conn.write_with_receipt(b"", given.receipt("behind our end")), Written::Closed);
            }
        }
        Flow::Continue
    });
    let server = TestServer::with(narrow().mailbox(4, 1 << 20), script);

    for (word, name, expected) in [
        ("whole", "whole", Some(Delivery::Sent)),
        ("empty", "empty", Some(Delivery::Sent)),
        ("panic", "a panic of the callback", Some(NOTHING)),
        ("abort", "an abort in the callback", None),
        ("close", "a close in the callback", Some(Delivery::Sent)),
        ("finish", "behind our end", Some(NOTHING)),
    ] {
        let (mut client, id) = server.connect();
        client.send(word.as_bytes());
        server.data(id);
        match expected {
            Some(expected) => answers.expect(name, expected),
            // Before an abort, the kernel may take it or not.
            None => eventually(name, || !answers.of(name).is_empty()),
        }
        drop(client);
        server.closed(id);
    }

    // Dropped without having been written.
    drop(answers.receipt("dropped"));
    answers.expect("dropped", NOTHING);

    // To a connection that is gone, by the core and by a handle.
    let (client, gone) = server.connect();
    drop(client);
    server.closed(gone);
    let receipt = answers.receipt("gone, by the core");
    server.core(move |core| {
        assert_eq!(core.write_with_receipt(gone, &Shared::from("x"), receipt), Written::Closed)
    });
    answers.expect("gone, by the core", NOTHING);
    server.handle.write_with_receipt(gone, "x", answers.receipt("gone, by a handle")).unwrap();
    answers.expect("gone, by a handle", NOTHING);

    // Into a mailbox that is full of commands, or of bytes.
    let hold = server.hold(0);
    for _ in 0..4 {
        server.handle.close(gone).unwrap();
    }
    server.handle.write_with_receipt(gone, "x", answers.receipt("full")).unwrap_err();
    answers.expect("full", NOTHING);
    drop(hold);

    // Part of it sent, then the peer's reset.
    let (client, id) = server.connect_narrow();
    let first = answers.receipt("part of it sent");
    let second = answers.receipt("behind it");
    server.core(move |core| {
        core.write_with_receipt(id, &Shared::from(vec![1; 16 << 20]), first);
        core.write_with_receipt(id, &Shared::from("more"), second);
    });
    server.settle();
    client.reset();
    server.closed(id);
    assert!(
        matches!(answers.of("part of it sent")[..], [Delivery::Failed { sent }] if sent > 0 && sent < 16 << 20)
    );
    answers.expect("behind it", NOTHING);

    // To a dial that fails, and one that is given up.
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (failed, given_up) = (answers.receipt("a failed dial"), answers.receipt("a dial given up"));
    server.core(move |core| {
        let id = core.connect(&Dial::to(refused));
        assert!(core.write_with_receipt(id, &Shared::from("x"), failed).is_taken());
        let id = core.connect(&Dial::to(refused));
        assert!(core.write_with_receipt(id, &Shared::from("x"), given_up).is_taken());
        assert!(core.close(id));
    });
    answers.expect("a failed dial", NOTHING);
    answers.expect("a dial given up", NOTHING);

    // At a forced stop: queued in the connection, queued in the mailbox; and after it.
    let (_client, id) = server.connect_narrow();
    let queued = answers.receipt("queued at a forced stop");
    server.core(move |core| core.write_with_receipt(id, &Shared::from(vec![1; 16 << 20]), queued));
    let hold = server.hold(0);
    server.handle.write_with_receipt(id, "x", answers.receipt("in the mailbox at a forced stop")).unwrap();
    server.running().stop_now();
    drop(hold);
    let handle = server.handle.clone();
    drop(server);
    assert!(matches!(answers.of("queued at a forced stop")[..], [Delivery::Failed { .. }]));
    answers.expect("in the mailbox at a forced stop", NOTHING);
    handle.write_with_receipt(id, "x", answers.receipt("after the end")).unwrap_err();
    answers.expect("after the end", NOTHING);

    for (name, deliveries) in &*answers.0.lock().unwrap() {
        assert_eq!(deliveries.len(), 1, "{name}: {deliveries:?}");
    }
}

#[test]
fn a_refused_write_answers_its_receipt() {
    for policy in [SlowConsumer::Close, SlowConsumer::RefuseWrites] {
        let answers = Answers::default();
        let server =
            Server::new().slow_consumer(policy).watermarks(Watermarks { high: 100, low: 5, cap: 100 });
        let server = TestServer::with(server, Script::new());
        let (mut client, id) = server.connect();
        let (small, large) = (answers.receipt("small"), answers.receipt("large"));
        server.core(move |core| {
            assert_eq!(core.write_with_receipt(id, &Shared::from(vec![1; 60]), small), Written::Accepted);
            assert_eq!(core.write_with_receipt(id, &Shared::from(vec![2; 60]), large), Written::Refused);
        });
        answers.expect("large", NOTHING);
        if policy == SlowConsumer::Close {
            answers.expect("small", NOTHING);
            assert_eq!(client.receive_rest().1, End::Reset);
        } else {
            answers.expect("small", Delivery::Sent);
            assert_eq!(client.receive(60), [1; 60]);
        }
    }
}

#[test]
fn a_receipt_that_panics_hurts_nobody() {
    let server = TestServer::start(Script::echo());
    let (mut client, id) = server.connect();
    server.handle.write_with_receipt(id, "hello", Receipt::new(|_| panic!("in a receipt"))).unwrap();
    assert_eq!(client.receive(5), b"hello");
    client.echo(b"still here");
    assert_eq!(server.total().panics, 1);
}

#[test]
fn of_many_payloads_in_one_turn_the_first_leaves_at_once_and_the_others_together() {
    let server = TestServer::start(Script::new());
    let (mut client, id) = server.connect();
    for round in 1..=3 {
        server.core(move |core| {
            for part in 0..10 {
                assert_eq!(core.write_shared(id, &Shared::from([part; 100].as_slice())), Written::Accepted);
                assert_eq!(core.pending_output(id), Some(part as usize * 100));
            }
        });
        let expected: Vec<u8> = (0..10).flat_map(|part| [part; 100]).collect();
        assert_eq!(client.receive(1_000), expected);
        server.settle();
        assert_eq!(server.total().writes, round * 2);
    }
}
