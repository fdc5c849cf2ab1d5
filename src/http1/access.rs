use std::time::Duration;

use super::connection::Sample;
use crate::ConnId;

/// An exchange that is over, for a log.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Access<'a> {
    /// The connection.
    pub id: ConnId,
    /// The request's method.
    pub method: &'a str,
    /// The request's target.
    pub target: &'a str,
    /// The reply's status.
    pub status: u16,
    /// Bytes of the reply's body, without framing.
    pub bytes: u64,
    /// From the head of the request to the end of the reply, by the reactor's clock, which stands still within a turn.
    pub duration: Duration,
}

/// The same, until it can be told.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) sample: Box<Sample>,
    pub(super) id: ConnId,
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) took: u64,
}

impl Finished {
    pub(super) fn access(&self) -> Access<'_> {
        Access {
            id: self.id,
            method: &self.sample.method,
            target: &self.sample.target,
            status: self.status,
            bytes: self.bytes,
            duration: Duration::from_nanos(self.took),
        }
    }
}
