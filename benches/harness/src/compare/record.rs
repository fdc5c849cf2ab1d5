//! What is kept of each slice.

use super::args::Plan;
use crate::load;
use crate::result::Slice;

/// A slice as results keep it.
pub(super) fn record(
    round: usize,
    position: usize,
    slice: &load::Slice,
    idle_servers_cpus: f64,
    plan: &Plan,
) -> Slice {
    let seconds = slice.elapsed.as_secs_f64();
    let server_cpus = slice.server_cpu.as_secs_f64() / seconds;
    let client_cpus = slice.client_cpu.as_secs_f64() / seconds;
    let client_limit = plan.load.threads.min(plan.load.cpus.len());
    let per_second = slice.tally.per_second();
    let latencies = slice.tally.phases.reply.best();
    let us = |quantile| latencies.and_then(|latencies| latencies.quantile_us(quantile)).unwrap_or_default();
    Slice {
        round,
        position,
        seconds,
        messages: slice.tally.counts.received,
        messages_per_second: per_second,
        p50_us: us(0.5),
        p99_us: us(0.99),
        p99_9_us: us(0.999),
        max_us: us(1.0),
        server_cpu_us_per_message: server_cpus / per_second * 1e6,
        server_utilisation: server_cpus / plan.server_cpus.len() as f64,
        client_utilisation: client_cpus / client_limit as f64,
        late: slice.tally.counts.late,
        firehose_bytes_per_second: slice.firehose_bytes_per_second,
        foreign_utilisation: slice.foreign_cpu,
        idle_servers_cpus,
    }
}
