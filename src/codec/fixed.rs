use super::{Codec, Envelope, Frame, FrameError};

/// Frames of one size and nothing around them.
///
/// ```
/// use corelane::codec::{Codec, Fixed};
///
/// let ticks = Fixed::new(16);
/// assert_eq!(ticks.find(&[0; 15], 0).unwrap(), None);
/// assert_eq!(ticks.find(&[0; 40], 0).unwrap().unwrap().payload, 0..16);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    size: usize,
}

impl Fixed {
    /// Frames of `size` bytes.
    ///
    /// # Panics
    ///
    /// If `size` is 0: any input would hold frames without end.
    pub const fn new(size: usize) -> Self {
        assert!(size > 0, "a frame has at least one byte");
        Self { size }
    }
}

impl Codec for Fixed {
    #[inline]
    fn find(&self, bytes: &[u8], _seen: usize) -> Result<Option<Frame>, FrameError> {
        let frame = Frame { payload: 0..self.size, length: self.size };
        Ok((bytes.len() >= self.size).then_some(frame))
    }

    #[inline]
    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
        if payload.len() == self.size {
            return Ok(Envelope::new(&[], &[]));
        }
        Err(FrameError::WrongLength { length: payload.len(), expected: self.size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_size_is_sent() {
        let codec = Fixed::new(4);
        assert!(codec.wrap(b"four").is_ok());
        for payload in [&b""[..], b"two", b"fives"] {
            let error = FrameError::WrongLength { length: payload.len(), expected: 4 };
            assert_eq!(codec.wrap(payload), Err(error));
        }
    }
}
