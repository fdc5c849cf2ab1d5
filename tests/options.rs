//! Every socket option arrives at the kernel, on accepted and on dialed connections.

mod support;

use std::net::TcpListener;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use corelane::{Address, Dial, Keepalive, Open, Server, SocketOptions, StartError};
use socket2::SockRef;
use support::{Client, Script, TempDir, TestServer};

/// What the kernel says about the sockets of this process that are connected from or to a port.
fn sockets_at(port: u16) -> Vec<RawFd> {
    let names = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let descriptors = names.filter_map(|name| name.parse::<RawFd>().ok());
    let at_port = |descriptor: &RawFd| {
        let socket = borrow(*descriptor);
        let local = SockRef::from(&socket).local_addr();
        let is_connected = SockRef::from(&socket).peer_addr().is_ok();
        is_connected
            && local.is_ok_and(|address| address.as_socket().is_some_and(|address| address.port() == port))
    };
    descriptors.filter(at_port).collect()
}

fn borrow(descriptor: RawFd) -> BorrowedFd<'static> {
    // SAFETY: used only to ask the kernel about it: one that is closed or reused is an error or another's
    // answer, which no test takes for its own.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

/// Options that differ from the default in every field that this kernel lets us read back.
fn unusual() -> SocketOptions {
    SocketOptions {
        nodelay: false,
        receive_buffer: Some(20_000),
        send_buffer: Some(30_000),
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(111),
            interval: Duration::from_secs(22),
            count: 7,
        }),
        user_timeout: Some(Duration::from_millis(12_345)),
        notsent_lowat: Some(54_321),
        quickack: true,
        fastopen: None,
        defer_accept: None,
        linger: Some(Duration::ZERO),
        busy_poll: Some(Duration::from_micros(33)),
    }
}

#[track_caller]
fn is_unusual(descriptor: RawFd) {
    let socket = borrow(descriptor);
    let socket = SockRef::from(&socket);
    assert!(!socket.tcp_nodelay().unwrap());
    // Linux doubles both.
    assert_eq!(socket.recv_buffer_size().unwrap(), 40_000);
    assert_eq!(socket.send_buffer_size().unwrap(), 60_000);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(111));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(22));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 7);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), 54_321);
    assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
    assert_eq!(number(descriptor, libc::SOL_SOCKET, libc::SO_BUSY_POLL), 33);
}

fn number(descriptor: RawFd, level: i32, name: i32) -> i32 {
    let mut value = 0;
    let mut length = size_of::<i32>() as libc::socklen_t;
    let target = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the kernel writes at most `length` bytes to `value`; getsockopt(2).
    let result = unsafe { libc::getsockopt(descriptor, level, name, target, &mut length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value
}

/// The descriptor of the server's side of a client's connection.
fn server_side(client: &Client) -> RawFd {
    let Client::Tcp(stream) = client else { panic!("not TCP") };
    let here = stream.local_addr().unwrap();
    let candidates = sockets_at(stream.peer_addr().unwrap().port());
    let is_ours = |descriptor: &RawFd| {
        SockRef::from(&borrow(*descriptor)).peer_addr().is_ok_and(|peer| peer.as_socket() == Some(here))
    };
    candidates.into_iter().find(is_ours).expect("the other end")
}

#[test]
fn they_arrive_on_accepted_connections() {
    let server = TestServer::with(Server::new().socket_options(unusual()), Script::echo());
    let mut client = server.client();
    client.echo(b"hello");
    is_unusual(server_side(&client));
}

#[test]
fn they_arrive_on_dialed_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let server = TestServer::start(Script::new());
    server.core(move |core| core.connect(&Dial::to(there).options(unusual())));
    server.opened();
    let (accepted, _) = listener.accept().unwrap();
    is_unusual(server_side(&Client::Tcp(accepted)));
}

#[test]
fn they_arrive_on_one_connection() {
    let server = TestServer::start(Script::echo().open(|conn, report| {
        conn.set_options(&unusual()).unwrap();
        let error = conn
            .set_options(&SocketOptions { send_buffer: Some(0), ..SocketOptions::default() })
            .unwrap_err();
        report.note(error.to_string());
        Open::Accept(())
    }));
    let mut client = server.client();
    client.echo(b"hello");
    assert_eq!(server.note(), "socket option send_buffer: 0 is not within 1 to 2^30 bytes");
    is_unusual(server_side(&client));
}

#[test]
fn by_default_small_segments_leave_at_once_and_nothing_else_is_touched() {
    let server = TestServer::start(Script::echo());
    let mut client = server.client();
    client.echo(b"hello");
    let descriptor = server_side(&client);
    let socket = borrow(descriptor);
    let socket = SockRef::from(&socket);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(!socket.keepalive().unwrap());
    assert_eq!(socket.linger().unwrap(), None);
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);
}

#[test]
fn options_of_listeners_arrive_there() {
    let options = SocketOptions {
        fastopen: Some(77),
        defer_accept: Some(Duration::from_secs(3)),
        ..SocketOptions::default()
    };
    let server = TestServer::with(Server::new().socket_options(options), Script::new());
    let Address::Tcp(address) = *server.address() else { panic!("not TCP") };
    let names = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let listener = names.filter_map(|name| name.parse::<RawFd>().ok()).find(|&descriptor| {
        let socket = borrow(descriptor);
        let socket = SockRef::from(&socket);
        socket.is_listener().is_ok_and(|listens| listens)
            && socket.local_addr().is_ok_and(|local| local.as_socket() == Some(address))
    });
    let listener = listener.expect("a listener");
    assert_eq!(number(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN), 77);
    assert_eq!(number(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT), 3);
    // Nobody is told of a connection before its first byte.
    let mut client = server.client();
    server.settle();
    assert_eq!(server.rest(), []);
    client.send(b"x");
    assert_eq!(server.data(server.opened()), b"x");
}

#[test]
fn options_of_tcp_do_nothing_to_unix_sockets() {
    let directory = TempDir::new();
    let server = Server::new().listen(Address::Unix(directory.join("a"))).reactors(1);
    let options =
        SocketOptions { fastopen: Some(5), defer_accept: Some(Duration::from_secs(1)), ..unusual() };
    let server = TestServer::configured(server.socket_options(options), Script::echo());
    server.client().echo(b"hello");
}

#[test]
fn the_effective_backlog_is_told() {
    let limit: u32 = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let directory = TempDir::new();
    for (asked, expected) in [(1, 1), (10, 10), (65_535, 65_535.min(limit))] {
        let server = Server::new().listen("127.0.0.1:0").listen(Address::Unix(directory.join("a")));
        let server = TestServer::configured(server.reactors(2).backlog(asked), Script::new());
        let backlogs = server.running().listening().iter().map(|listening| listening.backlog);
        assert_eq!(backlogs.collect::<Vec<_>>(), [expected, expected]);
    }
}

/// Changes one field from the default.
type Change = fn(&mut SocketOptions);

fn keepalive(idle: u64, interval: u64, count: u32) -> Option<Keepalive> {
    Some(Keepalive { idle: Duration::from_secs(idle), interval: Duration::from_secs(interval), count })
}

#[test]
fn a_value_out_of_range_is_an_error_that_names_field_and_range() {
    let cases: [(Change, &str, &str); 19] = [
        (|options| options.receive_buffer = Some(0), "receive_buffer", "1 to 2^30"),
        (|options| options.receive_buffer = Some((1 << 30) + 1), "receive_buffer", "1 to 2^30"),
        (|options| options.send_buffer = Some(0), "send_buffer", "1 to 2^30"),
        (|options| options.send_buffer = Some((1 << 30) + 1), "send_buffer", "1 to 2^30"),
        (|options| options.keepalive = keepalive(0, 1, 1), "keepalive.idle", "1 s to 32,767 s"),
        (|options| options.keepalive = keepalive(32_768, 1, 1), "keepalive.idle", "1 s to 32,767 s"),
        (|options| options.keepalive = keepalive(1, 0, 1), "keepalive.interval", "1 s to 32,767 s"),
        (|options| options.keepalive = keepalive(1, 1, 0), "keepalive.count", "1 to 127"),
        (|options| options.keepalive = keepalive(1, 1, 128), "keepalive.count", "1 to 127"),
        (|options| options.user_timeout = Some(Duration::ZERO), "user_timeout", "1 ms to 2^31"),
        (|options| options.user_timeout = Some(Duration::MAX), "user_timeout", "1 ms to 2^31"),
        (|options| options.notsent_lowat = Some(0), "notsent_lowat", "1 to 2^31"),
        (|options| options.notsent_lowat = Some(u32::MAX), "notsent_lowat", "1 to 2^31"),
        (|options| options.fastopen = Some(0), "fastopen", "1 to 2^31"),
        (
            |options| options.defer_accept = Some(Duration::from_millis(999)),
            "defer_accept",
            "1 s to 32,767 s",
        ),
        (|options| options.linger = Some(Duration::from_secs(1)), "linger", "0 s"),
        (|options| options.busy_poll = Some(Duration::from_nanos(999)), "busy_poll", "1 us to 1 s"),
        (|options| options.busy_poll = Some(Duration::from_secs(2)), "busy_poll", "1 us to 1 s"),
        (|options| options.fastopen = Some(u32::MAX), "fastopen", "1 to 2^31"),
    ];
    for (change, field, range) in cases {
        let mut options = SocketOptions::default();
        change(&mut options);
        let server = Server::new().socket_options(options.clone()).listen("127.0.0.1:0").reactors(1);
        match TestServer::try_start(server, Script::new()) {
            Err(StartError::Config(error)) => {
                assert_eq!(error.field(), field);
                let text = error.to_string();
                assert!(text.starts_with(field) && text.contains(range), "{text}");
            }
            other => panic!("{options:?}: {other:?}"),
        }
    }
}

#[test]
fn the_bounds_themselves_are_taken_by_the_kernel() {
    let changes: [Change; 13] = [
        |options| options.receive_buffer = Some(1),
        |options| options.receive_buffer = Some(1 << 30),
        |options| options.send_buffer = Some(1 << 30),
        |options| options.keepalive = keepalive(1, 1, 1),
        |options| options.keepalive = keepalive(32_767, 32_767, 127),
        |options| options.user_timeout = Some(Duration::from_millis(1)),
        |options| options.user_timeout = Some(Duration::from_millis((1 << 31) - 1)),
        |options| options.notsent_lowat = Some(1),
        |options| options.notsent_lowat = Some((1 << 31) - 1),
        |options| options.fastopen = Some((1 << 31) - 1),
        |options| options.defer_accept = Some(Duration::from_secs(32_767)),
        |options| options.linger = Some(Duration::ZERO),
        |options| options.busy_poll = Some(Duration::from_secs(1)),
    ];
    for change in changes {
        let mut options = SocketOptions::default();
        change(&mut options);
        let server = Server::new().socket_options(options.clone()).listen("127.0.0.1:0").reactors(1);
        let server = TestServer::try_start(server, Script::echo())
            .unwrap_or_else(|error| panic!("{options:?}: {error}"));
        server.client().echo(b"hello");
    }
    // What is one more than the kernel's int is nobody's.
    let options =
        SocketOptions { user_timeout: Some(Duration::from_millis(1 << 31)), ..SocketOptions::default() };
    let server = Server::new().socket_options(options).listen("127.0.0.1:0").reactors(1);
    match TestServer::try_start(server, Script::new()) {
        Err(StartError::Config(error)) => assert_eq!(error.field(), "user_timeout"),
        other => panic!("{other:?}"),
    }
}
