//! One connection of the client.

use corelane::{Conn, ConnId, Core, Shared};

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
    /// Whether it has carried load.
    pub(super) is_loaded: bool,
    /// Whether its end is ours, and no loss.
    pub(super) is_ending: bool,
    /// What it does if it is not one of the measured.
    pub(super) antic: Option<Box<Antic>>,
}

impl Session {
    pub(super) fn new(number: u64, lane: u32) -> Self {
        let talk = Talk::new(number);
        Self { talk, lane, left: 0, is_listed: false, is_loaded: false, is_ending: false, antic: None }
    }
}

/// Where a connection's bytes go: in its own callback, or in another's.
pub(super) enum Outlet<'a, 'b> {
    Own(&'a mut Conn<'b>),
    Other(&'a mut Core<'b>, ConnId),
    /// As `Other`, and the kernel has them when this returns, if they are the first of the turn.
    Now(&'a mut Core<'b>, ConnId),
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
            (Self::Now(core, id), parts) => core.write_shared(id, &Shared::from(parts.concat())),
        }
        .is_taken()
    }
}

/// What a dial is for and since when its connection is wanted, in the number that a dial carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which of the crowd; `None`: a measured connection.
    pub(super) antic: Option<u32>,
    /// Of a measured connection; of the crowd nobody asks.
    pub(super) since: u64,
}

/// Set in the number of a dial that is for one of the crowd.
const OF_CROWD: u64 = 1 << 63;

impl Wanted {
    pub(super) fn token(self) -> u64 {
        match self.antic {
            Some(member) => OF_CROWD | u64::from(member),
            None => self.since & !OF_CROWD,
        }
    }

    pub(super) fn of_token(token: u64) -> Self {
        match token & OF_CROWD {
            0 => Self { antic: None, since: token },
            _ => Self { antic: Some(token as u32), since: 0 },
        }
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
            Wanted { antic: Some(0), since: 0 },
            Wanted { antic: Some(u32::MAX), since: 0 },
        ] {
            assert_eq!(Wanted::of_token(wanted.token()), wanted);
        }
    }
}
