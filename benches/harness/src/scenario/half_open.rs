//! Peers that vanish without a word: no FIN, no RST, as when a machine loses its power.
//!
//! A connection is opened, and then taken down in the client's kernel alone (`TCP_REPAIR`). The target has
//! it still, and learns of it only by its own deadlines or probes. Needs CAP_NET_ADMIN: without it no peer vanishes, and
//! the scenario fails, as the silent crowd beside is not what was asked for. What the target has of them can be counted
//! on its own machine only; elsewhere it is not asserted.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use corelane::Address;

use super::{Check, Facts, crowd, held};

/// How long the target's end of a connection may take to stand where the client's does.
const PATIENCE: Duration = Duration::from_secs(1);

/// The states of sockets in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// How an IPv4 address begins in `/proc/net/tcp6`.
const MAPPED: &str = "0000000000000000FFFF0000";

/// What came of peers that were to vanish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Vanished {
    /// They could not, and why.
    NotDone(String),
    Done {
        peers: u64,
        /// `None` where the target's connections cannot be counted.
        left: Option<Left>,
    },
}

/// Connections without a peer that the target had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) before: u64,
    /// Right after the peers had vanished.
    pub(crate) then: u64,
    pub(crate) at_the_end: u64,
}

impl Vanished {
    /// Looks again at what the target has, at the end.
    pub(crate) fn end(&mut self, target: &Address) {
        if let (Self::Done { left: Some(left), .. }, Address::Tcp(target)) = (self, target) {
            left.at_the_end = half_open(*target).unwrap_or_default();
        }
    }
}

/// Opens so many connections and takes them down without telling the target.
pub(crate) fn vanish(target: &Address, peers: usize) -> Vanished {
    let Address::Tcp(target) = target else {
        return Vanished::NotDone(
            "both ends of a Unix socket are in one kernel, so no peer can vanish".to_owned(),
        );
    };
    let before = half_open(*target);
    for _ in 0..peers {
        if let Err(error) = vanish_one(*target) {
            return Vanished::NotDone(format!("{error:#}"));
        }
    }
    let left = before.map(|before| {
        let until = Instant::now() + PATIENCE;
        let mut then = half_open(*target).unwrap_or_default();
        while then < before + peers as u64 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
            then = then.max(half_open(*target).unwrap_or_default());
        }
        Left { before, then, at_the_end: then }
    });
    Vanished::Done { peers: peers as u64, left }
}

fn vanish_one(target: SocketAddr) -> Result<()> {
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
        return Err(error).context("the kernel refuses TCP_REPAIR (needs CAP_NET_ADMIN)");
    }
    // In repair mode the kernel closes without a packet.
    Ok(())
}

/// How many connections at the target's port are established there and have no other end on this machine; `None` if
/// nothing listens there on this machine.
fn half_open(target: SocketAddr) -> Option<u64> {
    let is_here = UdpSocket::bind((target.ip(), 0)).is_ok();
    // A listener of both families has its IPv4 connections among those of IPv6. One that is not read has none.
    let text: String =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    count_half_open(&text, target.port()).filter(|_| is_here)
}

/// Of `/proc/net/tcp` and `tcp6`: sockets at the port whose counterpart is not listed; `None` if none listens there.
fn count_half_open(text: &str, port: u16) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    let sockets = || {
        text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            Some((plain(local), plain(remote), state))
        })
    };
    let listens = sockets().any(|(local, _, state)| state == LISTEN && local.ends_with(&suffix));
    let established = sockets().filter(|(.., state)| *state == ESTABLISHED);
    let all: HashSet<(&str, &str)> = established.map(|(local, remote, _)| (local, remote)).collect();
    let is_alone = |&&(local, remote): &&(&str, &str)| {
        local.ends_with(&suffix) && !remote.ends_with(&suffix) && !all.contains(&(remote, local))
    };
    listens.then(|| all.iter().filter(is_alone).count() as u64)
}

/// An address as `/proc/net/tcp` has it, of either file.
fn plain(address: &str) -> &str {
    address.strip_prefix(MAPPED).unwrap_or(address)
}

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = crowd::checks(facts);
    checks.push(check(facts.vanished));
    checks
}

fn check(vanished: Option<&Vanished>) -> Check {
    let asserted = |peers: &str| format!("{peers} vanished without a word while the others were served");
    let name = "peers vanished";
    let why = match vanished {
        Some(Vanished::Done { peers, left: Some(Left { before, then, at_the_end }) }) => {
            let detail = format!(
                "the target had {before} connections without a peer before, {then} then, {at_the_end} at the end"
            );
            let is_shown = *then >= before + peers;
            return held(name, asserted(&format!("{peers} peers")), is_shown, Some(detail));
        }
        Some(Vanished::Done { peers, left: None }) => {
            let detail = "nothing listens at its port on this machine: what it had of them is not known here";
            return held(name, asserted(&format!("{peers} peers")), true, Some(detail.to_owned()));
        }
        Some(Vanished::NotDone(why)) => why.as_str(),
        None => "the run did not come to it",
    };
    held(name, asserted("peers"), false, Some(format!("not done: {why}")))
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
        assert_eq!(count_half_open(text, 0x1F90), Some(1));
        assert_eq!(count_half_open(text, 0xC001), None, "nobody listens there");
        assert_eq!(count_half_open("", 80), None);
    }

    #[test]
    fn a_listener_of_both_families_is_looked_through() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
             0: 0100007F:C001 0100007F:1F90 01 0\n  sl  local_address remote_address st tx_queue\n\
             0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n\
             1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:C001 01 0\n\
             2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:C002 01 0\n";
        assert_eq!(count_half_open(text, 0x1F90), Some(1));
    }

    #[test]
    fn as_many_as_vanished_must_be_left() {
        let held = |left| check(Some(&Vanished::Done { peers: 3, left })).held;
        assert!(held(Some(Left { before: 0, then: 3, at_the_end: 0 })));
        assert!(!held(Some(Left { before: 0, then: 2, at_the_end: 2 })));
        assert!(!held(Some(Left { before: 2, then: 4, at_the_end: 4 })), "two were there before");
        assert!(held(None), "elsewhere they cannot be counted");
    }

    #[test]
    fn what_was_not_done_does_not_hold() {
        let refused = check(Some(&Vanished::NotDone("refused".to_owned())));
        assert_eq!((refused.held, refused.detail.as_deref()), (false, Some("not done: refused")));
        assert!(!check(None).held);
        let unix = vanish(&"unix:/no/such/socket".parse().unwrap(), 1);
        assert!(matches!(unix, Vanished::NotDone(why) if why.contains("Unix")));
    }
}
