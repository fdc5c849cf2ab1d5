//! What was measured of one target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::latency::Latencies;
use crate::stats::Line;

/// One server under one load: the unit that everything was measured for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// What it is called in reports; unique within a result.
    pub(crate) label: String,
    pub(crate) server: ServerInfo,
    /// In what this target's load differs from that of others: `connections`, `rate`, `size`, `depth` ..
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) settings: Map<String, Value>,
    /// The start of the measured time, after warm-up, in milliseconds since the epoch.
    pub(crate) started_unix_ms: u64,
    /// The measured time.
    pub(crate) seconds: f64,
    /// Replies that came in the measured time, for each second of it.
    pub(crate) messages_per_second: f64,
    #[serde(default)]
    pub(crate) phases: Phases,
    #[serde(default)]
    pub(crate) counts: Counts,
    /// Second by second; seconds without anything may be left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) series: Vec<Second>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) memory: Vec<MemorySeries>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_cost: Option<Cost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_cost: Option<Cost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) skew: Option<Skew>,
    /// Counters of the kernel: all that speak of drops and overflows, changed or not, and signs of pressure that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) kernel: Vec<Counter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generator: Option<Generator>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) checks: Vec<Check>,
    /// Where servers took turns: each turn of this one, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slices: Vec<Slice>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// The server behind a target, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerInfo {
    /// Where it was reached, as in `tcp://127.0.0.1:7000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// The command line that it was started with, if we started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) processes: Option<u32>,
    /// Reactors (event loops, threads) of all its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reactors: Option<u32>,
    /// The CPUs it was confined to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<Vec<usize>>,
}

/// Latencies of each phase of a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phases {
    /// From the wish to connect until the connection stands.
    #[serde(default, skip_serializing_if = "Phase::is_empty")]
    pub(crate) connect: Phase,
    /// Until the first byte of a reply.
    #[serde(default, skip_serializing_if = "Phase::is_empty")]
    pub(crate) first_byte: Phase,
    /// Until the last byte of a reply.
    #[serde(default, skip_serializing_if = "Phase::is_empty")]
    pub(crate) reply: Phase,
}

impl Phases {
    /// Each with its name.
    pub(crate) fn named(&self) -> [(&'static str, &Phase); 3] {
        [("connect", &self.connect), ("first byte", &self.first_byte), ("reply", &self.reply)]
    }
}

/// Latencies of one phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// From when it was meant to start; of a closed loop, in which nothing is due, an estimate: see `filled_every_us`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) corrected: Option<Latencies>,
    /// From when it did start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raw: Option<Latencies>,
    /// Of a closed loop: `corrected` is `raw` and besides, for each longer wait, what a client that sent again every so
    /// many microseconds would have seen meanwhile. It is the mean time between two sends of the same place in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filled_every_us: Option<f64>,
}

impl Phase {
    /// Whether nothing is known of this phase.
    pub(crate) fn is_empty(&self) -> bool {
        self.corrected.is_none() && self.raw.is_none()
    }

    /// Whether the corrected latencies were measured from when each was meant to start, and not estimated.
    pub(crate) fn is_from_intended_start(&self) -> bool {
        self.corrected.is_some() && self.filled_every_us.is_none()
    }

    /// The latencies from the intended start if there was one, else the raw ones: what was measured, not estimated.
    pub(crate) fn best(&self) -> Option<&Latencies> {
        let corrected = self.corrected.as_ref().filter(|_| self.is_from_intended_start());
        corrected.or(self.raw.as_ref())
    }

    /// Fills in what a client that waited for its replies did not send every so many nanoseconds.
    pub(crate) fn fill_in(&mut self, every_ns: u64) {
        self.corrected = self.raw.as_ref().map(|raw| raw.corrected(every_ns));
        self.filled_every_us = self.raw.as_ref().map(|_| every_ns as f64 / 1e3);
    }
}

/// How many of everything there were in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) connections_asked: u64,
    pub(crate) connections_opened: u64,
    /// Ended before they should have.
    pub(crate) connections_lost: u64,
    /// Messages that were sent in the measured time; with a schedule, those of them that were due in it.
    pub(crate) sent: u64,
    /// Replies that came in the measured time: what the rate is made of.
    ///
    /// `sent + carried_in = received + outstanding + unanswered`.
    pub(crate) received: u64,
    /// Replies of `received` to messages of before, of the warm-up.
    #[serde(default)]
    pub(crate) carried_in: u64,
    /// Messages of `sent` without a reply when the measured time ended. It came afterwards. Some may have been sent
    /// afterwards too: those that were due before, and that no connection had room for.
    #[serde(default)]
    pub(crate) outstanding: u64,
    /// Messages of `sent` that were never answered: their connection was ended by the scenario, or the run was stopped.
    #[serde(default)]
    pub(crate) unanswered: u64,
    pub(crate) sent_bytes: u64,
    /// Of the whole run, its warm-up and the first message of each connection among it.
    pub(crate) received_bytes: u64,
    /// Received bytes that were compared with what they should be, of the whole run too.
    pub(crate) verified_bytes: u64,
    /// Sent later than they were due by more than the plan allows.
    pub(crate) late: u64,
    /// Due, but not sent at all: no connection had room for them in the measured time, nor in `--deadline` after it. The
    /// corrected latencies have them with the time that they waited, which theirs would have been longer than.
    pub(crate) never_sent: u64,
    /// By kind, as in `reset`, `timeout`, `wrong data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Counts {
    /// Errors of all kinds.
    pub(crate) fn errors_in_all(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Messages of the measured time that were answered within it.
    pub(crate) fn answered_in_time(&self) -> u64 {
        self.received.saturating_sub(self.carried_in)
    }

    /// Takes for unanswered what was sent and has no reply.
    pub(crate) fn settle(&mut self) {
        self.unanswered = self.sent.saturating_sub(self.answered_in_time() + self.outstanding);
    }

    /// Messages that were due: what the shares of late and never sent ones are of.
    pub(crate) fn due(&self) -> u64 {
        self.sent + self.never_sent
    }
}

/// What happened within one second of the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Which second, from 0.
    pub(crate) second: u32,
    /// Connections that stood at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<u64>,
    #[serde(default)]
    pub(crate) opened: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    #[serde(default)]
    pub(crate) late: u64,
    #[serde(default)]
    pub(crate) errors: u64,
    /// Of the replies, corrected where a start was intended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Latencies>,
}

/// The memory of the server over numbers of connections that are all in one state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemorySeries {
    /// The state, as in `idle` or `after a 1 KiB echo`.
    pub(crate) state: String,
    pub(crate) points: Vec<MemoryPoint>,
    /// The line through the points of user memory: slope in bytes a connection, intercept in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Line>,
    /// The same of the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<Line>,
}

impl MemorySeries {
    /// Fits the lines to the points; there is none through points at a single number of connections.
    pub(crate) fn fit(state: &str, points: Vec<MemoryPoint>) -> Self {
        let line = |bytes: fn(&MemoryPoint) -> Option<u64>| {
            let with_bytes = |point| Some((point, bytes(point)?));
            let places: Vec<(f64, f64)> = points
                .iter()
                .filter_map(with_bytes)
                .map(|(point, bytes)| (point.connections as f64, bytes as f64))
                .collect();
            Line::through(&places)
        };
        let (user, kernel) = (line(|point| Some(point.user_bytes)), line(|point| point.kernel_bytes));
        Self { state: state.to_owned(), points, user, kernel }
    }
}

/// The memory of the server at one number of connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemoryPoint {
    pub(crate) connections: u64,
    /// What all server processes hold themselves (PSS).
    pub(crate) user_bytes: u64,
    /// The same with what they share counted in full (RSS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resident_bytes: Option<u64>,
    /// What the kernel holds for sockets and the like (Slab).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_bytes: Option<u64>,
    /// What the kernel holds of data under way over TCP (sockstat).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) buffer_bytes: Option<u64>,
}

/// What one side took of the machine in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// User and system time of all its processes.
    pub(crate) cpu_s: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_message: Option<f64>,
    /// Share of the CPUs it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) utilisation: Option<f64>,
    /// It gave up the CPU because there was nothing to do. Of a server that `compare` measured in its warm-ups too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) voluntary_switches: Option<u64>,
    /// The kernel took the CPU away from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) involuntary_switches: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) switches_per_message: Option<f64>,
    /// By name, where they could be counted. As counting slows every call, `run` does it in the warm-up, if there is one,
    /// `compare` before the first round, and `c10k` in a talk of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) system_calls: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system_calls_per_message: Option<f64>,
}

/// How evenly the reactors of the server were used; in the order of the reactors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skew {
    pub(crate) connections: Vec<u64>,
    /// Since all connections stood, the warm-up included.
    #[serde(default)]
    pub(crate) messages: Vec<u64>,
}

impl Skew {
    /// The most by the mean: 1 is even. `None` without any.
    pub(crate) fn most_to_mean(values: &[u64]) -> Option<f64> {
        let (sum, most) = (values.iter().sum::<u64>(), values.iter().max()?);
        (sum > 0).then(|| *most as f64 * values.len() as f64 / sum as f64)
    }
}

/// A counter of the kernel, before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// As the kernel calls it, as in `TcpExt.ListenOverflows`.
    pub(crate) name: String,
    pub(crate) before: u64,
    pub(crate) after: u64,
}

impl Counter {
    pub(crate) fn has_changed(&self) -> bool {
        self.before != self.after
    }
}

/// What the generator knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// Share of the CPUs that it could use.
    pub(crate) utilisation: f64,
    /// Share of its CPUs that the server took, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_utilisation: Option<f64>,
    /// Share of the time in which its busiest reactor was at work, or waited for a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) busiest: Option<f64>,
    /// The same of the server's busiest thread: at 1 it has nothing to spare, however idle other threads are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_busiest: Option<f64>,
    /// Share of the CPUs of both that somebody else took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) foreign_utilisation: Option<f64>,
    /// The rate is the generator's, not the server's.
    pub(crate) generator_bound: bool,
    /// Whose the rate is, is not known: neither was the generator exhausted nor could the server be watched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) limit_unknown: bool,
    /// Why it is the one or the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Something that a scenario or a command asserts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// Short, as in `nothing lost`.
    pub(crate) name: String,
    /// In words and numbers, as in `200 of 200 connections answered`.
    pub(crate) asserted: String,
    pub(crate) held: bool,
    /// What was seen instead, or besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

impl Check {
    /// What the check of a schedule is called; results that were merged add where it comes from.
    pub(crate) const SCHEDULE: &str = "schedule kept";

    /// Whether it tells that the generator or the target did not keep the schedule.
    pub(crate) fn is_broken_schedule(&self) -> bool {
        !self.held && self.name.starts_with(Self::SCHEDULE)
    }
}

/// One turn of a server that was measured by turns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) round: usize,
    /// The place within the round.
    pub(crate) position: usize,
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) messages_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) max_us: f64,
    pub(crate) server_cpu_us_per_message: f64,
    /// CPU time of the server as a share of the CPUs it may use.
    pub(crate) server_utilisation: f64,
    /// CPU time of the client as a share of the CPUs it could use.
    pub(crate) client_utilisation: f64,
    pub(crate) late: u64,
    /// Carried by connections beside the measured ones.
    pub(crate) firehose_bytes_per_second: f64,
    /// The share of all the CPUs in use that something else took.
    pub(crate) foreign_utilisation: f64,
    /// CPUs that the servers which were not measured took meanwhile.
    pub(crate) idle_servers_cpus: f64,
}
