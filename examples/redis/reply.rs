//! Replies on their way: bytes, and between them large values that are shared with the store.

use corelane::{ConnId, Core, Shared, Written};
use memchr::memchr;

use crate::protocol::integer;

/// What is written to a connection at a time, so that its watermarks are met piece by piece.
const PIECE: usize = 64 * 1024;
/// A buffer that has grown beyond this is not kept.
const MOST_KEPT: usize = 128 * 1024;

/// What surrounds a value, at most: its length line, and the end of its own.
const MOST_HEADER: usize = 32;

/// One reply or several, in the order in which they leave.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    /// Values that go in behind so many of the bytes.
    large: Vec<(usize, Shared)>,
    /// Bytes and large values that have been written.
    written: Mark,
    large_bytes: usize,
}

/// A place in a [`Reply`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    bytes: usize,
    large: usize,
}

impl Reply {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.large.is_empty()
    }

    #[inline]
    pub(crate) fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Bytes that are in it, shared ones too.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.large_bytes
    }

    #[inline]
    pub(crate) fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    pub(crate) fn simple(&mut self, text: &[u8]) {
        self.line(b'+', text);
    }

    /// The bytes of one that holds no shared value.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// An error; its text begins with a word in capitals. What would end the line becomes a space.
    pub(crate) fn error(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.push(b'-');
        let text = text.as_ref().iter();
        self.bytes.extend(text.map(|&byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
        self.bytes.extend_from_slice(b"\r\n");
    }

    #[inline]
    pub(crate) fn integer(&mut self, number: i64) {
        self.header(b':', number);
    }

    #[inline]
    pub(crate) fn bulk(&mut self, value: &[u8]) {
        self.bytes.reserve(value.len() + MOST_HEADER);
        self.header(b'$', value.len() as i64);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub(crate) fn shared_bulk(&mut self, value: &Shared) {
        self.header(b'$', value.len() as i64);
        self.shared(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Something that is ready to be sent as it is.
    pub(crate) fn shared(&mut self, value: &Shared) {
        self.large_bytes += value.len();
        self.large.push((self.bytes.len(), value.clone()));
    }

    #[inline]
    pub(crate) fn null(&mut self, is_resp3: bool) {
        self.bytes.extend_from_slice(if is_resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    pub(crate) fn array(&mut self, items: usize) {
        self.header(b'*', items as i64);
    }

    /// An array of pairs: what RESP3 has a type of its own for.
    pub(crate) fn map(&mut self, pairs: usize, is_resp3: bool) {
        let (kind, items) = if is_resp3 { (b'%', pairs) } else { (b'*', 2 * pairs) };
        self.header(kind, items as i64);
    }

    /// An array whose order says nothing.
    pub(crate) fn set(&mut self, items: usize, is_resp3: bool) {
        self.header(if is_resp3 { b'~' } else { b'*' }, items as i64);
    }

    /// An array that answers no request.
    pub(crate) fn push(&mut self, items: usize, is_resp3: bool) {
        self.header(if is_resp3 { b'>' } else { b'*' }, items as i64);
    }

    #[inline]
    fn header(&mut self, kind: u8, number: i64) {
        // One digit or two: most are, and are written at one go.
        match number {
            0..=9 => self.bytes.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']),
            10..=99 => {
                let (tens, ones) = (b'0' + (number / 10) as u8, b'0' + (number % 10) as u8);
                self.bytes.extend_from_slice(&[kind, tens, ones, b'\r', b'\n']);
            }
            _ => {
                self.bytes.push(kind);
                decimal(&mut self.bytes, number);
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// The end as it is now.
    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), large: self.large.len() }
    }

    pub(crate) fn part(&self, start: Mark, end: Mark) -> Part<'_> {
        Part {
            bytes: &self.bytes[start.bytes..end.bytes],
            large: &self.large[start.large..end.large],
            before: start.bytes,
        }
    }

    pub(crate) fn whole(&self) -> Part<'_> {
        self.part(Mark::default(), self.mark())
    }

    pub(crate) fn append(&mut self, part: Part<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(part.bytes);
        for (at, value) in part.large {
            self.large_bytes += value.len();
            self.large.push((start + at - part.before, value.clone()));
        }
    }

    /// Takes back what was put in behind a mark, none of which has been written.
    pub(crate) fn truncate(&mut self, end: Mark) {
        self.bytes.truncate(end.bytes);
        let removed = self.large.drain(end.large..);
        self.large_bytes -= removed.map(|(_, value)| value.len()).sum::<usize>();
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(MOST_KEPT);
        self.large.clear();
        self.written = Mark::default();
        self.large_bytes = 0;
    }

    /// Writes until all is written or the connection has enough to send for now; whether all was.
    pub(crate) fn write_to(&mut self, core: &mut Core<'_>, id: ConnId) -> bool {
        while self.written.bytes < self.bytes.len() || self.written.large < self.large.len() {
            let next_large = self.large.get(self.written.large);
            let end = next_large.map_or(self.bytes.len(), |(at, _)| *at);
            let written = match next_large {
                Some((_, value)) if end == self.written.bytes => {
                    self.written.large += 1;
                    core.write_shared(id, value)
                }
                _ => {
                    let start = self.written.bytes;
                    let end = end.min(start + PIECE);
                    self.written.bytes = end;
                    core.write(id, &self.bytes[start..end])
                }
            };
            if written == Written::High && self.written != self.mark() {
                return false;
            }
        }
        self.clear();
        true
    }
}

/// A part of a [`Reply`], often one reply of several.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    bytes: &'a [u8],
    large: &'a [(usize, Shared)],
    before: usize,
}

impl<'a> Part<'a> {
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.large.iter().map(|(_, value)| value.len()).sum::<usize>()
    }

    pub(crate) fn is_error(&self) -> bool {
        self.bytes.first() == Some(&b'-')
    }

    /// The number in its first line, and what follows that line.
    pub(crate) fn split_number(self) -> (i64, Self) {
        let (number, line) = self.number();
        (number, self.split(line, 0).1)
    }

    /// The bulk string or null at its start, and what follows that.
    pub(crate) fn split_bulk(self) -> (Self, Self) {
        let (length, line) = self.number();
        let is_shared = self.large.first().is_some_and(|(at, _)| at - self.before == line);
        match usize::try_from(length) {
            Ok(_) if is_shared => self.split(line + 2, 1),
            Ok(length) if self.bytes.first() == Some(&b'$') => self.split(line + length + 2, 0),
            // Null.
            _ => self.split(line, 0),
        }
    }

    /// The number in the first line, and that line's length.
    fn number(&self) -> (i64, usize) {
        let end = memchr(b'\n', self.bytes).unwrap_or(0);
        let number = self.bytes.get(1..end.saturating_sub(1)).and_then(integer).unwrap_or(0);
        (number, (end + 1).min(self.bytes.len()))
    }

    fn split(self, bytes: usize, large: usize) -> (Self, Self) {
        let (first, rest) = self.bytes.split_at(bytes.min(self.bytes.len()));
        let (first_large, rest_large) = self.large.split_at(large);
        let before = self.before + first.len();
        (Part { bytes: first, large: first_large, ..self }, Part { bytes: rest, large: rest_large, before })
    }
}

/// Appends a number's decimal digits.
#[inline]
pub(crate) fn decimal(out: &mut Vec<u8>, number: i64) {
    let mut text = [0; 20];
    let mut start = text.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        text[start] = b'-';
    }
    out.extend_from_slice(&text[start..]);
}
