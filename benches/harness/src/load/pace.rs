//! When the messages of the rate mode are due.

use std::time::Duration;

/// The schedule of one thread: message after message, each on the next connection.
#[derive(Debug)]
pub(super) struct Pace {
    start: f64,
    interval: f64,
    connections: usize,
    late_after: u64,
    next: u64,
}

impl Pace {
    /// The schedule of `thread`, of `threads`, whose `connections` are a part of `all`.
    pub(super) fn new(
        now: u64,
        per_second: f64,
        late_after: Duration,
        (thread, threads): (usize, usize),
        (connections, all): (usize, usize),
    ) -> Self {
        let interval = 1e9 / per_second * all as f64 / connections as f64;
        Self {
            start: now as f64 + interval * thread as f64 / threads as f64,
            interval,
            connections,
            late_after: late_after.as_nanos() as u64,
            next: 0,
        }
    }

    /// When the next message is due.
    pub(super) fn next_due(&self) -> u64 {
        (self.start + self.interval * self.next as f64) as u64
    }

    /// Takes the next message if it is due: its connection, and when it was.
    pub(super) fn take(&mut self, now: u64) -> Option<(usize, u64)> {
        let due = self.next_due();
        if due > now {
            return None;
        }
        let connection = (self.next % self.connections as u64) as usize;
        self.next += 1;
        Some((connection, due))
    }

    /// Whether sending now what was `due` is too late.
    pub(super) fn is_late(&self, due: u64, now: u64) -> bool {
        now.saturating_sub(due) > self.late_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_spread_over_time_and_connections() {
        let mut pace = Pace::new(100, 1e6, Duration::from_micros(5), (0, 1), (3, 3));
        let taken: Vec<_> = std::iter::from_fn(|| pace.take(4_100)).collect();
        assert_eq!(taken, [(0, 100), (1, 1_100), (2, 2_100), (0, 3_100), (1, 4_100)]);
        assert_eq!(pace.next_due(), 5_100);
        assert!(!pace.is_late(5_100, 10_100));
        assert!(pace.is_late(5_100, 10_101));
    }

    #[test]
    fn threads_take_turns() {
        let mut first = Pace::new(0, 1e6, Duration::ZERO, (0, 2), (2, 4));
        let mut second = Pace::new(0, 1e6, Duration::ZERO, (1, 2), (2, 4));
        assert_eq!((first.take(9_999), second.take(9_999)), (Some((0, 0)), Some((0, 1_000))));
        assert_eq!((first.next_due(), second.next_due()), (2_000, 3_000));
    }
}
