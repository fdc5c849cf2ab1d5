//! The outcome as text and as JSON.

use std::fmt::Write as _;
use std::fs::File;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::Measured;
use super::args::Plan;
use super::record::{Contestant, Metric, SliceRecord};
use crate::latency::{self, Buckets, Percentiles, format_ns};
use crate::load::Mode;
use crate::outcome;
use crate::stats::{self, Estimate};

/// The CPU time of others that puts a run in doubt. It is known to a few hundredths only.
const FOREIGN: f64 = 0.05;

/// The share of its CPUs from which on the client is taken to be saturated.
const SATURATED: f64 = 0.97;

/// By how much less than the client the server is busy if the client holds it up.
const CLEARLY_LESS: f64 = 0.05;

/// The share of late sends that puts a run in doubt.
const MANY_LATE: f64 = 0.01;

/// The CPU time of idle servers that puts a run in doubt.
const NOT_IDLE: f64 = 0.02;

/// The ratios of one server to B.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ratios {
    rate: Option<Estimate>,
    cpu_per_message: Option<Estimate>,
    p50: Option<Estimate>,
    p99: Option<Estimate>,
    p99_9: Option<Estimate>,
    /// Of the histograms of all rounds together.
    p99_9_merged: f64,
}

/// What the comparison comes to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    rounds: usize,
    a_to_b: Ratios,
    control_to_b: Ratios,
}

impl Summary {
    /// Sums up the complete rounds; `None` if there is none.
    pub(super) fn of(measured: &Measured, seed: u64) -> Option<Self> {
        let rounds = measured.slices.len() / Contestant::ALL.len();
        (rounds > 0).then(|| Self {
            rounds,
            a_to_b: ratios(measured, Contestant::A, rounds, seed),
            control_to_b: ratios(measured, Contestant::Control, rounds, seed),
        })
    }
}

/// The values of a server in the order of the first `rounds`.
fn series(slices: &[SliceRecord], server: Contestant, metric: Metric, rounds: usize) -> Vec<f64> {
    let of_server = slices.iter().filter(|slice| slice.server == server && slice.round < rounds);
    of_server.map(|slice| metric.of(slice)).collect()
}

fn ratios(measured: &Measured, server: Contestant, rounds: usize, seed: u64) -> Ratios {
    let estimate = |metric| {
        let values = |server| series(&measured.slices, server, metric, rounds);
        Estimate::of_ratios(&values(server), &values(Contestant::B), seed)
    };
    let merged = |server: Contestant| Percentiles::from(&measured.latencies[server.index()]).p99_9 as f64;
    Ratios {
        rate: estimate(Metric::Rate),
        cpu_per_message: estimate(Metric::CpuPerMessage),
        p50: estimate(Metric::P50),
        p99: estimate(Metric::P99),
        p99_9: estimate(Metric::P999),
        p99_9_merged: merged(server) / merged(Contestant::B),
    }
}

/// Says on stderr what a round came to.
pub(super) fn progress(plan: &Plan, round: usize, slices: &[SliceRecord]) {
    let mut line = format!("round {}/{}", round + 1, plan.rounds);
    for server in Contestant::ALL {
        let slice = slices.iter().rfind(|slice| slice.server == server);
        if let Some(slice) = slice {
            let _ = write!(
                line,
                "   {} {:.0}/s p99 {}",
                plan.label(server),
                slice.messages_per_second,
                format_ns(slice.latency_ns.p99 as f64)
            );
        }
    }
    eprintln!("{line}");
}

/// The report for people.
pub(super) fn text(plan: &Plan, measured: &Measured, summary: &Summary) -> String {
    let slices = &measured.slices;
    let width = Contestant::ALL.map(|server| plan.label(server).chars().count());
    let width = width.into_iter().max().unwrap_or_default().max(8);
    let mut text = format!("{}\n\n", headline(plan, summary));
    let _ = writeln!(
        text,
        "{:width$} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7} {:>7}",
        "medians", "messages/s", "CPU/msg", "p50", "p99", "p99.9", "max", "server", "client"
    );
    for server in Contestant::ALL {
        let median = |value: fn(&SliceRecord) -> f64| median_of(slices, server, value);
        let time = |value: fn(&SliceRecord) -> f64| format_ns(median(value));
        let _ = writeln!(
            text,
            "{:width$} {:>11.0} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6.0}% {:>6.0}%",
            plan.label(server),
            median(|slice| slice.messages_per_second),
            time(|slice| slice.server_cpu_ns_per_message),
            time(|slice| slice.latency_ns.p50 as f64),
            time(|slice| slice.latency_ns.p99 as f64),
            time(|slice| slice.latency_ns.p99_9 as f64),
            time(|slice| slice.latency_ns.max as f64),
            median(|slice| slice.server_cpu) * 100.0,
            median(|slice| slice.client_cpu) * 100.0,
        );
    }
    text.push('\n');
    text.push_str(&ratio_table(plan, summary));
    text.push_str("\nall rounds together\n");
    let columns = Contestant::ALL.map(|server| (plan.label(server), &measured.latencies[server.index()]));
    text.push_str(&latency::format_distributions(&columns));
    for note in notes(plan, slices) {
        let _ = writeln!(text, "\nnote: {note}");
    }
    text
}

fn median_of(slices: &[SliceRecord], server: Contestant, value: fn(&SliceRecord) -> f64) -> f64 {
    let of_server = slices.iter().filter(|slice| slice.server == server);
    stats::median(&of_server.map(value).collect::<Vec<f64>>()).unwrap_or(f64::NAN)
}

fn headline(plan: &Plan, summary: &Summary) -> String {
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
    let _ = write!(line, ", {} B", load.size);
    if load.firehose > 0 {
        let _ = write!(line, ", beside {} of firehose", load.firehose);
    }
    let _ = write!(line, "; {} rounds of {}", summary.rounds, humantime::format_duration(load.slice));
    line
}

fn ratio_table(plan: &Plan, summary: &Summary) -> String {
    let [a, b, control] = Contestant::ALL.map(|server| plan.label(server));
    let mut table =
        format!("{:<15} {:>24} {:>24}\n", "ratio [95%]", format!("{a} / {b}"), format!("{control} / {b}"));
    let interval = |estimate: Option<Estimate>| {
        estimate.map_or_else(
            || "n/a".to_owned(),
            |Estimate { median, low, high }| format!("{median:.3} [{low:.3}, {high:.3}]"),
        )
    };
    let (ours, noise) = (&summary.a_to_b, &summary.control_to_b);
    let rows = [
        (Metric::Rate, ours.rate, noise.rate),
        (Metric::CpuPerMessage, ours.cpu_per_message, noise.cpu_per_message),
        (Metric::P50, ours.p50, noise.p50),
        (Metric::P99, ours.p99, noise.p99),
        (Metric::P999, ours.p99_9, noise.p99_9),
    ];
    for (metric, ours, noise) in rows {
        let name = metric.name();
        let _ = writeln!(table, "{name:<15} {:>24} {:>24}", interval(ours), interval(noise));
    }
    let merged = |ratio: f64| format!("{ratio:.3}");
    let _ = writeln!(
        table,
        "{:<15} {:>24} {:>24}",
        "p99.9 merged",
        merged(ours.p99_9_merged),
        merged(noise.p99_9_merged)
    );
    table
}

/// What a reader of the numbers must know.
fn notes(plan: &Plan, slices: &[SliceRecord]) -> Vec<String> {
    let mut notes = Vec::new();
    for server in Contestant::ALL {
        let label = plan.label(server);
        let median = |value: fn(&SliceRecord) -> f64| median_of(slices, server, value);
        let (client, busy) = (median(|slice| slice.client_cpu), median(|slice| slice.server_cpu));
        if !plan.load.spin && client > SATURATED && client - busy > CLEARLY_LESS {
            notes.push(format!(
                "the client was saturated by {label}: the rate is the client's, not the server's"
            ));
        }
        if let Mode::Rate { per_second, .. } = plan.load.mode {
            let late = median(|slice| slice.late_sends as f64) / (per_second * plan.load.slice.as_secs_f64());
            if late > 0.0 {
                let verdict = if late > MANY_LATE { ": too many" } else { "" };
                let share = late * 100.0;
                notes.push(format!("{label}: {share:.2}% of the sends were late{verdict}"));
            }
        }
        if plan.load.firehose > 0 {
            let rate = median(|slice| slice.firehose_bytes_per_second) / 1e6;
            notes.push(format!("{label}: the firehose carried {rate:.0} MB/s"));
        }
        let foreign = median(|slice| slice.foreign_cpu);
        if foreign > FOREIGN {
            let share = foreign * 100.0;
            notes.push(format!("while {label} was measured something else took {share:.0}% of the CPUs"));
        }
        let others = median(|slice| slice.idle_servers_cpu);
        if others > NOT_IDLE {
            let share = others * 100.0;
            notes.push(format!("while {label} was measured the other servers took {share:.0}% of a CPU"));
        }
    }
    notes
}

/// Writes everything to a file.
pub(super) fn write_json(
    file: File,
    plan: &Plan,
    measured: &Measured,
    summary: Option<&Summary>,
    failure: Option<&str>,
) -> Result<()> {
    let load = &plan.load;
    let servers = Contestant::ALL.map(|server| {
        json!({
            "server": server,
            "label": plan.label(server),
            "command": plan.command(server),
            "latencies_ns": Buckets::from(&measured.latencies[server.index()]),
        })
    });
    let document = json!({
        "command": "compare",
        "version": env!("CARGO_PKG_VERSION"),
        "failure": failure,
        "seed": plan.seed,
        "load": load,
        "server_cpus": plan.server_cpus,
        "rounds": plan.rounds,
        "summary": summary,
        "servers": servers,
        "slices": measured.slices,
    });
    outcome::write(file, &document)
}
