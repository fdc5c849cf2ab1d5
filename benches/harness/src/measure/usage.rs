//! What a group of processes has used.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use nix::unistd::Pid;

use super::syscalls::SystemCalls;
use crate::cpu::CpuClock;
use crate::result::Cost;

/// Reads what some processes use, while they live.
#[derive(Debug)]
pub(crate) struct Meter {
    pids: Vec<u32>,
    clocks: Vec<CpuClock>,
    /// `None`: nobody wants to know now.
    calls: Option<Result<SystemCalls, String>>,
}

/// What was used up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
    /// Since they are counted, if they are.
    pub(crate) system_calls: Option<u64>,
}

impl Meter {
    /// For these processes. Their system calls are counted from now on, if the kernel lets us; also those of threads
    /// and processes that they start later.
    pub(crate) fn new(pids: Vec<u32>) -> Result<Self> {
        let mut meter = Self::without_calls(pids)?;
        meter.count_calls();
        Ok(meter)
    }

    /// For these processes, whose system calls are not counted yet: counting slows each of them.
    pub(crate) fn without_calls(pids: Vec<u32>) -> Result<Self> {
        let clock = |&pid: &u32| CpuClock::of_process(Pid::from_raw(pid.try_into()?));
        let clocks = pids.iter().map(clock).collect::<Result<_>>()?;
        Ok(Self { pids, clocks, calls: None })
    }

    /// Counts system calls from now on.
    pub(crate) fn count_calls(&mut self) {
        self.calls = Some(SystemCalls::of(&self.pids).map_err(|error| format!("{error:#}")));
    }

    /// Why system calls are not counted.
    pub(crate) fn uncounted(&self) -> Option<&str> {
        self.calls.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// How many system calls there were so far; they are not counted any more.
    pub(crate) fn stop_counting(&mut self) -> Option<u64> {
        self.calls.take()?.ok()?.read().ok()
    }

    /// The CPU time alone, which is cheap to read.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.clocks.iter().map(|clock| clock.read()).sum()
    }

    pub(crate) fn read(&self) -> Result<Used> {
        let mut used = Used { cpu: self.cpu()?, ..Used::default() };
        for pid in &self.pids {
            // A thread may end between the listing and the reading.
            for status in tasks(*pid).iter().filter_map(|task| fs::read_to_string(task).ok()) {
                let [voluntary, involuntary] = switches(&status);
                used.voluntary += voluntary;
                used.involuntary += involuntary;
            }
        }
        if let Some(Ok(calls)) = &self.calls {
            used.system_calls = Some(calls.read()?);
        }
        Ok(used)
    }
}

/// The status files of a process's threads.
fn tasks(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| format!("{}/status", entry.path().display())).collect()
}

/// The voluntary and involuntary context switches in a thread's status file; zeroes if it has none.
pub(crate) fn switches(status: &str) -> [u64; 2] {
    ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"].map(|name| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    })
}

impl Used {
    /// What was used since.
    pub(crate) fn since(self, before: Self) -> Self {
        let calls = self.system_calls.zip(before.system_calls);
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
            system_calls: calls.map(|(after, before)| after.saturating_sub(before)),
        }
    }

    /// As results keep it: of so many messages, in this time, on so many CPUs.
    pub(crate) fn cost(self, messages: u64, time: Duration, cpus: usize) -> Cost {
        let each = |value: f64| (messages > 0).then(|| value / messages as f64);
        let switches = self.voluntary + self.involuntary;
        let time = time.as_secs_f64();
        Cost {
            cpu_s: self.cpu.as_secs_f64(),
            cpu_us_per_message: each(self.cpu.as_secs_f64() * 1e6),
            utilisation: (time > 0.0 && cpus > 0).then(|| self.cpu.as_secs_f64() / time / cpus as f64),
            voluntary_switches: Some(self.voluntary),
            involuntary_switches: Some(self.involuntary),
            switches_per_message: each(switches as f64),
            system_calls: self.system_calls.map(|calls| ("all".to_owned(), calls)).into_iter().collect(),
            system_calls_per_message: self.system_calls.and_then(|calls| each(calls as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_metered() {
        let meter = Meter::new(vec![std::process::id()]).unwrap();
        let before = meter.read().unwrap();
        let begun = meter.cpu().unwrap();
        let mut turns = 0;
        while turns < 200 || meter.cpu().unwrap() - begun < Duration::from_millis(20) {
            std::thread::yield_now();
            turns += 1;
        }
        let used = meter.read().unwrap().since(before);
        assert!(used.cpu >= Duration::from_millis(20));
        // Every yield is one; reads of the clock and other threads of the test add theirs.
        assert!(used.system_calls.is_none_or(|calls| calls >= turns), "{used:?}, {turns} turns");
        assert_eq!(used.system_calls.is_none(), meter.uncounted().is_some());
    }

    #[test]
    fn calls_are_counted_only_while_they_are_to_be() {
        let mut meter = Meter::without_calls(vec![std::process::id()]).unwrap();
        assert_eq!((meter.read().unwrap().system_calls, meter.uncounted()), (None, None));
        meter.count_calls();
        let refused = meter.uncounted().is_some();
        assert_eq!(meter.read().unwrap().system_calls.is_none(), refused);
        assert_eq!(meter.stop_counting().is_none(), refused);
        assert_eq!(meter.read().unwrap().system_calls, None);
    }

    #[test]
    fn costs_are_shared_out() {
        let used =
            Used { cpu: Duration::from_secs(2), voluntary: 30, involuntary: 10, system_calls: Some(2_000) };
        let cost = used.cost(1_000, Duration::from_secs(4), 1);
        assert_eq!((cost.cpu_us_per_message, cost.utilisation), (Some(2_000.0), Some(0.5)));
        assert_eq!((cost.switches_per_message, cost.system_calls_per_message), (Some(0.04), Some(2.0)));
        let idle = Used::default().cost(0, Duration::from_secs(1), 2);
        assert_eq!((idle.cpu_us_per_message, idle.system_calls.len()), (None, 0));
    }

    #[test]
    fn switches_are_found() {
        let status = "Name: x\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches(status), [12, 3]);
        assert_eq!(switches(""), [0, 0]);
    }
}
