use std::any::Any;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::connection::CloseReason;
use crate::reactor::Snapshot;

/// What a server did in its life; what [`Running::join`](crate::Running::join) returns.
///
/// Displayed, it is a few lines for a log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// From the start to the end.
    pub uptime: Duration,
    /// The counters of all reactors together; `closed` holds the ends by reason.
    pub total: Snapshot,
    /// The counters of each reactor.
    pub reactors: Vec<Snapshot>,
    /// Connections that were open when the shutdown began, or were accepted during it.
    pub open_at_shutdown: u64,
    /// Those of them that ended in good order or of their own accord.
    pub drained: u64,
    /// Those of them that were reset at the drain deadline or by a forced stop.
    pub cut_off: u64,
    /// Panics that were caught, the first 16 of each reactor; `total.panics` counts all.
    pub panics: Vec<PanicReport>,
    /// Reactors that ended before they were asked to.
    pub failures: Vec<ReactorFailure>,
}

/// A panic of a callback.
#[non_exhaustive]
pub struct PanicReport {
    /// On which reactor.
    pub reactor: usize,
    /// In which callback.
    pub callback: &'static str,
    /// What it said, where it said it in text.
    pub message: String,
    /// The panic itself.
    pub payload: Box<dyn Any + Send>,
}

impl fmt::Debug for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reactor, callback, message, .. } = self;
        write!(f, "reactor {reactor}, {callback}: {message}")
    }
}

/// A reactor that could not go on: the kernel failed its poll, or corelane has a bug.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReactorFailure {
    /// Which reactor.
    pub reactor: usize,
    /// What happened.
    pub error: io::Error,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        writeln!(
            f,
            "served {} connections ({} dialed) in {:.1?}, at most {} at a time",
            total.accepted + total.dialed,
            total.dialed,
            self.uptime,
            total.peak
        )?;
        writeln!(f, "received {} bytes, sent {}", total.bytes_in, total.bytes_out)?;
        write!(
            f,
            "shutdown: {} open, {} drained, {} cut off",
            self.open_at_shutdown, self.drained, self.cut_off
        )?;
        let closed = CloseReason::NAMES.iter().zip(&total.closed).filter(|(_, count)| **count > 0);
        let mut separator = "\nclosed by: ";
        for (name, count) in closed {
            write!(f, "{separator}{name} {count}")?;
            separator = ", ";
        }
        if let Some(first) = self.panics.first() {
            write!(f, "\n{} panics; the first: {first:?}", total.panics)?;
        }
        for failure in &self.failures {
            write!(f, "\nreactor {} failed: {}", failure.reactor, failure.error)?;
        }
        Ok(())
    }
}
