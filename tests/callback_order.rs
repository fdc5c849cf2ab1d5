//! Callbacks come in the order that the handler's documentation states.

mod support;

use std::time::Duration;

use corelane::{CloseReason, Flow, Open, Server, Watermarks};
use support::{Event, Script, TestServer};

#[test]
fn a_whole_life() {
    let script = Script::new()
        .on_start(|_, _| {})
        .open(|conn, report| {
            report.send(Event::Wrote(conn.write(b"hello")));
            Open::Accept(())
        })
        .drain(|_, _| Flow::Close);
    let mut server = TestServer::start(script);
    assert_eq!(server.next(), Event::Start);
    let mut client = server.client();
    let id = server.opened();
    assert_eq!(server.next(), Event::Wrote(corelane::Written::Accepted));
    assert_eq!(client.receive(5), b"hello");
    client.send(b"one");
    assert_eq!(server.next(), Event::Data(id, b"one".to_vec()));
    client.send(b"two");
    assert_eq!(server.next(), Event::Data(id, b"two".to_vec()));
    client.finish();
    assert_eq!(server.next(), Event::Eof(id, Vec::new()));
    assert_eq!(server.next(), Event::Close(id, CloseReason::PeerClosed));
    drop(client);

    let (mut client, id) = server.connect();
    assert_eq!(server.next(), Event::Wrote(corelane::Written::Accepted));
    server.running().shutdown();
    assert_eq!(server.next(), Event::Shutdown);
    assert_eq!(server.next(), Event::Drain(id));
    assert_eq!(client.receive_all(), b"hello");
    drop(client);
    assert_eq!(server.next(), Event::Close(id, CloseReason::Shutdown));
    server.join();
    assert_eq!(server.rest(), []);
}

#[test]
fn input_that_came_with_the_connection_follows_on_open() {
    let server = TestServer::start(Script::new());
    for _ in 0..20 {
        let hold = server.hold(0);
        let mut client = server.client();
        client.send(b"early");
        client.finish();
        drop(hold);
        let Event::Open(id) = server.next() else { panic!("not open") };
        assert_eq!(server.next(), Event::Data(id, b"early".to_vec()));
        assert_eq!(server.next(), Event::Eof(id, Vec::new()));
        drop(client);
        assert_eq!(server.next(), Event::Close(id, CloseReason::PeerClosed));
    }
}

#[test]
fn nothing_comes_after_a_close_was_asked_for_but_its_end() {
    for flow in [Flow::Close, Flow::Abort] {
        let server =
            TestServer::with(Server::new().read_buffer(512), Script::new().data(move |_, _, _| flow));
        let hold = server.hold(0);
        let mut client = server.client();
        client.send(&[1; 5_000]);
        client.finish();
        drop(hold);
        let Event::Open(id) = server.next() else { panic!("not open") };
        assert_eq!(server.next(), Event::Data(id, vec![1; 512]));
        let reason = if flow == Flow::Close { CloseReason::Local } else { CloseReason::Aborted };
        assert_eq!(server.next(), Event::Close(id, reason));
        server.settle();
        assert_eq!(server.rest(), []);
    }
}

#[test]
fn a_refused_connection_is_heard_of_no_more() {
    let server = TestServer::start(Script::new().open(|_, _| Open::Refuse));
    let mut client = server.client();
    client.send(b"hello?");
    client.finish();
    assert_eq!(client.receive_all(), b"");
    server.opened();
    server.settle();
    assert_eq!(server.rest(), []);
}

#[test]
fn input_left_at_the_end_comes_again_only_after_a_pause() {
    // A connection whose peer has ended and which the handler keeps.
    let script = Script::new().data(|_, _, _| Flow::Continue).eof(|_, input, _| {
        input.consume(1);
        Flow::Continue
    });
    let server = TestServer::start(script);
    let (mut client, id) = server.connect();
    client.send(b"abc");
    assert_eq!(server.next(), Event::Data(id, b"abc".to_vec()));
    client.finish();
    assert_eq!(server.next(), Event::Eof(id, b"abc".to_vec()));
    server.settle();
    assert_eq!(server.rest(), []);
    server.core(move |core| assert!(core.pause(id) && core.resume(id)));
    assert_eq!(server.next(), Event::Data(id, b"bc".to_vec()));
    server.settle();
    assert_eq!(server.rest(), [], "the end is told once");
    // It is still open for writing.
    server.core(move |core| assert!(core.write(id, b"reply").is_taken() && core.close(id)));
    assert_eq!(client.receive_all(), b"reply");
    assert_eq!(server.next(), Event::Close(id, CloseReason::Local));
}

#[test]
fn on_drained_comes_before_the_input_that_waited_for_it() {
    let marks = Watermarks { high: 64 << 10, low: 16 << 10, cap: 64 << 20 };
    let script = Script::new().data(|conn, input, _| {
        if input.take_all() == b"first" {
            conn.write(&vec![1; 8 << 20]);
        }
        Flow::Continue
    });
    let server = TestServer::with(Server::new().watermarks(marks), script);
    for _ in 0..10 {
        let (mut client, id) = server.connect_narrow();
        client.send(b"first");
        assert_eq!(server.next(), Event::Data(id, b"first".to_vec()));
        // Nobody reads before everything is written.
        server.settle();
        client.send(b"second");
        client.finish();
        client.receive(8 << 20);
        assert_eq!(server.next(), Event::Drained(id));
        assert_eq!(server.next(), Event::Data(id, b"second".to_vec()));
        assert_eq!(server.next(), Event::Eof(id, Vec::new()));
        drop(client);
        assert_eq!(server.closed(id), CloseReason::PeerClosed);
    }
}

#[test]
fn on_close_may_write_to_and_close_others() {
    let ids = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let others = std::sync::Arc::clone(&ids);
    // Each that ends tells the next, and closes it.
    let script = Script::new().close(move |id, _, core, _| {
        assert!(!core.is_open(id), "its id is stale already");
        if let Some(next) = others.lock().unwrap().pop() {
            assert!(core.write(next, b"you are next").is_taken());
            assert!(core.abort(id) || core.close(next));
        }
    });
    let server = TestServer::start(script);
    let mut clients: Vec<_> = (0..5)
        .map(|_| {
            let (client, id) = server.connect();
            ids.lock().unwrap().push(id);
            client
        })
        .collect();
    let (first, id) = server.connect();
    first.reset();
    assert_eq!(server.closed(id), CloseReason::Reset);
    while let Some(mut client) = clients.pop() {
        assert_eq!(client.receive_all(), b"you are next");
    }
}

#[test]
fn timers_messages_and_ticks_run_between_the_callbacks_of_connections() {
    // None of them while another callback runs: all are on one thread, one at a time.
    let server = TestServer::with(
        Server::new().tick(Duration::from_millis(1)),
        Script::new().timer(|_, core, report| {
            report.note(format!("begin {}", core.reactor()));
            std::hint::spin_loop();
            report.note("end");
        }),
    );
    server.core(|core| {
        for key in 0..50 {
            core.set_timer(Duration::from_micros(key * 200), key);
        }
    });
    let mut fired = 0;
    while fired < 50 {
        match server.next() {
            Event::Timer(_) => {
                assert_eq!(server.next(), Event::Note("begin 0".to_owned()));
                assert_eq!(server.next(), Event::Note("end".to_owned()));
                fired += 1;
            }
            Event::Tick => {}
            other => panic!("{other:?}"),
        }
    }
}
