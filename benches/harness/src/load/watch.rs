//! The thread that waits for those that load, and keeps the hooks informed.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::Shared;
use super::window::Part;
use crate::engine::{Hooks, LatestSecond, Point, Progress};
use crate::result::Second;

/// How long it sleeps.
const NAP: Duration = Duration::from_millis(20);

/// Begins the load when every thread is ready, and returns when all of them have ended.
pub(super) fn watch(
    shared: &Shared<'_>,
    threads: &[ScopedJoinHandle<'_, Option<Part>>],
    seconds: &Receiver<Second>,
    hooks: &dyn Hooks,
) -> Result<()> {
    let (warmup, slice) = (shared.load.warmup, shared.load.slice);
    let mut latest = LatestSecond::default();
    let mut points = [(warmup, Point::Begun), (warmup + slice, Point::Ended)].into_iter().peekable();
    let is_over = || shared.released.load(Ordering::Relaxed) || shared.ensure_going().is_err();
    while !threads.iter().all(ScopedJoinHandle::is_finished) {
        if !is_over() && shared.resting.load(Ordering::Acquire) == shared.load.threads {
            for (_, point) in points.by_ref() {
                hooks.reached(point)?;
            }
            hooks.reached(Point::Done)?;
            shared.released.store(true, Ordering::Release);
        }
        let now = shared.clock.now();
        let start = shared.start.get().copied();
        if start.is_none() && shared.ready.load(Ordering::Acquire) == shared.load.threads {
            hooks.reached(Point::Opened)?;
            let _ = shared.start.set(shared.clock.now());
            continue;
        }
        let elapsed = start.map(|start| Duration::from_nanos(now.saturating_sub(start)));
        let next = points.peek().zip(elapsed).map(|((at, _), elapsed)| at.saturating_sub(elapsed));
        if next == Some(Duration::ZERO) {
            let (_, point) = points.next().expect("it was looked at");
            hooks.reached(point)?;
            continue;
        }
        while let Ok(second) = seconds.try_recv() {
            latest.tell(second)?;
        }
        if let Some(second) = latest.take() {
            hooks.second(second);
        }
        hooks.progress(&Progress {
            opened: shared.opened.load(Ordering::Relaxed),
            answered: shared.answered.load(Ordering::Relaxed),
            elapsed,
        });
        if hooks.should_stop() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let patience = if start.is_some() { NAP } else { Duration::from_millis(1) };
        thread::sleep(next.map_or(patience, |next| next.min(patience)));
    }
    Ok(())
}
