//! Nobody makes the server hold more than it was told to: watermarks, caps, pauses, and input that comes
//! again until it is consumed.

mod support;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use corelane::{Backpressure, CloseReason, ConnId, Flow, Server, Shared, SlowConsumer, Watermarks, Written};
use support::{End, Event, Random, Script, TestServer, alone, eventually, resident};

const MARKS: Watermarks = Watermarks { high: 64 << 10, low: 16 << 10, cap: 4 << 20 };

/// How many turns the reactor makes while nobody asks it for anything.
fn idle_turns(server: &TestServer) -> u64 {
    let (begun, before) = (Instant::now(), server.total().turns);
    server.core(|core| core.set_timer(Duration::from_millis(100), 77));
    server.expect(Event::Timer(77));
    let turns = server.total().turns - before;
    // With mio's poll(2) backend a reactor naps for 10 ms at most.
    turns.saturating_sub(begun.elapsed().as_millis() as u64 / 10)
}

#[test]
fn a_peer_that_sends_and_never_reads_costs_bounded_memory_and_no_time() {
    alone("a_peer_that_sends_and_never_reads_costs_bounded_memory_and_no_time", || {
        let server = TestServer::start(Script::echo());
        let (mut client, id) = server.connect_narrow();
        let bytes = Random::new(1).bytes(64 << 20);
        let before = resident();
        // The kernels fill up, then TCP holds the peer back.
        let sent = client.send_until_full(&bytes);
        assert!(sent < bytes.len(), "somebody took everything");
        let waiting = server.core(move |core| core.pending_output(id)).unwrap();
        assert!(waiting <= MARKS.high + (64 << 10), "{waiting} bytes wait");
        let turns = idle_turns(&server);
        assert!(turns < 50, "{turns} turns while nothing happens");
        assert!(resident() < before + (8 << 20));
        // And when it reads at last, everything is there.
        let mut reader = client.another();
        let expected = bytes[..sent].to_vec();
        client.finish();
        assert!(reader.receive_all() == expected);
    });
}

#[test]
fn writes_tell_the_watermark_and_on_drained_comes_once_for_each_rise() {
    let server = TestServer::with(Server::new().watermarks(MARKS), Script::new());
    let (mut client, id) = server.connect_narrow();
    for _ in 0..3 {
        let total = server.core(move |core| {
            let mut total = 0;
            assert_eq!(core.write(id, &[1; 1000]), Written::Accepted);
            total += 1000;
            while core.write(id, &[2; 5000]) == Written::Accepted {
                total += 5000;
                assert!(core.pending_output(id).unwrap() <= MARKS.high);
            }
            // Above, they are taken all the same, up to the cap.
            assert!(core.pending_output(id).unwrap() > MARKS.high);
            assert_eq!(core.write(id, &vec![3; 3 << 20]), Written::High);
            total + 5000 + (3 << 20)
        });
        server.settle();
        assert!(!server.rest().contains(&Event::Drained(id)), "nobody has read");
        client.receive(total);
        assert_eq!(server.next(), Event::Drained(id));
        server.settle();
        assert_eq!(server.rest(), []);
    }
}

#[test]
fn many_writes_in_one_turn_are_not_high_while_the_kernel_takes_them() {
    let marks = Watermarks { high: 1000, low: 100, cap: 2000 };
    let server = TestServer::with(Server::new().watermarks(marks), Script::new());
    let (mut client, id) = server.connect();
    server.core(move |core| {
        for _ in 0..100 {
            assert_eq!(core.write(id, &[7; 100]), Written::Accepted);
        }
    });
    assert_eq!(client.receive(10_000), [7; 10_000]);
    server.settle();
    assert!(!server.rest().contains(&Event::Drained(id)));
}

#[test]
fn reading_stops_by_itself_above_the_high_watermark() {
    let reply = Shared::from(vec![b'r'; 3 << 20]);
    let script = Script::new().data(move |conn, input, _| {
        // One request, a long reply, which is above the watermark whatever the kernel takes of it later.
        input.consume(1);
        assert_eq!(conn.write_shared(&reply), Written::High);
        Flow::Continue
    });
    let server = TestServer::with(Server::new().watermarks(MARKS), script);
    let (mut client, id) = server.connect_narrow();
    client.send(b"123");
    assert_eq!(server.data(id), b"123");
    client.send(b"456");
    server.settle();
    assert_eq!(server.rest(), [], "the reply to the first stands in the way of the others");
    // What was left unconsumed comes again when there is room, with what came meanwhile behind it.
    let reader = thread::spawn(move || {
        let replies = client.receive(6 * (3 << 20)).len();
        client.finish();
        (client.receive_all(), replies)
    });
    let mut requests = 1;
    let mut shown = b"3".to_vec();
    while requests < 6 {
        match server.next() {
            Event::Data(_, bytes) => {
                requests += 1;
                shown = bytes;
            }
            Event::Drained(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shown, b"6");
    assert_eq!(reader.join().unwrap(), (Vec::new(), 6 * (3 << 20)));
}

#[test]
fn with_manual_backpressure_reading_goes_on() {
    let server = Server::new().watermarks(MARKS).backpressure(Backpressure::Manual);
    let server = TestServer::with(server, Script::new());
    let (mut client, id) = server.connect_narrow();
    server.core(move |core| assert_eq!(core.write(id, &vec![1; 4 << 20]), Written::High));
    server.settle();
    client.send(b"still listening?");
    assert_eq!(server.data(id), b"still listening?");
}

#[test]
fn backpressure_can_be_chosen_for_one_connection() {
    let server = TestServer::with(
        Server::new().watermarks(MARKS),
        Script::new().open(|conn, _| {
            conn.set_backpressure(Backpressure::Manual);
            corelane::Open::Accept(())
        }),
    );
    let (mut client, id) = server.connect_narrow();
    server.core(move |core| assert_eq!(core.write(id, &vec![1; 4 << 20]), Written::High));
    server.settle();
    client.send(b"still listening?");
    assert_eq!(server.data(id), b"still listening?");
}

#[test]
fn a_slow_consumer_is_reset_at_the_cap() {
    let server = TestServer::with(Server::new().watermarks(MARKS), Script::new());
    let (mut client, id) = server.connect_narrow();
    let written = server.core(move |core| {
        let chunk = Shared::from(vec![1; 1 << 20]);
        (0..40)
            .map(|_| core.write_shared(id, &chunk))
            .take_while(|w| *w != Written::Refused)
            .collect::<Vec<_>>()
    });
    // The kernel takes some of it first.
    assert!(written.len() < 40, "{written:?}");
    assert_eq!(written[written.len() - 3..], [Written::High; 3]);
    assert_eq!(server.closed(id), CloseReason::SlowConsumer);
    assert_eq!(client.receive_rest().1, End::Reset);
    assert_eq!(server.total().refused_writes, 1);
}

#[test]
fn a_refused_write_leaves_the_stream_whole() {
    let server = Server::new().watermarks(MARKS).slow_consumer(SlowConsumer::RefuseWrites);
    let server = TestServer::with(server, Script::new());
    let (mut client, id) = server.connect_narrow();
    let mut expected = Vec::new();
    let mut refusals = 0;
    let mut random = Random::new(2);
    // Another write fits when the peer has read; a refused one leaves no trace in the stream.
    while refusals < 20 {
        let chunk = random.bytes(1 + random.clone().below(400_000));
        let shared = Shared::from(chunk.clone());
        match server.core(move |core| core.write_shared(id, &shared)) {
            Written::Accepted | Written::High => expected.extend(chunk),
            Written::Refused => {
                refusals += 1;
                let part: Vec<u8> = expected.drain(..expected.len() / 3).collect();
                assert!(client.receive(part.len()) == part);
            }
            Written::Closed => panic!("closed"),
        }
    }
    server.handle.close(id).unwrap();
    assert!(client.receive_all() == expected);
    assert_eq!(server.total().refused_writes, 20);
}

#[test]
fn on_drained_follows_a_refused_write_below_the_high_watermark() {
    let server = Server::new().slow_consumer(SlowConsumer::RefuseWrites);
    let marks = Watermarks { high: 1_000, low: 100, cap: 1_000 };
    let server = TestServer::with(server.watermarks(marks), Script::new());
    let (_client, id) = server.connect();
    server.core(move |core| {
        assert_eq!(core.write(id, &[1; 600]), Written::Accepted);
        assert_eq!(core.write(id, &[2; 600]), Written::Refused);
    });
    assert_eq!(server.next(), Event::Drained(id));
    server.core(move |core| assert_eq!(core.write(id, &[2; 1_001]), Written::Refused));
    assert_eq!(server.rest(), [], "nothing waits for a write that never fits");
}

#[test]
fn a_write_larger_than_the_cap_is_refused_whole() {
    let server = Server::new().slow_consumer(SlowConsumer::RefuseWrites);
    let server =
        TestServer::with(server.watermarks(Watermarks { high: 1_000, low: 0, cap: 1_000 }), Script::new());
    let (mut client, id) = server.connect();
    server.core(move |core| {
        assert_eq!(core.write(id, &[1; 1_001]), Written::Refused);
        assert_eq!(core.write_slices(id, &[&[1; 500], &[1; 501]]), Written::Refused);
        assert_eq!(core.write(id, &[2; 1_000]), Written::Accepted);
        assert_eq!(core.write(id, b"x"), Written::Refused);
        assert!(core.close(id));
    });
    assert_eq!(client.receive_all(), [2; 1_000]);
}

#[test]
fn a_paused_connection_is_not_read_and_holds_its_peer_back() {
    let server = TestServer::start(Script::new().quiet());
    let (mut client, id) = server.connect();
    assert!(server.core(move |core| core.pause(id)));
    let bytes = vec![1; 64 << 20];
    let sent = client.send_until_full(&bytes);
    assert!(sent < bytes.len());
    assert_eq!(server.total().bytes_in, 0);
    let turns = idle_turns(&server);
    assert!(turns < 50, "{turns} turns while nothing happens");
    assert!(server.core(move |core| core.resume(id)));
    eventually("all of it", || server.handle.total().bytes_in == sent as u64);
}

#[test]
fn unconsumed_input_comes_again_after_a_pause_even_if_nothing_new_came() {
    let server = TestServer::start(Script::new().data(|conn, input, _| {
        input.consume(1);
        conn.pause();
        Flow::Continue
    }));
    let (mut client, id) = server.connect();
    client.send(b"abc");
    for expected in ["abc", "bc", "c"] {
        assert_eq!(server.next(), Event::Data(id, expected.into()));
        server.settle();
        assert_eq!(server.rest(), [], "it is paused");
        assert!(server.core(move |core| core.resume(id)));
    }
    client.send(b"d");
    assert_eq!(server.next(), Event::Data(id, b"d".to_vec()));
}

#[test]
fn resuming_what_is_not_paused_does_nothing() {
    let server = TestServer::start(Script::new().data(|_, _, _| Flow::Continue));
    let (mut client, id) = server.connect();
    client.send(b"abc");
    assert_eq!(server.data(id), b"abc");
    assert!(server.core(move |core| core.resume(id)));
    server.settle();
    assert_eq!(server.rest(), []);
    client.send(b"d");
    assert_eq!(server.data(id), b"abcd");
}

/// Consumes random amounts, pauses at random, and keeps a model of what it must be shown.
#[test]
fn whatever_is_left_unconsumed_comes_again_with_more_behind_it() {
    #[derive(Default)]
    struct Model {
        consumed: Vec<u8>,
        left: Vec<u8>,
        paused: Option<ConnId>,
    }
    for (seed, read_buffer) in [(1, 512), (2, 4096), (3, 64 << 10)] {
        let model: Arc<Mutex<Model>> = Arc::default();
        let random = Mutex::new(Random::new(seed));
        let shared = Arc::clone(&model);
        let script = Script::new().quiet().data(move |conn, input, report| {
            let (mut model, mut random) = (shared.lock().unwrap(), random.lock().unwrap());
            if !input.peek().starts_with(&model.left) {
                report.note("what was left is not what came again");
            }
            let count = random.below(input.len() + 1);
            let count = if random.below(3) == 0 { input.len() } else { count };
            model.consumed.extend_from_slice(input.take(count));
            model.left = input.peek().to_vec();
            if random.below(4) == 0 {
                conn.pause();
                model.paused = Some(conn.id());
            }
            Flow::Continue
        });
        let shared = Arc::clone(&model);
        let script = script.eof(move |_, input, _| {
            shared.lock().unwrap().consumed.extend_from_slice(input.take_all());
            Flow::Close
        });
        let server = TestServer::with(Server::new().read_buffer(read_buffer).input_cap(4 << 20), script);
        let (mut client, _) = server.connect();
        let bytes = Random::new(seed).bytes(1 << 20);
        let expected = bytes.clone();
        let sending = thread::spawn(move || {
            let mut random = Random::new(seed);
            random.pieces(&bytes, 20_000).into_iter().for_each(|piece| client.send(piece));
            client.finish();
            client.receive_all()
        });
        while !sending.is_finished() {
            let paused = model.lock().unwrap().paused.take();
            if let Some(id) = paused {
                server.core(move |core| core.resume(id));
            }
            thread::yield_now();
        }
        assert_eq!(sending.join().unwrap(), b"");
        assert!(model.lock().unwrap().consumed == expected);
        assert!(!server.rest().iter().any(|event| matches!(event, Event::Note(_))));
    }
}

#[test]
fn input_that_nobody_consumes_closes_at_the_cap() {
    let server = Server::new().input_cap(10_000).read_buffer(1024);
    let server = TestServer::with(server, Script::new().quiet().data(|_, _, _| Flow::Continue));
    let (mut client, id) = server.connect();
    client.send(&[1; 10_000]);
    eventually("all of it", || server.handle.total().bytes_in == 10_000);
    assert!(server.core(move |core| core.is_open(id)), "the cap itself is allowed");
    client.send(&[2]);
    assert_eq!(server.closed(id), CloseReason::InputOverflow);
    assert_eq!(client.receive_rest().1, End::Reset);
}
