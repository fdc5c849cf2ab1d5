//! What is said while a run goes on: on a terminal in place, elsewhere line by line and less often.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

const TERMINAL_INTERVAL: Duration = Duration::from_millis(100);
const LOG_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Progress {
    in_place: bool,
    last: Instant,
    /// A line is there that the next one replaces.
    is_unfinished: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { in_place: stderr().is_terminal(), last: Instant::now(), is_unfinished: false }
    }

    /// Lets the first update of a new stage wait its time too.
    pub(super) fn update_from_now(&mut self) {
        self.last = Instant::now();
    }

    /// Says how far things are, if it is time to.
    pub(super) fn update(&mut self, text: impl FnOnce() -> String) {
        let interval = if self.in_place { TERMINAL_INTERVAL } else { LOG_INTERVAL };
        if self.last.elapsed() < interval {
            return;
        }
        self.last = Instant::now();
        if self.in_place {
            self.is_unfinished = true;
            // To the line's beginning, the text, and away with the rest.
            say(&format!("\r{}\x1b[K", text()));
        } else {
            say(&format!("{}\n", text()));
        }
    }

    /// Says what came of it.
    pub(super) fn finish(&mut self, text: &str) {
        let erase = if std::mem::take(&mut self.is_unfinished) { "\r\x1b[K" } else { "" };
        self.last = Instant::now();
        say(&format!("{erase}{text}\n"));
    }
}

impl Drop for Progress {
    /// What follows, an error perhaps, begins on a clean line.
    fn drop(&mut self) {
        if self.is_unfinished {
            say("\r\x1b[K");
        }
    }
}

/// If nobody listens, that is no reason to stop.
fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}
