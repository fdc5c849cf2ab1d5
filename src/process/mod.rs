//! What the process may use, descriptors and CPUs, and which signals its threads take.
//!
//! Called by `server` at start and by each reactor's thread once.

mod cpus;
mod files;
mod pipe;

pub(crate) use cpus::{allowed_cpus, pin_to};
pub use files::FileLimit;
pub(crate) use files::raise_file_limit;
pub(crate) use pipe::block_sigpipe;
