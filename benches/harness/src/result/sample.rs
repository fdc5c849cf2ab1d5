//! A result in which everything is filled in, for tests.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    Check, Cost, Counter, Counts, Environment, Generator, Kind, MemoryPoint, MemorySeries, Phase, RunResult,
    Second, ServerInfo, Skew, Slice, Target, against,
};
use crate::latency::Latencies;

/// When the measured time of the samples begins, in milliseconds since the epoch.
pub(crate) const BEGAN: u64 = 1_795_275_334_198;

/// Latencies of 1 to `count` times `step_us` microseconds.
pub(crate) fn latencies(count: u64, step_us: u64) -> Latencies {
    let mut latencies = Latencies::new();
    (1..=count).for_each(|n| latencies.record(n * step_us * 1_000));
    latencies
}

/// One target, measured for three seconds.
pub(crate) fn target(label: &str) -> Target {
    let point = |n: u64| MemoryPoint {
        connections: n,
        user_bytes: 3_000_000 + 112 * n,
        resident_bytes: Some(5_000_000 + 112 * n),
        kernel_bytes: Some(9_000_000 + 4_800 * n),
        buffer_bytes: Some(8_192),
    };
    let cost = |cpu_s: f64| Cost {
        cpu_s,
        cpu_us_per_message: Some(cpu_s * 1e6 / 3_000.0),
        utilisation: Some(cpu_s / 3.0),
        voluntary_switches: Some(600),
        involuntary_switches: Some(30),
        switches_per_message: Some(0.21),
        system_calls: BTreeMap::from([("recvfrom".to_owned(), 3_010), ("sendto".to_owned(), 3_000)]),
        system_calls_per_message: Some(2.003),
    };
    let second = |second: u32| Second {
        second,
        connections: Some(64),
        opened: if second == 0 { 64 } else { 0 },
        sent: 1_000,
        received: 1_000,
        late: u64::from(second),
        errors: 0,
        latency: Some(latencies(1_000, 1)),
    };
    let mut reply = latencies(1_000, 1);
    (0..2).for_each(|_| reply.merge(&latencies(1_000, 1)).unwrap());
    let mut target = Target {
        label: label.to_owned(),
        server: ServerInfo {
            address: Some("tcp://127.0.0.1:7000".to_owned()),
            command: Some("echo --listen \"127.0.0.1:0\" <&>".to_owned()),
            version: Some("0.1.0".to_owned()),
            processes: Some(1),
            reactors: Some(2),
            cpus: Some(vec![0, 1]),
        },
        settings: json!({"connections": 64, "rate": 1_000}).as_object().unwrap().clone(),
        started_unix_ms: BEGAN,
        seconds: 3.0,
        messages_per_second: 1_000.0,
        counts: Counts {
            connections_asked: 64,
            connections_opened: 64,
            connections_lost: 1,
            sent: 3_000,
            received: 3_000,
            carried_in: 5,
            outstanding: 4,
            unanswered: 1,
            sent_bytes: 192_000,
            received_bytes: 192_000,
            verified_bytes: 192_000,
            late: 3,
            never_sent: 2,
            errors: BTreeMap::from([("reset".to_owned(), 1)]),
        },
        series: (0..3).map(second).collect(),
        memory: vec![MemorySeries::fit("idle", [2_000, 4_000, 6_000].map(point).to_vec())],
        server_cost: Some(cost(0.03)),
        client_cost: Some(cost(0.06)),
        skew: Some(Skew { connections: vec![30, 34], messages: vec![1_400, 1_600] }),
        kernel: vec![Counter { name: "TcpExt.ListenOverflows".to_owned(), before: 10, after: 12 }],
        generator: Some(Generator {
            utilisation: 0.02,
            server_utilisation: Some(0.01),
            busiest: Some(0.03),
            server_busiest: Some(0.02),
            foreign_utilisation: Some(0.5),
            generator_bound: false,
            limit_unknown: false,
            reason: None,
        }),
        checks: vec![Check {
            name: "nothing lost".to_owned(),
            asserted: "64 of 64 connections stood to the end".to_owned(),
            held: true,
            detail: Some("one was opened anew".to_owned()),
        }],
        notes: vec!["a note of the target".to_owned()],
        ..Target::default()
    };
    target.phases.connect = Phase { corrected: None, raw: Some(latencies(64, 10)), ..Phase::default() };
    target.phases.first_byte = Phase { corrected: None, raw: Some(latencies(3_000, 1)), ..Phase::default() };
    target.phases.reply =
        Phase { corrected: Some(reply), raw: Some(latencies(2_000, 1)), ..Phase::default() };
    target
}

/// A run with one target.
pub(crate) fn run() -> RunResult {
    let mut result =
        RunResult::begin(Kind::Run, "run", &json!({"load": {"rate": 1_000}, "seed": 7})).unwrap();
    result.title = "1,000/s over 64 connections, 64 B".to_owned();
    result.began(std::time::UNIX_EPOCH + std::time::Duration::from_millis(BEGAN - 1_000));
    result.duration_s = 4.5;
    result.targets = vec![target("corelane")];
    result.notes = vec!["a note of the whole".to_owned()];
    result.limits = vec!["RLIMIT_NOFILE is 20000: one server process".to_owned()];
    // Samples are to be the same everywhere.
    let environment = Environment {
        host: "sample".to_owned(),
        kernel: "Linux 6.1.0 #1 SMP".to_owned(),
        cpu_model: Some("A CPU".to_owned()),
        cpus: Some(2),
        cpus_allowed: Some(2),
        cpu_governor: Some("performance".to_owned()),
        memory_bytes: Some(24 << 30),
        load_average: Some(0.25),
        sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "4096".to_owned())]),
        limits: BTreeMap::from([("open files".to_owned(), ["20000", "20000"].map(str::to_owned))]),
        versions: BTreeMap::from([("corelane-bench".to_owned(), "0.1.0".to_owned())]),
        commit: Some("0123456789abcdef-dirty".to_owned()),
        build_profile: Some("release".to_owned()),
        command_line: ["corelane-bench", "run", "tcp://127.0.0.1:7000"].map(str::to_owned).to_vec(),
    };
    result.environments = vec![environment];
    result
}

/// A comparison of three targets over eight rounds.
pub(crate) fn compare() -> RunResult {
    let mut result = run();
    (result.kind, result.command) = (Kind::Compare, "compare".to_owned());
    result.targets = [("A", 1.1), ("B", 1.0), ("B'", 1.0)]
        .map(|(label, factor)| {
            let slice = |round: usize| Slice {
                round,
                seconds: 1.0,
                messages: (1_000.0 * factor) as u64 + round as u64,
                messages_per_second: 1_000.0 * factor + round as f64,
                p50_us: 50.0,
                p99_us: 99.0 + round as f64,
                p99_9_us: 200.0,
                max_us: 400.0,
                server_cpu_us_per_message: 6.0 / factor,
                server_utilisation: 0.9,
                client_utilisation: 0.5,
                ..Slice::default()
            };
            Target { slices: (0..8).map(slice).collect(), series: Vec::new(), ..target(label) }
        })
        .to_vec();
    let [a, b, control] = &result.targets[..] else { unreachable!("three were made") };
    result.comparisons = against(std::iter::once(a), b, Some(control));
    result
}
