//! What the host allows, as the kernel tells it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::cgroup::{self, Bounded};
use crate::limits;

/// What a small request and its reply can put into the queue of one CPU: each a packet and what acknowledges it.
pub(super) const PACKETS_PER_REQUEST: u64 = 4;

/// The limits of this host that many connections meet. `None`: this system does not tell, or has no such limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// RLIMIT_NOFILE, soft and hard.
    pub(crate) files: (u64, u64),
    /// To what RLIMIT_NOFILE may be raised by whoever may raise it.
    pub(crate) nr_open: Option<u64>,
    /// Open files of the whole system.
    pub(crate) file_max: Option<Bounded>,
    /// Descriptors that one user may have in epoll instances.
    pub(crate) epoll_watches: Option<u64>,
    /// The first and the last port for outgoing connections.
    pub(crate) ports: (u16, u16),
    /// Bytes that can be had without swapping.
    pub(crate) memory: Option<u64>,
    /// All memory there is, in pages.
    pub(crate) memory_pages: Option<u64>,
    pub(crate) cgroup_memory: Option<Bounded>,
    pub(crate) cgroup_pids: Option<Bounded>,
    /// Processes and threads of this user.
    pub(crate) processes: Option<u64>,
    pub(crate) pid_max: Option<u64>,
    pub(crate) conntrack: Option<Conntrack>,
    pub(crate) somaxconn: Option<u64>,
    /// Packets that may wait for one CPU; those over loopback do.
    pub(crate) packet_backlog: Option<u64>,
    /// Pages of TCP's buffers: the last two values are where the kernel presses, and where it stops.
    pub(crate) tcp_mem: Option<[u64; 3]>,
}

/// The kernel's table of connections for its packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conntrack {
    pub(crate) table: Bounded,
    /// Without a rule that asks for it, nothing is tracked, whatever the table's size.
    pub(crate) is_tracking: bool,
}

impl Host {
    /// Of the host that this process runs on.
    pub(crate) fn read() -> Result<Self> {
        let files = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
        let (processes, _) = getrlimit(Resource::RLIMIT_NPROC).context("cannot read RLIMIT_NPROC")?;
        let mut host = Self::read_from(Path::new("/"), files)?;
        host.processes = Some(processes).filter(|&limit| limit != RLIM_INFINITY);
        if let Some(conntrack) = &mut host.conntrack {
            conntrack.is_tracking = is_tracking(conntrack.table.used);
        }
        Ok(host)
    }

    /// From the files below `root`.
    pub(super) fn read_from(root: &Path, files: (u64, u64)) -> Result<Self> {
        let sysctl = |name: &str| numbers::<u64>(&root.join("proc/sys").join(name));
        let one = |name: &str| sysctl(name).and_then(|values| values.first().copied());
        // file-nr: handed out, always 0, the most.
        let file_max = sysctl("fs/file-nr").and_then(|values| match values[..] {
            [used, _, limit] => Some(Bounded { limit, used }),
            _ => None,
        });
        let conntrack = one("net/netfilter/nf_conntrack_max").map(|limit| Conntrack {
            table: Bounded { limit, used: one("net/netfilter/nf_conntrack_count").unwrap_or(0) },
            is_tracking: false,
        });
        Ok(Self {
            files,
            nr_open: one("fs/nr_open"),
            file_max,
            epoll_watches: one("fs/epoll/max_user_watches"),
            ports: limits::ephemeral_ports_in(&root.join("proc/sys/net/ipv4/ip_local_port_range"))?,
            memory: meminfo(root, "MemAvailable:"),
            memory_pages: meminfo(root, "MemTotal:").map(|bytes| bytes / page_bytes()),
            cgroup_memory: cgroup::memory(root),
            cgroup_pids: cgroup::pids(root),
            processes: None,
            pid_max: one("kernel/pid_max"),
            conntrack,
            somaxconn: one("net/core/somaxconn"),
            packet_backlog: one("net/core/netdev_max_backlog"),
            tcp_mem: sysctl("net/ipv4/tcp_mem").and_then(|values| values.try_into().ok()),
        })
    }

    /// Small requests that may be under way over loopback at a time without a packet that is dropped.
    pub(crate) fn wave(&self) -> Option<u64> {
        self.packet_backlog.map(|packets| (packets / PACKETS_PER_REQUEST).max(1))
    }

    /// How many ports there are for outgoing connections.
    pub(crate) fn port_count(&self) -> u64 {
        u64::from(self.ports.1 - self.ports.0) + 1
    }
}

/// The numbers in a file of one line.
fn numbers<T: FromStr>(path: &Path) -> Option<Vec<T>> {
    let text = fs::read_to_string(path).ok()?;
    let numbers: Vec<T> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    (!numbers.is_empty()).then_some(numbers)
}

/// A line of `/proc/meminfo` in bytes.
fn meminfo(root: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn page_bytes() -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|page| u64::try_from(page).ok()).filter(|&page| page > 0).unwrap_or(4_096)
}

/// Whether a connection over loopback is tracked: one is made, and the table looked at.
///
/// If no connection can be made, what was there before has to do.
fn is_tracking(before: u64) -> bool {
    let connect = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        std::io::Result::Ok((listener, client))
    };
    let held = connect();
    let count = numbers::<u64>(Path::new("/proc/sys/net/netfilter/nf_conntrack_count"));
    drop(held);
    count.and_then(|values| values.first().copied()).unwrap_or(before) > 0
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A host with room for everything but for so many descriptors in a process.
    pub(in crate::preflight) fn host(files: u64) -> Host {
        Host {
            files: (files.min(1_024), files),
            nr_open: Some(1 << 20),
            file_max: Some(Bounded { limit: 1 << 30, used: 1_000 }),
            epoll_watches: Some(1 << 30),
            ports: (32_768, 60_999),
            memory: Some(1 << 40),
            memory_pages: Some(1 << 24),
            cgroup_memory: None,
            cgroup_pids: None,
            processes: None,
            pid_max: Some(1 << 22),
            conntrack: None,
            somaxconn: Some(4_096),
            packet_backlog: Some(1 << 30),
            tcp_mem: Some([1 << 30, 1 << 31, 1 << 32]),
        }
    }

    /// A folder that looks like a host's root, as far as files were put there.
    fn root(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("corelane-bench-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_files_are_understood() {
        let root = root(
            "host",
            &[
                ("proc/sys/fs/file-nr", "1504\t0\t2466177\n"),
                ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
                ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
                ("proc/sys/net/ipv4/tcp_mem", "287901\t383868\t575802\n"),
                ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
                ("proc/sys/net/netfilter/nf_conntrack_count", "7\n"),
                ("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:   23508 kB\n"),
                ("proc/self/cgroup", "4:memory:/a/b\n8:pids:/\n0::/x/y\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000\n"),
                ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1000\n"),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/x/y/pids.max", "max\n"),
                ("sys/fs/cgroup/x/pids.max", "512\n"),
                ("sys/fs/cgroup/x/pids.current", "12\n"),
            ],
        );
        let host = Host::read_from(&root, (1_024, 20_000)).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(host.file_max, Some(Bounded { limit: 2_466_177, used: 1_504 }));
        assert_eq!(host.memory_pages, Some(100 * 1_024 / page_bytes()));
        assert_eq!((host.port_count(), host.memory), (28_232, Some(23_508 * 1_024)));
        assert_eq!((host.packet_backlog, host.wave()), (Some(1_000), Some(250)));
        assert_eq!(host.tcp_mem, Some([287_901, 383_868, 575_802]));
        assert_eq!(host.conntrack.unwrap().table, Bounded { limit: 262_144, used: 7 });
        assert_eq!(host.cgroup_memory, Some(Bounded { limit: 5_000, used: 1_000 }));
        assert_eq!(host.cgroup_pids, Some(Bounded { limit: 512, used: 12 }));
        assert_eq!((host.nr_open, host.somaxconn), (None, None));
    }

    #[test]
    fn a_host_without_ports_is_named() {
        let root = root("no-ports", &[("proc/meminfo", "")]);
        let error = Host::read_from(&root, (1, 1)).unwrap_err().to_string();
        fs::remove_dir_all(&root).unwrap();
        assert!(error.contains("ip_local_port_range"), "{error}");
    }

    #[test]
    fn this_host_is_read() {
        let host = Host::read().unwrap();
        assert!(host.files.1 > 0 && host.memory.unwrap() > 1 << 20, "{host:?}");
    }
}
