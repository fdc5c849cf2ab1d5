use super::{Codec, Frame, FrameError};
use crate::Input;

/// Takes whole frames from the input of one connection; a part of its session.
///
/// What it does not take stays in the input, so the server's [input cap](crate::Server::input_cap) must be at
/// least as large as the largest frame with all that surrounds it: otherwise the connection is closed for that
/// instead of with a [`FrameError`]. A handler that stops in the middle of a batch, to pause the connection,
/// leaves up to one [read buffer](crate::Server::read_buffer) more.
#[derive(Debug, Clone)]
pub struct Decoder<C> {
    codec: C,
    /// How much of the input was looked at in vain.
    seen: usize,
}

impl<C: Codec> Decoder<C> {
    /// A decoder at the beginning of a stream.
    pub const fn new(codec: C) -> Self {
        Self { codec, seen: 0 }
    }

    /// The rule it goes by.
    pub const fn codec(&self) -> &C {
        &self.codec
    }

    /// Forgets what it has looked at: for handlers that took from the input by themselves since the last call,
    /// a header in front of the frames for example.
    pub fn restart(&mut self) {
        self.seen = 0;
    }

    /// Takes the payload of the next whole frame, if one is there. Call it until it answers `None`: what is
    /// left untaken is not shown again before more has come.
    ///
    /// # Errors
    ///
    /// When the stream breaks the codec's rule. Nothing behind that can be told apart any more: close the
    /// connection. Until then each call answers the same.
    pub fn next<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, FrameError> {
        let frame = self.find(input.peek())?;
        Ok(frame.map(|frame| &input.take(frame.length)[frame.payload]))
    }

    /// As [`Decoder::next`], in `on_eof`: what the stream ended with may be a frame too, as the last line of
    /// a text without a line feed is.
    ///
    /// # Errors
    ///
    /// As [`Decoder::next`], and [`FrameError::Truncated`] if the stream ended within a frame.
    pub fn last<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, FrameError> {
        let frame = self.find_last(input.peek())?;
        Ok(frame.map(|frame| &input.take(frame.length)[frame.payload]))
    }

    /// As [`Decoder::next`], for bytes that are not an [`Input`]: finds the frame they begin with. The caller
    /// drops its [`Frame::length`] bytes from the front before the next call, and nothing if there is none.
    ///
    /// # Errors
    ///
    /// As [`Decoder::next`].
    ///
    /// # Panics
    ///
    /// If the codec finds a frame without a byte: there would be no end of them.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        // They are fewer than before only if somebody took from them and did not say so.
        let seen = self.seen.min(bytes.len());
        let found = self.codec.find(bytes, seen)?;
        self.seen = if found.is_some() { 0 } else { bytes.len() };
        Ok(checked(found))
    }

    /// As [`Decoder::last`], for bytes that are not an [`Input`].
    ///
    /// # Errors
    ///
    /// As [`Decoder::last`].
    ///
    /// # Panics
    ///
    /// As [`Decoder::find`].
    pub fn find_last(&mut self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        if let Some(frame) = self.find(bytes)? {
            return Ok(Some(frame));
        }
        let found = self.codec.find_last(bytes)?;
        if found.is_some() {
            self.seen = 0;
        }
        Ok(checked(found))
    }
}

/// A codec that finds empty frames would hold up its reactor for ever; a panic costs one connection.
fn checked(found: Option<Frame>) -> Option<Frame> {
    if let Some(frame) = &found {
        assert!(frame.length > 0, "a codec found a frame of no bytes");
    }
    found
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::codec::{Envelope, Lines};

    /// Notes down what it is asked.
    struct Asked {
        lines: Lines,
        calls: RefCell<Vec<(usize, usize)>>,
    }

    impl Codec for Asked {
        fn find(&self, bytes: &[u8], seen: usize) -> Result<Option<Frame>, FrameError> {
            self.calls.borrow_mut().push((bytes.len(), seen));
            self.lines.find(bytes, seen)
        }

        fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
            self.lines.wrap(payload)
        }
    }

    /// A frame that comes byte by byte is looked at once, not once for each of its bytes.
    #[test]
    fn what_was_looked_at_in_vain_is_not_looked_at_again() {
        let mut decoder = Decoder::new(Asked { lines: Lines::new(), calls: RefCell::default() });
        let bytes = b"abcdef\nghi";
        for end in 1..=6 {
            assert_eq!(decoder.next(&mut Input::new(&bytes[..end])), Ok(None));
        }
        let mut input = Input::new(bytes);
        assert_eq!(decoder.next(&mut input), Ok(Some(&b"abcdef"[..])));
        assert_eq!(decoder.next(&mut input), Ok(None));
        // A call without news, as after a pause.
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert_eq!(decoder.last(&mut input), Err(FrameError::Truncated { bytes: 3 }));
        let calls = decoder.codec().calls.take();
        assert_eq!(calls, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (10, 6), (3, 0), (3, 3), (3, 3)]);
    }

    #[test]
    fn whoever_takes_from_the_input_says_so() {
        let mut decoder = Decoder::new(Lines::new());
        assert_eq!(decoder.next(&mut Input::new(b"abcdef")), Ok(None));
        decoder.restart();
        assert_eq!(decoder.next(&mut Input::new(b"gh\nijklmn")), Ok(Some(&b"gh"[..])));
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = Decoder::new(Lines::new().maximum(2));
        let mut input = Input::new(b"a\nbcd\ne\n");
        assert_eq!(decoder.next(&mut input), Ok(Some(&b"a"[..])));
        for _ in 0..3 {
            assert_eq!(decoder.next(&mut input), Err(FrameError::TooLarge { length: 3, maximum: 2 }));
        }
        assert_eq!(input.peek(), b"bcd\ne\n");
    }

    #[test]
    #[should_panic(expected = "no bytes")]
    fn a_codec_that_finds_nothing_again_and_again_is_caught() {
        struct Broken;
        impl Codec for Broken {
            fn find(&self, _: &[u8], _: usize) -> Result<Option<Frame>, FrameError> {
                Ok(Some(Frame { payload: 0..0, length: 0 }))
            }
            fn wrap(&self, _: &[u8]) -> Result<Envelope<'_>, FrameError> {
                Ok(Envelope::new(&[], &[]))
            }
        }
        let _ = Decoder::new(Broken).next(&mut Input::new(b"abc"));
    }
}
