//! Two targets compared, and what the numbers allow to say of them.

use serde::{Deserialize, Serialize};

use super::target::{Check, Slice, Target};
use crate::stats::Estimate;

/// A number of a slice: its name, which way it is better, and its value.
type Metric = (&'static str, Direction, fn(&Slice) -> f64);

/// What servers that took turns are compared in.
const METRICS: [Metric; 5] = [
    (RATE, Direction::Higher, |slice| slice.messages_per_second),
    (COST, Direction::Lower, |slice| slice.server_cpu_us_per_message),
    ("p50", Direction::Lower, |slice| slice.p50_us),
    ("p99", Direction::Lower, |slice| slice.p99_us),
    ("p99.9", Direction::Lower, |slice| slice.p99_9_us),
];

/// What a client spoils that is itself the limit.
const RATE: &str = "rate";

/// What stays true of a server whatever the client does.
const COST: &str = "CPU/message";

/// Fewer rounds allow no verdict: that so many fall on one side by chance has a probability of 1 in 32.
const ENOUGH_ROUNDS: usize = 6;

/// The seed of the resampling: the same slices give the same intervals.
const SEED: u64 = 0xc0de_1a9e;

/// The ratio of one number of two targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// The label of the target above the line.
    pub(crate) a: String,
    /// The label of the target below it.
    pub(crate) b: String,
    /// What was compared, as in `rate` or `p99`.
    pub(crate) metric: String,
    /// Which way is better.
    pub(crate) better: Direction,
    /// A to B: the median over the rounds, and its 95% interval. Absent if no round gave a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<Estimate>,
    /// How many rounds gave one.
    pub(crate) rounds: usize,
    /// The two are instances of one server: the ratio shows the noise.
    pub(crate) control: bool,
    pub(crate) verdict: Verdict,
    /// Why there is no verdict, if that is not the interval's doing alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Which way a number is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Higher,
    Lower,
}

/// What may be said of A beside B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Better,
    Worse,
    /// The interval holds 1, or the noise explains as much.
    Undecided,
}

impl Verdict {
    /// What a ratio allows to say, given the ratio that the control showed for the same number.
    ///
    /// Only an interval that lies wholly on one side of 1 says anything; and where it overlaps the
    /// control's, one server differs from itself as much.
    pub(crate) fn of(ratio: Estimate, control: Option<Estimate>, better: Direction) -> Self {
        let apart = |other: Estimate| ratio.low > other.high || ratio.high < other.low;
        if (ratio.low <= 1.0 && 1.0 <= ratio.high) || !control.is_none_or(apart) {
            return Self::Undecided;
        }
        if (ratio.low > 1.0) == (better == Direction::Higher) { Self::Better } else { Self::Worse }
    }
}

/// Compares each target to `b` round by round, in everything; `control`, another instance of b, shows the
/// noise, and stands among the comparisons once.
pub(crate) fn against<'a>(
    compared: impl Iterator<Item = &'a Target>,
    b: &Target,
    control: Option<&Target>,
) -> Vec<Comparison> {
    compared
        .enumerate()
        .flat_map(|(index, target)| {
            by_rounds(target, b, control)
                .into_iter()
                .filter(move |comparison| index == 0 || !comparison.control)
        })
        .collect()
}

fn by_rounds(a: &Target, b: &Target, control: Option<&Target>) -> Vec<Comparison> {
    METRICS
        .into_iter()
        .flat_map(|(metric, better, value)| {
            let noise = control.and_then(|control| ratio(control, b, value).0);
            let (ratio_to_b, rounds) = ratio(a, b, value);
            let of_interval =
                ratio_to_b.map_or(Verdict::Undecided, |ratio| Verdict::of(ratio, noise, better));
            let few = || {
                let is_few = of_interval != Verdict::Undecided && rounds < ENOUGH_ROUNDS;
                is_few.then(|| format!("{rounds} rounds are too few"))
            };
            let involved: Vec<&Target> = [a, b].into_iter().chain(control).collect();
            let reason = spoiled(metric, &involved).or_else(few);
            let verdict = if reason.is_some() { Verdict::Undecided } else { of_interval };
            let ours = Comparison {
                a: a.label.clone(),
                b: b.label.clone(),
                metric: metric.to_owned(),
                better,
                ratio: ratio_to_b,
                rounds,
                control: false,
                verdict,
                reason,
            };
            let theirs = control.map(|control| Comparison {
                a: control.label.clone(),
                ratio: noise,
                control: true,
                verdict: Verdict::Undecided,
                reason: None,
                ..ours.clone()
            });
            [Some(ours), theirs].into_iter().flatten()
        })
        .collect()
}

/// Why the number of some targets, the control last, allows no verdict whatever it is.
fn spoiled(metric: &str, involved: &[&Target]) -> Option<String> {
    let is_late = |target: &&&Target| target.checks.iter().any(Check::is_broken_schedule);
    let is_bound = |target: &&&Target| target.generator.as_ref().is_some_and(|g| g.generator_bound);
    if let Some(target) = involved.iter().find(is_late).filter(|_| metric != COST) {
        return Some(format!("the schedule of {} was not kept", target.label));
    }
    let is_unknown = |target: &&&Target| target.generator.as_ref().is_some_and(|g| g.limit_unknown);
    let compared = || involved.iter().take(2).filter(|_| metric == RATE);
    let bound =
        compared().find(is_bound).map(|target| format!("the client was the limit of {}", target.label));
    let unknown = || {
        let target = compared().find(is_unknown)?;
        Some(format!("what the limit of {} was is not known", target.label))
    };
    bound.or_else(unknown)
}

/// The median ratio over the rounds in which both were measured, and how many those are.
fn ratio(a: &Target, b: &Target, value: fn(&Slice) -> f64) -> (Option<Estimate>, usize) {
    let pairs = a.slices.iter().filter_map(|slice| {
        let beside = b.slices.iter().find(|other| other.round == slice.round)?;
        Some((value(slice), value(beside)))
    });
    let (above, below): (Vec<f64>, Vec<f64>) = pairs.unzip();
    (Estimate::of_ratios(&above, &below, SEED), above.len())
}

/// Does comparisons by rounds once more, after rounds were added.
pub(super) fn again(before: &[Comparison], targets: &[Target]) -> Vec<Comparison> {
    let find = |label: &str| targets.iter().find(|target| target.label == label);
    let mut yardsticks: Vec<&str> = Vec::new();
    for comparison in before {
        if !yardsticks.contains(&comparison.b.as_str()) {
            yardsticks.push(&comparison.b);
        }
    }
    yardsticks
        .into_iter()
        .filter_map(|b| {
            let with_b = || before.iter().filter(|comparison| comparison.b == b);
            let control = with_b().find(|comparison| comparison.control).and_then(|c| find(&c.a));
            let compared = targets.iter().filter(|target| {
                with_b().any(|comparison| !comparison.control && comparison.a == target.label)
            });
            Some(against(compared, find(b)?, control))
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(low: f64, high: f64) -> Estimate {
        Estimate { median: f64::midpoint(low, high), low, high }
    }

    #[test]
    fn a_verdict_needs_an_interval_beside_one() {
        let of = |low, high, better| Verdict::of(around(low, high), None, better);
        assert_eq!(of(1.01, 1.02, Direction::Higher), Verdict::Better);
        assert_eq!(of(1.01, 1.02, Direction::Lower), Verdict::Worse);
        assert_eq!(of(0.8, 0.9, Direction::Higher), Verdict::Worse);
        assert_eq!(of(0.8, 0.9, Direction::Lower), Verdict::Better);
        for (low, high) in [(0.9, 1.1), (1.0, 1.1), (0.9, 1.0), (1.0, 1.0)] {
            assert_eq!(of(low, high, Direction::Higher), Verdict::Undecided);
        }
    }

    #[test]
    fn what_the_control_shows_too_is_noise() {
        let of = |control| Verdict::of(around(1.05, 1.10), Some(control), Direction::Higher);
        assert_eq!(of(around(0.99, 1.04)), Verdict::Better);
        assert_eq!(of(around(0.99, 1.06)), Verdict::Undecided);
        assert_eq!(of(around(1.07, 1.08)), Verdict::Undecided);
        assert_eq!(of(around(1.11, 1.20)), Verdict::Better);
    }

    fn with_rates(label: &str, rates: &[f64]) -> Target {
        let slices = rates.iter().enumerate().map(|(round, rate)| Slice {
            round,
            messages_per_second: *rate,
            p50_us: 10.0,
            ..Slice::default()
        });
        Target { label: label.to_owned(), slices: slices.collect(), ..Target::default() }
    }

    #[test]
    fn rounds_are_compared_in_pairs() {
        let (a, b) = (
            with_rates("a", &[2.0, 20.0, 200.0, 6.0, 6.0, 6.0]),
            with_rates("b", &[1.0, 10.0, 100.0, 3.0, 3.0, 3.0]),
        );
        let control = with_rates("b'", &[1.0, 10.0]);
        let compared = by_rounds(&a, &b, Some(&control));
        assert_eq!(compared.len(), 10);
        let rate = &compared[0];
        assert_eq!((rate.ratio.unwrap().median, rate.rounds, rate.verdict), (2.0, 6, Verdict::Better));
        let noise = &compared[1];
        assert!(noise.control && noise.a == "b'" && noise.ratio.unwrap().median == 1.0, "{noise:?}");
        // No CPU time was measured: a ratio of nothing to nothing is none.
        assert_eq!((compared[2].ratio, compared[2].verdict), (None, Verdict::Undecided));
        let targets = [a, b, control];
        assert_eq!(again(&compared, &targets), compared);
        let three = with_rates("c", &[1.0; 6]);
        let all = against([&targets[0], &three].into_iter(), &targets[1], Some(&targets[2]));
        assert_eq!(all.len(), 15);
        let with_three = [&targets[..], &[three]].concat();
        assert_eq!(again(&all, &with_three), all);
    }

    #[test]
    fn few_rounds_allow_no_verdict() {
        let (a, b) = (with_rates("a", &[2.0; 5]), with_rates("b", &[1.0; 5]));
        let rate = &by_rounds(&a, &b, None)[0];
        assert_eq!(
            (rate.verdict, rate.reason.as_deref()),
            (Verdict::Undecided, Some("5 rounds are too few"))
        );
    }

    #[test]
    fn a_schedule_that_was_not_kept_allows_a_verdict_on_cost_alone() {
        let of = |late: [bool; 3]| {
            let mut targets = ["a", "b", "b'"].map(|label| with_rates(label, &[1.0; 6]));
            for (target, late) in targets.iter_mut().zip(late) {
                let name = format!("{} (one.json)", Check::SCHEDULE);
                target.checks = vec![Check { name, held: !late, ..Check::default() }];
                for slice in &mut target.slices {
                    (slice.p50_us, slice.p99_us, slice.p99_9_us) = (1.0, 1.0, 1.0);
                    slice.server_cpu_us_per_message = 1.0;
                }
            }
            for slice in &mut targets[0].slices {
                (slice.p50_us, slice.p99_us, slice.p99_9_us) = (2.0, 2.0, 2.0);
                (slice.messages_per_second, slice.server_cpu_us_per_message) = (2.0, 2.0);
            }
            let [a, b, control] = &targets;
            let compared = by_rounds(a, b, Some(control)).into_iter().filter(|c| !c.control);
            compared.map(|c| (c.metric, c.verdict, c.reason.unwrap_or_default())).collect::<Vec<_>>()
        };
        assert!(of([false; 3]).iter().all(|(_, verdict, _)| *verdict != Verdict::Undecided));
        for (late, label) in
            [([true, false, false], "a"), ([false, true, false], "b"), ([false, false, true], "b'")]
        {
            for (metric, verdict, reason) in of(late) {
                if metric == COST {
                    assert_eq!((verdict, reason.as_str()), (Verdict::Worse, ""));
                } else {
                    let why = format!("the schedule of {label} was not kept");
                    assert_eq!((verdict, reason), (Verdict::Undecided, why), "{metric}");
                }
            }
        }
    }

    #[test]
    fn a_rate_that_is_the_clients_allows_no_verdict() {
        let (a, mut b) = (with_rates("a", &[2.0; 6]), with_rates("b", &[1.0; 6]));
        b.generator = Some(super::super::Generator { generator_bound: true, ..Default::default() });
        let rate = &by_rounds(&a, &b, None)[0];
        assert_eq!(rate.verdict, Verdict::Undecided);
        assert!(rate.reason.as_ref().unwrap().contains("limit of b"), "{rate:?}");
        b.generator = Some(super::super::Generator { limit_unknown: true, ..Default::default() });
        let rate = &by_rounds(&a, &b, None)[0];
        assert_eq!(
            (rate.verdict, rate.reason.as_deref()),
            (Verdict::Undecided, Some("what the limit of b was is not known"))
        );
    }
}
