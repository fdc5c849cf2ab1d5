//! A request's head: behind its first line `httparse` finds the headers, and here is what the standard demands beyond
//! that.
//!
//! What comes of some bytes never changes when more come behind them, however they were cut on their way.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::config::{Limits, MOST_HEADERS};
use super::connection::part;
use super::line::{self, Line};
use super::request::{Method, Version};
use super::{Problem, target};

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes; 0 also where there is none.
    Length(u64),
    Chunked,
}

impl Framing {
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// A head that is whole and in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) method: Method,
    pub(super) method_name: &'a str,
    pub(super) target: &'a str,
    /// Where in the target the path begins and ends.
    path: usize,
    path_end: usize,
    /// All of it ASCII.
    pub(super) host: &'a [u8],
    pub(super) version: Version,
    pub(super) fields: &'a [Header<'a>],
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// What its exchange begins with: see [`part`].
    pub(super) flags: u32,
    /// All of it in bytes, with what was skipped before it.
    pub(super) length: usize,
}

impl<'a> Head<'a> {
    pub(super) fn path(&self) -> &'a str {
        match &self.target[self.path..self.path_end] {
            "" if self.method != Method::Connect => "/",
            path => path,
        }
    }

    pub(super) fn query(&self) -> Option<&'a str> {
        self.target.get(self.path_end + 1..)
    }
}

/// Headers that most heads have room for.
const FEW: usize = 16;

/// Room for as many headers as the limit allows; not used unless the head has more than a [`Room`] holds.
pub(super) type MuchRoom<'a> = MaybeUninit<[Header<'a>; MOST_HEADERS]>;

/// Room for the headers of most heads.
pub(super) type Room<'a> = [Header<'a>; FEW];

pub(super) const ROOM: Room<'static> = [httparse::EMPTY_HEADER; FEW];

pub(super) const MUCH_ROOM: MuchRoom<'static> = MaybeUninit::uninit();

/// Finds the headers that `bytes` begin with, and how long they are with the empty line behind them.
#[inline]
fn headers<'a>(
    bytes: &'a [u8],
    room: &'a mut Room<'a>,
    more: &'a mut MuchRoom<'a>,
    most: usize,
) -> Result<Status<(usize, &'a [Header<'a>])>, httparse::Error> {
    match httparse::parse_headers(bytes, &mut room[..most.min(FEW)]) {
        Err(httparse::Error::TooManyHeaders) if most > FEW => many_headers(bytes, more, most),
        found => found,
    }
}

#[cold]
fn many_headers<'a>(
    bytes: &'a [u8],
    room: &'a mut MuchRoom<'a>,
    most: usize,
) -> Result<Status<(usize, &'a [Header<'a>])>, httparse::Error> {
    let room = room.write([httparse::EMPTY_HEADER; MOST_HEADERS]);
    httparse::parse_headers(bytes, &mut room[..most.min(MOST_HEADERS)])
}

/// Looks for a whole head at the start of `bytes`. `None`: more is needed.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    room: &'a mut Room<'a>,
    more: &'a mut MuchRoom<'a>,
    limits: &Limits,
) -> Result<Option<Head<'a>>, Problem> {
    let Some(skipped) = skip_empty_line(bytes)? else { return Ok(None) };
    let rest = &bytes[skipped..];
    let window = &rest[..rest.len().min(limits.head)];
    let Some(line) = line::parse(window, limits)? else { return incomplete(window, limits) };
    let (length, fields) = match headers(&window[line.length..], room, more, limits.headers) {
        Ok(Status::Complete((length, fields))) => (line.length + length, fields),
        Ok(Status::Partial) => return incomplete(window, limits),
        Err(httparse::Error::TooManyHeaders) => return Err(Problem::HeaderCount),
        Err(_) => return Err(Problem::Header),
    };
    check_line_ends(window, length, fields)?;
    let Line { method, method_name, target, path_end, version, .. } = line;
    let (host, has_rare) = look_through(fields)?;
    let form = target::form(method, target, path_end)?;
    let host = check_host(version, form.authority, host)?;
    let is_plain =
        !has_rare && version == Version::Http11 && !matches!(method, Method::Head | Method::Connect);
    let rare = if is_plain { Rare::NONE } else { rare(fields, method, version, limits)? };
    Ok(Some(Head {
        method,
        method_name,
        target,
        path: form.path,
        path_end: form.path_end,
        host,
        version,
        fields,
        framing: rare.framing,
        keep_alive: rare.keep_alive,
        upgrade: rare.upgrade,
        flags: rare.flags,
        length: skipped + length,
    }))
}

/// An empty line before a request is skipped, once: some old clients send one behind a body.
fn skip_empty_line(bytes: &[u8]) -> Result<Option<usize>, Problem> {
    match bytes {
        [b'\r', b'\n', b'\r' | b'\n', ..] | [b'\n', ..] => Err(Problem::RequestLine),
        [b'\r', b'\n', _, ..] => Ok(Some(2)),
        [b'\r', b'\n'] | [b'\r'] => Ok(None),
        [b'\r', ..] => Err(Problem::RequestLine),
        _ => Ok(Some(0)),
    }
}

/// A head that is not whole: does it wait for more, or is it too large already?
#[cold]
fn incomplete<'a>(window: &[u8], limits: &Limits) -> Result<Option<Head<'a>>, Problem> {
    if window.len() == limits.head { Err(Problem::HeadSize) } else { Ok(None) }
}

/// The parser takes a line feed alone for the end of a line. Others do not, and so would see other headers.
#[inline]
pub(super) fn check_line_ends(window: &[u8], length: usize, fields: &[Header<'_>]) -> Result<(), Problem> {
    let start = window.as_ptr().addr();
    // Each header begins behind the end of another line, or is the first trailer; the empty line ends the last one.
    let mut begins = fields.iter().map(|field| field.name.as_ptr().addr() - start);
    let ends_well = |at: usize| at == 0 || at >= 2 && window[at - 2..at] == *b"\r\n";
    let all = begins.all(ends_well) && ends_well(length) && ends_well(length - 2);
    if all { Ok(()) } else { Err(Problem::Header) }
}

/// The value of `Host`, and whether there may be any of the headers of [`Found`].
#[inline]
fn look_through<'a>(fields: &'a [Header<'a>]) -> Result<(Option<&'a [u8]>, bool), Problem> {
    let (mut host, mut has_rare) = (None, false);
    for field in fields {
        // Few headers have the length of one of these names.
        match field.name.len() {
            4 if is(field, b"host") => once(&mut host, field.value, Problem::Host)?,
            6 | 7 | 10 | 14 | 17 => has_rare = true,
            _ => {}
        }
    }
    Ok((host, has_rare))
}

/// What headers other than `Host` say about the message and its connection.
#[derive(Debug, Clone, Copy)]
struct Rare {
    framing: Framing,
    keep_alive: bool,
    upgrade: bool,
    flags: u32,
}

impl Rare {
    /// Of a head of version 1.1 without any of them, but for HEAD and CONNECT.
    const NONE: Self = Self { framing: Framing::Length(0), keep_alive: true, upgrade: false, flags: 0 };
}

/// What follows from method, version and headers other than `Host`.
fn rare(fields: &[Header<'_>], method: Method, version: Version, limits: &Limits) -> Result<Rare, Problem> {
    let found = Found::collect(fields)?;
    let framing = found.framing(version)?;
    match framing {
        Framing::Length(length) if length > limits.body => return Err(Problem::BodySize),
        Framing::Length(0) => {}
        _ if method == Method::Connect => return Err(Problem::Framing),
        _ => {}
    }
    let is_new = version == Version::Http11;
    let keep_alive = !found.close && (is_new || found.keep);
    let upgrade = found.upgrade && found.has_upgrade && is_new;
    let has_body = framing != Framing::Length(0);
    let mut flags = 0;
    for (flag, is_so) in [
        (part::HEAD, method == Method::Head),
        (part::HTTP10, !is_new),
        (part::KEEP, !is_new && keep_alive),
        (part::CLOSE, !keep_alive),
        (part::BODY, has_body),
        (part::OFFERS, upgrade || method == Method::Connect),
        (part::CONNECT, method == Method::Connect),
        (part::EXPECTS, found.expects(version)? && has_body),
    ] {
        flags |= if is_so { flag } else { 0 };
    }
    Ok(Rare { framing, keep_alive, upgrade, flags })
}

/// The headers that say how the message is framed and what becomes of the connection.
#[derive(Debug, Default)]
struct Found<'a> {
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    more_codings: bool,
    expect: Option<&'a [u8]>,
    close: bool,
    keep: bool,
    upgrade: bool,
    has_upgrade: bool,
}

impl<'a> Found<'a> {
    fn collect(fields: &'a [Header<'a>]) -> Result<Self, Problem> {
        let mut found = Self::default();
        for field in fields {
            match field.name.len() {
                6 if is(field, b"expect") => once(&mut found.expect, field.value, Problem::Expectation)?,
                7 if is(field, b"upgrade") => found.has_upgrade = true,
                10 if is(field, b"connection") => found.connection(field.value),
                14 if is(field, b"content-length") => {
                    once(&mut found.length, field.value, Problem::Framing)?;
                }
                17 if is(field, b"transfer-encoding") => {
                    found.more_codings |= found.coding.replace(field.value).is_some();
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    fn expects(&self, version: Version) -> Result<bool, Problem> {
        match self.expect {
            // An older client cannot wait for it.
            Some(_) if version == Version::Http10 => Ok(false),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
            Some(_) => Err(Problem::Expectation),
            None => Ok(false),
        }
    }

    fn framing(&self, version: Version) -> Result<Framing, Problem> {
        match (self.coding, self.length) {
            (None, None) => Ok(Framing::Length(0)),
            (None, Some(length)) => decimal(length).map(Framing::Length).ok_or(Problem::Framing),
            // Whoever looks at the length alone sees another body.
            (Some(_), Some(_)) => Err(Problem::Framing),
            (Some(_), None) if version == Version::Http10 || self.more_codings => Err(Problem::Framing),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(codings), None) => Err(unsupported(codings)),
        }
    }
}

/// Whether the header has this name, which is in lower case. Names are tokens, none of whose characters becomes a letter
/// or a hyphen by this bit but the one in upper case; so all of it is compared at once.
#[inline]
fn is<const LENGTH: usize>(field: &Header<'_>, name: &[u8; LENGTH]) -> bool {
    <&[u8; LENGTH]>::try_from(field.name.as_bytes()).is_ok_and(|other| {
        other.iter().zip(name).fold(0, |differs, (other, name)| differs | (other | 0x20) ^ name) == 0
    })
}

/// Sets what may be there once.
#[inline]
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8], problem: Problem) -> Result<(), Problem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(problem),
    }
}

/// A number of bytes: digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add((digit - b'0').into())?;
    }
    (!digits.is_empty()).then_some(number)
}

/// Codings other than plain chunks: known ones under chunks would be understood by others, anything else is an
/// attempt to be misunderstood by somebody.
#[cold]
fn unsupported(codings: &[u8]) -> Problem {
    let mut codings = codings.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).rev();
    let is_last_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let known: [&[u8]; 5] = [b"gzip", b"x-gzip", b"compress", b"x-compress", b"deflate"];
    let mut are_known = codings.map(|coding| known.iter().any(|name| name.eq_ignore_ascii_case(coding)));
    if is_last_chunked && are_known.all(|is_known| is_known) { Problem::Coding } else { Problem::Framing }
}

/// The host that the request is for.
#[inline(always)]
fn check_host<'a>(
    version: Version,
    authority: Option<&'a str>,
    host: Option<&'a [u8]>,
) -> Result<&'a [u8], Problem> {
    match (host, authority) {
        (Some(host), None) if target::is_host(host) => Ok(host),
        _ => other_host(version, authority, host),
    }
}

#[cold]
fn other_host<'a>(
    version: Version,
    authority: Option<&'a str>,
    host: Option<&'a [u8]>,
) -> Result<&'a [u8], Problem> {
    let authority = authority.map(str::as_bytes);
    match (authority, host) {
        (authority, None) if version == Version::Http10 => Ok(authority.unwrap_or(b"")),
        // Whoever routes by the one and whoever checks the other would disagree.
        (Some(authority), Some(host)) if target::is_host(host) && authority.eq_ignore_ascii_case(host) => {
            Ok(authority)
        }
        _ => Err(Problem::Host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many headers are found in a head with so many, where so many are allowed.
    fn count(headers: usize, most: usize) -> Result<Option<usize>, Problem> {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        (1..headers)
            .for_each(|number| bytes.extend_from_slice(format!("x-{number}: {number}\r\n").as_bytes()));
        bytes.extend_from_slice(b"\r\n");
        let limits = Limits { headers: most, ..Limits::default() };
        let (mut room, mut more) = (ROOM, MUCH_ROOM);
        let head = parse(&bytes, &mut room, &mut more, &limits)?;
        Ok(head.map(|head| {
            let last = format!("{}", headers - 1);
            assert!(headers == 1 || head.fields[headers - 1].value == last.as_bytes());
            assert_eq!(head.length, bytes.len());
            head.fields.len()
        }))
    }

    #[test]
    fn there_is_room_for_as_many_headers_as_are_allowed() {
        for headers in [1, FEW - 1, FEW, FEW + 1, 100, MOST_HEADERS] {
            assert_eq!(count(headers, MOST_HEADERS), Ok(Some(headers)));
            assert_eq!(count(headers, headers), Ok(Some(headers)));
            assert_eq!(count(headers + 1, headers), Err(Problem::HeaderCount));
        }
    }
}
