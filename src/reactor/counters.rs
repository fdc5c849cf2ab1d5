//! What one reactor counts, and how other threads read it: as one consistent snapshot, without a lock and
//! without an atomic read-modify-write on the reactor's side.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam::utils::CachePadded;

use crate::connection::CloseReason;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one reactor, or with [`Snapshot::add`] of several, as they were at one moment (the
        /// end of a turn).
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Connections that ended, by [`CloseReason::index`]; their names are [`CloseReason::NAMES`].
            pub closed: [u64; CloseReason::COUNT],
            /// Errors of the kernel's, as `(errno, how often)`, by `errno`.
            pub errors: Vec<(i32, u64)>,
        }

        /// The reactor's own copy.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: u64,)*
            closed: [u64; CloseReason::COUNT],
            errors: Vec<(i32, u64)>,
            errors_changed: bool,
        }

        const PLAIN: usize = [$(stringify!($name)),*].len();

        impl Counters {
            fn plain(&self) -> [u64; PLAIN] {
                [$(self.$name),*]
            }
        }

        impl Snapshot {
            fn fill_plain(&mut self, words: [u64; PLAIN]) {
                let [$($name),*] = words;
                $(self.$name = $name;)*
            }

            fn add_plain(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Every plain counter with its name, in the order of the fields: for metrics.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections open now, accepted and dialed, from their first moment to their last.
    active,
    /// The most there were at the end of a turn.
    peak,
    /// Connections that came from a listener (on whichever reactor) and live or lived here.
    accepted,
    /// Those of them that have ended.
    accepted_ended,
    /// Connections accepted here and handed to another reactor.
    handed_over,
    /// Calls of `connect`.
    dialed,
    /// Dials that became connections.
    connected,
    /// Dials that failed.
    dial_failures,
    /// Connections that `on_open` refused.
    refused,
    /// Connections closed at once because the server's cap was met.
    shed_by_server_cap,
    /// Connections closed at once because the cap of their source address was met.
    shed_by_source_cap,
    /// Failed accepts, except those that only found nobody waiting.
    accept_errors,
    /// Times that accepting paused because descriptors or memory ran out.
    accept_pauses,
    /// Bytes received.
    bytes_in,
    /// Bytes that the kernel took.
    bytes_out,
    /// System calls that receive.
    reads,
    /// Those of them that found nothing.
    empty_reads,
    /// System calls that send.
    writes,
    /// Those of them that found no room.
    blocked_writes,
    /// System calls that wait for events, those that only look included.
    polls,
    /// Events that they returned.
    events,
    /// Turns of the loop.
    turns,
    /// Times that another thread woke the reactor from its sleep.
    wakeups,
    /// Times that a connection had more to read than its budget for one turn.
    budget_exhausted,
    /// Commands from other threads.
    commands,
    /// Those of them whose connection was gone.
    stale_commands,
    /// Timers that fired.
    timers,
    /// Writes that the output cap refused.
    refused_writes,
    /// Callbacks that panicked.
    panics,
}

impl Counters {
    pub(crate) fn count_close(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
        if let CloseReason::Io(errno) = reason {
            self.count_error(errno);
        }
    }

    pub(crate) fn count_error(&mut self, errno: i32) {
        self.errors_changed = true;
        match self.errors.binary_search_by_key(&errno, |error| error.0) {
            Ok(index) => self.errors[index].1 += 1,
            Err(index) if self.errors.len() < ERRORS => self.errors.insert(index, (errno, 1)),
            // More kinds than there is room for: they share the last place.
            Err(_) => self.errors[ERRORS - 1].1 += 1,
        }
    }

    /// Connections that have ended, for whatever reason.
    pub(crate) fn closed(&self) -> &[u64; CloseReason::COUNT] {
        &self.closed
    }
}

/// Kinds of errors that are told apart; a server meets a handful.
const ERRORS: usize = 24;

/// The counters as other threads see them: a sequence lock of relaxed stores (after H. Boehm, "Can seqlocks
/// get along with programming language memory models?", 2012).
#[derive(Debug)]
pub(crate) struct Published(CachePadded<Words>);

#[derive(Debug)]
struct Words {
    /// Odd while the reactor writes.
    version: AtomicU64,
    plain: [AtomicU64; PLAIN],
    closed: [AtomicU64; CloseReason::COUNT],
    errors: [(AtomicU64, AtomicU64); ERRORS],
}

impl Default for Published {
    fn default() -> Self {
        Self(CachePadded::new(Words {
            version: AtomicU64::new(0),
            plain: [const { AtomicU64::new(0) }; PLAIN],
            closed: [const { AtomicU64::new(0) }; CloseReason::COUNT],
            errors: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; ERRORS],
        }))
    }
}

impl Published {
    /// Called by the one reactor that owns it.
    pub(crate) fn publish(&self, counters: &mut Counters) {
        let words = &*self.0;
        let version = words.version.load(Ordering::Relaxed);
        words.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        store(&words.plain, &counters.plain());
        store(&words.closed, &counters.closed);
        if std::mem::take(&mut counters.errors_changed) {
            for (word, (errno, count)) in words.errors.iter().zip(&counters.errors) {
                word.0.store(*errno as u64, Ordering::Relaxed);
                word.1.store(*count, Ordering::Relaxed);
            }
        }
        words.version.store(version + 2, Ordering::Release);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let words = &*self.0;
        loop {
            let before = words.version.load(Ordering::Acquire);
            let mut snapshot = Snapshot::default();
            snapshot.fill_plain(load(&words.plain));
            snapshot.closed = load(&words.closed);
            let errors = words.errors.iter();
            let errors =
                errors.map(|word| (word.0.load(Ordering::Relaxed) as i32, word.1.load(Ordering::Relaxed)));
            snapshot.errors = errors.filter(|error| error.1 > 0).collect();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && words.version.load(Ordering::Relaxed) == before {
                return snapshot;
            }
            std::hint::spin_loop();
        }
    }
}

fn store<const N: usize>(words: &[AtomicU64; N], values: &[u64; N]) {
    for (word, value) in words.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}

fn load<const N: usize>(words: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|index| words[index].load(Ordering::Relaxed))
}

impl Snapshot {
    /// Adds the counters of another reactor. `peak` becomes the sum of the reactors' peaks, which need
    /// not have been at the same time.
    pub fn add(&mut self, other: &Self) {
        self.add_plain(other);
        for (mine, theirs) in self.closed.iter_mut().zip(&other.closed) {
            *mine += theirs;
        }
        for &(errno, count) in &other.errors {
            match self.errors.binary_search_by_key(&errno, |error| error.0) {
                Ok(index) => self.errors[index].1 += count,
                Err(index) => self.errors.insert(index, (errno, count)),
            }
        }
    }

    /// How many connections ended for this reason.
    pub fn closed_by(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// How many connections have ended, for whatever reason.
    pub fn closed_in_all(&self) -> u64 {
        self.closed.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn a_snapshot_is_never_torn() {
        let published = Arc::new(Published::default());
        let rounds = if cfg!(miri) { 100 } else { 100_000 };
        let writer = {
            let published = Arc::clone(&published);
            thread::spawn(move || {
                let mut counters = Counters::default();
                for round in 1..=rounds {
                    counters.reads = round;
                    counters.panics = round;
                    counters.closed[CloseReason::COUNT - 1] = round;
                    published.publish(&mut counters);
                }
            })
        };
        loop {
            let snapshot = published.snapshot();
            assert_eq!(snapshot.reads, snapshot.panics);
            assert_eq!(snapshot.reads, snapshot.closed[CloseReason::COUNT - 1]);
            if snapshot.reads == rounds {
                break;
            }
        }
        writer.join().unwrap();
    }

    #[test]
    fn errors_are_counted_by_number_and_summed() {
        let mut counters = Counters::default();
        for errno in [24, 104, 24] {
            counters.count_error(errno);
        }
        let published = Published::default();
        published.publish(&mut counters);
        let mut sum = published.snapshot();
        assert_eq!(sum.errors, [(24, 2), (104, 1)]);
        sum.add(&published.snapshot());
        assert_eq!(sum.errors, [(24, 4), (104, 2)]);
    }

    #[test]
    fn more_kinds_of_errors_than_places_do_no_harm() {
        let mut counters = Counters::default();
        for errno in 1..=200 {
            counters.count_error(errno);
        }
        assert_eq!(counters.errors.len(), ERRORS);
        assert_eq!(counters.errors.iter().map(|error| error.1).sum::<u64>(), 200);
    }
}
