//! Every fallible call of the driver fails once, at every place where a run makes it, with every error that
//! may come there, while connections are served. Nothing may hang, leak or die, and no connection but the
//! one concerned may notice.
#![cfg(feature = "sim")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use corelane::sim::{Call, Calls, Faults, Reading, Remote, Simulation};
use corelane::*;

/// Remotes that connect; one more is dialed.
const REMOTES: usize = 4;
/// More than all buffers on the way hold.
const LARGE: usize = 60_000;
/// Places to fail at, of a call that is made more often.
const MOST_PLACES: u64 = 200;

#[derive(Debug, Default)]
struct Service {
    opened: usize,
    closed: usize,
    dial_errors: usize,
    asked: usize,
    answered: Arc<AtomicUsize>,
    timers: usize,
}

impl Handler for Service {
    type Session = ();
    type Message = ();

    fn on_start(&mut self, core: &mut Core<'_>) {
        core.set_timer(Duration::from_millis(1), 0);
    }

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<()> {
        self.opened += 1;
        // Whatever these answer, the connection is served.
        let _ = conn.local_address();
        let _ = conn.set_options(&SocketOptions::default());
        if conn.origin() != Origin::Dialed {
            conn.write_file(greeting());
        }
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        self.asked += 1;
        let answered = Arc::clone(&self.answered);
        let receipt = Receipt::new(move |_| _ = answered.fetch_add(1, Ordering::Relaxed));
        conn.write_with_receipt(input.take_all(), receipt);
        Flow::Continue
    }

    fn on_close(&mut self, _: ConnId, (): (), _: CloseReason, _: &mut Core<'_>) {
        self.closed += 1;
    }

    fn on_connect_error(&mut self, _: ConnId, _: ConnectError, _: &mut Core<'_>) {
        self.dial_errors += 1;
    }

    fn on_timer(&mut self, _: TimerId, _: u64, _: &mut Sessions<()>, core: &mut Core<'_>) {
        self.timers += 1;
        let id = core.connect(&Dial::to(Address::Tcp(([192, 0, 2, 1], 7).into())));
        core.write(id, b"hello");
    }
}

/// What the server sends first, from a file.
const GREETING: &[u8] = &[b'g'; 20_000];

fn greeting() -> FileSlice {
    static FILE: OnceLock<FileSlice> = OnceLock::new();
    let make = || {
        let path = std::env::temp_dir().join(format!("corelane-faults-{}", std::process::id()));
        std::fs::write(&path, GREETING).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        FileSlice::whole(file).unwrap()
    };
    FILE.get_or_init(make).clone()
}

fn simulation() -> Simulation<Service> {
    let options =
        SocketOptions { send_buffer: Some(5_000), receive_buffer: Some(9_000), ..Default::default() };
    let server = Server::new().listen("127.0.0.1:7000").read_buffer(4096).socket_options(options);
    Simulation::new(1, server, Faults::none(), |_| Service::default()).unwrap()
}

fn message(which: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + which * 31) as u8).collect()
}

/// Serves a few connections; each remote and what it should have received.
fn serve(sim: &mut Simulation<Service>) -> Vec<(Remote, Vec<u8>)> {
    let mut all: Vec<(Remote, Vec<u8>)> = Vec::new();
    for which in 0..REMOTES {
        all.push((sim.connect(), GREETING.to_vec()));
        if which % 2 == 1 {
            sim.run_for(Duration::from_millis(2)).unwrap();
        }
    }
    all.extend(sim.dialed().into_iter().map(|remote| (remote, b"hello".to_vec())));
    for round in 0..3 {
        for (which, (remote, expected)) in all.iter_mut().enumerate() {
            let bytes = message(which, if round == 2 { LARGE } else { 10 + which });
            remote.send(&bytes);
            expected.extend(&bytes);
            remote.set_reading(if round == 2 { Reading::Not } else { Reading::Promptly });
        }
        sim.run_for(Duration::from_secs(3)).unwrap();
        all.iter().for_each(|(remote, _)| remote.set_reading(Reading::Promptly));
        sim.run_for(Duration::from_secs(3)).unwrap();
    }
    all[1..].iter().for_each(|(remote, _)| remote.finish());
    sim.run_for(Duration::from_secs(20)).unwrap();
    // The first is closed by us, and ends its side when it sees that.
    sim.shut_down();
    let last = all[0].0.clone();
    sim.run_until(|sim| last.is_over() || sim.has_ended()).unwrap();
    last.finish();
    sim.run_to_the_end().unwrap();
    all
}

/// The errors of a call, and whether it costs the connection concerned.
fn errors(call: Call) -> &'static [(i32, bool)] {
    match call {
        Call::Poll => &[(libc::EINTR, false)],
        Call::Accept => &[
            (libc::EMFILE, false),
            (libc::ENFILE, false),
            (libc::ENOBUFS, false),
            (libc::ENOMEM, false),
            (libc::EAGAIN, false),
            (libc::ECONNABORTED, true),
            (libc::EPROTO, true),
        ],
        Call::Install => &[(libc::ENOMEM, true), (libc::ENOSPC, true)],
        Call::Receive => &[
            (libc::EAGAIN, false),
            (libc::ECONNRESET, true),
            (libc::ETIMEDOUT, true),
            (libc::EHOSTUNREACH, true),
            (libc::ENOMEM, true),
        ],
        Call::Send | Call::SendFile => &[
            (libc::EAGAIN, false),
            (libc::EPIPE, true),
            (libc::ECONNRESET, true),
            (libc::ETIMEDOUT, true),
            (libc::ENOBUFS, true),
        ],
        Call::ShutDown => &[(libc::ENOTCONN, true)],
        Call::Dial => &[
            (libc::EMFILE, true),
            (libc::EADDRNOTAVAIL, true),
            (libc::ENETUNREACH, true),
            (libc::EAGAIN, true),
            (libc::ECONNREFUSED, true),
        ],
        Call::IsConnected => &[(libc::ECONNREFUSED, true), (libc::ETIMEDOUT, true)],
        Call::SetOptions => &[(libc::EINVAL, false), (libc::ENOPROTOOPT, false)],
        Call::LocalAddress => &[(libc::ENOBUFS, false)],
        _ => &[],
    }
}

fn undisturbed() -> Calls {
    let mut sim = simulation();
    for (remote, expected) in serve(&mut sim) {
        assert!(remote.saw_end() && remote.received() == expected, "{remote:?}");
    }
    assert_eq!(sim.counters().closed_by(CloseReason::PeerClosed), REMOTES as u64);
    assert_eq!(sim.counters().closed_by(CloseReason::Shutdown), 1);
    sim.calls()
}

fn fail(call: Call, nth: u64, errno: i32, costs_one: bool) {
    let what = format!("{call:?} number {nth} fails with {errno}");
    let mut sim = simulation();
    sim.fail_call(call, nth, errno);
    let remotes = serve(&mut sim);
    let is_whole =
        |(remote, expected): &&(Remote, Vec<u8>)| remote.saw_end() && remote.received() == *expected;
    let whole = remotes.iter().filter(is_whole).count();
    let least = remotes.len() - usize::from(costs_one);
    assert!(whole >= least, "{what}: {whole} of {} were served", remotes.len());
    for (remote, expected) in &remotes {
        assert!(expected.starts_with(&remote.received()), "{what}: {remote:?} got other bytes");
    }
    let handler = sim.handler();
    assert_eq!(handler.opened, handler.closed, "{what}: on_open and on_close");
    assert_eq!(handler.asked, handler.answered.load(Ordering::Relaxed), "{what}: receipts");
    assert_eq!(handler.timers, 1, "{what}: timers");
    assert_eq!(sim.counters().panics, 0, "{what}");
}

#[test]
fn no_failing_call_hurts_more_than_its_own_connection() {
    let calls = undisturbed();
    let mut runs = 0;
    for call in Call::ALL {
        let times = calls.of(call);
        for &(errno, costs_one) in errors(call) {
            for nth in (1..=times).step_by(times.div_ceil(MOST_PLACES).max(1) as usize) {
                fail(call, nth, errno, costs_one);
                runs += 1;
            }
        }
        assert!(times > 0, "{call:?} is never made, so that it cannot fail");
    }
    assert!(runs > 500, "{runs} runs are fewer than there should be");
}

/// A poll that fails for good is the end of a reactor: it is told, and whoever waits is answered.
#[test]
fn a_failing_poll_ends_the_reactor() {
    let mut sim = simulation();
    let handle = sim.handle();
    sim.fail_call(Call::Poll, 5, libc::EBADF);
    sim.connect();
    assert!(sim.run_to_the_end().is_ok());
    assert_eq!(sim.failure().and_then(std::io::Error::raw_os_error), Some(libc::EBADF));
    assert!(matches!(handle.send(0, ()), Err(SendError::Stopped(()))));
}
