//! Puts what a run has measured into its result.

use std::time::{Duration, SystemTime};

use serde_json::{Map, json};

use super::args::Args;
use super::run::{Drained, Run};
use super::talk::{Counted, Held, Talked};
use crate::latency::{Latencies, format_ns};
use crate::measure::kernel::Drops;
use crate::measure::memory;
use crate::output::format::{bytes, count};
use crate::result::{
    Check, Counts, Generator, MemoryPoint, MemorySeries, Phase, Phases, RunResult, Second, ServerInfo, Skew,
    Target, unix_ms,
};

/// The states in which memory is measured.
pub(super) const IDLE: &str = "idle";
pub(super) const AFTER_ECHO: &str = "after a 1 KiB echo";
const AFTER_TRAFFIC: &str = "after traffic";

/// The labels of the targets.
const HELD: &str = "corelane, idle";
pub(super) const TALK: &str = "corelane, talking";
pub(super) const STORM: &str = "corelane, wake storm";

/// The phase in which the servers end.
pub(super) const DRAIN: &str = "drain";

/// A server that uses less than this share of its CPUs could have done more.
const SATURATED: f64 = 0.9;

/// Caches of the kernel that are named, at most.
const NAMED_CACHES: usize = 8;

fn target(run: &Run<'_>, label: &str) -> Target {
    let layout = &run.plan.layout;
    let mut settings = Map::new();
    settings.insert("connections".to_owned(), json!(layout.connections));
    Target {
        label: label.to_owned(),
        server: ServerInfo {
            address: Some(format!("tcp://{}", run.listening.address)),
            command: Some("corelane-bench echo-server".to_owned()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            processes: Some(layout.server_processes as u32),
            reactors: Some((layout.server_processes * run.plan.server_reactors as u64) as u32),
            cpus: Some(run.plan.server_cpus.iter().collect()),
        },
        settings,
        started_unix_ms: unix_ms(SystemTime::now()),
        counts: Counts { connections_asked: run.args.connections as u64, ..Counts::default() },
        ..Target::default()
    }
}

/// The connections themselves, before any is open.
pub(super) fn idle(run: &Run<'_>) -> Target {
    target(run, HELD)
}

/// All are open and have been held.
pub(super) fn opened(
    target: &mut Target,
    run: &Run<'_>,
    before: &MemoryPoint,
    points: &[MemoryPoint],
    opening: Duration,
    held: Held,
) {
    let cpus = run.plan.server_cpus.len();
    target.seconds = held.time.as_secs_f64();
    target.server_cost = Some(held.server.cost(0, held.time, cpus));
    target.skew = Some(Skew { connections: run.connections_by_reactor(), messages: Vec::new() });
    let (opened, seconds) = (target.counts.connections_opened, opening.as_secs_f64());
    target.settings.insert("opened_in_s".to_owned(), json!(seconds));
    target.notes.push(format!("opened in {seconds:.2} s ({}/s)", count((opened as f64 / seconds) as u64)));
    target.notes.push(format!(
        "in {:.1?} of all connections idle the server used {} of CPU and was switched to or from {} times",
        held.time,
        format_ns(held.server.cpu.as_nanos() as f64),
        count(held.server.voluntary + held.server.involuntary)
    ));
    target.settings.insert("memory_before_bytes".to_owned(), json!(before.user_bytes));
    if let Some(line) = MemorySeries::fit(IDLE, points.to_vec()).user {
        let processes = run.servers.len() as f64;
        target.notes.push(format!(
            "each of {} server processes takes {} before its first connection, and {} by the line's intercept",
            count(run.servers.len() as u64),
            bytes((before.user_bytes as f64 / processes) as u64),
            bytes((line.intercept / processes).max(0.0) as u64)
        ));
    }
    target.notes.push(
        "kernel memory is that of all caches of objects (Slab), for both ends of every connection; TCP buffers \
         (sockstat) are of both ends too, and apart: the user memory (PSS, resident) is the servers' alone"
            .to_owned(),
    );
}

/// Which of the kernel's caches the connections are in.
pub(super) fn kernel_caches(target: &mut Target, before: Option<&[memory::Cache]>, connections: u64) {
    let Some((before, after)) = before.zip(memory::caches()) else {
        target
            .notes
            .push("the kernel's caches are not told apart: only root reads /proc/slabinfo".to_owned());
        return;
    };
    let each = |cache: &memory::Cache| {
        format!("{} {:.0}", cache.name, cache.bytes as f64 / connections.max(1) as f64)
    };
    let grown: Vec<_> = memory::grown(before, &after, NAMED_CACHES).iter().map(each).collect();
    target
        .notes
        .push(format!("bytes a connection, both ends, in the caches that grew most: {}", grown.join(", ")));
}

/// How long the dials took, which the clients tell with their first tally.
pub(super) fn connect(target: &mut Target, talked: &Talked) {
    target.phases.connect =
        Phase { corrected: None, raw: Some(talked.tally.connect.clone()), ..Phase::default() };
}

/// A talk or a storm.
pub(super) fn talk(run: &Run<'_>, label: &str, active: f64, talked: &Talked) -> Target {
    let Talked { tally, elapsed, server, client, by_reactor } = talked;
    let messages = tally.messages;
    let seconds = elapsed.as_secs_f64();
    let mut target = target(run, label);
    target.settings.insert("size".to_owned(), json!(run.args.size));
    target.settings.insert("active_percent".to_owned(), json!(active));
    target.settings.insert("active_connections".to_owned(), json!(tally.active));
    target.settings.insert("in_flight_at_most".to_owned(), json!(run.plan.in_flight.unwrap_or(tally.active)));
    target.settings.insert("most_in_flight".to_owned(), json!(tally.in_flight));
    target.settings.insert("fewest_on_a_connection".to_owned(), json!(tally.fewest));
    target.settings.insert("most_on_a_connection".to_owned(), json!(tally.most));
    target.notes.push(format!(
        "{} connections active, {} to {} messages of {} B on each, at most {} in flight at a time",
        count(tally.active),
        count(tally.fewest.into()),
        count(tally.most.into()),
        run.args.size,
        count(tally.in_flight)
    ));
    target.started_unix_ms -= elapsed.as_millis() as u64;
    target.seconds = seconds;
    target.messages_per_second = messages as f64 / seconds;
    target.phases = Phases {
        first_byte: Phase {
            corrected: Some(tally.first_corrected.clone()),
            raw: Some(tally.first_raw.clone()),
            ..Phase::default()
        },
        reply: Phase {
            corrected: Some(tally.corrected.clone()),
            raw: Some(tally.raw.clone()),
            ..Phase::default()
        },
        ..Phases::default()
    };
    let bytes = messages * run.args.size as u64;
    target.counts = Counts {
        connections_opened: run.open(),
        sent: messages,
        received: messages,
        sent_bytes: bytes,
        received_bytes: tally.verified,
        verified_bytes: tally.verified,
        ..target.counts
    };
    target.series = tally.seconds.iter().enumerate().map(second).collect();
    let (server_cpus, client_cpus) = (run.plan.server_cpus.len(), run.plan.client_cpus.len());
    let server_cost = server.cost(messages, *elapsed, server_cpus);
    let client_cost = client.cost(messages, *elapsed, client_cpus);
    target.generator = Some(generator(server_cost.utilisation, client_cost.utilisation));
    (target.server_cost, target.client_cost) = (Some(server_cost), Some(client_cost));
    target.skew = Some(Skew { connections: run.connections_by_reactor(), messages: by_reactor.clone() });
    target
}

/// What was counted in a talk before.
pub(super) fn system_calls(target: &mut Target, counted: &Counted) {
    let Counted { talked: Talked { tally, elapsed, server, client, .. }, refused } = counted;
    for (cost, used) in [(&mut target.server_cost, server), (&mut target.client_cost, client)] {
        let Some(cost) = cost else { continue };
        let counted = used.cost(tally.messages, *elapsed, 1);
        cost.system_calls = counted.system_calls;
        cost.system_calls_per_message = counted.system_calls_per_message;
    }
    target.notes.push(refused.clone().unwrap_or_else(|| {
        format!(
            "system calls were counted in a talk before, over {} replies: counting slows every call",
            count(tally.messages)
        )
    }));
}

fn second((index, (messages, latency)): (usize, &(u64, Latencies))) -> Second {
    Second {
        second: index as u32,
        sent: *messages,
        received: *messages,
        latency: Some(latency.clone()),
        ..Second::default()
    }
}

fn generator(server: Option<f64>, client: Option<f64>) -> Generator {
    let generator_bound = server.is_some_and(|share| share < SATURATED);
    Generator {
        utilisation: client.unwrap_or(0.0),
        server_utilisation: server,
        generator_bound,
        limit_unknown: server.is_none(),
        reason: generator_bound.then(|| "the server's CPUs were not all in use".to_owned()),
        ..Generator::default()
    }
}

/// Whether every connection answered, and how many of them were woken before the first had its reply.
pub(super) fn storm_answered(storm: &Talked, connections: u64) -> Check {
    let Talked { tally, elapsed, .. } = storm;
    let how = if tally.in_flight >= connections {
        "all at once".to_owned()
    } else {
        format!(
            "one after the other, at most {} in flight (--in-flight all: all at once)",
            count(tally.in_flight)
        )
    };
    let is_whole = tally.fewest == 1 && tally.most == 1 || connections == 0;
    Check {
        name: "wake storm".to_owned(),
        asserted: format!("all {} connections answer a message, every byte right", count(connections)),
        held: tally.messages == connections && is_whole,
        detail: Some(format!("sent {how}; {} answered in {elapsed:.2?}", count(tally.messages))),
    }
}

/// The memory when all have been used.
pub(super) fn after_traffic(target: &mut Target, idle: &[MemoryPoint], after: MemoryPoint) {
    let intercept = MemorySeries::fit(IDLE, idle.to_vec()).user.map(|line| line.intercept);
    if let Some(intercept) = intercept {
        let each = (after.user_bytes as f64 - intercept) / after.connections as f64;
        target.settings.insert("after_traffic_bytes_per_connection".to_owned(), json!(each));
        target
            .notes
            .push(format!("{each:.1} B of the server for each connection after traffic, over the same base"));
    }
    target.memory.push(MemorySeries {
        state: AFTER_TRAFFIC.to_owned(),
        points: vec![after],
        user: None,
        kernel: None,
    });
}

/// The servers have ended.
pub(super) fn drained(result: &mut RunResult, drained: &Drained, connections: u64) {
    let ended = &drained.ended;
    let all_there = ended.open == connections && ended.drained == connections && ended.cut_off == 0;
    result.checks.push(Check {
        name: "nothing lost".to_owned(),
        asserted: format!("all {} connections stand until the servers get SIGTERM", count(connections)),
        held: ended.open == connections,
        detail: Some(format!("{} stood", count(ended.open))),
    });
    result.checks.push(Check {
        name: "drain".to_owned(),
        asserted: "SIGTERM ends every connection in good order, and every process with status 0".to_owned(),
        held: all_there,
        detail: Some(format!(
            "served {} connections; shutdown{}: {} open, {} drained, {} cut off, in {:.2?}",
            connections,
            if drained.in_turn { " of one server after the other" } else { "" },
            ended.open,
            ended.drained,
            ended.cut_off,
            drained.took
        )),
    });
}

/// What the kernel has dropped, and in which phases.
///
/// In the drain a server ends all its connections in one moment, and the kernel's own late acknowledgements of that may
/// not fit its queue. They are told and do not count: they hold no message, and that every connection ends in good order
/// is another check.
pub(super) fn kernel(result: &mut RunResult, args: &Args, drops: &Drops) {
    if let Some(target) = result.targets.first_mut() {
        target.kernel = drops.counters();
    }
    let told = drops.by_phase();
    let detail = if told.is_empty() { "none moved".to_owned() } else { told.join(", ") };
    if args.allow_drops {
        result.notes.push(format!("the kernel's counters of drops and overflows, not asserted: {detail}"));
    } else {
        result.checks.push(Check {
            name: "nothing dropped".to_owned(),
            asserted:
                "the kernel's counters of drops and overflows stay as they are until the servers get SIGTERM"
                    .to_owned(),
            held: !drops.dropped_before(DRAIN),
            detail: Some(detail),
        });
    }
}

/// Whether an idle connection takes no more than is allowed.
pub(super) fn memory_limit(result: &mut RunResult, args: &Args) {
    let line = result.targets.first().and_then(|target| target.memory.first()).and_then(|series| series.user);
    let Some(line) = line.filter(|_| args.memory_limit > 0) else { return };
    result.checks.push(Check {
        name: "user memory".to_owned(),
        asserted: format!("an idle connection takes at most {} bytes of the server", args.memory_limit),
        held: line.slope <= f64::from(args.memory_limit),
        detail: Some(format!("{:.1} bytes, R² {:.5}", line.slope, line.r_squared)),
    });
}
