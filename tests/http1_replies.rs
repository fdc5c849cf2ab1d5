//! HTTP/1.1: ways to reply, and not to, and how long a body may be for whom; through real sockets.
#![cfg(feature = "http1")]

mod support;

use std::time::Duration;

use corelane::http1::*;
use corelane::{Shared, TimerId};
use support::http::{Served, serve};
use support::{Client, End, eventually};

/// Answers by path.
struct Ways {
    waiting: Vec<Responder>,
    shared: Shared,
}

impl Ways {
    fn new() -> Self {
        Self { waiting: Vec::new(), shared: Shared::from(&LARGE[..]) }
    }
}

impl Service for Ways {
    /// Bytes of body, for the paths that count them.
    type State = usize;
    type Message = ();

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, usize>) {
        match request.path() {
            "/shared" => exchange.reply(StatusCode::OK).send_shared(&self.shared).unwrap(),
            "/shared-parts" => {
                exchange.reply(StatusCode::OK).stream(Length::Unknown).unwrap();
                exchange.write(b"one").unwrap();
                exchange.write_shared(&self.shared).unwrap();
                exchange.end().unwrap();
            }
            "/map" => {
                let mut map = http::HeaderMap::new();
                map.append("x", "1".parse().unwrap());
                map.append("x", "2".parse().unwrap());
                map.append("content-length", "77".parse().unwrap());
                exchange.reply(StatusCode::OK).header_map(&map).send(b"").unwrap();
            }
            "/close" => exchange.reply(StatusCode::OK).close().send(b"bye").unwrap(),
            "/dropped" => drop(exchange.reply(StatusCode::OK).header("x", "1")),
            "/panic" => {
                let _reply = exchange.reply(StatusCode::OK);
                panic!("as asked");
            }
            "/abort" => exchange.abort(),
            "/peer" => {
                let peer = exchange.peer().unwrap().to_string();
                exchange.reply(StatusCode::OK).send(peer.as_bytes()).unwrap();
            }
            "/at-once" => exchange.reply(StatusCode::OK).send(b"").unwrap(),
            "/wait" => self.waiting.push(exchange.responder()),
            "/go" => {
                for responder in self.waiting.drain(..) {
                    let mut other = exchange.other(responder).unwrap();
                    other.reply(StatusCode::OK).send(b"for another").unwrap();
                }
                exchange.reply(StatusCode::OK).send(b"went").unwrap();
            }
            "/timer" => {
                self.waiting.push(exchange.responder());
                exchange.core().set_timer(Duration::from_millis(20), 0);
            }
            "/five" => exchange.limit_body(5),
            "/five-paused" => {
                exchange.limit_body(5);
                exchange.pause_body();
                exchange.resume_body();
            }
            _ => {}
        }
    }

    fn on_body(&mut self, exchange: &mut Exchange<'_, usize>, data: &[u8]) {
        if let Some(count) = exchange.state() {
            *count += data.len();
        }
    }

    fn on_body_end(&mut self, exchange: &mut Exchange<'_, usize>, _: &Headers<'_>) {
        let count = exchange.state().copied().unwrap_or_default();
        exchange.limit_body(0);
        exchange.reply(StatusCode::OK).send(count.to_string().as_bytes()).unwrap();
    }

    fn on_timer(&mut self, _: TimerId, _: u64, context: &mut Context<'_, usize>) {
        for responder in self.waiting.drain(..) {
            context.exchange(responder).unwrap().reply(StatusCode::OK).send(b"later").unwrap();
        }
    }
}

static LARGE: [u8; 20_000] = [b'x'; 20_000];

fn ways() -> Served<Ways> {
    serve(Config { date: false, ..Config::default() }, |_| Ways::new())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn post(path: &str, framing: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Sends this on a connection of its own, and receives just that; whether the connection goes on is shown by one more
/// request, or by its end.
#[track_caller]
fn exchange(served: &Served<Ways>, request: &str, reply: &str, goes_on: bool) {
    let mut client = served.client();
    client.send(request.as_bytes());
    client.expect(reply.as_bytes());
    if goes_on {
        client.send(get("/at-once").as_bytes());
        client.expect(ok("").as_bytes());
    } else {
        client.expect_end();
    }
}

fn large() -> String {
    String::from_utf8(LARGE.to_vec()).unwrap()
}

#[test]
fn shared_bytes_are_sent_at_once_and_in_their_turn() {
    let served = ways();
    exchange(&served, &get("/shared"), &ok(&large()), true);
    let both = get("/timer") + &get("/shared");
    exchange(&served, &both, &(ok("later") + &ok(&large())), true);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n4e20\r\n";
    let parts = format!("{head}{}\r\n0\r\n\r\n", large());
    exchange(&served, &get("/shared-parts"), &parts, true);
    let both = get("/timer") + &get("/shared-parts");
    exchange(&served, &both, &(ok("later") + &parts), true);
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n";
    exchange(&served, "HEAD /shared HTTP/1.1\r\nHost: a\r\n\r\n", head, true);
    eventually("the counters", || served.http.total().body_out == 4 * 20_000 + 6 + 2 * 5);
}

#[test]
fn a_header_map_is_sent_but_for_what_frames_the_reply() {
    let served = ways();
    exchange(&served, &get("/map"), "HTTP/1.1 200 OK\r\nx: 1\r\nx: 2\r\ncontent-length: 0\r\n\r\n", true);
}

#[test]
fn a_reply_may_close_its_connection() {
    let served = ways();
    let reply = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbye";
    exchange(&served, &(get("/close") + &get("/close")), reply, false);
}

#[test]
fn a_reply_that_is_dropped_is_a_500() {
    let served = ways();
    let failed = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    exchange(&served, &get("/dropped"), failed, true);
    let three = get("/timer") + &get("/dropped") + &get("/at-once");
    exchange(&served, &three, &(ok("later") + failed + &ok("")), true);
    exchange(&served, "HEAD /dropped HTTP/1.1\r\nHost: a\r\n\r\n", failed, true);
    eventually("the counters", || served.http.total().statuses[4] == 3);
}

#[test]
fn a_reply_that_a_panic_drops_is_none() {
    let served = ways();
    let mut client = served.client();
    client.send((get("/at-once") + &get("/panic")).as_bytes());
    assert_eq!(client.receive_rest(), (Vec::new(), End::Reset));
    served.handle.shutdown();
    assert_eq!(served.join().panics.len(), 1);
}

#[test]
fn an_exchange_may_be_given_up() {
    let served = ways();
    let mut client = served.client();
    client.send(get("/abort").as_bytes());
    assert_eq!(client.receive_rest(), (Vec::new(), End::Reset));
    eventually("the counters", || served.http.total().aborted == 1);
}

#[test]
fn one_exchange_answers_another() {
    let served = ways();
    let mut first = served.client();
    first.send(get("/wait").as_bytes());
    eventually("the request", || served.http.total().requests == 1);
    exchange(&served, &get("/go"), &ok("went"), true);
    first.expect(ok("for another").as_bytes());
    first.send(get("/at-once").as_bytes());
    first.expect(ok("").as_bytes());
}

#[test]
fn it_is_known_who_asks() {
    let served = ways();
    let mut client = served.client();
    client.send(get("/peer").as_bytes());
    let Client::Tcp(socket) = &client else { panic!("no TCP") };
    let local = socket.local_addr().unwrap().to_string();
    client.expect(ok(&local).as_bytes());
}

const CHUNKED: &str = "Transfer-Encoding: chunked";
const REFUSED: &str = "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[test]
fn a_service_may_allow_less_of_a_body() {
    let served = ways();
    for path in ["/five", "/five-paused"] {
        exchange(&served, &post(path, "Content-Length: 5", "12345"), &ok("5"), true);
        exchange(&served, &post(path, CHUNKED, "3\r\n123\r\n2\r\n45\r\n0\r\n\r\n"), &ok("5"), true);
        // Refused by what is announced, before it comes.
        exchange(&served, &post(path, "Content-Length: 6", ""), REFUSED, false);
        exchange(&served, &post(path, CHUNKED, "6\r\n"), REFUSED, false);
        exchange(&served, &post(path, CHUNKED, "3\r\n123\r\n3\r\n"), REFUSED, false);
        let asks = "Content-Length: 6\r\nExpect: 100-continue";
        exchange(&served, &post(path, asks, ""), REFUSED, false);
    }
    exchange(&served, &post("/other", "Content-Length: 6", "123456"), &ok("6"), true);
    assert_eq!(served.http.total().problems[Problem::BodySize.index()], 8);
    assert_eq!(served.http.total().aborted, 8);
    assert_eq!(served.http.total().body_in, 2 * (5 + 5 + 3) + 6);
}

/// A body whose reply was ready before it came is read and dropped up to the limit, and no further.
#[test]
fn what_nobody_wants_is_dropped_up_to_a_limit() {
    let limits = Limits { discard: 10, ..Limits::default() };
    let served = serve(Config { date: false, limits, ..Config::default() }, |_| Ways::new());
    let close = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    exchange(&served, &post("/at-once", "Content-Length: 10", "0123456789"), &ok(""), true);
    exchange(&served, &post("/at-once", "Content-Length: 11", "01234567890"), close, false);
    exchange(&served, &post("/at-once", CHUNKED, "a\r\n0123456789\r\n0\r\n\r\n"), &ok(""), true);
    exchange(&served, &post("/at-once", CHUNKED, "b\r\n01234567890\r\n0\r\n\r\n"), &ok(""), false);
}
