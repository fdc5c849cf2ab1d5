use memchr::memmem;

use super::{Codec, DEFAULT_MAXIMUM, Envelope, Frame, FrameError};

/// Frames that end with a delimiter, which is not a part of the payload.
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
}

impl Codec for Delimited<'_> {
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
            None if bytes.len() >= self.maximum.saturating_add(self.delimiter.len()) => {
                let length = (bytes.len() - self.delimiter.len() + 1) as u64;
                Err(FrameError::TooLarge { length, maximum: self.maximum })
            }
            None => Ok(None),
        }
    }

    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
        if payload.len() > self.maximum {
            return Err(FrameError::TooLarge { length: payload.len() as u64, maximum: self.maximum });
        }
        match memmem::find(payload, self.delimiter) {
            Some(at) => Err(FrameError::DelimiterInside { at }),
            None => Ok(Envelope::new(&[], self.delimiter)),
        }
    }
}
