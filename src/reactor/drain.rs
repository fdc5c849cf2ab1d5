//! The end of a reactor: stop accepting, tell the handler, let connections finish, cut off at the deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::{Callbacks, Command, Mailbox, Reactor, Then};
use crate::connection::{CloseReason, Flag, Flow, Key, Phase};
use crate::driver::Driver;
use crate::time::Nanos;

/// Connections that are asked to go in one turn, so that a drain does not hold up those still served.
const ASKED_PER_TURN: usize = 512;

/// Turns in which a handler is told of dials that fail because of the drain, when nothing else is left.
const LAST_TURNS: u32 = 8;

/// How the server is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// In good order, within the drain deadline.
    Drain,
    /// At once.
    Force,
}

/// A word from the server to all its reactors. It goes one way: to a harder stop.
#[derive(Debug)]
pub(crate) struct Control {
    stop: AtomicU8,
    /// Reactors that may still accept connections and hand them to others.
    accepting: AtomicUsize,
    /// Reactors that have connections, or may get some: their handlers may send messages to the others.
    serving: AtomicUsize,
}

impl Control {
    pub(crate) fn new(reactors: usize) -> Self {
        Self {
            stop: AtomicU8::new(0),
            accepting: AtomicUsize::new(reactors),
            serving: AtomicUsize::new(reactors),
        }
    }

    pub(crate) fn stop(&self, how: Stop) {
        self.stop.fetch_max(how as u8 + 1, Ordering::Release);
    }

    pub(crate) fn asked(&self) -> Option<Stop> {
        match self.stop.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Stop::Drain),
            _ => Some(Stop::Force),
        }
    }

    fn nobody_accepts(&self) -> bool {
        self.accepting.load(Ordering::Acquire) == 0
    }

    fn nobody_serves(&self) -> bool {
        self.serving.load(Ordering::Acquire) == 0
    }
}

/// Held by each reactor as long as it takes part in something that the others wait for before they end,
/// however its thread comes to drop it.
#[derive(Debug)]
pub(crate) struct Share<M> {
    of: Joint,
    control: Arc<Control>,
    mailboxes: Arc<[Mailbox<Command<M>>]>,
}

/// What reactors take part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joint {
    Accepting,
    Serving,
}

impl<M> Share<M> {
    pub(crate) fn new(of: Joint, control: &Arc<Control>, mailboxes: &Arc<[Mailbox<Command<M>>]>) -> Self {
        Self { of, control: Arc::clone(control), mailboxes: Arc::clone(mailboxes) }
    }
}

impl<M> Drop for Share<M> {
    fn drop(&mut self) {
        let counter = match self.of {
            Joint::Accepting => &self.control.accepting,
            Joint::Serving => &self.control.serving,
        };
        if counter.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Others may be waiting for just that.
            self.mailboxes.iter().for_each(Mailbox::wake);
        }
    }
}

/// How far a drain has come.
#[derive(Debug)]
pub(super) struct Drain {
    deadline: Nanos,
    /// Slots below this one have been asked.
    pub(super) asked: u32,
    pub(super) open_at_start: u64,
    was_forced: bool,
    /// Turns in which nothing was left but failed dials.
    last_turns: u32,
}

impl<D: Driver, C: Callbacks> Reactor<D, C> {
    /// Follows what the server has asked for; `false` when this reactor has ended.
    pub(super) fn follow_control(&mut self) -> bool {
        match (self.control.asked(), &self.drain) {
            (None, _) => return true,
            (Some(_), None) => self.begin_drain(),
            (Some(Stop::Drain), Some(_)) => self.go_on_draining(),
            (Some(Stop::Force), Some(_)) => {}
        }
        let is_forced = self.control.asked() == Some(Stop::Force);
        if let Some(drain) = &mut self.drain
            && (is_forced || self.io.now() >= drain.deadline)
            && !drain.was_forced
        {
            drain.was_forced = true;
            self.cut_off();
        }
        let was_forced = self.drain.as_ref().is_some_and(|drain| drain.was_forced);
        self.has_connections() || self.may_get_more() && !was_forced
    }

    /// A signal asks all reactors for an end in good order, and another one for the end at once.
    #[cold]
    pub(super) fn signalled(&mut self, signal: i32) {
        let how = if self.signalled { Stop::Force } else { Stop::Drain };
        self.signalled = true;
        tracing::info!(signal, ?how, "stopping at a signal");
        self.control.stop(how);
        self.mailboxes.iter().for_each(Mailbox::wake);
    }

    /// Whether others may still need this reactor, which has no connection of its own. Whoever accepts may
    /// hand one over; it is served like one accepted here. Whoever serves one may ask this handler for
    /// something that it owns.
    fn may_get_more(&mut self) -> bool {
        if !self.control.nobody_accepts() || !self.mailbox().is_empty() {
            return true;
        }
        self.serving = None;
        // In this order: who has dropped its share sends nothing more.
        !self.control.nobody_serves() || !self.mailbox().is_empty()
    }

    /// Whether anybody is left. Failed dials that have not been told of are given a few turns to be so; a
    /// handler that dials anew at each would never let the reactor end.
    fn has_connections(&mut self) -> bool {
        let failed = self.io.failed_dials.len();
        let Some(drain) = &mut self.drain else { return true };
        if self.io.connections.len() > failed {
            return true;
        }
        drain.last_turns += 1;
        if failed > 0 && drain.last_turns > LAST_TURNS {
            self.forget_failed_dials();
        }
        self.io.connections.len() > 0
    }

    /// Whether there is a word that this reactor has not followed yet.
    pub(super) fn has_word(&self) -> bool {
        match (self.control.asked(), &self.drain) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(stop), Some(drain)) => {
                let is_idle = self.io.connections.len() == 0 && self.control.nobody_accepts();
                let may_end = is_idle && (self.serving.is_some() || self.control.nobody_serves());
                may_end || stop == Stop::Force && !drain.was_forced
            }
        }
    }

    /// Connections that were open when the drain began, or were accepted in it.
    pub(crate) fn open_at_drain(&self) -> u64 {
        self.drain.as_ref().map_or(0, |drain| drain.open_at_start)
    }

    /// Connections that were cut off.
    pub(crate) fn cut_off_count(&self) -> u64 {
        self.io.counters.closed()[CloseReason::DrainDeadline.index()]
    }

    /// When the drain's deadline is, while there is one to wait for.
    pub(super) fn drain_ends(&self) -> Option<Nanos> {
        self.drain.as_ref().map(|drain| drain.deadline)
    }

    /// Whether connections remain to be asked, so that the next turn must not wait.
    pub(super) fn has_to_ask(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.asked < self.io.connections.end())
    }

    /// Connections that stand; dials under way are none yet.
    fn open(&self) -> u64 {
        let keys = (0..self.io.connections.end()).filter_map(|slot| self.io.connections.key_at(slot));
        let connections = keys.filter_map(|key| self.io.connections.get(key));
        connections.filter(|connection| !matches!(connection.phase, Phase::Connecting | Phase::Dead)).count()
            as u64
    }

    fn begin_drain(&mut self) {
        self.stop_accepting();
        self.io.draining = true;
        self.accepting = None;
        self.drain = Some(Drain {
            deadline: self.io.now().saturating_add(self.io.settings.drain_deadline),
            asked: 0,
            open_at_start: self.open(),
            was_forced: false,
            last_turns: 0,
        });
        tracing::info!(reactor = self.io.index, open = self.io.counters.active, "draining");
        self.callbacks.shutdown(&mut self.io, &mut self.driver);
        self.cancel_dials();
        self.settle();
        self.reap();
    }

    fn go_on_draining(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let from = drain.asked;
        let end = self.io.connections.end().min(from.saturating_add(ASKED_PER_TURN as u32));
        drain.asked = end;
        for slot in from..end {
            if let Some(key) = self.io.connections.key_at(slot) {
                self.ask_to_go(key);
            }
        }
        self.settle();
        self.reap();
        if end > from {
            self.report_progress();
        }
    }

    /// Serves what has arrived, then asks the handler whether the connection may be closed.
    fn ask_to_go(&mut self, key: Key) {
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        if connection.phase != Phase::Open || connection.has(Flag::DrainAsked) {
            return;
        }
        connection.set(Flag::DrainAsked);
        // A request may be in the kernel whose event is still to come: closing would lose it.
        connection.set(Flag::Readable);
        self.redeliver(key);
        self.read(key);
        let is_open = |connection: &crate::connection::Connection| connection.phase == Phase::Open;
        if !self.io.connections.get(key).is_some_and(is_open) {
            return;
        }
        self.io.begin(key);
        let then = self.callbacks.drain(&mut self.io, &mut self.driver, key);
        self.finish(key, then);
        match then {
            Then::Flow(Flow::Close) => self.io.close(&mut self.driver, key, CloseReason::Shutdown),
            other => self.apply(key, other),
        }
    }

    fn cut_off(&mut self) {
        tracing::warn!(reactor = self.io.index, open = self.io.counters.active, "cutting off what is left");
        self.cancel_dials();
        for slot in 0..self.io.connections.end() {
            if let Some(key) = self.io.connections.key_at(slot) {
                if let Some(connection) = self.io.connections.get_mut(key)
                    && connection.phase == Phase::Flushing
                {
                    connection.set_reason(CloseReason::DrainDeadline);
                }
                self.io.condemn(key, CloseReason::DrainDeadline);
            }
        }
        self.settle();
        self.reap();
    }

    fn report_progress(&self) {
        if let Some(drain) = &self.drain {
            let (open, of) = (self.io.counters.active, drain.open_at_start);
            tracing::info!(reactor = self.io.index, open, of, "draining");
        }
    }
}
