//! The bytes that are sent, and the check that the same ones come back.
//!
//! A connection carries a stretch of one endless sequence, which repeats with a period that is
//! prime. Any message that is lost, doubled, moved or sent to another connection is thus found by
//! comparing memory, and what is to be sent is always there already.

use std::fmt;

/// The bytes after which the sequence repeats.
const PERIOD: usize = 65_521;

/// The sequence, with as much of its repetition as a single operation may reach.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<u8>);

/// A place in the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Place {
    /// Where the `index`th connection begins.
    pub(crate) fn of_connection(index: usize) -> Self {
        Self(index.wrapping_mul(7_919) % PERIOD)
    }

    /// The place `bytes` further on.
    pub(crate) fn after(self, bytes: usize) -> Self {
        Self((self.0 + bytes) % PERIOD)
    }
}

/// Bytes that came back other than they had been sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    offset: usize,
    sent: u8,
    received: u8,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, sent, received } = self;
        write!(
            formatter,
            "wrong byte: {received:#04x} came back for {sent:#04x} (byte {offset} of this receive)"
        )
    }
}

impl std::error::Error for Mismatch {}

impl Pattern {
    /// Makes the sequence; operations are at most `reach` bytes long.
    ///
    /// It lives as long as the process, so that the kernel may read it whenever it likes.
    pub(crate) fn leak(reach: usize) -> &'static Self {
        let mut state = 0_u64;
        let random = std::iter::repeat_with(|| splitmix(&mut state)).flat_map(u64::to_le_bytes);
        let mut bytes: Vec<u8> = random.take(PERIOD).collect();
        while bytes.len() < PERIOD + reach {
            let more = (PERIOD + reach - bytes.len()).min(PERIOD);
            bytes.extend_from_within(..more);
        }
        Box::leak(Box::new(Self(bytes)))
    }

    /// The `length` bytes from a place on.
    pub(crate) fn bytes(&self, from: Place, length: usize) -> &[u8] {
        &self.0[from.0..from.0 + length]
    }

    /// Compares bytes that were received with those from a place on.
    pub(crate) fn verify(&self, from: Place, received: &[u8]) -> Result<(), Mismatch> {
        let sent = self.bytes(from, received.len());
        if sent == received {
            return Ok(());
        }
        let offset =
            sent.iter().zip(received).position(|(sent, received)| sent != received).unwrap_or_default();
        Err(Mismatch { offset, sent: sent[offset], received: received[offset] })
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_wrap_around() {
        let pattern = Pattern::leak(200_000);
        let place = Place::of_connection(3).after(PERIOD - 10);
        let whole = pattern.bytes(place, 200_000);
        let (left, right) = whole.split_at(70_000);
        assert_eq!(pattern.bytes(place, 70_000), left);
        assert_eq!(pattern.bytes(place.after(70_000), 130_000), right);
    }

    #[test]
    fn a_changed_byte_is_found() {
        let pattern = Pattern::leak(1_024);
        let place = Place::of_connection(1);
        let mut received = pattern.bytes(place, 64).to_vec();
        assert_eq!(pattern.verify(place, &received), Ok(()));
        received[40] ^= 1;
        let mismatch = pattern.verify(place, &received).unwrap_err();
        assert_eq!(mismatch.offset, 40);
    }

    #[test]
    fn a_lost_message_or_a_foreign_one_is_found() {
        let pattern = Pattern::leak(1_024);
        let place = Place::of_connection(0);
        for wrong in [place.after(64), Place::of_connection(1)] {
            assert!(pattern.verify(place, pattern.bytes(wrong, 64)).is_err());
        }
    }
}
