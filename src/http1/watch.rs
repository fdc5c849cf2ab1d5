//! When which connection must be looked at, while a head or a body is coming. An entry counts if its connection knows of
//! it; one that has ended, or has a sooner entry, does not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::{ConnId, Core, TimerId};

/// Deadlines are looked at no more often than this.
const GRAIN: u64 = 20_000_000;

/// So many entries are never too many.
const FEW: usize = 64;

#[derive(Debug)]
pub(super) struct Watch {
    heap: BinaryHeap<Reverse<Due>>,
    /// With so many entries it is time to leave out those that do not count.
    most: usize,
    timer: Option<(u64, TimerId)>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), most: FEW, timer: None }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: u64,
    pub(super) index: usize,
    pub(super) id: ConnId,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.index).cmp(&(other.at, other.index))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Watch {
    /// Adds an entry. `is_current` tells whether one still counts; those that do not are left out when there are many.
    pub(super) fn add(&mut self, due: Due, is_current: impl Fn(&Due) -> bool) {
        if self.heap.len() >= self.most {
            self.heap.retain(|Reverse(due)| is_current(due));
            self.most = FEW.max(2 * self.heap.len());
        }
        self.heap.push(Reverse(due));
    }

    /// The next that is due.
    pub(super) fn pop(&mut self, now: u64) -> Option<Due> {
        if self.heap.peek()?.0.at > now {
            return None;
        }
        self.heap.pop().map(|due| due.0)
    }

    /// Whether this is the timer of the deadlines; it has fired then.
    pub(super) fn is_mine(&mut self, timer: TimerId) -> bool {
        let is_mine = self.timer.is_some_and(|(_, id)| id == timer);
        if is_mine {
            self.timer = None;
        }
        is_mine
    }

    /// Sees to it that the timer fires when the next is due; in the next turn if it is overdue.
    #[inline]
    pub(super) fn arm(&mut self, core: &mut Core<'_>, now: u64) {
        let Some(Reverse(next)) = self.heap.peek() else { return };
        let at = if next.at <= now { now } else { next.at.max(now.saturating_add(GRAIN)) };
        if let Some((armed, timer)) = self.timer {
            if armed <= at.saturating_add(GRAIN) {
                return;
            }
            core.cancel_timer(timer);
        }
        self.timer = Some((at, core.set_timer(Duration::from_nanos(at - now), 0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(at: u64, slot: u32) -> Due {
        Due {
            at,
            index: slot as usize,
            id: ConnId { key: crate::connection::Key { slot, generation: 1 }, reactor: 0 },
        }
    }

    #[test]
    fn entries_of_connections_that_are_gone_do_not_pile_up() {
        let mut watch = Watch::default();
        for round in 0..100_000u32 {
            watch.add(due(u64::MAX, round), |due| due.index < 10);
            assert!(watch.heap.len() <= FEW + 1, "{} entries", watch.heap.len());
        }
        assert_eq!(watch.heap.iter().filter(|Reverse(due)| due.index < 10).count(), 10);
    }

    #[test]
    fn they_come_in_the_order_of_their_times() {
        let mut watch = Watch::default();
        [3, 1, 2].into_iter().for_each(|at| watch.add(due(at, 0), |_| true));
        assert_eq!(
            [watch.pop(2), watch.pop(2), watch.pop(2)].map(|due| due.map(|due| due.at)),
            [Some(1), Some(2), None]
        );
    }
}
