//! Whether two files tell of one measurement, which counts once.

use anyhow::Result;

use super::{RunResult, Target};
use crate::latency::Latencies;

/// The time of a log goes through decimals.
const SAME_START_MS: u64 = 1;

/// What one measurement of a target is known by, in a result and in a histogram log of it alike.
#[derive(Debug)]
pub(super) struct Fingerprint {
    file: String,
    /// None of a log.
    hosts: Vec<String>,
    label: String,
    started_unix_ms: u64,
    /// Replies, connecting and first bytes, where there are any.
    phases: [Option<Latencies>; 3],
}

impl Fingerprint {
    /// Those of all targets in a file.
    pub(super) fn all(file: &str, result: &RunResult) -> Result<Vec<Self>> {
        result.targets.iter().map(|target| Self::of(file, result, target)).collect()
    }

    fn of(file: &str, result: &RunResult, target: &Target) -> Result<Self> {
        let phases = &target.phases;
        // A log may have been made of the seconds, which are kept less exactly.
        let coarse = |latencies: Option<&Latencies>| {
            let mut coarse = Latencies::coarse();
            let Some(latencies) = latencies.filter(|latencies| latencies.count() > 0) else {
                return Ok(None);
            };
            coarse.merge(latencies).map(|()| Some(coarse))
        };
        let [reply, connect, first_byte] =
            [&phases.reply, &phases.connect, &phases.first_byte].map(|phase| coarse(phase.best()));
        Ok(Self {
            file: file.to_owned(),
            hosts: result.environments.iter().map(|environment| environment.host.clone()).collect(),
            label: target.label.clone(),
            started_unix_ms: target.started_unix_ms,
            phases: [reply?, connect?, first_byte?],
        })
    }

    /// Which file told of the same already, if one did.
    pub(super) fn told_by<'a>(&self, earlier: &'a [Self]) -> Option<&'a str> {
        earlier.iter().find(|one| self.is_of_the_same_as(one)).map(|one| one.file.as_str())
    }

    /// No two measurements begin in one millisecond and have every latency alike.
    fn is_of_the_same_as(&self, other: &Self) -> bool {
        let on_one_host = self.hosts.is_empty()
            || other.hosts.is_empty()
            || self.hosts.iter().any(|host| other.hosts.contains(host));
        let both = || {
            let pairs = self.phases.iter().zip(&other.phases);
            pairs.filter_map(|(one, other)| Some((one.as_ref()?, other.as_ref()?)))
        };
        // Where no latency was taken, as of connections that are only held, the start must do.
        let without = |fingerprint: &Self| fingerprint.phases.iter().all(Option::is_none);
        on_one_host
            && self.label == other.label
            && self.started_unix_ms.abs_diff(other.started_unix_ms) <= SAME_START_MS
            && both().all(|(one, other)| one == other)
            && (both().next().is_some() || (without(self) && without(other)))
    }
}
