//! When which connection must be looked at: one entry for each at most, and only while a head or a body is coming.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::{ConnId, Core, TimerId};

/// Deadlines are looked at no more often than this.
const GRAIN: u64 = 20_000_000;

#[derive(Debug, Default)]
pub(super) struct Watch {
    heap: BinaryHeap<Reverse<Due>>,
    timer: Option<(u64, TimerId)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    at: u64,
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
    pub(super) fn add(&mut self, at: u64, index: usize, id: ConnId) {
        self.heap.push(Reverse(Due { at, index, id }));
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

    /// Sees to it that the timer fires when the next is due.
    #[inline]
    pub(super) fn arm(&mut self, core: &mut Core<'_>, now: u64) {
        let Some(Reverse(next)) = self.heap.peek() else { return };
        if let Some((at, timer)) = self.timer {
            if at <= next.at.saturating_add(GRAIN) {
                return;
            }
            core.cancel_timer(timer);
        }
        let at = next.at.max(now.saturating_add(GRAIN));
        self.timer = Some((at, core.set_timer(Duration::from_nanos(at - now), 0)));
    }
}
