use super::{Codec, DEFAULT_MAXIMUM, Envelope, Frame, FrameError};

/// Lines of text, or of anything else: they end with a line feed; a carriage return right before it belongs
/// to the end too. Where a carriage return alone must not be dropped, or a line feed alone must not end a
/// line, use [`Delimited`](super::Delimited).
///
/// The last line of a stream may lack its end. A line with a line feed in it cannot be sent, nor one that ends
/// with a carriage return where lines end with a line feed alone.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    maximum: usize,
    ending: &'static [u8],
}

impl Lines {
    /// Lines of up to [`DEFAULT_MAXIMUM`] bytes; those sent end with a line feed.
    pub const fn new() -> Self {
        Self { maximum: DEFAULT_MAXIMUM, ending: b"\n" }
    }

    /// Those sent end with a carriage return and a line feed.
    pub const fn crlf() -> Self {
        Self { maximum: DEFAULT_MAXIMUM, ending: b"\r\n" }
    }

    /// The longest line in bytes, without its end.
    pub const fn maximum(mut self, bytes: usize) -> Self {
        self.maximum = bytes;
        self
    }

    fn check(&self, payload: &[u8]) -> Result<(), FrameError> {
        if payload.len() <= self.maximum {
            return Ok(());
        }
        Err(FrameError::TooLarge { length: payload.len() as u64, maximum: self.maximum })
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Lines {
    #[inline]
    fn find(&self, bytes: &[u8], seen: usize) -> Result<Option<Frame>, FrameError> {
        // The carriage return and the line feed take no room of the line's.
        let until = bytes.len().min(self.maximum.saturating_add(2));
        let found = bytes.get(seen..until).and_then(|part| memchr::memchr(b'\n', part));
        let Some(at) = found else {
            let fits = bytes.len() <= self.maximum;
            // One byte more can only be the carriage return of the end.
            let ends = bytes.len() == self.maximum.saturating_add(1) && bytes.ends_with(b"\r");
            return if fits || ends { Ok(None) } else { Err(FrameError::longer_than(self.maximum)) };
        };
        let line = &bytes[..seen + at];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.check(line)?;
        Ok(Some(Frame { payload: 0..line.len(), length: seen + at + 1 }))
    }

    fn find_last(&self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        self.check(bytes)?;
        Ok(Some(Frame { payload: 0..bytes.len(), length: bytes.len() }))
    }

    #[inline]
    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
        self.check(payload)?;
        if let Some(at) = memchr::memchr(b'\n', payload) {
            return Err(FrameError::DelimiterInside { at });
        }
        // It would be taken for a part of the end.
        if self.ending == b"\n" && payload.ends_with(b"\r") {
            return Err(FrameError::DelimiterInside { at: payload.len() - 1 });
        }
        Ok(Envelope::new(&[], self.ending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carriage_return_before_the_feed_belongs_to_the_end() {
        let lines = Lines::new().maximum(3);
        let payload = |bytes: &[u8]| lines.find(bytes, 0).map(|found| found.map(|frame| frame.payload));
        assert_eq!(payload(b"abc\r\n"), Ok(Some(0..3)));
        assert_eq!(payload(b"abc\n"), Ok(Some(0..3)));
        assert_eq!(payload(b"\n"), Ok(Some(0..0)));
        assert_eq!(payload(b"abc"), Ok(None));
        assert_eq!(payload(b"abc\r"), Ok(None));
    }

    #[test]
    fn too_long_is_said_as_soon_as_it_is_known() {
        let lines = Lines::new().maximum(3);
        for bytes in [&b"abcd"[..], b"abcd\n", b"abcd\r\n", b"abc\rd", b"abc\r\r", b"abcdefgh\n"] {
            let error = FrameError::TooLarge { length: 4, maximum: 3 };
            assert_eq!(lines.find(bytes, 0), Err(error), "{bytes:?}");
        }
        assert_eq!(lines.wrap(b"abcd"), Err(FrameError::TooLarge { length: 4, maximum: 3 }));
    }

    #[test]
    fn what_was_seen_is_not_searched_again() {
        // A line feed within what was said to be seen is overlooked: proof that nobody looked.
        assert_eq!(Lines::new().find(b"a\nbc\n", 2).unwrap().unwrap().payload, 0..4);
    }

    #[test]
    fn the_last_line_may_lack_its_end() {
        let lines = Lines::new().maximum(3);
        assert_eq!(lines.find_last(b""), Ok(None));
        assert_eq!(lines.find_last(b"abc"), Ok(Some(Frame { payload: 0..3, length: 3 })));
    }

    #[test]
    fn what_would_not_arrive_as_it_is_is_not_sent() {
        let inside = |at| Err(FrameError::DelimiterInside { at });
        assert_eq!(Lines::new().wrap(b"ab\ncd"), inside(2));
        assert_eq!(Lines::crlf().wrap(b"ab\ncd"), inside(2));
        assert_eq!(Lines::new().wrap(b"ab\r"), inside(2));
        assert!(Lines::new().wrap(b"a\rb").is_ok());
        assert!(Lines::crlf().wrap(b"ab\r").is_ok());
    }
}
