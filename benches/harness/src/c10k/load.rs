//! Connections held idle, then used.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use serde::Serialize;

use super::args::Args;
use super::run::{Run, Talked};
use crate::latency::{Buckets, Percentiles, format_ns};
use crate::output::format::{bytes, count};

/// The server's memory in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    before: u64,
    idle: u64,
    after_traffic: u64,
    idle_per_connection: f64,
    after_traffic_per_connection: f64,
}

impl Memory {
    fn new(before: u64, idle: u64, after_traffic: u64, connections: usize) -> Self {
        let each = |now: u64| (now as f64 - before as f64) / connections as f64;
        Self {
            before,
            idle,
            after_traffic,
            idle_per_connection: each(idle),
            after_traffic_per_connection: each(after_traffic),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    connections: usize,
    /// Why there were fewer connections than were asked for.
    pub(super) limited: Option<String>,
    server_reactors: usize,
    client_reactors: usize,
    opened_in_seconds: f64,
    message_bytes: usize,
    messages: u64,
    fewest_on_a_connection: u32,
    most_on_a_connection: u32,
    seconds: f64,
    messages_per_second: f64,
    latency_ns: Buckets,
    #[serde(skip)]
    percentiles: Percentiles,
    server_memory: Memory,
    /// Of the server, over the time in which all connections were idle.
    idle_cpu_ns: u64,
    idle_seconds: f64,
    server_cpu_ns_per_message: f64,
    client_cpu_ns_per_message: f64,
    server_report: String,
}

/// Opens the connections, holds them, uses them, and ends in good order.
pub(super) fn measure(args: &Args, stop: &AtomicBool) -> Result<Outcome> {
    let mut run = Run::start(args, stop, args.size)?;
    let (connections, limited) = run.room()?;
    let before = run.resident()?;
    let opening = run.open(connections)?;
    // What the server still does about the opening (pools that it trims) is not of the idle connections.
    run.hold(args.hold)?;
    let idle_cpu = run.hold(args.hold)?;
    let idle = run.resident()?;
    let talked = run.talk(args.size, args.rounds, args.duration)?;
    run.hold(args.hold)?;
    let memory = Memory::new(before, idle, run.resident()?, connections);
    let (server_reactors, client_reactors) = (run.server_reactors, run.client_reactors());
    let Talked { tally, elapsed, server_cpu, client_cpu } = talked;
    let (messages, seconds) = (tally.messages, elapsed.as_secs_f64());
    Ok(Outcome {
        connections,
        limited,
        server_reactors,
        client_reactors,
        opened_in_seconds: opening.as_secs_f64(),
        message_bytes: args.size,
        messages,
        fewest_on_a_connection: tally.fewest,
        most_on_a_connection: tally.most,
        seconds,
        messages_per_second: messages as f64 / seconds,
        latency_ns: (&tally.latencies).into(),
        percentiles: (&tally.latencies).into(),
        server_memory: memory,
        idle_cpu_ns: idle_cpu.as_nanos() as u64,
        idle_seconds: args.hold.as_secs_f64(),
        server_cpu_ns_per_message: server_cpu.as_nanos() as f64 / messages as f64,
        client_cpu_ns_per_message: client_cpu.as_nanos() as f64 / messages as f64,
        server_report: run.end()?,
    })
}

impl Outcome {
    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (name, values) in [
            ("connections", self.connections()),
            ("messages", self.messages()),
            ("latency", self.latency()),
            ("server memory", self.memory()),
            ("CPU time", self.cpu()),
            ("the server's end", self.server_report.clone()),
        ] {
            let mut name = name;
            for line in values.lines() {
                let _ = writeln!(text, "{name:<17} {line}");
                name = "";
            }
        }
        text
    }

    fn connections(&self) -> String {
        let rate = self.connections as f64 / self.opened_in_seconds;
        format!(
            "{} held, none lost; opened in {:.2} s ({}/s)\n{} reactors in the server, {} in the client",
            count(self.connections as u64),
            self.opened_in_seconds,
            count(rate as u64),
            self.server_reactors,
            self.client_reactors
        )
    }

    fn messages(&self) -> String {
        format!(
            "{}/s of {} B: {} in {:.1} s, every byte verified\n{} to {} on each connection, one in flight",
            count(self.messages_per_second as u64),
            self.message_bytes,
            count(self.messages),
            self.seconds,
            count(self.fewest_on_a_connection.into()),
            count(self.most_on_a_connection.into()),
        )
    }

    fn latency(&self) -> String {
        let time = |ns: u64| format_ns(ns as f64);
        let Percentiles { p50, p99, p99_9, max } = self.percentiles;
        let all = self.connections as f64;
        format!(
            "p50 {}, p99 {}, p99.9 {}, max {}\n{} messages are under way at any time: the mean is {} / {}/s = {}",
            time(p50),
            time(p99),
            time(p99_9),
            time(max),
            count(self.connections as u64),
            count(self.connections as u64),
            count(self.messages_per_second as u64),
            format_ns(all / self.messages_per_second * 1e9),
        )
    }

    fn memory(&self) -> String {
        let Memory { before, idle, after_traffic, .. } = self.server_memory;
        format!(
            "{:.0} B per connection idle, {:.0} B after traffic (without the kernel's)\n\
             PSS {} before, {} with all idle, {} after traffic",
            self.server_memory.idle_per_connection,
            self.server_memory.after_traffic_per_connection,
            bytes(before),
            bytes(idle),
            bytes(after_traffic)
        )
    }

    fn cpu(&self) -> String {
        format!(
            "{} per message in the server, {} in the client\n{} in the server over {:.1} s of all connections idle",
            format_ns(self.server_cpu_ns_per_message),
            format_ns(self.client_cpu_ns_per_message),
            format_ns(self.idle_cpu_ns as f64),
            self.idle_seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out() {
        let memory = Memory::new(1_000_000, 3_500_000, 3_000_000, 10_000);
        assert_eq!((memory.idle_per_connection, memory.after_traffic_per_connection), (250.0, 200.0));
        // Less than before is possible: pages that were touched at the start alone may go.
        assert!(Memory::new(1_000, 900, 900, 1).idle_per_connection < 0.0);
    }
}
