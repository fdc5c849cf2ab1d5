//! Who watches a slice: has it stopped, and looks at the server when nothing is measured, so that looking costs nothing.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;

use crate::commands::verdict::{ServerUse, Threads, threads_of};
use crate::engine::{Hooks, Point, Progress};
use crate::measure::kernel::Counters;
use crate::measure::{self, Meter, Used};
use crate::result::Counter;

/// The watch of one slice.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    stop: &'a AtomicBool,
    /// Processes that are known to be the server's; their children are too.
    server: &'a [u32],
    /// Of before the first connection.
    counters: Counters,
    opened: RefCell<Option<Opened>>,
    ended: Cell<Option<Instant>>,
    seen: RefCell<Seen>,
}

/// When every connection stood, and what the server had used by then.
#[derive(Debug)]
struct Opened {
    at: Instant,
    meter: Meter,
    used: Used,
    threads: Threads,
}

/// What was seen in one slice.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What the kernel counted of drops and overflows.
    pub(super) kernel: Vec<Counter>,
    /// `None` of a server whose processes are not known.
    pub(super) server: Option<SeenOfServer>,
    /// Why not, of one whose processes are known. One of them may have ended.
    pub(super) problem: Option<String>,
}

/// What a server used from the beginning of the load, its warm-up included, until all was answered.
#[derive(Debug)]
pub(super) struct SeenOfServer {
    pub(super) used: Used,
    pub(super) threads: ServerUse,
}

impl<'a> Watch<'a> {
    pub(super) fn new(server: &'a [u32], stop: &'a AtomicBool) -> Self {
        Self {
            stop,
            server,
            counters: Counters::read(),
            opened: RefCell::new(None),
            ended: Cell::new(None),
            seen: RefCell::default(),
        }
    }

    pub(super) fn seen(self) -> Seen {
        self.seen.into_inner()
    }

    fn open(&self) -> Result<()> {
        if self.server.is_empty() {
            return Ok(());
        }
        let processes = measure::with_descendants(self.server);
        let meter = Meter::without_calls(self.server.to_vec())?;
        let (used, threads) = (meter.read_with(&processes)?, threads_of(&processes));
        *self.opened.borrow_mut() = Some(Opened { at: Instant::now(), meter, used, threads });
        Ok(())
    }

    fn close(&self) -> Result<()> {
        let mut seen = self.seen.borrow_mut();
        seen.kernel = Counters::read().since(&self.counters);
        let (Some(opened), Some(ended)) = (self.opened.take(), self.ended.get()) else {
            return Ok(());
        };
        let processes = measure::with_descendants(self.server);
        // Little is done after the end: what was under way is answered.
        let seconds = ended.duration_since(opened.at).as_secs_f64();
        seen.server = Some(SeenOfServer {
            used: opened.meter.read_with(&processes)?.since(opened.used),
            threads: ServerUse::between(&opened.threads, &threads_of(&processes), seconds),
        });
        Ok(())
    }

    /// What cannot be seen fails no measurement.
    fn or_problem(&self, looked: Result<()>) {
        if let Err(error) = looked {
            self.seen.borrow_mut().problem = Some(format!("{error:#}"));
        }
    }
}

impl Hooks for Watch<'_> {
    fn reached(&self, point: Point) -> Result<()> {
        match point {
            Point::Opened => self.or_problem(self.open()),
            Point::Begun => {}
            Point::Ended => self.ended.set(Some(Instant::now())),
            Point::Done => self.or_problem(self.close()),
        }
        Ok(())
    }

    fn progress(&self, _: &Progress) {}

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
