//! Each limit against what a run needs of it.

use serde::Serialize;
use serde_json::Value;

use super::host::{Host, PACKETS_PER_REQUEST};
use super::layout::Layout;
use crate::output::format::{bytes, count};

/// What the kernel keeps for one end of an idle connection over loopback: socket, file, directory entry, epoll's
/// entry. Measured: 9.8 to 10.1 KB a pair, on Linux 6.18. `corelane-tune size` reckons with the same.
pub(crate) const KERNEL_BYTES_PER_END: u64 = 5_040;

/// What corelane keeps in the server for a connection, at most.
const SERVER_BYTES: u64 = 160;

/// What the client of this program keeps for a connection.
const CLIENT_BYTES: u64 = 400;

/// What a process of this program takes before it has any connection.
const BYTES_PER_PROCESS: u64 = 3 << 20;

/// What a small message takes in the kernel while it is under way: its buffer and that of its reply.
const BYTES_IN_FLIGHT: u64 = 2 * 1_280;

/// Threads of a process with one reactor: that, the channel's, the signals', the main one.
const THREADS: u64 = 4;

/// What a queue of connections that nobody has accepted should hold: what corelane asks for.
const BACKLOG: u64 = 4_096;

/// Below these `corelane-tune audit` calls a value lowered, and above this one a queue of packets mere delay: what it
/// calls harmful is not advised here.
const LEAST_FILE_MAX: u64 = 262_144;
const LEAST_NR_OPEN: u64 = 1 << 20;
const LEAST_CONNTRACK: u64 = 65_536;
const MOST_PACKETS: u64 = 100_000;

/// Which ends of the connections are on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Both,
    Server,
    Client,
}

/// What is to be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need<'a> {
    pub(crate) role: Role,
    /// Connections that were asked for.
    pub(crate) connections: u64,
    /// How they are spread.
    pub(crate) layout: &'a Layout,
    /// Messages in flight at a time; `None`: one on every connection.
    pub(crate) in_flight: Option<u64>,
}

/// How a limit stands to what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Fits,
    /// It is in the way, and there is a way around it that needs no change of the host.
    Around,
    /// It does not stop anything, but slows it down.
    Slower,
    Lacking,
}

/// One limit of the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Limit {
    /// `RLIMIT_NOFILE`, a sysctl in dotted form, or a file of a control group.
    pub(crate) name: &'static str,
    /// As the kernel tells it; null if it does not.
    pub(crate) current: Value,
    pub(crate) needed: Value,
    pub(crate) unit: &'static str,
    pub(crate) verdict: Verdict,
    /// The way around that is taken.
    pub(crate) around: Option<String>,
    /// What to change; null if nothing.
    pub(crate) advice: Option<String>,
}

impl Limit {
    fn new(name: &'static str, unit: &'static str, current: impl Into<Value>, needed: u64) -> Self {
        let (current, needed) = (current.into(), needed.into());
        Self { name, current, needed, unit, verdict: Verdict::Fits, around: None, advice: None }
    }

    /// Whether it bounds the descriptors of a process, so that fewer connections would fit.
    pub(crate) fn is_of_descriptors(&self) -> bool {
        matches!(self.name, "RLIMIT_NOFILE" | "fs.nr_open")
    }

    /// Says what to change if the limit is exceeded.
    fn exceeded(mut self, is_exceeded: bool, verdict: Verdict, advice: impl FnOnce() -> String) -> Self {
        if is_exceeded {
            self.verdict = verdict;
            self.advice = Some(advice());
        }
        self
    }

    fn around(mut self, way: impl FnOnce() -> String) -> Self {
        if self.verdict == Verdict::Around {
            self.around = Some(way());
        }
        self
    }
}

/// What is needed of the whole host.
struct Totals {
    /// Ends of connections on this host.
    ends: u64,
    processes: u64,
    bytes: u64,
}

impl Need<'_> {
    fn totals(&self) -> Totals {
        let Layout { server_processes, client_processes, .. } = *self.layout;
        let (ends_each, processes, user) = match self.role {
            Role::Both => (2, server_processes + client_processes, SERVER_BYTES + CLIENT_BYTES),
            Role::Server => (1, server_processes, SERVER_BYTES),
            Role::Client => (1, client_processes, CLIENT_BYTES),
        };
        let each = ends_each * KERNEL_BYTES_PER_END + BYTES_IN_FLIGHT + user;
        let bytes = self.connections * each + processes * BYTES_PER_PROCESS;
        Totals { ends: self.connections * ends_each, processes, bytes }
    }
}

/// Every limit of the host that is known, in the order in which connections meet them.
pub(crate) fn judge(host: &Host, need: &Need<'_>) -> Vec<Limit> {
    let totals = need.totals();
    let mut limits = descriptors(host, need, &totals);
    if need.role != Role::Server {
        limits.push(ports(host, need));
    }
    limits.extend(memory(host, need, &totals));
    limits.extend(processes(host, &totals));
    limits.extend(network(host, need, &totals));
    limits
}

fn descriptors(host: &Host, need: &Need<'_>, totals: &Totals) -> Vec<Limit> {
    let Layout { connections, server_processes, client_processes, .. } = *need.layout;
    // In one process: how many it takes otherwise is the layout's.
    let needed = need.connections + 64;
    let (soft, hard) = host.files;
    let verdict = if connections >= need.connections { Verdict::Around } else { Verdict::Lacking };
    let way = || match need.role {
        Role::Both => format!("{server_processes} server and {client_processes} client processes"),
        Role::Server => format!("{server_processes} server processes"),
        Role::Client => format!("{client_processes} client processes"),
    };
    let is_spread = server_processes > 1 || client_processes > 1;
    let is_exceeded = connections < need.connections || is_spread && needed > hard;
    let mut limits = vec![
        Limit::new("RLIMIT_NOFILE", "descriptors in a process, hard limit", hard, needed)
            .exceeded(is_exceeded, verdict, || {
                format!(
                    "for one process: `ulimit -Hn {needed}` as root, LimitNOFILE={needed} in a systemd unit, \
                     or `--ulimit nofile={needed}` for a container (the soft limit, {soft}, is raised by itself)"
                )
            })
            .around(way),
    ];
    if let Some(nr_open) = host.nr_open {
        let limit = Limit::new("fs.nr_open", "what RLIMIT_NOFILE can be raised to", nr_open, needed);
        let is_lower = needed > nr_open && needed > hard;
        limits.push(
            limit.exceeded(is_lower, verdict, || sysctl("fs.nr_open", needed.max(LEAST_NR_OPEN))).around(way),
        );
    }
    if let Some(files) = host.file_max {
        let needed = files.used + totals.ends + totals.processes * 64;
        let limit = Limit::new("fs.file-max", "open files of the system", files.limit, needed);
        let advice = || sysctl("fs.file-max", needed.max(LEAST_FILE_MAX));
        limits.push(limit.exceeded(needed > files.limit, Verdict::Lacking, advice));
    }
    if let Some(watches) = host.epoll_watches {
        let name = "fs.epoll.max_user_watches";
        let limit = Limit::new(name, "descriptors in epoll, of a user", watches, totals.ends);
        limits.push(limit.exceeded(totals.ends > watches, Verdict::Lacking, || sysctl(name, totals.ends)));
    }
    limits
}

fn ports(host: &Host, need: &Need<'_>) -> Limit {
    let name = "net.ipv4.ip_local_port_range";
    let (first, last) = host.ports;
    let have = host.port_count();
    // Twice as many as are used, so that a free one is found soon.
    let needed = need.connections.saturating_mul(2);
    let current = format!("{first} {last}");
    let unit = "ports from one source address to one destination; twice the connections, to find one soon";
    let limit = Limit::new(name, unit, current, needed);
    let sources = need.layout.source_count();
    let is_one = sources == 0;
    let verdict = if is_one { Verdict::Slower } else { Verdict::Around };
    limit
        .exceeded(need.connections > have / 2, verdict, || {
            // Below 10240 are ports that services listen at.
            let more = need.connections.div_ceil(55_296 / 2);
            format!(
                "`sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"` gives 55296 ports an address; \
                 then {more} source or destination addresses"
            )
        })
        .around(|| format!("{sources} source addresses in 127/8, chosen with IP_BIND_ADDRESS_NO_PORT"))
}

fn memory(host: &Host, need: &Need<'_>, totals: &Totals) -> Vec<Limit> {
    let unit = "bytes";
    let advice = |available: u64| {
        let fit = need.connections as f64 * available as f64 / totals.bytes as f64;
        format!(
            "{} are needed ({} of kernel memory for each end, more while messages are under way): \
             hold at most {} connections, or add {}",
            bytes(totals.bytes),
            bytes(KERNEL_BYTES_PER_END),
            count(fit as u64),
            bytes(totals.bytes.saturating_sub(available))
        )
    };
    let available = host.memory.map(|available| {
        let limit = Limit::new("MemAvailable", unit, available, totals.bytes);
        limit.exceeded(totals.bytes > available, Verdict::Lacking, || advice(available))
    });
    let group = host.cgroup_memory.map(|group| {
        let limit = Limit::new("cgroup memory.max", unit, group.limit, group.used + totals.bytes);
        limit.exceeded(totals.bytes > group.left(), Verdict::Lacking, || advice(group.left()))
    });
    available.into_iter().chain(group).collect()
}

fn processes(host: &Host, totals: &Totals) -> Vec<Limit> {
    let threads = totals.processes * THREADS + 1;
    let unit = "processes and threads";
    let mut limits = Vec::new();
    if let Some(group) = host.cgroup_pids {
        let needed = group.used + threads;
        let limit = Limit::new("cgroup pids.max", unit, group.limit, needed);
        limits.push(limit.exceeded(threads > group.left(), Verdict::Lacking, || {
            format!("`echo {needed} > pids.max` of the group, `--pids-limit {needed}` for a container, or TasksMax=")
        }));
    }
    if let Some(current) = host.processes {
        let limit = Limit::new("RLIMIT_NPROC", unit, current, threads);
        limits.push(limit.exceeded(threads > current, Verdict::Lacking, || format!("`ulimit -u {threads}`")));
    }
    if let Some(current) = host.pid_max {
        let limit = Limit::new("kernel.pid_max", unit, current, threads);
        limits
            .push(limit.exceeded(threads > current, Verdict::Lacking, || sysctl("kernel.pid_max", threads)));
    }
    limits
}

fn network(host: &Host, need: &Need<'_>, totals: &Totals) -> Vec<Limit> {
    let mut limits = Vec::new();
    if let Some(conntrack) = host.conntrack {
        let name = "net.netfilter.nf_conntrack_max";
        let needed = if conntrack.is_tracking { conntrack.table.used + need.connections } else { 0 };
        let unit =
            if conntrack.is_tracking { "tracked connections" } else { "connections; none is tracked now" };
        let limit = Limit::new(name, unit, conntrack.table.limit, needed);
        limits.push(limit.exceeded(needed > conntrack.table.limit, Verdict::Lacking, || {
            let raised = sysctl(name, needed.max(LEAST_CONNTRACK));
            format!("{raised}, or exempt the port: `nft add rule .. notrack`")
        }));
    }
    if let Some(current) = host.somaxconn.filter(|_| need.role != Role::Client) {
        let name = "net.core.somaxconn";
        let limit =
            Limit::new(name, "connections that wait for an accept, for each listener", current, BACKLOG);
        limits.push(limit.exceeded(current < BACKLOG, Verdict::Slower, || {
            format!(
                "{}: opening is paced so that it does not overflow, others may not do so",
                sysctl(name, BACKLOG)
            )
        }));
    }
    if let (Some(packets), Role::Both) = (host.packet_backlog, need.role) {
        let name = "net.core.netdev_max_backlog";
        let needed = need.connections.saturating_mul(PACKETS_PER_REQUEST);
        let limit = Limit::new(name, "packets over loopback that wait for one CPU", packets, needed);
        let in_flight = need.in_flight.unwrap_or(need.connections).min(need.connections);
        let is_paced = in_flight.saturating_mul(PACKETS_PER_REQUEST) <= packets;
        let verdict = if is_paced { Verdict::Around } else { Verdict::Slower };
        let advice = || {
            let dropped = if is_paced { "" } else { "; a packet that is dropped is sent again, later" };
            let raised = sysctl(name, needed.min(MOST_PACKETS));
            if needed <= MOST_PACKETS {
                return format!("{raised}, so that every connection can have a message under way{dropped}");
            }
            let raise =
                if packets < MOST_PACKETS { format!("{raised} at most, and ") } else { String::new() };
            let most = MOST_PACKETS / PACKETS_PER_REQUEST;
            format!("{raise}no more than {most} messages under way: a longer queue is delay{dropped}")
        };
        limits.push(limit.exceeded(needed > packets, verdict, advice).around(|| {
            format!("{} messages are under way at a time, connection after connection", count(in_flight))
        }));
    }
    limits.extend(host.tcp_mem.map(|pages| tcp_mem(host, pages, totals)));
    limits
}

fn tcp_mem(host: &Host, [low, pressure, high]: [u64; 3], totals: &Totals) -> Limit {
    let name = "net.ipv4.tcp_mem";
    let unit = "pages, the third value; a page for each end with data under way, none for an idle one";
    let limit = Limit::new(name, unit, format!("{low} {pressure} {high}"), totals.ends);
    limit.exceeded(totals.ends > high, Verdict::Slower, || {
        let below =
            "the kernel shrinks windows, and still takes a message of less than 4 KiB on each connection";
        // A quarter of memory at most: the rest of the host needs it. A sixteenth is the kernel's own choice, about.
        let needed = host.memory_pages.map_or(totals.ends, |all| totals.ends.clamp(all / 16, all / 4));
        if needed <= high {
            return format!("fewer messages under way, or more memory: where the pages end, {below}");
        }
        let (first, second) = (needed / 2, needed / 4 * 3);
        format!("if all send at once: `sysctl -w {name}=\"{first} {second} {needed}\"`; below it {below}")
    })
}

fn sysctl(name: &str, value: u64) -> String {
    format!("`sysctl -w {name}={value}`")
}
