//! The state of a reactor that callbacks may touch: connections, timers, lists of what is to be done.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::dialing::{ConnectError, PendingDial};
use super::settings::Settings;
use crate::connection::{CloseReason, ConnId, Connection, Flag, Key, Phase, Pools, Slots};
use crate::time::{Nanos, TICK, TimerId, Timers, Wheel, nanos, ticks};

/// Panics whose payload is kept for the report; further ones are only counted.
const PAYLOADS_KEPT: usize = 16;

/// A caught panic: in which callback, and what it said.
#[derive(Debug)]
pub(crate) struct CaughtPanic {
    pub(crate) callback: &'static str,
    pub(crate) payload: Box<dyn Any + Send>,
}

#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) index: u16,
    /// The driver's time zero.
    pub(crate) epoch: Instant,
    pub(crate) settings: Settings,
    pub(crate) connections: Slots<Connection>,
    pub(crate) pools: Pools,
    pub(crate) counters: Counters,
    pub(crate) panics: Vec<CaughtPanic>,
    /// The connection whose callback runs, and what it has written and not flushed.
    pub(super) current: Option<Key>,
    pub(super) scratch: Vec<u8>,
    /// Connections that have something to do although no edge will say so.
    pub(super) ready: VecDeque<Key>,
    /// Connections written to by others than their own callback.
    pub(super) dirty: Vec<Key>,
    /// Connections that ended and whose end nobody has been told yet.
    pub(super) dying: VecDeque<Key>,
    /// Connections whose slot is free at the end of the turn.
    pub(super) dead: Vec<Key>,
    pub(super) failed_dials: VecDeque<(Key, ConnectError)>,
    /// Dials whose outcome has not been told yet.
    pub(super) dials: HashMap<Key, PendingDial>,
    pub(super) wheel: Wheel,
    pub(super) timers: Timers,
    /// The time at which this turn's events were there.
    pub(super) now: Nanos,
    /// The same in ticks of the wheel, as connections keep it.
    pub(super) tick: u32,
    pub(super) draining: bool,
}

impl Io {
    pub(super) fn new(index: u16, epoch: Instant, settings: Settings) -> Self {
        Self {
            index,
            epoch,
            settings,
            connections: Slots::new(),
            pools: Pools::new(),
            counters: Counters::default(),
            panics: Vec::new(),
            current: None,
            scratch: Vec::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            dying: VecDeque::new(),
            dead: Vec::new(),
            failed_dials: VecDeque::new(),
            dials: HashMap::new(),
            wheel: Wheel::new(),
            timers: Timers::default(),
            now: 0,
            tick: 0,
            draining: false,
        }
    }

    pub(crate) fn id(&self, key: Key) -> ConnId {
        ConnId { key, reactor: self.index }
    }

    /// The connection that `id` names, if it is on this reactor and alive.
    pub(crate) fn find(&self, id: ConnId) -> Option<Key> {
        let connection = self.connections.get(id.key).filter(|_| id.reactor == self.index)?;
        (connection.phase != Phase::Dead).then_some(id.key)
    }

    /// Bytes written to a connection that the kernel has not taken.
    pub(crate) fn pending(&self, key: Key) -> usize {
        let gathered = if self.current == Some(key) { self.scratch.len() } else { 0 };
        self.connections.get(key).map_or(0, Connection::waiting) + gathered
    }

    pub(crate) fn now(&self) -> Nanos {
        self.now
    }

    /// The present tick as connections keep it.
    pub(crate) fn tick(&self) -> u32 {
        self.tick
    }

    pub(super) fn set_now(&mut self, now: Nanos) {
        self.now = now;
        self.tick = (now / TICK) as u32;
    }

    pub(crate) fn set_timer(&mut self, after: Duration, key: u64) -> TimerId {
        self.timers.set(self.now.saturating_add(nanos(after)), key)
    }

    pub(crate) fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.timers.cancel(id)
    }

    /// Puts a connection at the end of the ready list, once.
    pub(super) fn enqueue(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.has(Flag::Queued)
        {
            connection.set(Flag::Queued);
            self.ready.push_back(key);
        }
    }

    pub(crate) fn pause(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.set(Flag::Paused);
        }
    }

    pub(crate) fn resume(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.take(Flag::Paused) {
            self.read_again(key);
        }
    }

    /// Sees to it that what waits to be read is read, if nothing holds it up any more.
    pub(super) fn read_again(&mut self, key: Key) {
        let (tick, is_current) = (self.tick(), self.current == Some(key));
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase != Phase::Open || connection.is_suspended() {
            return;
        }
        if is_current {
            // What this callback is going to leave is not in the inbox yet.
            connection.set(Flag::Redeliver);
        }
        // The wait was ours: the deadlines of idleness and of the minimum rate count from now.
        connection.active = tick;
        if let Some(inbox) = &mut connection.inbox {
            inbox.since = tick;
            inbox.received = 0;
            connection.set(Flag::Redeliver);
        }
        if connection.has(Flag::Redeliver) || connection.has(Flag::Readable) {
            self.enqueue(key);
        }
        self.arm(key);
    }

    /// Ends a connection: its socket is closed in this turn, its session handed back, its slot freed.
    pub(crate) fn condemn(&mut self, key: Key, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase == Phase::Dead {
            return;
        }
        connection.blame(reason);
        connection.phase = Phase::Dead;
        self.wheel.cancel(key.slot);
        self.dying.push_back(key);
    }

    /// Ends a connection whose output can no longer be delivered, for `reason`, even where a graceful
    /// close had been asked for.
    pub(super) fn condemn_undelivered(&mut self, key: Key, reason: CloseReason) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.phase == Phase::Flushing
        {
            connection.set_reason(reason);
        }
        self.condemn(key, reason);
    }

    /// Another idle deadline than the server's for this connection, or none.
    pub(crate) fn set_idle_deadline(&mut self, key: Key, deadline: Option<Duration>) {
        let tick = self.tick;
        if let Some(connection) = self.connections.get_mut(key) {
            if connection.idle == 0 {
                connection.active = tick;
            }
            connection.idle = deadline.map_or(0, ticks);
        }
        self.arm(key);
    }

    /// Moves the connection's entry in the wheel where a deadline may have come nearer.
    pub(crate) fn arm(&mut self, key: Key) {
        let tick = self.now / TICK;
        let Some(connection) = self.connections.get(key) else { return };
        let Some((at, _)) = connection.deadline(&self.settings.periods, tick as u32) else { return };
        let distance = (at.wrapping_sub(tick as u32) as i32).max(0);
        let at = tick + distance as u64;
        if self.wheel.due(key.slot).is_none_or(|due| at < due) {
            self.wheel.set(key.slot, at);
        }
    }

    /// Keeps a caught panic for the report.
    pub(crate) fn record_panic(&mut self, callback: &'static str, payload: Box<dyn Any + Send>) {
        self.counters.panics += 1;
        tracing::error!(
            reactor = self.index,
            callback,
            message = panic_message(&*payload),
            "a callback panicked"
        );
        if self.settings.abort_on_panic {
            std::process::abort();
        }
        if self.panics.len() < PAYLOADS_KEPT {
            self.panics.push(CaughtPanic { callback, payload });
        }
    }
}

/// What a panic said, where it said it in text.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(not a text)"
    }
}
