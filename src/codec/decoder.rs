use super::{Codec, FrameError};
use crate::Input;

/// Takes whole frames from the input of one connection; a part of its session.
///
/// What it does not take stays in the input, so the server's [input cap](crate::Server::input_cap) must be
/// larger than the largest frame: otherwise the connection is closed for that instead of with a [`FrameError`].
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

    /// Takes the payload of the next whole frame, if one is there. Call it until it answers `None`: what is
    /// left untaken is not shown again before more has come.
    ///
    /// # Errors
    ///
    /// When the stream breaks the codec's rule. Nothing behind that can be told apart any more: close the
    /// connection. Until then each call answers the same.
    pub fn next<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, FrameError> {
        let bytes = input.peek();
        // The input can be shorter than it was only if somebody else took from it.
        let seen = self.seen.min(bytes.len());
        match self.codec.find(bytes, seen)? {
            Some(frame) => {
                self.seen = 0;
                input.consume(frame.length);
                Ok(Some(&bytes[frame.payload]))
            }
            None => {
                self.seen = bytes.len();
                Ok(None)
            }
        }
    }

    /// As [`Decoder::next`], in `on_eof`: what the stream ended with may be a frame too, as the last line of
    /// a text without a line feed is.
    ///
    /// # Errors
    ///
    /// As [`Decoder::next`], and [`FrameError::Truncated`] if the stream ended within a frame.
    pub fn last<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, FrameError> {
        if let Some(payload) = self.next(input)? {
            return Ok(Some(payload));
        }
        let bytes = input.peek();
        let Some(frame) = self.codec.find_last(bytes)? else { return Ok(None) };
        self.seen = 0;
        input.consume(frame.length);
        Ok(Some(&bytes[frame.payload]))
    }
}
