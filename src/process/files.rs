use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many descriptors the process may hold (`RLIMIT_NOFILE`, [getrlimit(2)]).
///
/// [getrlimit(2)]: https://man7.org/linux/man-pages/man2/getrlimit.2.html
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimit {
    /// The soft limit before the server raised it.
    pub before: u64,
    /// The soft limit now: the one that counts.
    pub now: u64,
    /// The hard limit, up to which the soft one can be raised without privilege.
    pub hard: u64,
}

/// Raises the soft limit to the hard one.
pub(crate) fn raise_file_limit() -> io::Result<FileLimit> {
    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // macOS takes no more than OPEN_MAX although it calls the hard limit infinite (setrlimit(2) there).
    let wanted = if cfg!(target_vendor = "apple") { hard.min(10_240) } else { hard };
    if before < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    let (now, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(FileLimit { before: unsigned(before), now: unsigned(now), hard: unsigned(hard) })
}

/// FreeBSD counts in signed numbers, whose largest stands for no limit.
#[cfg(target_os = "freebsd")]
fn unsigned(limit: libc::rlim_t) -> u64 {
    limit as u64
}

#[cfg(not(target_os = "freebsd"))]
fn unsigned(limit: libc::rlim_t) -> u64 {
    limit
}
