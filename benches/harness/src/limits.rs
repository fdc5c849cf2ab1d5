//! The limits of the machine that a run can meet: descriptors and ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors a process needs beside its connections: standard streams, pollers, rings, pipes.
const OTHER_DESCRIPTORS: u64 = 64;

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

/// Fails if a server that is one process cannot have `connections` under the `limit` of descriptors.
pub(crate) fn ensure_server_descriptors(connections: u64, limit: u64) -> Result<()> {
    let needed = connections + OTHER_DESCRIPTORS;
    ensure!(
        needed <= limit,
        "{connections} connections need {needed} descriptors in the server, which --server starts as one process, but \
         RLIMIT_NOFILE is {limit}: at most {} connections fit; raise the hard limit (`ulimit -Hn`, LimitNOFILE=), or \
         start servers that share a port and give their address in place of --server, with --workers for the client's \
         share; for echo, c100k and c1m do both",
        limit.saturating_sub(OTHER_DESCRIPTORS)
    );
    Ok(())
}

/// How many descriptors the process of this number may have, as `/proc` tells it.
pub(crate) fn descriptor_limit(pid: u32) -> Result<String> {
    let path = format!("/proc/{pid}/limits");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    soft_limit(&text).with_context(|| format!("no `{LIMIT_NAME}` in {path}"))
}

const LIMIT_NAME: &str = "Max open files";

/// The soft limit of descriptors in the text of a `/proc/PID/limits`.
fn soft_limit(text: &str) -> Option<String> {
    let values = text.lines().find_map(|line| line.strip_prefix(LIMIT_NAME))?;
    Some(values.split_whitespace().next()?.to_owned())
}

/// The first and the last of the ports the kernel gives to outgoing connections.
pub(crate) fn ephemeral_ports() -> Result<(u16, u16)> {
    ephemeral_ports_in(Path::new("/proc/sys/net/ipv4/ip_local_port_range"))
}

/// The same from a file.
pub(crate) fn ephemeral_ports_in(path: &Path) -> Result<(u16, u16)> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => Ok((first, last)),
        _ => anyhow::bail!("cannot understand {}: `{}`", path.display(), text.trim()),
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
        assert_eq!(soft_limit(text).unwrap(), "1024");
        assert_eq!(soft_limit("Max processes  500  500  processes"), None);
        assert!(descriptor_limit(std::process::id()).is_ok());
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
