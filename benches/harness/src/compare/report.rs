//! The outcome as a result.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::args::{B, CONTROL, Contestant, Plan};
use super::{Measured, Turns};
use crate::commands::{correction, verdict};
use crate::latency::format_ns;
use crate::load::Mode;
use crate::outcome::{Status, ends};
use crate::plan::Dialect;
use crate::result::{Cost, Generator, RunResult, ServerInfo, Slice, Target, against};
use crate::stats;

/// The CPU time of others that puts a run in doubt. It is known to a few hundredths only.
const FOREIGN: f64 = 0.05;

/// The CPU time of idle servers that puts a run in doubt.
const NOT_IDLE: f64 = 0.02;

/// Says on stderr what a round came to.
pub(super) fn progress(plan: &Plan, round: usize, measured: &[Turns]) {
    let mut line = format!("round {}/{}", round + 1, plan.rounds);
    for (contestant, turns) in plan.contestants.iter().zip(measured) {
        if let Some(slice) = turns.slices.last() {
            let (rate, p99) = (slice.messages_per_second, format_ns(slice.p99_us * 1e3));
            let _ = write!(line, "   {} {rate:.0}/s p99 {p99}", contestant.label);
        }
    }
    eprintln!("{line}");
}

/// Fills in what was measured; fails if a schedule was not kept.
pub(super) fn fill(result: &mut RunResult, plan: &Plan, measured: Measured) -> Result<()> {
    result.title = headline(plan, measured.iter().map(|turns| turns.slices.len()).min().unwrap_or(0));
    result.targets = plan
        .contestants
        .iter()
        .zip(measured)
        .map(|(contestant, turns)| target(plan, contestant, turns))
        .collect();
    let (b, control) = (&result.targets[B], &result.targets[CONTROL]);
    let compared = result.targets.iter().enumerate().filter(|(place, _)| ![B, CONTROL].contains(place));
    result.comparisons = against(compared.map(|(_, target)| target), b, Some(control));
    result.notes = result.targets.iter().flat_map(|target| notes(plan, target)).collect();
    result.notes.extend(how(plan));
    let broken: Vec<String> = result
        .targets
        .iter()
        .flat_map(|target| target.checks.iter().map(move |check| (&target.label, check)))
        .filter(|(_, check)| check.is_broken_schedule())
        .filter_map(|(label, check)| Some(format!("{label}: {}", check.detail.as_ref()?)))
        .collect();
    ensure!(broken.is_empty(), ends(Status::GeneratorBehind, broken.join("; ")));
    Ok(())
}

fn target(plan: &Plan, contestant: &Contestant, mut turns: Turns) -> Target {
    if matches!(plan.load.mode, Mode::Closed { .. }) {
        correction::fill_in(&plan.judged, &mut turns.tally);
    }
    let slices = std::mem::take(&mut turns.slices);
    let seconds: f64 = slices.iter().map(|slice| slice.seconds).sum();
    let messages: u64 = slices.iter().map(|slice| slice.messages).sum();
    let mut target = Target {
        label: contestant.label.clone(),
        server: server(plan, contestant, &turns),
        started_unix_ms: turns.begun_unix_ms,
        seconds,
        messages_per_second: if seconds > 0.0 { messages as f64 / seconds } else { 0.0 },
        phases: turns.tally.phases.clone(),
        counts: turns.tally.counts.clone(),
        kernel: turns.kernel.clone(),
        slices,
        ..Target::default()
    };
    if !target.slices.is_empty() {
        let broken = verdict::broken_schedule(&plan.judged, &turns.tally);
        target.checks.extend(verdict::schedule(&plan.judged, &turns.tally, broken.as_ref()));
        target.generator = Some(generator(plan, &target, &turns));
    }
    costs(plan, &mut target, &turns);
    if let Some(look) = &turns.look {
        (target.memory, target.skew, target.notes) = (look.memory(), look.skew(), look.notes());
    }
    let problem =
        turns.problem.map(|why| format!("the server's threads were not seen in every slice: {why}"));
    target.notes.extend(problem);
    target
}

fn server(plan: &Plan, contestant: &Contestant, turns: &Turns) -> ServerInfo {
    let is_started = contestant.running().is_none();
    ServerInfo {
        address: turns.address.map(|address| format!("tcp://{address}")),
        command: is_started.then(|| contestant.server.clone()),
        version: turns.look.as_ref().and_then(|look| look.version.clone()),
        processes: is_started.then_some(1),
        cpus: is_started.then_some(plan.server_cpus.iter().collect()),
        ..ServerInfo::default()
    }
}

/// What both sides took, as far as it is known.
fn costs(plan: &Plan, target: &mut Target, turns: &Turns) {
    let client_cpus = plan.load.threads.min(plan.load.cpus.len());
    let mut server = cost(target, plan.server_cpus.len(), |slice| slice.server_utilisation);
    let mut client = cost(target, client_cpus, |slice| slice.client_utilisation);
    if turns.served > 0 {
        tell_switches(&mut server, turns.switches, turns.served);
    }
    if let Some(toll) = turns.tally.toll.as_ref().filter(|_| target.counts.received > 0) {
        tell_switches(&mut client, [toll.voluntary, toll.involuntary], target.counts.received);
    }
    if let Some(look) = &turns.look {
        look.tell_calls(&mut server, &mut client);
    }
    target.server_cost = Some(server).filter(|server| server.cpu_s > 0.0);
    target.client_cost = Some(client);
}

fn tell_switches(cost: &mut Cost, [voluntary, involuntary]: [u64; 2], messages: u64) {
    cost.voluntary_switches = Some(voluntary);
    cost.involuntary_switches = Some(involuntary);
    cost.switches_per_message = Some((voluntary + involuntary) as f64 / messages as f64);
}

fn cost(target: &Target, cpus: usize, utilisation: fn(&Slice) -> f64) -> Cost {
    let of_slice = |slice: &Slice| utilisation(slice) * cpus as f64 * slice.seconds;
    let cpu_s: f64 = target.slices.iter().map(of_slice).sum();
    let messages = target.counts.received as f64;
    Cost {
        cpu_s,
        cpu_us_per_message: (messages > 0.0).then(|| cpu_s * 1e6 / messages),
        utilisation: (target.seconds > 0.0).then(|| cpu_s / (target.seconds * cpus as f64)),
        ..Cost::default()
    }
}

/// Whose limit the rate is, by the judgement of `run`.
fn generator(plan: &Plan, target: &Target, turns: &Turns) -> Generator {
    let busiest = stats::median(&turns.server_busiest);
    let server = median_of(target, |slice| slice.server_utilisation).filter(|_| busiest.is_some());
    Generator {
        foreign_utilisation: median_of(target, |slice| slice.foreign_utilisation),
        ..verdict::generator(&plan.judged, &turns.tally, busiest, server)
    }
}

fn median_of(target: &Target, value: fn(&Slice) -> f64) -> Option<f64> {
    stats::median(&target.slices.iter().map(value).collect::<Vec<f64>>())
}

fn headline(plan: &Plan, rounds: usize) -> String {
    let load = &plan.load;
    let mut line = match load.mode {
        Mode::Closed { depth } => {
            format!("closed loop, {} connections, depth {depth}", load.connections)
        }
        Mode::Rate { per_second, .. } => {
            format!("{per_second} messages/s over {} connections", load.connections)
        }
        Mode::Broadcast { depth } => {
            format!("broadcast to {} subscribers, depth {depth}", load.connections)
        }
        Mode::Churn { .. } => format!("churn, {} connections at a time", load.connections),
    };
    match (plan.dialect, &plan.mix) {
        (Dialect::Http, None) => {
            let _ = write!(line, ", GET {}", plan.path);
        }
        (dialect, Some(mix)) => {
            let _ = write!(line, ", {} {mix}", dialect.name());
        }
        (Dialect::Redis, None) => line.push_str(", PING"),
        _ => {
            let _ = write!(line, ", {} B", load.size);
        }
    }
    if load.firehose > 0 {
        let _ = write!(line, ", beside {} of firehose", load.firehose);
    }
    let _ = write!(line, "; {rounds} rounds of {}", humantime::format_duration(load.slice));
    line
}

/// How what stands beside the slices was measured.
fn how(plan: &Plan) -> Vec<String> {
    let mut notes = vec![
        "system calls, memory and event loops are those of one load before the first round, as counting slows a \
         server; the kernel's counters are those of the slices, and the servers' context switches those of all their \
         messages, the warm-ups' too"
            .to_owned(),
    ];
    if matches!(plan.load.mode, Mode::Closed { .. }) {
        notes.push(correction::method());
    }
    notes
}

/// What a reader of the numbers must know.
fn notes(plan: &Plan, target: &Target) -> Vec<String> {
    let mut notes = Vec::new();
    let label = &target.label;
    let median = |value: fn(&Slice) -> f64| median_of(target, value).unwrap_or_default();
    if target.generator.as_ref().is_some_and(|generator| generator.generator_bound) {
        notes.push(format!("{label} is generator-bound: its rate is not the server's"));
    }
    if target.generator.as_ref().is_some_and(|generator| generator.limit_unknown) {
        notes.push(format!("{label} could not be watched: whether its rate is the server's is not known"));
    }
    if plan.load.firehose > 0 {
        let rate = median(|slice| slice.firehose_bytes_per_second) / 1e6;
        notes.push(format!("{label}: the firehose carried {rate:.0} MB/s"));
    }
    let foreign = median(|slice| slice.foreign_utilisation);
    if foreign > FOREIGN {
        let share = foreign * 100.0;
        notes.push(format!("while {label} was measured something else took {share:.0}% of the CPUs"));
    }
    let others = median(|slice| slice.idle_servers_cpus);
    if others > NOT_IDLE {
        let share = others * 100.0;
        notes.push(format!("while {label} was measured the other servers took {share:.0}% of a CPU"));
    }
    notes
}
