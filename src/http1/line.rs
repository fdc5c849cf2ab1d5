//! The request line (RFC 9112, 3), `GET /path HTTP/1.1`, from its first byte to the last: what is wrong first is what is
//! told.

use super::Problem;
use super::body::is_token;
use super::config::Limits;
use super::request::{Method, Version};
use super::target;

/// A request line that is whole. The target's bytes are fine; its form has not been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) method: Method,
    pub(super) method_name: &'a str,
    pub(super) target: &'a str,
    /// Where the target's path ends: at the question mark, or with the target.
    pub(super) path_end: usize,
    pub(super) version: Version,
    /// All of it in bytes, with its end.
    pub(super) length: usize,
}

/// How a version is written, but for its digits.
const LIKE: &[u8; 8] = b"HTTP/0.0";

/// Reads the line that `bytes` begin with. `None`: more is needed.
#[inline]
pub(super) fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Option<Line<'a>>, Problem> {
    let (method, method_name) = if bytes.starts_with(b"GET ") {
        (Method::Get, "GET")
    } else {
        match method(bytes)? {
            Some(found) => found,
            None => return Ok(None),
        }
    };
    let start = method_name.len() + 1;
    let rest = &bytes[start..];
    let (path_end, end) = target::extent(rest);
    if end > limits.target {
        return Err(Problem::TargetLength);
    }
    match rest.get(end) {
        None => return Ok(None),
        Some(b' ') if end > 0 => {}
        Some(byte) if end > 0 && *byte > b' ' && *byte != 127 => return Err(Problem::Target),
        Some(_) => return Err(Problem::RequestLine),
    }
    let target = std::str::from_utf8(&rest[..end]).map_err(|_| Problem::Target)?;
    let rest = &rest[end + 1..];
    let version = if rest.starts_with(b"HTTP/1.1\r\n") {
        Version::Http11
    } else {
        match version(rest)? {
            Some(version) => version,
            None => return Ok(None),
        }
    };
    let length = start + end + 1 + LIKE.len() + 2;
    Ok(Some(Line { method, method_name, target, path_end, version, length }))
}

/// The method, and behind it a space.
fn method(bytes: &[u8]) -> Result<Option<(Method, &str)>, Problem> {
    let Some(end) = bytes.iter().position(|&byte| !is_token(byte)) else { return Ok(None) };
    if end == 0 || bytes[end] != b' ' {
        return Err(Problem::RequestLine);
    }
    let name = std::str::from_utf8(&bytes[..end]).map_err(|_| Problem::RequestLine)?;
    Ok(Some((Method::of(name), name)))
}

/// The version, and behind it the end of the line.
#[cold]
fn version(bytes: &[u8]) -> Result<Option<Version>, Problem> {
    let is_like =
        |(&byte, &like): (&u8, &u8)| if like == b'0' { byte.is_ascii_digit() } else { byte == like };
    if !bytes.iter().zip(LIKE).all(is_like) {
        return Err(Problem::RequestLine);
    }
    let Some((version, end)) = bytes.split_at_checked(LIKE.len()) else { return Ok(None) };
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(Problem::Version),
    };
    match end {
        [b'\r', b'\n', ..] => Ok(Some(version)),
        [] | [b'\r'] => Ok(None),
        _ => Err(Problem::RequestLine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Line<'_>>, Problem> {
        parse(bytes, &Limits { target: 8, ..Limits::default() })
    }

    #[test]
    fn its_parts() {
        let line = read(b"GET /a?b HTTP/1.1\r\nHost: c\r\n\r\n").unwrap().unwrap();
        assert_eq!((line.method, line.method_name, line.version), (Method::Get, "GET", Version::Http11));
        assert_eq!((line.target, line.path_end, line.length), ("/a?b", 2, 19));
        let line = read(b"BREW * HTTP/1.0\r\n").unwrap().unwrap();
        assert_eq!((line.method, line.method_name, line.version), (Method::Other, "BREW", Version::Http10));
        assert_eq!((line.target, line.path_end, line.length), ("*", 1, 17));
    }

    #[test]
    fn what_is_wrong_first_is_told_as_soon_as_it_is_there() {
        for (bytes, problem) in [
            (&b" "[..], Problem::RequestLine),
            (b"G\xc3", Problem::RequestLine),
            (b"GET\t", Problem::RequestLine),
            (b"GET\r", Problem::RequestLine),
            (b"GET  ", Problem::RequestLine),
            (b"GET /\r", Problem::RequestLine),
            (b"GET /\t", Problem::RequestLine),
            (b"GET /\x7f", Problem::RequestLine),
            (b"GET /\"", Problem::Target),
            (b"GET /a?b#", Problem::Target),
            (b"GET /\xc3", Problem::Target),
            (b"GET /23456789", Problem::TargetLength),
            (b"GET /23456?89", Problem::TargetLength),
            (b"GET /  ", Problem::RequestLine),
            (b"GET / h", Problem::RequestLine),
            (b"GET / HTTP/x", Problem::RequestLine),
            (b"GET / HTTP/2.0", Problem::Version),
            (b"GET / HTTP/1.2", Problem::Version),
            (b"GET / HTTP/1.1\n", Problem::RequestLine),
            (b"GET / HTTP/1.1 ", Problem::RequestLine),
            (b"GET / HTTP/1.0\r\r", Problem::RequestLine),
        ] {
            assert_eq!(read(bytes), Err(problem), "{}", bytes.escape_ascii());
            let before = &bytes[..bytes.len() - 1];
            assert_eq!(read(before), Ok(None), "{}", before.escape_ascii());
        }
        assert_eq!(read(b"GET /2345678 HTTP/1.1\r"), Ok(None));
    }
}
