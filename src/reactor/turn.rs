//! The turn: what a reactor does, in which order, and how long it may sleep.

use std::io;
use std::sync::Arc;

use super::accept::{Acceptor, Pause};
use super::counters::Published;
use super::drain::{Control, Drain, Share};
use super::placement::Placement;
use super::{Callbacks, Command, Io, Mailbox, Policy, Settings, Snapshot, Then};
use crate::connection::{Admission, Flag, Key, Phase};
use crate::driver::{Driver, Event, Wait};
use crate::time::{Nanos, TICK};

/// How often the pools give back what nobody used.
const TRIM_INTERVAL: Nanos = 1_000_000_000;

/// Fewer than a poll returns, so that everybody is sure to be seen in one more poll than connections have of these.
const SEEN_IN_A_POLL: usize = 512;

/// What a reactor is made of, beside its driver and its callbacks.
#[derive(Debug)]
pub(crate) struct Parts<M> {
    pub(crate) index: u16,
    pub(crate) settings: Settings,
    /// Who gets the connections of each of the server's addresses; `None`: whoever accepts them.
    pub(crate) policies: Vec<Option<Policy>>,
    pub(crate) admission: Option<Arc<Admission>>,
    /// Of all reactors, by index; likewise the counters.
    pub(crate) mailboxes: Arc<[Mailbox<Command<M>>]>,
    pub(crate) published: Arc<[Published]>,
    pub(crate) control: Arc<Control>,
    pub(crate) accepting: Share<M>,
    pub(crate) serving: Share<M>,
}

/// One event loop.
#[derive(Debug)]
pub(crate) struct Reactor<D: Driver, C: Callbacks> {
    pub(crate) io: Io,
    pub(crate) driver: D,
    pub(crate) callbacks: C,
    pub(super) acceptors: Vec<Acceptor>,
    pub(super) placement: Placement,
    pub(super) pause: Pause,
    pub(super) admission: Option<Arc<Admission>>,
    pub(super) mailboxes: Arc<[Mailbox<Command<C::Message>>]>,
    pub(super) control: Arc<Control>,
    /// Until the listeners are closed.
    pub(super) accepting: Option<Share<C::Message>>,
    /// Until nothing is left to serve in a drain.
    pub(super) serving: Option<Share<C::Message>>,
    pub(super) drain: Option<Drain>,
    /// Whether a signal has asked for an end before.
    pub(super) signalled: bool,
    published: Arc<[Published]>,
    events: Vec<Event>,
    /// Slots whose deadline ran out, while they are looked at.
    pub(super) due: Vec<u32>,
    next_tick: Nanos,
    next_trim: Nanos,
    /// Deadlines of connections are judged by this time.
    seen_until: Nanos,
    /// Turns in which no deadline was looked at, as there were more events than a poll returns.
    unseen: usize,
    /// When something last happened, for spinning.
    last_event: Nanos,
}

impl<D: Driver, C: Callbacks> Reactor<D, C> {
    pub(crate) fn new(parts: Parts<C::Message>, driver: D, callbacks: C) -> Self {
        Self {
            io: Io::new(parts.index, driver.epoch(), parts.settings),
            driver,
            callbacks,
            acceptors: parts.policies.into_iter().map(Acceptor::new).collect(),
            placement: Placement::new(Arc::clone(&parts.published)),
            pause: Pause::default(),
            admission: parts.admission,
            mailboxes: parts.mailboxes,
            control: parts.control,
            accepting: Some(parts.accepting),
            serving: Some(parts.serving),
            drain: None,
            signalled: false,
            published: parts.published,
            events: Vec::new(),
            due: Vec::new(),
            next_tick: 0,
            next_trim: TRIM_INTERVAL,
            seen_until: 0,
            unseen: 0,
            last_event: 0,
        }
    }

    /// Tells the handler that its reactor begins; to be called once, before the first turn.
    pub(crate) fn start(&mut self) -> Then {
        let now = self.driver.now();
        self.io.set_now(now);
        self.next_tick = self.io.now() + self.io.settings.tick.unwrap_or(0);
        let then = self.callbacks.start(&mut self.io, &mut self.driver);
        self.settle();
        self.reap();
        self.publish();
        then
    }

    /// Turns until the server asks for an end and it has come.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn; `false` when it was the last.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        self.wait()?;
        self.io.counters.turns += 1;
        self.handle_events();
        self.accept_some();
        self.handle_ready();
        self.read_mailbox();
        self.fire_timers();
        self.settle();
        self.reap();
        let goes_on = self.follow_control();
        self.publish();
        Ok(goes_on)
    }

    /// The counters as they are now.
    pub(crate) fn final_counters(&mut self) -> Snapshot {
        self.publish();
        self.published[self.io.index as usize].snapshot()
    }

    /// Waits for events, or does not where there is something to do already.
    fn wait(&mut self) -> io::Result<()> {
        let mut wait = self.sleep();
        // With no spin configured nothing is ever less than it.
        if self.io.now().saturating_sub(self.last_event) < self.io.settings.spin {
            wait = Wait::No;
        }
        let mut sleeps = wait != Wait::No && self.mailbox().prepare_sleep();
        // Only now: a word that comes later finds a sleeper and wakes it.
        if sleeps && self.has_word() {
            self.mailbox().slept();
            sleeps = false;
        }
        if !sleeps {
            wait = Wait::No;
        }
        self.io.counters.polls += 1;
        // What came before this time is among the events, unless there are too many.
        self.seen_until = self.io.now();
        let polled = self.driver.poll(wait, &mut self.events);
        if sleeps {
            self.mailbox().slept();
        }
        let now = self.driver.now();
        self.io.set_now(now);
        if !self.events.is_empty() || !self.mailbox().is_empty() {
            self.last_event = self.io.now();
        }
        polled
    }

    pub(super) fn mailbox(&self) -> &Mailbox<Command<C::Message>> {
        &self.mailboxes[self.io.index as usize]
    }

    /// How long there is nothing to do unless an event comes.
    fn sleep(&mut self) -> Wait {
        let busy = !self.io.ready.is_empty() || !self.io.failed_dials.is_empty();
        if busy || self.can_accept() || self.has_to_ask() || !self.mailbox().is_empty() {
            return Wait::No;
        }
        let wheel = self.io.wheel.next().map(|tick| tick * TICK);
        let tick = self.io.settings.tick.map(|_| self.next_tick);
        let trim = (!self.io.pools.are_empty()).then_some(self.next_trim);
        let roughly = [wheel, tick, trim, self.accepting_resumes(), self.drain_ends()];
        let roughly = roughly.into_iter().flatten().min();
        match (self.io.timers.next(), roughly) {
            (Some(exactly), Some(roughly)) if roughly < exactly => Wait::Roughly(roughly),
            (Some(exactly), _) => Wait::Exactly(exactly),
            (None, Some(roughly)) => Wait::Roughly(roughly),
            (None, None) => Wait::ForEver,
        }
    }

    fn handle_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.io.counters.events += events.len() as u64;
        for event in events.drain(..) {
            match event {
                Event::Ready(key, readiness) => self.ready(key, readiness),
                Event::Accept(listener) => self.accept_ready(listener),
                Event::Woken => self.io.counters.wakeups += 1,
                Event::Signalled(signal) => self.signalled(signal),
            }
        }
        self.events = events;
    }

    /// Serves those that were in the ready list when the step began; who comes again waits for a turn.
    fn handle_ready(&mut self) {
        for _ in 0..self.io.ready.len() {
            let Some(key) = self.io.ready.pop_front() else { return };
            let Some(connection) = self.io.connections.get_mut(key) else { continue };
            connection.clear(Flag::Queued);
            if connection.phase == Phase::Dead {
                continue;
            }
            if connection.waiting() > 0 && !connection.has(Flag::Blocked) {
                self.io.flush(&mut self.driver, key);
            }
            self.tell_drained(key);
            self.redeliver(key);
            self.read(key);
            self.discard(key);
        }
    }

    fn tell_drained(&mut self, key: Key) {
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        // Output that has risen again meanwhile is told of when it falls again.
        let is_drained = connection.take(Flag::Drained) && !connection.has(Flag::AboveHigh);
        if !is_drained || connection.phase != Phase::Open {
            return;
        }
        self.io.begin(key);
        let then = self.callbacks.drained(&mut self.io, &mut self.driver, key);
        self.finish(key, then);
        self.apply(key, then);
        self.io.read_again(key);
    }

    fn fire_timers(&mut self) {
        // Of whom something has come must not be taken for idle before it is seen, however long this turn or the poll
        // took: a callback may have blocked, or the process been stopped. Everybody is seen in so many polls.
        let polls = self.io.connections.len() / SEEN_IN_A_POLL;
        if self.driver.has_more_events() && self.unseen < polls {
            self.unseen += 1;
        } else {
            self.unseen = 0;
            self.expire(self.seen_until);
        }
        let now = self.io.now();
        let last = self.io.timers.last();
        for _ in 0..self.io.settings.timer_budget {
            let Some((id, key)) = self.io.timers.pop(now, last) else { break };
            self.io.counters.timers += 1;
            self.callbacks.timer(&mut self.io, &mut self.driver, id, key);
        }
        if let Some(period) = self.io.settings.tick
            && self.io.now() >= self.next_tick
        {
            // Ticks that were missed are not made up for.
            self.next_tick = self.io.now().max(self.next_tick + period);
            if self.next_tick == self.io.now() {
                self.next_tick += period;
            }
            self.callbacks.tick(&mut self.io, &mut self.driver);
        }
        if self.io.now() >= self.next_trim {
            self.next_trim = self.io.now() + TRIM_INTERVAL;
            self.io.pools.trim();
        }
    }

    fn publish(&mut self) {
        let counters = &mut self.io.counters;
        counters.peak = counters.peak.max(counters.active);
        self.published[self.io.index as usize].publish(counters);
    }

    /// Connections that are in some phase of their life, by key.
    #[cfg(feature = "sim")]
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        (0..self.io.connections.end()).filter_map(|slot| self.io.connections.key_at(slot))
    }
}
