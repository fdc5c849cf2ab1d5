//! SIGINT and SIGTERM, for servers that ask for it. A thread of its own waits for them: the reactors' turn
//! stays free of it, and no part of the process is interrupted.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::handler::Handle;
use crate::reactor::Stop;

const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// How many servers of this process listen to signals.
///
/// signal-hook cannot give a signal its old disposition back. So an action that is registered once, for all
/// of them, does what a signal does by default while nobody listens.
#[derive(Debug)]
struct Listeners {
    count: usize,
    nobody_listens: Option<Arc<AtomicBool>>,
}

static LISTENERS: Mutex<Listeners> = Mutex::new(Listeners { count: 0, nobody_listens: None });

impl Listeners {
    fn lock() -> MutexGuard<'static, Self> {
        // Nothing panics between the two changes that belong together.
        LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server's share in [`LISTENERS`].
#[derive(Debug)]
struct Listener;

impl Listener {
    fn new() -> io::Result<Self> {
        let mut listeners = Listeners::lock();
        if let Some(nobody_listens) = &listeners.nobody_listens {
            nobody_listens.store(false, Ordering::Relaxed);
        } else {
            let nobody_listens = Arc::new(AtomicBool::new(false));
            for signal in SIGNALS {
                flag::register_conditional_default(signal, Arc::clone(&nobody_listens))?;
            }
            listeners.nobody_listens = Some(nobody_listens);
        }
        listeners.count += 1;
        Ok(Self)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = Listeners::lock();
        listeners.count -= 1;
        if let Some(nobody_listens) = &listeners.nobody_listens {
            nobody_listens.store(listeners.count == 0, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(super) struct SignalThread {
    signals: signal_hook::iterator::Handle,
    thread: Option<JoinHandle<()>>,
    _listener: Listener,
}

impl SignalThread {
    /// The first signal drains the server, the next one forces it.
    pub(super) fn start<M: Send + 'static>(name: &str, server: Handle<M>) -> io::Result<Self> {
        let listener = Listener::new()?;
        let mut signals = Signals::new(SIGNALS)?;
        let handle = signals.handle();
        let wait = move || {
            let mut how = Stop::Drain;
            for signal in signals.forever() {
                tracing::info!(signal, ?how, "stopping at a signal");
                server.stop(how);
                how = Stop::Force;
            }
        };
        let thread = thread::Builder::new().name(format!("{name}-signal")).spawn(wait)?;
        Ok(Self { signals: handle, thread: Some(thread), _listener: listener })
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.signals.close();
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked in a way that matters to anybody here.
            let _ = thread.join();
        }
    }
}
