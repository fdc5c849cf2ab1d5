//! Results of several machines made into one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::duplicate::Fingerprint;
use super::target::{
    Check, Cost, Counter, Counts, Generator, MemorySeries, Phase, Phases, Second, ServerInfo, Skew, Slice,
    Target,
};
use super::{RunResult, comparison};
use crate::latency::Latencies;

/// What may differ between plans that are parts of one load: where each part runs, and its chance.
const OF_EACH_MACHINE: [&str; 12] = [
    "client_cpus",
    "client_processes",
    "client_reactors",
    "cpus",
    "decisions",
    "seed",
    "seeds",
    "server_cpus",
    "share",
    "source_addresses",
    "sources",
    "workers",
];

/// Measured times that overlap by less than this share make a sum of rates doubtful.
const ENOUGH_OVERLAP: f64 = 0.9;

/// Makes one of results that were measured under one plan; each comes with the name of its file.
///
/// Histograms are added, counts summed, and seconds put beside those of the same wall time. Fails if the
/// plans differ, or the kinds, or if two files tell of one measurement.
pub(crate) fn merge(parts: Vec<(String, RunResult)>) -> Result<RunResult> {
    let mut parts = parts.into_iter();
    let (first_name, mut whole) = parts.next().context("there is nothing to merge")?;
    whole.sources = names(&first_name, &whole);
    let mut windows = windows(&first_name, &whole);
    let mut told = Fingerprint::all(&first_name, &whole)?;
    for (name, part) in parts {
        ensure_same_load((&first_name, &whole), (&name, &part))?;
        let fingerprints = Fingerprint::all(&name, &part)?;
        if let Some(earlier) = fingerprints.iter().find_map(|fingerprint| fingerprint.told_by(&told)) {
            anyhow::bail!(
                "{earlier} and {name} tell of the same measurement, which would count twice: give one of them"
            );
        }
        told.extend(fingerprints);
        windows.extend(self::windows(&name, &part));
        whole.sources.extend(names(&name, &part));
        absorb(&mut whole, &name, part).with_context(|| format!("cannot merge {name}"))?;
    }
    let overlaps = overlap_notes(&windows);
    extend_new(&mut whole.notes, overlaps);
    if whole.targets.iter().any(|target| !target.slices.is_empty()) {
        whole.comparisons = comparison::again(&whole.comparisons, &whole.targets);
    }
    Ok(whole)
}

/// The files that a result stands for.
fn names(name: &str, result: &RunResult) -> Vec<String> {
    if result.sources.is_empty() {
        return vec![name.to_owned()];
    }
    result.sources.iter().map(|source| format!("{name}: {source}")).collect()
}

fn ensure_same_load((first, whole): (&str, &RunResult), (name, part): (&str, &RunResult)) -> Result<()> {
    // A histogram log does not say what it is of.
    if whole.plan.is_null() || part.plan.is_null() {
        return Ok(());
    }
    ensure!(
        whole.kind == part.kind,
        "{first} and {name} do not belong together: one is of `{}`, the other of `{}`",
        whole.command,
        part.command
    );
    if let Some((path, one, other)) = difference("", &whole.plan, &part.plan) {
        anyhow::bail!("{first} and {name} had different plans: {path} is {one} in one, {other} in the other");
    }
    Ok(())
}

/// The first place where two plans differ in what they must not.
fn difference(path: &str, one: &Value, other: &Value) -> Option<(String, String, String)> {
    let told = || {
        let path = if path.is_empty() { "the plan".to_owned() } else { format!("`{path}`") };
        Some((path, one.to_string(), other.to_string()))
    };
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            // Two variants of one thing have nothing in common to be named.
            if !keys.is_empty() && keys.len() == left.len() + right.len() {
                return told();
            }
            keys.into_iter().filter(|key| !OF_EACH_MACHINE.contains(&key.as_str())).find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                difference(&path, &of(left), &of(right))
            })
        }
        _ if one == other => None,
        _ => told(),
    }
}

fn absorb(whole: &mut RunResult, name: &str, part: RunResult) -> Result<()> {
    if whole.plan.is_null() {
        whole.plan = part.plan;
        (whole.kind, whole.command, whole.title) = (part.kind, part.command, part.title);
    }
    let end = |begin_ms: u64, seconds: f64| begin_ms as f64 / 1e3 + seconds;
    let last = end(whole.started_unix_ms, whole.duration_s).max(end(part.started_unix_ms, part.duration_s));
    if part.started_unix_ms < whole.started_unix_ms {
        (whole.started, whole.started_unix_ms) = (part.started, part.started_unix_ms);
    }
    whole.duration_s = last - whole.started_unix_ms as f64 / 1e3;
    whole.partial |= part.partial;
    if let Some(failure) = part.failure {
        let failure = format!("{name}: {failure}");
        whole.failure =
            Some(whole.failure.take().map_or_else(|| failure.clone(), |one| format!("{one}; {failure}")));
    }
    let same_host = part
        .environments
        .iter()
        .any(|environment| whole.environments.iter().any(|known| known.host == environment.host));
    whole.environments.extend(part.environments);
    whole.checks.extend(part.checks.into_iter().map(|check| named(check, name)));
    extend_new(&mut whole.notes, part.notes);
    extend_new(&mut whole.limits, part.limits);
    for target in part.targets {
        match whole.targets.iter_mut().find(|known| known.label == target.label) {
            Some(known) => absorb_target(known, name, target, same_host)?,
            None => whole.targets.push(target),
        }
    }
    for comparison in part.comparisons {
        let known = |c: &super::Comparison| {
            c.a == comparison.a && c.b == comparison.b && c.metric == comparison.metric
        };
        if !whole.comparisons.iter().any(known) {
            whole.comparisons.push(comparison);
        }
    }
    Ok(())
}

fn named(check: Check, name: &str) -> Check {
    Check { name: format!("{} ({name})", check.name), ..check }
}

fn extend_new(known: &mut Vec<String>, more: Vec<String>) {
    for text in more {
        if !known.contains(&text) {
            known.push(text);
        }
    }
}

/// Whether two results are of one server: then each has measured all of it, not a part.
fn is_same_server(one: &ServerInfo, other: &ServerInfo, same_host: bool) -> bool {
    let local = ["://127.", "://[::1]", "://localhost", "unix:"];
    one.address.as_ref().is_some_and(|address| {
        let is_local = local.iter().any(|mark| address.contains(mark));
        one.address == other.address && (same_host || !is_local)
    })
}

fn absorb_target(whole: &mut Target, name: &str, part: Target, same_host: bool) -> Result<()> {
    // A histogram log holds none.
    if whole.settings.is_empty() {
        whole.settings = part.settings;
    } else if !part.settings.is_empty()
        && let Some((path, one, other)) =
            difference("", &Value::Object(whole.settings.clone()), &Value::Object(part.settings))
    {
        anyhow::bail!("the settings of {} differ: {path} is {one} in one, {other} in the other", whole.label);
    }
    let ways = [whole.counts.received, part.counts.received];
    let begin = whole.started_unix_ms.min(part.started_unix_ms);
    let end = |target_begin: u64, seconds: f64| target_begin as f64 + seconds * 1e3;
    let last = end(whole.started_unix_ms, whole.seconds).max(end(part.started_unix_ms, part.seconds));
    merge_series(whole, part.series, part.started_unix_ms, begin)?;
    whole.started_unix_ms = begin;
    whole.seconds = (last - begin as f64) / 1e3;
    whole.messages_per_second += part.messages_per_second;
    let same_server = is_same_server(&whole.server, &part.server, same_host);
    merge_server(&mut whole.server, part.server, same_server);
    merge_phases(&mut whole.phases, part.phases)?;
    merge_counts(&mut whole.counts, part.counts);
    let all: u64 = ways.iter().sum();
    merge_option(&mut whole.server_cost, part.server_cost, |one, other| {
        if same_server { cost_of_one(one, other, all) } else { merge_cost(one, other, ways) }
    });
    merge_option(&mut whole.client_cost, part.client_cost, |one, other| merge_cost(one, other, ways));
    merge_option(&mut whole.skew, part.skew, |one, other| {
        if same_server {
            return one;
        }
        Skew {
            connections: [one.connections, other.connections].concat(),
            messages: [one.messages, other.messages].concat(),
        }
    });
    merge_option(&mut whole.generator, part.generator, |one, other| merge_generator(one, other, name));
    merge_kernel(&mut whole.kernel, part.kernel, same_host);
    // Of another server, or of the same at other times: not points of one line.
    whole.memory.extend(
        part.memory
            .into_iter()
            .map(|series| MemorySeries { state: format!("{} ({name})", series.state), ..series }),
    );
    whole.checks.extend(part.checks.into_iter().map(|check| named(check, name)));
    let rounds = whole.slices.iter().map(|slice| slice.round + 1).max().unwrap_or(0);
    whole.slices.extend(part.slices.into_iter().map(|slice| Slice { round: slice.round + rounds, ..slice }));
    extend_new(&mut whole.notes, part.notes);
    Ok(())
}

fn merge_option<T>(whole: &mut Option<T>, part: Option<T>, both: impl FnOnce(T, T) -> T) {
    *whole = match (whole.take(), part) {
        (Some(one), Some(other)) => Some(both(one, other)),
        (one, other) => one.or(other),
    };
}

fn merge_server(whole: &mut ServerInfo, part: ServerInfo, same_server: bool) {
    let sum = |one: &mut Option<u32>, other: Option<u32>| merge_option(one, other, |one, other| one + other);
    if !same_server {
        sum(&mut whole.processes, part.processes);
        sum(&mut whole.reactors, part.reactors);
    }
    whole.address = whole.address.take().or(part.address);
    whole.command = whole.command.take().or(part.command);
    whole.version = whole.version.take().or(part.version);
    whole.cpus = whole.cpus.take().or(part.cpus);
}

/// Adds the latencies of each phase.
pub(crate) fn merge_phases(whole: &mut Phases, part: Phases) -> Result<()> {
    let pairs = [
        (&mut whole.connect, part.connect),
        (&mut whole.first_byte, part.first_byte),
        (&mut whole.reply, part.reply),
    ];
    for (one, Phase { corrected, raw, filled_every_us }) in pairs {
        // Each part was filled in at a pace of its own: the slower of them is told.
        merge_option(&mut one.filled_every_us, filled_every_us, f64::max);
        merge_latencies(&mut one.corrected, corrected)?;
        merge_latencies(&mut one.raw, raw)?;
    }
    Ok(())
}

fn merge_latencies(whole: &mut Option<Latencies>, part: Option<Latencies>) -> Result<()> {
    match (whole.as_mut(), part) {
        (Some(one), Some(other)) => one.merge(&other)?,
        (None, part) => *whole = part,
        (Some(_), None) => {}
    }
    Ok(())
}

fn merge_counts(whole: &mut Counts, part: Counts) {
    let Counts {
        connections_asked,
        connections_opened,
        connections_lost,
        sent,
        received,
        carried_in,
        outstanding,
        unanswered,
        sent_bytes,
        received_bytes,
        verified_bytes,
        late,
        never_sent,
        errors,
    } = part;
    for (one, other) in [
        (&mut whole.connections_asked, connections_asked),
        (&mut whole.connections_opened, connections_opened),
        (&mut whole.connections_lost, connections_lost),
        (&mut whole.sent, sent),
        (&mut whole.received, received),
        (&mut whole.carried_in, carried_in),
        (&mut whole.outstanding, outstanding),
        (&mut whole.unanswered, unanswered),
        (&mut whole.sent_bytes, sent_bytes),
        (&mut whole.received_bytes, received_bytes),
        (&mut whole.verified_bytes, verified_bytes),
        (&mut whole.late, late),
        (&mut whole.never_sent, never_sent),
    ] {
        *one += other;
    }
    for (kind, count) in errors {
        *whole.errors.entry(kind).or_default() += count;
    }
}

/// `messages` are those that each cost was for.
fn merge_cost(one: Cost, other: Cost, messages: [u64; 2]) -> Cost {
    let weighted = |left: Option<f64>, right: Option<f64>| {
        let (left, right) = (left?, right?);
        let all = messages[0] + messages[1];
        (all > 0).then(|| (left * messages[0] as f64 + right * messages[1] as f64) / all as f64)
    };
    let mean = |left: Option<f64>, right: Option<f64>| Some(f64::midpoint(left?, right?));
    let sum = |left: Option<u64>, right: Option<u64>| Some(left? + right?);
    let mut system_calls = one.system_calls;
    for (name, count) in other.system_calls {
        *system_calls.entry(name).or_default() += count;
    }
    Cost {
        cpu_s: one.cpu_s + other.cpu_s,
        cpu_us_per_message: weighted(one.cpu_us_per_message, other.cpu_us_per_message),
        utilisation: mean(one.utilisation, other.utilisation),
        voluntary_switches: sum(one.voluntary_switches, other.voluntary_switches),
        involuntary_switches: sum(one.involuntary_switches, other.involuntary_switches),
        switches_per_message: weighted(one.switches_per_message, other.switches_per_message),
        system_calls,
        system_calls_per_message: weighted(one.system_calls_per_message, other.system_calls_per_message),
    }
}

/// What one server took that two have measured: the longer of the two, over the messages of both.
fn cost_of_one(one: Cost, other: Cost, messages: u64) -> Cost {
    let longer = if one.cpu_s >= other.cpu_s { one } else { other };
    let of_each = |total: Option<f64>| total.filter(|_| messages > 0).map(|total| total / messages as f64);
    let switches = longer.voluntary_switches.zip(longer.involuntary_switches).map(|(one, other)| one + other);
    let calls: u64 = longer.system_calls.values().sum();
    Cost {
        cpu_us_per_message: of_each(Some(longer.cpu_s * 1e6)),
        switches_per_message: of_each(switches.map(|switches| switches as f64)),
        system_calls_per_message: of_each((calls > 0).then_some(calls as f64)),
        ..longer
    }
}

/// One machine that was the limit makes the sum of rates one of generators.
fn merge_generator(one: Generator, other: Generator, name: &str) -> Generator {
    let most = |left: Option<f64>, right: Option<f64>| left.into_iter().chain(right).reduce(f64::max);
    let reason = other.reason.map(|reason| format!("{name}: {reason}"));
    Generator {
        utilisation: one.utilisation.max(other.utilisation),
        server_utilisation: most(one.server_utilisation, other.server_utilisation),
        busiest: most(one.busiest, other.busiest),
        server_busiest: most(one.server_busiest, other.server_busiest),
        foreign_utilisation: most(one.foreign_utilisation, other.foreign_utilisation),
        generator_bound: one.generator_bound || other.generator_bound,
        limit_unknown: one.limit_unknown || other.limit_unknown,
        reason: match (one.reason, reason) {
            (Some(one), Some(other)) => Some(format!("{one}; {other}")),
            (one, other) => one.or(other),
        },
    }
}

/// Counters of one machine are the same ones.
fn merge_kernel(whole: &mut Vec<Counter>, part: Vec<Counter>, same_host: bool) {
    for counter in part {
        match whole.iter_mut().find(|known| known.name == counter.name) {
            Some(known) if same_host => {
                known.before = known.before.min(counter.before);
                known.after = known.after.max(counter.after);
            }
            Some(known) => {
                known.before += counter.before;
                known.after += counter.after;
            }
            None => whole.push(counter),
        }
    }
}

/// Puts the seconds of both on one axis that begins at `begin`.
fn merge_series(whole: &mut Target, part: Vec<Second>, part_started: u64, begin: u64) -> Result<()> {
    let shift = |started: u64| (started - begin + 500) / 1_000;
    let shifts = [shift(whole.started_unix_ms), shift(part_started)];
    let mut seconds: BTreeMap<u32, Second> = BTreeMap::new();
    for (series, shift) in [std::mem::take(&mut whole.series), part].into_iter().zip(shifts) {
        for second in series {
            let place = u32::try_from(u64::from(second.second) + shift)
                .context("the machines measured at times too far apart")?;
            match seconds.get_mut(&place) {
                Some(known) => merge_second(known, second)?,
                None => {
                    seconds.insert(place, Second { second: place, ..second });
                }
            }
        }
    }
    whole.series = seconds.into_values().collect();
    Ok(())
}

fn merge_second(whole: &mut Second, part: Second) -> Result<()> {
    merge_option(&mut whole.connections, part.connections, |one, other| one + other);
    whole.opened += part.opened;
    whole.sent += part.sent;
    whole.received += part.received;
    whole.late += part.late;
    whole.errors += part.errors;
    merge_latencies(&mut whole.latency, part.latency)
}

/// When a target was measured, and by whom: label, file, begin and end in milliseconds.
type Window = (String, String, f64, f64);

fn windows(name: &str, result: &RunResult) -> Vec<Window> {
    let of = |target: &Target| {
        let begin = target.started_unix_ms as f64;
        (target.label.clone(), name.to_owned(), begin, begin + target.seconds * 1e3)
    };
    result.targets.iter().filter(|target| target.slices.is_empty()).map(of).collect()
}

/// Where rates were summed that were not reached at one time.
fn overlap_notes(windows: &[Window]) -> Vec<String> {
    let mut labels: Vec<&str> = windows.iter().map(|(label, ..)| label.as_str()).collect();
    labels.dedup();
    labels.sort_unstable();
    labels.dedup();
    labels
        .into_iter()
        .filter_map(|label| {
            let of = || windows.iter().filter(|window| window.0 == label);
            let begin = of().map(|window| window.2).fold(f64::NEG_INFINITY, f64::max);
            let end = of().map(|window| window.3).fold(f64::INFINITY, f64::min);
            let longest = of().map(|window| window.3 - window.2).fold(0.0, f64::max);
            let share = if longest > 0.0 { ((end - begin) / longest).max(0.0) } else { 1.0 };
            (share < ENOUGH_OVERLAP).then(|| {
                format!(
                    "{label} was measured by {} machines at the same time for only {:.0}% of the time: \
                     the rate is a sum that was not reached at once",
                    of().count(),
                    share * 100.0
                )
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
