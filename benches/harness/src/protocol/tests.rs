//! Every protocol against a target made of a few lines: what is right is taken, in whatever pieces it comes, and any
//! byte that was changed is found.

use super::*;
use crate::plan::{Settings, Target};

fn plan(target: &str, mix: Option<&str>) -> Plan {
    let target = Target::parse(target).unwrap();
    let settings = Settings { mix: mix.map(str::to_owned), keys: Some(50), ..Settings::default() };
    settings.plan(target).unwrap()
}

/// What the target of a test makes of requests.
type Answer = fn(&[u8]) -> Vec<u8>;

fn echo(request: &[u8]) -> Vec<u8> {
    request.to_vec()
}

/// As the example `frames` does.
fn frame(mut requests: &[u8]) -> Vec<u8> {
    let mut replies = Vec::new();
    while !requests.is_empty() {
        let (length, rest) = requests.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (frame, rest) = rest.split_at(length);
        let (id, body) = frame.split_at(8);
        replies.extend((length as u32 + 1).to_be_bytes());
        replies.push(0);
        replies.extend(id);
        replies.extend(body.iter().rev());
        requests = rest;
    }
    replies
}

thread_local! {
    static STORE: std::cell::RefCell<std::collections::HashMap<Vec<u8>, Vec<u8>>> = Default::default();
}

/// A redis that knows what was set.
fn store(requests: &[u8]) -> Vec<u8> {
    let mut replies = Vec::new();
    for line in requests.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap();
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        match words[..] {
            [b"PING"] => replies.extend(b"+PONG\r\n"),
            [b"SET", key, value] => {
                STORE.with_borrow_mut(|store| store.insert(key.to_vec(), value.to_vec()));
                replies.extend(b"+OK\r\n");
            }
            [b"GET", key] => {
                let value = STORE.with_borrow(|store| store[key].clone());
                replies.extend(format!("${}\r\n", value.len()).bytes());
                replies.extend(value);
                replies.extend(b"\r\n");
            }
            _ => panic!("{}", line.escape_ascii()),
        }
    }
    replies
}

/// Two pages: one with a length, one in chunks.
fn pages(requests: &[u8]) -> Vec<u8> {
    let mut replies = Vec::new();
    for request in String::from_utf8(requests.to_vec()).unwrap().split_terminator("\r\n\r\n") {
        assert!(request.contains("\r\nHost: 127.0.0.1:80"), "{request}");
        if request.starts_with("GET /chunks ") {
            replies.extend(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            replies.extend(b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nTrailer: yes\r\n\r\n");
        } else {
            replies.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nDate: now\r\n\r\nHello, World!");
        }
    }
    replies
}

const ALL: [(&str, Option<&str>, Answer); 5] = [
    ("tcp://127.0.0.1:1", Some("3:64,1:5000"), echo),
    ("frames://127.0.0.1:1", Some("1:0,2:100,1:3000"), frame),
    ("redis://127.0.0.1:1", Some("2:set:40,1:ping"), store),
    ("http://127.0.0.1:80/", None, pages),
    ("http://127.0.0.1:80/", Some("1:/chunks,1:/whole"), pages),
];

/// Asks so many times on one connection, and returns the bytes that the target is to get.
fn ask(wire: &mut Wire, talk: &mut Talk, requests: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 0..requests as u64 {
        let times = (index, index);
        assert!(wire.ask(talk, times, Purpose::Load, |parts| {
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            true
        }));
    }
    bytes
}

/// Shows a reply in pieces of this size; how many requests were answered.
fn hear(wire: &mut Wire, talk: &mut Talk, reply: &[u8], piece: usize) -> Result<usize, Wrong> {
    let (mut shown, mut answered) = (Vec::new(), 0);
    for bytes in reply.chunks(piece) {
        shown.extend_from_slice(bytes);
        let mut rest = shown.as_slice();
        while wire.hear(talk, &mut rest, 7)?.is_some() {
            answered += 1;
        }
        shown = rest.to_vec();
    }
    Ok(answered)
}

#[test]
fn replies_are_taken_in_any_pieces() {
    for (target, mix, answer) in ALL {
        let plan = plan(target, mix);
        for piece in [1, 2, 7, 64, 1_000, usize::MAX] {
            let mut wire = Wire::new(&plan, &Material::new(&plan));
            let mut talk = Talk::new(3);
            let mut answered = 0;
            for _ in 0..3 {
                let reply = answer(&ask(&mut wire, &mut talk, 20));
                assert_eq!(talk.unanswered(), 20);
                answered += hear(&mut wire, &mut talk, &reply, piece).unwrap();
                assert_eq!(wire.hear(&mut talk, &mut &[][..], 7), Ok(None));
            }
            assert_eq!((answered, talk.unanswered()), (60, 0), "{target} in pieces of {piece}");
        }
    }
}

#[test]
fn any_changed_byte_is_found() {
    for (target, mix, answer) in ALL {
        let plan = plan(target, mix);
        let is_http = target.starts_with("http");
        let reply_length = {
            let mut wire = Wire::new(&plan, &Material::new(&plan));
            answer(&ask(&mut wire, &mut Talk::new(5), 4)).len()
        };
        let step = (reply_length / 200).max(1);
        for place in (0..reply_length).step_by(step) {
            let mut wire = Wire::new(&plan, &Material::new(&plan));
            let mut talk = Talk::new(5);
            let first = answer(&ask(&mut wire, &mut talk, 8));
            hear(&mut wire, &mut talk, &first, usize::MAX).unwrap();
            let mut reply = answer(&ask(&mut wire, &mut talk, 4));
            if place >= reply.len() {
                continue;
            }
            reply[place] ^= 0x20;
            let heard = hear(&mut wire, &mut talk, &reply, usize::MAX);
            // Names of headers do not care for case, and some values nobody looks at.
            let is_head = is_http && {
                let text = String::from_utf8_lossy(&reply[..place]).into_owned();
                let blank = text.rfind("\r\n\r\n");
                blank.is_none_or(|blank| text[blank..].contains("HTTP/")) || text.contains("chunked")
            };
            assert!(is_head || heard != Ok(4), "{target}: byte {place} of {reply_length}");
        }
    }
}

#[test]
fn lost_doubled_and_unasked_bytes_are_found() {
    for (target, mix, answer) in &ALL[..2] {
        let plan = plan(target, *mix);
        let replies = |change: fn(&mut Vec<u8>)| {
            let mut wire = Wire::new(&plan, &Material::new(&plan));
            let mut talk = Talk::new(1);
            let mut reply = answer(&ask(&mut wire, &mut talk, 6));
            change(&mut reply);
            hear(&mut wire, &mut talk, &reply, usize::MAX)
        };
        assert_eq!(replies(|_| ()), Ok(6));
        assert!(matches!(replies(|reply| reply.push(0)), Err(Wrong::Unasked { bytes: 1, .. })));
        assert!(replies(|reply| _ = reply.remove(10)).is_err());
        assert!(replies(|reply| reply.insert(10, reply[10] ^ 1)).is_err());
        assert_eq!(replies(|reply| _ = reply.pop()), Ok(5));
    }
}

#[test]
fn a_value_of_another_key_is_found() {
    let plan = plan("redis://127.0.0.1:1", Some("1:get:100"));
    let material = Material::new(&plan);
    for key in 0..50 {
        let mut name = Vec::new();
        redis::write_key(&mut name, 100, key);
        let value = material.text.piece(redis::piece(key), 100).to_vec();
        STORE.with_borrow_mut(|store| store.insert(name, value));
    }
    let mut wire = Wire::new(&plan, &material);
    let mut talk = Talk::new(0);
    let reply = store(&ask(&mut wire, &mut talk, 30));
    assert_eq!(hear(&mut wire, &mut talk, &reply, 13), Ok(30));
    let requests = ask(&mut wire, &mut talk, 2);
    let lines: Vec<&[u8]> = requests.split_inclusive(|byte| *byte == b'\n').collect();
    let swapped = store(&[lines[1], lines[0]].concat());
    assert!(lines[0] != lines[1] && hear(&mut wire, &mut talk, &swapped, usize::MAX).is_err());
}

#[test]
fn redis_errors_are_shown() {
    let plan = plan("redis://127.0.0.1:1", Some("1:set:10"));
    let mut wire = Wire::new(&plan, &Material::new(&plan));
    let mut talk = Talk::new(0);
    ask(&mut wire, &mut talk, 1);
    let wrong =
        hear(&mut wire, &mut talk, b"-NOAUTH Authentication required.\r\n", 99).unwrap_err().to_string();
    assert!(wrong.contains("expected `+OK") && wrong.contains("-NOAUTH"), "{wrong}");
}

#[test]
fn http_replies_that_make_no_sense_are_told() {
    let plan = plan("http://127.0.0.1:80/x", None);
    for (reply, problem) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        ("HTTP/1.1 200 OK\r\n\r\n", "without Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Content-Length is `x`"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "two different"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "the length of a chunk is `z`"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "longer than it says"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "no reply of HTTP/1.1"),
    ] {
        let mut wire = Wire::new(&plan, &Material::new(&plan));
        let mut talk = Talk::new(0);
        ask(&mut wire, &mut talk, 1);
        let wrong = hear(&mut wire, &mut talk, reply.as_bytes(), usize::MAX).unwrap_err().to_string();
        assert!(wrong.contains(problem), "{reply}: {wrong}");
    }
}

#[test]
fn a_reply_that_announces_the_end_is_the_last() {
    let plan = plan("http://127.0.0.1:80/", None);
    let mut wire = Wire::new(&plan, &Material::new(&plan));
    let mut talk = Talk::new(0);
    ask(&mut wire, &mut talk, 1);
    let reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let answered = wire.hear(&mut talk, &mut reply.as_slice(), 5).unwrap().unwrap();
    assert!(answered.is_last);
    assert_eq!(answered.first_byte, 5);
}

#[test]
fn requests_follow_their_weights() {
    let plan = plan("tcp://127.0.0.1:1", Some("80:64,20:4096"));
    let mut wire = Wire::new(&plan, &Material::new(&plan));
    let mut small = 0;
    for connection in 0..50 {
        let mut talk = Talk::new(connection);
        for _ in 0..200 {
            wire.ask(&mut talk, (0, 0), Purpose::Load, |parts| {
                small += u32::from(parts[0].len() == 64);
                true
            });
        }
    }
    assert!((7_800..8_200).contains(&small), "{small} of 10000");
}

#[test]
fn the_first_byte_has_a_time_of_its_own() {
    let plan = plan("tcp://127.0.0.1:1", None);
    let mut wire = Wire::new(&plan, &Material::new(&plan));
    let mut talk = Talk::new(0);
    let reply = ask(&mut wire, &mut talk, 1);
    assert_eq!(wire.hear(&mut talk, &mut &reply[..10], 100), Ok(None));
    let answered = wire.hear(&mut talk, &mut &reply[10..], 250).unwrap().unwrap();
    assert_eq!(answered.first_byte, 100);
}
