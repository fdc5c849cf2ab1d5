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

/// The longest distance of two ticks, 248 days.
pub(crate) const LONGEST: u32 = i32::MAX as u32;

pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The whole ticks after which `duration` has surely passed, whenever within a tick it began.
pub(crate) fn ticks(duration: Duration) -> u32 {
    // Ticks are compared by their distance, which has a sign: 248 days are the longest.
    u32::try_from(nanos(duration).div_ceil(TICK) + 1).unwrap_or(u32::MAX).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_it_is_it_lies_ahead() {
        for days in [24, 247, 248, 249, 365, 497, 498, 10_000_000] {
            let distance = ticks(Duration::from_secs(days * 86_400)) as i32;
            assert!(distance > 24 * 8_640_000, "{days} days are {distance} ticks");
        }
        assert_eq!((ticks(Duration::ZERO), ticks(Duration::from_millis(10))), (1, 2));
    }
}
