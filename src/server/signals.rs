//! SIGINT and SIGTERM, for servers that ask for it. The first reactor's driver is told of them as of any other
//! event, so no thread is needed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

pub(super) const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

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
pub(super) struct SignalsHeard;

impl SignalsHeard {
    /// `watch` has the signals told of from its return on. One that comes before that does what it does by default: it
    /// would be lost otherwise.
    pub(super) fn new(watch: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let mut listeners = Listeners::lock();
        let nobody_listens = match &listeners.nobody_listens {
            Some(nobody_listens) => Arc::clone(nobody_listens),
            None => {
                let nobody_listens = Arc::new(AtomicBool::new(true));
                for signal in SIGNALS {
                    flag::register_conditional_default(signal, Arc::clone(&nobody_listens))?;
                }
                listeners.nobody_listens = Some(Arc::clone(&nobody_listens));
                nobody_listens
            }
        };
        watch()?;
        listeners.count += 1;
        nobody_listens.store(false, Ordering::Relaxed);
        Ok(Self)
    }
}

impl Drop for SignalsHeard {
    fn drop(&mut self) {
        let mut listeners = Listeners::lock();
        listeners.count -= 1;
        if let Some(nobody_listens) = &listeners.nobody_listens {
            nobody_listens.store(listeners.count == 0, Ordering::Relaxed);
        }
    }
}
