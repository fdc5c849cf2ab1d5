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
    fn this_kernel_has_the_counters() {
        let here = Counters::read();
        for name in ["TcpExt.ListenOverflows", "Tcp.RetransSegs", "softnet.dropped"] {
            assert!(here.0.contains_key(name), "{name}");
        }
    }
}
