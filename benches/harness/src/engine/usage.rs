//! How much CPU a thread got, and how long it waited for one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

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
