use crate::buffer::BLOCK;

/// Input that the handler has seen and not consumed, in one piece.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    /// The tick at which the incomplete message began to wait, for the minimum rate.
    pub(crate) since: u32,
    /// Bytes that have come since then.
    pub(crate) received: u64,
}

impl Inbox {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        // Moving the rest to the front costs at most as much as what was consumed since the last move.
        if self.start >= self.len() {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.bytes.len() - self.start);
            self.start = 0;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(bytes.len().max(BLOCK));
        }
        self.bytes.extend_from_slice(bytes);
        self.received += bytes.len() as u64;
    }

    /// # Panics
    /// If `count` is more than there is.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed {count} of {} bytes", self.len());
        self.start += count;
    }

    /// Empties the inbox for another connection; memory beyond `room` bytes is given back.
    pub(crate) fn reset(&mut self, room: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(room);
        self.start = 0;
        self.received = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_vec(steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..5000), any::<u16>()), 1..60)) {
            let mut inbox = Inbox::default();
            let mut model: Vec<u8> = Vec::new();
            for (bytes, consume) in steps {
                inbox.append(&bytes);
                model.extend_from_slice(&bytes);
                prop_assert_eq!(inbox.as_slice(), &model[..]);
                let count = consume as usize % (model.len() + 1);
                inbox.consume(count);
                model.drain(..count);
                prop_assert_eq!(inbox.as_slice(), &model[..]);
                prop_assert_eq!(inbox.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn it_does_not_grow_with_what_passed_through() {
        let mut inbox = Inbox::default();
        for _ in 0..10_000 {
            inbox.append(&[0; 1000]);
            inbox.consume(990.min(inbox.len() - 10));
            if inbox.len() > 2000 {
                inbox.consume(inbox.len() - 10);
            }
        }
        assert!(inbox.bytes.capacity() <= 2 * BLOCK, "{}", inbox.bytes.capacity());
    }

    #[test]
    fn a_reset_inbox_keeps_one_block() {
        let mut inbox = Inbox::default();
        inbox.append(&vec![1; 1 << 20]);
        inbox.reset(BLOCK);
        assert!(inbox.is_empty());
        assert!(inbox.bytes.capacity() <= BLOCK);
    }
}
