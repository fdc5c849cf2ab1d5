//! Waiting for events: how the clock moves, and which events a poll returns.

use super::link::Stage;
use super::world::{Horizon, World};
use crate::connection::Key;
use crate::driver::{Event, Readiness, Wait};
use crate::time::Nanos;

/// How much later than asked a wait may end.
const EXACT_SLACK: Nanos = 60_000;
const ROUGH_SLACK: Nanos = 2_000_000;
/// What it takes to look for events and find none: more than on a kernel, to spin through time quickly.
const LOOK: Nanos = 10_000;

impl World {
    /// Advances the clock until something happens or the wait is over.
    pub(super) fn pass(&mut self, wait: Wait) {
        self.catch_up();
        let deadline = match wait {
            Wait::No if self.has_events() => return,
            Wait::No => return self.clock += LOOK,
            Wait::ForEver => None,
            Wait::Exactly(when) => Some(self.late(when, EXACT_SLACK)),
            Wait::Roughly(when) => Some(self.late(when, ROUGH_SLACK)),
        };
        while !self.has_events() && deadline.is_none_or(|deadline| self.clock < deadline) {
            let step = self.next_step();
            match (step.into_iter().chain(deadline).min(), self.horizon) {
                // Whoever runs to the end of what the network does waits for no deadline after it.
                (Some(_), Horizon::Network) if step.is_none() => return self.is_idle = true,
                (None, _) => return self.is_idle = true,
                (Some(next), Horizon::Until(end)) if next > end => {
                    return self.clock = self.clock.max(end);
                }
                (Some(next), _) => self.clock = self.clock.max(next),
            }
            self.catch_up();
        }
    }

    fn late(&mut self, when: Nanos, slack: Nanos) -> Nanos {
        if self.rng.chance(self.faults.delays) { when + self.rng.below(slack) } else { when }
    }

    fn has_events(&self) -> bool {
        !self.edges.is_empty() || self.listeners.iter().flatten().any(|listener| listener.has_edge)
    }

    /// Whether a poll has left events to the next.
    pub(super) fn has_more(&self) -> bool {
        !self.edges.is_empty()
    }

    pub(super) fn report(&mut self, events: &mut Vec<Event>) {
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            if let Some(listener) = listener
                && std::mem::take(&mut listener.has_edge)
            {
                events.push(Event::Accept(number as u16));
            }
        }
        let mut edges = std::mem::take(&mut self.edges);
        if self.rng.chance(self.faults.reordered_events) {
            self.rng.shuffle(&mut edges);
        }
        let now = if self.rng.chance(self.faults.small_batches) { self.rng.part_of(3) } else { edges.len() };
        self.edges = edges.split_off(now.min(edges.len()));
        for index in edges {
            self.links[index].near.has_edge = false;
            if let Some(event) = self.event(index) {
                events.push(event);
            }
        }
        self.report_nonsense(events);
    }

    /// The event of one connection, if there is anything to be said.
    fn event(&mut self, index: usize) -> Option<Event> {
        let mut readiness = self.links[index].readiness()?;
        let key = self.links[index].near.key?;
        if self.rng.chance(self.faults.missing_hints) {
            (readiness.ended, readiness.failed) = (false, false);
        }
        if self.links[index].stage == Stage::Established && readiness.readable {
            self.links[index].near.is_announced = true;
        }
        self.links[index].near.is_end_told |= readiness.ended;
        if self.rng.chance(self.faults.repeated_events) {
            self.edge(index);
        }
        Some(Event::Ready(key, readiness))
    }

    fn report_nonsense(&mut self, events: &mut Vec<Event>) {
        if !self.rng.chance(self.faults.spurious_events) {
            return;
        }
        let draw = self.rng.next();
        let readiness =
            Readiness { readable: draw & 1 != 0, writable: draw & 2 != 0, ..Readiness::default() };
        let living: Vec<Key> =
            self.slots.iter().flatten().filter_map(|&link| self.links[link].near.key).collect();
        let gone: Vec<Key> = self.gone.iter().copied().collect();
        let from = if draw & 4 != 0 || living.is_empty() { gone } else { living };
        if !from.is_empty() {
            let at = self.rng.below(events.len() as u64 + 1) as usize;
            events.insert(at, Event::Ready(self.rng.pick(&from), readiness));
        }
        if draw & 24 == 0 && !self.listeners.is_empty() {
            events.push(Event::Accept(self.rng.below(self.listeners.len() as u64) as u16));
        }
    }
}
