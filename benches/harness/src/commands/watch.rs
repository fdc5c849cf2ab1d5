//! Who watches a run from this process: looks at the server and the kernel at each point, and shows how far it is.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use corelane::Address;

use super::probe::Probe;
use crate::engine::{Hooks, Point, Progress};
use crate::measure::kernel::Counters;
use crate::output::live;
use crate::plan::Plan;
use crate::result::{Counter, Second, unix_ms};
use crate::scenario::Scenario;
use crate::scenario::half_open::{self, Vanished};

/// The eyes and ears of a run.
pub(super) struct Watch<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    live: RefCell<live::Progress>,
    last: Cell<(Instant, u64)>,
    latest: RefCell<Option<Second>>,
    pub(super) begun_unix_ms: Cell<u64>,
    pub(super) probe: RefCell<Probe>,
    counters: Counters,
    /// The kernel's counters of before, and those while all connections still stood.
    kernel: RefCell<Option<Vec<Counter>>>,
    pub(super) vanished: RefCell<Option<Vanished>>,
}

impl<'a> Watch<'a> {
    /// Before anything is connected. The `server` is its processes, as far as they are known.
    pub(super) fn new(plan: &'a Plan, server: &[u32], stop: &'a AtomicBool) -> Self {
        Self {
            plan,
            stop,
            live: RefCell::new(live::Progress::new()),
            last: Cell::new((Instant::now(), 0)),
            latest: RefCell::new(None),
            begun_unix_ms: Cell::new(0),
            probe: RefCell::new(Probe::new(server, tcp(plan).map(|target| target.port()))),
            counters: Counters::read(),
            kernel: RefCell::new(None),
            vanished: RefCell::new(None),
        }
    }

    /// The kernel's counters, before and after; after the end of its connections if the run was stopped.
    pub(super) fn kernel(&self) -> Vec<Counter> {
        self.kernel.take().unwrap_or_else(|| Counters::read().since(&self.counters))
    }

    fn moment(&self, progress: &Progress, elapsed: Duration, rate: f64) -> live::Moment {
        let latest = self.latest.borrow();
        let latest = latest.as_ref();
        let latency = latest.and_then(|second| second.latency.as_ref());
        let quantile = |quantile| latency.and_then(|latency| latency.quantile_ns(quantile));
        live::Moment {
            elapsed,
            planned: self.plan.warmup + self.plan.duration,
            connections: latest.and_then(|second| second.connections).unwrap_or(progress.opened),
            rate,
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            late: latest.map_or(0, |second| second.late),
            errors: latest.map_or(0, |second| second.errors),
        }
    }

    fn vanish(&self) {
        if self.plan.scenario == Scenario::HalfOpen {
            let vanished = half_open::vanish(&self.plan.target.address(), self.plan.crowd.count);
            *self.vanished.borrow_mut() = Some(vanished);
        }
    }
}

fn tcp(plan: &Plan) -> Option<std::net::SocketAddr> {
    match plan.target.address() {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) | Address::Abstract(_) => None,
    }
}

impl Hooks for Watch<'_> {
    fn reached(&self, point: Point) -> Result<()> {
        match point {
            Point::Opened => {
                self.vanish();
                self.probe.borrow_mut().opened(self.plan);
            }
            Point::Begun => {
                self.begun_unix_ms.set(unix_ms(SystemTime::now()));
                self.probe.borrow_mut().begun(self.plan);
            }
            Point::Ended => {
                self.probe.borrow_mut().ended(self.plan);
                if let Some(vanished) = self.vanished.borrow_mut().as_mut() {
                    vanished.end(&self.plan.target.address());
                }
            }
            // Before the client ends its connections, which the kernel counts as resets.
            Point::Done => *self.kernel.borrow_mut() = Some(Counters::read().since(&self.counters)),
        }
        Ok(())
    }

    fn second(&self, second: &Second) {
        *self.latest.borrow_mut() = Some(second.clone());
    }

    fn progress(&self, progress: &Progress) {
        let (at, answered) = self.last.get();
        let since = at.elapsed();
        let rate = progress.answered.saturating_sub(answered) as f64 / since.as_secs_f64().max(1e-9);
        let mut said = false;
        self.live.borrow_mut().update(|| {
            said = true;
            match progress.elapsed {
                None => format!("{} of {} connections open", progress.opened, self.plan.connections),
                Some(elapsed) => self.moment(progress, elapsed, rate).to_string(),
            }
        });
        if said || since > Duration::from_secs(5) {
            self.last.set((Instant::now(), progress.answered));
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
