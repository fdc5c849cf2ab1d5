//! HTTP/1.1 through real sockets: requests are answered at once, later, in parts, and in order.
#![cfg(feature = "http1")]

mod support;

use std::time::Duration;

use corelane::http1::*;
use corelane::{TimerId, Written};
use support::cases::{Mirror, replies, table};
use support::http::{Served, serve};

/// Answers by path.
#[derive(Default)]
struct Paths {
    waiting: Vec<Responder>,
}

impl Service for Paths {
    type State = ();
    type Message = (Responder, String);

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, ()>) {
        match request.path() {
            "/plain" => {
                exchange.reply(StatusCode::OK).header("content-type", "text/plain").send(b"hello").unwrap()
            }
            "/echo" => match request.content_length() {
                Some(0) => exchange.reply(StatusCode::OK).send(b"").unwrap(),
                _ => exchange.reply(StatusCode::OK).stream(Length::Unknown).unwrap(),
            },
            "/parts" => {
                exchange.reply(StatusCode::OK).stream(Length::Unknown).unwrap();
                exchange.write(b"one ").unwrap();
                exchange.write(&LARGE).unwrap();
                exchange.end_with_trailers(&[("x-sum", b"7")]).unwrap();
            }
            "/by" => {
                exchange.reply(StatusCode::OK).stream(Length::Known(7)).unwrap();
                exchange.write(b"one ").unwrap();
                exchange.write_by(3, |core, id| core.write(id, b"two")).unwrap();
                assert_eq!(exchange.write(b"more"), Err(ReplyError::Length));
                exchange.end().unwrap();
            }
            "/short" => {
                exchange.reply(StatusCode::OK).stream(Length::Known(7)).unwrap();
                exchange.write(b"one").unwrap();
                assert_eq!(exchange.end(), Err(ReplyError::Length));
            }
            "/split" => {
                let reply = exchange.reply(StatusCode::OK).header("x", "1\r\nset-cookie: a=b");
                assert_eq!(reply.send(b"never"), Err(ReplyError::HeaderValue));
                assert!(matches!(
                    exchange.reply(StatusCode::OK).send(b""),
                    Err(ReplyError::Begun | ReplyError::Over)
                ));
            }
            "/empty" => exchange.reply(StatusCode::NO_CONTENT).send(b"never").unwrap(),
            "/same" => {
                exchange.reply(StatusCode::NOT_MODIFIED).header("etag", "\"1\"").send(b"never").unwrap()
            }
            "/timer" => {
                self.waiting.push(exchange.responder());
                exchange.core().set_timer(Duration::from_millis(20), 0);
            }
            _ => exchange.reply(StatusCode::NOT_FOUND).send(b"").unwrap(),
        }
    }

    fn on_body(&mut self, exchange: &mut Exchange<'_, ()>, data: &[u8]) {
        assert_ne!(exchange.write(data).unwrap(), Written::Refused);
    }

    fn on_body_end(&mut self, exchange: &mut Exchange<'_, ()>, trailers: &Headers<'_>) {
        let trailers: Vec<_> = trailers.iter().collect();
        exchange.end_with_trailers(&trailers).unwrap();
    }

    fn on_timer(&mut self, _: TimerId, _: u64, context: &mut Context<'_, ()>) {
        for responder in self.waiting.drain(..) {
            let mut exchange = context.exchange(responder).unwrap();
            exchange.reply(StatusCode::OK).send(b"later").unwrap();
        }
    }
}

static LARGE: [u8; 20_000] = [b'x'; 20_000];

fn paths() -> Served<Paths> {
    serve(Config { date: false, ..Config::default() }, |_| Paths::default())
}

#[test]
fn a_reply_at_once() {
    let served = paths();
    let reply = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
    let mut client = served.client();
    for _ in 0..3 {
        client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
        client.expect(reply.as_bytes());
    }
    assert_eq!(served.http.total().requests, 3);
}

#[test]
fn pipelined_replies_leave_in_order() {
    let served = paths();
    let mut client = served.client();
    client.send(b"GET /timer HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nlater");
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello");
    client.expect(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn bodies_come_and_go_in_chunks() {
    let served = paths();
    let mut client = served.client();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(b"3;a=\"b\"\r\nabc\r\n");
    client.expect(b"3\r\nabc\r\n");
    client.send(b"0\r\nX-Sum: 1\r\n\r\n");
    client.expect(b"0\r\nX-Sum: 1\r\n\r\n");
}

#[test]
fn what_is_malformed_is_refused() {
    let served = paths();
    let mut client = served.client();
    client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost : a\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello");
    client.expect(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    client.expect_end();
    assert_eq!(served.http.total().problems[Problem::Header.index()], 1);
}

#[test]
fn a_body_of_unknown_length_is_sent_as_the_version_allows() {
    let served = paths();
    let mut client = served.client();
    client.send(b"GET /parts HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none \r\n4e20\r\n");
    client.expect(&LARGE);
    client.expect(b"\r\n0\r\nx-sum: 7\r\n\r\n");
    client.send(b"HEAD /parts HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(b"GET /parts HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none ");
    client.expect(&LARGE);
    client.expect_end();
}

#[test]
fn a_body_of_known_length_is_just_as_long() {
    let served = paths();
    let mut client = served.client();
    client.send(
        b"GET /by HTTP/1.1\r\nHost: a\r\n\r\nGET /short HTTP/1.1\r\nHost: a\r\n\r\nGET /by HTTP/1.1\r\n\r\n",
    );
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none two");
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none");
    client.expect_end();
}

#[test]
fn some_replies_have_no_body() {
    let served = paths();
    let mut client = served.client();
    client.send(b"HEAD /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n");
    client.send(b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\nGET /same HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n");
    client.send(b"GET /plain HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello");
}

#[test]
fn a_header_cannot_split_a_reply() {
    let served = paths();
    let mut client = served.client();
    client.send(b"GET /split HTTP/1.1\r\nHost: a\r\n\r\nGET /by HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
    client.expect(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none two");
}

#[test]
fn replies_tell_the_date() {
    let served = serve(Config::default(), |_| Paths::default());
    let mut client = served.client();
    client.send(b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let reply = String::from_utf8(client.receive_all()).unwrap();
    let date = reply.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
    let time = httpdate::parse_http_date(date).unwrap();
    assert!(time.elapsed().unwrap_or_default() < support::DEADLINE);
}

/// Every case of the tables through real sockets, whole; `http1_conformance` has them in all pieces.
#[test]
fn the_tables_hold_on_real_sockets() {
    let served = serve(Config::default(), |_| Mirror::default());
    let chunked = r"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (text, before) in [
        (include_str!("http1_conformance/heads.txt"), ""),
        (include_str!("http1_conformance/targets.txt"), ""),
        (include_str!("http1_conformance/framing.txt"), ""),
        (include_str!("http1_conformance/chunks.txt"), chunked),
        (include_str!("http1_conformance/connections.txt"), ""),
    ] {
        for case in table(text, before) {
            let mut client = served.client();
            client.send(&case.bytes);
            client.finish();
            let received = client.receive_all();
            let statuses: Vec<u16> = replies(&received).iter().map(|(status, _)| *status).collect();
            assert_eq!(statuses, case.statuses, "{}: {}", case.name, received.escape_ascii());
        }
    }
}
