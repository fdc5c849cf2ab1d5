//! Replies that wait for a timer. The timer's key is the place of what is owed.

use std::time::Duration;

use corelane::http1::{Exchange, Responder};
use slab::Slab;

use crate::service::State;

/// What waits. There is never more than connections times `--pipeline`: an exchange that ended early leaves its
/// place when its timer fires.
#[derive(Default)]
pub(crate) struct Later(Slab<(Responder, String)>);

impl Later {
    /// Has this exchange answered with `line` when `delay` has passed: see [`Later::due`].
    pub(crate) fn answer(&mut self, exchange: &mut Exchange<'_, State>, delay: Duration, line: String) {
        let key = self.0.insert((exchange.responder(), line));
        exchange.core().set_timer(delay, key as u64);
    }

    /// Whom the timer of this key was for, and what to answer.
    pub(crate) fn due(&mut self, key: u64) -> Option<(Responder, String)> {
        self.0.try_remove(key as usize)
    }
}
