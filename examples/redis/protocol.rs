//! Requests as redis's clients send them: an array of bulk strings, or a line of words.

use memchr::memchr;

/// A length or a line without its end within this many bytes is no request.
const MOST_LINE: usize = 64 * 1024;
const MOST_ARGUMENTS: i64 = 1024 * 1024;
/// An argument that has not arrived in full is looked for from here on, not from the start of its request.
const WORTH_KEEPING: usize = 16;
/// Room for this many arguments stays from one request to the next.
const MOST_KEPT: usize = 4096;

/// Where an argument is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, length: usize) -> Self {
        Self { start: start as u32, end: (start + length) as u32 }
    }
}

/// The words of a request: slices of what was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    pub(crate) fn new(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self { bytes, spans }
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The argument of this index; callers have checked that there are as many.
    #[inline]
    pub(crate) fn at(&self, index: usize) -> &'a [u8] {
        let Span { start, end } = self.spans[index];
        &self.bytes[start as usize..end as usize]
    }

    /// Those from this index on.
    pub(crate) fn from(self, index: usize) -> impl Iterator<Item = &'a [u8]> {
        (index..self.len()).map(move |index| self.at(index))
    }
}

/// What breaks the protocol; nothing behind it can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProtocolError(pub(crate) String);

type Parsed<T> = Result<Option<T>, ProtocolError>;

fn broken<T>(text: &str) -> Result<T, ProtocolError> {
    Err(ProtocolError(text.to_owned()))
}

/// Cuts the input into requests. What it knows of one that has come in part is kept by whoever owns it.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    spans: Vec<Span>,
    /// Words of a line, without their quotes.
    unquoted: Vec<u8>,
    is_line: bool,
    /// How far the request has been read.
    position: usize,
    /// How many of its arguments are to come, once that is known.
    left: usize,
}

impl Parser {
    /// Reads the request at the start of `bytes`; how long it is, when it is there in full. Its arguments
    /// are had from [`Parser::args`] then; there may be none.
    #[inline]
    pub(crate) fn next(&mut self, bytes: &[u8], most: usize) -> Parsed<usize> {
        if self.left == 0 {
            self.spans.clear();
            self.spans.shrink_to(MOST_KEPT);
            self.is_line = false;
            match bytes.first() {
                None => return Ok(None),
                Some(b'*') => match count(bytes)? {
                    None => return Ok(None),
                    Some((0, next)) => return Ok(Some(next)),
                    Some((count, next)) => (self.left, self.position) = (count, next),
                },
                Some(_) => return self.line(bytes),
            }
        }
        self.bulks(bytes, most)
    }

    #[inline]
    fn bulks(&mut self, bytes: &[u8], most: usize) -> Parsed<usize> {
        while self.left > 0 {
            let Some((length, start)) = bulk_length(bytes, self.position)? else { return self.part() };
            let end = start + length;
            if end > most {
                return broken("invalid bulk length");
            }
            // The line end behind it is skipped unseen, as redis does.
            if bytes.len() < end + 2 {
                return self.part();
            }
            self.spans.push(Span { start: start as u32, end: end as u32 });
            self.position = end + 2;
            self.left -= 1;
        }
        Ok(Some(self.position))
    }

    /// The rest has not come. Few arguments are sooner read again than kept.
    #[cold]
    fn part(&mut self) -> Parsed<usize> {
        if self.spans.len() < WORTH_KEEPING {
            self.left = 0;
        }
        Ok(None)
    }

    /// Whether there is something to keep until more has come.
    pub(crate) fn is_within(&self) -> bool {
        self.left > 0
    }

    pub(crate) fn args<'a>(&'a self, bytes: &'a [u8]) -> Args<'a> {
        Args::new(if self.is_line { &self.unquoted } else { bytes }, &self.spans)
    }

    /// A request typed by hand: words, and words in quotes.
    fn line(&mut self, bytes: &[u8]) -> Parsed<usize> {
        let Some(end) = memchr(b'\n', bytes) else {
            return if bytes.len() > MOST_LINE { broken("too big inline request") } else { Ok(None) };
        };
        let line = &bytes[..end];
        self.is_line = true;
        self.unquoted.clear();
        if self.words(line.strip_suffix(b"\r").unwrap_or(line)).is_none() {
            return broken("unbalanced quotes in request");
        }
        Ok(Some(end + 1))
    }

    /// `None` for a quote that does not end, or ends within a word.
    fn words(&mut self, line: &[u8]) -> Option<()> {
        let mut rest = line;
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                return Some(());
            }
            let start = self.unquoted.len();
            let mut quote = None;
            while let Some((&byte, tail)) = rest.split_first() {
                rest = tail;
                match (quote, byte) {
                    (None, b'"' | b'\'') => quote = Some(byte),
                    (None, byte) if byte.is_ascii_whitespace() => break,
                    (Some(b'"'), b'\\') if !rest.is_empty() => rest = self.escape(rest),
                    (Some(b'\''), b'\\') if rest.first() == Some(&b'\'') => {
                        self.unquoted.push(b'\'');
                        rest = &rest[1..];
                    }
                    (Some(open), byte) if open == byte => {
                        if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                            return None;
                        }
                        quote = None;
                        break;
                    }
                    (_, byte) => self.unquoted.push(byte),
                }
            }
            if quote.is_some() {
                return None;
            }
            self.spans.push(Span::new(start, self.unquoted.len() - start));
        }
    }

    /// What follows a backslash within double quotes; returns what is behind it.
    fn escape<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let hex = |at: usize| rest.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        if let (b'x', Some(high), Some(low)) = (rest[0], hex(1), hex(2)) {
            self.unquoted.push((high * 16 + low) as u8);
            return &rest[3..];
        }
        self.unquoted.push(match rest[0] {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'a' => 7,
            other => other,
        });
        &rest[1..]
    }
}

/// How many arguments the request at the start has, and where the first begins.
#[inline]
fn count(bytes: &[u8]) -> Parsed<(usize, usize)> {
    if let Some(short) = short_number(bytes, 0, b'*') {
        return Ok(Some(short));
    }
    let Some((count, next)) = number(bytes, 0, "too big mbulk count string")? else { return Ok(None) };
    match count {
        // Less than none is none.
        Some(count) if count <= MOST_ARGUMENTS => Ok(Some((count.max(0) as usize, next))),
        _ => broken("invalid multibulk length"),
    }
}

/// How long the argument is whose length line is at `position`, and where it begins.
#[inline]
fn bulk_length(bytes: &[u8], position: usize) -> Parsed<(usize, usize)> {
    if let Some(short) = short_number(bytes, position, b'$') {
        return Ok(Some(short));
    }
    let Some((length, next)) = number(bytes, position, "too big bulk count string")? else {
        return Ok(None);
    };
    match (bytes[position], length.map(usize::try_from)) {
        (b'$', Some(Ok(length))) => Ok(Some((length, next))),
        (b'$', _) => broken("invalid bulk length"),
        (other, _) => broken(&format!("expected '$', got '{}'", printable(other))),
    }
}

/// The number in a line of this kind at `position`, and where the next line begins, if the number has one
/// digit or two and the line nothing odd: nearly all have.
#[inline]
fn short_number(bytes: &[u8], position: usize, kind: u8) -> Option<(usize, usize)> {
    match *bytes.get(position..)?.first_chunk::<5>()? {
        [first, ..] if first != kind => None,
        [_, digit @ b'0'..=b'9', b'\r', ..] => Some(((digit - b'0').into(), position + 4)),
        [_, tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _] => {
            Some((usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), position + 5))
        }
        _ => None,
    }
}

fn printable(byte: u8) -> char {
    // An error is a line: what would end it is not shown.
    if byte == b'\r' || byte == b'\n' { ' ' } else { byte.into() }
}

/// The number behind the first byte of the line at `start`, and where the next line begins. The number is
/// `None` if it is none; the whole is if the line has not come in full.
#[cold]
fn number(bytes: &[u8], start: usize, too_long: &str) -> Parsed<(Option<i64>, usize)> {
    let Some(rest) = bytes.get(start..) else { return Ok(None) };
    match memchr(b'\r', rest) {
        None if rest.len() > MOST_LINE => broken(too_long),
        None => Ok(None),
        Some(end) if end + 2 > rest.len() => Ok(None),
        Some(end) => Ok(Some((rest[..end].get(1..).and_then(integer), start + end + 2))),
    }
}

/// A decimal number as redis accepts it: no sign but a minus, no leading zeros, no spaces.
#[inline]
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] => return (!is_negative).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        // Built up on its own side of zero: the least number has no opposite.
        value = value.checked_mul(10)?;
        value = if is_negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}
