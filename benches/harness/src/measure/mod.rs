//! What a run costs, read from outside of the processes that are measured, so that measuring wakes none of them:
//! memory, CPU time, context switches, system calls, how evenly event loops are used, and the kernel's own counters of
//! what it dropped.
//!
//! For `stand` and for the commands that load a server.

pub(crate) mod kernel;
pub(crate) mod memory;
mod processes;
mod reactors;
mod syscalls;
mod usage;

pub(crate) use processes::{cpu_of_ended_children, with_descendants};
pub(crate) use reactors::Reactors;
pub(crate) use syscalls::SystemCalls;
pub(crate) use usage::{Meter, Used, switches};
