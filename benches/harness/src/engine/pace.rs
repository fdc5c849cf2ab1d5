//! The times of one reactor's messages, in nanoseconds of the run.

use crate::plan::{Arrivals, Plan, Profile, Times};

/// A schedule under way.
#[derive(Debug)]
pub(crate) struct Pace {
    times: Times,
    start: u64,
    next: Option<u64>,
}

impl Pace {
    /// From `start` on, the part of one reactor that has the `share` of all connections. `phase` (0 to 1) is its place
    /// among the reactors.
    pub(crate) fn new(
        profile: Profile,
        arrivals: Arrivals,
        start: u64,
        share: f64,
        phase: f64,
        seed: u64,
    ) -> Self {
        let mut pace = Self { times: Times::new(profile, arrivals, share, phase, seed), start, next: None };
        pace.step();
        pace
    }

    fn step(&mut self) {
        self.next = self.times.next().map(|seconds| self.start + (seconds * 1e9) as u64);
    }

    /// When the next message is due; `None` after the last.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.next
    }

    /// Takes the next message, if it is due.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.next.filter(|due| *due <= now)?;
        self.step();
        Some(due)
    }

    /// Takes those that are due before `end` and were not taken.
    pub(crate) fn take_before(&mut self, end: u64) -> impl Iterator<Item = u64> + use<'_> {
        std::iter::from_fn(move || self.take(end.saturating_sub(1)))
    }
}

/// Where a reactor stands among all reactors of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) index: usize,
    pub(crate) of: usize,
}

impl Position {
    /// Its part of a schedule that begins at `start`, by how many connections it has of all that the schedule is for;
    /// `None` without any.
    pub(crate) fn pace(
        self,
        plan: &Plan,
        profile: Profile,
        arrivals: Arrivals,
        start: u64,
        (connections, of_all): (usize, usize),
    ) -> Option<Pace> {
        // Where there are fewer connections than reactors, the first reactors have one each.
        let phase = self.index as f64 / self.of.min(of_all) as f64;
        let seed = plan.seed.wrapping_add(self.index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let share = connections as f64 / of_all as f64;
        (connections > 0).then(|| Pace::new(profile, arrivals, start, share, phase, seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_when_they_are_due() {
        let profile = Profile::constant(1_000.0, 0.01);
        let mut pace = Pace::new(profile, Arrivals::Even, 500, 1.0, 0.0, 0);
        assert_eq!(pace.take(499), None);
        assert_eq!((pace.take(500), pace.next_due()), (Some(500), Some(1_000_500)));
        assert_eq!((pace.take(9_999_999), pace.take(9_999_999)), (Some(1_000_500), Some(2_000_500)));
        assert_eq!(pace.take_before(8_000_500).count(), 5);
        assert_eq!(pace.take_before(u64::MAX).collect::<Vec<_>>(), [8_000_500, 9_000_500]);
        assert_eq!(pace.next_due(), None);
    }
}
