//! Bytes that requests and replies are made of, beside the pattern of the echo.

/// The bytes after which they repeat: a prime, so that no two messages of a connection look alike for long.
const PERIOD: usize = 65_521;

/// Random letters and digits, and the same backwards.
#[derive(Debug)]
pub(super) struct Text {
    forward: Vec<u8>,
    backward: Vec<u8>,
}

impl Text {
    /// For pieces of up to `largest` bytes. It lives as long as the process.
    pub(super) fn leak(largest: usize) -> &'static Self {
        let mut rng = fastrand::Rng::with_seed(20);
        let mut forward: Vec<u8> = std::iter::repeat_with(|| rng.alphanumeric() as u8).take(PERIOD).collect();
        while forward.len() < PERIOD + largest {
            let more = (PERIOD + largest - forward.len()).min(PERIOD);
            forward.extend_from_within(..more);
        }
        let backward = forward.iter().rev().copied().collect();
        Box::leak(Box::new(Self { forward, backward }))
    }

    /// The piece of this number.
    pub(super) fn piece(&self, number: u64, length: usize) -> &[u8] {
        let start = (number % PERIOD as u64) as usize;
        &self.forward[start..start + length]
    }

    /// The same from its end to its beginning.
    pub(super) fn reversed(&self, number: u64, length: usize) -> &[u8] {
        let end = self.backward.len() - (number % PERIOD as u64) as usize;
        &self.backward[end - length..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_differ_and_are_reversed() {
        let text = Text::leak(100_000);
        for number in [0, 7, 65_520, 65_521, u64::MAX] {
            let mut piece = text.piece(number, 100_000).to_vec();
            piece.reverse();
            assert_eq!(piece, text.reversed(number, 100_000), "{number}");
        }
        assert_ne!(text.piece(1, 64), text.piece(2, 64));
        assert!(text.piece(3, 1_000).iter().all(u8::is_ascii_alphanumeric));
    }
}
