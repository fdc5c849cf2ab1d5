//! Replies that wait for a timer. The timer's key is the place of what is owed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corelane::http1::{Exchange, Responder};
use corelane::{Core, TimerId};
use slab::Slab;

use crate::service::State;

/// What waits on one reactor. There is never more than connections times `--pipeline`: whoever is told of an exchange
/// that ends early must say so with [`Later::forget`].
pub(crate) struct Later {
    owed: Slab<Owed>,
    /// How many wait on all reactors.
    count: Arc<AtomicU64>,
}

struct Owed {
    responder: Responder,
    line: String,
    timer: TimerId,
}

impl Later {
    pub(crate) fn new(count: Arc<AtomicU64>) -> Self {
        Self { owed: Slab::new(), count }
    }

    /// Has this exchange answered with `line` when `delay` has passed: see [`Later::due`].
    pub(crate) fn answer(&mut self, exchange: &mut Exchange<'_, State>, delay: Duration, line: String) {
        let responder = exchange.responder();
        let place = self.owed.vacant_entry();
        let key = place.key();
        let timer = exchange.core().set_timer(delay, key as u64);
        place.insert(Owed { responder, line, timer });
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(state) = exchange.state() {
            *state = State::Later(key);
        }
    }

    /// Whom the timer of this key was for, and what to answer.
    pub(crate) fn due(&mut self, key: u64) -> Option<(Responder, String)> {
        self.remove(key as usize).map(|owed| (owed.responder, owed.line))
    }

    /// The exchange whose state has this key is over.
    pub(crate) fn forget(&mut self, responder: Responder, key: usize, core: &mut Core<'_>) {
        // The place may be another's by now, if the timer has fired.
        if self.owed.get(key).is_some_and(|owed| owed.responder == responder)
            && let Some(owed) = self.remove(key)
        {
            core.cancel_timer(owed.timer);
        }
    }

    fn remove(&mut self, key: usize) -> Option<Owed> {
        let owed = self.owed.try_remove(key)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(owed)
    }
}
