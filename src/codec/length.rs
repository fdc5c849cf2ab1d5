use super::{Codec, DEFAULT_MAXIMUM, Envelope, Frame, FrameError, varint};

/// Frames that begin with their length, as a number of 8, 16 or 32 bits or as a varint.
///
/// ```
/// use corelane::codec::{Codec, LengthPrefixed};
///
/// let codec = LengthPrefixed::u32_be().maximum(1024 * 1024);
/// let mut bytes = Vec::new();
/// codec.append(&mut bytes, b"hello").unwrap();
/// assert_eq!(bytes, b"\0\0\0\x05hello");
/// assert_eq!(codec.find(&bytes, 0).unwrap().unwrap().payload, 4..9);
/// ```
///
/// A length of 0 is an empty frame. The header alone tells whether a frame is too large, so nothing of such a
/// frame is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthPrefixed {
    prefix: Prefix,
    maximum: usize,
    includes_header: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    U8,
    U16Be,
    U16Le,
    U32Be,
    U32Le,
    Varint,
}

impl LengthPrefixed {
    /// One byte.
    pub const fn u8() -> Self {
        Self::new(Prefix::U8)
    }

    /// 16 bits, the high byte first, as most network protocols have it.
    pub const fn u16_be() -> Self {
        Self::new(Prefix::U16Be)
    }

    /// 16 bits, the low byte first.
    pub const fn u16_le() -> Self {
        Self::new(Prefix::U16Le)
    }

    /// 32 bits, the high byte first, as most network protocols have it.
    pub const fn u32_be() -> Self {
        Self::new(Prefix::U32Be)
    }

    /// 32 bits, the low byte first.
    pub const fn u32_le() -> Self {
        Self::new(Prefix::U32Le)
    }

    /// Seven bits a byte, the lowest first (unsigned LEB128, as in Protocol Buffers), up to 64 bits. A
    /// number that is spelled longer than it needs to be is [`FrameError::Malformed`].
    pub const fn varint() -> Self {
        Self::new(Prefix::Varint)
    }

    const fn new(prefix: Prefix) -> Self {
        Self { prefix, maximum: DEFAULT_MAXIMUM, includes_header: false }
    }

    /// The largest payload in bytes, where the number has room for it.
    pub const fn maximum(mut self, bytes: usize) -> Self {
        self.maximum = bytes;
        self
    }

    /// The number counts its own bytes too. One smaller than that is [`FrameError::Malformed`].
    pub const fn including_header(mut self) -> Self {
        self.includes_header = true;
        self
    }

    /// The largest payload: what was set, or what the number has room for.
    #[inline]
    fn limit(&self) -> usize {
        let (largest, header) = match self.prefix {
            Prefix::U8 => (u8::MAX.into(), 1),
            Prefix::U16Be | Prefix::U16Le => (u16::MAX.into(), 2),
            Prefix::U32Be | Prefix::U32Le => (u32::MAX as usize, 4),
            Prefix::Varint => return self.maximum,
        };
        self.maximum.min(if self.includes_header { largest - header } else { largest })
    }

    /// How long a payload may be; for one that is announced as well as for one to be sent.
    #[inline]
    fn check(&self, length: u64) -> Result<(), FrameError> {
        let maximum = self.limit();
        if length <= maximum as u64 { Ok(()) } else { Err(FrameError::TooLarge { length, maximum }) }
    }
}

impl Codec for LengthPrefixed {
    #[inline]
    fn find(&self, bytes: &[u8], _seen: usize) -> Result<Option<Frame>, FrameError> {
        let Some((announced, header)) = self.prefix.read(bytes)? else { return Ok(None) };
        let payload = if self.includes_header {
            let rest = announced.checked_sub(header as u64);
            rest.ok_or(FrameError::Malformed("the length is smaller than its own header"))?
        } else {
            announced
        };
        self.check(payload)?;
        let length = header.saturating_add(payload as usize);
        Ok((bytes.len() >= length).then_some(Frame { payload: header..length, length }))
    }

    #[inline]
    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
        self.check(payload.len() as u64)?;
        let mut header = [0; Envelope::HEADER];
        let mut length = self.prefix.write(payload.len() as u64, &mut header);
        if self.includes_header {
            // A varint may grow by what it adds for itself, and then by one byte at most.
            loop {
                let counted = self.prefix.write((payload.len() + length) as u64, &mut header);
                if counted == length {
                    break;
                }
                length = counted;
            }
        }
        Ok(Envelope::new(&header[..length], &[]))
    }
}

impl Prefix {
    /// The number at the start of `bytes`, and how many of them it takes.
    #[inline]
    fn read(self, bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
        Ok(match self {
            Self::U8 => bytes.first().map(|&byte| (byte.into(), 1)),
            Self::U16Be => bytes.first_chunk().map(|&number| (u16::from_be_bytes(number).into(), 2)),
            Self::U16Le => bytes.first_chunk().map(|&number| (u16::from_le_bytes(number).into(), 2)),
            Self::U32Be => bytes.first_chunk().map(|&number| (u32::from_be_bytes(number).into(), 4)),
            Self::U32Le => bytes.first_chunk().map(|&number| (u32::from_le_bytes(number).into(), 4)),
            Self::Varint => varint::read(bytes)?,
        })
    }

    /// Writes a number that has room to the start of `out`; how many bytes it takes.
    #[inline]
    fn write(self, number: u64, out: &mut [u8; Envelope::HEADER]) -> usize {
        let mut put = |bytes: &[u8]| {
            out[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        match self {
            Self::U8 => put(&[number as u8]),
            Self::U16Be => put(&(number as u16).to_be_bytes()),
            Self::U16Le => put(&(number as u16).to_le_bytes()),
            Self::U32Be => put(&(number as u32).to_be_bytes()),
            Self::U32Le => put(&(number as u32).to_le_bytes()),
            Self::Varint => varint::write(number, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(codec: LengthPrefixed, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec.append(&mut bytes, payload).unwrap();
        bytes
    }

    #[test]
    fn known_bytes() {
        for (codec, bytes) in [
            (LengthPrefixed::u8(), &b"\x03abc"[..]),
            (LengthPrefixed::u16_be(), b"\0\x03abc"),
            (LengthPrefixed::u16_le(), b"\x03\0abc"),
            (LengthPrefixed::u32_be(), b"\0\0\0\x03abc"),
            (LengthPrefixed::u32_le(), b"\x03\0\0\0abc"),
            (LengthPrefixed::varint(), b"\x03abc"),
            (LengthPrefixed::u8().including_header(), b"\x04abc"),
            (LengthPrefixed::u16_be().including_header(), b"\0\x05abc"),
            (LengthPrefixed::u16_le().including_header(), b"\x05\0abc"),
            (LengthPrefixed::u32_be().including_header(), b"\0\0\0\x07abc"),
            (LengthPrefixed::u32_le().including_header(), b"\x07\0\0\0abc"),
            (LengthPrefixed::varint().including_header(), b"\x04abc"),
        ] {
            assert_eq!(encoded(codec, b"abc"), bytes, "{codec:?}");
            let header = bytes.len() - 3;
            let frame = Frame { payload: header..bytes.len(), length: bytes.len() };
            assert_eq!(codec.find(&[bytes, b"more"].concat(), 0), Ok(Some(frame)), "{codec:?}");
        }
    }

    #[test]
    fn a_length_smaller_than_its_header_is_malformed() {
        for (codec, bytes) in [
            (LengthPrefixed::u8(), &[0][..]),
            (LengthPrefixed::u16_be(), &[0, 1]),
            (LengthPrefixed::u16_le(), &[1, 0]),
            (LengthPrefixed::u32_be(), &[0, 0, 0, 3]),
            (LengthPrefixed::u32_le(), &[0, 0, 0, 0]),
            (LengthPrefixed::varint(), &[0]),
        ] {
            let found = codec.including_header().find(bytes, 0);
            assert!(matches!(found, Err(FrameError::Malformed(_))), "{codec:?}: {found:?}");
        }
    }

    #[test]
    fn too_large_is_said_as_soon_as_the_header_is_there() {
        for (codec, largest, larger) in [
            (LengthPrefixed::u8(), &[10][..], &[11][..]),
            (LengthPrefixed::u16_be(), &[0, 10], &[0, 11]),
            (LengthPrefixed::u16_le(), &[10, 0], &[11, 0]),
            (LengthPrefixed::u32_be(), &[0, 0, 0, 10], &[0, 0, 0, 11]),
            (LengthPrefixed::u32_le(), &[10, 0, 0, 0], &[11, 0, 0, 0]),
            (LengthPrefixed::varint(), &[10], &[11]),
        ] {
            let codec = codec.maximum(10);
            assert_eq!(codec.find(largest, 0), Ok(None), "{codec:?}");
            let error = FrameError::TooLarge { length: 11, maximum: 10 };
            assert_eq!(codec.find(larger, 0), Err(error), "{codec:?}");
            assert_eq!(codec.wrap(&[0; 11]), Err(error), "{codec:?}");
            assert!(codec.wrap(&[0; 10]).is_ok(), "{codec:?}");
        }
    }

    #[test]
    fn what_the_number_has_no_room_for_is_not_sent() {
        let wraps = |codec: LengthPrefixed, length| codec.wrap(&vec![0; length]).is_ok();
        for (codec, largest) in [(LengthPrefixed::u8(), 255), (LengthPrefixed::u16_be(), 65_535)] {
            let codec = codec.maximum(1 << 20);
            assert!(wraps(codec, largest) && !wraps(codec, largest + 1), "{codec:?}");
            let codec = codec.including_header();
            let header = encoded(codec, b"").len();
            assert!(wraps(codec, largest - header) && !wraps(codec, largest - header + 1), "{codec:?}");
        }
    }

    #[test]
    fn the_largest_numbers_overflow_nothing() {
        let varint = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let codec = LengthPrefixed::varint();
        assert!(matches!(codec.find(&varint, 0), Err(FrameError::TooLarge { length: u64::MAX, .. })));
        assert_eq!(codec.maximum(usize::MAX).find(&varint, 0), Ok(None));
        let u32s = LengthPrefixed::u32_be().maximum(usize::MAX);
        assert_eq!(u32s.find(&[0xff; 4], 0), Ok(None));
    }

    /// Where the varint that counts itself grows by a byte.
    #[test]
    fn a_varint_that_counts_itself_is_right_at_every_length() {
        let codec = LengthPrefixed::varint().including_header();
        let payload = vec![7; 17_000];
        for length in (0..400).chain(16_370..16_400) {
            let bytes = encoded(codec, &payload[..length]);
            let frame = codec.find(&bytes, 0).unwrap().unwrap();
            assert_eq!((frame.length, frame.payload.len()), (bytes.len(), length));
        }
    }
}
