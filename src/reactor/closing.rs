//! The ways a connection ends, and what becomes of its slot.

use super::{Callbacks, Io, Reactor};
use crate::connection::{CloseReason, Connection, Due, Flag, Key, Phase};
use crate::driver::{Driver, Ending, Port};
use crate::time::{Nanos, TICK};

impl Io {
    /// Closes in good order: flush, shut down our side, discard what still comes, close.
    pub(crate) fn close<P: Port + ?Sized>(&mut self, port: &mut P, key: Key, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.phase {
            Phase::Open => {
                connection.blame(reason);
                connection.phase = Phase::Flushing;
                // Until now nobody minded that it takes nothing: it has its time from here on.
                if self.settings.periods.write_stall == 0
                    && let Some(outbox) = &mut connection.outbox
                {
                    outbox.progress = self.tick;
                }
                let is_readable = connection.has(Flag::Readable);
                // While its callback runs there may be more to come; the end of the callback flushes.
                if self.current != Some(key) {
                    self.flush(port, key);
                }
                // Input that waits in the kernel is to be discarded, and no edge will remind us of it.
                if is_readable {
                    self.enqueue(key);
                }
            }
            // Nobody was told of it yet, and now nobody needs to be.
            Phase::Connecting => self.condemn(key, reason),
            Phase::Flushing | Phase::Lingering | Phase::Dead => {}
        }
    }

    /// Ends our side of the stream once everything written before has been sent; the peer may go on.
    pub(crate) fn finish_sending<P: Port + ?Sized>(&mut self, port: &mut P, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_writable() {
            connection.set(Flag::FinWanted);
            if self.current != Some(key) {
                self.flush(port, key);
            }
        }
    }

    /// Everything is sent: end our side, and wait for the peer to end its own. If we closed now and the
    /// peer were still sending, the kernel would answer with a reset, and that can overtake our last bytes.
    pub(super) fn linger<P: Port + ?Sized>(&mut self, port: &mut P, key: Key) {
        let tick = self.tick();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let reason = connection.reason().unwrap_or(CloseReason::Local);
        if connection.has(Flag::Ended) || self.settings.periods.linger == 0 {
            return self.condemn(key, reason);
        }
        connection.phase = Phase::Lingering;
        connection.until = tick.wrapping_add(self.settings.periods.linger);
        if let Some(inbox) = connection.inbox.take() {
            self.pools.give_inbox(inbox);
        }
        if !connection.has(Flag::FinSent) {
            connection.set(Flag::FinSent);
            port.shut_down(key.slot);
        }
        let is_readable = connection.has(Flag::Readable);
        self.arm(key);
        if is_readable {
            self.enqueue(key);
        }
    }
}

/// How a connection's socket ends. Where output or input is given up, a reset frees the kernel's buffers
/// and tells the peer that what it has is not the whole.
fn ending(connection: &Connection) -> Ending {
    match connection.reason() {
        Some(
            CloseReason::Aborted
            | CloseReason::WriteStall
            | CloseReason::MinimumRate
            | CloseReason::InputOverflow
            | CloseReason::SlowConsumer
            | CloseReason::DrainDeadline
            | CloseReason::HandlerPanic
            | CloseReason::FileTruncated,
        ) => Ending::Reset,
        _ if connection.waiting() > 0 => Ending::Reset,
        _ => Ending::Orderly,
    }
}

impl<D: Driver, C: Callbacks> Reactor<D, C> {
    /// Ends what has ended in this turn and flushes what others wrote to, until neither is left: an
    /// `on_close` may write to other connections, and a flush may end one.
    ///
    /// A dial that fails at once, begun when another's failure is told, is told of in the next turn: a
    /// handler that tries again and again must not hold the loop.
    pub(super) fn settle(&mut self) {
        let mut failures = self.io.failed_dials.len();
        loop {
            if let Some(key) = self.io.dying.pop_front() {
                self.bury(key);
            } else if failures > 0
                && let Some((key, error)) = self.io.failed_dials.pop_front()
            {
                failures -= 1;
                self.report_failed_dial(key, error);
            } else if let Some(key) = self.io.dirty.pop() {
                let connection = self.io.connections.get_mut(key);
                let is_free = connection.is_some_and(|connection| {
                    connection.clear(Flag::Dirty);
                    !connection.has(Flag::Blocked)
                });
                if is_free {
                    self.io.flush(&mut self.driver, key);
                }
            } else {
                return;
            }
        }
    }

    /// Closes the socket, answers receipts, hands the session back.
    fn bury(&mut self, key: Key) {
        self.io.fail_receipts(key);
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        self.driver.close(key.slot, ending(connection));
        let (inbox, outbox) = (connection.inbox.take(), connection.outbox.take());
        connection.permit = None;
        let reason = connection.reason().unwrap_or(CloseReason::Local);
        let was_opened = connection.has(Flag::Opened);
        let was_accepted = !connection.has(Flag::Dialed);
        if !was_accepted {
            // A dial that was given up.
            self.io.dials.remove(&key);
        }
        if let Some(inbox) = inbox {
            self.io.pools.give_inbox(inbox);
        }
        if let Some(outbox) = outbox {
            self.io.pools.give_outbox(outbox);
        }
        self.io.counters.active -= 1;
        self.io.counters.accepted_ended += u64::from(was_accepted);
        self.io.dead.push(key);
        if was_opened {
            self.io.counters.count_close(reason);
            self.callbacks.close(&mut self.io, &mut self.driver, key, reason);
        }
    }

    /// Frees the slots of what ended in this turn: from now on they may be another's.
    pub(super) fn reap(&mut self) {
        if self.io.dead.is_empty() {
            return;
        }
        for key in self.io.dead.drain(..) {
            self.io.connections.remove(key);
        }
        // There are descriptors again.
        self.resume_accepting();
    }

    /// Looks at the connections whose entry in the wheel is due. Most have been active since and are only
    /// entered anew.
    pub(super) fn expire(&mut self, now: Nanos) {
        let tick = now / TICK;
        let mut due = std::mem::take(&mut self.due);
        self.io.wheel.advance(tick, &mut due);
        for slot in due.drain(..) {
            let Some(key) = self.io.connections.key_at(slot) else { continue };
            let Some(connection) = self.io.connections.get(key) else { continue };
            let Some((at, what)) = connection.deadline(&self.io.settings.periods, tick as u32) else {
                continue;
            };
            if (at.wrapping_sub(tick as u32) as i32) > 0 {
                self.io.arm(key);
                continue;
            }
            match what {
                Due::Dial => self.dial_timed_out(key),
                Due::Linger => {
                    let reason = connection.reason().unwrap_or(CloseReason::Local);
                    self.io.condemn(key, reason);
                }
                Due::Close(reason) => self.io.condemn_undelivered(key, reason),
            }
        }
        self.due = due;
    }
}
