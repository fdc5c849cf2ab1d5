//! Bodies: what belongs to one, piece by piece, as slices of what has come.

use super::Problem;
use super::config::Limits;
use super::head::Framing;

/// Where in a body the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes to go, and then it ends.
    Length(u64),
    Chunked(Chunked),
    /// Longer than the service allows.
    TooLong,
}

/// Where in a chunked body the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunked {
    state: State,
    /// Of the chunk, as far as its size was read, or to go.
    left: u64,
    /// Bytes that all chunks behind this one may have.
    room: u64,
    /// Bytes of all extensions so far.
    extensions: u32,
    /// Of the present size.
    digits: u8,
}

/// As many as the largest size has.
const MOST_DIGITS: u8 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the first digit of a size.
    Begin,
    /// Behind some digits.
    Size,
    Extension,
    /// Within quotes of an extension's value.
    Quoted,
    /// Behind a backslash within quotes.
    Escaped,
    /// Behind the carriage return of a size's line.
    SizeEnd,
    Data,
    /// Behind the data: its line has to end.
    DataEnd,
    DataEndFeed,
    Trailers,
}

/// What comes next in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// More input is needed.
    More,
    /// So many bytes of content, behind the consumed bytes of framing.
    Data(usize),
    /// The content is over; trailers may follow.
    End,
}

impl Body {
    pub(super) fn new(framing: Framing, limits: &Limits) -> Self {
        let room = limits.body;
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => {
                Self::Chunked(Chunked { state: State::Begin, left: 0, room, extensions: 0, digits: 0 })
            }
        }
    }

    /// Whether the content is over and what follows are trailers.
    pub(super) fn is_at_trailers(&self) -> bool {
        matches!(self, Self::Chunked(Chunked { state: State::Trailers, .. }))
    }

    /// How many bytes are still to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) => None,
            Self::TooLong => Some(u64::MAX),
        }
    }

    /// Allows no more than so many bytes to follow.
    pub(super) fn limit(&mut self, most: u64) {
        match self {
            Self::Length(left) if *left <= most => {}
            Self::Length(_) | Self::TooLong => *self = Self::TooLong,
            Self::Chunked(chunked) => chunked.room = chunked.room.min(most),
        }
    }

    /// What `bytes` begin with: how many of them are framing and are consumed, and what stands behind those. The
    /// caller consumes the data as well.
    pub(super) fn next(&mut self, bytes: &[u8], limits: &Limits) -> Result<(usize, Piece), Problem> {
        match self {
            Self::Length(0) => Ok((0, Piece::End)),
            Self::Length(_) if bytes.is_empty() => Ok((0, Piece::More)),
            Self::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                Ok((0, Piece::Data(count)))
            }
            Self::Chunked(chunked) => chunked.next(bytes, limits),
            Self::TooLong => Err(Problem::BodySize),
        }
    }
}

impl Chunked {
    fn next(&mut self, bytes: &[u8], limits: &Limits) -> Result<(usize, Piece), Problem> {
        let mut at = 0;
        loop {
            if self.state == State::Trailers {
                return Ok((at, Piece::End));
            }
            let Some(&byte) = bytes.get(at) else { return Ok((at, Piece::More)) };
            if self.state == State::Data {
                let count = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= count as u64;
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
                return Ok((at, Piece::Data(count)));
            }
            at += 1;
            self.state = self.take(byte, limits)?;
        }
    }

    /// The state behind one more byte of framing.
    fn take(&mut self, byte: u8, limits: &Limits) -> Result<State, Problem> {
        match (self.state, byte) {
            (State::Begin | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (State::Size | State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Size, b';') => self.extend(State::Extension, limits),
            (State::SizeEnd, b'\n') if self.left == 0 => Ok(State::Trailers),
            (State::SizeEnd, b'\n') => {
                self.room = self.room.saturating_sub(self.left);
                Ok(State::Data)
            }
            (State::DataEnd, b'\r') => Ok(State::DataEndFeed),
            (State::DataEndFeed, b'\n') => Ok(State::Begin),
            (State::Extension, b'"') => self.extend(State::Quoted, limits),
            (State::Quoted, b'"') => self.extend(State::Extension, limits),
            (State::Quoted, b'\\') => self.extend(State::Escaped, limits),
            (State::Quoted | State::Escaped, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extend(State::Quoted, limits)
            }
            // Names, values, and the signs and the white space between them.
            (State::Extension, b'\t' | b' ' | b'=' | b';') => self.extend(State::Extension, limits),
            (State::Extension, byte) if is_token(byte) => self.extend(State::Extension, limits),
            _ => Err(Problem::Chunk),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, Problem> {
        if self.state == State::Begin {
            (self.left, self.digits) = (0, 0);
        }
        self.digits += 1;
        if self.digits > MOST_DIGITS {
            return Err(Problem::Chunk);
        }
        let digit = (byte as char).to_digit(16).ok_or(Problem::Chunk)?;
        // Sixteen times more than fits: somebody else would see a short chunk.
        self.left = self.left.checked_mul(16).ok_or(Problem::Chunk)? + u64::from(digit);
        if self.left > self.room {
            return Err(Problem::BodySize);
        }
        Ok(State::Size)
    }

    fn extend(&mut self, state: State, limits: &Limits) -> Result<State, Problem> {
        self.extensions = self.extensions.saturating_add(1);
        match self.extensions as usize > limits.chunk_extension {
            true => Err(Problem::ChunkExtension),
            false => Ok(state),
        }
    }
}

/// The characters of a name (RFC 9110, 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}
