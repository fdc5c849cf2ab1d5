//! One connection of the client.

use corelane::{Conn, ConnId, Core};

use super::crowd::Antic;
use crate::protocol::Talk;

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) talk: Talk,
    /// Its place among the measured connections of the reactor.
    pub(super) lane: u32,
    /// Requests that it still has to send before it ends, where connections come and go.
    pub(super) left: u32,
    /// Whether it is in the list of those that have room for a request.
    pub(super) is_listed: bool,
    /// Whether its end is ours, and no loss.
    pub(super) is_ending: bool,
    /// What it does if it is not one of the measured.
    pub(super) antic: Option<Box<Antic>>,
}

impl Session {
    pub(super) fn new(number: u64, lane: u32) -> Self {
        let talk = Talk::new(number);
        Self { talk, lane, left: 0, is_listed: false, is_ending: false, antic: None }
    }
}

/// Where a connection's bytes go: in its own callback, or in another's.
pub(super) enum Outlet<'a, 'b> {
    Own(&'a mut Conn<'b>),
    Other(&'a mut Core<'b>, ConnId),
}

impl Outlet<'_, '_> {
    /// Writes the parts as one. Whether they were taken.
    #[inline]
    pub(super) fn write(self, parts: &[&[u8]]) -> bool {
        match (self, parts) {
            (Self::Own(conn), [bytes]) => conn.write(bytes),
            (Self::Own(conn), parts) => conn.write_slices(parts),
            (Self::Other(core, id), [bytes]) => core.write(id, bytes),
            (Self::Other(core, id), parts) => core.write_slices(id, parts),
        }
        .is_taken()
    }
}

/// What a dial is for and since when its connection is wanted, in the number that a dial carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which of the crowd; `None`: a measured connection.
    pub(super) antic: Option<u8>,
    pub(super) since: u64,
}

const TIME_BITS: u32 = 56;

impl Wanted {
    pub(super) fn token(self) -> u64 {
        let kind = self.antic.map_or(0, |kind| u64::from(kind) + 1);
        kind << TIME_BITS | self.since & ((1 << TIME_BITS) - 1)
    }

    pub(super) fn of_token(token: u64) -> Self {
        let kind = (token >> TIME_BITS) as u8;
        Self { antic: kind.checked_sub(1), since: token & ((1 << TIME_BITS) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_what_was_wanted() {
        for wanted in [
            Wanted { antic: None, since: 0 },
            Wanted { antic: None, since: 123_456_789_012 },
            Wanted { antic: Some(0), since: 7 },
            Wanted { antic: Some(5), since: (1 << TIME_BITS) - 1 },
        ] {
            assert_eq!(Wanted::of_token(wanted.token()), wanted);
        }
    }
}
