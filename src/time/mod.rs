//! When things are due: a wheel for the coarse deadlines of connections, a heap for precise timers.
//!
//! Called by `reactor`. Knows no clock: every function is told the time.

mod timers;
mod wheel;

pub use timers::TimerId;
pub(crate) use timers::Timers;
pub(crate) use wheel::Wheel;

use std::time::Duration;

/// Nanoseconds since the reactor's driver was made.
pub(crate) type Nanos = u64;

/// The wheel's resolution. Deadlines guard against peers that stall for seconds; at 10 ms they are at
/// most one tick late, and a `u32` of ticks in each connection reaches back 497 days.
pub(crate) const TICK: Nanos = 10_000_000;

pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The whole ticks after which `duration` has surely passed, whenever within a tick it began.
pub(crate) fn ticks(duration: Duration) -> u32 {
    u32::try_from(nanos(duration).div_ceil(TICK) + 1).unwrap_or(u32::MAX / 2)
}
