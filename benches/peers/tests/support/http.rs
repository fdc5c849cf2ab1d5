//! What a peer that speaks HTTP is held to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use super::Server;

const BODY: &str = "Hello, World!";

/// Requests that are sent at once.
const PIPELINED: usize = 16;

fn request(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
}

/// A reply's status and header fields, in lower case; its body is read too, and must be as long as they say.
fn reply(stream: &mut TcpStream) -> (u16, Vec<(String, String)>, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    let fields: Vec<_> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = field(&fields, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (status, fields, String::from_utf8(body).unwrap())
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The plaintext reply, with the header fields that a comparison of frameworks asks for.
fn expect_plaintext(stream: &mut TcpStream) {
    let (status, fields, body) = reply(stream);
    assert_eq!((status, body.as_str()), (200, BODY));
    assert!(field(&fields, "content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{fields:?}");
    assert!(field(&fields, "server").is_some(), "{fields:?}");
    assert!(field(&fields, "date").is_some_and(|date| date.ends_with(" GMT")), "{fields:?}");
}

fn keep_alive(server: &Server) {
    let mut stream = server.connect();
    for _ in 0..100 {
        stream.write_all(request("/plaintext", "").as_bytes()).unwrap();
        expect_plaintext(&mut stream);
    }
}

fn pipelined(server: &Server) {
    let mut stream = server.connect();
    for _ in 0..20 {
        stream.write_all(request("/plaintext", "").repeat(PIPELINED).as_bytes()).unwrap();
        (0..PIPELINED).for_each(|_| expect_plaintext(&mut stream));
    }
}

/// A request in two parts, cut at every byte.
fn cut(server: &Server) {
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    let request = request("/plaintext", "Accept: text/plain\r\n");
    for at in 1..request.len() {
        stream.write_all(&request.as_bytes()[..at]).unwrap();
        stream.write_all(&request.as_bytes()[at..]).unwrap();
        expect_plaintext(&mut stream);
    }
}

fn asked_to_close(server: &Server) {
    let mut stream = server.connect();
    stream.write_all(request("/plaintext", "Connection: close\r\n").as_bytes()).unwrap();
    expect_plaintext(&mut stream);
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
}

/// Leaves before its reply, in several ways.
fn rude(server: &Server) {
    let mut stream = server.connect();
    stream.write_all(&request("/plaintext", "").as_bytes()[..20]).unwrap();
    drop(stream);
    let mut stream = server.connect();
    stream.write_all(request("/plaintext", "").repeat(100).as_bytes()).unwrap();
    let _ = stream.shutdown(Shutdown::Both);
}

/// Everything a server of HTTP must stand.
pub(crate) fn answers(program: &str) {
    let server = Server::start(program, &["--threads", "2"]);
    thread::scope(|scope| {
        let server = &server;
        for _ in 0..8 {
            scope.spawn(move || keep_alive(server));
            scope.spawn(move || pipelined(server));
        }
        scope.spawn(|| cut(server));
        scope.spawn(|| asked_to_close(server));
        scope.spawn(|| (0..50).for_each(|_| rude(server)));
    });
    let mut stream = server.connect();
    stream.write_all(request("/elsewhere", "").as_bytes()).unwrap();
    assert_eq!(reply(&mut stream).0, 404);
    server.stop();
}
