//! What a group of processes has used.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use nix::unistd::Pid;

use super::cpu_of_ended_children;
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
    /// For these processes. System calls of theirs and of their `descendants` are counted from now on, if the kernel lets
    /// us; also those of threads and processes that they start later.
    pub(crate) fn new(pids: Vec<u32>, descendants: &[u32]) -> Result<Self> {
        let all: Vec<u32> =
            descendants.iter().filter(|pid| !pids.contains(pid)).chain(&pids).copied().collect();
        let mut meter = Self::without_calls(pids)?;
        meter.count_calls_of(&all);
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
        self.count_calls_of(&self.pids.clone());
    }

    fn count_calls_of(&mut self, pids: &[u32]) {
        self.calls = Some(SystemCalls::of(pids).map_err(|error| format!("{error:#}")));
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

    /// What these processes have used, and those of their children that have ended.
    pub(crate) fn read(&self) -> Result<Used> {
        self.read_with(&[])
    }

    /// As [`Meter::read`], with these of their `descendants` that live now. What a process used goes over to its parent
    /// when it has ended, but for its context switches, of which nothing is known then.
    pub(crate) fn read_with(&self, descendants: &[u32]) -> Result<Used> {
        let mut used = Used { cpu: self.cpu()?, ..Used::default() };
        let others: Vec<u32> = descendants.iter().copied().filter(|pid| !self.pids.contains(pid)).collect();
        for &pid in &others {
            // One of them may have ended since they were looked for.
            let clock = pid.try_into().ok().and_then(|pid| CpuClock::of_process(Pid::from_raw(pid)).ok());
            used.cpu += clock.and_then(|clock| clock.read().ok()).unwrap_or_default();
        }
        for pid in self.pids.iter().chain(&others) {
            used.cpu += cpu_of_ended_children(*pid);
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
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_is_metered() {
        let meter = Meter::new(vec![std::process::id()], &[]).unwrap();
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

    /// Of a shell whose children work: one after the other, and each ends.
    #[test]
    fn what_children_used_that_have_ended_counts() {
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let script = format!("read go; sh -c '{work}'; sh -c '{work}'; echo done; read end");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let meter = Meter::without_calls(vec![shell.id()]).unwrap();
        let before = meter.read().unwrap();
        let mut told = BufReader::new(shell.stdout.take().unwrap());
        let stdin = shell.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
        told.read_line(&mut String::new()).unwrap();
        let used = meter.read().unwrap().since(before);
        let own = CpuClock::of_process(Pid::from_raw(shell.id().cast_signed())).unwrap().read().unwrap();
        assert!(used.cpu >= own + Duration::from_millis(10), "{used:?}, {own:?} of its own");
        shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
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
