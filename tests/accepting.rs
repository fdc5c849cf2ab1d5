//! New connections: aborted ones, no descriptors for them, who gets them, and how many there may be.

mod support;

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corelane::{Address, Balance, CloseReason, Deadlines, Flow, Open, Origin, Server, StartError};
use nix::sys::resource::{Resource, setrlimit};
use support::{
    Child, Client, End, Event, Logs, Script, TempDir, TestServer, alone, answer_questions, eventually,
    is_child,
};

#[test]
fn connections_reset_before_the_accept_do_not_stop_serving() {
    let server = TestServer::start(Script::echo());
    for _ in 0..10 {
        let hold = server.hold(0);
        let aborted: Vec<_> = (0..20).map(|_| server.client()).collect();
        let mut good = server.client();
        good.send(b"hello");
        aborted.into_iter().for_each(Client::reset);
        let mut later = server.client();
        drop(hold);
        assert_eq!(good.receive(5), b"hello");
        later.echo(b"hello again");
    }
    eventually("the end of all connections", || server.handle.total().active == 0);
    let total = server.total();
    // The kernel may hand over a connection that is reset already, or not.
    assert!(total.accepted >= 20);
    assert_eq!(total.accepted, total.closed_in_all());
}

/// What stands in the log when there are no descriptors.
const WARNING: &str = "cannot accept";

#[test]
fn running_out_of_descriptors_neither_kills_nor_floods_the_log() {
    const TEST: &str = "running_out_of_descriptors_neither_kills_nor_floods_the_log";
    if is_child(TEST) {
        return serve_with_few_descriptors();
    }
    let mut child = Child::start(TEST);
    let address: Address = child.hear("address ").parse().unwrap();
    let mut clients: Vec<_> = (0..40).map(|_| Client::connect(&address)).collect();
    // Those that were accepted are served while others cannot be.
    clients[0].echo(b"first");
    for client in &mut clients {
        client.send(b"hello");
    }
    eventually("some pauses", || child.ask("pauses", "pauses ").parse::<u64>().unwrap() >= 8);
    clients[0].receive(5);
    clients[0].echo(b"still");
    // When some leave, those who waited get in by themselves.
    let waiting = clients.split_off(20);
    drop(clients);
    for mut client in waiting {
        assert_eq!(client.receive(5), b"hello");
    }
    // And so does everybody later.
    Client::connect(&address).echo(b"later");
    assert_eq!(child.ask("log", "log "), "at most one line a second");
    let (status, output) = child.finish();
    assert!(status.success(), "{output:#?}");
}

fn serve_with_few_descriptors() {
    setrlimit(Resource::RLIMIT_NOFILE, 32, 32).unwrap();
    let logs = Logs::capture();
    let mut server = TestServer::start(Script::echo());
    assert_eq!(server.running().file_limit().now, 32);
    println!("\n@@ address {}", server.address());
    answer_questions(|question| match question {
        "pauses" => format!("pauses {}", server.handle.total().accept_pauses),
        _ => {
            let lines = logs.with(WARNING);
            // Less than a second: the reactor goes by when its turn began.
            let close = lines.windows(2).any(|two| two[1].when - two[0].when < Duration::from_millis(500));
            let text =
                if close || lines.is_empty() { "too much or nothing" } else { "at most one line a second" };
            format!("log {text}")
        }
    });
    let total = server.stop().total;
    assert!(total.accept_errors >= total.accept_pauses);
    assert_eq!(total.errors, [(libc::EMFILE, total.accept_errors)]);
    assert_eq!(total.accepted, 41);
}

#[test]
fn children_of_the_process_inherit_no_descriptor() {
    alone("children_of_the_process_inherit_no_descriptor", || {
        let inherited = || {
            let output = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
            let listing = String::from_utf8(output.stdout).unwrap();
            let mut targets: Vec<_> = listing
                .lines()
                .filter_map(|line| line.split_once("-> "))
                .map(|(_, to)| to.to_owned())
                .collect();
            // Pipes and the listed directory have another number each time.
            targets.retain(|target| !target.starts_with("pipe:") && !target.starts_with("/proc/"));
            targets
        };
        let before = inherited();
        let directory = TempDir::new();
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::new()
            .listen("127.0.0.1:0")
            .listen(Address::Unix(directory.join("socket")))
            .reactors(2)
            .balance(Balance::RoundRobin)
            .handle_signals();
        let server = TestServer::configured(server, Script::echo());
        let mut clients: Vec<_> = server.addresses.iter().map(Client::connect).collect();
        clients.iter_mut().for_each(|client| client.echo(b"hello"));
        let to = elsewhere.local_addr().unwrap();
        server.core(move |core| {
            core.connect(&corelane::Dial::to(to));
            core.set_timer(Duration::from_secs(1000), 1);
        });
        let _upstream = elsewhere.accept().unwrap();
        assert_eq!(inherited(), before);
    });
}

#[test]
fn port_0_with_several_reactors_is_one_port() {
    let server = TestServer::configured(Server::new().listen("127.0.0.1:0").reactors(4), Script::echo());
    let listening = server.running().listening();
    assert_eq!(listening.len(), 1);
    assert_eq!(listening[0].listeners, 4);
    let Address::Tcp(address) = listening[0].address else { panic!("not TCP") };
    assert_ne!(address.port(), 0);
    // In the kernel's own table: four listeners, one port.
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let entry = format!("0100007F:{:04X} 00000000:0000 0A", address.port());
    assert_eq!(table.lines().filter(|line| line.contains(&entry)).count(), 4);
    for _ in 0..100 {
        server.client().echo(b"hello");
    }
    let serving = server.handle.counters().iter().filter(|reactor| reactor.accepted > 0).count();
    assert!(serving > 1, "the kernel spreads a hundred connections");
    assert_eq!(server.total().accepted, 100);
}

#[test]
fn a_unix_path_with_several_reactors_is_served_by_all() {
    let directory = TempDir::new();
    for balance in [Balance::Kernel, Balance::RoundRobin, Balance::LeastConnections, Balance::SourceHash] {
        let address = Address::Unix(directory.join("socket"));
        let server = Server::new().listen(address).reactors(3).balance(balance);
        let server = TestServer::configured(server, Script::echo());
        assert_eq!(server.running().listening()[0].listeners, 1);
        let mut clients: Vec<_> = (0..12).map(|_| server.client()).collect();
        clients.iter_mut().for_each(|client| client.echo(b"hello"));
        server.settle();
        let accepted: Vec<_> = server.handle.counters().iter().map(|reactor| reactor.accepted).collect();
        assert_eq!(accepted, [4, 4, 4], "{balance:?}");
        assert_eq!(server.total().handed_over, 8);
    }
}

#[test]
fn the_least_loaded_reactor_gets_the_next_connection() {
    let server = Server::new().listen("127.0.0.1:0").reactors(3).balance(Balance::LeastConnections);
    let server = TestServer::configured(server, Script::new());
    let clients: Vec<_> = (0..9).map(|_| server.connect()).collect();
    let (gone, stay): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, id)| id.reactor() == 1);
    assert_eq!((gone.len(), stay.len()), (3, 6));
    for (client, id) in gone {
        drop(client);
        assert_eq!(server.closed(id), CloseReason::PeerClosed);
    }
    server.settle();
    let next: Vec<_> = (0..3).map(|_| server.connect()).collect();
    assert!(next.iter().all(|(_, id)| id.reactor() == 1));
}

#[test]
fn one_source_always_goes_to_one_reactor() {
    let server = Server::new().listen("0.0.0.0:0").reactors(3).balance(Balance::SourceHash);
    let server = TestServer::configured(server, Script::new());
    let Address::Tcp(address) = server.address() else { panic!("not TCP") };
    let address = Address::Tcp(([127, 0, 0, 1], address.port()).into());
    let mut used = HashSet::new();
    for last in 1..20 {
        let reactors = (0..3).map(|_| {
            let _client = Client::connect_from([127, 0, 0, last], &address);
            server.opened().reactor()
        });
        let reactors: HashSet<_> = reactors.collect();
        assert_eq!(reactors.len(), 1, "127.0.0.{last}");
        used.extend(reactors);
    }
    assert!(used.len() > 1);
}

#[test]
fn a_connection_knows_by_which_address_it_came() {
    let directory = TempDir::new();
    let script = Script::new().open(|conn, report| {
        report.note(format!("{:?} {:?} {:?}", conn.origin(), conn.local_address().unwrap(), conn.peer()));
        Open::Accept(())
    });
    let server =
        Server::new().listen("127.0.0.1:0").listen(Address::Unix(directory.join("a"))).listen("[::1]:0");
    let server = TestServer::configured(server.reactors(1), script);
    for (index, address) in server.addresses.iter().enumerate() {
        let client = Client::connect(address);
        let peer = match &client {
            Client::Tcp(stream) => corelane::Peer::Tcp(stream.local_addr().unwrap()),
            Client::Unix(_) => corelane::Peer::Unix,
        };
        assert_eq!(server.note(), format!("{:?} {address:?} {peer:?}", Origin::Accepted(index)));
    }
}

/// Whether the server lets nobody in. Whoever is let in is greeted; who is not may be reset as early as in
/// the connect.
fn turns_away(server: &TestServer) -> bool {
    let Ok(mut client) = Client::try_connect(server.address()) else { return true };
    !matches!(client.read(&mut [0]), Ok(1))
}

#[test]
fn the_servers_cap_is_kept_and_freed_on_every_path() {
    caps(Server::new().max_connections(3), |total| total.shed_by_server_cap);
}

#[test]
fn the_cap_of_one_source_is_kept_and_freed_on_every_path() {
    caps(Server::new().max_connections_per_source(3), |total| total.shed_by_source_cap);
}

/// What becomes of the next connections in `on_open`.
const ACCEPT: usize = 0;
const REFUSE: usize = 1;
const PANIC: usize = 2;

fn caps(server: Server, shed: fn(&corelane::Snapshot) -> u64) {
    for balance in [Balance::Kernel, Balance::RoundRobin] {
        let mode = Arc::new(AtomicUsize::new(ACCEPT));
        let asked = Arc::clone(&mode);
        let script = Script::new()
            .quiet()
            .open(move |conn, _| match asked.load(Ordering::Relaxed) {
                ACCEPT => {
                    conn.write(b"!");
                    Open::Accept(())
                }
                REFUSE => Open::Refuse,
                _ => panic!("as it was told"),
            })
            .data(|conn, input, _| match input.take_all() {
                b"close" => Flow::Close,
                b"abort" => Flow::Abort,
                b"panic" => panic!("as it was told"),
                b"idle" => {
                    conn.set_idle_deadline(Some(Duration::from_millis(10)));
                    Flow::Continue
                }
                _ => Flow::Continue,
            });
        let deadlines = Deadlines { linger: Duration::from_millis(50), ..Deadlines::default() };
        let server = server.clone().listen("127.0.0.1:0").reactors(2).balance(balance).deadlines(deadlines);
        let server = TestServer::configured(server, script);
        let let_in = || {
            let mut client = server.client();
            assert_eq!(client.receive(1), b"!");
            client
        };
        let _two = (let_in(), let_in());
        for path in ["leave", "reset", "close", "abort", "panic", "idle"] {
            let mut third = let_in();
            assert!(turns_away(&server), "{path}");
            match path {
                "leave" => drop(third),
                "reset" => third.reset(),
                word => {
                    third.send(word.as_bytes());
                    assert_eq!(third.receive_rest().0, b"");
                }
            }
            eventually(&format!("room after {path}"), || server.total().active == 2);
        }
        for how in [REFUSE, PANIC] {
            mode.store(how, Ordering::Relaxed);
            for _ in 0..5 {
                assert!(turns_away(&server));
                eventually("room after a refusal", || server.total().active == 2);
            }
            mode.store(ACCEPT, Ordering::Relaxed);
        }
        let _third = let_in();
        assert!(turns_away(&server));
        server.settle();
        assert_eq!(shed(&server.total()), 7);
        assert!(!server.rest().is_empty());
    }
}

#[test]
fn the_cap_of_one_source_leaves_others_alone() {
    let server = Server::new().listen("0.0.0.0:0").reactors(2).max_connections_per_source(2);
    let server = TestServer::configured(server, Script::echo());
    let Address::Tcp(address) = server.address() else { panic!("not TCP") };
    let address = Address::Tcp(([127, 0, 0, 1], address.port()).into());
    let mut kept = Vec::new();
    for last in 1..6 {
        for _ in 0..2 {
            let mut client = Client::connect_from([127, 0, 0, last], &address);
            client.echo(b"hello");
            kept.push(client);
        }
        let (bytes, end) = Client::connect_from([127, 0, 0, last], &address).receive_rest();
        assert!(bytes.is_empty() && matches!(end, End::Fin | End::Reset));
    }
    assert_eq!(server.total().shed_by_source_cap, 5);
}

#[test]
fn a_unix_peer_counts_for_the_server_and_for_no_source() {
    let directory = TempDir::new();
    let server = Server::new().listen(Address::Unix(directory.join("a"))).reactors(1);
    let server =
        TestServer::configured(server.max_connections_per_source(1).max_connections(3), Script::echo());
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.echo(b"hello"));
    assert_eq!(server.client().receive_rest().0, b"");
    let total = server.total();
    assert_eq!((total.shed_by_server_cap, total.shed_by_source_cap), (1, 0));
}

#[test]
fn a_shed_connection_is_never_shown_to_the_handler() {
    let server = TestServer::with(Server::new().max_connections(1), Script::new());
    let (_kept, id) = server.connect();
    for _ in 0..10 {
        assert_eq!(server.client().receive_rest().0, b"");
    }
    assert_eq!(server.total().accepted, 1);
    assert_eq!(server.rest(), Vec::<Event>::new());
    assert!(server.core(move |core| core.is_open(id)));
}

/// Its own reactors share the port, and nobody else does.
#[test]
fn a_server_of_several_reactors_takes_no_port_of_another() {
    let several = || Server::new().reactors(2);
    let first = TestServer::configured(several().listen("127.0.0.1:0"), Script::echo());
    let address = first.addresses[0].clone();
    for reactors in [1, 2] {
        let second = Server::new().reactors(reactors).listen(address.clone());
        match TestServer::try_start(second, Script::echo()) {
            Err(StartError::Listen { error, .. }) => assert_eq!(error.kind(), ErrorKind::AddrInUse),
            other => panic!("{reactors} reactors: {other:?}"),
        }
    }
    first.client().echo(b"hello");
}

#[test]
fn servers_that_both_ask_for_it_share_a_port() {
    let shared = || Server::new().reactors(1).share_port();
    let first = TestServer::configured(shared().listen("127.0.0.1:0"), Script::echo());
    let address = first.addresses[0].clone();
    let alone = TestServer::try_start(Server::new().reactors(1).listen(address.clone()), Script::echo());
    assert!(alone.is_err(), "a server that did not ask for it took the port of another");
    let second = TestServer::configured(shared().listen(address.clone()), Script::echo());
    assert_eq!(second.addresses[0], address);
    // Each connection goes to either by a hash: one of them gets none of so many once in 2^63 runs.
    let mut clients: Vec<_> = (0..64).map(|_| Client::connect(&address)).collect();
    clients.iter_mut().for_each(|client| client.echo(b"hello"));
    let accepted = || [&first, &second].map(|server| server.handle.total().accepted);
    eventually("64 accepts", || accepted().iter().sum::<u64>() == 64);
    assert!(accepted().iter().all(|&count| count > 0), "{:?}", accepted());
}
