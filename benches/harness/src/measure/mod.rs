//! What a run costs, read from outside of the processes that are measured, so that measuring wakes none of them:
//! memory, CPU time, context switches, system calls, and the kernel's own counters of what it dropped.
//!
//! For `stand` and for whoever starts servers.

pub(crate) mod kernel;
pub(crate) mod memory;
mod syscalls;
mod usage;

pub(crate) use usage::{Meter, Used};
