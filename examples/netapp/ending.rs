//! The end: from the signal on not ready, then a while for those who send us requests to notice, then the drain.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use corelane::Handle;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Whether the end has begun, for all who ask.
#[derive(Clone)]
pub(crate) struct Ending {
    has_begun: Arc<AtomicBool>,
    grace: Duration,
}

impl Ending {
    pub(crate) fn new(grace: Duration) -> Self {
        Self { has_begun: Arc::default(), grace }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Has a thread wait for SIGTERM and SIGINT: the first drains, the second stops at once.
    pub(crate) fn follow_signals<M: Send + 'static>(&self, server: Handle<M>) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let this = self.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            for _ in signals.forever() {
                if this.has_begun.swap(true, Ordering::Relaxed) {
                    server.stop_now();
                } else {
                    this.drain_later(server.clone());
                }
            }
        })?;
        Ok(())
    }

    fn drain_later<M: Send + 'static>(&self, server: Handle<M>) {
        if self.grace.is_zero() {
            return server.shutdown();
        }
        let grace = self.grace;
        let wait = move || {
            thread::sleep(grace);
            server.shutdown();
        };
        if let Err(error) = thread::Builder::new().name("grace".into()).spawn(wait) {
            eprintln!("no thread for --grace: {error}");
        }
    }
}
