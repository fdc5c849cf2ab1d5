//! The limits of the machine that a run can meet: descriptors and ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

/// Descriptors a process needs beside its connections: standard streams, pollers, rings, pipes.
const OTHER_DESCRIPTORS: u64 = 64;

/// Descriptors a process that is set up may still need beside its connections.
const SPARE_DESCRIPTORS: u64 = 16;

/// Raises the soft limit of descriptors to the hard one, for this process and its children.
pub(crate) fn raise_descriptor_limit() -> Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise RLIMIT_NOFILE")?;
    }
    Ok(hard)
}

/// Fails if a process with `connections` does not fit under the `limit` of descriptors.
pub(crate) fn ensure_descriptors(connections: u64, limit: u64) -> Result<()> {
    let needed = connections + OTHER_DESCRIPTORS;
    ensure!(
        needed <= limit,
        "{connections} connections need {needed} descriptors in the client and in the server, \
         but RLIMIT_NOFILE is {limit}: at most {} connections fit",
        limit.saturating_sub(OTHER_DESCRIPTORS)
    );
    Ok(())
}

/// How many descriptors a process may have, and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Descriptors {
    /// The soft limit: the one that counts.
    pub(crate) limit: u64,
    pub(crate) used: u64,
}

impl Descriptors {
    /// Of the process of this number.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/limits");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let limit = soft_limit(&text).with_context(|| format!("no `{LIMIT_NAME}` in {path}"))?;
        let path = format!("/proc/{pid}/fd");
        let used = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?.count() as u64;
        Ok(Self { limit, used })
    }

    /// How many connections the process can take on.
    pub(crate) fn room(self) -> u64 {
        self.limit.saturating_sub(self.used + SPARE_DESCRIPTORS)
    }
}

const LIMIT_NAME: &str = "Max open files";

/// The soft limit of descriptors in the text of a `/proc/PID/limits`.
fn soft_limit(text: &str) -> Option<u64> {
    let values = text.lines().find_map(|line| line.strip_prefix(LIMIT_NAME))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The first and the last of the ports the kernel gives to outgoing connections.
pub(crate) fn ephemeral_ports() -> Result<(u16, u16)> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => Ok((first, last)),
        _ => anyhow::bail!("cannot understand {path}: `{}`", text.trim()),
    }
}

/// The source addresses that `connections` to one destination should be spread over.
///
/// Empty if the kernel's own choice will do. Finding a free port becomes slow when more than about
/// half of them are taken, so no address is given more than that.
pub(crate) fn sources(connections: u64, ports: (u16, u16)) -> Vec<Ipv4Addr> {
    let for_one_address = (u64::from(ports.1 - ports.0) + 1).div_ceil(2);
    if connections <= for_one_address {
        return Vec::new();
    }
    let addresses = connections.div_ceil(for_one_address);
    (0..u32::try_from(addresses).unwrap_or(u32::MAX))
        .map(|index| Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 2).to_bits() + index))
        .collect()
}

/// Fails if `sources` cannot be used to reach `target`.
pub(crate) fn ensure_sources_reach(sources: &[Ipv4Addr], target: SocketAddr) -> Result<()> {
    ensure!(
        sources.is_empty() || matches!(target, SocketAddr::V4(v4) if v4.ip().is_loopback()),
        "so many connections to {target} need several source addresses, \
         which only 127.0.0.0/8 offers"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted() {
        assert!(ensure_descriptors(10_000, 20_000).is_ok());
        assert!(ensure_descriptors(936, 1_000).is_ok());
        let refusal = ensure_descriptors(937, 1_000).unwrap_err().to_string();
        assert!(refusal.contains("RLIMIT_NOFILE is 1000"), "{refusal}");
        assert!(refusal.contains("at most 936"), "{refusal}");
    }

    #[test]
    fn the_soft_limit_is_found() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             500                  unlimited            processes \n\
                    Max open files            1024                 20000                files     \n";
        assert_eq!(soft_limit(text), Some(1_024));
        assert_eq!(soft_limit("Max open files  unlimited  unlimited  files"), Some(u64::MAX));
        assert_eq!(soft_limit("Max processes  500  500  processes"), None);
        let ours = Descriptors::of(std::process::id()).unwrap();
        assert!(ours.used > 2 && ours.room() < ours.limit - 2, "{ours:?}");
        assert_eq!(Descriptors { limit: 20, used: 30 }.room(), 0);
    }

    #[test]
    fn few_connections_need_no_source_address() {
        assert!(sources(10_000, (32_768, 60_999)).is_empty());
        assert!(sources(14_116, (32_768, 60_999)).is_empty());
    }

    #[test]
    fn many_connections_are_spread() {
        let spread = sources(19_000, (32_768, 60_999));
        assert_eq!(spread, [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)]);
        assert_eq!(sources(10, (1, 2)).len(), 10);
        assert!(ensure_sources_reach(&spread, "127.0.0.1:80".parse().unwrap()).is_ok());
        assert!(ensure_sources_reach(&spread, "[::1]:80".parse().unwrap()).is_err());
        assert!(ensure_sources_reach(&[], "[::1]:80".parse().unwrap()).is_ok());
    }
}
