//! Which CPUs a thread may use, and how much CPU time a process has used.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::{Deserialize, Deserializer, Serialize};

use crate::measure::cpu_of_ended_children;

/// A list of CPUs, as in `0,2-3`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CpuList(Vec<usize>);

impl CpuList {
    /// Those that this process may use.
    pub(crate) fn allowed() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read the CPU affinity")?;
        let cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true));
        Ok(Self(cpus.collect()))
    }

    /// The lower and the upper half; the whole list twice if there is only one CPU.
    pub(crate) fn halves(&self) -> (Self, Self) {
        match self.0.split_at(self.0.len() / 2) {
            ([], _) => (self.clone(), self.clone()),
            (lower, upper) => (Self(lower.to_vec()), Self(upper.to_vec())),
        }
    }

    /// Those that are not in the other list; `None` if there are none.
    pub(crate) fn without(&self, other: &Self) -> Option<Self> {
        let rest: Vec<_> = self.0.iter().copied().filter(|cpu| !other.0.contains(cpu)).collect();
        (!rest.is_empty()).then_some(Self(rest))
    }

    /// The CPUs.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        self.0.clone()
    }

    /// How many CPUs are listed.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Their numbers, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    /// The list holding only the CPU for the `index`th thread, round robin.
    pub(crate) fn for_thread(&self, index: usize) -> Self {
        Self(vec![self.0[index % self.0.len()]])
    }

    /// Confines the calling thread, and what it will spawn, to these CPUs.
    pub(crate) fn pin_this_thread(&self) -> Result<()> {
        sched_setaffinity(Pid::from_raw(0), &self.to_set()?)
            .with_context(|| format!("cannot use the CPUs {:?}", self.0))
    }

    /// The CPUs of either list.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut cpus = [self.0.as_slice(), &other.0].concat();
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }

    /// How long these CPUs have been busy, with whatever, since the machine started.
    ///
    /// The kernel counts in ticks, and what runs at a tick counts as having run since the last.
    pub(crate) fn busy(&self) -> Result<Duration> {
        let path = "/proc/stat";
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let ticks: u64 = self
            .0
            .iter()
            .map(|&cpu| busy_ticks(&text, cpu).with_context(|| format!("no CPU {cpu} in {path}")))
            .sum::<Result<u64>>()?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// The set as the kernel takes it.
    pub(crate) fn to_set(&self) -> Result<CpuSet> {
        let mut set = CpuSet::new();
        for &cpu in &self.0 {
            set.set(cpu).with_context(|| format!("no such CPU: {cpu}"))?;
        }
        Ok(set)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(usize::to_string).collect();
        formatter.write_str(&numbers.join(","))
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for CpuList {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number =
                |text: &str| text.parse::<usize>().with_context(|| format!("not a CPU number: `{text}`"));
            let (first, last) = (number(first)?, number(last)?);
            ensure!(first <= last, "an empty range of CPUs: `{part}`");
            ensure!(last < CpuSet::count(), "no such CPU: {last}");
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        let listed = cpus.len();
        cpus.dedup();
        if cpus.len() != listed {
            bail!("a CPU is listed twice: `{text}`");
        }
        Ok(Self(cpus))
    }
}

/// The ticks in which a CPU was neither idle nor waiting for a disk.
fn busy_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(name.as_str()))?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

/// The CPU time used by a thread, a process, or several processes, in user and kernel mode.
///
/// The kernel brings it up to date at every switch and at every tick of the CPU in question, so it
/// trails by a tick at most; it covers the threads that have ended. That of several processes covers their children
/// that have ended, too.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CpuClock {
    One(ClockId),
    /// Of processes that belong together: the clock and the number of each.
    Several(&'static [(ClockId, u32)]),
}

impl CpuClock {
    /// The clock of all the threads of process `pid`.
    pub(crate) fn of_process(pid: Pid) -> Result<Self> {
        let clock = clock_getcpuclockid(pid).with_context(|| format!("process {pid} has no CPU clock"))?;
        Ok(Self::One(clock))
    }

    /// The clock of all the threads of these processes, of which the first must live as long as it is read.
    ///
    /// A clock is read by threads that live as long as they like, so the list of several is kept for good.
    pub(crate) fn of_processes(pids: &[u32]) -> Result<Self> {
        let clock = |pid: &u32| {
            let number = Pid::from_raw((*pid).try_into()?);
            let clock =
                clock_getcpuclockid(number).with_context(|| format!("process {pid} has no CPU clock"))?;
            Ok((clock, *pid))
        };
        let clocks = pids.iter().map(clock).collect::<Result<Vec<_>>>()?;
        Ok(Self::Several(clocks.leak()))
    }

    /// The clock of the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        Self::One(ClockId::CLOCK_THREAD_CPUTIME_ID)
    }

    /// The time used so far.
    pub(crate) fn read(self) -> Result<Duration> {
        let of = |clock: ClockId| clock.now().map(Duration::from).context("cannot read a CPU clock");
        match self {
            Self::One(clock) => of(clock),
            Self::Several(processes @ [(first, _), children @ ..]) => {
                // A child may come and go: what one took that has ended is known of its parent.
                let of_children = children.iter().filter_map(|(clock, _)| of(*clock).ok());
                let of_ended = processes.iter().map(|(_, pid)| cpu_of_ended_children(*pid));
                Ok(of(*first)? + of_children.sum::<Duration>() + of_ended.sum::<Duration>())
            }
            Self::Several([]) => Ok(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed() {
        assert_eq!("0".parse::<CpuList>().unwrap(), CpuList(vec![0]));
        assert_eq!("3,0-1".parse::<CpuList>().unwrap(), CpuList(vec![0, 1, 3]));
        for wrong in ["", "a", "1-0", "1,", "0,0-1", "99999999", "-1"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn threads_share_the_list() {
        let list: CpuList = "2,5".parse().unwrap();
        assert_eq!(list.for_thread(0), CpuList(vec![2]));
        assert_eq!(list.for_thread(3), CpuList(vec![5]));
    }

    #[test]
    fn lists_are_taken_apart() {
        let list = |text: &str| text.parse::<CpuList>().unwrap();
        assert_eq!(list("0-2").halves(), (list("0"), list("1-2")));
        assert_eq!(list("3").halves(), (list("3"), list("3")));
        assert_eq!(list("0-3").without(&list("1,7")), Some(list("0,2-3")));
        assert_eq!(list("1").without(&list("0-1")), None);
        assert!(CpuList::allowed().unwrap().len() > 0);
    }

    #[test]
    fn lists_are_joined() {
        let (one, other) = ("0,2".parse::<CpuList>().unwrap(), "1-2".parse().unwrap());
        assert_eq!(one.union(&other), CpuList(vec![0, 1, 2]));
    }

    #[test]
    fn busy_ticks_leave_out_idle_and_iowait() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 3 1000 1000 4 5 6 0 0\ncpu10 0\n";
        assert_eq!(busy_ticks(stat, 1), Some(21));
        assert_eq!(busy_ticks(stat, 0), None);
        assert_eq!(busy_ticks(stat, 10), None);
    }

    #[test]
    fn the_clock_of_this_process_runs() {
        let clock = CpuClock::of_process(Pid::this()).unwrap();
        let thread = CpuClock::of_this_thread();
        let before = thread.read().unwrap();
        while thread.read().unwrap() - before < Duration::from_millis(20) {}
        assert!(clock.read().unwrap() >= Duration::from_millis(15));
        let me = std::process::id();
        let twice = CpuClock::of_processes(&[me, me]).unwrap().read().unwrap();
        assert!(twice >= Duration::from_millis(30), "{twice:?}");
        assert_eq!(CpuClock::of_processes(&[]).unwrap().read().unwrap(), Duration::ZERO);
    }
}
