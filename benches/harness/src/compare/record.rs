//! What is kept of each slice.

use serde::Serialize;

use super::args::Plan;
use crate::latency::Percentiles;
use crate::load::Slice;

/// A server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Contestant {
    A,
    B,
    /// The second instance of B.
    Control,
}

impl Contestant {
    pub(super) const ALL: [Self; 3] = [Self::A, Self::B, Self::Control];

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// A number of a slice in which servers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    Rate,
    CpuPerMessage,
    P50,
    P99,
    P999,
}

impl Metric {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::CpuPerMessage => "CPU/message",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
        }
    }

    pub(super) fn of(self, slice: &SliceRecord) -> f64 {
        match self {
            Self::Rate => slice.messages_per_second,
            Self::CpuPerMessage => slice.server_cpu_ns_per_message,
            Self::P50 => slice.latency_ns.p50 as f64,
            Self::P99 => slice.latency_ns.p99 as f64,
            Self::P999 => slice.latency_ns.p99_9 as f64,
        }
    }
}

/// One slice, as it is written to a file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SliceRecord {
    pub(super) server: Contestant,
    pub(super) round: usize,
    /// The place within the round.
    position: usize,
    seconds: f64,
    messages: u64,
    pub(super) messages_per_second: f64,
    pub(super) latency_ns: Percentiles,
    pub(super) server_cpu_ns_per_message: f64,
    /// CPU time of the server as a share of the CPUs it may use.
    pub(super) server_cpu: f64,
    /// CPU time of the client as a share of the CPUs it could use.
    pub(super) client_cpu: f64,
    pub(super) late_sends: u64,
    pub(super) firehose_bytes_per_second: f64,
    /// The share of all the CPUs in use that something else took.
    pub(super) foreign_cpu: f64,
    /// CPUs that the servers which were not measured took meanwhile.
    pub(super) idle_servers_cpu: f64,
}

impl SliceRecord {
    pub(super) fn new(
        server: Contestant,
        round: usize,
        position: usize,
        slice: &Slice,
        idle_servers_cpu: f64,
        plan: &Plan,
    ) -> Self {
        let seconds = slice.elapsed.as_secs_f64();
        let server_cpus = slice.server_cpu.as_secs_f64() / seconds;
        let client_cpus = slice.client_cpu.as_secs_f64() / seconds;
        let client_limit = plan.load.threads.min(plan.load.cpus.len());
        Self {
            server,
            round,
            position,
            seconds,
            messages: slice.messages,
            messages_per_second: slice.per_second,
            latency_ns: (&slice.latencies).into(),
            server_cpu_ns_per_message: server_cpus / slice.per_second * 1e9,
            server_cpu: server_cpus / plan.server_cpus.len() as f64,
            client_cpu: client_cpus / client_limit as f64,
            late_sends: slice.late,
            firehose_bytes_per_second: slice.firehose_bytes_per_second,
            foreign_cpu: slice.foreign_cpu,
            idle_servers_cpu,
        }
    }
}
