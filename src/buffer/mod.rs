//! Memory that bytes pass through: pools of reusable parts, payloads shared between connections, and ranges of
//! files, which stand for bytes that do not pass through memory at all.
//!
//! Called by `connection` and `reactor`. Knows no sockets, no clock and no connection.

mod file;
mod pool;
mod shared;

pub use file::FileSlice;
#[cfg(target_os = "linux")]
pub(crate) use file::truncated;
pub(crate) use pool::Pool;
pub use shared::Shared;

/// The capacity of one pooled block.
///
/// A quarter of the default read buffer: large enough that a full 64 KiB backlog is four iovecs, small
/// enough that a connection which leaves half a line behind does not hold 64 KiB for it.
pub(crate) const BLOCK: usize = 16 * 1024;
