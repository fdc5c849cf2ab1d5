use std::io;

/// The CPUs that this process may run on, in ascending order.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Binds the calling thread to one CPU.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) fn pin_to(cpu: usize) -> io::Result<()> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?)
}

/// This platform does not say.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this platform has no CPU affinity"))
}

/// This platform has only hints.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub(crate) fn pin_to(_cpu: usize) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this platform has no CPU affinity"))
}
