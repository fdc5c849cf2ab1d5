//! Where something was measured: the machine, its settings, and what was built how.

use std::collections::BTreeMap;
use std::fs;

use nix::sched::sched_getaffinity;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Settings of the kernel that change how many connections stand and how fast they are.
const SYSCTLS: [&str; 34] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.pid_max",
    "kernel.threads-max",
    "net.core.busy_poll",
    "net.core.busy_read",
    "net.core.default_qdisc",
    "net.core.netdev_budget",
    "net.core.netdev_max_backlog",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.rps_sock_flow_entries",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_autocorking",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
    "vm.max_map_count",
];

/// A machine as it was found, and the command that found it so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) host: String,
    /// Name, release and version of the kernel.
    pub(crate) kernel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_model: Option<String>,
    /// CPUs that are online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<usize>,
    /// CPUs that this process might use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpus_allowed: Option<usize>,
    /// How the frequency of the first CPU is governed; virtual machines do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_governor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    /// Of the minute before the start: others at work put a run in doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) load_average: Option<f64>,
    /// Settings of the kernel; those it does not have are left out.
    #[serde(default)]
    pub(crate) sysctls: BTreeMap<String, String>,
    /// Limits of the process, soft and hard; `unlimited` if there is none.
    #[serde(default)]
    pub(crate) limits: BTreeMap<String, [String; 2]>,
    /// Of corelane-bench, of the compiler and of the peers it was built beside.
    #[serde(default)]
    pub(crate) versions: BTreeMap<String, String>,
    /// The commit this was built from; `-dirty` after it if files had been changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<String>,
    /// With which optimisation it was built, as in `release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build_profile: Option<String>,
    pub(crate) command_line: Vec<String>,
}

impl Environment {
    /// Of this machine and this process, now. What cannot be told is left out.
    pub(crate) fn capture() -> Self {
        let (host, kernel) = uname().map_or_else(
            |_| (String::new(), String::new()),
            |name| {
                let part = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
                let kernel = [name.sysname(), name.release(), name.version()].map(part).join(" ");
                (part(name.nodename()), kernel)
            },
        );
        let cpu_info = read("/proc/cpuinfo").unwrap_or_default();
        Self {
            host,
            kernel,
            cpu_model: field(&cpu_info, "model name").map(ToOwned::to_owned),
            cpus: read("/sys/devices/system/cpu/online").and_then(|list| list_length(&list)),
            cpus_allowed: cpus_allowed(),
            cpu_governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: read("/proc/meminfo").as_deref().and_then(memory_bytes),
            load_average: read("/proc/loadavg").and_then(|text| text.split_whitespace().next()?.parse().ok()),
            sysctls: sysctls(),
            limits: limits(),
            versions: versions(),
            commit: option_env!("CORELANE_BENCH_COMMIT").map(ToOwned::to_owned),
            build_profile: option_env!("CORELANE_BENCH_PROFILE").map(ToOwned::to_owned),
            command_line: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }
}

/// The text of a small file of the kernel, without the last line's end.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, v)| v.trim())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// How many numbers a list as in `0-3,7` names.
fn list_length(list: &str) -> Option<usize> {
    list.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            last.checked_sub(first).map(|more| more + 1)
        })
        .sum()
}

fn cpus_allowed() -> Option<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).ok()?;
    Some((0..nix::sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).count())
}

fn sysctls() -> BTreeMap<String, String> {
    let value = |name: &str| {
        let text = read(&format!("/proc/sys/{}", name.replace('.', "/")))?;
        Some((name.to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    SYSCTLS.into_iter().filter_map(value).collect()
}

fn limits() -> BTreeMap<String, [String; 2]> {
    let wanted = [
        ("open files", Resource::RLIMIT_NOFILE),
        ("processes", Resource::RLIMIT_NPROC),
        ("locked memory", Resource::RLIMIT_MEMLOCK),
        ("address space", Resource::RLIMIT_AS),
    ];
    let text = |value| {
        if value == nix::sys::resource::RLIM_INFINITY { "unlimited".to_owned() } else { format!("{value}") }
    };
    wanted
        .into_iter()
        .filter_map(|(name, resource)| {
            let (soft, hard) = getrlimit(resource).ok()?;
            Some((name.to_owned(), [text(soft), text(hard)]))
        })
        .collect()
}

/// What the build script found, as `name version` separated by semicolons, and this package.
fn versions() -> BTreeMap<String, String> {
    let of_build = option_env!("CORELANE_BENCH_VERSIONS").unwrap_or_default();
    let mut versions: BTreeMap<String, String> = of_build
        .split(';')
        .filter_map(|entry| entry.split_once(' '))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect();
    versions.insert("corelane-bench".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_lists_are_read() {
        let cpu_info = "processor\t: 0\nmodel name\t: Some CPU @ 3: GHz\n\nprocessor\t: 1\nmodel name\t: x\n";
        assert_eq!(field(cpu_info, "model name"), Some("Some CPU @ 3: GHz"));
        assert_eq!(field(cpu_info, "flags"), None);
        assert_eq!(memory_bytes("MemTotal:       2 kB\nMemFree: 1 kB\n"), Some(2_048));
        assert_eq!(memory_bytes("MemTotal: much\n"), None);
        assert_eq!([list_length("0-3,7"), list_length("0"), list_length("x")], [Some(5), Some(1), None]);
    }

    #[test]
    fn this_machine_is_described() {
        let here = Environment::capture();
        assert!(here.kernel.len() > 5 && !here.host.is_empty(), "{here:?}");
        assert!(here.cpus_allowed.unwrap() >= 1);
        assert!(here.sysctls.contains_key("net.core.somaxconn"), "{here:?}");
        assert!(here.limits["open files"][0].parse::<u64>().unwrap() > 0);
        assert_eq!(here.versions["corelane-bench"], env!("CARGO_PKG_VERSION"));
        assert!(here.versions["rustc"].contains('.'), "{here:?}");
        assert!(here.versions.contains_key("mio"), "{here:?}");
        assert!(!here.command_line.is_empty());
    }
}
