use std::time::{Duration, Instant, SystemTime};

/// The header line `date`, made anew once a second. Behind it stands what most replies go on with.
#[derive(Debug)]
pub(super) struct Date {
    bytes: [u8; WHOLE],
    until: Option<Instant>,
}

/// How the line begins that names the length of a body.
pub(super) const LENGTH: &[u8; 16] = b"content-length: ";

const START: &[u8; WHOLE] = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\ncontent-length: ";
const WHOLE: usize = LINE + LENGTH.len();
const LINE: usize = 37;

impl Date {
    pub(super) fn new() -> Self {
        Self { bytes: *START, until: None }
    }

    /// Makes it anew if it is older than a second.
    #[inline]
    pub(super) fn refresh(&mut self, now: Instant) {
        if self.until.is_none_or(|until| now >= until) {
            self.make(now);
        }
    }

    pub(super) fn line(&self) -> &[u8] {
        &self.bytes[..LINE]
    }

    /// The line, and [`LENGTH`] behind it.
    #[inline]
    pub(super) fn and_length(&self) -> &[u8; WHOLE] {
        &self.bytes
    }

    #[cold]
    fn make(&mut self, now: Instant) {
        let time = SystemTime::now();
        // To the end of this second of the wall clock, so that it is never told late.
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.until = Some(now + Duration::from_secs(1) - Duration::from_nanos(since.subsec_nanos().into()));
        self.set(time);
    }

    fn set(&mut self, time: SystemTime) {
        use std::io::Write as _;
        let mut room = &mut self.bytes[b"date: ".len()..LINE - 2];
        // A date has 29 bytes, whatever the time.
        let _ = write!(room, "{}", httpdate::HttpDate::from(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_date_and_goes_on() {
        let mut date = Date::new();
        date.set(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
        assert_eq!(date.line(), b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        let now = Instant::now();
        date.refresh(now);
        let first = date.line().to_owned();
        let text = std::str::from_utf8(&first[6..35]).unwrap();
        assert!(httpdate::parse_http_date(text).unwrap() <= SystemTime::now());
        assert!(date.until.unwrap() > now && date.until.unwrap() <= now + Duration::from_secs(1));
        date.set(SystemTime::UNIX_EPOCH);
        date.refresh(now);
        assert_ne!(date.line(), first, "not before the second is over");
        date.refresh(now + Duration::from_secs(1));
        assert_ne!(date.line(), b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
    }
}
