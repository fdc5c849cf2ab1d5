//! What the kernel counts of drops and overflows in this network namespace, whoever's packets they were.

use std::collections::BTreeMap;
use std::fs;

use crate::result::Counter;

/// Counters that mean that something was thrown away: a connection, a segment, a packet.
const DROPS: [&str; 16] = [
    "Ip.InDiscards",
    "Ip.OutDiscards",
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
    "TcpExt.OfoPruned",
    "TcpExt.PFMemallocDrop",
    "TcpExt.PruneCalled",
    "TcpExt.RcvPruned",
    "TcpExt.TCPAbortOnMemory",
    "TcpExt.TCPBacklogDrop",
    "TcpExt.TCPOFODrop",
    "TcpExt.TCPRcvQDrop",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPZeroWindowDrop",
    "Tcp.InErrs",
    "softnet.dropped",
];

/// Counters that explain slowness: pressure, repetition, a table that is full.
const SIGNS: [&str; 10] = [
    "Tcp.AttemptFails",
    "Tcp.EstabResets",
    "Tcp.RetransSegs",
    "TcpExt.TCPAbortOnTimeout",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.TCPReqQFullDoCookies",
    "TcpExt.TCPTimeWaitOverflow",
    "TcpExt.TCPTimeouts",
    "TcpExt.TCPSynRetrans",
    "softnet.time_squeeze",
];

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Those that this kernel has.
    pub(crate) fn read() -> Self {
        let mut counters = BTreeMap::new();
        for path in ["/proc/net/snmp", "/proc/net/netstat"] {
            if let Ok(text) = fs::read_to_string(path) {
                counters.extend(tables(&text));
            }
        }
        if let Ok(text) = fs::read_to_string("/proc/net/softnet_stat") {
            counters.extend(softnet(&text));
        }
        Self(counters)
    }

    /// Every counter of drops, whether it has changed or not, and those of slowness that have.
    pub(crate) fn since(&self, before: &Self) -> Vec<Counter> {
        let drops = DROPS.iter().filter_map(|name| self.counter(name, before));
        let signs = SIGNS.iter().filter_map(|name| self.counter(name, before));
        drops.chain(signs.filter(Counter::has_changed)).collect()
    }

    /// The counters of drops that have changed since.
    pub(crate) fn dropped_since(&self, before: &Self) -> Vec<Counter> {
        let drops = DROPS.iter().filter_map(|name| self.counter(name, before));
        drops.filter(Counter::has_changed).collect()
    }

    fn counter(&self, name: &str, before: &Self) -> Option<Counter> {
        let after = *self.0.get(name)?;
        let before = before.0.get(name).copied().unwrap_or(0);
        Some(Counter { name: name.to_owned(), before, after })
    }
}

/// What was dropped in each phase of a run.
#[derive(Debug)]
pub(crate) struct Drops {
    begin: Counters,
    /// Each phase, with the counters at its end.
    phases: Vec<(&'static str, Counters)>,
}

impl Drops {
    /// The first phase begins.
    pub(crate) fn begin() -> Self {
        Self { begin: Counters::read(), phases: Vec::new() }
    }

    /// This phase ends, and the next begins.
    pub(crate) fn end(&mut self, phase: &'static str) {
        self.phases.push((phase, Counters::read()));
    }

    fn last(&self) -> &Counters {
        self.phases.last().map_or(&self.begin, |(_, counters)| counters)
    }

    /// As [`Counters::since`], over all phases.
    pub(crate) fn counters(&self) -> Vec<Counter> {
        self.last().since(&self.begin)
    }

    /// Whether something was dropped before this phase.
    pub(crate) fn dropped_before(&self, phase: &str) -> bool {
        let before = self.phases.iter().take_while(|(name, _)| *name != phase).last();
        before.is_some_and(|(_, counters)| !counters.dropped_since(&self.begin).is_empty())
    }

    /// Each counter of drops that has changed, as in `softnet.dropped +510 (opening +10, drain +500)`.
    pub(crate) fn by_phase(&self) -> Vec<String> {
        let growth = |counter: &Counter| counter.after.saturating_sub(counter.before);
        let of_phases = |name: &str| -> Vec<String> {
            let begins = std::iter::once(&self.begin).chain(self.phases.iter().map(|(_, end)| end));
            let phases = begins.zip(&self.phases).filter_map(|(begin, (phase, end))| {
                let counter = end.counter(name, begin).filter(Counter::has_changed)?;
                Some(format!("{phase} +{}", growth(&counter)))
            });
            phases.collect()
        };
        let dropped = self.last().dropped_since(&self.begin);
        let tell = |counter: &Counter| {
            format!("{} +{} ({})", counter.name, growth(counter), of_phases(&counter.name).join(", "))
        };
        dropped.iter().map(tell).collect()
    }
}

/// Pairs of lines, names and values, that begin with the name of their table.
fn tables(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<_> = text.lines().collect();
    let mut counters = Vec::new();
    for pair in lines.chunks_exact(2) {
        let (Some((table, names)), Some((_, values))) = (pair[0].split_once(':'), pair[1].split_once(':'))
        else {
            continue;
        };
        let values = values.split_whitespace();
        for (name, value) in names.split_whitespace().zip(values) {
            // Some, like `Tcp.MaxConn`, are -1.
            if let Ok(value) = value.parse() {
                counters.push((format!("{table}.{name}"), value));
            }
        }
    }
    counters
}

/// A line for each CPU: packets, dropped, out of budget, all in hexadecimal.
fn softnet(text: &str) -> Vec<(String, u64)> {
    let column = |index: usize| -> u64 {
        let of_cpu = |line: &str| u64::from_str_radix(line.split_whitespace().nth(index)?, 16).ok();
        text.lines().filter_map(of_cpu).sum()
    };
    vec![("softnet.dropped".to_owned(), column(1)), ("softnet.time_squeeze".to_owned(), column(2))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(text: &str, softnet_text: &str) -> Counters {
        Counters(tables(text).into_iter().chain(softnet(softnet_text)).collect())
    }

    #[test]
    fn what_was_dropped_is_told_apart_from_signs() {
        let text = |overflows, repeated| {
            format!(
                "Tcp: MaxConn RetransSegs\nTcp: -1 {repeated}\nTcpExt: SyncookiesSent ListenOverflows\n\
                 TcpExt: 5 {overflows}\n"
            )
        };
        let before = counters(&text(3, 7), "0000 0000 0001\n0000 0000 0000\n");
        let after = counters(&text(4, 9), "0001 0000000a 0001\n0000 00000001 0000\n");
        let names = |changes: Vec<Counter>| -> Vec<_> {
            changes.into_iter().map(|change| (change.name, change.after - change.before)).collect()
        };
        let overflow = ("TcpExt.ListenOverflows".to_owned(), 1);
        let dropped = ("softnet.dropped".to_owned(), 11);
        assert_eq!(names(after.dropped_since(&before)), [overflow.clone(), dropped.clone()]);
        let all = [overflow, dropped, ("Tcp.RetransSegs".to_owned(), 2)];
        assert_eq!(names(after.since(&before)), all);
        // That nothing was dropped is told as well.
        let none = ["TcpExt.ListenOverflows", "softnet.dropped"].map(|name| (name.to_owned(), 0));
        assert_eq!(names(after.since(&after)), none);
    }

    #[test]
    fn drops_are_told_by_phase() {
        let at = |dropped: &str, overflows| {
            counters(
                &format!("TcpExt: ListenOverflows\nTcpExt: {overflows}\n"),
                &format!("0000 {dropped} 0000\n"),
            )
        };
        let phases = vec![
            ("opening", at("0000000a", 0)),
            ("talking", at("0000000a", 0)),
            ("drain", at("00000010", 2)),
        ];
        let drops = Drops { begin: at("00000001", 0), phases };
        let told = ["TcpExt.ListenOverflows +2 (drain +2)", "softnet.dropped +15 (opening +9, drain +6)"];
        assert_eq!(drops.by_phase(), told);
        assert!(drops.dropped_before("drain") && drops.dropped_before("talking"));
        assert!(!drops.dropped_before("opening"));
        let at_the_end = Drops { begin: at("0000000a", 0), phases: drops.phases.clone() };
        assert!(!at_the_end.dropped_before("drain") && !at_the_end.by_phase().is_empty());
        assert_eq!(drops.counters().len(), 2);
        let none = Drops { begin: at("00000001", 0), phases: vec![("opening", at("00000001", 0))] };
        assert!(none.by_phase().is_empty());
    }

    #[test]
    fn this_kernel_has_the_counters() {
        let here = Counters::read();
        for name in ["TcpExt.ListenOverflows", "Tcp.RetransSegs", "softnet.dropped"] {
            assert!(here.0.contains_key(name), "{name}");
        }
    }
}
