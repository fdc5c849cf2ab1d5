//! The world as a test reaches it: what remotes do and see, and what is known about the whole.

use super::faults::Calls;
use super::link::{Reading, Stage};
use super::world::{DialAnswer, Horizon, World};
use crate::connection::Peer;
use crate::net::Address;
use crate::time::Nanos;

/// How a connection stands, as its remote sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) unsent: usize,
    pub(crate) is_connected: bool,
    pub(crate) is_refused: bool,
    pub(crate) saw_end: bool,
    pub(crate) saw_reset: bool,
    pub(crate) has_reset: bool,
}

impl World {
    pub(crate) fn peer(&self, link: usize) -> Peer {
        self.links[link].peer
    }

    pub(crate) fn dialed(&self, link: usize) -> Option<Address> {
        self.links[link].dialed.clone()
    }

    pub(crate) fn remote_sends(&mut self, link: usize, bytes: &[u8]) {
        let far = &mut self.links[link].far;
        if !far.is_finished && !far.is_closed {
            far.unsent.extend(bytes);
            self.go_on(link);
        }
    }

    pub(crate) fn remote_finishes(&mut self, link: usize) {
        self.links[link].far.is_finished = true;
        self.go_on(link);
    }

    pub(crate) fn remote_closes(&mut self, link: usize) {
        let far = &mut self.links[link].far;
        (far.is_finished, far.is_closed) = (true, true);
        self.go_on(link);
    }

    pub(crate) fn remote_resets(&mut self, link: usize) {
        if !self.links[link].far.resets {
            self.reset_by_remote(link);
        }
    }

    pub(crate) fn remote_reads(&mut self, link: usize, reading: Reading) {
        self.links[link].far.reading = reading;
        self.go_on(link);
    }

    pub(crate) fn received(&self, link: usize) -> &[u8] {
        &self.links[link].far.received
    }

    pub(crate) fn progress(&self, index: usize) -> Progress {
        let link = &self.links[index];
        Progress {
            unsent: link.far.unsent.len(),
            is_connected: link.stage == Stage::Established,
            is_refused: matches!(link.stage, Stage::Refused(_)),
            saw_end: link.far.saw_end,
            saw_reset: link.far.saw_reset,
            has_reset: link.far.resets,
        }
    }

    pub(crate) fn answer_dials(&mut self, answer: Box<dyn FnMut(&Address) -> DialAnswer>) {
        self.answerer = Some(answer);
    }

    pub(crate) fn dialed_links(&self) -> Vec<usize> {
        let links = self.links.iter().enumerate();
        links.filter(|(_, link)| link.dialed.is_some()).map(|(index, _)| index).collect()
    }

    pub(crate) fn act_while_polling(&mut self, act: Box<dyn FnOnce()>) {
        self.while_polling.push(act);
    }

    pub(crate) fn calls(&self) -> Calls {
        self.calls
    }

    /// How many connections there ever were.
    pub(crate) fn connections(&self) -> usize {
        self.links.len()
    }

    /// How many sockets the reactor has installed and not closed.
    pub(crate) fn sockets(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Bytes that the reactor was given, and that it gave.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.moved_in, self.moved_out)
    }

    pub(crate) fn now(&self) -> Nanos {
        self.clock
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle
    }

    pub(crate) fn set_horizon(&mut self, horizon: Horizon) {
        self.horizon = horizon;
    }

    pub(crate) fn skip_to(&mut self, end: Nanos) {
        self.clock = self.clock.max(end);
    }

    /// Lets the network deliver what is on its way, for a server that has gone.
    pub(crate) fn settle(&mut self) {
        while let Some(when) = self.next_step() {
            self.clock = self.clock.max(when);
            self.catch_up();
        }
    }

    pub(crate) fn take_breaches(&mut self) -> Vec<String> {
        std::mem::take(&mut self.breaches)
    }
}
