//! One modelled connection: the server's socket (near) and the remote's (far), and what is between them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::connection::{Key, Peer};
use crate::driver::Readiness;
use crate::net::Address;

/// How a remote reads what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As soon as it is there.
    Promptly,
    /// At most so many bytes at a time.
    Slowly {
        /// How many bytes.
        bytes: usize,
        /// How long it waits between two reads.
        every: Duration,
    },
    /// Not at all, until told otherwise.
    Not,
}

/// How far a connection has come to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The remote has asked a listener, or the server a remote.
    Asked,
    Established,
    /// Refused, with the `errno` that the one who asked gets.
    Refused(i32),
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(super) stage: Stage,
    pub(super) peer: Peer,
    /// Where a dial of the server's went; `None` for a connection that came in.
    pub(super) dialed: Option<Address>,
    pub(super) near: Near,
    pub(super) far: Far,
    /// A step of this direction is scheduled already.
    pub(super) inbound_due: bool,
    pub(super) outbound_due: bool,
}

/// The server's socket.
#[derive(Debug, Default)]
pub(super) struct Near {
    /// Watched under this name.
    pub(super) key: Option<Key>,
    pub(super) received: VecDeque<u8>,
    pub(super) receive_limit: usize,
    pub(super) unsent: VecDeque<u8>,
    pub(super) send_limit: usize,
    /// The end of the remote's stream has come in.
    pub(super) has_end: bool,
    /// Our own side has ended behind what is unsent.
    pub(super) is_shut: bool,
    /// The server has closed it.
    pub(super) is_closed: bool,
    /// A reset has come in or gone out.
    pub(super) is_broken: bool,
    /// What the next call on it fails with.
    pub(super) error: Option<i32>,
    /// An edge is to be reported.
    pub(super) has_edge: bool,
    /// An edge has announced input, and the reactor has not read to its end since.
    pub(super) is_announced: bool,
    /// An event has announced the end of the stream, so that no other will.
    pub(super) is_end_told: bool,
    /// The reactor has been told that there is no room.
    pub(super) wants_room: bool,
}

/// The remote's socket, and the program behind it.
#[derive(Debug)]
pub(super) struct Far {
    /// Sent by the program and not yet with the server's kernel.
    pub(super) unsent: VecDeque<u8>,
    pub(super) is_finished: bool,
    pub(super) is_closed: bool,
    pub(super) received: Vec<u8>,
    pub(super) reading: Reading,
    pub(super) saw_end: bool,
    pub(super) saw_reset: bool,
    /// A reset by the remote is on its way.
    pub(super) resets: bool,
}

impl Link {
    pub(super) fn new(peer: Peer, dialed: Option<Address>, receive_limit: usize, send_limit: usize) -> Self {
        Self {
            stage: Stage::Asked,
            peer,
            dialed,
            near: Near { receive_limit, send_limit, ..Near::default() },
            far: Far {
                unsent: VecDeque::new(),
                is_finished: false,
                is_closed: false,
                received: Vec::new(),
                reading: Reading::Promptly,
                saw_end: false,
                saw_reset: false,
                resets: false,
            },
            inbound_due: false,
            outbound_due: false,
        }
    }

    /// What the kernel would report of the server's socket, if anything.
    pub(super) fn readiness(&self) -> Option<Readiness> {
        let near = &self.near;
        let readiness = match self.stage {
            Stage::Asked => return None,
            Stage::Refused(_) => Readiness { readable: true, writable: true, ended: true, failed: true },
            Stage::Established => Readiness {
                readable: !near.received.is_empty() || near.has_end || near.is_broken,
                writable: near.room() > 0 || near.is_broken || near.is_shut,
                ended: near.has_end || near.is_broken,
                failed: near.error.is_some(),
            },
        };
        (readiness != Readiness::default()).then_some(readiness)
    }

    /// Whether segments still pass.
    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Established && !self.near.is_broken && !self.far.saw_reset && !self.far.resets
    }

    /// Whether a step from the remote to the server would change anything.
    pub(super) fn has_inbound(&self) -> bool {
        let (near, far) = (&self.near, &self.far);
        let is_up = self.is_up();
        let has_room = near.is_closed || near.received.len() < near.receive_limit;
        let end = far.is_finished && !near.has_end;
        is_up && (!far.unsent.is_empty() && has_room || far.unsent.is_empty() && end)
    }

    /// Whether a step from the server to the remote would change anything.
    pub(super) fn has_outbound(&self) -> bool {
        let (near, far) = (&self.near, &self.far);
        let is_up = self.is_up();
        let reads = far.is_closed || far.reading != Reading::Not;
        is_up && reads && (!near.unsent.is_empty() || near.is_shut && !far.saw_end)
    }
}

impl Near {
    pub(super) fn room(&self) -> usize {
        self.send_limit.saturating_sub(self.unsent.len())
    }

    /// Whether a read would return something other than "nothing there".
    pub(super) fn is_readable(&self) -> bool {
        !self.received.is_empty() || self.has_end || self.is_broken
    }

    /// What a call fails with on a socket that a reset has come in for: the error once, then as after an
    /// end of both sides.
    pub(super) fn take_error(&mut self) -> Option<i32> {
        self.error.take()
    }

    /// A reset comes in: what is unsent is lost.
    pub(super) fn break_off(&mut self) {
        if !self.is_broken {
            self.is_broken = true;
            self.error = Some(if self.has_end { libc::EPIPE } else { libc::ECONNRESET });
            self.unsent.clear();
        }
    }
}
