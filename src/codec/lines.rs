use super::{Codec, DEFAULT_MAXIMUM, Delimited, Envelope, Frame, FrameError};

/// Lines of text, or of anything else: they end with a line feed; a carriage return right before it belongs
/// to the end too. Where a carriage return alone must not be dropped, or a line feed alone must not end a
/// line, use [`Delimited`].
///
/// The last line of a stream may lack its end.
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
    fn find(&self, bytes: &[u8], seen: usize) -> Result<Option<Frame>, FrameError> {
        // The carriage return takes no room of the line's.
        let feeds = Delimited::new(b"\n").maximum(self.maximum.saturating_add(1));
        let frame = match feeds.find(bytes, seen) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(FrameError::TooLarge { length, .. }) => {
                return Err(FrameError::TooLarge { length, maximum: self.maximum });
            }
            Err(error) => return Err(error),
        };
        let line = &bytes[frame.payload.clone()];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.check(line)?;
        Ok(Some(Frame { payload: 0..line.len(), length: frame.length }))
    }

    fn find_last(&self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        self.check(bytes)?;
        Ok(Some(Frame { payload: 0..bytes.len(), length: bytes.len() }))
    }

    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
        self.check(payload)?;
        match memchr::memchr(b'\n', payload) {
            Some(at) => Err(FrameError::DelimiterInside { at }),
            None => Ok(Envelope::new(&[], self.ending)),
        }
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
        assert!(payload(b"abcd\n").is_err());
        assert!(payload(b"abcde").is_err());
    }
}
