//! Heads, chunks and whole connections on arbitrary bytes. `tests/fuzz` feeds them; here their corpora run as tests.

use super::body::{Body, Piece, is_token};
use super::config::{Limits, MOST_HEADERS};
use super::head::{self, Framing};
use super::{Problem, Version, trailers};

/// Small, so that short inputs meet them.
fn limits() -> Limits {
    Limits { head: 300, headers: 6, target: 40, body: 100, chunk_extension: 20, ..Limits::default() }
}

/// What comes of some bytes as a head: nothing yet, its length, or the status of a refusal.
fn verdict(bytes: &[u8]) -> Result<Option<usize>, u16> {
    let (mut room, mut more) = (head::ROOM, head::MUCH_ROOM);
    match head::parse(bytes, &mut room, &mut more, &limits()) {
        Ok(head) => Ok(head.map(|head| head.length)),
        Err(problem) => Err(problem.status().as_u16()),
    }
}

/// What comes of a head never changes when more comes behind it, and what is accepted holds what it promises.
pub fn http1_head(data: &[u8]) {
    let whole = verdict(data);
    let first = (0..=data.len()).map(|end| verdict(&data[..end])).find(|verdict| *verdict != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), whole, "as it came byte by byte, and whole");
    if whole == Ok(None) {
        assert!(data.len() < limits().head + 2, "more than the limit is kept");
    }

    let (mut room, mut more) = (head::ROOM, head::MUCH_ROOM);
    let Ok(Some(head)) = head::parse(data, &mut room, &mut more, &limits()) else { return };
    let text = &data[..head.length];
    assert!(text.ends_with(b"\r\n\r\n") && head.length <= limits().head + 2);
    let is_plain = |at: usize| text[at] != b'\n' || text[at - 1] == b'\r';
    assert!((0..text.len()).all(is_plain), "every line feed ends a line behind a carriage return");
    assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()) && head.target.len() <= limits().target);
    assert!(head.fields.len() <= limits().headers);
    for field in head.fields {
        assert!(!field.name.is_empty() && field.name.bytes().all(is_token));
        assert!(field.value.iter().all(|&byte| byte == b'\t' || byte >= b' ' && byte != 127));
    }
    // The first line is read by ourselves; another reader must see the same in all of it.
    let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut other = httparse::Request::new(&mut fields);
    assert_eq!(other.parse(text), Ok(httparse::Status::Complete(text.len())));
    assert_eq!((other.method, other.path), (Some(head.method_name), Some(head.target)));
    assert_eq!(other.version, Some(u8::from(head.version == Version::Http11)));
    assert_eq!(other.headers, head.fields);
    let count = |name: &str| head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    match head.framing {
        Framing::Chunked => assert_eq!((lengths, codings), (0, 1)),
        Framing::Length(length) => {
            assert!(codings == 0 && lengths <= 1 && length <= limits().body);
            assert!(length == 0 || lengths == 1);
        }
    }
    assert!(count("host") <= 1);
}

/// What comes of a body: the content, how much of the stream it took, and how it ended.
type Outcome = (Vec<u8>, usize, Result<bool, u16>);

/// Feeds a chunked body piece by piece, as a connection does.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut body = Body::new(Framing::Chunked, &limits());
    let (mut kept, mut content, mut taken) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let next = if body.is_at_trailers() { Ok((0, Piece::End)) } else { body.next(&kept, &limits()) };
            let (framing, piece) = match next {
                Ok(next) => next,
                Err(problem) => return (content, 0, Err(problem.status().as_u16())),
            };
            kept.drain(..framing);
            taken += framing;
            match piece {
                Piece::More => break,
                Piece::Data(count) => {
                    content.extend(kept.drain(..count));
                    taken += count;
                }
                Piece::End => {
                    let mut room = [httparse::EMPTY_HEADER; MOST_HEADERS];
                    match trailers::parse(&kept, &mut room, &limits()) {
                        Ok(None) => break,
                        Ok(Some((length, _))) => return (content, taken + length, Ok(true)),
                        Err(problem) => return (content, 0, Err(problem.status().as_u16())),
                    }
                }
            }
        }
    }
    (content, 0, Ok(false))
}

/// The same by the grammar of RFC 9112, written down once more and as plainly as can be: for bodies without trailers,
/// and without a word on what is not whole.
fn reference(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..digits]).ok()?, 16).ok()?;
        bytes = bytes[digits..].strip_prefix(b"\r\n")?;
        if size == 0 {
            return bytes.starts_with(b"\r\n").then_some(content);
        }
        content.extend_from_slice(bytes.get(..size)?);
        bytes = bytes[size..].strip_prefix(b"\r\n")?;
    }
}

/// A chunked body means the same however it is cut, and what its grammar says.
pub fn http1_chunks(data: &[u8]) {
    let (lengths, stream) = cuts(data);
    let whole = decode([stream]);
    assert_eq!(decode(stream.chunks(1)), whole, "byte by byte");
    assert_eq!(decode(pieces(stream, lengths)), whole, "in pieces");
    let (content, taken, outcome) = whole;
    assert!(content.len() as u64 <= limits().body && taken <= stream.len());
    if let Some(expected) = reference(stream) {
        let is_large = expected.len() as u64 > limits().body;
        let too_large = Problem::BodySize.status().as_u16();
        assert_eq!(outcome, if is_large { Err(too_large) } else { Ok(true) });
        assert!(is_large || content == expected);
    }
}

/// The lengths of pieces that the input begins with, and the stream behind them.
fn cuts(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(count % 8).min(rest.len()))
}

/// `bytes` in pieces of these lengths, taken again and again.
fn pieces<'a>(mut bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut lengths = lengths.iter().map(|&length| usize::from(length % 64) + 1).cycle();
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(lengths.next().unwrap_or(1).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

#[cfg(feature = "sim")]
pub use whole::http1_connection;

#[cfg(feature = "sim")]
mod whole {
    use std::time::Duration;

    use super::super::*;
    use super::{cuts, limits, pieces};
    use crate::TimerId;
    use crate::sim::{Faults, Simulation};

    /// Does what the path's first letter says, and tells what it has seen.
    #[derive(Debug, Default)]
    struct Model {
        waiting: Vec<Responder>,
    }

    #[derive(Debug, Default)]
    struct State {
        act: u8,
        text: Vec<u8>,
    }

    impl Model {
        fn answer(exchange: &mut Exchange<'_, State>) {
            let Some(state) = exchange.state() else { return };
            let (act, text) = (state.act, std::mem::take(&mut state.text));
            let status = match act {
                b'n' => StatusCode::NO_CONTENT,
                b'u' => StatusCode::SWITCHING_PROTOCOLS,
                _ => StatusCode::OK,
            };
            let reply = exchange.reply(status).header("x-act", [act]);
            let done = match act {
                b'd' => {
                    drop(reply);
                    Ok(())
                }
                b'c' => reply.close().send(&text),
                b's' | b'k' => {
                    let known = Length::Known(text.len() as u64);
                    let begun = reply.stream(if act == b's' { Length::Unknown } else { known });
                    let parts = |exchange: &mut Exchange<'_, State>| {
                        text.chunks(700).try_for_each(|part| exchange.write(part).map(|_| ()))
                    };
                    begun.and_then(|()| parts(exchange)).and_then(|()| exchange.end())
                }
                b'u' => reply.header("upgrade", "x").upgrade(),
                _ => reply.send(&text),
            };
            assert!(matches!(done, Ok(()) | Err(ReplyError::Upgrade)), "{done:?}");
        }

        /// At once, or in a later turn.
        fn finish(&mut self, exchange: &mut Exchange<'_, State>) {
            if exchange.state().is_some_and(|state| state.act == b'l') {
                self.waiting.push(exchange.responder());
                exchange.core().set_timer(Duration::ZERO, 0);
            } else {
                Self::answer(exchange);
            }
        }
    }

    impl Service for Model {
        type State = State;
        type Message = ();

        fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, State>) {
            let act =
                request.path().as_bytes().get(1).copied().filter(u8::is_ascii_lowercase).unwrap_or(b'-');
            if let Some(state) = exchange.state() {
                state.act = act;
                state.text = format!("{request:?}").into_bytes();
            }
            if act == b'm' {
                exchange.limit_body(3);
            }
            if !request.has_body() || act == b'e' {
                self.finish(exchange);
            }
        }

        fn on_body(&mut self, exchange: &mut Exchange<'_, State>, data: &[u8]) {
            assert!(!data.is_empty());
            if let Some(state) = exchange.state() {
                state.text.extend_from_slice(data);
            }
        }

        fn on_body_end(&mut self, exchange: &mut Exchange<'_, State>, trailers: &Headers<'_>) {
            if let Some(state) = exchange.state() {
                state.text.extend_from_slice(format!("{trailers:?}").as_bytes());
            }
            self.finish(exchange);
        }

        fn on_upgraded_data(
            &mut self,
            upgraded: &mut Upgraded<'_, State>,
            input: &mut crate::Input<'_>,
        ) -> crate::Flow {
            upgraded.write(input.take_all());
            crate::Flow::Continue
        }

        fn on_timer(&mut self, _: TimerId, _: u64, context: &mut Context<'_, State>) {
            for responder in std::mem::take(&mut self.waiting) {
                if let Some(mut exchange) = context.exchange(responder) {
                    Self::answer(&mut exchange);
                }
            }
        }
    }

    type Sim = Simulation<Http<Model>>;

    fn run<'a>(sim: &mut Sim, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let remote = sim.connect();
        for piece in pieces {
            remote.send(piece);
            sim.run_until_quiet().unwrap_or_else(|stuck| panic!("{stuck}"));
        }
        remote.finish();
        sim.run_until(|_| remote.is_over()).unwrap_or_else(|stuck| panic!("{stuck}"));
        assert!(!remote.saw_reset());
        remote.received()
    }

    /// Any way to cut the same bytes gives the same replies, and nothing is left behind.
    pub fn http1_connection(data: &[u8]) {
        let (lengths, stream) = cuts(data);
        let limits = Limits { pipeline: 3, held: 200, requests: 12, discard: 30, ..limits() };
        let http = Config { limits, date: false, ..Config::default() }.build().expect("sane settings");
        let server = http.server().listen("127.0.0.1:80");
        let handler = http.handler(Model::default());
        let mut sim = Simulation::new(1, server, Faults::none(), |_| handler).expect("a simulation");
        let whole = run(&mut sim, [stream]);
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(text(&run(&mut sim, stream.chunks(1))), text(&whole), "byte by byte");
        assert_eq!(text(&run(&mut sim, pieces(stream, lengths))), text(&whole), "in pieces");
        sim.shut_down();
        sim.run_to_the_end().unwrap_or_else(|stuck| panic!("{stuck}"));
        assert_eq!(sim.panics().collect::<Vec<_>>(), []);
        assert_eq!(sim.handler().connections(), 0);
    }
}

#[cfg(test)]
mod tests {
    use crate::connection::fuzz::replay;

    #[test]
    fn corpus_of_http1_head() {
        replay("http1_head", super::http1_head);
    }

    #[test]
    fn corpus_of_http1_chunks() {
        replay("http1_chunks", super::http1_chunks);
    }

    #[cfg(feature = "sim")]
    #[test]
    fn corpus_of_http1_connection() {
        replay("http1_connection", super::http1_connection);
    }
}
