//! What may stand behind the last chunk of a body.

use httparse::{Header, Status};

use super::Problem;
use super::config::Limits;
use super::head::check_line_ends;

/// Looks for whole trailers at the start of `bytes`: how long they are with the empty line behind them, and what is
/// in them. `None`: more is needed.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    room: &'a mut [Header<'a>],
    limits: &Limits,
) -> Result<Option<(usize, &'a [Header<'a>])>, Problem> {
    match bytes {
        [b'\r', b'\n', ..] => return Ok(Some((2, &[]))),
        [] | [b'\r'] => return Ok(None),
        [b'\r' | b'\n', ..] => return Err(Problem::Chunk),
        _ => {}
    }
    let window = &bytes[..bytes.len().min(limits.head)];
    let Some(end) = memchr::memmem::find(window, b"\r\n\r\n") else {
        return if window.len() == limits.head { Err(Problem::Trailers) } else { Ok(None) };
    };
    let whole = &window[..end + 4];
    let most = limits.headers.min(room.len());
    let fields = match httparse::parse_headers(whole, &mut room[..most]) {
        Ok(Status::Complete((length, fields))) if length == whole.len() => fields,
        Err(httparse::Error::TooManyHeaders) => return Err(Problem::Trailers),
        // An end before the end is one of bare line feeds.
        Ok(_) | Err(_) => return Err(Problem::Chunk),
    };
    check_line_ends(whole, whole.len(), fields).map_err(|_| Problem::Chunk)?;
    let frames = ["content-length", "transfer-encoding", "host"];
    let is_framing = |field: &Header<'_>| frames.iter().any(|name| field.name.eq_ignore_ascii_case(name));
    if fields.iter().any(is_framing) { Err(Problem::Chunk) } else { Ok(Some((whole.len(), fields))) }
}
