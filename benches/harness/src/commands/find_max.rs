//! `find-max`: the highest rate at which a percentile stays under a limit.

use std::path::PathBuf;

use anyhow::Result;

use super::run::settings;
use super::session::{Measured, Session};
use crate::outcome::{self, Status, ends};
use crate::output;
use crate::plan::{Arrivals, Load, Plan, Profile, Settings, Span};
use crate::result::{Check, Kind, RunResult};

/// The most trials of one search.
const MOST_TRIALS: usize = 64;

/// Find the highest rate whose p99 (or another percentile) stays under a limit.
///
/// Rates are tried one after the other, each for --duration on new connections: from --rate on twice as much until
/// one fails, then the middle between the best and the worst until they are within --precision; then the best is
/// tried again for longer, and if that fails the next lower. A rate passes if the percentile, from the intended
/// start, is at most the limit, and the schedule was kept.
#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Scenario file, as of `run`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The latency that must not be exceeded.
    #[arg(long, default_value = "10ms", value_name = "TIME")]
    limit: Span,
    /// Which percentile of the latencies: 50, 99, 99.9 ..
    #[arg(long, default_value_t = 99.0, value_name = "PERCENT")]
    percentile: f64,
    /// How near the best and the worst rate are at the end, in percent.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    precision: f64,
    /// The highest rate to try, in messages per second.
    #[arg(long, default_value_t = 10_000_000.0, value_name = "N")]
    highest: f64,
    /// How much longer than --duration the best rate is tried again at the end.
    #[arg(long, default_value_t = 2, value_name = "TIMES")]
    confirm: u32,
    #[command(flatten)]
    output: output::Args,
}

impl Args {
    fn check(&self) -> Result<()> {
        let refuse = |text: &str| Err(ends(Status::Usage, text.to_owned()));
        if self.limit.0.is_zero() {
            return refuse("--limit: must be above 0");
        }
        if !(self.percentile > 0.0 && self.percentile <= 100.0) {
            return refuse("--percentile: must be above 0 and at most 100");
        }
        if !(0.1..=100.0).contains(&self.precision) {
            return refuse("--precision: must be 0.1 to 100 percent");
        }
        if !(self.highest > 0.0 && self.highest <= 1e8) {
            return refuse("--highest: must be above 0 and at most 100000000 messages per second");
        }
        if self.confirm == 0 {
            return refuse("--confirm: must be at least 1");
        }
        Ok(())
    }
}

/// Which rate to try next.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Search {
    /// The highest rate that passed.
    passed: Option<f64>,
    /// The lowest that failed.
    failed: Option<f64>,
    start: f64,
    highest: f64,
    precision: f64,
}

/// Below this many messages per second a search is given up.
const LOWEST: f64 = 1.0;

impl Search {
    /// The next rate; `None` when the answer is as near as it was asked for.
    fn next(&self) -> Option<f64> {
        match (self.passed, self.failed) {
            (None, None) => Some(self.start),
            (Some(passed), None) => (passed < self.highest).then(|| (passed * 2.0).min(self.highest)),
            (None, Some(failed)) => (failed / 2.0 >= LOWEST).then_some(failed / 2.0),
            (Some(passed), Some(failed)) => {
                let is_near = failed - passed <= passed * self.precision;
                (!is_near).then(|| f64::midpoint(passed, failed))
            }
        }
    }

    fn tried(&mut self, rate: f64, passed: bool) {
        if passed {
            self.passed = Some(self.passed.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |worst| worst.min(rate)));
            // What passed before at this rate or above did so by luck.
            self.passed = self.passed.filter(|best| *best < rate);
        }
    }
}

/// What came of one rate.
struct Trial {
    passed: bool,
    why: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.check()?;
    let mut settings = settings(&args.settings, args.file.as_ref())?;
    settings.load.get_or_insert_with(|| "rate".to_owned());
    settings.rate.get_or_insert(1_000.0);
    settings.duration.get_or_insert(Span(std::time::Duration::from_secs(3)));
    settings.warmup.get_or_insert(Span(std::time::Duration::from_millis(500)));
    let output = args.output.open()?;
    let session = Session::start(settings)?;
    let Load::Open { profile, arrivals, depth } = session.plan().load.clone() else {
        let text = "find-max needs a rate: --load rate or poisson, and a scenario that has one";
        return Err(ends(Status::Usage, text));
    };
    let start = (profile.count() / profile.seconds()).min(args.highest);
    let mut result = RunResult::begin(Kind::FindMax, "find-max", session.plan())?;
    result.title = format!(
        "the highest rate with a p{} of at most {}, {}, {} a trial",
        args.percentile,
        args.limit,
        session.plan().over(),
        Span(session.plan().duration)
    );
    let mut search = Search {
        passed: None,
        failed: None,
        start,
        highest: args.highest,
        precision: args.precision / 100.0,
    };
    let mut finder =
        Finder { args, session: &session, arrivals, depth, result: &mut result, trials: 0, has_erred: false };
    let outcome = finder.find(&mut search);
    drop(session);
    output.deliver(result, outcome)
}

struct Finder<'a> {
    args: &'a Args,
    session: &'a Session,
    arrivals: Arrivals,
    depth: usize,
    result: &'a mut RunResult,
    trials: usize,
    /// The last trial was given up: if the next is too, the target has ended.
    has_erred: bool,
}

impl Finder<'_> {
    fn find(&mut self, search: &mut Search) -> Result<()> {
        loop {
            while let Some(rate) = search.next() {
                let trial = self.try_rate(rate, 1)?;
                search.tried(rate, trial.passed);
            }
            let Some(best) = search.passed else { break };
            let trial = self.try_rate(best, self.args.confirm)?;
            if trial.passed {
                self.conclude(search);
                return Ok(());
            }
            search.tried(best, false);
        }
        self.conclude(search);
        Ok(())
    }

    fn try_rate(&mut self, rate: f64, times: u32) -> Result<Trial> {
        self.trials += 1;
        if self.trials > MOST_TRIALS {
            return Err(ends(
                Status::Failed,
                format!("no answer after {MOST_TRIALS} trials: the target is unsteady"),
            ));
        }
        let plan = self.plan(rate, times);
        let label = format!("{}{rate:.0}/s", if times > 1 { "confirm " } else { "" });
        let mut unique = label;
        while self.result.target(&unique).is_some() {
            unique.push('\'');
        }
        let measured = match self.session.measure(&plan, &unique) {
            Ok(measured) => measured,
            Err(error) if Status::of(&error) == Status::Unreachable && !self.has_erred => {
                self.has_erred = true;
                self.result.notes.push(format!("{unique} failed: {}", outcome::line(&error)));
                return Ok(Trial { passed: false, why: String::new() });
            }
            Err(error) => return Err(error),
        };
        self.has_erred = false;
        if measured.tally.partial {
            self.result.partial = true;
            self.result.targets.push(measured.target);
            return Err(ends(Status::Interrupted, "interrupted: the result is partial"));
        }
        let trial = self.judge(&measured);
        let mut target = measured.target;
        // What was verified is the same for all; the rest is of no account for a trial.
        target.notes.truncate(1);
        target.notes.insert(0, trial.why.clone());
        // That a rate was too high is an answer, not a failure.
        target.checks.clear();
        self.result.targets.push(target);
        Ok(trial)
    }

    fn plan(&self, rate: f64, times: u32) -> Plan {
        let mut plan = self.session.plan().clone();
        plan.duration *= times;
        let profile = Profile::constant(rate, plan.duration.as_secs_f64());
        plan.load = Load::Open { profile, arrivals: self.arrivals, depth: self.depth };
        plan
    }

    fn judge(&self, measured: &Measured) -> Trial {
        let name = format!("p{}", self.args.percentile);
        let reply = measured.tally.phases.reply.corrected.as_ref();
        let limit = self.args.limit.0.as_secs_f64() * 1e3;
        let Some(us) = reply.and_then(|reply| reply.quantile_us(self.args.percentile / 100.0)) else {
            return Trial { passed: false, why: "failed: no message was measured".to_owned() };
        };
        let ms = us / 1e3;
        match &measured.broken_schedule {
            Some(why) => Trial { passed: false, why: format!("failed: {why}") },
            None if ms > limit => {
                Trial { passed: false, why: format!("failed: {name} {ms:.3} ms is above {limit:.3} ms") }
            }
            None => Trial { passed: true, why: format!("passed: {name} {ms:.3} ms") },
        }
    }

    fn conclude(&mut self, search: &Search) {
        let limit = self.args.limit;
        let name = format!("p{} of at most {limit}", self.args.percentile);
        let trials = self.trials;
        self.result.notes.push(format!(
            "search: from {:.0}/s twice as much until a rate failed, then halving what lay between to within {}%; \
             the best again for {} times as long; {trials} trials in all",
            search.start, self.args.precision, self.args.confirm
        ));
        let found = match (search.passed, search.failed) {
            (Some(best), Some(worst)) => format!("{best:.0}/s passed, {worst:.0}/s did not"),
            (Some(best), None) => format!("{best:.0}/s, the highest that was to be tried, passed"),
            (None, _) => "no rate passed".to_owned(),
        };
        self.result.checks.push(Check {
            name: "highest rate".to_owned(),
            asserted: format!("there is a rate with a {name}"),
            held: search.passed.is_some(),
            detail: Some(found),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches for a target that passes up to `capacity`; the answer and the number of trials.
    fn search(start: f64, capacity: f64, highest: f64) -> (Search, usize) {
        let mut search = Search { passed: None, failed: None, start, highest, precision: 0.05 };
        let mut trials = 0;
        while let Some(rate) = search.next() {
            search.tried(rate, rate <= capacity);
            trials += 1;
            assert!(trials < 100);
        }
        (search, trials)
    }

    #[test]
    fn the_answer_is_between_what_passed_and_what_failed() {
        for capacity in [3.0, 999.0, 1_000.0, 77_777.0, 1e6] {
            let (search, trials) = search(1_000.0, capacity, 1e7);
            let (passed, failed) = (search.passed.unwrap(), search.failed.unwrap());
            assert!(passed <= capacity && capacity < failed, "{search:?}");
            assert!(failed - passed <= passed * 0.05 && trials < 30, "{search:?} {trials}");
        }
    }

    #[test]
    fn the_ends_are_answers_too() {
        let (all, _) = search(1_000.0, f64::MAX, 5_000.0);
        assert_eq!((all.passed, all.failed), (Some(5_000.0), None));
        let (none, trials) = search(1_000.0, 0.0, 5_000.0);
        assert!(none.passed.is_none() && trials == 10, "{none:?} {trials}");
    }

    #[test]
    fn a_rate_that_fails_later_takes_its_pass_back() {
        let mut search =
            Search { passed: Some(100.0), failed: Some(104.0), start: 1.0, highest: 1e3, precision: 0.05 };
        assert_eq!(search.next(), None);
        search.tried(100.0, false);
        assert_eq!((search.passed, search.failed, search.next()), (None, Some(100.0), Some(50.0)));
    }
}
