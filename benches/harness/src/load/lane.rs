//! What one measured connection has to say and has yet to hear.

use std::collections::VecDeque;

use crate::protocol::{Answered, Talk, Wire, Wrong};

/// A request with a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) at: u64,
    /// Whether no connection had room for it then.
    pub(super) is_held_back: bool,
}

/// A measured connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) talk: Talk,
    /// Bytes the kernel is still sending. One send at a time, or their bytes could be mixed.
    pub(super) sending: usize,
    /// Requests that the replies before them have allowed, and that are not sent yet.
    pub(super) owed: usize,
    /// Requests that were due at a time of their own, and are not sent yet.
    pub(super) due: VecDeque<Due>,
    /// Whether it is among those that are to send at the end of the turn.
    pub(super) is_waiting: bool,
    /// Whether it is in the list of those that have room for a request.
    pub(super) is_listed: bool,
    /// The beginning of a reply, of which more is to come.
    held: Vec<u8>,
}

impl Lane {
    /// The connection of this number in the whole run.
    pub(super) fn new(number: usize) -> Self {
        Self {
            talk: Talk::new(number as u64),
            sending: 0,
            owed: 0,
            due: VecDeque::new(),
            is_waiting: false,
            is_listed: false,
            held: Vec::new(),
        }
    }

    /// The next request, if there is one; those without a time are due `now`.
    pub(super) fn next(&self, now: u64) -> Option<Due> {
        if self.owed > 0 { Some(Due { at: now, is_held_back: false }) } else { self.due.front().copied() }
    }

    /// The next request was taken.
    pub(super) fn took(&mut self) {
        if self.owed > 0 {
            self.owed -= 1;
        } else {
            self.due.pop_front();
        }
    }

    /// Requests that have no reply, or were not even sent.
    pub(super) fn load(&self) -> usize {
        self.talk.unanswered() + self.due.len() + self.owed
    }

    /// Takes in what was received: each reply in it goes to `answered`.
    pub(super) fn hear(
        &mut self,
        wire: &mut Wire,
        received: &[u8],
        now: u64,
        mut answered: impl FnMut(&Answered),
    ) -> Result<(), Wrong> {
        if self.held.is_empty() {
            let mut rest = received;
            while let Some(reply) = wire.hear(&mut self.talk, &mut rest, now)? {
                answered(&reply);
            }
            self.held.extend_from_slice(rest);
            return Ok(());
        }
        self.held.extend_from_slice(received);
        let mut rest = self.held.as_slice();
        while let Some(reply) = wire.hear(&mut self.talk, &mut rest, now)? {
            answered(&reply);
        }
        let heard = self.held.len() - rest.len();
        self.held.drain(..heard);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Settings;
    use crate::protocol::{Material, Purpose};

    fn wire(target: &str) -> Wire {
        let settings = Settings { target: Some(target.to_owned()), ..Settings::default() };
        let plan = settings.plan(settings.target(None).unwrap()).unwrap();
        Wire::new(&plan, &Material::new(&plan))
    }

    /// However replies are cut, what is there of one is kept until the rest comes.
    #[test]
    fn replies_may_come_in_any_pieces() {
        const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 1..REPLY.len() * 3 {
            let (mut wire, mut lane) = (wire("http://127.0.0.1:80/"), Lane::new(0));
            (0..3).for_each(|_| _ = wire.ask(&mut lane.talk, (1, 2), Purpose::Load, |_| true));
            let mut replies = 0;
            for piece in REPLY.repeat(3).chunks(cut) {
                lane.hear(&mut wire, piece, 9, |_| replies += 1).unwrap();
            }
            assert_eq!((replies, lane.load(), lane.held.len()), (3, 0, 0), "{cut}");
            assert!(lane.hear(&mut wire, b"x", 9, |_| {}).is_err());
        }
    }

    #[test]
    fn what_is_owed_goes_before_what_has_a_time() {
        let mut lane = Lane::new(0);
        lane.due.push_back(Due { at: 5, is_held_back: true });
        lane.owed = 1;
        assert_eq!((lane.load(), lane.next(70).map(|due| due.at)), (2, Some(70)));
        lane.took();
        assert_eq!((lane.load(), lane.next(70).map(|due| due.at)), (1, Some(5)));
        lane.took();
        assert!(lane.next(70).is_none());
    }
}
