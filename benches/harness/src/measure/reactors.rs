//! How evenly a server on this machine spreads its connections over its event loops, seen from outside.
//!
//! An event loop is an epoll instance that watches sockets of the server's port: the kernel lists what each watches
//! (`/proc/PID/fdinfo`), and how much every socket has received (sock_diag(7)). So it is known of any server that
//! uses epoll, and of none that does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};

use socket2::{Domain, Protocol, Socket, Type};

use crate::result::Skew;

/// Of linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const MESSAGE_DONE: u16 = 3;
const MESSAGE_ERROR: u16 = 2;
const HEADER: usize = 16;
const DIAG_MESSAGE: usize = 72;
const INODE_AT: usize = 68;
const STATE_AT: usize = 1;
const ATTRIBUTE_INFO: u16 = 2;
/// `tcpi_bytes_received` in `struct tcp_info`.
const BYTES_RECEIVED_AT: usize = 128;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// What the kernel sends at a time, at most.
const DUMP: usize = 64 * 1024;

/// A socket of the server's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    is_listener: bool,
    received: u64,
}

/// One event loop at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Loop {
    connections: u64,
    received: u64,
}

/// The event loops of a server at one moment, by process and descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reactors(BTreeMap<(u32, u32), Loop>);

impl Reactors {
    /// Those of these processes that watch sockets of this port; `None` if that cannot be seen.
    pub(crate) fn of(pids: &[u32], port: u16) -> Option<Self> {
        let sockets = sockets(port).ok()?;
        let mut loops = BTreeMap::new();
        for &pid in pids {
            for (descriptor, watched) in epolls(pid)? {
                let of_port: Vec<&Seen> = watched.iter().filter_map(|inode| sockets.get(inode)).collect();
                if of_port.is_empty() {
                    continue;
                }
                let connections = of_port.iter().filter(|seen| !seen.is_listener);
                let each = Loop {
                    connections: connections.clone().count() as u64,
                    received: connections.map(|seen| seen.received).sum(),
                };
                loops.insert((pid, descriptor), each);
            }
        }
        Some(Self(loops))
    }

    /// The connections now, and the messages of `bytes` each that came in since; `None` of a single event loop.
    pub(crate) fn skew_since(&self, before: &Self, bytes: Option<f64>) -> Option<Skew> {
        if self.0.len() < 2 {
            return None;
        }
        let came = |(place, now): (&(u32, u32), &Loop)| {
            let earlier = before.0.get(place).copied().unwrap_or_default();
            now.received.saturating_sub(earlier.received)
        };
        let messages = bytes.filter(|bytes| *bytes > 0.0).map(|bytes| {
            self.0.iter().map(|reactor| (came(reactor) as f64 / bytes).round() as u64).collect()
        });
        Some(Skew {
            connections: self.0.values().map(|reactor| reactor.connections).collect(),
            messages: messages.unwrap_or_default(),
        })
    }
}

/// The epoll instances of a process, with the inodes of what they watch. One that has several descriptors comes once.
fn epolls(pid: u32) -> Option<Vec<(u32, BTreeSet<u32>)>> {
    let mut found: Vec<(u32, BTreeSet<u32>)> = Vec::new();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut descriptors: Vec<u32> = entries
        .filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]")
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    descriptors.sort_unstable();
    for descriptor in descriptors {
        let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
        let watched: BTreeSet<u32> = text.lines().filter_map(watched_inode).collect();
        if !found.iter().any(|(_, other)| *other == watched) {
            found.push((descriptor, watched));
        }
    }
    Some(found)
}

/// The inode in a line like `tfd: 9 events: 1d data: 0 pos:0 ino:1f sdev:8`.
fn watched_inode(line: &str) -> Option<u32> {
    let rest = line.strip_prefix("tfd:")?;
    let inode = rest.split_whitespace().find_map(|word| word.strip_prefix("ino:"))?;
    u32::from_str_radix(inode, 16).ok()
}

/// The TCP sockets of this network namespace with this local port, by inode.
fn sockets(port: u16) -> io::Result<BTreeMap<u32, Seen>> {
    let mut found = BTreeMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let protocol = Protocol::from(NETLINK_SOCK_DIAG);
        let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol))?;
        socket.write_all(&question(family as u8, port))?;
        let mut dump = vec![0; DUMP];
        loop {
            let length = socket.read(&mut dump)?;
            if !take(&dump[..length], &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// Asks for all listeners and established connections of a port.
fn question(family: u8, port: u16) -> [u8; DIAG_MESSAGE] {
    let mut message = [0; DIAG_MESSAGE];
    message[..4].copy_from_slice(&(DIAG_MESSAGE as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    let body = &mut message[HEADER..];
    (body[0], body[1], body[2]) = (family, libc::IPPROTO_TCP as u8, 1 << (ATTRIBUTE_INFO - 1));
    let states = 1_u32 << ESTABLISHED | 1 << LISTEN;
    body[4..8].copy_from_slice(&states.to_ne_bytes());
    body[8..10].copy_from_slice(&port.to_be_bytes());
    message
}

/// Takes in a part of the answer; `false` if it was the last.
fn take(mut answer: &[u8], found: &mut BTreeMap<u32, Seen>) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(answer, 0), u16_at(answer, 4)) {
        let length = length as usize;
        match kind {
            MESSAGE_DONE => return Ok(false),
            MESSAGE_ERROR => return Err(io::ErrorKind::Unsupported.into()),
            _ => {}
        }
        let Some(message) = answer.get(HEADER..length) else { break };
        if let (Some(inode), Some(&state)) = (u32_at(message, INODE_AT), message.get(STATE_AT)) {
            let received = message.get(DIAG_MESSAGE..).and_then(bytes_received).unwrap_or(0);
            found.insert(inode, Seen { is_listener: state == LISTEN, received });
        }
        let Some(rest) = answer.get(length.next_multiple_of(4)..) else { break };
        answer = rest;
    }
    Ok(true)
}

/// Of the attributes behind a message.
fn bytes_received(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let (length, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        let value = attributes.get(4..length)?;
        if kind == ATTRIBUTE_INFO {
            let bytes = value.get(BYTES_RECEIVED_AT..BYTES_RECEIVED_AT + 8)?;
            return bytes.try_into().ok().map(u64::from_ne_bytes);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

    use super::*;

    /// Two event loops of this process: one has the listener and one connection, the other three.
    #[test]
    fn connections_and_bytes_are_told_by_event_loop() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let loops: [Epoll; 2] = std::array::from_fn(|_| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        loops[0].add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
        let mut pairs = Vec::new();
        for index in 0..4 {
            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (server, _) = listener.accept().unwrap();
            let of = &loops[usize::from(index > 0)];
            of.add(&server, EpollEvent::new(EpollFlags::EPOLLIN, 1)).unwrap();
            pairs.push((client, server));
        }
        // Another descriptor of the same instance is no other event loop.
        let _again = loops[1].0.try_clone().unwrap();
        let pids = [std::process::id()];
        let before = Reactors::of(&pids, port).unwrap();
        for (client, server) in &mut pairs {
            client.write_all(&[7; 100]).unwrap();
            server.read_exact(&mut [0; 100]).unwrap();
        }
        let skew = Reactors::of(&pids, port).unwrap().skew_since(&before, Some(50.0)).unwrap();
        assert_eq!(skew, Skew { connections: vec![1, 3], messages: vec![2, 6] });
        let unknown = before.skew_since(&before, None).unwrap();
        assert!(unknown.messages.is_empty());
        assert_eq!(Reactors::of(&pids, 1).unwrap().skew_since(&before, None), None);
    }

    #[test]
    fn what_is_watched_is_read() {
        let line = "tfd:        9 events: 8000001d data:       100000000  pos:0 ino:1f3a sdev:8";
        assert_eq!(watched_inode(line), Some(0x1f3a));
        assert_eq!(watched_inode("ino:\t1057"), None);
    }
}
