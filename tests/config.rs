//! A setting that cannot be is an error that says which, what it was, and what is accepted; and nothing is
//! left of a server that did not start.

mod support;

use std::error::Error;
use std::net::TcpListener;
use std::time::Duration;

use corelane::{
    Address, Balance, ConfigError, Deadlines, MinimumRate, Pinning, Polling, Server, StartError, Watermarks,
};
use support::{Script, TestServer, alone, descriptors, eventually};

#[track_caller]
fn refused(server: Server) -> ConfigError {
    match TestServer::try_start(server.listen("127.0.0.1:0"), Script::new()) {
        Err(StartError::Config(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_setting_out_of_range_is_named_with_its_range() {
    let server = Server::new;
    let marks = |high, low, cap| server().watermarks(Watermarks { high, low, cap });
    let deadlines = |change: fn(&mut Deadlines)| {
        let mut deadlines = Deadlines::default();
        change(&mut deadlines);
        server().deadlines(deadlines)
    };
    const SHORT: Duration = Duration::from_millis(9);
    const LONG: Duration = Duration::from_secs(25 * 24 * 60 * 60);
    let cases = [
        (server().reactors(0), "reactors", "1 to 1024"),
        (server().reactors(1_025), "reactors", "1 to 1024"),
        (server().backlog(0), "backlog", "1 to 65535"),
        (server().backlog(65_536), "backlog", "1 to 65535"),
        (marks(0, 0, 10), "watermarks.high", "1 to "),
        (marks(10, 11, 20), "watermarks.low", "0 to 10"),
        (marks(10, 5, 9), "watermarks.cap", "10 to "),
        (server().input_cap(0), "input_cap", "1 to 1073741824"),
        (server().input_cap((1 << 30) + 1), "input_cap", "1 to 1073741824"),
        (server().read_buffer(511), "read_buffer", "512 to 16777216"),
        (server().read_buffer((16 << 20) + 1), "read_buffer", "512 to 16777216"),
        (server().byte_budget(0), "byte_budget", "1 to 1073741824"),
        (server().max_connections(0), "max_connections", "1 to "),
        (server().max_connections_per_source(0), "max_connections_per_source", "1 to "),
        (server().mailbox(0, 1), "mailbox (commands)", "1 to 1048576"),
        (server().mailbox((1 << 20) + 1, 1), "mailbox (commands)", "1 to 1048576"),
        (server().mailbox(1, 0), "mailbox (bytes)", "1 to 1099511627776"),
        (server().drain_deadline(LONG), "drain_deadline", "0ns to 24 days"),
        (server().tick(Duration::ZERO), "tick", "1ms to 24 days"),
        (server().tick(LONG), "tick", "1ms to 24 days"),
        (deadlines(|all| all.first_byte = Some(SHORT)), "deadlines.first_byte", "10ms to 24 days"),
        (deadlines(|all| all.idle = Some(Duration::ZERO)), "deadlines.idle", "10ms to 24 days"),
        (deadlines(|all| all.idle = Some(LONG)), "deadlines.idle", "10ms to 24 days"),
        (deadlines(|all| all.write_stall = Some(SHORT)), "deadlines.write_stall", "10ms to 24 days"),
        (deadlines(|all| all.linger = LONG), "deadlines.linger", "0ns to 24 days"),
        (
            deadlines(|all| {
                all.minimum_rate = Some(MinimumRate { bytes_per_second: 0, grace: Duration::from_secs(1) })
            }),
            "deadlines.minimum_rate.bytes_per_second",
            "1 to 2147483648",
        ),
        (
            deadlines(|all| all.minimum_rate = Some(MinimumRate { bytes_per_second: 1, grace: SHORT })),
            "deadlines.minimum_rate.grace",
            "10ms to 24 days",
        ),
        (server().polling(Polling::Spin(Duration::ZERO)), "polling", "1us to 1s"),
        (server().polling(Polling::Spin(Duration::from_secs(2))), "polling", "1us to 1s"),
        (server().balance(Balance::CpuSteering), "balance", "pinning(Pinning::Cores) with it"),
    ];
    for (server, field, accepted) in cases {
        let error = refused(server);
        assert_eq!(error.field(), field);
        let text = error.to_string();
        assert!(text.starts_with(&format!("{field}: ")) && text.contains(accepted), "{text}");
        // So it is told by whoever prints the start error, in either way.
        let error = StartError::from(error);
        assert_eq!((error.to_string(), format!("{error:?}")), (text.clone(), text));
        assert!(error.source().is_some());
    }
}

#[test]
fn the_bounds_themselves_are_accepted() {
    let month = Duration::from_secs(24 * 24 * 60 * 60);
    let rate = MinimumRate { bytes_per_second: 1, grace: Duration::from_millis(10) };
    let deadlines = Deadlines {
        first_byte: Some(month),
        idle: Some(month),
        write_stall: Some(month),
        linger: month,
        minimum_rate: Some(rate),
    };
    let least = Server::new()
        .backlog(1)
        .watermarks(Watermarks { high: 1, low: 0, cap: 1 << 20 })
        .read_buffer(512)
        .byte_budget(1)
        .mailbox(16, 1)
        .tick(Duration::from_millis(1))
        .polling(Polling::Spin(Duration::from_micros(1)))
        .deadlines(deadlines)
        .drain_deadline(Duration::ZERO);
    let most = Server::new()
        .backlog(65_535)
        .watermarks(Watermarks { high: usize::MAX, low: usize::MAX, cap: usize::MAX })
        .input_cap(1 << 30)
        .read_buffer(16 << 20)
        .byte_budget(1 << 30)
        .max_connections(usize::MAX)
        .max_connections_per_source(usize::MAX)
        .mailbox(1 << 20, 1 << 40)
        .tick(month)
        .drain_deadline(month);
    for server in [least, most] {
        let server = TestServer::with(server, Script::echo());
        let (mut client, _) = server.connect();
        client.echo(&[7; 10_000]);
    }
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = Address::Tcp(taken_address(&taken));
    for reactors in [1, 3] {
        for address in
            [taken.clone(), "192.0.2.1:80".parse().unwrap(), Address::Unix("/no/such/directory/a".into())]
        {
            let server = Server::new().listen("127.0.0.1:0").listen(address.clone()).reactors(reactors);
            match TestServer::try_start(server, Script::new()) {
                Err(StartError::Listen { address: named, error }) => {
                    assert_eq!(named, address);
                    assert!(error.raw_os_error().is_some());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let server = Server::new().listen("nonsense").reactors(1);
    let error = TestServer::try_start(server, Script::new()).unwrap_err();
    assert!(matches!(error, StartError::Address(_)));
    assert!(error.to_string().contains("\"nonsense\""), "{error}");
}

fn taken_address(listener: &TcpListener) -> std::net::SocketAddr {
    listener.local_addr().unwrap()
}

#[test]
fn one_reactor_shares_its_port_with_no_other_server() {
    let server = TestServer::start(Script::echo());
    let again = Server::new().listen(server.address().clone()).reactors(1);
    match TestServer::try_start(again, Script::echo()) {
        Err(StartError::Listen { error, .. }) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_that_fails_leaves_nothing_open() {
    alone("a_start_that_fails_leaves_nothing_open", || {
        let before = descriptors();
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let (listener, threads_before) = (TcpListener::bind("127.0.0.1:0").unwrap(), threads());
        for reactors in [1, 4] {
            let server = Server::new().listen("127.0.0.1:0").reactors(reactors);
            let unlucky = server.clone().listen(Address::Tcp(taken_address(&listener)));
            assert!(TestServer::try_start(unlucky, Script::new()).is_err());
            let last = reactors - 1;
            let panicking = Script::new().on_start(move |core, _| assert_ne!(core.reactor(), last));
            assert!(TestServer::try_start(server, panicking).is_err());
        }
        // The kernel may list a thread a little longer than it takes to join it.
        eventually("the end of all threads", || threads() == threads_before);
        drop(listener);
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_start_for_which_there_are_no_threads_fails_at_once() {
    alone("a_start_for_which_there_are_no_threads_fails_at_once", || {
        use nix::sys::resource::{Resource, setrlimit};
        // Root has no limit; a user of whom there is nothing else has room for a few.
        // SAFETY: setuid(2) takes a number.
        let is_nobody = unsafe { libc::setuid(54_321) } == 0;
        let threads = if is_nobody { 8 } else { 1 };
        setrlimit(Resource::RLIMIT_NPROC, threads, threads).unwrap();
        let server = Server::new().listen("127.0.0.1:0").reactors(50);
        // Those that were started must not wait for those that never came.
        let server = server.drain_deadline(Duration::from_secs(24 * 60 * 60));
        match TestServer::try_start(server, Script::new()) {
            Err(StartError::Setup { what, .. }) => assert_eq!(what, "cannot start a thread"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_server_needs_no_address() {
    let mut server = TestServer::configured(Server::new().reactors(2), Script::new());
    assert_eq!(server.addresses, []);
    assert_eq!(server.on_reactor(1, |_, core| core.reactor()), 1);
    assert_eq!(server.stop().total.accepted, 0);
}

#[test]
fn by_default_there_is_a_reactor_for_each_cpu() {
    let server = TestServer::configured(Server::new(), Script::new());
    let available = std::thread::available_parallelism().unwrap().get();
    assert_eq!(server.running().reactors(), available);
}

#[test]
fn pinned_reactors_stay_on_their_cpus_and_serve() {
    use nix::sched::{CpuSet, sched_getaffinity};
    let cpus = std::thread::available_parallelism().unwrap().get();
    for (balance, reactors) in [(Balance::Kernel, cpus + 1), (Balance::CpuSteering, cpus)] {
        let server = Server::new().listen("127.0.0.1:0").reactors(reactors).pinning(Pinning::Cores);
        let server = TestServer::configured(server.balance(balance), Script::echo());
        for reactor in 0..reactors {
            let cpus = server.on_reactor(reactor, |_, _| {
                let set = sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
                (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap()).count()
            });
            assert_eq!(cpus, 1);
        }
        for _ in 0..20 {
            server.client().echo(b"hello");
        }
    }
}

/// The kernel knows one reactor for each CPU, and others would get nothing.
#[test]
fn steering_by_cpu_takes_no_more_reactors_than_cpus() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let server = Server::new().listen("127.0.0.1:0").reactors(cpus + 1).pinning(Pinning::Cores);
    match TestServer::try_start(server.balance(Balance::CpuSteering), Script::echo()) {
        Err(StartError::Config(error)) => {
            assert_eq!(error.field(), "reactors");
            assert!(error.to_string().contains(&format!("1 to {cpus}")), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_descriptor_limit_is_raised_and_told() {
    alone("the_descriptor_limit_is_raised_and_told", || {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
        let server = TestServer::start(Script::new());
        let limit = server.running().file_limit();
        assert_eq!((limit.before, limit.now, limit.hard), (100, hard, hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    });
}

#[test]
fn threads_carry_their_name() {
    let server = Server::new().listen("127.0.0.1:0").reactors(2).thread_name("named");
    let server = TestServer::configured(server, Script::new());
    for reactor in 0..2 {
        let name = server.on_reactor(reactor, |_, _| std::thread::current().name().map(str::to_owned));
        assert_eq!(name, Some(format!("named-{reactor}")));
    }
}
