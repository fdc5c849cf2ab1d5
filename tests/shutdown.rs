//! The end of a server: everything that was taken is delivered, nobody is kept for ever, and everything is
//! told in order and on the reactor's own thread.

mod support;

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use corelane::{
    Balance, CloseReason, Conn, ConnId, Core, Delivery, Flow, Handle, Handler, Input, Open, SendError,
    Server, Sessions, Watermarks,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{
    Client, End, Event, Random, Script, TestServer, alone, eventually, is_child, run_child,
    wait_for_nobody_at,
};

const ROOMY: Watermarks = Watermarks { high: 64 << 10, low: 16 << 10, cap: 64 << 20 };

#[test]
fn closing_oneself_in_a_callback_and_stopping_then_is_no_deadlock() {
    for round in 0..20 {
        let mut server = TestServer::start(Script::new().data(|conn, _, _| {
            let id = conn.id();
            assert!(conn.core().close(id));
            Flow::Close
        }));
        let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
        for client in &mut clients {
            client.send(b"bye");
        }
        if round % 2 == 0 {
            clients.iter_mut().for_each(|client| assert_eq!(client.receive_rest().0, b""));
        }
        let stopping = thread::spawn(move || server.stop());
        clients.iter_mut().for_each(|client| drop(client.receive_rest()));
        drop(clients);
        let report = stopping.join().unwrap();
        assert_eq!((report.total.accepted, report.total.closed_in_all(), report.cut_off), (5, 5, 0));
    }
}

#[test]
fn everything_queued_is_delivered() {
    const CLIENTS: usize = 8;
    const EACH: usize = 4 << 20;
    let reply = Random::new(1).bytes(EACH);
    let expected = reply.clone();
    let script = Script::new().data(move |conn, input, report| {
        input.take_all();
        conn.write_with_receipt(&reply, report.receipt(1));
        Flow::Continue
    });
    let server = Server::new().watermarks(ROOMY).listen("127.0.0.1:0").reactors(2);
    let mut server = TestServer::configured(server, script);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::connect_narrow(server.address())).collect();
    for client in &mut clients {
        client.send(b"go");
    }
    for _ in 0..CLIENTS {
        server.find("a request", |seen| matches!(seen.event, Event::Data(..)).then_some(()));
    }
    server.running().shutdown();
    server.find("the shutdown", |seen| (seen.event == Event::Shutdown).then_some(()));
    // Only now does anybody read.
    let readers = clients.into_iter().map(|mut client| thread::spawn(move || client.receive_all()));
    for reader in readers.collect::<Vec<_>>() {
        assert!(reader.join().unwrap() == expected);
    }
    let report = server.join();
    assert_eq!((report.open_at_shutdown, report.drained, report.cut_off), (8, 8, 0));
    assert_eq!(report.total.closed_by(CloseReason::Shutdown), 8);
    let events = server.rest();
    let sent = events.iter().filter(|event| **event == Event::Delivered(1, Delivery::Sent)).count();
    assert_eq!(sent, CLIENTS);
}

#[test]
fn the_callbacks_come_in_order_and_on_the_reactors_own_thread() {
    let script = Script::new().on_start(|_, _| {}).drain(|conn, _| {
        conn.write(b"good bye");
        Flow::Close
    });
    let server = Server::new().listen("127.0.0.1:0").reactors(2).balance(Balance::RoundRobin);
    let mut server = TestServer::configured(server, script);
    let clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    server.running().shutdown();
    for (mut client, _) in clients.into_iter() {
        assert_eq!(client.receive_all(), b"good bye");
    }
    server.join();
    let mut seen = Vec::new();
    while let Some(one) = server.try_next() {
        seen.push(one);
    }
    for reactor in 0..2 {
        let of_one: Vec<_> = seen.iter().filter(|seen| seen.reactor == reactor).collect();
        let threads: HashSet<_> = of_one.iter().map(|seen| seen.thread).collect();
        assert_eq!(threads.len(), 1, "a reactor has one thread");
        let position = |wanted: fn(&Event) -> bool| {
            let positions = of_one.iter().enumerate().filter(|(_, seen)| wanted(&seen.event));
            positions.map(|(position, _)| position).collect::<Vec<_>>()
        };
        let start = position(|event| *event == Event::Start);
        let shutdown = position(|event| *event == Event::Shutdown);
        let drains = position(|event| matches!(event, Event::Drain(_)));
        let closes = position(|event| matches!(event, Event::Close(_, CloseReason::Shutdown)));
        assert_eq!((start.len(), shutdown.len(), drains.len(), closes.len()), (1, 1, 3, 3));
        assert!(start < shutdown && shutdown[0] < drains[0]);
        for (drained, closed) in drains.iter().map(|&at| {
            let Event::Drain(id) = of_one[at].event else { unreachable!() };
            let closed =
                of_one.iter().position(|seen| matches!(seen.event, Event::Close(closed, _) if closed == id));
            (at, closed.unwrap())
        }) {
            assert!(drained < closed);
        }
        assert_eq!(closes.last(), Some(&(of_one.len() - 1)), "nothing comes after the last close");
    }
}

#[test]
fn connections_in_the_backlog_are_served_and_not_reset() {
    for reactors in [1, 3] {
        for balance in [Balance::Kernel, Balance::RoundRobin] {
            let server = Server::new().listen("127.0.0.1:0").reactors(reactors).balance(balance);
            let mut server = TestServer::configured(server, Script::echo());
            let holds: Vec<_> = (0..reactors).map(|reactor| server.hold(reactor)).collect();
            // Nobody has accepted them when the end is asked for.
            let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
            for client in &mut clients {
                client.send(b"in time");
            }
            server.running().shutdown();
            drop(holds);
            for client in &mut clients {
                assert_eq!(client.receive_all(), b"in time", "{reactors} reactors, {balance:?}");
            }
            drop(clients);
            let report = server.join();
            assert_eq!((report.total.accepted, report.open_at_shutdown), (20, 20));
            assert_eq!((report.drained, report.cut_off), (20, 0));
        }
    }
}

#[test]
fn a_request_that_has_arrived_is_answered() {
    let mut server = TestServer::start(Script::echo());
    let (mut client, _) = server.connect();
    let hold = server.hold(0);
    client.send(b"the request");
    server.running().shutdown();
    drop(hold);
    assert_eq!(client.receive_all(), b"the request");
    drop(client);
    assert_eq!(server.join().drained, 1);
}

#[test]
fn nobody_is_accepted_after_the_end_was_asked_for() {
    let server = TestServer::start(Script::new().drain(|_, _| Flow::Continue));
    let (_client, _) = server.connect();
    server.running().shutdown();
    server.expect(Event::Shutdown);
    wait_for_nobody_at(server.address());
    assert_eq!(server.total().accepted, 1);
    server.running().stop_now();
}

#[test]
fn a_handler_may_finish_its_work_first() {
    // The reply is made elsewhere, and the handler says when the connection may go.
    let mut server = TestServer::start(Script::new().drain(|_, _| Flow::Continue));
    let (mut client, id) = server.connect();
    server.running().shutdown();
    server.expect(Event::Drain(id));
    client.send(b"one more question");
    assert_eq!(server.data(id), b"one more question");
    server.handle.write(id, "and its answer").unwrap();
    server.handle.close(id).unwrap();
    assert_eq!(client.receive_all(), b"and its answer");
    drop(client);
    assert_eq!(server.closed(id), CloseReason::Local);
    let report = server.join();
    assert_eq!((report.open_at_shutdown, report.drained, report.cut_off), (1, 1, 0));
    let drains = server.rest().into_iter().filter(|event| *event == Event::Drain(id)).count();
    assert_eq!(drains, 0, "it was asked once");
}

#[test]
fn the_deadline_cuts_off() {
    let script = Script::new().drain(|_, _| Flow::Continue);
    let mut server = TestServer::with(Server::new().drain_deadline(Duration::from_millis(100)), script);
    let (mut kept, id) = server.connect();
    let (gone, other) = server.connect();
    // The end of this one is there before the deadline can be.
    let hold = server.hold(0);
    server.running().shutdown();
    drop(gone);
    drop(hold);
    server.expect(Event::Drain(id));
    assert_eq!(server.closed(other), CloseReason::PeerClosed);
    assert_eq!(server.closed(id), CloseReason::DrainDeadline);
    assert_eq!(kept.receive_rest(), (Vec::new(), End::Reset));
    let report = server.join();
    assert_eq!((report.open_at_shutdown, report.drained, report.cut_off), (2, 1, 1));
    assert_eq!(report.total.closed_by(CloseReason::DrainDeadline), 1);
}

#[test]
fn a_peer_that_does_not_read_cannot_outlast_the_deadline() {
    let server = Server::new().watermarks(ROOMY).drain_deadline(Duration::from_millis(100));
    let mut server = TestServer::with(server, Script::new());
    let (mut client, id) = server.connect_narrow();
    let receipt = server.receipt(1);
    server.core(move |core| core.write_with_receipt(id, &vec![1; 16 << 20].into(), receipt));
    server.running().shutdown();
    assert_eq!(server.closed(id), CloseReason::DrainDeadline);
    server.find("the receipt", |seen| {
        matches!(seen.event, Event::Delivered(1, Delivery::Failed { .. })).then_some(())
    });
    assert_eq!(client.receive_rest().1, End::Reset);
    assert_eq!(server.join().cut_off, 1);
}

#[test]
fn a_forced_stop_resets_everybody() {
    for drain_first in [false, true] {
        let mut server = TestServer::start(Script::new().drain(|_, _| Flow::Continue));
        let (mut client, id) = server.connect();
        if drain_first {
            server.running().shutdown();
            server.expect(Event::Drain(id));
        }
        server.running().stop_now();
        assert_eq!(server.closed(id), CloseReason::DrainDeadline);
        assert_eq!(client.receive_rest(), (Vec::new(), End::Reset));
        let report = server.join();
        assert_eq!((report.open_at_shutdown, report.drained, report.cut_off), (1, 0, 1));
    }
}

#[test]
fn asking_twice_changes_nothing() {
    let mut server = TestServer::start(Script::new());
    server.running().shutdown();
    server.running().shutdown();
    let report = server.join();
    assert_eq!(report.open_at_shutdown, 0);
    assert_eq!(server.rest(), [Event::Shutdown]);
    assert!(report.failures.is_empty() && report.panics.is_empty());
}

#[test]
fn dropping_a_server_shuts_it_down_in_good_order() {
    let running = Server::new().listen("127.0.0.1:0").reactors(2).start(|_| Silent).unwrap();
    let address = running.addresses().next().unwrap().clone();
    let handle = running.handle();
    let mut client = Client::connect(&address);
    let dropping = thread::spawn(move || drop(running));
    assert_eq!(client.receive_all(), b"");
    drop(client);
    eventually("the end of the server", || dropping.is_finished());
    assert_eq!(handle.send(0, ()), Err(SendError::Stopped(())));
    wait_for_nobody_at(&address);
}

struct Silent;

impl corelane::Handler for Silent {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut corelane::Conn<'_>) -> corelane::Open<()> {
        corelane::Open::Accept(())
    }

    fn on_data(&mut self, _: &mut corelane::Conn<'_>, (): &mut (), input: &mut corelane::Input<'_>) -> Flow {
        input.take_all();
        Flow::Continue
    }
}

#[test]
fn the_report_adds_up_and_reads_well() {
    let mut server = TestServer::start(Script::echo());
    let (mut client, id) = server.connect();
    client.echo(b"hello");
    drop(client);
    server.closed(id);
    let (mut client, _) = server.connect();
    server.running().shutdown();
    assert_eq!(client.receive_all(), b"");
    drop(client);
    let report = server.join();
    assert_eq!(report.reactors.len(), 1);
    assert_eq!(report.reactors[0], report.total);
    assert_eq!((report.total.accepted, report.total.active), (2, 0));
    assert_eq!((report.total.bytes_in, report.total.bytes_out), (5, 5));
    let text = report.to_string();
    assert!(text.starts_with("served 2 connections (0 dialed) in "), "{text}");
    assert!(text.contains("shutdown: 1 open, 1 drained, 0 cut off"), "{text}");
    assert!(text.ends_with("closed by: peer_closed 1, shutdown 1"), "{text}");
}

#[test]
fn a_signal_drains_and_the_next_one_forces() {
    alone("a_signal_drains_and_the_next_one_forces", || {
        let myself = Pid::this();
        let script = Script::new().drain(|_, _| Flow::Continue);
        let mut server = TestServer::with(Server::new().handle_signals(), script);
        let (mut client, id) = server.connect();
        kill(myself, Signal::SIGTERM).unwrap();
        server.expect(Event::Shutdown);
        server.expect(Event::Drain(id));
        // It is in no hurry.
        client.send(b"still there?");
        assert_eq!(server.data(id), b"still there?");
        kill(myself, Signal::SIGINT).unwrap();
        assert_eq!(client.receive_rest().1, End::Reset);
        let report = server.join();
        assert_eq!((report.drained, report.cut_off), (0, 1));

        // A server that has ended is deaf, and another one can listen to signals after it.
        let mut next = TestServer::with(Server::new().handle_signals(), Script::new());
        kill(myself, Signal::SIGINT).unwrap();
        next.expect(Event::Shutdown);
        assert_eq!(next.join().open_at_shutdown, 0);
    });
}

#[test]
fn a_signal_kills_again_when_no_server_listens_to_it() {
    const TEST: &str = "a_signal_kills_again_when_no_server_listens_to_it";
    if is_child(TEST) {
        let first = TestServer::with(Server::new().handle_signals(), Script::new());
        let mut second = TestServer::with(Server::new().handle_signals(), Script::new());
        drop(first);
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        second.expect(Event::Shutdown);
        second.join();
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        eventually("the end of this process", || false);
    }
    let (status, output) = run_child(TEST);
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{output:#?}");
}

/// The handler of reactor 0 has the connections, that of reactor 1 the answers.
struct Asks(Handle<ConnId>);

impl Handler for Asks {
    type Session = ();
    type Message = ConnId;

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        input.take_all();
        match self.0.send(1, conn.id()) {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::Abort,
        }
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>, _: &mut ()) -> Flow {
        conn.write(b"d");
        Flow::Continue
    }

    fn on_message(&mut self, id: ConnId, _: &mut Sessions<()>, core: &mut Core<'_>) {
        assert_eq!(core.reactor(), 1);
        self.0.write(id, "a").unwrap();
    }
}

#[test]
fn a_reactor_without_connections_answers_the_others_until_they_have_none_either() {
    let server = Server::new().listen("127.0.0.1:0").reactors(2).balance(Balance::RoundRobin);
    let server = server.start(|start| Asks(start.handle())).unwrap();
    let address = server.addresses().next().unwrap().clone();
    let mut client = Client::connect(&address);
    eventually("a connection of reactor 0", || server.handle().counters()[0].active == 1);
    server.shutdown();
    assert_eq!(client.receive(1), b"d");
    for _ in 0..1_000 {
        client.send(b"?");
        assert_eq!(client.receive(1), b"a");
    }
    drop(client);
    let report = server.join();
    assert_eq!((report.open_at_shutdown, report.cut_off), (1, 0));
}

/// Takes no input before the server shuts down, and then a turn later.
struct Holds {
    handle: Handle<()>,
    takes: bool,
}

impl Handler for Holds {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        if self.takes {
            conn.write(input.take_all());
        } else {
            conn.pause();
        }
        Flow::Continue
    }

    fn on_shutdown(&mut self, _: &mut Sessions<()>, _: &mut Core<'_>) {
        self.handle.send(0, ()).unwrap();
    }

    fn on_message(&mut self, _: (), sessions: &mut Sessions<()>, core: &mut Core<'_>) {
        self.takes = true;
        for (id, ()) in sessions.iter() {
            core.resume(id);
        }
    }
}

#[test]
fn input_that_was_held_back_is_shown_before_its_connection_is_asked_to_go() {
    let server = Server::new().listen("127.0.0.1:0").reactors(1);
    let server = server.start(|start| Holds { handle: start.handle(), takes: false }).unwrap();
    let mut client = Client::connect(server.addresses().next().unwrap());
    client.send(b"held");
    eventually("the input", || server.handle().total().bytes_in == 4);
    server.shutdown();
    assert_eq!(client.receive_all(), b"held");
    drop(client);
    server.join();
}
