//! Heads of replies and the framing of their bodies, as bytes.

use http::StatusCode;

use super::body::is_token;
use super::exchange::ReplyError;

/// `HTTP/1.1 200 OK`. The version is the server's own, whatever the request's (RFC 9110, 6.2).
#[inline]
pub(super) fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A header that was checked.
#[inline]
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[inline]
pub(super) fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The line in front of a chunk; the bytes of it that are used.
pub(super) fn chunk_size(length: usize, room: &mut [u8; 18]) -> &[u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    room[16..].copy_from_slice(b"\r\n");
    let (mut at, mut left) = (16, length);
    loop {
        at -= 1;
        room[at] = DIGITS[left & 15];
        left >>= 4;
        if left == 0 {
            return &room[at..];
        }
    }
}

/// Whether a service may set this header; those that frame the message are the layer's.
pub(super) fn check(name: &str, value: &[u8]) -> Result<(), ReplyError> {
    check_parts(name, value)?;
    let is_reserved = match name.len() {
        10 => name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive"),
        14 => name.eq_ignore_ascii_case("content-length"),
        17 => name.eq_ignore_ascii_case("transfer-encoding"),
        _ => false,
    };
    if is_reserved { Err(ReplyError::ReservedHeader) } else { Ok(()) }
}

/// Whether they are a name and a value at all: a line break in one would begin another header, or reply.
pub(super) fn check_parts(name: &str, value: &[u8]) -> Result<(), ReplyError> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(ReplyError::HeaderName);
    }
    let is_fine = |&byte: &u8| byte >= b' ' && byte != 127 || byte == b'\t';
    if value.iter().all(is_fine) { Ok(()) } else { Err(ReplyError::HeaderValue) }
}

/// Headers that are made and checked once and sent with many replies.
///
/// ```
/// use corelane::http1::Fields;
///
/// let fields = Fields::new(&[("content-type", "text/plain"), ("server", "corelane")]).unwrap();
/// assert!(Fields::new(&[("bad name", "")]).is_err());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    /// # Errors
    ///
    /// As [`Reply::header`](super::Reply::header) of the first that is not allowed; `Date` and `Upgrade` are not.
    pub fn new(fields: &[(&str, &str)]) -> Result<Self, ReplyError> {
        let mut bytes = Vec::new();
        for (name, value) in fields {
            check(name, value.as_bytes())?;
            if name.eq_ignore_ascii_case("date") || name.eq_ignore_ascii_case("upgrade") {
                return Err(ReplyError::ReservedHeader);
            }
            field(&mut bytes, name, value.as_bytes());
        }
        Ok(Self { bytes })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_chunks() {
        for (length, line) in
            [(0, "0\r\n"), (9, "9\r\n"), (255, "ff\r\n"), (usize::MAX, "ffffffffffffffff\r\n")]
        {
            assert_eq!(chunk_size(length, &mut [0; 18]), line.as_bytes());
        }
    }

    #[test]
    fn nothing_splits_a_reply() {
        for (name, value, error) in [
            ("", "", ReplyError::HeaderName),
            ("a b", "", ReplyError::HeaderName),
            ("a:", "", ReplyError::HeaderName),
            ("a\r\nb", "", ReplyError::HeaderName),
            ("a", "b\r\nc: d", ReplyError::HeaderValue),
            ("a", "b\nc", ReplyError::HeaderValue),
            ("a", "\0", ReplyError::HeaderValue),
            ("Content-Length", "1", ReplyError::ReservedHeader),
            ("transfer-encoding", "chunked", ReplyError::ReservedHeader),
            ("connection", "close", ReplyError::ReservedHeader),
        ] {
            assert_eq!(check(name, value.as_bytes()), Err(error), "{name:?} {value:?}");
        }
        assert_eq!(check("x-a", b"\tb c\xff"), Ok(()));
    }
}
