//! Peers that vanish without a word: no FIN, no RST, as when a machine loses its power.
//!
//! A connection is opened, and then taken down in the client's kernel alone (`TCP_REPAIR`). The target has
//! it still, and learns of it only by its own deadlines or probes. Needs CAP_NET_ADMIN, and a target of this machine
//! to count what it has; else the silent crowd beside it is all there is.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Check, Facts, crowd, held};

/// Peers that vanished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vanished {
    pub(crate) peers: u64,
    /// Connections without a peer that the target had right after, and at the end.
    pub(crate) held_then: u64,
    pub(crate) held_at_the_end: u64,
}

/// Opens so many connections and takes them down without telling the target.
pub(crate) fn vanish(target: SocketAddr, peers: usize) -> Result<Vanished> {
    for _ in 0..peers {
        let stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))
            .with_context(|| format!("cannot connect to {target}"))?;
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the value as long as is said.
        let result = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_REPAIR,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).context("cannot let a peer vanish (TCP_REPAIR needs CAP_NET_ADMIN)");
        }
        // In repair mode the kernel closes without a packet.
    }
    let held = half_open(target)?;
    Ok(Vanished { peers: peers as u64, held_then: held, held_at_the_end: held })
}

/// How many connections at the target's port are established there and have no other end on this machine.
pub(crate) fn half_open(target: SocketAddr) -> Result<u64> {
    let path = if target.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(count_half_open(&text, target.port()))
}

/// Of a `/proc/net/tcp`: sockets at the port whose counterpart is not listed.
fn count_half_open(text: &str, port: u16) -> u64 {
    let suffix = format!(":{port:04X}");
    let sockets = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        // 01 is ESTABLISHED.
        (state == "01").then_some((local, remote))
    });
    let all: std::collections::HashSet<(&str, &str)> = sockets.collect();
    let is_alone = |&&(local, remote): &&(&str, &str)| {
        local.ends_with(&suffix) && !remote.ends_with(&suffix) && !all.contains(&(remote, local))
    };
    all.iter().filter(is_alone).count() as u64
}

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = crowd::checks(facts);
    if let Some(Vanished { peers, held_then, held_at_the_end }) = facts.vanished {
        checks.push(held(
            "peers vanished",
            format!("{peers} peers vanished without a word while the others were served"),
            held_then > 0 || peers == 0,
            Some(format!(
                "the target had {held_then} connections without a peer then, {held_at_the_end} at the end"
            )),
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_without_a_counterpart_are_counted() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
             0: 0100007F:1F90 00000000:0000 0A 0\n\
             1: 0100007F:1F90 0100007F:C001 01 0\n\
             2: 0100007F:C001 0100007F:1F90 01 0\n\
             3: 0100007F:1F90 0100007F:C002 01 0\n\
             4: 0100007F:1F90 0100007F:C003 06 0\n";
        assert_eq!(count_half_open(text, 0x1F90), 1);
        assert_eq!(count_half_open(text, 0xC001), 0);
        assert_eq!(count_half_open("", 80), 0);
    }
}
