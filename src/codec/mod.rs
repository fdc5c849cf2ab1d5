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
//! The replies to all frames of one `on_data` leave together, header and payload in one system call.
//!
//! | codec | what a frame is |
//! |---|---|
//! | [`Lines`] | text up to a line feed |
//! | [`Delimited`] | bytes up to a mark of your own |

mod decoder;
mod delimited;
mod error;
mod lines;

pub use decoder::Decoder;
pub use delimited::Delimited;
pub use error::FrameError;
pub use lines::Lines;

use std::ops::Range;

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
    pub fn new(header: &[u8], trailer: &'a [u8]) -> Self {
        let mut bytes = [0; HEADER];
        bytes[..header.len()].copy_from_slice(header);
        Self { header: bytes, header_length: header.len() as u8, trailer }
    }

    /// What goes before the payload.
    pub fn header(&self) -> &[u8] {
        &self.header[..self.header_length.into()]
    }

    /// What goes behind it.
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
