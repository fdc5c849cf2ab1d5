//! Who watches a slice: has it stopped, and looks at the server when nothing is measured, so that looking costs nothing.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;

use crate::commands::verdict::{ServerUse, Threads, threads_of};
use crate::engine::{Hooks, Point, Progress};
use crate::measure;

/// The watch of one slice.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    stop: &'a AtomicBool,
    /// Processes that are known to be the server's; their children are too.
    server: &'a [u32],
    opened: RefCell<Option<(Instant, Vec<u32>, Threads)>>,
    ended: Cell<Option<Instant>>,
    seen: RefCell<Option<Seen>>,
}

/// What was seen of a server from the beginning of the load, its warm-up included, until all was answered.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) used: ServerUse,
}

impl<'a> Watch<'a> {
    pub(super) fn new(server: &'a [u32], stop: &'a AtomicBool) -> Self {
        Self { stop, server, opened: RefCell::new(None), ended: Cell::new(None), seen: RefCell::new(None) }
    }

    /// What was seen; `None` of a server whose processes are not known.
    pub(super) fn seen(self) -> Option<Seen> {
        self.seen.into_inner()
    }

    fn open(&self) {
        if !self.server.is_empty() {
            let processes = measure::with_descendants(self.server);
            let threads = threads_of(&processes);
            *self.opened.borrow_mut() = Some((Instant::now(), processes, threads));
        }
    }

    fn close(&self) {
        let (Some((begun, processes, before)), Some(ended)) = (self.opened.take(), self.ended.get()) else {
            return;
        };
        // What came after the end was answered at once, or the load was not one that fills the server.
        let seconds = ended.duration_since(begun).as_secs_f64();
        let used = ServerUse::between(&before, &threads_of(&processes), seconds);
        *self.seen.borrow_mut() = Some(Seen { used });
    }
}

impl Hooks for Watch<'_> {
    fn reached(&self, point: Point) -> Result<()> {
        match point {
            Point::Opened => self.open(),
            Point::Begun => {}
            Point::Ended => self.ended.set(Some(Instant::now())),
            Point::Done => self.close(),
        }
        Ok(())
    }

    fn progress(&self, _: &Progress) {}

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
