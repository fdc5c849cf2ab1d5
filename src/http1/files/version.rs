//! What tells the versions of a file apart: its tag, and the time that headers can say.

use std::time::{SystemTime, UNIX_EPOCH};

/// An entity tag of the time of modification, in nanoseconds, and the length. File systems know times before 1970, and
/// those are as good as others.
pub(super) fn tag(modified: SystemTime, length: u64) -> String {
    let (sign, distance) = match modified.duration_since(UNIX_EPOCH) {
        Ok(since) => ("", since),
        Err(error) => ("-", error.duration()),
    };
    format!("\"{sign}{:x}-{length:x}\"", distance.as_nanos())
}

/// The time of modification as headers and conditions have it: none before 1970 can be said, and none later than the
/// reply's `Date` may be (RFC 9110, 8.8.2.1).
pub(super) fn sayable(modified: SystemTime, date: SystemTime) -> SystemTime {
    modified.min(date).max(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const NANOSECOND: Duration = Duration::from_nanos(1);
    /// The first second that has five digits of a year.
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

    #[test]
    fn other_times_have_other_tags() {
        assert_eq!(tag(UNIX_EPOCH + Duration::from_nanos(255), 16), "\"ff-10\"");
        let times = [
            UNIX_EPOCH - YEAR_10000,
            UNIX_EPOCH - SECOND,
            UNIX_EPOCH - NANOSECOND,
            UNIX_EPOCH,
            UNIX_EPOCH + NANOSECOND,
            UNIX_EPOCH + SECOND,
            UNIX_EPOCH + YEAR_10000,
            UNIX_EPOCH + YEAR_10000 + NANOSECOND,
        ];
        let tags: std::collections::BTreeSet<String> = times.iter().map(|time| tag(*time, 10)).collect();
        assert_eq!(tags.len(), times.len(), "{tags:?}");
    }

    #[test]
    fn every_time_can_be_said() {
        let date = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (modified, said) in [
            (UNIX_EPOCH - YEAR_10000, UNIX_EPOCH),
            (UNIX_EPOCH - NANOSECOND, UNIX_EPOCH),
            (UNIX_EPOCH, UNIX_EPOCH),
            (date - SECOND, date - SECOND),
            (date + NANOSECOND, date),
            (UNIX_EPOCH + YEAR_10000, date),
        ] {
            assert_eq!(sayable(modified, date), said, "{modified:?}");
            assert_eq!(httpdate::fmt_http_date(said).len(), 29);
        }
    }
}
