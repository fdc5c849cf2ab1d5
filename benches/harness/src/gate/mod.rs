//! The gate: conditions under which a result fails, for CI.
//!
//! `output` parses the conditions with the other arguments, reads the baselines before the measurement
//! and judges at the end.

mod condition;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub(crate) use condition::Condition;
use condition::{Latency, Limit, Metric, Phase};

use crate::latency::format_ns;
use crate::outcome::{Status, WithStatus};
use crate::output;
use crate::result::{RunResult, Target};

/// Conditions, with the results that they speak of.
#[derive(Debug)]
pub(crate) struct Gate {
    conditions: Vec<Condition>,
    baselines: BTreeMap<PathBuf, RunResult>,
}

impl Gate {
    /// Reads the files that the conditions name.
    pub(crate) fn new(conditions: &[Condition]) -> Result<Self> {
        let mut baselines = BTreeMap::new();
        for condition in conditions {
            if let Limit::Change(_, path) = &condition.limit
                && !baselines.contains_key(path)
            {
                let baseline = output::read(path)
                    .with_context(|| format!("--fail-if `{condition}`"))
                    .status(Status::Usage)?;
                baselines.insert(path.clone(), baseline);
            }
        }
        Ok(Self { conditions: conditions.to_vec(), baselines })
    }

    /// The conditions that hold of a result, or of which that cannot be told, each with the values.
    pub(crate) fn judge(&self, result: &RunResult) -> Vec<String> {
        let mut failed = Vec::new();
        for condition in &self.conditions {
            let about =
                |target: &&Target| condition.label.as_ref().is_none_or(|label| *label == target.label);
            let targets: Vec<&Target> = result.targets.iter().filter(about).collect();
            if targets.is_empty() {
                failed.push(match &condition.label {
                    Some(label) => {
                        format!("the gate `{condition}` cannot be told: no target is called `{label}`")
                    }
                    None => format!("the gate `{condition}` cannot be told: nothing was measured"),
                });
            }
            for target in targets {
                match self.holds(condition, result, target) {
                    Ok(None) => {}
                    Ok(Some(values)) => failed.push(format!("the gate `{condition}` holds: {values}")),
                    Err(error) => failed.push(format!("the gate `{condition}` cannot be told: {error:#}")),
                }
            }
        }
        failed
    }

    /// If the condition holds of a target, the values that make it so.
    fn holds(&self, condition: &Condition, result: &RunResult, target: &Target) -> Result<Option<String>> {
        let Condition { metric, operator, .. } = condition;
        let value = metric.of(target)?;
        let (limit, beside) = match &condition.limit {
            Limit::Value(limit) => (*limit, String::new()),
            Limit::Share(share) => {
                let whole = metric.whole(target);
                (share * whole as f64, format!(", of {whole}"))
            }
            Limit::Change(change, path) => {
                let baseline = self.baselines.get(path).context("the baseline was not read")?;
                let before = metric.of(counterpart(result, target, baseline)?).context("in the baseline")?;
                (before * (1.0 + change), format!(", in the baseline {}", metric.format(before)))
            }
        };
        Ok(operator
            .holds(value, limit)
            .then(|| format!("{} is {}{beside}", target.label, metric.format(value))))
    }
}

/// The target of a baseline that a target is to be compared with: of the same label, or each the only one.
fn counterpart<'a>(result: &RunResult, target: &Target, baseline: &'a RunResult) -> Result<&'a Target> {
    if let Some(same) = baseline.target(&target.label) {
        return Ok(same);
    }
    match baseline.targets.as_slice() {
        [only] if result.targets.len() == 1 => Ok(only),
        _ => bail!("the baseline has no target `{}`", target.label),
    }
}

impl Metric {
    /// Its value, in the unit that limits have.
    fn of(self, target: &Target) -> Result<f64> {
        let counts = &target.counts;
        let value = match self {
            Self::Latency(phase, latency) => {
                let latencies = match phase {
                    Phase::Reply => target.phases.reply.best(),
                    Phase::Raw => target.phases.reply.raw.as_ref(),
                    Phase::Connect => target.phases.connect.best(),
                    Phase::FirstByte => target.phases.first_byte.best(),
                };
                latencies.and_then(|all| match latency {
                    Latency::Quantile(quantile) => all.quantile_us(quantile),
                    Latency::Mean => all.mean_us(),
                })
            }
            Self::Rate => Some(target.messages_per_second).filter(|rate| rate.is_finite()),
            Self::Errors => Some(counts.errors_in_all() as f64),
            Self::Lost => Some(counts.connections_lost as f64),
            Self::Late => Some(counts.late as f64),
            Self::NeverSent => Some(counts.never_sent as f64),
            Self::Cpu => target.server_cost.as_ref().and_then(|cost| cost.cpu_us_per_message),
            Self::Memory => {
                let slopes = target.memory.iter().filter_map(|series| Some(series.user?.slope));
                slopes.fold(None, |most: Option<f64>, slope| Some(most.map_or(slope, |most| most.max(slope))))
            }
        };
        value.with_context(|| format!("it was not measured of {}", target.label))
    }

    /// What its shares are of.
    fn whole(self, target: &Target) -> u64 {
        match self {
            Self::Lost => target.counts.connections_asked,
            _ => target.counts.due(),
        }
    }

    fn format(self, value: f64) -> String {
        match self {
            Self::Latency(..) | Self::Cpu => format_ns(value * 1e3),
            Self::Rate => format!("{value:.0}/s"),
            Self::Memory => format!("{value:.1} B"),
            Self::Errors | Self::Lost | Self::Late | Self::NeverSent => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latencies;
    use crate::result::{Kind, MemoryPoint, MemorySeries};

    /// Latencies of 1 to 1,000 us, 1,000 messages/s, 5 late of 1,000 and 2 errors.
    fn target(label: &str) -> Target {
        let mut latencies = Latencies::new();
        (1..=1_000).for_each(|us| latencies.record(us * 1_000));
        let mut target =
            Target { label: label.to_owned(), messages_per_second: 1_000.0, ..Target::default() };
        target.phases.reply.raw = Some(latencies);
        target.counts.sent = 1_000;
        target.counts.late = 5;
        target.counts.errors.insert("reset".to_owned(), 2);
        let point = |n| MemoryPoint { connections: n, user_bytes: 1_000 + 150 * n, ..MemoryPoint::default() };
        target.memory = vec![MemorySeries::fit("idle", vec![point(1), point(10)])];
        target
    }

    fn result(labels: &[&str]) -> RunResult {
        let mut result = RunResult::begin(Kind::Run, "run", &()).unwrap();
        result.targets = labels.iter().map(|label| target(label)).collect();
        result
    }

    fn judge(conditions: &[&str], result: &RunResult, baseline: &RunResult) -> Vec<String> {
        let conditions: Vec<Condition> = conditions.iter().map(|text| text.parse().unwrap()).collect();
        let baselines = BTreeMap::from([("base".into(), baseline.clone())]);
        Gate { conditions, baselines }.judge(result)
    }

    #[test]
    fn what_is_good_enough_passes() {
        let good = [
            "p99>1ms",
            "p50>510us",
            "max>1.01s",
            "rate<1k",
            "rate<=999",
            "errors>2",
            "late>0.5%",
            "lost>0",
            "p99>+5% vs base",
            "rate<-5% vs base",
            "memory>151B",
            "mean>600us",
            "raw.p99.9>1.01ms",
        ];
        assert_eq!(judge(&good, &result(&["a", "b"]), &result(&["a", "b"])), [""; 0]);
    }

    #[test]
    fn each_condition_that_holds_is_told() {
        let one = result(&["a"]);
        for (condition, told) in [
            ("p99>900us", "`p99>900us` holds: a is 990 us"),
            ("rate<1.1k", "a is 1000/s"),
            ("errors>0", "a is 2"),
            ("late>=0.5%", "a is 5, of 1000"),
            ("late>0.4%", "a is 5, of 1000"),
            ("memory>149B", "a is 150.0 B"),
            ("p99>-5% vs base", "a is 990 us, in the baseline 990 us"),
        ] {
            let failed = judge(&["errors>99", condition], &one, &one);
            assert!(failed.len() == 1 && failed[0].contains(told), "{condition}: {failed:?}");
        }
        assert_eq!(judge(&["errors>0", "rate<2k"], &one, &one).len(), 2);
    }

    #[test]
    fn only_the_target_that_is_named_counts() {
        let mut two = result(&["a", "b"]);
        two.targets[1].counts.errors.clear();
        let failed =
            ["errors of b>0", "errors of a>0", "errors>0"].map(|text| judge(&[text], &two, &two).len());
        assert_eq!(failed, [0, 1, 1]);
    }

    #[test]
    fn what_cannot_be_told_does_not_pass() {
        let (one, two) = (result(&["a"]), result(&["b", "c"]));
        for (condition, why) in [
            ("connect.p99>1s", "it was not measured of a"),
            ("cpu>1s", "it was not measured of a"),
            ("p99 of z>1s", "no target is called `z`"),
            ("p99>+5% vs base", "the baseline has no target `a`"),
        ] {
            let failed = judge(&[condition], &one, &two);
            assert!(failed.len() == 1 && failed[0].contains(why), "{condition}: {failed:?}");
        }
        let nothing = judge(&["p99>1s"], &result(&[]), &one);
        assert!(nothing[0].contains("nothing was measured"), "{nothing:?}");
    }

    #[test]
    fn an_only_target_needs_no_label_in_common() {
        assert!(judge(&["p99>+1% vs base"], &result(&["new"]), &result(&["old"])).is_empty());
    }

    #[test]
    fn a_baseline_that_is_not_there_is_named() {
        let condition: Condition = "p99>+5% vs /no/such/file.json".parse().unwrap();
        let error = Gate::new(&[condition]).unwrap_err();
        assert_eq!(Status::of(&error), Status::Usage);
        assert!(format!("{error:#}").contains("/no/such/file.json"), "{error:#}");
    }
}
