//! The upstreams: which is next, and what each has done. Shared by all reactors.

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use clap::ValueEnum;
use corelane::{Address, ConnectError};

/// Which upstream gets the next connection.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest connections at the moment.
    LeastConnections,
}

/// One upstream and its counters.
pub(crate) struct Upstream {
    pub(crate) address: Address,
    connections: AtomicU64,
    active: AtomicU64,
    failures: AtomicU64,
    bytes_to: AtomicU64,
    bytes_from: AtomicU64,
    /// The last dial failed. Only changes of this are logged.
    is_failing: AtomicBool,
}

impl Upstream {
    fn new(address: Address) -> Self {
        Self {
            address,
            connections: AtomicU64::new(0),
            active: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            bytes_to: AtomicU64::new(0),
            bytes_from: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        }
    }

    pub(crate) fn count_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
        if self.is_failing.swap(false, Relaxed) {
            log(format_args!("{} can be reached again", self.address));
        }
    }

    pub(crate) fn count_failure(&self, error: &ConnectError) {
        self.failures.fetch_add(1, Relaxed);
        if !self.is_failing.swap(true, Relaxed) {
            log(format_args!("{error}"));
        }
    }

    pub(crate) fn count_bytes_to(&self, bytes: usize) {
        self.bytes_to.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn count_bytes_from(&self, bytes: usize) {
        self.bytes_from.fetch_add(bytes as u64, Relaxed);
    }
}

/// An upstream in use by one client, who counts as active until this is dropped.
pub(crate) struct Lease {
    upstream: Arc<Upstream>,
    index: usize,
}

impl Deref for Lease {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        &self.upstream
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upstream.active.fetch_sub(1, Relaxed);
    }
}

/// All of them.
pub(crate) struct Upstreams {
    list: Vec<Arc<Upstream>>,
    balance: Balance,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// Clients for whom no upstream was left.
    turned_away: AtomicU64,
}

impl Upstreams {
    pub(crate) fn new(addresses: Vec<Address>, balance: Balance) -> Self {
        let list = addresses.into_iter().map(|address| Arc::new(Upstream::new(address))).collect();
        Self { list, balance, turn: AtomicUsize::new(0), turned_away: AtomicU64::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The upstream for the next connection.
    pub(crate) fn choose(&self) -> Lease {
        let first = self.turn.fetch_add(1, Relaxed);
        match self.balance {
            Balance::RoundRobin => self.lease(first),
            Balance::LeastConnections => {
                let active = |place: &usize| self.at(*place).active.load(Relaxed);
                // Of equals, the one whose turn it is.
                self.lease((first..first + self.len()).min_by_key(active).unwrap_or(first))
            }
        }
    }

    /// The one after `lease`, which has failed.
    pub(crate) fn next(&self, lease: &Lease) -> Lease {
        self.lease(lease.index + 1)
    }

    pub(crate) fn turn_away(&self) {
        if self.turned_away.fetch_add(1, Relaxed) == 0 {
            log(format_args!("a client was reset: no upstream can be reached (others are only counted)"));
        }
    }

    fn at(&self, place: usize) -> &Arc<Upstream> {
        &self.list[place % self.list.len()]
    }

    fn lease(&self, place: usize) -> Lease {
        let upstream = Arc::clone(self.at(place));
        upstream.active.fetch_add(1, Relaxed);
        Lease { upstream, index: place % self.len() }
    }
}

impl fmt::Display for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for upstream in &self.list {
            let Upstream { address, connections, active, failures, bytes_to, bytes_from, .. } = &**upstream;
            writeln!(
                f,
                "upstream {address}: {} connections, {} active, {} failures, {} bytes to it, {} bytes from it",
                connections.load(Relaxed),
                active.load(Relaxed),
                failures.load(Relaxed),
                bytes_to.load(Relaxed),
                bytes_from.load(Relaxed),
            )?;
        }
        writeln!(f, "clients turned away: {}", self.turned_away.load(Relaxed))
    }
}

/// One line to stderr. If nobody reads it, that is no reason to stop.
fn log(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
