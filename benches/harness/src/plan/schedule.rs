//! When messages are due: a rate that changes over time, and how messages come at that rate.
//!
//! Both are arithmetic on one function: how many messages are due by a time, and the time by which so many
//! are. Even arrivals ask it for whole numbers, Poisson arrivals for a sum of exponential steps, bursts for
//! multiples of their size.

use serde::{Deserialize, Serialize};

/// A stretch of time over which the rate goes from one value to another in a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) seconds: f64,
    /// Messages per second at its beginning.
    pub(crate) from: f64,
    /// And at its end.
    pub(crate) to: f64,
}

impl Segment {
    /// Messages due in it.
    fn count(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// The time in it by which `count` messages are due, which is no more than there are.
    fn time_of(&self, count: f64) -> f64 {
        let growth = (self.to - self.from) / self.seconds;
        if count == 0.0 {
            return 0.0;
        }
        if growth == 0.0 {
            return count / self.from;
        }
        // from t + growth t^2 / 2 = count, in the form that does not lose digits where the growth is small.
        let root = (self.from * self.from + 2.0 * growth * count).max(0.0).sqrt();
        2.0 * count / (self.from + root)
    }
}

/// The rate over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile(pub(crate) Vec<Segment>);

impl Profile {
    /// One rate for so long.
    pub(crate) fn constant(per_second: f64, seconds: f64) -> Self {
        Self(vec![Segment { seconds, from: per_second, to: per_second }])
    }

    /// How long it is.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.iter().map(|segment| segment.seconds).sum()
    }

    /// The same, after `seconds` at the rate with which it begins.
    pub(crate) fn after_warmup(&self, seconds: f64) -> Self {
        let first = self.0.first().map_or(0.0, |segment| segment.from.max(segment.to.min(1.0)));
        let mut segments = self.0.clone();
        if seconds > 0.0 {
            segments.insert(0, Segment { seconds, from: first, to: first });
        }
        Self(segments)
    }

    /// Messages due in all.
    pub(crate) fn count(&self) -> f64 {
        self.0.iter().map(Segment::count).sum()
    }
}

/// How messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "arrivals", rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    /// Evenly.
    Even,
    /// Independently of each other.
    Poisson,
    /// So many at once.
    Bursts { size: u32 },
}

/// The times of one part of the messages, in order.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    profile: Profile,
    arrivals: Arrivals,
    /// How many messages of all there are to one of this part.
    stride: f64,
    /// This part's offset among the others, 0 to 1.
    phase: f64,
    taken: u64,
    /// The sum of exponential steps, of Poisson arrivals.
    steps: f64,
    rng: fastrand::Rng,
    /// The segment that the last time was in, and what came before it.
    segment: usize,
    seconds_before: f64,
    count_before: f64,
}

impl Times {
    /// The times of a part that has the `share` of all messages.
    pub(crate) fn new(profile: Profile, arrivals: Arrivals, share: f64, phase: f64, seed: u64) -> Self {
        let mut times = Self {
            profile,
            arrivals,
            stride: 1.0 / share,
            phase,
            taken: 0,
            steps: 0.0,
            rng: fastrand::Rng::with_seed(seed),
            segment: 0,
            seconds_before: 0.0,
            count_before: 0.0,
        };
        times.step();
        times
    }

    fn step(&mut self) {
        // 1 - f64() is above 0, so its logarithm is finite.
        self.steps -= (1.0 - self.rng.f64()).ln();
    }

    /// The number, among all messages, of the next of this part.
    fn place(&self) -> f64 {
        match self.arrivals {
            Arrivals::Even => (self.taken as f64 + self.phase) * self.stride,
            Arrivals::Poisson => self.steps * self.stride,
            Arrivals::Bursts { size } => {
                let even = (self.taken as f64 + self.phase) * self.stride;
                (even / f64::from(size)).floor() * f64::from(size)
            }
        }
    }
}

/// Seconds from the beginning of the profile.
impl Iterator for Times {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let place = self.place();
        let (segment, within) = loop {
            let segment = self.profile.0.get(self.segment)?;
            let within = place - self.count_before;
            if within < segment.count() {
                break (segment, within);
            }
            self.count_before += segment.count();
            self.seconds_before += segment.seconds;
            self.segment += 1;
        };
        let time = self.seconds_before + segment.time_of(within);
        self.taken += 1;
        self.step();
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(segments: &[(f64, f64, f64)], arrivals: Arrivals) -> Vec<f64> {
        let segment = |&(seconds, from, to): &(f64, f64, f64)| Segment { seconds, from, to };
        let profile = Profile(segments.iter().map(segment).collect());
        Times::new(profile, arrivals, 1.0, 0.0, 1).collect()
    }

    fn assert_close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len(), "{got:?}");
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
        }
    }

    #[test]
    fn a_constant_rate_is_even() {
        let got = times(&[(0.5, 10.0, 10.0)], Arrivals::Even);
        assert_close(&got, &[0.0, 0.1, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn steps_follow_each_other() {
        let got =
            times(&[(1.0, 2.0, 2.0), (1.0, 4.0, 4.0), (1.0, 0.0, 0.0), (0.5, 2.0, 2.0)], Arrivals::Even);
        assert_close(&got, &[0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 3.0]);
    }

    /// At 0 to 20/s over 10 s, t^2 messages are due by t seconds.
    #[test]
    fn a_ramp_is_the_integral_of_its_rate() {
        let got = times(&[(10.0, 0.0, 20.0)], Arrivals::Even);
        let expected: Vec<f64> = (0..100).map(|n| f64::from(n).sqrt()).collect();
        assert_close(&got, &expected);
        let falling = times(&[(10.0, 20.0, 0.0)], Arrivals::Even);
        let mirrored: Vec<f64> = (0..100).map(|n| 10.0 - f64::from(100 - n).sqrt()).collect();
        assert_close(&falling, &mirrored);
    }

    #[test]
    fn bursts_come_at_once_at_the_mean_rate() {
        let got = times(&[(1.0, 6.0, 6.0)], Arrivals::Bursts { size: 3 });
        assert_close(&got, &[0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn the_parts_of_a_schedule_make_up_the_whole() {
        let profile = Profile(vec![
            Segment { seconds: 1.0, from: 100.0, to: 100.0 },
            Segment { seconds: 2.0, from: 100.0, to: 900.0 },
        ]);
        let mut parts: Vec<f64> = (0..4)
            .flat_map(|part| Times::new(profile.clone(), Arrivals::Even, 0.25, f64::from(part) / 4.0, 0))
            .collect();
        parts.sort_by(f64::total_cmp);
        let whole: Vec<f64> = Times::new(profile, Arrivals::Even, 1.0, 0.0, 0).collect();
        assert_eq!(whole.len(), 1_100);
        assert_close(&parts, &whole);
    }

    /// Mean and variance of the number of arrivals in a second are both the rate, and gaps are exponential.
    #[test]
    fn poisson_arrivals_are_poisson() {
        let seconds = 2_000;
        let profile = Profile::constant(50.0, f64::from(seconds));
        let times: Vec<f64> = Times::new(profile, Arrivals::Poisson, 1.0, 0.0, 7).collect();
        let mut counts = vec![0.0; seconds as usize];
        times.iter().for_each(|time| counts[*time as usize] += 1.0);
        let mean = times.len() as f64 / f64::from(seconds);
        let variance =
            counts.iter().map(|count| (count - mean) * (count - mean)).sum::<f64>() / f64::from(seconds - 1);
        assert!((mean - 50.0).abs() < 1.0, "{mean}");
        assert!((variance / mean - 1.0).abs() < 0.12, "{variance}");
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > 0.02).count() as f64;
        assert!((long / times.len() as f64 - (-1.0_f64).exp()).abs() < 0.01);
    }

    #[test]
    fn the_warmup_runs_at_the_first_rate() {
        let profile = Profile::constant(10.0, 2.0).after_warmup(0.5);
        assert_eq!((profile.seconds(), profile.count()), (2.5, 25.0));
        assert_eq!(Profile::constant(10.0, 2.0).after_warmup(0.0).0.len(), 1);
    }
}
