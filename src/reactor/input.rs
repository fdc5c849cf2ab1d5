//! Reading. Bytes go to the handler from wherever the driver has them; only what the handler leaves
//! unconsumed is copied, into the connection's inbox, and shown again with more behind it.

use super::{Callbacks, Reactor, Then};
use crate::connection::{CloseReason, Connection, Flag, Flow, Inbox, Key, Phase};
use crate::driver::{Driver, Readiness, Received};

impl<D: Driver, C: Callbacks> Reactor<D, C> {
    /// An edge of a connection.
    #[inline]
    pub(super) fn ready(&mut self, key: Key, readiness: Readiness) {
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        // What nearly all of them are: input for an open connection to whose output nothing happened.
        let is_input = readiness.readable && !readiness.ended && !readiness.failed;
        if is_input && connection.is_plain() {
            connection.set(Flag::Readable);
            return self.read(key);
        }
        self.ready_for_more(key, readiness);
    }

    #[cold]
    fn ready_for_more(&mut self, key: Key, readiness: Readiness) {
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        match connection.phase {
            Phase::Connecting => return self.dial_ready(key, readiness),
            Phase::Dead => return,
            Phase::Open | Phase::Flushing | Phase::Lingering => {}
        }
        if readiness.readable || readiness.ended || readiness.failed {
            connection.set(Flag::Readable);
        }
        if readiness.ended || readiness.failed {
            connection.set(Flag::EndAhead);
        }
        // A broken connection that is not being read would never be found out: edges come once.
        let is_read = !connection.is_suspended() && !connection.has(Flag::Ended);
        if readiness.failed && connection.phase == Phase::Open && !is_read {
            return self.io.condemn(key, CloseReason::Reset);
        }
        // Output first: an edge that came before the reply below must not be taken for one after it.
        if readiness.writable && connection.has(Flag::Blocked) {
            connection.clear(Flag::Blocked);
            self.io.flush(&mut self.driver, key);
            // It may be idle from now on.
            self.io.arm(key);
        }
        self.read(key);
        self.discard(key);
    }

    /// Reads what there is, within the connection's budget for the turn.
    #[inline]
    pub(super) fn read(&mut self, key: Key) {
        let mut budget = self.io.settings.byte_budget;
        while let Some(connection) = self.io.connections.get_mut(key)
            && connection.is_to_be_read()
        {
            if budget == 0 {
                return self.wait_for_next_turn(key);
            }
            self.io.counters.reads += 1;
            match self.driver.receive(key.slot, connection.has(Flag::EndAhead)) {
                Received::Data { lease, more } => {
                    budget = budget.saturating_sub(lease.len());
                    self.io.counters.bytes_in += lease.len() as u64;
                    connection.receive(lease.len(), more, self.io.tick);
                    let inbox = connection.inbox.take();
                    self.deliver(key, inbox, &lease);
                    self.driver.release(lease);
                    if !more {
                        return;
                    }
                }
                other => return self.stop_reading(key, other),
            }
        }
    }

    /// The connection's budget is used up; no edge will remind us of it.
    #[cold]
    fn wait_for_next_turn(&mut self, key: Key) {
        self.io.counters.budget_exhausted += 1;
        self.io.enqueue(key);
    }

    /// There was nothing to receive.
    #[cold]
    fn stop_reading(&mut self, key: Key, received: Received<D::Lease>) {
        match received {
            Received::Data { lease, .. } => self.driver.release(lease),
            Received::End => self.end(key),
            Received::Empty => {
                self.io.counters.empty_reads += 1;
                if let Some(connection) = self.io.connections.get_mut(key) {
                    connection.clear(Flag::Readable);
                }
            }
            Received::Failed(error) => self.io.condemn_undelivered(key, CloseReason::of_error(&error)),
        }
    }

    /// Receives what the peer of a closing connection still sends, and drops it. Also while our last output
    /// waits: a peer that takes it only after it has sent everything would wait for us for ever.
    #[cold]
    pub(super) fn discard(&mut self, key: Key) {
        let mut budget = self.io.settings.byte_budget;
        while let Some(connection) = self.io.connections.get_mut(key)
            && matches!(connection.phase, Phase::Flushing | Phase::Lingering)
            && connection.has(Flag::Readable)
        {
            if budget == 0 {
                return self.wait_for_next_turn(key);
            }
            self.io.counters.reads += 1;
            match self.driver.receive(key.slot, connection.has(Flag::EndAhead)) {
                Received::Data { lease, more } => {
                    connection.assign(Flag::Readable, more);
                    budget = budget.saturating_sub(lease.len());
                    self.io.counters.bytes_in += lease.len() as u64;
                    self.driver.release(lease);
                }
                other => return self.stop_reading(key, other),
            }
        }
    }

    /// Shows unconsumed input again, after a pause of the connection.
    pub(super) fn redeliver(&mut self, key: Key) {
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        if connection.phase == Phase::Open
            && !connection.is_suspended()
            && connection.take(Flag::Redeliver)
            && let Some(inbox) = connection.inbox.take()
        {
            self.deliver_from(key, inbox);
        }
    }

    #[inline(always)]
    fn deliver(&mut self, key: Key, inbox: Option<Box<Inbox>>, bytes: &[u8]) {
        if let Some(mut inbox) = inbox {
            inbox.append(bytes);
            return self.deliver_from(key, inbox);
        }
        let (consumed, then) = self.show(key, bytes);
        if consumed < bytes.len() && self.wants_input(key) {
            let mut inbox = self.io.pools.inbox();
            inbox.append(&bytes[consumed..]);
            self.keep(key, inbox, true);
        }
        self.apply(key, then);
    }

    fn deliver_from(&mut self, key: Key, mut inbox: Box<Inbox>) {
        let (consumed, then) = self.show(key, inbox.as_slice());
        inbox.consume(consumed);
        if inbox.is_empty() || !self.wants_input(key) {
            self.io.pools.give_inbox(inbox);
        } else {
            self.keep(key, inbox, consumed > 0);
        }
        self.apply(key, then);
    }

    /// Calls the handler with input; how much it consumed, and what it wants.
    #[inline(always)]
    fn show(&mut self, key: Key, bytes: &[u8]) -> (usize, Then) {
        self.io.begin(key);
        let outcome = self.callbacks.data(&mut self.io, &mut self.driver, key, bytes);
        self.finish(key, outcome.then);
        (outcome.consumed, outcome.then)
    }

    /// Ends a callback of a connection: sends what it wrote.
    #[inline(always)]
    pub(super) fn finish(&mut self, key: Key, then: Then) {
        if then == Then::Panicked {
            self.io.discard_gathered();
        }
        self.io.finish(&mut self.driver, key);
    }

    fn wants_input(&self, key: Key) -> bool {
        self.io.connections.get(key).is_some_and(|connection| connection.phase == Phase::Open)
    }

    /// Keeps unconsumed input; `is_new`: it begins another message than what was kept before.
    fn keep(&mut self, key: Key, mut inbox: Box<Inbox>, is_new: bool) {
        if inbox.len() > self.io.settings.input_cap {
            self.io.pools.give_inbox(inbox);
            return self.io.condemn(key, CloseReason::InputOverflow);
        }
        if is_new {
            inbox.since = self.io.tick();
            inbox.received = inbox.len() as u64;
        }
        if let Some(connection) = self.io.connections.get_mut(key) {
            connection.inbox = Some(inbox);
        }
        // Only the minimum rate looks at unconsumed input.
        if self.io.settings.periods.minimum_rate != 0 {
            self.io.arm(key);
        }
    }

    /// The peer's stream has ended. What was held back is shown before the end is told; where the handler holds
    /// it back again, the end waits too, and is received once more.
    fn end(&mut self, key: Key) {
        self.redeliver(key);
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        if connection.phase == Phase::Open && !connection.is_to_be_read() {
            return;
        }
        connection.clear(Flag::Readable);
        connection.set(Flag::Ended);
        if connection.phase == Phase::Flushing {
            return; // our side goes on; when it is flushed, nothing is left to wait for
        }
        if connection.phase != Phase::Open {
            let reason = connection.reason().unwrap_or(CloseReason::Local);
            return self.io.condemn(key, reason);
        }
        let mut inbox = connection.inbox.take();
        let bytes = inbox.as_ref().map_or(&[][..], |inbox| inbox.as_slice());
        self.io.begin(key);
        let outcome = self.callbacks.eof(&mut self.io, &mut self.driver, key, bytes);
        self.finish(key, outcome.then);
        if let Some(mut inbox) = inbox.take() {
            inbox.consume(outcome.consumed);
            if inbox.is_empty() || !self.wants_input(key) {
                self.io.pools.give_inbox(inbox);
            } else {
                self.keep(key, inbox, false);
            }
        }
        self.apply(key, outcome.then);
    }

    /// Does to the connection what its callback asked for.
    #[inline]
    pub(super) fn apply(&mut self, key: Key, then: Then) {
        if then != Then::Flow(Flow::Continue) {
            self.end_as_asked(key, then);
        }
    }

    #[cold]
    fn end_as_asked(&mut self, key: Key, then: Then) {
        let ended = |connection: &Connection| connection.has(Flag::Ended);
        match then {
            Then::Flow(Flow::Continue) => {}
            Then::Flow(Flow::Close) => {
                let is_ended = self.io.connections.get(key).is_some_and(ended);
                let reason = if is_ended { CloseReason::PeerClosed } else { CloseReason::Local };
                self.io.close(&mut self.driver, key, reason);
            }
            Then::Flow(Flow::Abort) => self.io.condemn(key, CloseReason::Aborted),
            Then::Panicked => self.io.condemn(key, CloseReason::HandlerPanic),
        }
    }
}
