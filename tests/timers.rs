//! Timers fire in order and never early; deadlines end a connection for the reason they say.

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use corelane::{CloseReason, Deadlines, Flow, MinimumRate, Server, StartError, Watermarks};
use support::{Client, End, Event, Random, Script, TestServer, eventually};

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn timers_are_never_early_and_fire_in_order() {
    let server = TestServer::start(Script::new().timer(|key, core, report| {
        // `now` is the time at which the turn began: not later than that is early.
        report.note(format!("{key} {}", core.now().elapsed().as_nanos() < u128::MAX));
    }));
    let mut random = Random::new(1);
    let mut due: Vec<(Duration, u64)> =
        (0..500).map(|key| (Duration::from_micros(random.below(150_000) as u64), key)).collect();
    let set = due.clone();
    let start = server.core(move |core| {
        let start = core.now();
        set.iter().for_each(|&(after, key)| {
            core.set_timer(after, key);
        });
        start
    });
    // Equal times fire in the order in which they were set.
    due.sort_by_key(|&(after, _)| after);
    for (after, key) in due {
        server.find("a timer", |seen| match seen.event {
            Event::Timer(fired) => {
                assert_eq!(fired, key);
                Some(())
            }
            _ => None,
        });
        assert!(Instant::now() >= start + after, "{key} is early");
    }
    assert_eq!(server.total().timers, 500);
}

#[test]
fn a_timer_knows_the_time_at_which_it_was_due() {
    let server = TestServer::start(Script::new().timer(|_, core, report| {
        report.note(format!("{:?}", core.now()));
        assert!(core.now() <= Instant::now());
    }));
    for micros in [0, 1, 50, 999, 1_000, 1_001, 9_999, 20_000] {
        let after = Duration::from_micros(micros);
        let start = server.core(move |core| {
            core.set_timer(after, micros);
            core.now()
        });
        server.expect(Event::Timer(micros));
        assert!(Instant::now() >= start + after);
    }
    assert_eq!(server.total().panics, 0);
}

#[test]
fn a_cancelled_timer_does_not_fire() {
    let server = TestServer::start(Script::new());
    let (first, second, third) = server.core(|core| {
        let first = core.set_timer(SHORT, 1);
        let second = core.set_timer(SHORT, 2);
        let third = core.set_timer(SHORT * 2, 3);
        assert!(core.cancel_timer(first));
        assert!(!core.cancel_timer(first), "it is cancelled already");
        (first, second, third)
    });
    server.expect(Event::Timer(2));
    server.core(move |core| {
        // Another timer in the place of one that has gone is not mistaken for it.
        let successor = core.set_timer(SHORT, 4);
        assert!(!core.cancel_timer(first) && !core.cancel_timer(second));
        assert_ne!(successor, second);
        assert!(core.cancel_timer(third));
    });
    server.expect(Event::Timer(4));
    assert!(server.rest().iter().all(|event| !matches!(event, Event::Timer(1 | 3))));
}

#[test]
fn a_timer_may_set_and_cancel_others() {
    let server = TestServer::start(Script::new().timer(|key, core, _| {
        if key == 1 {
            let doomed = core.set_timer(Duration::ZERO, 99);
            core.set_timer(Duration::from_millis(1), 2);
            assert!(core.cancel_timer(doomed));
        }
    }));
    server.core(|core| core.set_timer(Duration::ZERO, 1));
    server.expect(Event::Timer(1));
    server.expect(Event::Timer(2));
    server.settle();
    assert_eq!(server.rest(), []);
}

#[test]
fn a_timer_of_no_delay_that_sets_itself_again_starves_nobody() {
    let server = TestServer::start(Script::echo().timer(|key, core, _| {
        core.set_timer(Duration::ZERO, key);
    }));
    server.core(|core| core.set_timer(Duration::ZERO, 1));
    let (mut client, _) = server.connect();
    for _ in 0..100 {
        client.echo(b"still served");
    }
    assert!(server.total().timers > 0);
    // One turn, one firing.
    let total = server.total();
    assert!(total.timers <= total.turns);
}

#[test]
fn a_flood_of_due_timers_starves_nobody() {
    let server = TestServer::start(Script::echo());
    let (mut client, _) = server.connect();
    client.send(b"before");
    server.core(|core| {
        (0..20_000).for_each(|key| {
            core.set_timer(Duration::ZERO, key);
        });
    });
    assert_eq!(client.receive(6), b"before");
    client.echo(b"meanwhile");
    eventually("all of them", || server.handle.total().timers == 20_000);
}

#[test]
fn ticks_come_again_and_again_and_no_zero_period_is_taken() {
    let server = TestServer::with(Server::new().tick(Duration::from_millis(5)), Script::echo());
    let (begun, before) = (Instant::now(), server.total().turns);
    for _ in 0..10 {
        server.expect(Event::Tick);
    }
    let turns = server.total().turns - before;
    let most = 100 + begun.elapsed().as_millis() as u64;
    assert!(turns < most, "{turns} turns for ten ticks");
    server.client().echo(b"hello");

    for period in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(100 * 24 * 60 * 60)] {
        match TestServer::try_start(Server::new().tick(period), Script::new()) {
            Err(StartError::Config(error)) => {
                assert_eq!(error.field(), "tick");
                assert!(error.to_string().contains("1ms to 24 days"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn with_deadlines(deadlines: Deadlines, script: Script) -> TestServer {
    TestServer::with(Server::new().deadlines(deadlines), script)
}

/// That it is not closed before its time, and how.
#[track_caller]
fn ends(server: &TestServer, id: corelane::ConnId, since: Instant, after: Duration, reason: CloseReason) {
    assert_eq!(server.closed(id), reason);
    assert!(since.elapsed() >= after, "closed early");
}

#[test]
fn the_first_byte_must_come_in_time() {
    let deadlines = Deadlines { first_byte: Some(SHORT), ..Deadlines::default() };
    // What the server sends does not count.
    let script = Script::new().quiet().open(|conn, _| {
        conn.write(b"greeting");
        corelane::Open::Accept(())
    });
    let server = with_deadlines(deadlines, script);
    let start = Instant::now();
    let (mut silent, id) = server.connect();
    ends(&server, id, start, SHORT, CloseReason::FirstByte);
    assert_eq!(silent.receive_rest().0, b"greeting");

    // However long this thread takes: the byte is there when the connection is accepted.
    let hold = server.hold(0);
    let mut talking = server.client();
    talking.send(b"x");
    drop(hold);
    let id = server.opened();
    server.core(|core| core.set_timer(SHORT * 3, 1));
    server.expect(Event::Timer(1));
    assert!(server.core(move |core| core.is_open(id)));
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let deadlines = Deadlines { idle: Some(SHORT * 40), ..Deadlines::default() };
    let server = with_deadlines(deadlines, Script::new().quiet());
    let (idle, busy) = (server.connect(), server.connect());
    let start = Instant::now();
    // Bytes in either direction count.
    let (mut in_, mut out) = (true, 0);
    let (mut client, id) = busy;
    while start.elapsed() < SHORT * 80 {
        if in_ {
            client.write_all(b"x").unwrap();
        } else {
            server.core(move |core| core.write(id, b"x"));
            out += 1;
        }
        in_ = !in_;
        server.core(|core| core.set_timer(SHORT / 2, 1));
        server.expect(Event::Timer(1));
    }
    assert_eq!(server.closed(idle.1), CloseReason::Idle);
    assert_eq!(client.receive_rest().0.len(), out, "and its turn comes when nothing moves any more");
    assert_eq!(server.closed(id), CloseReason::Idle);
}

#[test]
fn the_idle_deadline_can_be_another_for_one_connection() {
    let server = TestServer::start(Script::new().open(|conn, _| {
        conn.set_idle_deadline(Some(SHORT));
        corelane::Open::Accept(())
    }));
    let start = Instant::now();
    let (_client, id) = server.connect();
    ends(&server, id, start, SHORT, CloseReason::Idle);

    let deadlines = Deadlines { idle: Some(SHORT), ..Deadlines::default() };
    let server = with_deadlines(
        deadlines,
        Script::new().open(|conn, _| {
            conn.set_idle_deadline(None);
            corelane::Open::Accept(())
        }),
    );
    let (_client, id) = server.connect();
    server.core(|core| core.set_timer(SHORT * 3, 1));
    server.expect(Event::Timer(1));
    assert!(server.core(move |core| core.is_open(id)));
}

#[test]
fn a_peer_that_takes_no_output_is_reset() {
    let deadlines = Deadlines { write_stall: Some(SHORT), ..Deadlines::default() };
    let server =
        Server::new().deadlines(deadlines).watermarks(Watermarks { cap: 64 << 20, ..Watermarks::default() });
    let server = TestServer::with(server, Script::new());
    let (mut client, id) = server.connect_narrow();
    let start = Instant::now();
    server.core(move |core| core.write(id, &vec![1; 16 << 20]));
    ends(&server, id, start, SHORT, CloseReason::WriteStall);
    assert_eq!(client.receive_rest().1, End::Reset);
    // Who waits for nothing is not stalled.
    let (_client, id) = server.connect();
    server.core(|core| core.set_timer(SHORT * 3, 1));
    server.expect(Event::Timer(1));
    assert!(server.core(move |core| core.is_open(id)));
}

#[test]
fn a_peer_that_takes_output_slowly_is_not_stalled() {
    const EACH: usize = 256 << 10;
    let deadlines = Deadlines { write_stall: Some(SHORT * 60), ..Deadlines::default() };
    let server =
        Server::new().deadlines(deadlines).watermarks(Watermarks { cap: 64 << 20, ..Watermarks::default() });
    let server = TestServer::with(server, Script::new());
    let (mut client, id) = server.connect_narrow();
    let start = Instant::now();
    server.core(move |core| core.write(id, &vec![1; 8 << 20]));
    // It lasts longer than the deadline, but each part moves in time.
    let mut received = 0;
    while start.elapsed() < SHORT * 90 {
        received += client.receive(EACH).len();
        assert!(received < 8 << 20);
        server.core(|core| core.set_timer(SHORT * 4, 1));
        server.expect(Event::Timer(1));
    }
    client.receive((8 << 20) - received);
    assert!(server.core(move |core| core.is_open(id)));
}

#[test]
fn a_closing_connection_lingers_no_longer_than_it_may() {
    for linger in [Duration::ZERO, SHORT] {
        let script = Script::new().data(|conn, input, _| {
            conn.write(input.take_all());
            Flow::Close
        });
        let server = with_deadlines(Deadlines { linger, ..Deadlines::default() }, script);
        let start = Instant::now();
        let (mut client, id) = server.connect();
        client.echo(b"bye");
        // The client keeps its side open.
        ends(&server, id, start, linger, CloseReason::Local);
        assert_eq!(client.receive_all(), b"");
    }
}

#[test]
fn an_incomplete_message_must_come_at_the_minimum_rate() {
    let rate = MinimumRate { bytes_per_second: 1_000, grace: SHORT };
    let deadlines = Deadlines { minimum_rate: Some(rate), ..Deadlines::default() };
    // A message is a line.
    let script = Script::new().quiet().data(|_, input, _| {
        while let Some(end) = input.peek().iter().position(|&byte| byte == b'\n') {
            input.consume(end + 1);
        }
        Flow::Continue
    });
    let server = with_deadlines(deadlines, script);
    let (mut slow, id) = server.connect();
    let start = Instant::now();
    slow.send(b"an incomplete li");
    ends(&server, id, start, SHORT, CloseReason::MinimumRate);
    assert_eq!(slow.receive_rest().1, End::Reset);

    // Between messages there is all the time in the world, and a fast one is left alone.
    let (mut good, id) = server.connect();
    for _ in 0..3 {
        good.send(b"a complete line\n");
        server.core(|core| core.set_timer(SHORT * 2, 1));
        server.expect(Event::Timer(1));
    }
    good.send(&[b'x'; 10_000]);
    server.core(|core| core.set_timer(SHORT * 3, 1));
    server.expect(Event::Timer(1));
    assert!(server.core(move |core| core.is_open(id)));
}

#[test]
fn deadlines_without_number_are_no_deadlines() {
    let server = TestServer::start(Script::echo());
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(server.address())).collect();
    server.core(|core| core.set_timer(SHORT * 3, 1));
    server.expect(Event::Timer(1));
    clients.iter_mut().for_each(|client| client.echo(b"hello"));
}
