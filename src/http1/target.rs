//! The forms of a target (RFC 9112, 3.2), and what a host may be made of.

use super::Problem;
use super::request::Method;

/// What a target is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form<'a> {
    /// The host and port in it, if it has one.
    pub(super) authority: Option<&'a str>,
    /// Where its path begins.
    pub(super) path: usize,
    /// Where its path ends: at the question mark, or with the target.
    pub(super) path_end: usize,
}

/// How many bytes at the start of `bytes` are of a path, and how many of a path and a query.
#[inline]
pub(super) fn extent(bytes: &[u8]) -> (usize, usize) {
    let path_end = length_of(&IS_IN_PATH, bytes);
    let is_query = bytes.get(path_end) == Some(&b'?');
    (path_end, if is_query { path_end + query(&bytes[path_end..]) } else { path_end })
}

/// How long a query is, from its question mark on.
fn query(bytes: &[u8]) -> usize {
    let is_end = |&byte: &u8| byte != b'?' && IS_IN_PATH[byte as usize] == 0;
    bytes.iter().position(is_end).unwrap_or(bytes.len())
}

/// Whether the target has a form that its method may have; its bytes were looked at, and its path ends at `path_end`.
#[inline(always)]
pub(super) fn form(method: Method, target: &str, path_end: usize) -> Result<Form<'_>, Problem> {
    if target.starts_with('/') && method != Method::Connect {
        return Ok(Form { authority: None, path: 0, path_end });
    }
    other_form(method, target, path_end).ok_or(Problem::Target)
}

#[cold]
fn other_form(method: Method, target: &str, path_end: usize) -> Option<Form<'_>> {
    match (method, target) {
        (Method::Connect, _) => authority(target),
        (Method::Options, "*") => Some(Form { authority: None, path: 0, path_end }),
        _ => absolute(target, path_end),
    }
}

/// Which bytes are: 1 or 0.
type Class = [u8; 256];

/// How many bytes at the start of `bytes` are of a class. Most are, and are looked at eight at a time.
#[inline]
fn length_of(class: &Class, bytes: &[u8]) -> usize {
    let mut length = 0;
    for eight in bytes.chunks_exact(8) {
        if eight.iter().fold(1, |all, &byte| all & class[byte as usize]) == 0 {
            break;
        }
        length += 8;
    }
    let is_other = |&byte: &u8| class[byte as usize] == 0;
    bytes[length..].iter().position(is_other).map_or(bytes.len(), |more| length + more)
}

/// What browsers send, which is more than the standard's grammar has, but nothing that ends a target elsewhere: no
/// control character, no byte above 127, no fragment, and none of `"<>`, which all clients encode. But for the question
/// mark.
static IS_IN_PATH: Class = {
    let mut table = [0; 256];
    let mut byte = b'!';
    while byte < 127 {
        table[byte as usize] = !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'?') as u8;
        byte += 1;
    }
    table
};

/// `host:port`.
fn authority(target: &str) -> Option<Form<'_>> {
    let (host, port) = target.rsplit_once(':')?;
    let is_whole = !host.is_empty() && !port.is_empty() && !port.ends_with(']') && is_host(target.as_bytes());
    let end = target.len();
    is_whole.then_some(Form { authority: Some(target), path: end, path_end: end })
}

/// `http://host/path`.
fn absolute(target: &str, path_end: usize) -> Option<Form<'_>> {
    let start = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?
        .len();
    let length = target[start..].find(['/', '?']).unwrap_or(target.len() - start);
    let (authority, path) = target[start..].split_at(length);
    // A query without a path would need a slash that is not there.
    let is_whole = !authority.is_empty()
        && !authority.starts_with(':')
        && is_host(authority.as_bytes())
        && !path.starts_with('?');
    is_whole.then_some(Form { authority: Some(authority), path: start + length, path_end })
}

/// Whether it is a host with or without a port. It may be empty, as the `Host` of a target without one is.
#[inline]
pub(super) fn is_host(bytes: &[u8]) -> bool {
    let end = match bytes {
        [b'[', ..] => match end_of_address(bytes) {
            Some(end) => end,
            None => return false,
        },
        _ => match length_of(&IS_IN_NAME, bytes) {
            end if bytes.get(end) == Some(&b'%') => match end_of_escaped(bytes) {
                Some(end) => end,
                None => return false,
            },
            end => end,
        },
    };
    match &bytes[end..] {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The characters of a registered name (RFC 3986, 3.2.2), but for the escapes.
static IS_IN_NAME: Class = {
    let mut table = [0; 256];
    let mut byte = 0u8;
    while byte < 127 {
        let is_mark = matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        );
        table[byte as usize] = (is_mark || byte.is_ascii_alphanumeric()) as u8;
        byte += 1;
    }
    table
};

/// Where a name with escapes in it ends; `None` if one of them is broken.
#[cold]
fn end_of_escaped(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'%' if bytes.get(end + 1..end + 3)?.iter().all(u8::is_ascii_hexdigit) => end += 3,
            b'%' => return None,
            byte if IS_IN_NAME[byte as usize] == 1 => end += 1,
            _ => break,
        }
    }
    Some(end)
}

/// Where an address in brackets ends; `None` if it is none.
#[cold]
fn end_of_address(bytes: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b']', bytes)?;
    is_address(&bytes[1..end]).then_some(end + 1)
}

/// An address as it is in brackets: of version 6, or of one to come.
fn is_address(text: &[u8]) -> bool {
    match text {
        [b'v' | b'V', rest @ ..] => {
            let is_allowed = |&byte: &u8| byte == b':' || IS_IN_NAME[byte as usize] == 1;
            matches!(memchr::memchr(b'.', rest), Some(dot) if dot > 0
                && dot + 1 < rest.len()
                && rest[..dot].iter().all(u8::is_ascii_hexdigit)
                && rest[dot + 1..].iter().all(is_allowed))
        }
        _ => std::str::from_utf8(text).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, target: &str) -> Result<Form<'_>, Problem> {
        match extent(target.as_bytes()) {
            (path_end, end) if end == target.len() => form(method, target, path_end),
            _ => Err(Problem::Target),
        }
    }

    #[test]
    fn hosts() {
        for host in [
            "",
            "a",
            "a.example",
            "a.example:",
            "a:80",
            "[::1]",
            "[::1]:65535",
            "192.0.2.1",
            "a%2db",
            "[v1.x:y]",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b", "a/b", "a:80:80", "a:http", "a:123456", "a:+1", "@a", "u@a", "[::1", "::1", "[]",
            "[::1]x", "[g::]", "a%2", "a%zz", "a?", "a#", "a\\b", "a\"", "[v.x]", "[v1.]", "a,b c", "\u{e4}",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn every_method_has_its_forms() {
        use Method::{Connect, Get, Options};
        let origin = Form { authority: None, path: 0, path_end: 1 };
        assert_eq!(check(Get, "/"), Ok(origin));
        assert_eq!(check(Get, "/a?b|c{d}^`\\?"), Ok(Form { path_end: 2, ..origin }));
        assert_eq!(check(Options, "*"), Ok(origin));
        assert_eq!(check(Get, "http://a/b"), Ok(Form { authority: Some("a"), path: 8, path_end: 10 }));
        assert_eq!(check(Get, "HTTPS://a:1"), Ok(Form { authority: Some("a:1"), path: 11, path_end: 11 }));
        assert_eq!(check(Connect, "a:443"), Ok(Form { authority: Some("a:443"), path: 5, path_end: 5 }));
        assert_eq!(
            check(Connect, "[::1]:443"),
            Ok(Form { authority: Some("[::1]:443"), path: 9, path_end: 9 })
        );
        for (method, target) in [
            (Get, "*"),
            (Get, "a"),
            (Get, "a:443"),
            (Get, "ftp://a/"),
            (Get, "http://"),
            (Get, "http:///a"),
            (Get, "http://:80/a"),
            (Get, "http://u@a/"),
            (Get, "http://a?b"),
            (Get, "http:/a"),
            (Get, "/a#b"),
            (Get, "/a\"b"),
            (Get, "/\u{e4}"),
            (Options, "**"),
            (Connect, "/"),
            (Connect, "a"),
            (Connect, "a:"),
            (Connect, ":443"),
            (Connect, "http://a:443"),
            (Connect, "a:443/"),
            (Connect, "[::1]"),
        ] {
            assert_eq!(check(method, target), Err(Problem::Target), "{method:?} {target}");
        }
    }
}
