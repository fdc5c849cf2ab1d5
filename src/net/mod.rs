//! Sockets as the kernel has them: addresses, options, listeners, streams, dialing.
//!
//! Called by `server` (to bind) and `driver` (for everything that happens to a socket later).

mod address;
mod dial;
mod listener;
mod options;
mod raw;
#[cfg(target_os = "linux")]
mod steering;
mod stream;

pub use address::{Address, AddressError};
pub use dial::Dial;
pub(crate) use dial::{DialFailure, dial};
pub(crate) use listener::{Listener, Sharing};
pub use options::{Keepalive, SocketOptions};
#[cfg(target_os = "linux")]
pub(crate) use steering::steer_by_cpu;
pub(crate) use stream::Stream;
