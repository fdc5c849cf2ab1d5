//! HTTP/1.1: replies of known length or in chunks, one after the other on a connection.

use super::Wrong;
use super::wrong::shown;
use crate::plan::{Operation, Plan};

/// Headers that a reply may have.
const MOST_HEADERS: usize = 96;

/// A reply's head is no longer.
const LONGEST_HEAD: usize = 64 * 1024;

/// Bytes of a first body that later ones are compared with; what is longer is compared up to there.
const LONGEST_REFERENCE: usize = 16 << 20;

/// How far a connection is in a reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader {
    state: State,
    /// Bytes of the body so far.
    offset: usize,
    closes: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    /// So much of the body is to come.
    Body(usize),
    /// The line with the length of a chunk.
    ChunkSize,
    Chunk(usize),
    /// The line end behind a chunk.
    ChunkEnd,
    /// Lines behind the last chunk.
    Trailer,
}

/// What came of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    More,
    Reply { closes: bool },
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meaning {
    /// `None`: in chunks.
    length: Option<usize>,
    closes: bool,
}

/// One path.
#[derive(Debug)]
struct Page {
    path: String,
    request: Vec<u8>,
    /// The last head and what it said: most heads are the same again, and need no parsing then.
    head: Vec<u8>,
    meaning: Meaning,
    /// The first body, as far as it is known.
    body: Vec<u8>,
    is_whole: bool,
}

#[derive(Debug)]
pub(super) struct Http {
    pages: Vec<Page>,
    verify: bool,
}

impl Http {
    pub(super) fn new(plan: &Plan) -> Self {
        let page = |path: &str| Page {
            path: path.to_owned(),
            request: format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.target.host).into_bytes(),
            head: Vec::new(),
            meaning: Meaning { length: Some(0), closes: false },
            body: Vec::new(),
            is_whole: false,
        };
        let paths = plan.mix.iter().map(|entry| match &entry.operation {
            Operation::Fetch(path) => page(path),
            _ => page(&plan.target.path),
        });
        Self { pages: paths.collect(), verify: plan.verify }
    }

    pub(super) fn request(&self, entry: u16) -> &[u8] {
        &self.pages[usize::from(entry)].request
    }

    pub(super) fn longest_request(&self) -> usize {
        self.pages.iter().map(|page| page.request.len()).max().unwrap_or_default()
    }

    pub(super) fn hear(
        &mut self,
        entry: u16,
        reader: &mut Reader,
        input: &mut &[u8],
    ) -> Result<Heard, Wrong> {
        let verify = self.verify;
        let page = &mut self.pages[usize::from(entry)];
        loop {
            reader.state = match reader.state {
                State::Head => match page.head(input)? {
                    None => return Ok(Heard::More),
                    Some(Meaning { length, closes }) => {
                        reader.closes = closes;
                        length.map_or(State::ChunkSize, State::Body)
                    }
                },
                State::Body(0) => return page.end(reader, verify),
                State::Body(left) => match page.body(left, reader, input, verify)? {
                    0 => return Ok(Heard::More),
                    taken => State::Body(left - taken),
                },
                State::ChunkSize => match line(input)? {
                    None => return Ok(Heard::More),
                    Some(text) => match chunk_size(text)? {
                        0 => State::Trailer,
                        size => State::Chunk(size),
                    },
                },
                State::Chunk(0) => State::ChunkEnd,
                State::Chunk(left) => match page.body(left, reader, input, verify)? {
                    0 => return Ok(Heard::More),
                    taken => State::Chunk(left - taken),
                },
                State::ChunkEnd => match line(input)? {
                    None => return Ok(Heard::More),
                    Some([]) => State::ChunkSize,
                    Some(_) => return Err(Wrong::Http("a chunk is longer than it says".to_owned())),
                },
                State::Trailer => match line(input)? {
                    None => return Ok(Heard::More),
                    Some([]) => return page.end(reader, verify),
                    Some(_) => State::Trailer,
                },
            };
        }
    }
}

impl Page {
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Meaning>, Wrong> {
        if !self.head.is_empty() && input.starts_with(&self.head) {
            *input = &input[self.head.len()..];
            return Ok(Some(self.meaning));
        }
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut reply = httparse::Response::new(&mut headers);
        let length = match reply.parse(input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if input.len() < LONGEST_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) => {
                return Err(Wrong::Http(format!("a head of more than {LONGEST_HEAD} bytes")));
            }
            Err(error) => {
                return Err(Wrong::Http(format!("no reply of HTTP/1.1 ({error}): `{}`", shown(input))));
            }
        };
        let code = reply.code.unwrap_or_default();
        if code != 200 {
            return Err(Wrong::Http(format!("{} was answered with status {code} instead of 200", self.path)));
        }
        self.meaning = meaning(&reply)?;
        self.head.clear();
        self.head.extend_from_slice(&input[..length]);
        *input = &input[length..];
        Ok(Some(self.meaning))
    }

    /// Takes up to `left` bytes of the body, and compares them; how many.
    fn body(
        &mut self,
        left: usize,
        reader: &mut Reader,
        input: &mut &[u8],
        verify: bool,
    ) -> Result<usize, Wrong> {
        let (received, rest) = input.split_at(left.min(input.len()));
        *input = rest;
        if verify {
            self.compare(reader.offset, received)?;
        }
        reader.offset += received.len();
        Ok(received.len())
    }

    fn compare(&mut self, offset: usize, received: &[u8]) -> Result<(), Wrong> {
        let room = LONGEST_REFERENCE.saturating_sub(offset).min(received.len());
        let known = self.body.len().saturating_sub(offset).min(room);
        let differs = if self.body[offset.min(self.body.len())..][..known] != received[..known] {
            self.body[offset..].iter().zip(received).position(|(one, other)| one != other)
        } else if known < room && self.is_whole {
            Some(known)
        } else {
            // Nobody has seen what comes now: it is what later bodies are compared with.
            self.body.extend_from_slice(&received[known..room]);
            None
        };
        let Some(at) = differs else { return Ok(()) };
        Err(self.differs(&format!("at byte {}", offset + at)))
    }

    fn differs(&self, how: &str) -> Wrong {
        let path = &self.path;
        Wrong::Http(format!(
            "a body of {path} differs from the first one {how} (--verify false: not compared)"
        ))
    }

    fn end(&mut self, reader: &mut Reader, verify: bool) -> Result<Heard, Wrong> {
        let Reader { offset, closes, .. } = std::mem::take(reader);
        if verify && self.is_whole && offset.min(LONGEST_REFERENCE) != self.body.len() {
            return Err(self.differs(&format!("in its length: {offset} bytes, not {}", self.body.len())));
        }
        self.is_whole = true;
        Ok(Heard::Reply { closes })
    }
}

fn meaning(reply: &httparse::Response<'_, '_>) -> Result<Meaning, Wrong> {
    let mut length = None;
    let mut chunked = false;
    let mut closes = reply.version == Some(0);
    for header in &*reply.headers {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
            let Some(number) = number else {
                return Err(Wrong::Http(format!("Content-Length is `{}`", shown(value))));
            };
            if length.is_some_and(|other| other != number) {
                return Err(Wrong::Http("two different Content-Lengths".to_owned()));
            }
            length = Some(number);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            if value.eq_ignore_ascii_case(b"close") {
                closes = true;
            } else if value.eq_ignore_ascii_case(b"keep-alive") {
                closes = false;
            }
        }
    }
    match (length, chunked) {
        (None, false) => Err(Wrong::Http(
            "a reply without Content-Length or chunks: its end cannot be known with keep-alive".to_owned(),
        )),
        (_, true) => Ok(Meaning { length: None, closes }),
        (length, false) => Ok(Meaning { length, closes }),
    }
}

/// Takes a line without its end, once that is there.
fn line<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Wrong> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return match input.len() {
            0..LONGEST_HEAD => Ok(None),
            _ => Err(Wrong::Http("a line without an end between chunks".to_owned())),
        };
    };
    let (text, rest) = input.split_at(end + 1);
    *input = rest;
    match text.strip_suffix(b"\r\n") {
        Some(text) => Ok(Some(text)),
        None => Err(Wrong::Http("a line between chunks does not end with CR LF".to_owned())),
    }
}

fn chunk_size(text: &[u8]) -> Result<usize, Wrong> {
    let digits = text.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| !digits.starts_with('+'))
        .and_then(|digits| usize::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Wrong::Http(format!("the length of a chunk is `{}`", shown(text))))
}
