//! Framing: where one message ends and the next begins in a stream of bytes.
//!
//! A layer on top of the public API, for whoever speaks a protocol of frames: a session keeps a [`Decoder`],
//! `on_data` takes whole frames from it, and the [`Codec`] wraps what is sent. No sockets, no clock, and no
//! copy: a frame that has arrived is a slice of the input.
//!
//! ```
//! use corelane::codec::{Codec, Decoder, Lines};
//! use corelane::{Conn, Flow, Handler, Input, Open};
//!
//! struct Shout {
//!     lines: Lines,
//! }
//!
//! impl Handler for Shout {
//!     type Session = Decoder<Lines>;
//!     type Message = ();
//!
//!     fn on_open(&mut self, _: &mut Conn<'_>) -> Open<Self::Session> {
//!         Open::Accept(Decoder::new(self.lines))
//!     }
//!
//!     fn on_data(&mut self, conn: &mut Conn<'_>, lines: &mut Decoder<Lines>, input: &mut Input<'_>) -> Flow {
//!         loop {
//!             match lines.next(input) {
//!                 Ok(Some(line)) => self.lines.write(conn, &line.to_ascii_uppercase()),
//!                 Ok(None) => return Flow::Continue,
//!                 Err(error) => {
//!                     conn.write(format!("{error}\n").as_bytes());
//!                     return Flow::Close;
//!                 }
//!             };
//!         }
//!     }
//! }
//! ```
//!
//! The replies to all frames of one `on_data` leave together, header and payload in one system call. The example
//! `frames` is a service of length-prefixed frames and its client; `chat` and `broadcast` take lines.
//!
//! | codec | what a frame is |
//! |---|---|
//! | [`Lines`] | text up to a line feed, or a carriage return and a line feed |
//! | [`Delimited`] | bytes up to a mark of your own |
//! | [`LengthPrefixed`] | the length, in 8, 16 or 32 bits of either byte order or as a varint, then the bytes |
//! | [`Fixed`] | so many bytes |
//! | [`Described`] | a header that tells the length, by a function of your own, and the rest |
//! | your own [`Codec`] | anything else |
//!
//! # Sizes
//!
//! Every codec has a maximum, [`DEFAULT_MAXIMUM`] unless set, and says [`FrameError::TooLarge`] as soon as that
//! can be known: when the header is there, or when the byte has come that is one too many. A handler answers
//! with an error if the protocol has one and returns [`Flow::Close`](crate::Flow::Close): what was written is
//! sent, and the peer sees the end of the stream.
//!
//! A frame that is not whole waits in the connection's input, of which the server keeps up to
//! [`Server::input_cap`](crate::Server::input_cap), 1 MiB by default. Where frames may be larger than that, with
//! all that surrounds the payload, raise it; otherwise a connection is reset with
//! [`CloseReason::InputOverflow`](crate::CloseReason::InputOverflow) before its frame is whole. Memory is taken
//! as bytes come, never because a header announces them.
//!
//! # A codec of your own
//!
//! Netstrings: the length in decimal, a colon, the bytes, a comma.
//!
//! ```
//! use corelane::codec::{Codec, Envelope, Frame, FrameError};
//!
//! struct Netstrings {
//!     maximum: usize,
//! }
//!
//! impl Codec for Netstrings {
//!     fn find(&self, bytes: &[u8], _seen: usize) -> Result<Option<Frame>, FrameError> {
//!         let mut length = 0;
//!         for (at, &byte) in bytes.iter().enumerate() {
//!             match byte {
//!                 b'0'..=b'9' if at == 0 || length > 0 => length = length * 10 + usize::from(byte - b'0'),
//!                 b':' if at > 0 => {
//!                     let (start, end) = (at + 1, at + 1 + length);
//!                     return match bytes.get(end) {
//!                         None => Ok(None),
//!                         Some(b',') => Ok(Some(Frame { payload: start..end, length: end + 1 })),
//!                         Some(_) => Err(FrameError::Malformed("no comma behind the bytes")),
//!                     };
//!                 }
//!                 _ => return Err(FrameError::Malformed("no length in decimal")),
//!             }
//!             if length > self.maximum {
//!                 return Err(FrameError::TooLarge { length: length as u64, maximum: self.maximum });
//!             }
//!         }
//!         Ok(None)
//!     }
//!
//!     fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
//!         if payload.len() > self.maximum {
//!             return Err(FrameError::TooLarge { length: payload.len() as u64, maximum: self.maximum });
//!         }
//!         Ok(Envelope::new(format!("{}:", payload.len()).as_bytes(), b","))
//!     }
//! }
//!
//! let netstrings = Netstrings { maximum: 1000 };
//! let mut bytes = Vec::new();
//! netstrings.append(&mut bytes, b"hello").unwrap();
//! assert_eq!(bytes, b"5:hello,");
//! assert_eq!(netstrings.find(&bytes, 0), Ok(Some(Frame { payload: 2..7, length: 8 })));
//! assert_eq!(netstrings.find(&bytes[..7], 0), Ok(None));
//! assert!(netstrings.find(b"5000:", 0).is_err());
//! ```

mod client;
mod decoder;
mod delimited;
mod described;
mod error;
mod fixed;
#[cfg(any(test, fuzzing))]
#[allow(
    unreachable_pub,
    missing_docs,
    reason = "public for the fuzzer alone, which builds with cfg(fuzzing)"
)]
pub mod fuzz;
mod length;
mod lines;
#[cfg(test)]
mod tests;
mod varint;

pub use client::{Client, Receiver, Sender};
pub use decoder::Decoder;
pub use delimited::Delimited;
pub use described::Described;
pub use error::FrameError;
pub use fixed::Fixed;
pub use length::LengthPrefixed;
pub use lines::Lines;

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::{Conn, ConnId, Core, Shared, Written};

/// The largest payload that a codec accepts unless told otherwise: 64 KiB.
pub const DEFAULT_MAXIMUM: usize = 64 * 1024;

/// A frame at the start of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where the payload is.
    pub payload: Range<usize>,
    /// How long the whole frame is, with all that surrounds the payload.
    pub length: usize,
}

/// Room for the varint of a `u64`, 10 bytes, and for a kind or a flag beside it.
const HEADER: usize = 16;

/// What surrounds a payload on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    header: [u8; HEADER],
    header_length: u8,
    trailer: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// The longest header in bytes.
    pub const HEADER: usize = HEADER;

    /// # Panics
    ///
    /// If the header is longer than [`Envelope::HEADER`].
    #[inline]
    pub fn new(header: &[u8], trailer: &'a [u8]) -> Self {
        let mut bytes = [0; HEADER];
        bytes[..header.len()].copy_from_slice(header);
        Self { header: bytes, header_length: header.len() as u8, trailer }
    }

    /// What goes before the payload.
    #[inline]
    pub fn header(&self) -> &[u8] {
        &self.header[..self.header_length.into()]
    }

    /// What goes behind it.
    #[inline]
    pub fn trailer(&self) -> &'a [u8] {
        self.trailer
    }
}

/// A rule that cuts a stream of bytes into frames, and makes frames of payloads.
///
/// Implement it for a protocol of your own: [`Codec::find`] and [`Codec::wrap`] are all it takes. A codec
/// holds configuration and no state of a connection; that is the [`Decoder`]'s.
pub trait Codec {
    /// Looks for a whole frame at the start of `bytes`, which may hold anything from a part of one to many.
    /// `None`: more is needed. Of `bytes` the first `seen` were there at the last call, which found no whole
    /// frame in them: a search need not begin again at the start.
    ///
    /// # Errors
    ///
    /// When what is there can never become a frame that is allowed. It must say so as soon as it can be
    /// known: by then nothing larger than a frame has been kept.
    fn find(&self, bytes: &[u8], seen: usize) -> Result<Option<Frame>, FrameError>;

    /// What is left when the stream has ended in the middle of something: by default an error.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] where that is no frame.
    fn find_last(&self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        if bytes.is_empty() { Ok(None) } else { Err(FrameError::Truncated { bytes: bytes.len() }) }
    }

    /// What surrounds this payload on the wire.
    ///
    /// # Errors
    ///
    /// Where the payload cannot be a frame: it is too large, or holds what would end it.
    fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError>;

    /// Writes a frame to the connection whose callback runs, uncopied if it is large.
    ///
    /// # Errors
    ///
    /// As [`Codec::wrap`]; nothing is written then.
    fn write(&self, conn: &mut Conn<'_>, payload: &[u8]) -> Result<Written, FrameError> {
        let envelope = self.wrap(payload)?;
        Ok(conn.write_slices(&[envelope.header(), payload, envelope.trailer()]))
    }

    /// Writes a frame to any connection of the reactor.
    ///
    /// # Errors
    ///
    /// As [`Codec::wrap`]; nothing is written then.
    fn write_to(&self, core: &mut Core<'_>, id: ConnId, payload: &[u8]) -> Result<Written, FrameError> {
        let envelope = self.wrap(payload)?;
        Ok(core.write_slices(id, &[envelope.header(), payload, envelope.trailer()]))
    }

    /// Appends a frame to `out`.
    ///
    /// # Errors
    ///
    /// As [`Codec::wrap`]; nothing is appended then.
    fn append(&self, out: &mut Vec<u8>, payload: &[u8]) -> Result<(), FrameError> {
        let envelope = self.wrap(payload)?;
        out.reserve(envelope.header().len() + payload.len() + envelope.trailer().len());
        out.extend_from_slice(envelope.header());
        out.extend_from_slice(payload);
        out.extend_from_slice(envelope.trailer());
        Ok(())
    }

    /// A frame to be sent to many connections, made once.
    ///
    /// # Errors
    ///
    /// As [`Codec::wrap`].
    fn shared(&self, payload: &[u8]) -> Result<Shared, FrameError> {
        let mut frame = Vec::new();
        self.append(&mut frame, payload)?;
        Ok(frame.into())
    }
}

/// A codec that is lent or shared is one too: `Decoder<Rc<dyn Codec>>`.
macro_rules! delegate {
    ($($pointer:ty),*) => {$(
        impl<C: Codec + ?Sized> Codec for $pointer {
            fn find(&self, bytes: &[u8], seen: usize) -> Result<Option<Frame>, FrameError> {
                (**self).find(bytes, seen)
            }

            fn find_last(&self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
                (**self).find_last(bytes)
            }

            fn wrap(&self, payload: &[u8]) -> Result<Envelope<'_>, FrameError> {
                (**self).wrap(payload)
            }
        }
    )*};
}

delegate!(&C, Box<C>, Rc<C>, Arc<C>);
