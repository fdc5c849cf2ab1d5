//! What is said on stderr while a run goes on: on a terminal in place, elsewhere line by line and less
//! often.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use super::format::count;
use crate::latency::format_ns;

const TERMINAL_INTERVAL: Duration = Duration::from_millis(100);
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Back to the line's beginning; a text too long for the line is cut off, not wrapped.
const BEGIN: &str = "\r\x1b[?7l";

/// Away with the rest of the line before, and wrap again.
const END: &str = "\x1b[K\x1b[?7h";

/// How far a run is, in one line.
#[derive(Debug)]
pub(crate) struct Progress {
    in_place: bool,
    last: Instant,
    /// A line is there that the next one replaces.
    is_unfinished: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { in_place: stderr().is_terminal(), last: Instant::now(), is_unfinished: false }
    }

    /// Lets the first update of a new stage wait its time too.
    pub(crate) fn update_from_now(&mut self) {
        self.last = Instant::now();
    }

    /// Says how far things are, if it is time to.
    pub(crate) fn update(&mut self, text: impl FnOnce() -> String) {
        let interval = if self.in_place { TERMINAL_INTERVAL } else { LOG_INTERVAL };
        if self.last.elapsed() < interval {
            return;
        }
        self.last = Instant::now();
        self.is_unfinished = self.in_place;
        say(&frame(&text(), self.in_place));
    }

    /// Says what came of it.
    pub(crate) fn finish(&mut self, text: &str) {
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

/// A text as it is said: on a terminal over the one before, elsewhere as a plain line.
fn frame(text: &str, in_place: bool) -> String {
    if in_place { format!("{BEGIN}{text}{END}") } else { format!("{text}\n") }
}

/// If nobody listens, that is no reason to stop.
fn say(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// A load at a moment, to be shown by [`Progress::update`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) elapsed: Duration,
    /// How long it is to last; zero if nobody knows.
    pub(crate) planned: Duration,
    pub(crate) connections: u64,
    /// Replies a second, of late.
    pub(crate) rate: f64,
    /// Of the latencies of late, in nanoseconds, if there are any.
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    pub(crate) late: u64,
    pub(crate) errors: u64,
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:5.1} s", self.elapsed.as_secs_f64())?;
        if !self.planned.is_zero() {
            write!(formatter, " of {:.0}", self.planned.as_secs_f64())?;
        }
        write!(formatter, "  {} connections  {}/s", count(self.connections), count(self.rate as u64))?;
        for (name, value) in [("p50", self.p50_ns), ("p99", self.p99_ns)] {
            if let Some(ns) = value {
                write!(formatter, "  {name} {}", format_ns(ns as f64))?;
            }
        }
        write!(formatter, "  late {}  errors {}", count(self.late), count(self.errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_written_in_place_and_a_file_in_plain_lines() {
        assert_eq!(frame("now", false), "now\n");
        let on_terminal = frame("now", true);
        assert!(on_terminal.starts_with('\r') && on_terminal.contains("now"), "{on_terminal:?}");
        assert!(!on_terminal.contains('\n') && on_terminal.ends_with("\x1b[K\x1b[?7h"), "{on_terminal:?}");
    }

    #[test]
    fn a_moment_stands_on_one_line() {
        let moment = Moment {
            elapsed: Duration::from_millis(2_340),
            planned: Duration::from_secs(10),
            connections: 10_000,
            rate: 151_234.5,
            p50_ns: Some(61_200),
            p99_ns: Some(2_120_000),
            late: 0,
            errors: 2,
        };
        let expected =
            "  2.3 s of 10  10,000 connections  151,234/s  p50 61.2 us  p99 2.12 ms  late 0  errors 2";
        assert_eq!(moment.to_string(), expected);
        let bare = Moment { elapsed: Duration::from_secs(1), connections: 5, ..Moment::default() };
        assert_eq!(bare.to_string(), "  1.0 s  5 connections  0/s  late 0  errors 0");
    }
}
