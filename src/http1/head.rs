//! A request's head: `httparse` finds the parts, and here is what the standard demands beyond that.
//!
//! What comes of some bytes never changes when more come behind them, however they were cut on their way.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::config::Limits;
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
    /// The client waits for a `100 Continue`.
    pub(super) expects: bool,
    pub(super) upgrade: bool,
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

/// Room for the headers of one head; as many as the limit allows.
pub(super) type Room<'a> = [MaybeUninit<Header<'a>>];

/// Looks for a whole head at the start of `bytes`. `None`: more is needed.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    room: &'a mut Room<'a>,
    limits: &Limits,
) -> Result<Option<Head<'a>>, Problem> {
    let Some(skipped) = skip_empty_line(bytes)? else { return Ok(None) };
    let rest = &bytes[skipped..];
    let window = &rest[..rest.len().min(limits.head)];
    let headers = limits.headers.min(room.len());
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(window, &mut room[..headers]) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return incomplete(window, limits),
        Err(error) => return malformed(window, error, limits),
    };
    let (Some(method_name), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Problem::RequestLine);
    };
    if target.len() > limits.target {
        return Err(Problem::TargetLength);
    }
    let fields: &'a [Header<'a>] = request.headers;
    check_line_ends(window, length, fields)?;
    let version = if minor == 1 { Version::Http11 } else { Version::Http10 };
    let method = Method::of(method_name);
    let found = Fields::collect(fields)?;
    let form = target::check(method, target)?;
    let host = check_host(version, form.authority, &found)?;
    let framing = found.framing(version)?;
    if method == Method::Connect && framing != Framing::Length(0) {
        return Err(Problem::Framing);
    }
    if let Framing::Length(length) = framing
        && length > limits.body
    {
        return Err(Problem::BodySize);
    }
    Ok(Some(Head {
        method,
        method_name,
        target,
        path: form.path,
        path_end: form.path_end,
        host,
        version,
        fields,
        framing,
        keep_alive: found.keep_alive(version),
        expects: found.expects(version)?,
        upgrade: found.upgrade && found.has_upgrade && version == Version::Http11,
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
    if target_end(window, limits).is_some() {
        return Err(Problem::TargetLength);
    }
    if window.len() == limits.head { Err(Problem::HeadSize) } else { Ok(None) }
}

/// The parser has found an error; which one counts depends on what came first.
#[cold]
fn malformed<'a>(
    window: &[u8],
    error: httparse::Error,
    limits: &Limits,
) -> Result<Option<Head<'a>>, Problem> {
    if let Some(end) = target_end(window, limits) {
        let mut none = [];
        let begin = httparse::Request::new(&mut none).parse(&window[..end]);
        return Err(if begin.is_ok() { Problem::TargetLength } else { Problem::RequestLine });
    }
    match error {
        httparse::Error::Version => version(window, limits),
        httparse::Error::TooManyHeaders => Err(Problem::HeaderCount),
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Err(Problem::Header),
        // Between request line and headers, or at their end: which of them does not matter.
        httparse::Error::NewLine | httparse::Error::Token | httparse::Error::Status => {
            Err(Problem::RequestLine)
        }
    }
}

/// Where the target has become too long, if it has.
fn target_end(window: &[u8], limits: &Limits) -> Option<usize> {
    let start = memchr::memchr(b' ', window)? + 1;
    let end = start + limits.target + 1;
    let target = window.get(start..end)?;
    memchr::memchr2(b' ', b'\n', target).is_none().then_some(end)
}

/// It is no version that the parser knows: another one, or none?
fn version<'a>(window: &[u8], limits: &Limits) -> Result<Option<Head<'a>>, Problem> {
    let mut spaces = memchr::memchr_iter(b' ', window);
    let start = spaces.nth(1).map_or(window.len(), |space| space + 1);
    let text = &window[start..window.len().min(start + 8)];
    let is_like =
        |(&byte, &like): (&u8, &u8)| if like == b'0' { byte.is_ascii_digit() } else { byte == like };
    if !text.iter().zip(b"HTTP/0.0").all(is_like) {
        return Err(Problem::RequestLine);
    }
    if text.len() == 8 { Err(Problem::Version) } else { incomplete(window, limits) }
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

/// The headers that say how the message is framed and for whom it is.
#[derive(Debug, Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    more_codings: bool,
    expect: Option<&'a [u8]>,
    close: bool,
    keep: bool,
    upgrade: bool,
    has_upgrade: bool,
}

impl<'a> Fields<'a> {
    #[inline]
    fn collect(fields: &'a [Header<'a>]) -> Result<Self, Problem> {
        let mut found = Self::default();
        for field in fields {
            // Few headers have the length of one of these names.
            match field.name.len() {
                4 if is(field, b"host") => once(&mut found.host, field.value, Problem::Host)?,
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

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep)
    }

    #[inline]
    fn expects(&self, version: Version) -> Result<bool, Problem> {
        match self.expect {
            // An older client cannot wait for it.
            Some(_) if version == Version::Http10 => Ok(false),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
            Some(_) => Err(Problem::Expectation),
            None => Ok(false),
        }
    }

    #[inline]
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
fn check_host<'a>(
    version: Version,
    authority: Option<&'a str>,
    found: &Fields<'a>,
) -> Result<&'a [u8], Problem> {
    let authority = authority.map(str::as_bytes);
    let Some(host) = found.host else {
        return if version == Version::Http11 { Err(Problem::Host) } else { Ok(authority.unwrap_or(b"")) };
    };
    if !target::is_host(host) {
        return Err(Problem::Host);
    }
    match authority {
        None => Ok(host),
        Some(authority) if authority.eq_ignore_ascii_case(host) => Ok(authority),
        // Whoever routes by the one and whoever checks the other would disagree.
        Some(_) => Err(Problem::Host),
    }
}
