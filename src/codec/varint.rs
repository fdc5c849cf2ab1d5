//! Unsigned LEB128: seven bits a byte, the lowest first; the highest bit says that more follow.

use super::{Envelope, FrameError};

/// The number at the start of `bytes` and how many bytes it takes; `None`: more are needed.
///
/// Each number has one spelling here, the shortest: a peer that uses another is broken or up to something.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * at as u32;
        // The tenth byte has room for one bit, and cannot be followed.
        if shift == 63 && byte > 1 {
            return Err(FrameError::Malformed("the varint is larger than 64 bits"));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err(FrameError::Malformed("the varint is longer than it needs to be"));
            }
            return Ok(Some((value, at + 1)));
        }
    }
    Ok(None)
}

/// Writes the number to the start of `out`; how many bytes it takes.
pub(super) fn write(mut value: u64, out: &mut [u8; Envelope::HEADER]) -> usize {
    let mut length = 0;
    loop {
        out[length] = value as u8 & 0x7f;
        value >>= 7;
        length += 1;
        if value == 0 {
            return length;
        }
        out[length - 1] |= 0x80;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: u64) -> Vec<u8> {
        let mut out = [0; Envelope::HEADER];
        let length = write(value, &mut out);
        out[..length].to_vec()
    }

    #[test]
    fn known_numbers() {
        for (value, bytes) in [
            (0, &[0][..]),
            (1, &[1]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 1]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(written(value), bytes, "{value}");
            assert_eq!(read(bytes), Ok(Some((value, bytes.len()))), "{value}");
            for part in 0..bytes.len() {
                assert_eq!(read(&bytes[..part]), Ok(None), "{part} bytes of {value}");
            }
        }
    }

    #[test]
    fn a_longer_spelling_is_refused() {
        for bytes in [&[0x80, 0][..], &[0xff, 0], &[0x80, 0x80, 0], &[0xac, 0x82, 0]] {
            assert!(matches!(read(bytes), Err(FrameError::Malformed(_))), "{bytes:?}");
        }
        let mut bytes = [0x80; 10];
        bytes[9] = 0;
        assert!(matches!(read(&bytes), Err(FrameError::Malformed(_))));
    }

    #[test]
    fn more_than_64_bits_are_refused_at_the_tenth_byte() {
        let mut bytes = [0xff; 10];
        assert_eq!(read(&bytes[..9]), Ok(None));
        for last in [2, 0x7f, 0x80, 0x81, 0xff] {
            bytes[9] = last;
            assert!(matches!(read(&bytes), Err(FrameError::Malformed(_))), "{last:#x}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64, shift in 0..64_u32, rest in prop::collection::vec(any::<u8>(), 0..5)) {
            let value = value >> shift;
            let mut bytes = written(value);
            let length = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(read(&bytes), Ok(Some((value, length))));
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(Some((value, length))) = read(&bytes) {
                prop_assert_eq!(written(value), &bytes[..length]);
            }
        }
    }
}
