//! A panic in a callback costs the connection it was about, and nothing else.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use corelane::{CloseReason, Delivery, Dial, Flow, Open, PanicPolicy, Server, StartError};
use support::{Client, End, Event, Script, TestServer, eventually, is_child, run_child, wait_for_nobody_at};

/// Panics where the input says so.
fn fragile() -> Script {
    Script::new().data(|conn, input, report| match input.take_all() {
        b"panic" => {
            conn.write_with_receipt(b"half a reply", report.receipt(1));
            panic!("in on_data");
        }
        b"eof" | b"drained" | b"drain" => Flow::Continue,
        bytes => {
            conn.write(bytes);
            Flow::Continue
        }
    })
}

#[track_caller]
fn died(server: &TestServer, id: corelane::ConnId, mut client: Client) {
    assert_eq!(server.closed(id), CloseReason::HandlerPanic);
    assert_eq!(client.receive_rest(), (Vec::new(), End::Reset));
}

#[test]
fn in_on_data() {
    let mut server = TestServer::start(fragile());
    let (mut other, _) = server.connect();
    let (mut client, id) = server.connect();
    client.send(b"panic");
    died(&server, id, client);
    // What it had written until then is not sent, and is answered for.
    server.expect(Event::Delivered(1, Delivery::Failed { sent: 0 }));
    other.echo(b"I live");
    drop(other);
    let report = server.stop();
    assert_eq!(report.total.panics, 1);
    assert_eq!(report.total.closed_by(CloseReason::HandlerPanic), 1);
    let panic = &report.panics[0];
    assert_eq!((panic.reactor, panic.callback, &*panic.message), (0, "on_data", "in on_data"));
    assert_eq!(panic.payload.downcast_ref(), Some(&"in on_data"));
    assert!(report.to_string().contains("1 panics; the first: reactor 0, on_data: in on_data"), "{report}");
}

#[test]
fn in_on_open() {
    let server = TestServer::start(Script::new().open(|conn, _| -> Open<()> {
        conn.write(b"never sent");
        panic!("in on_open")
    }));
    // A reset may come as early as in the connect.
    if let Ok(mut client) = Client::try_connect(server.address()) {
        assert_eq!(client.receive_rest().0, b"");
    }
    let id = server.opened();
    eventually("its end", || server.handle.total().active == 0);
    assert!(!server.core(move |core| core.is_open(id)));
    assert_eq!(server.rest(), [], "it was never open, so there is no on_close");
}

#[test]
fn in_on_eof() {
    let mut server = TestServer::start(fragile().eof(|_, _, _| panic!("in on_eof")));
    let (client, id) = server.connect();
    client.finish();
    assert_eq!(server.closed(id), CloseReason::HandlerPanic);
    assert_eq!(server.stop().panics[0].callback, "on_eof");
}

#[test]
fn in_on_drained() {
    let mut server = TestServer::start(Script::new().drained(|_, _| panic!("in on_drained")));
    let (mut client, id) = server.connect_narrow();
    server.core(move |core| core.write(id, &vec![1; 4 << 20]));
    // The reset may overtake the last of it.
    assert_eq!(client.receive_rest().1, End::Reset);
    assert_eq!(server.closed(id), CloseReason::HandlerPanic);
    assert_eq!(server.stop().panics[0].callback, "on_drained");
}

#[test]
fn in_on_drain() {
    let mut server = TestServer::start(Script::new().drain(|_, _| panic!("in on_drain")));
    let (client, id) = server.connect();
    let report = server.stop();
    died(&server, id, client);
    assert_eq!(report.panics[0].callback, "on_drain");
}

#[test]
fn in_on_close() {
    let mut server = TestServer::start(Script::echo().close(|_, _, _, _| panic!("in on_close")));
    let (mut other, _) = server.connect();
    let (client, id) = server.connect();
    drop(client);
    assert_eq!(server.closed(id), CloseReason::PeerClosed);
    other.echo(b"I live");
    drop(other);
    let report = server.stop();
    assert_eq!(report.total.panics, 2);
    assert!(report.panics.iter().all(|panic| panic.callback == "on_close"));
}

#[test]
fn in_callbacks_that_are_about_no_connection() {
    let mut server = TestServer::with(
        // Slow: the payloads of the first sixteen panics are kept, and the others' must be among them.
        Server::new().tick(Duration::from_millis(500)),
        Script::echo()
            .timer(|_, _, _| panic!("in on_timer"))
            .tick(|_, _| panic!("in on_tick"))
            .shutdown(|_, _| panic!("in on_shutdown"))
            .connect_error(|_, _, _, _| panic!("in on_connect_error")),
    );
    let (mut client, _) = server.connect();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    wait_for_nobody_at(&nobody.into());
    server.send(0, |_, _| panic!("in on_message")).unwrap();
    server.core(move |core| {
        core.set_timer(Duration::ZERO, 1);
        core.connect(&Dial::to(nobody));
    });
    server.expect(Event::Timer(1));
    server.expect(Event::Tick);
    server.find("the failed dial", |seen| matches!(seen.event, Event::ConnectError(..)).then_some(()));
    client.echo(b"I live");
    drop(client);
    let report = server.stop();
    let callbacks: Vec<_> = report.panics.iter().map(|panic| panic.callback).collect();
    for expected in ["on_message", "on_timer", "on_tick"] {
        assert!(callbacks.contains(&expected), "{callbacks:?}");
    }
    assert!(callbacks.len() <= 16 && report.total.panics >= 5);
}

#[test]
fn whoever_panics_often_is_only_counted() {
    let mut server = TestServer::start(fragile());
    for _ in 0..40 {
        let (mut client, id) = server.connect();
        client.send(b"panic");
        died(&server, id, client);
    }
    let report = server.stop();
    assert_eq!((report.total.panics, report.panics.len()), (40, 16));
}

#[test]
fn a_payload_of_any_kind_is_in_the_report() {
    #[derive(Debug, PartialEq)]
    struct Custom(u32);
    let mut server = TestServer::start(Script::new());
    server.send(0, |_, _| std::panic::panic_any(Custom(7))).unwrap();
    server.send(0, |_, _| panic!("formatted {}", 8)).unwrap();
    let report = server.stop();
    assert_eq!(report.panics[0].payload.downcast_ref(), Some(&Custom(7)));
    assert_eq!(report.panics[0].message, "(not a text)");
    assert_eq!(report.panics[1].message, "formatted 8");
}

#[test]
fn consuming_more_than_there_is_costs_the_connection() {
    let server = TestServer::start(Script::echo().data(|_, input, _| {
        input.consume(input.len() + 1);
        Flow::Continue
    }));
    let (mut client, id) = server.connect();
    client.send(b"abc");
    died(&server, id, client);
}

#[test]
fn at_the_start_the_start_fails() {
    for reactors in [1, 3] {
        let last = reactors - 1;
        let script = Script::new().on_start(move |core, _| {
            assert_ne!(core.reactor(), last, "not this one");
        });
        let server = Server::new().listen("127.0.0.1:0").reactors(reactors);
        match TestServer::try_start(server, script) {
            Err(StartError::Panicked { reactor, message, .. }) => {
                assert_eq!(reactor, last);
                assert!(message.contains("not this one"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        let factory = move |start: &corelane::Start<()>| -> Nothing {
            assert_ne!(start.reactor(), last, "not this one");
            Nothing
        };
        match Server::new().listen("127.0.0.1:0").reactors(reactors).start(factory) {
            Err(StartError::Panicked { reactor, .. }) => assert_eq!(reactor, last),
            other => panic!("{other:?}"),
        }
    }
}

struct Nothing;

impl corelane::Handler for Nothing {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut corelane::Conn<'_>) -> Open<()> {
        Open::Refuse
    }

    fn on_data(&mut self, _: &mut corelane::Conn<'_>, (): &mut (), _: &mut corelane::Input<'_>) -> Flow {
        Flow::Close
    }
}

#[test]
fn the_process_aborts_where_that_was_asked_for() {
    const TEST: &str = "the_process_aborts_where_that_was_asked_for";
    if is_child(TEST) {
        let server = TestServer::with(Server::new().on_panic(PanicPolicy::AbortProcess), fragile());
        let (mut client, id) = server.connect();
        client.send(b"panic");
        server.closed(id);
        return;
    }
    let (status, output) = run_child(TEST);
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{output:#?}");
}
