//! Connections that the server opens: the id at once, the outcome later, and the same handler for both kinds.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use corelane::{
    Address, CloseReason, ConnId, ConnectProblem, Dial, Flow, Open, Origin, Peer, Server, SocketOptions,
    Watermarks, Written,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{Backlog, listen};
use socket2::{Domain, Socket, Type};
use support::{Client, End, Event, Script, TempDir, TestServer, alone, eventually, wait_for_nobody_at};

/// Somebody to call.
fn upstream() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Somebody who was there once.
fn nobody() -> SocketAddr {
    let (listener, address) = upstream();
    drop(listener);
    wait_for_nobody_at(&address.into());
    address
}

fn dial(server: &TestServer, dial: Dial) -> ConnId {
    server.core(move |core| core.connect(&dial))
}

#[track_caller]
fn problem(server: &TestServer, id: ConnId) -> ConnectProblem {
    let problem = server.find(&format!("the failure of {id}"), |seen| match seen.event {
        Event::ConnectError(failed, problem) if failed == id => Some(problem),
        _ => None,
    });
    assert!(!server.core(move |core| core.is_open(id)), "the id is stale");
    problem
}

#[test]
fn one_handler_serves_what_it_accepts_and_what_it_dials() {
    let script = Script::echo().open(|conn, report| {
        report.note(format!("{:?} {}", conn.origin(), conn.peer()));
        Open::Accept(())
    });
    // A server that calls itself.
    let mut server = TestServer::start(script);
    let Address::Tcp(address) = *server.address() else { panic!("not TCP") };
    let (mut client, _) = server.connect();
    assert!(server.note().starts_with(&format!("{:?}", Origin::Accepted(0))));
    client.echo(b"hello");
    let (listener, elsewhere) = upstream();
    let id = dial(&server, Dial::to(elsewhere));
    let (mut accepted, from) = listener.accept().unwrap();
    assert_eq!(server.opened(), id);
    assert_eq!(server.note(), format!("{:?} {elsewhere}", Origin::Dialed));
    assert_eq!(server.core(move |core| core.peer(id)), Some(Peer::Tcp(elsewhere)));
    assert_ne!(from, address);
    accepted.write_all(b"echo this").unwrap();
    let mut echoed = [0; 9];
    accepted.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"echo this");
    drop((accepted, client));
    assert_eq!(server.closed(id), CloseReason::PeerClosed);
    let report = server.stop();
    assert_eq!((report.total.accepted, report.total.dialed, report.total.dial_failures), (1, 1, 0));
    assert_eq!((report.total.active, report.total.closed_in_all()), (0, 2));
}

#[test]
fn the_outcome_is_never_told_from_within_the_call() {
    let server = TestServer::start(Script::new());
    let (_listener, there) = upstream();
    let nobody = nobody();
    let ids = server.core(move |core| {
        let ids = [core.connect(&Dial::to(there)), core.connect(&Dial::to(nobody))];
        for id in ids {
            assert!(core.is_open(id), "it is on its way");
            assert_eq!(core.write(id, b"early"), Written::Accepted);
        }
        ids
    });
    server.expect(Event::Open(ids[0]));
    assert_eq!(problem(&server, ids[1]), ConnectProblem::Refused);
    let total = server.total();
    assert_eq!((total.dialed, total.dial_failures, total.active), (2, 1, 1));
    assert_eq!(total.errors, [(libc::ECONNREFUSED, 1)]);
}

#[test]
fn early_writes_come_whole_and_in_order() {
    let server = TestServer::start(Script::new().open(|conn, _| {
        conn.write(b" and the greeting");
        Open::Accept(())
    }));
    let (listener, there) = upstream();
    let receipt = server.receipt(1);
    let id = server.core(move |core| {
        let id = core.connect(&Dial::to(there));
        assert!(core.write(id, b"early").is_taken());
        assert!(core.write_with_receipt(id, &b" bytes".into(), receipt).is_taken());
        id
    });
    let (mut accepted, _) = listener.accept().unwrap();
    server.expect(Event::Open(id));
    server.expect(Event::Delivered(1, corelane::Delivery::Sent));
    server.handle.close(id).unwrap();
    let mut text = String::new();
    accepted.read_to_string(&mut text).unwrap();
    assert_eq!(text, "early bytes and the greeting");
}

#[test]
fn a_dial_can_be_given_up_without_a_callback() {
    let server = TestServer::start(Script::new());
    let (_listener, there) = upstream();
    let id = server.core(move |core| {
        let id = core.connect(&Dial::to(there));
        assert!(core.close(id));
        assert!(!core.is_open(id));
        id
    });
    server.settle();
    assert_eq!(server.rest(), [], "{id}");
    assert_eq!(server.total().active, 0);
}

#[test]
fn a_dial_that_gets_no_answer_times_out() {
    // A listener whose queue is full drops what comes: nobody ever answers.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let full = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&full, Duration::from_millis(300)) {
        queued.push(stream);
        assert!(queued.len() < 10);
    }
    let server = TestServer::start(Script::new());
    let start = std::time::Instant::now();
    let timeout = Duration::from_millis(50);
    let id = dial(&server, Dial::to(full).timeout(timeout));
    assert_eq!(problem(&server, id), ConnectProblem::TimedOut);
    assert!(start.elapsed() >= timeout);
    assert_eq!(server.total().active, 0);
}

#[test]
fn a_dial_goes_out_from_the_address_it_is_told() {
    let server = TestServer::start(Script::new().open(|conn, report| {
        report.note(conn.local_address().unwrap().to_string());
        Open::Accept(())
    }));
    let (listener, there) = upstream();
    for last in 2..5 {
        let id = dial(&server, Dial::to(there).from_ip([127, 0, 0, last].into()));
        let (_accepted, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), std::net::IpAddr::from([127, 0, 0, last]));
        assert_eq!(server.opened(), id);
        assert_eq!(server.note(), from.to_string());
    }
    // One that this host does not have.
    let id = dial(&server, Dial::to(there).from_ip([192, 0, 2, 1].into()));
    assert_eq!(problem(&server, id), ConnectProblem::NoSuchLocalAddress);
}

#[test]
fn unix_sockets_are_dialed_too() {
    let directory = TempDir::new();
    let server = TestServer::start(Script::echo());
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let id = dial(&server, Dial::to(Address::Unix(path.clone())));
    server.expect(Event::Open(id));
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"hello").unwrap();
    let mut echoed = [0; 5];
    accepted.read_exact(&mut echoed).unwrap();
    assert_eq!(server.core(move |core| core.peer(id)), Some(Peer::Unix));

    let missing = dial(&server, Dial::to(Address::Unix(directory.join("missing"))));
    assert_eq!(problem(&server, missing), ConnectProblem::Refused);
    drop((listener, accepted));
    wait_for_nobody_at(&Address::Unix(path.clone()));
    let stale = dial(&server, Dial::to(Address::Unix(path)));
    assert_eq!(problem(&server, stale), ConnectProblem::Refused);
    let name = format!("nobody{}", directory.path().display());
    let missing = dial(&server, Dial::to(Address::Abstract(name.into_bytes())));
    assert_eq!(problem(&server, missing), ConnectProblem::Refused);
    let too_long = dial(&server, Dial::to(Address::Unix("x".repeat(200).into())));
    assert!(matches!(problem(&server, too_long), ConnectProblem::Io(_)));
}

#[test]
fn a_full_unix_queue_is_told_from_a_refusal() {
    let directory = TempDir::new();
    let path = directory.join("socket");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let server = TestServer::start(Script::new());
    let first = dial(&server, Dial::to(Address::Unix(path.clone())));
    server.expect(Event::Open(first));
    let second = dial(&server, Dial::to(Address::Unix(path)));
    assert_eq!(problem(&server, second), ConnectProblem::QueueFull);
}

#[test]
fn a_connect_error_reads_well_and_names_the_address() {
    let server = TestServer::start(Script::new().connect_error(|_, error, _, report| {
        report.note(format!("{error}"));
    }));
    let nobody = nobody();
    dial(&server, Dial::to(nobody));
    assert_eq!(server.note(), format!("cannot connect to {nobody}: nobody listens there"));
    dial(&server, Dial::to(Address::Unix("/no/such/socket".into())));
    assert_eq!(server.note(), "cannot connect to unix:/no/such/socket: nobody listens there");
}

#[test]
fn a_refused_dialed_connection_ends_like_an_accepted_one() {
    let server = TestServer::start(Script::new().open(|conn, _| {
        conn.write(b"wrong number");
        Open::Refuse
    }));
    let (listener, there) = upstream();
    dial(&server, Dial::to(there));
    let (mut accepted, _) = listener.accept().unwrap();
    let mut text = String::new();
    accepted.read_to_string(&mut text).unwrap();
    assert_eq!(text, "wrong number");
    drop(accepted);
    eventually("its end", || server.handle.total().active == 0);
}

#[test]
fn a_token_tells_dials_apart() {
    let server = TestServer::start(
        Script::new()
            .open(|conn, report| {
                report.note(format!("{:?}", conn.dial_token()));
                Open::Accept(())
            })
            .connect_error(|_, error, _, report| report.note(format!("failed {}", error.token))),
    );
    let (_listener, there) = upstream();
    dial(&server, Dial::to(there).token(7));
    assert_eq!(server.note(), "Some(7)");
    dial(&server, Dial::to(nobody()).token(8));
    assert_eq!(server.note(), "failed 8");
    let _client = server.client();
    assert_eq!(server.note(), "None");
}

#[test]
fn too_much_written_to_a_dial_fails_it() {
    let marks = Watermarks { high: 100, low: 10, cap: 1_000 };
    let server = TestServer::with(Server::new().watermarks(marks), Script::new());
    let (_listener, there) = upstream();
    let receipt = server.receipt(1);
    let id = server.core(move |core| {
        let id = core.connect(&Dial::to(there));
        assert_eq!(core.write_with_receipt(id, &vec![1; 900].into(), receipt), Written::High);
        assert_eq!(core.write(id, &[1; 101]), Written::Refused);
        id
    });
    assert_eq!(problem(&server, id), ConnectProblem::OutputOverflow);
    server.expect(Event::Delivered(1, corelane::Delivery::Failed { sent: 0 }));
}

#[test]
fn an_option_that_cannot_be_is_named() {
    let server = TestServer::start(Script::new());
    let (_listener, there) = upstream();
    let options = SocketOptions { send_buffer: Some(0), ..SocketOptions::default() };
    let id = dial(&server, Dial::to(there).options(options));
    assert!(matches!(problem(&server, id), ConnectProblem::Option { name: "send_buffer", .. }));
}

#[test]
fn a_redial_from_the_failure_gets_another_id() {
    let nobody = nobody();
    let server = TestServer::start(Script::new().connect_error(move |id, _, core, report| {
        if core.reactor() == 0 && id.to_string().ends_with(".1") {
            let again = core.connect(&Dial::to(nobody));
            assert_ne!(again, id);
            report.note("again");
        }
    }));
    let first = dial(&server, Dial::to(nobody));
    assert_eq!(problem(&server, first), ConnectProblem::Refused);
    assert_eq!(server.note(), "again");
    server.find("the second failure", |seen| matches!(seen.event, Event::ConnectError(..)).then_some(()));
}

#[test]
fn a_dial_at_shutdown_fails_as_such() {
    let (listener, there) = upstream();
    let script = Script::new()
        .shutdown(move |core, report| {
            let id = core.connect(&Dial::to(there));
            report.note(id.to_string());
        })
        .drain(|_, _| Flow::Continue);
    let mut server = TestServer::start(script);
    let (client, _) = server.connect();
    let hold = server.hold(0);
    // One that is on its way when the end is asked for, and one that comes after it.
    let (under_way, ids) = std::sync::mpsc::channel();
    server.send(0, move |_, core| under_way.send(core.connect(&Dial::to(there))).unwrap()).unwrap();
    server.running().shutdown();
    drop(hold);
    let under_way = ids.recv_timeout(support::DEADLINE).unwrap();
    assert_eq!(problem(&server, under_way), ConnectProblem::ShuttingDown);
    server.note();
    server.find("the failure of the dial in on_shutdown", |seen| {
        matches!(seen.event, Event::ConnectError(_, ConnectProblem::ShuttingDown)).then_some(())
    });
    let later = dial(&server, Dial::to(there));
    assert_eq!(problem(&server, later), ConnectProblem::ShuttingDown);
    drop(client);
    let report = server.join();
    assert_eq!((report.total.dialed, report.total.dial_failures), (3, 3));
    assert_eq!((report.open_at_shutdown, report.drained, report.cut_off), (1, 1, 0));
    drop(listener);
}

#[test]
fn descriptors_exhausted_are_told_as_such() {
    alone("descriptors_exhausted_are_told_as_such", || {
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let (_listener, there) = upstream();
        let server = TestServer::start(Script::echo());
        let mut kept = server.client();
        kept.echo(b"before");
        let mut files = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            files.push(file);
        }
        let id = dial(&server, Dial::to(there));
        assert_eq!(problem(&server, id), ConnectProblem::DescriptorsExhausted);
        kept.echo(b"meanwhile");
        drop(files);
        let id = dial(&server, Dial::to(there));
        server.expect(Event::Open(id));
        assert_eq!(server.total().errors, [(libc::EMFILE, 1)]);
    });
}

#[test]
fn ports_exhausted_are_told_as_such() {
    alone("ports_exhausted_are_told_as_such", || {
        // A network of its own, with four ports, where that is allowed.
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        let narrow = fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003");
        if !up.is_ok_and(|status| status.success()) || narrow.is_err() {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:80").unwrap();
        let there = listener.local_addr().unwrap();
        let server = TestServer::configured(Server::new().reactors(1), Script::new());
        for from in [None, Some([127, 0, 0, 9].into())] {
            let to = || from.into_iter().fold(Dial::to(there), |dial, ip| dial.from_ip(ip));
            let mut opened = 0;
            let failure = loop {
                let id = dial(&server, to());
                let outcome = server.find("an outcome", |seen| match seen.event {
                    Event::Open(opened) if opened == id => Some(None),
                    Event::ConnectError(failed, problem) if failed == id => Some(Some(problem)),
                    _ => None,
                });
                match outcome {
                    None => opened += 1,
                    Some(problem) => break problem,
                }
                assert!(opened < 10);
            };
            assert_eq!((opened, failure), (4, ConnectProblem::PortsExhausted), "from {from:?}");
        }
    });
}

#[test]
fn a_dialed_connection_can_be_reset_and_closed_like_any() {
    let server = TestServer::start(Script::new());
    let (listener, there) = upstream();
    for abort in [false, true] {
        let id = dial(&server, Dial::to(there));
        let mut peer = Client::Tcp(listener.accept().unwrap().0);
        server.expect(Event::Open(id));
        server.core(move |core| assert!(if abort { core.abort(id) } else { core.close(id) }));
        assert_eq!(peer.receive_rest(), (Vec::new(), if abort { End::Reset } else { End::Fin }));
        drop(peer);
        assert_eq!(server.closed(id), if abort { CloseReason::Aborted } else { CloseReason::Local });
    }
}
