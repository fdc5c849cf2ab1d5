//! One connection's state: its slot and generation, what it has not consumed, what the kernel has not
//! taken, its deadlines and watermarks.
//!
//! Called by `reactor` alone. Knows no sockets and no clock: bytes and ticks are passed in, so that all of
//! it is tested and fuzzed without any.

mod admission;
mod deadlines;
#[cfg(any(test, fuzzing))]
#[allow(
    unreachable_pub,
    missing_docs,
    reason = "public for the fuzzer alone, which builds with cfg(fuzzing)"
)]
pub mod fuzz;
mod id;
mod inbox;
mod outbox;
mod peer;
mod reason;
mod receipt;
mod slots;
mod state;

pub(crate) use admission::{Admission, Full, Permit};
pub(crate) use deadlines::{Due, Periods};
pub use id::ConnId;
pub(crate) use id::Key;
pub(crate) use inbox::Inbox;
pub(crate) use outbox::{FILE_COST, Outbox, Pools};
pub(crate) use peer::PackedPeer;
pub use peer::Peer;
pub use reason::{CloseReason, Flow, Written};
pub use receipt::{Delivery, Receipt};
pub(crate) use slots::Slots;
pub(crate) use state::{Connection, Flag, Phase};
