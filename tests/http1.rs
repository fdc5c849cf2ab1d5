//! HTTP/1.1 through real sockets: requests are answered at once, later, in parts, and in order.
#![cfg(feature = "http1")]

mod support;

use std::time::Duration;

use corelane::http1::*;
use corelane::{TimerId, Written};
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
