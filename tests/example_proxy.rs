//! The proxy example as its users see it: real clients, real upstreams, and everything that goes wrong
//! between them.

mod support;

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use corelane::Address;
use nix::sys::signal::Signal;
use nix::sys::socket::{Backlog, listen};
use socket2::{Domain, SockRef, Socket, Type};
use support::{Client, DEADLINE, End, Example, Random, TempDir, eventually, wait_for_nobody_at};

/// Somebody to carry connections to.
struct Upstream {
    listener: TcpListener,
    address: String,
}

impl Upstream {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address }
    }

    fn try_accept(&self) -> Option<Client> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                Some(in_time(Client::Tcp(stream)))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("cannot accept: {error}"),
        }
    }

    #[track_caller]
    fn accept(&self) -> Client {
        let mut accepted = None;
        eventually("a connection from the proxy", || {
            accepted = self.try_accept();
            accepted.is_some()
        });
        accepted.unwrap()
    }
}

fn in_time(client: Client) -> Client {
    SockRef::from(&client).set_read_timeout(Some(DEADLINE)).unwrap();
    SockRef::from(&client).set_write_timeout(Some(DEADLINE)).unwrap();
    client
}

/// An address at which nobody listens any more.
fn nobody() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    wait_for_nobody_at(&address.into());
    address.to_string()
}

/// A listener that answers no more connections: its queue is full. And what fills it.
fn black_hole() -> (Socket, Vec<TcpStream>, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
        assert!(queued.len() < 10);
    }
    (socket, queued, address.to_string())
}

/// The proxy on a free port with one reactor, before these upstreams.
#[track_caller]
fn proxy(upstreams: &[&str], arguments: &[&str]) -> (Example, Address) {
    let mut all = vec!["--reactors", "1"];
    upstreams.iter().for_each(|upstream| all.extend(["--upstream", upstream]));
    all.extend(arguments);
    let (proxy, address) = Example::serve("proxy", &all);
    (proxy, address.into())
}

/// A proxy before one upstream, and both ends of a connection through it.
#[track_caller]
fn pair() -> (Example, Client, Client) {
    let upstream = Upstream::new();
    let (proxy, address) = proxy(&[&upstream.address], &[]);
    let client = Client::connect(&address);
    (proxy, client, upstream.accept())
}

/// What SIGUSR1 prints about an upstream.
#[derive(Debug, PartialEq)]
struct Counters {
    connections: u64,
    active: u64,
    failures: u64,
    bytes_to: u64,
    bytes_from: u64,
}

/// What SIGUSR1 prints: the counters of each upstream, and the clients turned away.
#[track_caller]
fn ask(proxy: &mut Example, upstreams: &[&str]) -> (Vec<Counters>, u64) {
    proxy.signal(Signal::SIGUSR1);
    let mut counters = Vec::new();
    for upstream in upstreams {
        let line = proxy.hear(&format!("upstream {upstream}: "));
        let numbers: Vec<u64> =
            line.split(", ").map(|part| part.split(' ').next().unwrap().parse().unwrap()).collect();
        let [connections, active, failures, bytes_to, bytes_from] = numbers[..] else { panic!("{line}") };
        counters.push(Counters { connections, active, failures, bytes_to, bytes_from });
    }
    (counters, proxy.hear("clients turned away: ").parse().unwrap())
}

fn resident(proxy: &Example) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/statm", proxy.id())).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn descriptors(proxy: &Example) -> usize {
    fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap().count()
}

/// Sends in pieces of random sizes, then ends the sending side.
fn send_in_pieces(mut client: Client, bytes: &[u8], seed: u64) {
    for piece in Random::new(seed).pieces(bytes, 100_000) {
        client.send(piece);
    }
    client.finish();
}

/// `left` sends `there` while `right` sends `back`; both read everything.
#[track_caller]
fn exchange(mut left: Client, mut right: Client, there: &[u8], back: &[u8]) {
    let (left_sender, right_sender) = (left.another(), right.another());
    thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(left_sender, there, 1));
        scope.spawn(|| send_in_pieces(right_sender, back, 2));
        let arrived = scope.spawn(move || right.receive_all());
        assert!(left.receive_all() == back);
        assert!(arrived.join().unwrap() == there);
    });
}

#[test]
fn every_byte_arrives_in_both_directions_at_once() {
    let (there, back) = (Random::new(1).bytes(12 << 20), Random::new(2).bytes(9 << 20));
    let (mut proxy, client, upstream) = pair();
    let address = SockRef::from(&upstream).local_addr().unwrap().as_socket().unwrap().to_string();
    exchange(client, upstream, &there, &back);
    // Unlike a client, the counters know when the proxy has done with both.
    eventually("the end of the connection", || ask(&mut proxy, &[&address]).0[0].active == 0);
    let expected = Counters {
        connections: 1,
        active: 0,
        failures: 0,
        bytes_to: there.len() as u64,
        bytes_from: back.len() as u64,
    };
    assert_eq!(ask(&mut proxy, &[&address]), (vec![expected], 0));
    proxy.stop();
}

#[test]
fn unix_sockets_serve_on_both_sides() {
    let folder = TempDir::new();
    let (here, there) = (folder.join("proxy"), folder.join("upstream"));
    let listener = UnixListener::bind(&there).unwrap();
    let upstream = format!("unix:{}", there.display());
    let mut proxy =
        Example::start("proxy", &["--listen", &format!("unix:{}", here.display()), "--upstream", &upstream]);
    proxy.hear("listening on ");
    let client = Client::connect(&Address::Unix(here));
    let accepted = in_time(Client::Unix(listener.accept().unwrap().0));
    exchange(client, accepted, &Random::new(3).bytes(5 << 20), &Random::new(4).bytes(6 << 20));
    proxy.stop();
}

/// The sender stalls when the reader does, the proxy keeps next to nothing, and then everything arrives.
#[track_caller]
fn stall_and_go_on(proxy: &Example, mut sender: Client, mut reader: Client) {
    // More than the kernel holds on both ways.
    let bytes = Random::new(5).bytes(64 << 20);
    sender.send(&bytes[..1]);
    reader.receive(1);
    let before = resident(proxy);
    let sent = 1 + sender.send_until_full(&bytes[1..]);
    assert!(sent < bytes.len(), "nothing held the sender up");
    let grown = resident(proxy).saturating_sub(before);
    assert!(grown < 2 << 20, "{sent} bytes are under way, and the proxy holds {grown} more");
    thread::scope(|scope| {
        let rest = &bytes[sent..];
        scope.spawn(move || {
            sender.send(rest);
            sender.finish();
        });
        assert!(reader.receive_all() == bytes[1..]);
    });
    let grown = resident(proxy).saturating_sub(before);
    assert!(grown < 4 << 20, "the proxy has grown by {grown}");
}

#[test]
fn an_upstream_that_does_not_read_holds_its_client_up() {
    let (proxy, client, upstream) = pair();
    stall_and_go_on(&proxy, client, upstream);
    proxy.stop();
}

#[test]
fn a_client_that_does_not_read_holds_its_upstream_up() {
    let (proxy, client, upstream) = pair();
    stall_and_go_on(&proxy, upstream, client);
    proxy.stop();
}

/// What waits because the other side takes nothing is neither idle nor lost.
#[test]
fn who_is_held_up_for_longer_than_the_idle_deadline_goes_on() {
    let upstream = Upstream::new();
    let (proxy, address) = proxy(&[&upstream.address], &["--idle", "3"]);
    let (mut client, mut server) = (Client::connect(&address), upstream.accept());
    let bytes = Random::new(12).bytes(64 << 20);
    let sent = client.send_until_full(&bytes);
    assert!(sent < bytes.len(), "nothing held the client up");
    // A pair that is quiet from now on has reached the deadline when its end comes.
    let (mut quiet, mut other) = (Client::connect(&address), upstream.accept());
    assert_eq!((quiet.receive_all(), other.receive_all()), (Vec::new(), Vec::new()));
    thread::scope(|scope| {
        scope.spawn(|| {
            client.send(&bytes[sent..]);
            client.finish();
        });
        assert!(server.receive_all() == bytes);
    });
    proxy.stop();
}

/// One side ends, and still gets what the other has to say.
#[track_caller]
fn end_first(mut first: Client, mut second: Client) {
    let (request, reply) = (Random::new(6).bytes(1 << 20), Random::new(7).bytes(3 << 20));
    let sender = first.another();
    thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(sender, &request, 1));
        assert!(second.receive_all() == request);
        let sender = second.another();
        scope.spawn(|| send_in_pieces(sender, &reply, 2));
        assert!(first.receive_all() == reply);
    });
}

#[test]
fn a_client_that_ends_first_gets_its_reply() {
    let (proxy, client, upstream) = pair();
    end_first(client, upstream);
    proxy.stop();
}

#[test]
fn an_upstream_that_ends_first_gets_the_rest() {
    let (proxy, client, upstream) = pair();
    end_first(upstream, client);
    proxy.stop();
}

#[test]
fn resets_are_passed_on() {
    for is_clients in [true, false] {
        for has_ended in [true, false] {
            let (proxy, mut client, mut upstream) = pair();
            client.send(b"both stand");
            upstream.receive(10);
            let (resets, mut told) = if is_clients { (client, upstream) } else { (upstream, client) };
            if has_ended {
                // The other direction still is a half of the stream that never will be whole.
                resets.finish();
                assert_eq!(told.receive_all(), b"");
            }
            resets.reset();
            if has_ended {
                // What was read to its end stays so; the reset shows when something is sent.
                eventually("the reset", || told.write_all(b"?").is_err());
            } else {
                assert_eq!(told.receive_rest(), (Vec::new(), End::Reset));
            }
            proxy.stop();
        }
    }
}

#[test]
fn a_reset_in_the_middle_of_a_transfer_does_not_look_like_its_end() {
    let (proxy, mut client, mut upstream) = pair();
    // So much is under way that the proxy waits for the client to read.
    upstream.send_until_full(&vec![1; 64 << 20]);
    upstream.reset();
    assert_eq!(client.receive_rest().1, End::Reset);
    proxy.stop();
}

#[test]
fn an_upstream_that_refuses_is_passed_over() {
    let (nobody, folder, upstream) = (nobody(), TempDir::new(), Upstream::new());
    let missing = format!("unix:{}", folder.join("missing").display());
    let upstreams = [&*nobody, &missing, &upstream.address];
    let (mut proxy, address) = proxy(&upstreams, &[]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        // What was sent before an upstream stood is not lost, nor is its end.
        let mut client = Client::connect(&address);
        client.send(b"early");
        client.finish();
        let mut accepted = upstream.accept();
        assert_eq!(accepted.receive_all(), b"early");
        accepted.send(b"reply");
        clients.push((client, accepted));
    }
    for (mut client, accepted) in clients {
        drop(accepted);
        assert_eq!(client.receive_all(), b"reply");
    }
    let (counters, turned_away) = ask(&mut proxy, &upstreams);
    // The first began with the first, the second with the second, the third with the third.
    let seen: Vec<_> = counters.iter().map(|each| (each.connections, each.failures)).collect();
    assert_eq!((seen, turned_away), (vec![(0, 1), (0, 2), (3, 0)], 0));
    let output = proxy.stop();
    // Said once, however often it was tried; before the counters were heard or behind them, for it comes by the
    // other output.
    let said: Vec<_> = output.iter().filter(|line| line.contains("cannot connect")).collect();
    let distinct: HashSet<_> = said.iter().collect();
    assert_eq!(said.len(), distinct.len(), "said again: {output:#?}");
}

#[test]
fn an_upstream_that_does_not_answer_is_passed_over() {
    let (_listener, _queued, black_hole) = black_hole();
    let upstream = Upstream::new();
    let upstreams = [&*black_hole, &upstream.address];
    let (mut proxy, address) = proxy(&upstreams, &["--dial-timeout", "100"]);
    let mut client = Client::connect(&address);
    let bytes = Random::new(8).bytes(300_000);
    client.send(&bytes);
    let mut accepted = upstream.accept();
    assert!(accepted.receive(bytes.len()) == bytes);
    accepted.send(b"got it");
    assert_eq!(client.receive(6), b"got it");
    assert_eq!(proxy.hear("cannot connect to "), format!("{black_hole}: timed out"));
    let (counters, _) = ask(&mut proxy, &upstreams);
    assert_eq!((counters[0].failures, counters[0].active, counters[1].active), (1, 0, 1));
    drop((client, accepted));
    proxy.stop();
}

/// Connects and is reset, perhaps before it is told that it was connected.
#[track_caller]
fn expect_reset(address: &Address) {
    match Client::try_connect(address) {
        Ok(mut client) => assert_eq!(client.receive_rest(), (Vec::new(), End::Reset)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn without_any_upstream_the_client_is_reset_and_counted() {
    let (first, second) = (nobody(), nobody());
    let upstreams = [&*first, &second];
    let (mut proxy, address) = proxy(&upstreams, &[]);
    (0..5).for_each(|_| expect_reset(&address));
    proxy.hear("a client was reset: ");
    // A client hears of its end a moment before the handler does.
    eventually("the end of all", || ask(&mut proxy, &upstreams).0.iter().all(|each| each.active == 0));
    let (counters, turned_away) = ask(&mut proxy, &upstreams);
    assert_eq!(turned_away, 5);
    for upstream in counters {
        let expected = Counters { connections: 0, active: 0, failures: 5, bytes_to: 0, bytes_from: 0 };
        assert_eq!(upstream, expected);
    }
    proxy.stop();
}

#[test]
fn an_upstream_that_comes_back_is_used_again() {
    let upstream = Upstream::new();
    let address = upstream.address.clone();
    drop(upstream);
    // A child that another test is starting may hold the listener for a moment longer.
    wait_for_nobody_at(&Address::Tcp(address.parse().unwrap()));
    let (mut proxy, at) = proxy(&[&address], &[]);
    expect_reset(&at);
    proxy.hear("cannot connect to ");
    let listener = TcpListener::bind(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let upstream = Upstream { listener, address };
    let mut client = Client::connect(&at);
    upstream.accept().send(b"back");
    assert_eq!(client.receive_all(), b"back");
    proxy.hear(&format!("{} can be reached again", upstream.address));
    drop(client);
    proxy.stop();
}

#[test]
fn a_client_that_vanishes_while_dialing_takes_the_dial_with_it() {
    let (_listener, _queued, black_hole) = black_hole();
    let (mut proxy, address) = proxy(&[&black_hole], &["--dial-timeout", "60000"]);
    let before = descriptors(&proxy);
    let clients: Vec<_> = (0..10).map(|_| Client::connect(&address)).collect();
    eventually("the dials", || ask(&mut proxy, &[&black_hole]).0[0].active == 10);
    assert_eq!(descriptors(&proxy), before + 20);
    clients.into_iter().for_each(Client::reset);
    eventually("their end", || ask(&mut proxy, &[&black_hole]).0[0].active == 0);
    eventually("the sockets' end", || descriptors(&proxy) == before);
    let (counters, turned_away) = ask(&mut proxy, &[&black_hole]);
    assert_eq!((counters[0].failures, turned_away), (0, 0), "nobody failed, somebody left");
    proxy.stop();
}

#[test]
fn a_thousand_short_connections_leave_nothing_behind() {
    let upstream = Upstream::new();
    let (mut proxy, address) = proxy(&[&upstream.address], &[]);
    let before = descriptors(&proxy);
    for round in 0..1_000u32 {
        let mut client = Client::connect(&address);
        client.send(&round.to_le_bytes());
        let mut accepted = upstream.accept();
        assert_eq!(accepted.receive(4), round.to_le_bytes());
        match round % 4 {
            0 => client.reset(),
            1 => accepted.reset(),
            2 => drop(client),
            _ => accepted.finish(),
        }
    }
    eventually("the end of all of them", || ask(&mut proxy, &[&upstream.address]).0[0].active == 0);
    eventually("the sockets' end", || descriptors(&proxy) == before);
    let (counters, turned_away) = ask(&mut proxy, &[&upstream.address]);
    assert_eq!((counters[0].connections, counters[0].bytes_to, turned_away), (1_000, 4_000, 0));
    proxy.stop();
}

#[test]
fn counting_stops_nothing() {
    let upstream = Upstream::new();
    let (mut proxy, address) = proxy(&[&upstream.address], &[]);
    let client = Client::connect(&address);
    let mut accepted = upstream.accept();
    let bytes = Random::new(9).bytes(8 << 20);
    thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(client, &bytes, 1));
        let mut received = Vec::new();
        while received.len() < bytes.len() {
            received.extend(accepted.receive((bytes.len() - received.len()).min(1 << 20)));
            let (counters, _) = ask(&mut proxy, &[&upstream.address]);
            assert!(counters[0].bytes_to >= received.len() as u64);
            assert_eq!(counters[0].active, 1);
        }
        assert!(received == bytes);
    });
    drop(accepted);
    proxy.stop();
}

#[test]
fn a_transfer_is_finished_before_the_end() {
    let upstream = Upstream::new();
    let (mut proxy, address) = proxy(&[&upstream.address], &[]);
    let mut client = Client::connect(&address);
    let mut accepted = upstream.accept();
    let bytes = Random::new(10).bytes(64 << 20);
    let sent = client.send_until_full(&bytes);
    assert!(sent < bytes.len());
    proxy.signal(Signal::SIGTERM);
    wait_for_nobody_at(&address);
    thread::scope(|scope| {
        scope.spawn(|| {
            client.send(&bytes[sent..]);
            client.finish();
            assert_eq!(client.receive_all(), b"thank you");
        });
        assert!(accepted.receive_all() == bytes);
        accepted.send(b"thank you");
        accepted.finish();
    });
    let report = proxy.hear("shutdown: ");
    assert!(report.ends_with(" 0 cut off"), "{report}");
    assert!(proxy.wait().0.success());
}

#[test]
fn quiet_connections_do_not_hold_up_the_end() {
    let upstream = Upstream::new();
    let (mut proxy, address) = proxy(&[&upstream.address], &["--drain-idle", "1"]);
    let mut client = Client::connect(&address);
    client.send(b"done");
    let mut accepted = upstream.accept();
    accepted.receive(4);
    proxy.signal(Signal::SIGTERM);
    // Both are told in good order.
    assert_eq!(client.receive_all(), b"");
    assert_eq!(accepted.receive_all(), b"");
    drop((client, accepted));
    proxy.hear("shutdown: 2 open, 2 drained, 0 cut off");
    assert!(proxy.wait().0.success());
}

#[test]
fn what_does_not_end_is_cut_off() {
    let upstream = Upstream::new();
    let (mut proxy, address) = proxy(&[&upstream.address], &["--drain", "1", "--drain-idle", "100"]);
    let mut client = Client::connect(&address);
    let mut accepted = upstream.accept();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(client.receive_rest().1, End::Reset);
    assert_eq!(accepted.receive_rest().1, End::Reset);
    proxy.hear("shutdown: 2 open, 0 drained, 2 cut off");
    assert!(proxy.wait().0.success());
}

/// Connects `count` clients one after the other; which upstream each came to.
fn places(address: &Address, upstreams: &[Upstream], count: usize) -> Vec<(usize, Client, Client)> {
    let connect = |_| {
        let client = Client::connect(address);
        let mut place = None;
        eventually("a connection to some upstream", || {
            let accepted = upstreams.iter().enumerate().find_map(|(n, each)| Some((n, each.try_accept()?)));
            place = accepted.or(place.take());
            place.is_some()
        });
        let (place, accepted) = place.unwrap();
        (place, client, accepted)
    };
    (0..count).map(connect).collect()
}

#[test]
fn round_robin_takes_turns() {
    let upstreams = [(); 3].map(|()| Upstream::new());
    let addresses: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.address).collect();
    let (proxy, address) = proxy(&addresses, &["--balance", "round-robin"]);
    let taken: Vec<_> = places(&address, &upstreams, 9).into_iter().map(|(place, ..)| place).collect();
    assert_eq!(taken, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    proxy.stop();
}

#[test]
fn least_connections_evens_out() {
    let upstreams = [(); 3].map(|()| Upstream::new());
    let addresses: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.address).collect();
    let (mut proxy, address) = proxy(&addresses, &["--balance", "least-connections"]);
    let active = |proxy: &mut Example| -> Vec<u64> {
        ask(proxy, &addresses).0.iter().map(|each| each.active).collect()
    };
    let mut open = places(&address, &upstreams, 12);
    assert_eq!(active(&mut proxy), [4; 3]);
    // Those of one leave: the next ones all go there.
    open.retain(|(place, ..)| *place != 1);
    eventually("their end", || active(&mut proxy) == [4, 0, 4]);
    let next = places(&address, &upstreams, 4);
    assert!(next.iter().all(|(place, ..)| *place == 1));
    drop((open, next));
    proxy.stop();
}

#[test]
fn what_it_needs_is_asked_for() {
    let (status, output) = Example::start("proxy", &[]).wait();
    assert_eq!(status.code(), Some(2));
    assert!(output.iter().any(|line| line.contains("--upstream <ADDR>")), "{output:#?}");
}
