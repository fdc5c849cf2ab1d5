//! What tests say to the redis example, and how.

use std::net::SocketAddr;

use corelane::Address;

use super::{Client, Example};

/// Numbers of reactors: with one every key is at hand, with two half of them are elsewhere.
pub(crate) const REACTORS: [&str; 2] = ["1", "2"];

pub(crate) fn serve(arguments: &[&str]) -> (Example, SocketAddr) {
    Example::serve("redis", arguments)
}

pub(crate) fn connect(address: SocketAddr) -> Client {
    Client::connect(&Address::Tcp(address))
}

/// A request as clients send it.
pub(crate) fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A request of words without spaces.
pub(crate) fn words(line: &str) -> Vec<u8> {
    request(&line.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
}

#[track_caller]
pub(crate) fn ask(client: &mut Client, line: &str, reply: &str) {
    client.send(&words(line));
    let received = client.receive(reply.len());
    let shown = String::from_utf8_lossy(&received);
    assert!(received == reply.as_bytes(), "{line:.200}: {shown:.300} instead of {reply:.300}");
}

pub(crate) fn line(client: &mut Client) -> Vec<u8> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(client.receive(1));
    }
    line
}
