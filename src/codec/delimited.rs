use memchr::memmem;

use super::{Codec, DEFAULT_MAXIMUM, Envelope, Frame, FrameError};

/// Frames that end with a delimiter, which is not a part of the payload. A payload that holds it, or would
/// hold it together with the delimiter behind it, cannot be sent.
///
/// ```
/// use corelane::codec::{Codec, Delimited};
///
/// let records = Delimited::new(b"\r\n").maximum(1024);
/// assert_eq!(records.find(b"one\r\ntwo", 0).unwrap().unwrap().payload, 0..3);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Delimited<'d> {
    delimiter: &'d [u8],
    maximum: usize,
}

impl<'d> Delimited<'d> {
    /// Payloads of up to [`DEFAULT_MAXIMUM`] bytes.
    ///
    /// # Panics
    ///
    /// If the delimiter is empty.
    pub const fn new(delimiter: &'d [u8]) -> Self {
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        Self { delimiter, maximum: DEFAULT_MAXIMUM }
    }

    /// The largest payload in bytes.
    pub const fn maximum(mut self, bytes: usize) -> Self {
        self.maximum = bytes;
        self
    }

    /// Where a delimiter would begin that the end of a payload makes together with the delimiter behind it,
    /// as `x\n` and `\n\n` do.
    fn early_end(&self, payload: &[u8]) -> Option<usize> {
        let first = (payload.len() + 1).saturating_sub(self.delimiter.len());
        (first..payload.len()).find(|&begin| {
            let rest = self.delimiter.strip_prefix(&payload[begin..]);
            rest.is_some_and(|rest| self.delimiter.starts_with(rest))
        })
    }

    /// Whether bytes without a delimiter can become a frame that is allowed: a delimiter may begin in them,
    /// or behind them, before the payload is too large.
    fn can_still_end(&self, bytes: &[u8]) -> bool {
        let first = (bytes.len() + 1).saturating_sub(self.delimiter.len());
        let last = self.maximum.min(bytes.len());
        (first..=last).rev().any(|begin| self.delimiter.starts_with(&bytes[begin..]))
    }
}

impl Codec for Delimited<'_> {
    #[inline]
    fn find(&self, bytes: &[u8], seen: usize) -> Result<Option<Frame>, FrameError> {
        // A delimiter that had begun before may be whole now.
        let from = seen.saturating_sub(self.delimiter.len() - 1);
        // Behind this no delimiter ends an allowed frame.
        let until = bytes.len().min(self.maximum.saturating_add(self.delimiter.len()));
        let found = bytes.get(from..until).and_then(|part| memmem::find(part, self.delimiter));
        match found {
            Some(at) => {
                let end = from + at;
                Ok(Some(Frame { payload: 0..end, length: end + self.delimiter.len() }))
            }
            None if self.can_still_end(bytes) => Ok(None),
            None => Err(FrameError::longer_than(self.maximum)),
        }
    }

    #[inline]
    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
        if payload.len() > self.maximum {
            return Err(FrameError::TooLarge { length: payload.len() as u64, maximum: self.maximum });
        }
        match memmem::find(payload, self.delimiter).or_else(|| self.early_end(payload)) {
            Some(at) => Err(FrameError::DelimiterInside { at }),
            None => Ok(Envelope::new(&[], self.delimiter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODEC: Delimited<'_> = Delimited::new(b"\r\n\r\n").maximum(5);

    #[test]
    fn the_largest_is_let_through_and_one_more_refused_at_once() {
        let too_large = Err(FrameError::TooLarge { length: 6, maximum: 5 });
        assert_eq!(CODEC.find(b"12345\r\n\r\n", 0), Ok(Some(Frame { payload: 0..5, length: 9 })));
        assert_eq!(CODEC.find(b"123456\r\n\r\n", 0), too_large);
        assert_eq!(CODEC.find(b"12345", 0), Ok(None));
        assert_eq!(CODEC.find(b"12345\r\n\r", 0), Ok(None));
        assert_eq!(CODEC.find(b"123\r\n\r", 0), Ok(None));
        assert_eq!(CODEC.find(b"123456", 0), too_large);
        assert_eq!(CODEC.find(b"12345\n", 0), too_large);
        assert_eq!(CODEC.find(b"12345\r\r", 0), too_large);
        assert_eq!(CODEC.find(b"123\r\n\rx", 0), too_large);
        assert_eq!(CODEC.wrap(b"123456"), Err(FrameError::TooLarge { length: 6, maximum: 5 }));
    }

    #[test]
    fn what_was_seen_is_not_searched_again() {
        // A delimiter that lies within what was said to be seen is overlooked: proof that nobody looked.
        assert_eq!(CODEC.maximum(100).find(b"a\r\n\r\nbc\r\n\r\n", 8).unwrap().unwrap().payload, 0..7);
        // One that had begun is found.
        for seen in 1..5 {
            assert_eq!(CODEC.find(b"a\r\n\r\n", seen).unwrap().unwrap().payload, 0..1, "{seen}");
        }
    }

    #[test]
    fn a_payload_with_the_delimiter_is_not_sent() {
        let codec = CODEC.maximum(100);
        assert_eq!(codec.wrap(b"ab\r\n\r\ncd"), Err(FrameError::DelimiterInside { at: 2 }));
        // With the delimiter behind it, it would end early.
        assert_eq!(codec.wrap(b"ab\r\n"), Err(FrameError::DelimiterInside { at: 2 }));
        assert!(codec.wrap(b"ab\r").is_ok() && codec.wrap(b"ab\r\n\r").is_ok());
        assert_eq!(Delimited::new(b"aa").wrap(b"ba"), Err(FrameError::DelimiterInside { at: 1 }));
    }
}
