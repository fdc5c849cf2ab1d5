//! The phases of a run in their order. What has been measured stands in the result at once: a run that fails later,
//! or is interrupted, keeps it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;

use super::args::Args;
use super::fill;
use super::plan::Plan;
use super::run::Run;
use crate::measure::kernel::Drops;
use crate::measure::memory;
use crate::result::{MemoryPoint, MemorySeries, RunResult};

/// Bytes of the one message that connections echo where memory alone is measured.
const SLOPE_SIZE: usize = 1_024;

/// How long the memory may take to settle at a step on the way up.
const SETTLE: Duration = Duration::from_secs(1);

/// Opens the connections, holds them, uses them, wakes all at once, and ends in good order.
pub(super) fn all(args: &Args, plan: &Plan, stop: &AtomicBool, result: &mut RunResult) -> Result<()> {
    let mut drops = Drops::begin();
    let caches = memory::caches();
    let mut run = Run::start(args, plan, stop, args.size)?;
    let total = plan.layout.connections;
    let before = run.memory(0)?;
    result.targets.push(fill::idle(&run));
    let (points, opening) = climb(&mut run, result)?;
    drops.end("opening");
    // What the server still does about the opening (pools that it trims) is not of the idle connections.
    run.hold(args.hold)?;
    let held = run.hold(args.hold)?;
    drops.end("holding");
    fill::opened(&mut result.targets[0], &run, &before, &points, opening, held);
    fill::kernel_caches(&mut result.targets[0], caches.as_deref(), total);
    let counted = run.talk_counted()?;
    fill::connect(&mut result.targets[0], &counted.talked);
    let talked = run.talk(args.size, args.active, args.rounds, args.duration)?;
    let mut talk = fill::talk(&run, fill::TALK, args.active, &talked);
    fill::system_calls(&mut talk, &counted);
    result.targets.push(talk);
    drops.end("talking");
    let storm = run.talk(args.size, 100.0, 1, Duration::ZERO)?;
    result.targets.push(fill::talk(&run, fill::STORM, 100.0, &storm));
    result.checks.push(fill::storm_answered(&storm, total));
    drops.end("wake storm");
    run.hold(args.hold)?;
    let after = run.memory(total)?;
    fill::after_traffic(&mut result.targets[0], &points, after);
    drops.end("holding again");
    let drained = run.end()?;
    drops.end(fill::DRAIN);
    fill::drained(result, &drained, total);
    fill::kernel(result, args, &drops);
    fill::memory_limit(result, args);
    Ok(())
}

/// Opens the connections in steps and measures the memory at each.
fn climb(run: &mut Run<'_>, result: &mut RunResult) -> Result<(Vec<MemoryPoint>, Duration)> {
    let mut points = Vec::new();
    let mut opening = Duration::ZERO;
    for connections in steps(run.plan.layout.connections, run.args.steps) {
        opening += run.open_to(connections)?;
        result.targets[0].counts.connections_opened = connections;
        run.settle(run.args.hold.min(SETTLE))?;
        points.push(run.memory(connections)?);
        result.targets[0].memory = vec![MemorySeries::fit(fill::IDLE, points.clone())];
    }
    Ok((points, opening))
}

/// Measures the memory alone, of both kinds of connections, each on servers of its own.
pub(super) fn slopes(args: &Args, plan: &Plan, stop: &AtomicBool, result: &mut RunResult) -> Result<()> {
    for (state, echo) in [(fill::IDLE, false), (fill::AFTER_ECHO, true)] {
        let mut run = Run::start(args, plan, stop, SLOPE_SIZE)?;
        if result.targets.is_empty() {
            result.targets.push(fill::idle(&run));
        }
        let mut points = Vec::new();
        for connections in steps(plan.layout.connections, args.steps) {
            run.open_to(connections)?;
            if echo {
                run.talk(SLOPE_SIZE, 100.0, 1, Duration::ZERO)?;
            }
            run.hold(args.hold)?;
            points.push(run.memory(connections)?);
            result.targets[0].counts.connections_opened = connections;
        }
        result.targets[0].memory.push(MemorySeries::fit(state, points));
        run.end()?;
    }
    fill::memory_limit(result, args);
    Ok(())
}

/// Evenly spaced numbers of connections up to the `most`.
fn steps(most: u64, count: usize) -> Vec<u64> {
    let count = count as u64;
    let mut steps: Vec<_> = (1..=count).map(|step| (most * step / count).max(1)).collect();
    steps.dedup();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_even_and_end_with_the_most() {
        assert_eq!(steps(10_000, 5), [2_000, 4_000, 6_000, 8_000, 10_000]);
        assert_eq!(steps(7, 5), [1, 2, 4, 5, 7]);
        assert_eq!(steps(1, 5), [1]);
    }
}
