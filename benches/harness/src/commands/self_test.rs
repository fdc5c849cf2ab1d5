//! `self-test`: the generator against a server whose pauses are known.
//!
//! The server echoes at once, except in pauses: what comes in one is answered at its end. How long a message that was
//! due in a pause had to wait is then arithmetic: from when it was due until the pause ended. The server notes when
//! each pause did end, so what is compared is the generator alone.

mod server;

use std::time::Duration;

use anyhow::{Context, Result};

use super::session::Session;
use crate::engine::Tally;
use crate::latency::Latencies;
use crate::outcome::{Status, ends};
use crate::output;
use crate::plan::{Arrivals, Engine, Profile, Settings, Span, Times};
use crate::result::{Check, Kind, RunResult};
use server::PausingServer;

/// Percentiles that are compared. The median falls between the pauses, where nothing waits.
const QUANTILES: [f64; 6] = [0.75, 0.9, 0.95, 0.99, 0.999, 1.0];

/// Compare the generator with arithmetic: a server with known pauses, and the latencies they must cause.
///
/// Fails (status 1) if a percentile is further from the arithmetic one than the histogram's precision. What the machine
/// takes to wake a thread is less than that, unless others are at work on it: `--allow` is for those.
#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    /// Messages per second.
    #[arg(long, default_value_t = 250.0, value_name = "N")]
    rate: f64,
    /// How long is measured.
    #[arg(long, default_value = "6s", value_name = "TIME")]
    duration: Span,
    /// How long the server pauses at a time.
    #[arg(long, default_value = "1s", value_name = "TIME")]
    pause: Span,
    /// From the beginning of one pause to that of the next.
    #[arg(long, default_value = "2s", value_name = "TIME")]
    every: Span,
    /// How often to try, as others at work on the machine disturb both sides.
    #[arg(long, default_value_t = 3, value_name = "N")]
    attempts: usize,
    /// How much more than the histogram's precision a percentile may be late, on a machine with other work.
    #[arg(long, default_value = "0s", value_name = "TIME")]
    allow: Span,
    /// Which client is tested [default: corelane].
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Option<Engine>,
    #[command(flatten)]
    output: output::Args,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (pause, every) = (args.pause.0, args.every.0);
    if pause.is_zero() || pause >= every || args.duration.0 < every || args.attempts == 0 {
        let text =
            "--pause must be above 0 and below --every, --duration at least --every, --attempts at least 1";
        return Err(ends(Status::Usage, text));
    }
    let output = args.output.open()?;
    let mut result = None;
    let mut outcome = Ok(());
    for attempt in 1..=args.attempts {
        let (mut tried, came) = try_once(args)?;
        let is_good = came.is_ok() && tried.all_checks().all(|(_, check)| check.held);
        tried.notes.push(format!("attempt {attempt} of {}", args.attempts));
        let interrupted = tried.partial;
        result = Some(tried);
        outcome = came;
        if is_good || interrupted {
            break;
        }
    }
    output.deliver(result.context("nothing was tried")?, outcome)
}

fn try_once(args: &Args) -> Result<(RunResult, Result<()>)> {
    let server = PausingServer::start(args.pause.0, args.every.0)?;
    let settings = Settings {
        target: Some(format!("tcp://{}", server.address())),
        rate: Some(args.rate),
        duration: Some(args.duration),
        warmup: Some(Span(Duration::ZERO)),
        // All on one: what waits for the end of a pause is then answered in one piece.
        engine: args.engine,
        connections: Some(1),
        depth: Some(65_536),
        reactors: Some(1),
        deadline: Some(Span(args.pause.0 + Duration::from_secs(10))),
        ..Settings::default()
    };
    let session = Session::start(settings)?;
    let mut result = RunResult::begin(Kind::SelfTest, "self-test", session.plan())?;
    result.title =
        format!("a server that pauses for {} every {}, {}", args.pause, args.every, session.plan().title());
    server.begin();
    let begun = session.measure(session.plan(), "pausing echo");
    let pauses = server.end();
    let outcome = begun.and_then(|measured| {
        let mut target = measured.target;
        if measured.tally.partial {
            result.partial = true;
            result.targets.push(target);
            return Err(ends(Status::Interrupted, "interrupted: the result is partial"));
        }
        let start = measured.tally.begun.context("the load did not begin")?;
        let expected = arithmetic(args, start, &pauses);
        target.checks.extend(compare(&measured.tally, &expected, args.allow.0));
        result.targets.push(target);
        Ok(())
    });
    Ok((result, outcome))
}

/// The latencies that the pauses cause, each from when a message was due until its pause ended; what was due outside
/// of pauses counts as nothing.
fn arithmetic(args: &Args, start: std::time::Instant, pauses: &[server::Pause]) -> Latencies {
    let mut latencies = Latencies::new();
    let profile = Profile::constant(args.rate, args.duration.0.as_secs_f64());
    for seconds in Times::new(profile, Arrivals::Even, 1.0, 0.0, 0) {
        let due = start + Duration::from_secs_f64(seconds);
        let pause = pauses.iter().find(|pause| (pause.begin..pause.end).contains(&due));
        let latency = pause.map_or(Duration::ZERO, |pause| pause.end - due);
        latencies.record(latency.as_nanos() as u64);
    }
    latencies
}

fn compare(tally: &Tally, expected: &Latencies, allowed: Duration) -> Vec<Check> {
    let Some(measured) = &tally.phases.reply.corrected else { return Vec::new() };
    let same = expected.count() == measured.count();
    let mut checks = vec![Check {
        name: "every message".to_owned(),
        asserted: format!("{} messages were due, and as many were measured", expected.count()),
        held: same,
        detail: Some(format!("{} measured", measured.count())),
    }];
    for quantile in QUANTILES {
        let (Some(expected_ns), Some(measured_ns)) =
            (expected.quantile_ns(quantile), measured.quantile_ns(quantile))
        else {
            continue;
        };
        let precision = precision(measured, expected_ns.max(measured_ns));
        checks.push(Check {
            name: format!("p{}", quantile * 100.0),
            asserted: format!(
                "{:.3} ms by arithmetic, within the histogram's {:.3} ms{}",
                expected_ns as f64 / 1e6,
                precision as f64 / 1e6,
                if allowed.is_zero() { String::new() } else { format!(", and {} more", Span(allowed)) }
            ),
            // No message can have been answered before its pause was over.
            held: measured_ns + precision >= expected_ns
                && measured_ns <= expected_ns + precision + allowed.as_nanos() as u64,
            detail: Some(format!(
                "measured {:.3} ms, {:+.3} ms",
                measured_ns as f64 / 1e6,
                (measured_ns as f64 - expected_ns as f64) / 1e6
            )),
        });
    }
    checks
}

/// How far apart two values may be that the histogram does not tell from each other.
fn precision(latencies: &Latencies, ns: u64) -> u64 {
    let histogram = latencies.histogram();
    histogram.highest_equivalent(ns) - histogram.lowest_equivalent(ns) + 1
}
