use std::fmt;

use super::{Codec, DEFAULT_MAXIMUM, Envelope, Frame, FrameError};

/// Frames whose header, of a fixed size, tells how long they are: by a function of your own.
///
/// The payload is the whole frame with its header, because the header of such protocols says more than the
/// length (a kind, an id, flags). What is sent is therefore a whole frame too; one that does not tell its
/// own length is refused with [`FrameError::WrongLength`].
///
/// ```
/// use corelane::codec::{Codec, Described, FrameError};
///
/// /// A kind, an id of two bytes, the length of what follows in two bytes.
/// fn length(header: &[u8]) -> Result<usize, FrameError> {
///     match header[0] {
///         1..=9 => Ok(5 + usize::from(u16::from_be_bytes([header[3], header[4]]))),
///         _ => Err(FrameError::Malformed("unknown kind")),
///     }
/// }
///
/// /// A name for the type, for sessions.
/// type Messages = Described<fn(&[u8]) -> Result<usize, FrameError>>;
///
/// let messages: Messages = Described::new(5, length);
/// let bytes = [2, 0, 77, 0, 3, b'a', b'b', b'c', 2, 0];
/// assert_eq!(messages.find(&bytes, 0).unwrap().unwrap().payload, 0..8);
/// assert!(messages.find(b"GET / HTTP/1.1", 0).is_err());
/// ```
///
/// Where the header's size varies or a payload needs a trailer, implement [`Codec`].
#[derive(Clone, Copy)]
pub struct Described<F> {
    header: usize,
    measure: F,
    maximum: usize,
}

impl<F: Fn(&[u8]) -> Result<usize, FrameError>> Described<F> {
    /// Frames that begin with `header` bytes, of which `measure` tells how long the whole frame is, header
    /// included. It is given exactly these bytes, may be asked several times about the same frame, and can
    /// refuse a header with [`FrameError::Malformed`]. A length smaller than the header is malformed anyway.
    ///
    /// Frames have up to [`DEFAULT_MAXIMUM`] bytes.
    ///
    /// # Panics
    ///
    /// If `header` is 0.
    pub const fn new(header: usize, measure: F) -> Self {
        assert!(header > 0, "a header has at least one byte");
        Self { header, measure, maximum: DEFAULT_MAXIMUM }
    }

    /// The largest frame in bytes, header included.
    pub const fn maximum(mut self, bytes: usize) -> Self {
        self.maximum = bytes;
        self
    }

    /// How long the frame is that begins with these bytes; `None`: its header is not whole.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(header) = bytes.get(..self.header) else { return Ok(None) };
        let length = (self.measure)(header)?;
        if length < self.header {
            return Err(FrameError::Malformed("the length is smaller than the header"));
        }
        self.check(length)?;
        Ok(Some(length))
    }

    fn check(&self, length: usize) -> Result<(), FrameError> {
        if length <= self.maximum {
            return Ok(());
        }
        Err(FrameError::TooLarge { length: length as u64, maximum: self.maximum })
    }
}

impl<F: Fn(&[u8]) -> Result<usize, FrameError>> Codec for Described<F> {
    fn find(&self, bytes: &[u8], _seen: usize) -> Result<Option<Frame>, FrameError> {
        let length = self.length(bytes)?;
        Ok(length.filter(|&length| bytes.len() >= length).map(|length| Frame { payload: 0..length, length }))
    }

    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
        self.check(payload.len())?;
        match self.length(payload)? {
            Some(length) if length == payload.len() => Ok(Envelope::new(&[], &[])),
            told => {
                Err(FrameError::WrongLength { length: payload.len(), expected: told.unwrap_or(self.header) })
            }
        }
    }
}

impl<F> fmt::Debug for Described<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, maximum, .. } = self;
        f.debug_struct("Described").field("header", header).field("maximum", maximum).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second byte is the length of the frame.
    fn length(header: &[u8]) -> Result<usize, FrameError> {
        if header[0] == b'?' { Err(FrameError::Malformed("a question")) } else { Ok(header[1].into()) }
    }

    fn codec() -> impl Codec {
        Described::new(2, length).maximum(10)
    }

    #[test]
    fn the_header_decides() {
        let codec = codec();
        assert_eq!(codec.find(b"a", 0), Ok(None));
        assert_eq!(codec.find(b"a\x04b", 0), Ok(None));
        assert_eq!(codec.find(b"a\x04bcd", 0), Ok(Some(Frame { payload: 0..4, length: 4 })));
        assert_eq!(codec.find(b"a\x02bcd", 0), Ok(Some(Frame { payload: 0..2, length: 2 })));
        assert!(matches!(codec.find(b"a\x01", 0), Err(FrameError::Malformed(_))));
        assert!(matches!(codec.find(b"a\0", 0), Err(FrameError::Malformed(_))));
        assert_eq!(codec.find(b"?\x05", 0), Err(FrameError::Malformed("a question")));
        assert_eq!(codec.find(b"a\x0a", 0), Ok(None));
        assert_eq!(codec.find(b"a\x0b", 0), Err(FrameError::TooLarge { length: 11, maximum: 10 }));
    }

    #[test]
    fn a_frame_that_does_not_tell_its_length_is_not_sent() {
        let codec = codec();
        assert!(codec.wrap(b"a\x04bc").is_ok());
        assert_eq!(codec.wrap(b"a"), Err(FrameError::WrongLength { length: 1, expected: 2 }));
        assert_eq!(codec.wrap(b"a\x05bc"), Err(FrameError::WrongLength { length: 4, expected: 5 }));
        assert!(matches!(codec.wrap(&[b'a'; 11]), Err(FrameError::TooLarge { length: 11, maximum: 10 })));
    }
}
