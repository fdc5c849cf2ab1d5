use std::any::Any;
use std::fmt;
use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

use super::report::{PanicReport, ReactorFailure, Report};
use super::signals::SignalsHeard;
use crate::handler::Handle;
use crate::net::Address;
use crate::process::FileLimit;
use crate::reactor::Snapshot;

/// A server at work. Dropping it shuts it down in good order and waits for that.
pub struct Running<M: Send + 'static> {
    pub(super) listening: Vec<Listening>,
    pub(super) files: FileLimit,
    pub(super) handle: Handle<M>,
    pub(super) thread_name: String,
    /// Each with the index of its reactor.
    pub(super) threads: Vec<(usize, JoinHandle<Ended>)>,
    pub(super) signals: Option<SignalsHeard>,
    pub(super) started: Instant,
}

/// One of a server's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listening {
    /// The address, with the port that was taken where 0 was asked for.
    pub address: Address,
    /// How many connections the kernel queues for each of the listeners there, after its own limit.
    pub backlog: u32,
    /// How many listeners share the address: one per reactor, or one.
    pub listeners: usize,
}

/// What a reactor's thread leaves behind.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) reactor: usize,
    pub(super) snapshot: Snapshot,
    pub(super) open_at_shutdown: u64,
    pub(super) cut_off: u64,
    pub(super) panics: Vec<PanicReport>,
    pub(super) failure: Option<io::Error>,
}

impl<M: Send + 'static> Running<M> {
    /// The addresses, in the order in which they were given to [`Server::listen`](crate::Server::listen).
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listening.iter().map(|listening| &listening.address)
    }

    /// The addresses with what is known about each.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// How many descriptors the process may have, and what was done about it at start.
    pub fn file_limit(&self) -> FileLimit {
        self.files
    }

    /// How many reactors there are.
    pub fn reactors(&self) -> usize {
        self.handle.reactors()
    }

    /// A handle for other threads. It outlives the server; what it is asked then is an error.
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// As [`Handle::shutdown`].
    pub fn shutdown(&self) {
        self.handle.shutdown();
    }

    /// As [`Handle::stop_now`].
    pub fn stop_now(&self) {
        self.handle.stop_now();
    }

    /// Waits until the server has ended and tells what it did. It does not ask for an end: that is done by
    /// [`Running::shutdown`] before, [`Handle::shutdown`] from another thread or a callback, or a signal
    /// where [they are handled](crate::Server::handle_signals).
    pub fn join(self) -> Report {
        self.end(None)
    }

    /// As [`Running::join`], where the `first` reactor had no thread of its own and has ended.
    pub(super) fn end(mut self, first: Option<Ended>) -> Report {
        let mut ended: Vec<Ended> = first.into_iter().collect();
        ended.extend(self.wait());
        self.report(ended)
    }

    fn wait(&mut self) -> Vec<Ended> {
        let threads = std::mem::take(&mut self.threads);
        let ended = threads.into_iter().map(|(reactor, thread)| join_reactor(reactor, thread)).collect();
        self.signals = None;
        ended
    }

    fn report(&self, ended: Vec<Ended>) -> Report {
        let mut report = Report {
            uptime: self.started.elapsed(),
            total: Snapshot::default(),
            reactors: Vec::new(),
            open_at_shutdown: 0,
            drained: 0,
            cut_off: 0,
            panics: Vec::new(),
            failures: Vec::new(),
        };
        for ended in ended {
            report.total.add(&ended.snapshot);
            report.reactors.push(ended.snapshot);
            report.open_at_shutdown += ended.open_at_shutdown;
            report.cut_off += ended.cut_off;
            report.panics.extend(ended.panics);
            let failure = ended.failure.map(|error| ReactorFailure { reactor: ended.reactor, error });
            report.failures.extend(failure);
        }
        report.drained = report.open_at_shutdown.saturating_sub(report.cut_off);
        report
    }
}

fn join_reactor(reactor: usize, thread: JoinHandle<Ended>) -> Ended {
    thread.join().unwrap_or_else(|payload: Box<dyn Any + Send>| {
        let message = crate::reactor::panic_message(&*payload).to_owned();
        Ended {
            reactor,
            snapshot: Snapshot::default(),
            open_at_shutdown: 0,
            cut_off: 0,
            panics: Vec::new(),
            failure: Some(io::Error::other(format!("the reactor panicked: {message}"))),
        }
    })
}

impl<M: Send + 'static> Drop for Running<M> {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shutdown();
            self.wait();
        }
    }
}

impl<M: Send + 'static> fmt::Debug for Running<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("listening", &self.listening)
            .field("reactors", &self.reactors())
            .finish_non_exhaustive()
    }
}
