//! A look at each server before the rounds: what cannot be counted while it is measured, as counting slows it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use super::args::Plan;
use super::contender::Contender;
use crate::commands::probe::{self, Probe};
use crate::engine::{Hooks, Point, Progress, Tally};
use crate::load::Loader;
use crate::plan;
use crate::result::{Cost, MemorySeries, Skew};
use crate::servers;

/// What was seen in a load like that of every slice, but beside them.
#[derive(Debug)]
pub(super) struct Look {
    plan: plan::Plan,
    tally: Tally,
    probe: Probe,
    /// What the server calls itself, if it is one of others that does.
    pub(super) version: Option<String>,
}

/// Watches that load as `run` does.
struct Watch<'a> {
    stop: &'a AtomicBool,
    plan: &'a plan::Plan,
    probe: RefCell<Probe>,
}

impl Look {
    /// Loads a server for it; the `loader` is one that counts its own system calls.
    pub(super) fn take(plan: &Plan, loader: &Loader, server: &Contender, stop: &AtomicBool) -> Result<Self> {
        // Where connections come and go, none stands before the load.
        let stays = !matches!(plan.load.mode, crate::load::Mode::Churn { .. });
        let plan = plan::Plan { prove: plan.judged.prove && stays, ..plan.judged.clone() };
        let pids = server.pids();
        let version = pids.first().and_then(|&pid| servers::version(pid));
        let probe = RefCell::new(Probe::new(&pids, Some(server.address.port())));
        let watch = Watch { stop, plan: &plan, probe };
        let slice = loader.run(server.target(), &watch)?;
        if slice.tally.partial {
            bail!("interrupted");
        }
        let probe = watch.probe.into_inner();
        Ok(Self { plan, tally: slice.tally, probe, version })
    }

    /// Puts down what the server and the client asked of the kernel.
    pub(super) fn tell_calls(&self, server: &mut Cost, client: &mut Cost) {
        probe::tell_calls(server, self.probe.system_calls(), &self.tally);
        let toll = self.tally.toll.as_ref().filter(|toll| toll.uncounted.is_none());
        probe::tell_calls(client, toll.map(|toll| toll.system_calls), &self.tally);
    }

    pub(super) fn memory(&self) -> Vec<MemorySeries> {
        self.probe.memory_series()
    }

    /// How evenly the event loops were used; not of connections that have ended since.
    pub(super) fn skew(&self) -> Option<Skew> {
        self.plan.prove.then(|| self.probe.skew(&self.plan, &self.tally)).flatten()
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let uncounted = self.tally.toll.as_ref().and_then(|toll| toll.uncounted.as_ref());
        let of_client = uncounted.map(|why| format!("of the client {why}"));
        let mut notes = self.probe.notes(&self.plan, &self.tally);
        notes.extend(of_client);
        if self.tally.counted == 0 && !self.plan.warmup.is_zero() {
            notes.push(
                "system calls are not told: no reply came in the warm-up, in which they are counted"
                    .to_owned(),
            );
        }
        notes
    }
}

impl Hooks for Watch<'_> {
    fn reached(&self, point: Point) -> Result<()> {
        let mut probe = self.probe.borrow_mut();
        match point {
            Point::Opened => probe.opened(self.plan),
            Point::Begun => probe.begun(self.plan),
            Point::Ended => probe.ended(self.plan),
            Point::Done => {}
        }
        Ok(())
    }

    fn progress(&self, _: &Progress) {}

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
