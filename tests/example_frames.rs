//! The frames example with its own client, and with peers that break the rules.
#![cfg(feature = "codec")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use corelane::Address;
use corelane::codec::{Client, Codec, LengthPrefixed};
use support::{DEADLINE, Example, Random, TempDir};

fn connect(address: SocketAddr) -> Client<LengthPrefixed> {
    Client::connect(&Address::from(address), LengthPrefixed::u32_be(), DEADLINE).unwrap()
}

fn request(id: u64, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), body].concat()
}

fn reply(id: u64, body: &[u8]) -> Vec<u8> {
    let body: Vec<u8> = body.iter().rev().copied().collect();
    [&[0][..], &id.to_be_bytes(), &body].concat()
}

/// Whoever else misbehaves, the others are served.
#[track_caller]
fn serves(address: SocketAddr) {
    let mut client = connect(address);
    client.send(&request(7, b"abc")).unwrap();
    assert_eq!(client.receive().unwrap().unwrap(), reply(7, b"abc"));
}

/// Runs the example's client; its output.
#[track_caller]
fn run_client(address: &str, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let (status, output) = Example::start("frames", &[&["client", address], arguments].concat()).wait();
    (status.code(), output)
}

#[test]
fn its_client_finds_every_byte_right() {
    let folder = TempDir::new();
    let unix = format!("unix:{}", folder.join("frames.sock").display());
    let (server, address) = Example::serve("frames", &["--listen", &unix, "--max-frame", "300000"]);
    for (requests, depth, size) in
        [("1", "1", "0"), ("2000", "1", "8"), ("20000", "64", "100"), ("60", "32", "299992"), ("0", "9", "5")]
    {
        for address in [&address.to_string(), &unix] {
            let flags = ["--requests", requests, "--depth", depth, "--size", size];
            let (code, output) = run_client(address, &flags);
            assert_eq!(code, Some(0), "{flags:?}: {output:#?}");
            assert!(output.iter().any(|line| line.ends_with("messages/s")), "{output:#?}");
        }
    }
    server.stop();
}

#[test]
fn replies_come_in_order_however_requests_are_cut() {
    let (server, address) = Example::serve("frames", &[]);
    let mut random = Random::new(11);
    let bodies: Vec<Vec<u8>> = (0..200)
        .map(|_| {
            let size = random.below(2000);
            random.bytes(size)
        })
        .collect();
    let mut bytes = Vec::new();
    for (id, body) in (0..).zip(&bodies) {
        LengthPrefixed::u32_be().append(&mut bytes, &request(id, body)).unwrap();
    }
    let (mut sender, mut receiver) = connect(address).split();
    let sending = thread::spawn(move || {
        random.pieces(&bytes, 700).into_iter().for_each(|piece| sender.send_raw(piece).unwrap());
        sender.finish().unwrap();
    });
    for (id, body) in (0..).zip(&bodies) {
        assert_eq!(receiver.receive().unwrap().unwrap(), reply(id, body), "{id}");
    }
    assert_eq!(receiver.receive().unwrap(), None);
    sending.join().unwrap();
    drop(receiver);
    server.stop();
}

#[test]
fn the_largest_request_is_answered_and_one_more_byte_refused() {
    let (server, address) = Example::serve("frames", &["--max-frame", "1000"]);
    let mut client = connect(address);
    let largest = request(1, &[5; 992]);
    client.send(&largest).unwrap();
    assert_eq!(client.receive().unwrap().unwrap(), reply(1, &[5; 992]));
    client.send(&request(1, &[5; 993])).unwrap();
    let refused = client.receive().unwrap().unwrap().to_vec();
    assert_eq!(refused[0], 1);
    let text = String::from_utf8_lossy(&refused[1..]);
    assert!(text.contains("1001 bytes") && text.contains("1000 allowed"), "{text}");
    assert_eq!(client.receive().unwrap(), None, "an end in good order");
    drop(client);
    serves(address);
    server.stop();
}

/// The header is enough: nobody waits for the rest, and what comes of it does not reset the connection before
/// the answer is read.
#[test]
fn garbage_is_refused_at_its_header() {
    let (server, address) = Example::serve("frames", &[]);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4], &[0xff; 100_000]] {
        let mut client = connect(address);
        client.send_raw(garbage).unwrap();
        let refused = client.receive().unwrap().unwrap();
        assert!(refused[0] == 1 && refused.ends_with(b"allowed"), "{refused:?}");
        assert_eq!(client.receive().unwrap(), None);
    }
    let mut client = connect(address);
    client.send(b"short").unwrap();
    assert!(client.receive().unwrap().unwrap().ends_with(b"eight bytes of id"));
    assert_eq!(client.receive().unwrap(), None);
    drop(client);
    serves(address);
    server.stop();
}

#[test]
fn a_client_that_vanishes_in_a_frame_costs_nothing() {
    let (server, address) = Example::serve("frames", &[]);
    for _ in 0..50 {
        let mut client = connect(address);
        client.send_all([request(1, b"whole")]).unwrap();
        client.send_raw(&[0, 0, 0, 50, 1, 2, 3]).unwrap();
        assert_eq!(client.receive().unwrap().unwrap(), reply(1, b"whole"));
    }
    let mut client = connect(address);
    client.send_raw(&[0, 0]).unwrap();
    client.finish().unwrap();
    assert_eq!(client.receive().unwrap(), None);
    drop(client);
    serves(address);
    server.stop();
}

/// Who sends requests and reads no replies is stopped by backpressure, and cut off at the deadline.
#[test]
fn a_slow_reader_is_cut_off_and_holds_up_nobody() {
    let (server, address) = Example::serve("frames", &["--stall", "1", "--reactors", "1"]);
    let mut slow = TcpStream::connect(address).unwrap();
    slow.set_write_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = Vec::new();
    LengthPrefixed::u32_be().append(&mut bytes, &request(1, &[3; 60_000])).unwrap();
    let mut sent = 0;
    let error = loop {
        match slow.write(&bytes) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        serves(address);
        assert!(sent < 1 << 30, "nothing slowed it down");
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    serves(address);
    let report = server.stop();
    assert!(report.iter().any(|line| line.contains("write_stall 1")), "{report:#?}");
}

/// A server that sends one byte wrong, or a reply too few, is found out.
#[test]
fn its_client_finds_what_is_wrong() {
    let right = |id: u64| {
        let mut bytes = Vec::new();
        LengthPrefixed::u32_be().append(&mut bytes, &reply(id, b"")).unwrap();
        bytes
    };
    let mut wrong = right(1);
    *wrong.last_mut().unwrap() ^= 1;
    let cases = [
        ([right(0), wrong].concat(), "wrong at byte 8"),
        ([right(0), right(0)].concat(), "wrong at byte 8"),
        (right(0), "owes the reply to request 1"),
        ([right(0), vec![0, 0, 0, 9, 0]].concat(), "5 bytes into a frame"),
        ([right(0), vec![0, 0, 0, 1, 0]].concat(), "has 1 bytes, not 9"),
        ([right(0), b"\0\0\0\x05\x01nope".to_vec()].concat(), "refused: nope"),
        ([right(0), right(1), right(2)].concat(), "9 bytes that nobody asked for"),
        ([right(0), vec![0xff; 4]].concat(), "larger than"),
    ];
    for (replies, problem) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.read_exact(&mut [0; 24]).unwrap();
            stream.write_all(&replies).unwrap();
        });
        let (code, output) = run_client(&address, &["--requests", "2", "--size", "0"]);
        assert_eq!(code, Some(1), "{problem}: {output:#?}");
        assert!(output.len() == 1 && output[0].contains(problem), "{problem}: {output:#?}");
        server.join().unwrap();
    }
}

#[test]
fn its_client_gives_up_on_a_silent_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (code, output) = run_client(&address, &["--patience", "1", "--requests", "1"]);
    assert_eq!(code, Some(1));
    assert!(output[0].contains("sent nothing"), "{output:#?}");
    drop(listener);
}
