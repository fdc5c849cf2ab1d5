//! The report of `preflight`.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

use super::args::Args;
use super::host::Host;
use super::layout::{Asked, Layout};
use super::limit::{Limit, Need, Role, Verdict, judge};
use crate::output::format::{bytes, count};

/// The limits against what was asked for.
pub(super) struct Report {
    connections: u64,
    role: Role,
    layout: Layout,
    limits: Vec<Limit>,
}

impl Report {
    pub(super) fn new(host: &Host, args: &Args) -> Self {
        let connections = args.connections;
        let asked = Asked { connections, server_reactors: 1, client_reactors: 1, ..Asked::default() };
        let layout = Layout::new(&asked, host);
        let need = Need { role: args.role, connections, layout: &layout, in_flight: host.wave() };
        let limits = judge(host, &need);
        Self { connections, role: args.role, layout, limits }
    }

    /// In a line, why the connections do not fit; `None` if they do.
    pub(super) fn lacking(&self) -> Option<String> {
        let lacking = self.limits.iter().any(|limit| limit.verdict == Verdict::Lacking);
        lacking.then(|| format!("{} connections {}", count(self.connections), self.verdict()))
    }

    pub(super) fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(&self.limits).context("cannot write JSON")?;
        Ok(text + "\n")
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for limit in &self.limits {
            let _ = writeln!(text, "{}", line(limit));
        }
        let (connections, verdict) = (count(self.connections), self.verdict());
        let whose = match self.role {
            Role::Both => "both ends of them on this host",
            Role::Server => "their server on this host",
            Role::Client => "their client on this host",
        };
        let _ = writeln!(text, "\n{connections} connections, {whose}: {verdict}");
        text
    }

    fn verdict(&self) -> String {
        let of = |verdict| -> Vec<_> {
            let limits = self.limits.iter().filter(|limit| limit.verdict == verdict);
            limits.map(|limit| limit.name).collect()
        };
        let lacking = of(Verdict::Lacking);
        if !lacking.is_empty() {
            return format!("do not fit; in the way: {}", lacking.join(", "));
        }
        let around = of(Verdict::Around);
        if around.is_empty() {
            return "fit".to_owned();
        }
        let Layout { server_processes, client_processes, .. } = self.layout;
        let spread = match self.role {
            Role::Both => format!("{server_processes} server and {client_processes} client processes"),
            Role::Server => format!("{server_processes} server processes"),
            Role::Client => format!("{client_processes} client processes"),
        };
        format!("fit, spread over {spread}; in the way otherwise: {}", around.join(", "))
    }
}

/// One limit for people.
pub(crate) fn line(limit: &Limit) -> String {
    let verdict = match limit.verdict {
        Verdict::Fits => "fits",
        Verdict::Around => "around",
        Verdict::Slower => "slower",
        Verdict::Lacking => "LACKING",
    };
    let value = |value: &Value| match (value, limit.unit) {
        (Value::Number(number), "bytes") => bytes(number.as_u64().unwrap_or_default()),
        (Value::String(text), _) => text.clone(),
        (other, _) => other.to_string(),
    };
    let mut line = format!(
        "{verdict:<8} {:<30} {} (needed: {}; {})",
        limit.name,
        value(&limit.current),
        value(&limit.needed),
        limit.unit
    );
    if let Some(way) = &limit.around {
        let _ = write!(line, "\n         taken around it: {way}");
    }
    if let Some(advice) = &limit.advice {
        let _ = write!(line, "\n         to change: {advice}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Bounded;
    use super::super::host::Conntrack;
    use super::super::host::tests::host;
    use super::*;

    fn report(host: &Host, connections: u64, role: Role) -> Report {
        Report::new(host, &Args { connections, role, format: super::super::args::Format::Text })
    }

    fn limit<'a>(report: &'a Report, name: &str) -> &'a Limit {
        report.limits.iter().find(|limit| limit.name == name).unwrap()
    }

    #[test]
    fn what_fits_needs_no_advice() {
        let report = report(&host(20_000), 10_000, Role::Both);
        assert!(report.lacking().is_none() && report.limits.iter().all(|limit| limit.advice.is_none()));
        assert!(report.text().contains("10,000 connections, both ends of them on this host: fit\n"));
    }

    #[test]
    fn a_million_is_spread_and_what_is_in_the_way_is_named() {
        let report = report(&host(20_000), 1_000_000, Role::Both);
        assert!(report.lacking().is_none());
        let text = report.text();
        assert!(text.contains("taken around it: 53 server and 53 client processes"), "{text}");
        assert!(text.contains("106 source addresses in 127/8"), "{text}");
        let files = limit(&report, "RLIMIT_NOFILE");
        assert_eq!((files.current.as_u64(), files.needed.as_u64()), (Some(20_000), Some(1_000_064)));
        assert!(files.advice.as_ref().unwrap().contains("LimitNOFILE=1000064"));
        assert_eq!(files.verdict, Verdict::Around);
        assert_eq!(limit(&report, "net.ipv4.ip_local_port_range").current, "32768 60999");
    }

    #[test]
    fn each_lacking_limit_is_told_with_its_number() {
        let mut host = host(20_000);
        host.memory = Some(1 << 30);
        host.cgroup_memory = Some(Bounded { limit: 2 << 30, used: 1 << 30 });
        host.cgroup_pids = Some(Bounded { limit: 100, used: 50 });
        host.file_max = Some(Bounded { limit: 1_000_000, used: 500 });
        host.conntrack = Some(Conntrack { table: Bounded { limit: 262_144, used: 12 }, is_tracking: true });
        host.somaxconn = Some(128);
        host.tcp_mem = Some([1, 2, 3]);
        let report = report(&host, 1_000_000, Role::Both);
        assert!(report.lacking().is_some());
        let lacking: Vec<_> = report
            .limits
            .iter()
            .filter(|limit| limit.verdict == Verdict::Lacking)
            .map(|limit| limit.name)
            .collect();
        let expected = [
            "fs.file-max",
            "MemAvailable",
            "cgroup memory.max",
            "cgroup pids.max",
            "net.netfilter.nf_conntrack_max",
        ];
        assert_eq!(lacking, expected);
        let advice = |name| limit(&report, name).advice.clone().unwrap();
        assert!(advice("net.netfilter.nf_conntrack_max").contains("nf_conntrack_max=1000012"));
        assert!(advice("net.core.somaxconn").contains("somaxconn=4096"));
        assert!(advice("net.ipv4.tcp_mem").contains("2000000\""));
        assert_eq!(limit(&report, "net.core.somaxconn").verdict, Verdict::Slower);
    }

    #[test]
    fn a_storm_is_paced_to_what_the_queue_of_packets_holds() {
        let mut host = host(20_000);
        host.packet_backlog = Some(1_000);
        let both = report(&host, 10_000, Role::Both);
        let backlog = limit(&both, "net.core.netdev_max_backlog");
        assert_eq!(backlog.verdict, Verdict::Around);
        assert!(backlog.around.as_ref().unwrap().contains("250 messages"), "{backlog:?}");
        assert!(backlog.advice.as_ref().unwrap().contains("netdev_max_backlog=40000"), "{backlog:?}");
        assert_eq!(limit(&report(&host, 250, Role::Both), backlog.name).verdict, Verdict::Fits);
    }

    #[test]
    fn a_storm_that_is_not_paced_is_told_to_lose_packets() {
        let mut host = host(20_000);
        host.packet_backlog = Some(1_000);
        let asked = Asked { connections: 10_000, server_reactors: 1, client_reactors: 1, ..Asked::default() };
        let layout = Layout::new(&asked, &host);
        for (in_flight, verdict) in
            [(None, Verdict::Slower), (Some(251), Verdict::Slower), (Some(250), Verdict::Around)]
        {
            let need = Need { role: Role::Both, connections: 10_000, layout: &layout, in_flight };
            let limits = judge(&host, &need);
            let backlog = limits.iter().find(|limit| limit.name == "net.core.netdev_max_backlog").unwrap();
            assert_eq!(backlog.verdict, verdict, "{in_flight:?}");
            assert_eq!(backlog.advice.as_ref().unwrap().contains("dropped"), verdict == Verdict::Slower);
        }
    }

    #[test]
    fn nothing_is_advised_that_hurts() {
        let mut host = host(20_000);
        host.memory_pages = Some(2_000_000);
        host.nr_open = Some(20_000);
        host.file_max = Some(Bounded { limit: 1_000, used: 500 });
        host.conntrack = Some(Conntrack { table: Bounded { limit: 100, used: 10 }, is_tracking: true });
        host.packet_backlog = Some(1_000);
        host.tcp_mem = Some([1, 2, 3]);
        let advice = |host: &Host, connections, name| {
            limit(&report(host, connections, Role::Both), name).advice.clone().unwrap()
        };
        let expected = [
            ("fs.nr_open", "fs.nr_open=1048576"),
            ("fs.file-max", "fs.file-max=262144"),
            ("net.netfilter.nf_conntrack_max", "nf_conntrack_max=65536"),
            ("net.core.netdev_max_backlog", "netdev_max_backlog=100000"),
            ("net.ipv4.tcp_mem", "tcp_mem=\"62500 93750 125000\""),
        ];
        for (name, words) in expected {
            let told = advice(&host, 25_000, name);
            assert!(told.contains(words), "{told}");
        }
        let million = |name| advice(&host, 1_000_000, name);
        let backlog = million("net.core.netdev_max_backlog");
        assert!(backlog.contains("=100000` at most, and no more than 25000 messages"), "{backlog}");
        assert!(million("net.ipv4.tcp_mem").contains("tcp_mem=\"250000 375000 500000\""));
        // What is as high as it should ever be is not raised.
        host.packet_backlog = Some(100_000);
        host.tcp_mem = Some([250_000, 375_000, 500_000]);
        for name in ["net.core.netdev_max_backlog", "net.ipv4.tcp_mem"] {
            let told = advice(&host, 1_000_000, name);
            assert!(!told.contains("sysctl"), "{told}");
        }
    }

    #[test]
    fn a_table_that_tracks_nothing_is_no_limit() {
        let mut host = host(20_000);
        host.conntrack = Some(Conntrack { table: Bounded { limit: 1, used: 0 }, is_tracking: false });
        assert!(report(&host, 1_000, Role::Both).lacking().is_none());
    }

    #[test]
    fn one_end_needs_half() {
        let both = report(&host(20_000), 100_000, Role::Both);
        let server = report(&host(20_000), 100_000, Role::Server);
        let watches = |report: &Report| limit(report, "fs.epoll.max_user_watches").needed.as_u64().unwrap();
        assert_eq!((watches(&both), watches(&server)), (200_000, 100_000));
        assert!(server.limits.iter().all(|limit| limit.name != "net.ipv4.ip_local_port_range"));
        assert!(server.text().contains("spread over 6 server processes;"), "{}", server.text());
    }

    #[test]
    fn no_room_for_a_single_connection_is_lacking() {
        let report = report(&host(20), 10, Role::Both);
        assert_eq!(limit(&report, "RLIMIT_NOFILE").verdict, Verdict::Lacking);
    }
}
