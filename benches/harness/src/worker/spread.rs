//! A plan for the engine, spread over worker processes: what [`engine::run`] does in one, done in several.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use corelane::Address;

use super::client::Input;
use super::crew::{Crew, Death, News};
use super::say;
use super::words::{Fault, Load, Loaded, Order, Word};
use crate::engine::{self, Hooks, Point, Progress, Share, Tally};
use crate::limits;
use crate::outcome::{self, Status};
use crate::plan::Plan;

/// How long the coordinator may look away from a request to stop.
const NAP: Duration = Duration::from_millis(50);

/// How often a worker tells how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// The first of the addresses that workers connect from.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// Runs a plan in so many processes, which come to each point together.
///
/// # Errors
///
/// As [`engine::run`]; and a process that ends before its time is named.
pub(crate) fn run(plan: &Plan, workers: usize, hooks: &dyn Hooks) -> Result<Tally> {
    let mut spread = Spread::start(plan, workers)?;
    spread.watch(hooks)?;
    let mut whole = Tally::default();
    for tally in spread.parts.into_iter().filter_map(|part| part.tally) {
        whole.merge(&tally)?;
    }
    Ok(whole)
}

/// The workers of a run, in the order of their shares.
struct Spread {
    crew: Crew,
    parts: Vec<Part>,
    is_stopped: bool,
}

#[derive(Default)]
struct Part {
    /// Where the worker waits for the others.
    at: Option<Point>,
    progress: Progress,
    tally: Option<Tally>,
    has_ended: bool,
}

impl Spread {
    fn start(plan: &Plan, workers: usize) -> Result<Self> {
        let mut crew = Crew::default();
        let mut parts = Vec::new();
        // All of them together dial no faster than one.
        let mut plan = plan.clone();
        plan.connect_window = (plan.connect_window / workers).max(1);
        for index in 0..workers {
            let who =
                crew.start(format!("worker {} of {workers}", index + 1), &["worker".to_owned()], None)?;
            let mut share = Share::of(&plan, index, workers, Vec::new());
            share.sources = sources(&plan, index, share.connections + share.crowd)?;
            crew.tell(who, &Order::Load(Box::new(Load { plan: plan.clone(), share })))?;
            parts.push(Part::default());
        }
        Ok(Self { crew, parts, is_stopped: false })
    }

    /// Until all have told what they counted, and ended.
    fn watch(&mut self, hooks: &dyn Hooks) -> Result<()> {
        while !self.parts.iter().all(|part| part.has_ended) {
            if let Some((who, news)) = self.crew.next(Instant::now() + NAP)? {
                self.take(who, news, hooks)?;
            }
            hooks.progress(&self.progress());
            if !self.is_stopped && hooks.should_stop() {
                self.is_stopped = true;
                self.tell_all(&Order::End)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, who: usize, news: News, hooks: &dyn Hooks) -> Result<()> {
        match news {
            News::Word(Word::Reached(point)) => {
                self.parts[who].at = Some(point);
                self.meet(point, hooks)?;
            }
            News::Word(Word::Loaded(progress)) => self.parts[who].progress = progress.into(),
            News::Word(Word::Finished(tally)) => self.parts[who].tally = Some(*tally),
            News::Word(Word::Failed(fault)) => {
                let why = format!("{}: {}", self.crew.name(who), fault.problem);
                return Err(outcome::ends(fault.status(), why));
            }
            News::Word(word) => bail!("{} says {word:?}", self.crew.name(who)),
            News::Ended(_) if self.parts[who].tally.is_some() => self.parts[who].has_ended = true,
            News::Ended(death) => return Err(self.died(who, &death)),
        }
        Ok(())
    }

    /// Lets all go on when the last has come to the point.
    fn meet(&mut self, point: Point, hooks: &dyn Hooks) -> Result<()> {
        if !self.is_stopped {
            if self.parts.iter().any(|part| part.at != Some(point)) {
                return Ok(());
            }
            hooks.reached(point)?;
        }
        for who in 0..self.parts.len() {
            if self.parts[who].at.take().is_some() {
                self.crew.tell(who, &Order::Go)?;
            }
        }
        Ok(())
    }

    fn tell_all(&mut self, order: &Order) -> Result<()> {
        (0..self.parts.len()).try_for_each(|who| self.crew.tell(who, order))
    }

    fn progress(&self) -> Progress {
        let parts = || self.parts.iter().map(|part| &part.progress);
        Progress {
            opened: parts().map(|part| part.opened).sum(),
            answered: parts().map(|part| part.answered).sum(),
            elapsed: parts().filter_map(|part| part.elapsed).max(),
        }
    }

    fn died(&self, who: usize, death: &Death) -> anyhow::Error {
        let held = self.parts[who].progress.opened;
        outcome::ends(Status::Failed, format!("{death}; it held {held} connections"))
    }
}

/// The addresses that a worker connects from: its own, so that no two try the same ports; none where the target is
/// not on loopback.
fn sources(plan: &Plan, index: usize, connections: usize) -> Result<Vec<Ipv4Addr>> {
    let is_loopback = matches!(plan.target.address(), Address::Tcp(address)
        if address.is_ipv4() && address.ip().is_loopback());
    if !is_loopback {
        return Ok(Vec::new());
    }
    let (first, last) = limits::ephemeral_ports()?;
    let half = (usize::from(last - first) + 1).div_ceil(2);
    let each = connections.div_ceil(half).max(1);
    let begin = FIRST_SOURCE.to_bits() + (index * each) as u32;
    Ok((begin..begin + each as u32).map(Ipv4Addr::from_bits).collect())
}

/// A worker's side: does its share, and meets the others at each point.
pub(super) fn work(load: Load, inputs: Receiver<Input>) {
    let hooks = Channel { inputs, is_stopped: Cell::new(false), told: Cell::new(Instant::now()) };
    match engine::run(&load.plan, load.share, &hooks) {
        Ok(tally) => say(&Word::Finished(Box::new(tally))),
        Err(error) => say(&Word::Failed(Fault::of(&error))),
    }
}

/// The coordinator, as a worker's engine sees it.
struct Channel {
    inputs: Receiver<Input>,
    is_stopped: Cell<bool>,
    told: Cell<Instant>,
}

impl Hooks for Channel {
    fn reached(&self, point: Point) -> Result<()> {
        if self.is_stopped.get() {
            return Ok(());
        }
        say(&Word::Reached(point));
        match self.inputs.recv() {
            Ok(Input::Order(Order::Go)) => Ok(()),
            Ok(Input::Order(Order::End)) => {
                self.is_stopped.set(true);
                Ok(())
            }
            _ => Err(anyhow!("the coordinator is gone")),
        }
    }

    fn progress(&self, progress: &Progress) {
        if self.told.get().elapsed() >= PROGRESS {
            self.told.set(Instant::now());
            say(&Word::Loaded(Loaded::from(progress)));
        }
    }

    fn should_stop(&self) -> bool {
        match self.inputs.try_recv() {
            Err(TryRecvError::Empty) => {}
            // To end, or the coordinator is gone: nothing else comes between two points.
            _ => self.is_stopped.set(true),
        }
        self.is_stopped.get()
    }
}
