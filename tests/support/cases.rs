//! The tables in `tests/http1_conformance`, and the service that they are about.

use std::time::Duration;

use corelane::TimerId;
use corelane::http1::*;

/// A line of a table.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The statuses of all replies.
    pub(crate) statuses: Vec<u16>,
    /// Whether the connection closes behind them.
    pub(crate) closes: bool,
    pub(crate) bytes: Vec<u8>,
    /// What the service has made of the first request.
    pub(crate) seen: Option<Vec<u8>>,
}

/// The cases of a table; `before` comes in front of the bytes of each.
pub(crate) fn table(text: &str, before: &str) -> Vec<Case> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &str| {
        let columns: Vec<&str> = split(line);
        let [name, outcome, bytes, seen @ ..] = &columns[..] else { panic!("three columns: {line}") };
        let outcome = String::from_utf8(unescape(outcome)).unwrap();
        let statuses: Vec<u16> = outcome.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let is_refused = statuses.last().is_some_and(|&status| status >= 400);
        Case {
            name: (*name).to_owned(),
            closes: outcome.ends_with("close") || is_refused,
            statuses,
            bytes: unescape(&format!("{before}{bytes}")),
            seen: seen.first().map(|seen| unescape(seen)),
        }
    };
    lines.map(case).collect()
}

/// The columns of a line. The bytes begin behind one blank and end before one.
fn split(line: &str) -> Vec<&str> {
    let mut columns = Vec::new();
    let mut start = 0;
    for (at, _) in line.match_indices('|').filter(|&(at, _)| !line[..at].ends_with('\\')) {
        columns.push(&line[start..at]);
        start = at + 1;
    }
    columns.push(&line[start..]);
    columns
        .into_iter()
        .enumerate()
        .map(|(at, column)| if at < 2 { column.trim() } else { bare(column) })
        .collect()
}

/// Without the blank at each end that belongs to the table.
fn bare(column: &str) -> &str {
    let column = column.strip_prefix(' ').unwrap_or(column);
    column.strip_suffix(' ').unwrap_or(column)
}

/// The bytes that a text stands for.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let mut skipped = at + 2;
        match rest.as_bytes()[at + 1] {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'0' => bytes.push(0),
            b'x' => {
                bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
                skipped = at + 4;
            }
            b'*' => {
                let open = at + rest[at..].find('<').unwrap();
                let close = open + rest[open..].find('>').unwrap();
                let part = unescape(&rest[open + 1..close]);
                let count: usize = rest[at + 2..open].parse().unwrap();
                bytes.extend_from_slice(&part.repeat(count));
                skipped = close + 1;
            }
            other => bytes.push(other),
        }
        rest = &rest[skipped..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Answers with what it was asked: method, target, host, body, trailers. `/early` is answered before the body,
/// `/later` in a later turn.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    waiting: Vec<Responder>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    text: Vec<u8>,
    is_later: bool,
    has_body: bool,
}

impl Mirror {
    fn answer(&mut self, exchange: &mut Exchange<'_, Seen>) {
        let Some(seen) = exchange.state() else { return };
        if std::mem::take(&mut seen.is_later) {
            self.waiting.push(exchange.responder());
            exchange.core().set_timer(Duration::ZERO, 0);
            return;
        }
        let text = std::mem::take(&mut seen.text);
        let body = if text.starts_with(b"HEAD ") { &[] } else { &text[..] };
        // To CONNECT success is another matter: the connection would be a tunnel.
        let status = if text.starts_with(b"CONNECT ") { StatusCode::FOUND } else { StatusCode::OK };
        exchange.reply(status).send(body).unwrap();
    }
}

impl Service for Mirror {
    type State = Seen;
    type Message = ();

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, Seen>) {
        let state = exchange.state().unwrap();
        state.is_later = request.path() == "/later";
        let host = if request.host().is_empty() { "-" } else { request.host() };
        state.text = format!("{} {} {}", request.method_name(), request.target(), host).into();
        if !request.has_body() || request.path() == "/early" {
            self.answer(exchange);
        }
    }

    fn on_body(&mut self, exchange: &mut Exchange<'_, Seen>, data: &[u8]) {
        let state = exchange.state().unwrap();
        if !std::mem::replace(&mut state.has_body, true) {
            state.text.push(b' ');
        }
        state.text.extend_from_slice(data);
    }

    fn on_body_end(&mut self, exchange: &mut Exchange<'_, Seen>, trailers: &Headers<'_>) {
        let state = exchange.state().unwrap();
        for (name, value) in trailers.iter() {
            state.text.extend_from_slice(format!(" {name}:{}", value.escape_ascii()).as_bytes());
        }
        self.answer(exchange);
    }

    fn on_timer(&mut self, _: TimerId, _: u64, context: &mut Context<'_, Seen>) {
        for responder in std::mem::take(&mut self.waiting) {
            if let Some(mut exchange) = context.exchange(responder) {
                self.answer(&mut exchange);
            }
        }
    }
}

/// The replies in a stream: status and body of each.
pub(crate) fn replies(mut stream: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut replies = Vec::new();
    while !stream.is_empty() {
        let end = stream.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("half a head: {}", stream.escape_ascii())) + 4;
        let head = std::str::from_utf8(&stream[..end]).unwrap();
        let status: u16 = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        replies.push((status, stream[end..end + length].to_vec()));
        stream = &stream[end + length..];
    }
    replies
}
