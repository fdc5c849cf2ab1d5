//! How much CPU a thread got, and how long it waited for one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::tally::Toll;
use crate::measure::{self, SystemCalls};

/// CPU time of one thread, and time that it was ready to run and did not, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) wait: Duration,
}

impl Usage {
    /// Of the calling thread.
    pub(crate) fn of_this_thread() -> Result<Self> {
        Self::read("/proc/thread-self/schedstat")
    }

    /// Of every thread of a process, by its number.
    pub(crate) fn of_process(pid: u32) -> Result<Vec<(u32, Self)>> {
        let path = format!("/proc/{pid}/task");
        let tasks = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
        let thread = |name: std::ffi::OsString| {
            let number = name.to_str()?.parse().ok()?;
            // A thread may have ended meanwhile.
            Some((number, Self::read(&format!("{path}/{number}/schedstat")).ok()?))
        };
        Ok(tasks.filter_map(|task| thread(task.ok()?.file_name())).collect())
    }

    fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        parse(&text).with_context(|| format!("cannot understand {path}: `{}`", text.trim()))
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), wait: self.wait.saturating_sub(earlier.wait) }
    }
}

/// Why there is no number of system calls, if nobody asked for one.
const UNCOUNTED: &str = "system calls are not counted in such a run";

/// What the calling thread takes in the measured time, and how many system calls it makes.
///
/// Calls are counted in the warm-up if there is one, as counting slows them all.
#[derive(Debug)]
pub(crate) struct Gauge {
    has_warmup: bool,
    calls: Option<SystemCalls>,
    /// At the beginning of the load, and when counting ended.
    calls_before: u64,
    calls_made: u64,
    uncounted: Option<String>,
    is_counting: bool,
    /// Replies meanwhile.
    pub(crate) counted: u64,
    before: Usage,
    switches: Switches,
}

/// Context switches of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct Switches {
    voluntary: u64,
    involuntary: u64,
}

impl Switches {
    /// A kernel that does not tell leaves zeroes.
    fn of_this_thread() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let [voluntary, involuntary] = measure::switches(&status);
        Self { voluntary, involuntary }
    }
}

impl Gauge {
    pub(crate) fn new(has_warmup: bool) -> Self {
        Self {
            has_warmup,
            calls: None,
            calls_before: 0,
            calls_made: 0,
            uncounted: Some(UNCOUNTED.to_owned()),
            is_counting: false,
            counted: 0,
            before: Usage::default(),
            switches: Switches::default(),
        }
    }

    /// Makes the counter of system calls, ahead of the load: that takes a while.
    pub(crate) fn count_calls(&mut self) {
        match SystemCalls::of_this_thread() {
            Ok(calls) => (self.calls, self.uncounted) = (Some(calls), None),
            Err(error) => self.uncounted = Some(format!("{error:#}")),
        }
    }

    /// The load begins.
    pub(crate) fn go(&mut self) {
        self.calls_before = self.read_calls();
        self.is_counting = true;
    }

    fn read_calls(&self) -> u64 {
        self.calls.as_ref().and_then(|calls| calls.read().ok()).unwrap_or(0)
    }

    #[inline]
    pub(crate) fn replied(&mut self, replies: u64) {
        self.counted += if self.is_counting { replies } else { 0 };
    }

    fn stop_counting(&mut self) {
        if std::mem::take(&mut self.is_counting) {
            self.calls_made = self.read_calls() - self.calls_before;
            self.calls = None;
        }
    }

    /// The measured time begins.
    pub(crate) fn begin(&mut self) {
        if self.has_warmup {
            self.stop_counting();
        }
        self.switches = Switches::of_this_thread();
        // A kernel that does not tell leaves zeroes, and no verdict on the generator follows from them.
        self.before = Usage::of_this_thread().unwrap_or_default();
    }

    /// The measured time ends. Returns what was used in it.
    pub(crate) fn end(&mut self) -> Usage {
        let used = Usage::of_this_thread().unwrap_or_default().since(self.before);
        let switches = Switches::of_this_thread();
        self.switches = Switches {
            voluntary: switches.voluntary - self.switches.voluntary,
            involuntary: switches.involuntary - self.switches.involuntary,
        };
        self.stop_counting();
        used
    }

    /// What was counted, at the end.
    pub(crate) fn toll(&self) -> Toll {
        let Switches { voluntary, involuntary } = self.switches;
        Toll { voluntary, involuntary, system_calls: self.calls_made, uncounted: self.uncounted.clone() }
    }
}

/// Time on a CPU, time waiting for one, and how often, as of `sched-stats` in the kernel's documentation.
fn parse(text: &str) -> Option<Usage> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().map(Duration::from_nanos));
    Some(Usage { cpu: numbers.next()?.ok()?, wait: numbers.next()?.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_times_are_read() {
        let usage = parse("1500 20 3\n").unwrap();
        assert_eq!((usage.cpu, usage.wait), (Duration::from_nanos(1_500), Duration::from_nanos(20)));
        assert!(parse("1500").is_none() && parse("a b c").is_none());
        // The kernel brings it up to date at its ticks.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while Usage::of_this_thread().unwrap().cpu == Duration::ZERO {
            assert!(std::time::Instant::now() < deadline, "no CPU time is counted");
        }
        assert!(!Usage::of_process(std::process::id()).unwrap().is_empty());
    }
}
