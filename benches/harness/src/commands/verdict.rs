//! What a run says of the generator: whether it kept its schedule, and whether it was the limit itself.

use crate::engine::{Tally, Usage};
use crate::plan::{Load, Plan, Span};
use crate::result::{Check, Counts, Generator};

/// A thread that is at work for this share of the time, or would be if it had a CPU, has nothing to spare.
const SATURATED: f64 = 0.9;

/// Above this a reactor of the client cannot answer for the times it tells.
const EXHAUSTED: f64 = 0.97;

/// What the threads of the server were doing in the measured time: for each, the share of the time in which it had
/// a CPU, and in which it wanted one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServerUse {
    threads: Vec<(f64, f64)>,
    /// CPU time of all of them, in seconds.
    pub(super) cpu_s: f64,
}

/// What each thread of a server used, by its number.
pub(crate) type Threads = Vec<(u32, Usage)>;

/// What the threads of these processes used so far. One that is gone is left out.
pub(crate) fn threads_of(processes: &[u32]) -> Threads {
    processes.iter().filter_map(|pid| Usage::of_process(*pid).ok()).flatten().collect()
}

impl ServerUse {
    /// Between two looks at its threads that are so many seconds apart.
    pub(crate) fn between(before: &[(u32, Usage)], after: &[(u32, Usage)], seconds: f64) -> Self {
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
    pub(crate) fn demand(&self) -> f64 {
        self.threads.iter().map(|(_, demand)| *demand).fold(0.0, f64::max)
    }
}

/// What the generator knows of itself after a run.
///
/// Of the server it is known what its busiest thread wanted, and which share of its CPUs it took.
pub(crate) fn generator(
    plan: &Plan,
    tally: &Tally,
    server_busiest: Option<f64>,
    server_utilisation: Option<f64>,
) -> Generator {
    let cpu: f64 = tally.reactors.iter().map(|reactor| reactor.cpu_s).sum();
    let time: f64 = tally.reactors.iter().map(|reactor| reactor.seconds).sum();
    // Many threads may fill the CPUs together, and none of them one.
    let busiest = server_busiest.map(|busiest| busiest.max(server_utilisation.unwrap_or(0.0)));
    let limit = limit(plan, tally, busiest);
    Generator {
        utilisation: if time > 0.0 { cpu / time } else { 0.0 },
        server_utilisation,
        busiest: (!tally.reactors.is_empty()).then(|| tally.demand()),
        server_busiest,
        foreign_utilisation: None,
        generator_bound: matches!(limit, Limit::Client(_)),
        limit_unknown: matches!(limit, Limit::Unknown(_)),
        reason: match limit {
            Limit::Server => None,
            Limit::Client(why) | Limit::Unknown(why) => Some(why),
        },
    }
}

/// Whose the rate is, and why it is not the server's.
#[derive(Debug, PartialEq)]
enum Limit {
    /// The server's, or that of the load itself.
    Server,
    /// The client's, or that of the way between the two.
    Client(String),
    /// The client was not exhausted, and of the server nothing is known.
    Unknown(String),
}

/// Only a load without a pace of its own goes as fast as the slower side.
fn limit(plan: &Plan, tally: &Tally, server: Option<f64>) -> Limit {
    let demand = tally.demand();
    let is_exhausted = demand >= SATURATED;
    let client = format!("the client's busiest reactor wanted {:.0}% of a CPU", demand * 100.0);
    match server {
        _ if plan.load.is_open() => Limit::Server,
        Some(server) if server >= SATURATED => Limit::Server,
        Some(server) if is_exhausted => {
            Limit::Client(format!("{client}, the server's busiest thread {:.0}%", server * 100.0))
        }
        None if is_exhausted => Limit::Client(format!("{client}; what the server had to spare is not known")),
        _ if !goes_on(&plan.load) || tally.counts.received == 0 => Limit::Server,
        Some(server) => Limit::Client(format!(
            "{client}, the server's busiest thread {:.0}%: so few messages in flight fill neither, and the rate is \
             that of the way between them (more --connections or --depth show what the server can do)",
            server * 100.0
        )),
        None => Limit::Unknown(format!(
            "{client}, and the server could not be watched: the rate may be the server's or that of the way \
             between them (--server-pid names a server on this machine)"
        )),
    }
}

/// Whether each reply is followed at once by the next request.
fn goes_on(load: &Load) -> bool {
    matches!(load, Load::Closed { think: None, .. } | Load::Churn { .. })
}

/// Whether a schedule was kept, for the result.
pub(crate) fn schedule(plan: &Plan, tally: &Tally, broken: Option<&String>) -> Option<Check> {
    (plan.load.is_open() && !tally.partial).then(|| Check {
        name: Check::SCHEDULE.to_owned(),
        asserted: format!(
            "at most {}% of the messages were sent more than {} late or not at all, and the client was not short of CPU",
            plan.tolerance,
            Span(plan.late_after)
        ),
        held: broken.is_none(),
        detail: Some(broken.cloned().unwrap_or_else(|| {
            let Counts { late, never_sent, .. } = tally.counts;
            let due = tally.counts.due();
            format!("of {due} {late} late, {never_sent} never sent")
        })),
    })
}

/// Why the schedule of a run was not kept, if it was not.
pub(crate) fn broken_schedule(plan: &Plan, tally: &Tally) -> Option<String> {
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
    let behind = tally.not_sent_in_time();
    if behind > 0 && percent(behind) > plan.tolerance {
        return Some(format!(
            "{behind} of {due} messages were not sent in the measured time ({:.2}%, more than --tolerance {}%), {} of \
             them never: no connection had room for them, so the target does not keep up with this rate",
            percent(behind),
            plan.tolerance,
            tally.counts.never_sent
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::engine::ReactorUse;
    use crate::plan::Settings;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    fn plan(flags: &str) -> Plan {
        let words = ["run", "tcp://127.0.0.1:7"].into_iter().chain(flags.split_whitespace());
        let settings = Cli::try_parse_from(words).unwrap().settings;
        settings.plan(settings.target(None).unwrap()).unwrap()
    }

    /// A run of a second whose busiest reactor wanted this share of a CPU.
    fn tally(demand: f64) -> Tally {
        let reactor = |demand: f64| ReactorUse { seconds: 1.0, cpu_s: demand, ..ReactorUse::default() };
        let mut tally = Tally { seconds: 1.0, ..Tally::default() };
        tally.reactors = vec![reactor(demand / 2.0), reactor(demand)];
        (tally.counts.sent, tally.counts.received) = (1_000, 1_000);
        tally
    }

    /// A server of two threads, of which the busier was at work for one share of the second and wanted another.
    fn server(cpu: f64, demand: f64) -> ServerUse {
        let usage = |cpu: f64, wait: f64| Usage {
            cpu: Duration::from_secs_f64(cpu),
            wait: Duration::from_secs_f64(wait),
        };
        let before = [(1, usage(5.0, 1.0)), (2, Usage::default())];
        let after = [(1, usage(5.0 + cpu, 1.0 + demand - cpu)), (2, usage(0.1, 0.0))];
        ServerUse::between(&before, &after, 1.0)
    }

    #[test]
    fn both_sides_tell_how_busy_they_were() {
        let generator = generator(&plan(""), &tally(0.6), Some(server(0.3, 0.5).demand()), Some(0.15));
        let all = [Some(generator.utilisation), generator.busiest, generator.server_busiest];
        for (share, expected) in all.into_iter().zip([0.45, 0.6, 0.5]) {
            assert!((share.unwrap() - expected).abs() < 1e-9, "{generator:?}");
        }
        assert_eq!(generator.server_utilisation, Some(0.15));
    }

    #[test]
    fn a_closed_loop_is_the_generators_unless_the_server_is_saturated() {
        let is_bound = |flags: &str, client: f64, of_server: Option<ServerUse>| {
            let server = of_server.map(|server| server.demand());
            let generator = generator(&plan(flags), &tally(client), server, None);
            assert_eq!(generator.generator_bound || generator.limit_unknown, generator.reason.is_some());
            generator.reason.filter(|_| generator.generator_bound)
        };
        // A thread that waits for a CPU half of its time is saturated too.
        assert_eq!(is_bound("", 1.0, Some(server(0.5, 1.0))), None);
        assert_eq!(is_bound("", 0.4, Some(server(0.95, 0.95))), None);
        let exhausted = is_bound("", 0.95, Some(server(0.5, 0.5))).unwrap();
        assert!(exhausted.contains("wanted 95% of a CPU, the server's busiest thread 50%"), "{exhausted}");
        let neither = is_bound("-c 1", 0.3, Some(server(0.3, 0.4))).unwrap();
        assert!(neither.contains("30%") && neither.contains("fill neither"), "{neither}");
        let many = generator(&plan(""), &tally(0.95), Some(server(0.1, 0.1).demand()), Some(0.97));
        assert!(!many.generator_bound, "its threads fill the CPUs together: {many:?}");
        let unknown = is_bound("", 0.95, None).unwrap();
        assert!(unknown.contains("is not known"), "{unknown}");
    }

    #[test]
    fn of_a_server_that_cannot_be_watched_the_limit_is_not_known() {
        let of = |flags: &str, client: f64| generator(&plan(flags), &tally(client), None, None);
        let unknown = of("-c 1", 0.3);
        assert!(unknown.limit_unknown && !unknown.generator_bound, "{unknown:?}");
        assert!(unknown.reason.unwrap().contains("could not be watched"));
        assert!(!of("", 0.95).limit_unknown, "the client was exhausted");
        for flags in ["--rate 500", "--think 5ms", "--scenario idle-hold"] {
            let paced = of(flags, 0.3);
            assert!(!paced.limit_unknown && !paced.generator_bound, "{flags}: {paced:?}");
        }
    }

    #[test]
    fn a_load_with_a_pace_of_its_own_is_not_bound() {
        for flags in ["--rate 500", "--think 5ms", "--scenario idle-hold", "--scenario reset-storm"] {
            assert!(
                !generator(&plan(flags), &tally(0.3), Some(server(0.1, 0.1).demand()), None).generator_bound,
                "{flags}"
            );
        }
        assert!(
            generator(&plan("--think 5ms"), &tally(0.95), Some(server(0.1, 0.1).demand()), None)
                .generator_bound
        );
    }

    #[test]
    fn a_schedule_is_checked() {
        let (plan, mut tally) = (plan("--rate 500 --tolerance 1"), tally(0.1));
        let check = |tally: &Tally| {
            let broken = broken_schedule(&plan, tally);
            let check = schedule(&plan, tally, broken.as_ref()).unwrap();
            assert_eq!(check.held, broken.is_none());
            check.detail.unwrap()
        };
        (tally.counts.late, tally.counts.never_sent) = (10, 0);
        assert_eq!(check(&tally), "of 1000 10 late, 0 never sent");
        tally.counts.late = 11;
        assert!(check(&tally).starts_with("the generator was late with 11 of 1000"));
        // That the target had no room for them is not the generator's fault.
        tally.held_back = 5;
        assert_eq!(check(&tally), "of 1000 11 late, 0 never sent");
        tally.counts.never_sent = 20;
        assert!(check(&tally).contains("does not keep up"));
        // Those that were sent when the time was over do not show that it keeps up either.
        (tally.counts.never_sent, tally.sent_behind) = (5, 15);
        assert!(check(&tally).starts_with("20 of 1005 messages were not sent in the measured time (1.99%"));
        (tally.counts.never_sent, tally.sent_behind, tally.reactors[0].wait_s) = (0, 0, 0.99);
        assert!(check(&tally).starts_with("the generator was short of CPU"));
        tally.partial = true;
        assert_eq!(schedule(&plan, &tally, None), None);
        assert_eq!(schedule(&super::tests::plan(""), &super::tests::tally(0.1), None), None);
    }
}
