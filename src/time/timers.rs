//! Precise timers: a binary heap of due times beside a slab of what they are for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use super::Nanos;

/// Names one timer set with [`Core::set_timer`](crate::Core::set_timer), until it fires or is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    slot: u32,
    sequence: u64,
}

#[derive(Debug)]
struct Timer {
    sequence: u64,
    key: u64,
}

/// Timers by due time; those due at the same time fire in the order in which they were set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, u64, u32)>>,
    timers: Slab<Timer>,
    sequence: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, when: Nanos, key: u64) -> TimerId {
        self.sequence += 1;
        let sequence = self.sequence;
        let slot = self.timers.insert(Timer { sequence, key }) as u32;
        self.heap.push(Reverse((when, sequence, slot)));
        TimerId { slot, sequence }
    }

    /// Whether the timer was still to fire.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        if !self.is_set(id.slot, id.sequence) {
            return false;
        }
        self.timers.remove(id.slot as usize);
        // Cancelled timers stay in the heap until their time; where they are the most of it, sweep.
        if self.heap.len() > 64 && self.heap.len() > 2 * self.timers.len() {
            let timers = &self.timers;
            self.heap.retain(|Reverse((_, sequence, slot))| {
                timers.get(*slot as usize).is_some_and(|timer| timer.sequence == *sequence)
            });
        }
        true
    }

    /// The time at which the next timer is due.
    pub(crate) fn next(&mut self) -> Option<Nanos> {
        while let Some(&Reverse((when, sequence, slot))) = self.heap.peek() {
            if self.is_set(slot, sequence) {
                return Some(when);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes the next timer that is due by `now` and was set before the timer numbered `before`.
    pub(crate) fn pop(&mut self, now: Nanos, before: u64) -> Option<(TimerId, u64)> {
        self.next().filter(|&when| when <= now)?;
        let &Reverse((_, sequence, slot)) = self.heap.peek()?;
        if sequence > before {
            return None;
        }
        self.heap.pop();
        let timer = self.timers.remove(slot as usize);
        Some((TimerId { slot, sequence }, timer.key))
    }

    /// The number of the last timer set; those that a callback sets while timers fire come after it.
    pub(crate) fn last(&self) -> u64 {
        self.sequence
    }

    fn is_set(&self, slot: u32, sequence: u64) -> bool {
        self.timers.get(slot as usize).is_some_and(|timer| timer.sequence == sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(timers: &mut Timers, now: Nanos) -> Vec<u64> {
        let last = timers.last();
        std::iter::from_fn(|| timers.pop(now, last).map(|(_, key)| key)).collect()
    }

    #[test]
    fn fires_in_order_of_time_then_of_setting() {
        let mut timers = Timers::default();
        for (when, key) in [(30, 1), (10, 2), (20, 3), (10, 4)] {
            timers.set(when, key);
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!(drain(&mut timers, 20), [2, 4, 3]);
        assert_eq!(drain(&mut timers, 29), []);
        assert_eq!(drain(&mut timers, 30), [1]);
    }

    #[test]
    fn a_cancelled_timer_never_fires_and_its_id_is_stale() {
        let mut timers = Timers::default();
        let first = timers.set(10, 1);
        assert!(timers.cancel(first));
        assert!(!timers.cancel(first));
        let second = timers.set(10, 2);
        assert!(!timers.cancel(first), "the slot was taken over by another timer");
        assert_eq!(drain(&mut timers, 10), [2]);
        assert!(!timers.cancel(second), "it has fired");
    }

    #[test]
    fn a_timer_set_while_timers_fire_waits_for_the_next_round() {
        let mut timers = Timers::default();
        timers.set(1, 1);
        let last = timers.last();
        assert!(timers.pop(5, last).is_some());
        timers.set(0, 2);
        assert!(timers.pop(5, last).is_none());
        assert_eq!(drain(&mut timers, 5), [2]);
    }

    #[test]
    fn cancelled_timers_do_not_pile_up() {
        let mut timers = Timers::default();
        for _ in 0..100_000 {
            let id = timers.set(1 << 60, 0);
            timers.cancel(id);
        }
        assert!(timers.heap.len() <= 65, "{} left", timers.heap.len());
    }
}
