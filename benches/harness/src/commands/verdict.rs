//! What a run says of the generator: whether it kept its schedule, and whether it was the limit itself.

use crate::engine::{Tally, Usage};
use crate::plan::Plan;
use crate::result::Generator;

/// A thread that is at work for this share of the time, or would be if it had a CPU, has nothing to spare.
const SATURATED: f64 = 0.9;

/// Above this a reactor of the client cannot answer for the times it tells.
const EXHAUSTED: f64 = 0.97;

/// What the threads of the server were doing in the measured time: for each, the share of the time in which it had
/// a CPU, and in which it wanted one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServerUse {
    threads: Vec<(f64, f64)>,
    /// CPU time of all of them, in seconds.
    pub(super) cpu_s: f64,
}

impl ServerUse {
    /// Between two looks at its threads that are so many seconds apart.
    pub(super) fn between(before: &[(u32, Usage)], after: &[(u32, Usage)], seconds: f64) -> Self {
        let used = after.iter().map(|(thread, usage)| {
            let earlier = before.iter().find(|(other, _)| other == thread);
            usage.since(earlier.map_or(Usage::default(), |(_, earlier)| *earlier))
        });
        let threads: Vec<_> = used
            .map(|Usage { cpu, wait }| (cpu.as_secs_f64() / seconds, (cpu + wait).as_secs_f64() / seconds))
            .collect();
        let cpu_s = threads.iter().map(|(cpu, _)| cpu).sum::<f64>() * seconds;
        Self { threads, cpu_s }
    }

    /// The busiest thread's share of the time.
    pub(super) fn demand(&self) -> f64 {
        self.threads.iter().map(|(_, demand)| *demand).fold(0.0, f64::max)
    }

    /// CPUs that it took on average.
    pub(super) fn cpus(&self) -> f64 {
        self.threads.iter().map(|(cpu, _)| cpu).sum()
    }
}

/// What the generator knows of itself after a run.
pub(super) fn generator(plan: &Plan, tally: &Tally, server: Option<&ServerUse>) -> Generator {
    let cpu: f64 = tally.reactors.iter().map(|reactor| reactor.cpu_s).sum();
    let time: f64 = tally.reactors.iter().map(|reactor| reactor.seconds).sum();
    let demand = tally.demand();
    let saturated = server.map(|server| server.demand() >= SATURATED);
    // Only a load without a rate of its own goes as fast as the slower side.
    let is_bound = !plan.load.is_open() && demand >= SATURATED && saturated != Some(true);
    let reason = is_bound.then(|| {
        let busiest = format!("the client's busiest reactor wanted {:.0}% of a CPU", demand * 100.0);
        match server {
            Some(server) => format!("{busiest}, the server's busiest thread {:.0}%", server.demand() * 100.0),
            None => format!("{busiest}; what the server had to spare is not known"),
        }
    });
    Generator {
        utilisation: if time > 0.0 { cpu / time } else { 0.0 },
        server_utilisation: server.map(ServerUse::demand),
        foreign_utilisation: None,
        generator_bound: is_bound,
        reason,
    }
}

/// Why the schedule of a run was not kept, if it was not.
pub(super) fn broken_schedule(plan: &Plan, tally: &Tally) -> Option<String> {
    if !plan.load.is_open() || tally.partial {
        return None;
    }
    let due = tally.counts.due().max(1);
    let percent = |count: u64| count as f64 * 100.0 / due as f64;
    let own_late = tally.own_late();
    let demand = tally.demand() * 100.0;
    if percent(own_late) > plan.tolerance {
        return Some(format!(
            "the generator was late with {own_late} of {due} sends ({:.2}%, more than --tolerance {}%): its \
             busiest reactor wanted {demand:.0}% of a CPU, {:.0}% of which it had to wait for",
            percent(own_late),
            plan.tolerance,
            waited(tally) * 100.0
        ));
    }
    if tally.counts.never_sent > 0 && percent(tally.counts.never_sent) > plan.tolerance {
        return Some(format!(
            "{} of {due} messages were never sent ({:.2}%, more than --tolerance {}%): no connection had room for \
             them, so the target does not keep up with this rate",
            tally.counts.never_sent,
            percent(tally.counts.never_sent),
            plan.tolerance
        ));
    }
    if plan.tolerance < 100.0 && plan.spin.is_zero() && tally.demand() >= EXHAUSTED {
        return Some(format!(
            "the generator was short of CPU: its busiest reactor wanted {demand:.0}% of one, so its latencies \
             are its own as much as the target's"
        ));
    }
    None
}

/// The largest share of its demand that a reactor had to wait for.
fn waited(tally: &Tally) -> f64 {
    let of = |cpu: f64, wait: f64| if cpu + wait > 0.0 { wait / (cpu + wait) } else { 0.0 };
    tally.reactors.iter().map(|reactor| of(reactor.cpu_s, reactor.wait_s)).fold(0.0, f64::max)
}
