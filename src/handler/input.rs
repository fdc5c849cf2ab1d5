/// What has been received and not consumed yet, in one contiguous piece.
///
/// Looking at it consumes nothing; [`Input::consume`] and [`Input::take`] do. What is left when the callback
/// returns is there again at the next, with more behind it, up to the server's input cap.
///
/// ```
/// # use corelane::Input;
/// fn lines(input: &mut Input<'_>) -> Vec<Vec<u8>> {
///     let mut lines = Vec::new();
///     while let Some(end) = input.peek().iter().position(|&byte| byte == b'\n') {
///         lines.push(input.take(end + 1).to_vec());
///     }
///     lines // an incomplete line stays where it is
/// }
/// ```
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    consumed: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, consumed: 0 }
    }

    /// Everything that is not consumed. The slice stays valid until the callback returns, whatever is
    /// consumed meanwhile.
    pub fn peek(&self) -> &'a [u8] {
        &self.bytes[self.consumed..]
    }

    /// Marks the first `count` bytes as consumed.
    ///
    /// # Panics
    ///
    /// If there are fewer; like any panic of a callback this costs the connection.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed {count} bytes of {}", self.len());
        self.consumed += count;
    }

    /// Consumes the first `count` bytes and returns them.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let bytes = self.peek();
        self.consume(count);
        &bytes[..count]
    }

    /// Consumes and returns everything.
    pub fn take_all(&mut self) -> &'a [u8] {
        self.take(self.len())
    }

    /// How many bytes are not consumed.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.consumed
    }

    /// Whether everything is consumed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn consumed(&self) -> usize {
        self.consumed
    }
}

/// With the feature `bytes`: parsers written against [`bytes::Buf`] read straight from the connection.
#[cfg(feature = "bytes")]
impl bytes::Buf for Input<'_> {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.peek()
    }

    fn advance(&mut self, count: usize) {
        self.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_vec(bytes in prop::collection::vec(any::<u8>(), 0..500), takes in prop::collection::vec(0..60usize, 0..20)) {
            let mut input = Input::new(&bytes);
            let mut model = bytes.clone();
            for take in takes {
                let take = take.min(model.len());
                let expected: Vec<u8> = model.drain(..take).collect();
                prop_assert_eq!(input.take(take), &expected[..]);
                prop_assert_eq!(input.peek(), &model[..]);
                prop_assert_eq!(input.consumed() + input.len(), bytes.len());
            }
        }
    }

    #[test]
    #[should_panic(expected = "consumed 4 bytes of 3")]
    fn more_cannot_be_consumed_than_there_is() {
        Input::new(b"abc").consume(4);
    }

    #[cfg(feature = "bytes")]
    #[test]
    fn it_is_a_buf() {
        use bytes::Buf;
        let mut input = Input::new(&[0, 0, 1, 2, 9]);
        assert_eq!(input.get_u32(), 258);
        assert_eq!(input.peek(), &[9]);
    }
}
