//! Signals interrupt the system calls of a reactor's thread, and nobody notices.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use support::{Random, Script, TestServer, alone, eventually, thread_ids};

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_storm_of_signals_changes_no_byte() {
    alone("a_storm_of_signals_changes_no_byte", || {
        // Without SA_RESTART: the calls fail with EINTR.
        let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing but add to an atomic, which is safe in a signal handler.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let server = TestServer::start(Script::echo());
        let process = std::process::id();
        let reactor = thread_ids("corelane-0")[0];
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let storm = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: tgkill(2) takes three numbers; the thread lives as long as the server.
                unsafe { libc::syscall(libc::SYS_tgkill, process, reactor, libc::SIGUSR1) };
                thread::yield_now();
            }
        });
        let bytes = Random::new(1).bytes(4 << 20);
        let mut rounds = 0;
        eventually("many signals amid the traffic", || {
            let (mut client, _) = server.connect();
            let mut reader = client.another();
            let expected = bytes.clone();
            let reading = thread::spawn(move || assert!(reader.receive_all() == expected));
            client.send(&bytes);
            client.finish();
            reading.join().unwrap();
            rounds += 1;
            rounds >= 10 && HANDLED.load(Ordering::Relaxed) > 100
        });
        done.store(true, Ordering::Relaxed);
        storm.join().unwrap();
        let total = server.total();
        assert_eq!((total.bytes_in, total.bytes_out), (rounds << 22, rounds << 22));
        assert_eq!(total.errors, []);
    });
}
