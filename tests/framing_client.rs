//! The blocking client of frames: what it tells of its peer, and when it gives up.

#![cfg(feature = "codec")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::thread;
use std::time::Duration;

use corelane::Address;
use corelane::codec::{Client, Codec, FrameError, LengthPrefixed, Lines};
use support::{DEADLINE, Random, TempDir};

const SHORT: Duration = Duration::from_millis(50);

/// A client, and the other end of its connection.
fn pair<C: Codec + Clone>(codec: C, deadline: Duration) -> (Client<C>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().into();
    let client = Client::connect(&address, codec, deadline).unwrap();
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    peer.set_write_timeout(Some(DEADLINE)).unwrap();
    (client, peer)
}

/// The frame error within an I/O error.
#[track_caller]
fn frame_error(error: &std::io::Error) -> FrameError {
    *error.get_ref().expect("an inner error").downcast_ref().expect("a frame error")
}

#[test]
fn it_speaks_over_every_kind_of_address() {
    let folder = TempDir::new();
    let path = folder.join("echo.sock");
    let name = format!("corelane-framing-client-{}", std::process::id());
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp6 = TcpListener::bind("[::1]:0").unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let other = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
    let addresses = [
        Address::from(tcp.local_addr().unwrap()),
        Address::from(tcp6.local_addr().unwrap()),
        Address::from(path.as_path()),
        format!("unix:@{name}").parse().unwrap(),
    ];
    fn echo(mut stream: impl Read + Write) {
        let mut bytes = [0; 100];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..count]).unwrap();
        }
    }
    let servers = [
        thread::spawn(move || echo(tcp.accept().unwrap().0)),
        thread::spawn(move || echo(tcp6.accept().unwrap().0)),
        thread::spawn(move || echo(unix.accept().unwrap().0)),
        thread::spawn(move || echo(other.accept().unwrap().0)),
    ];
    for address in &addresses {
        let mut client = Client::connect(address, LengthPrefixed::varint(), DEADLINE).unwrap();
        client.send(b"hello").unwrap();
        assert_eq!(client.receive().unwrap(), Some(&b"hello"[..]), "{address}");
        client.send_all(["", "a", "bcd"]).unwrap();
        for expected in ["", "a", "bcd"] {
            assert_eq!(client.receive().unwrap(), Some(expected.as_bytes()), "{address}");
        }
        client.finish().unwrap();
        assert_eq!(client.receive().unwrap(), None, "{address}");
        assert_eq!(client.receive().unwrap(), None, "{address}, again");
    }
    servers.into_iter().for_each(|server| server.join().unwrap());
}

#[test]
fn frames_of_all_sizes_arrive_however_they_are_cut() {
    let mut random = Random::new(5);
    let payloads: Vec<Vec<u8>> = [0, 1, 2, 100, 65_535, 65_536, 65_537, 300_000, 3, 0, 1_000_000]
        .map(|size| random.bytes(size))
        .into();
    let codec = LengthPrefixed::u32_le().maximum(1_000_000);
    let (client, mut peer) = pair(codec, DEADLINE);
    let mut client = client.input_cap(1_000_004);
    let mut bytes = Vec::new();
    payloads.iter().for_each(|payload| codec.append(&mut bytes, payload).unwrap());
    let sender = thread::spawn(move || {
        random.pieces(&bytes, 30_000).into_iter().for_each(|piece| peer.write_all(piece).unwrap());
    });
    for payload in &payloads {
        assert!(client.receive().unwrap() == Some(payload), "{} bytes", payload.len());
    }
    assert_eq!(client.receive().unwrap(), None);
    sender.join().unwrap();
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::from(listener.local_addr().unwrap());
    drop(listener);
    let error = Client::connect(&address, Lines::new(), DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let nowhere: Address = "unix:/nonexistent/socket".parse().unwrap();
    assert_eq!(Client::connect(&nowhere, Lines::new(), DEADLINE).unwrap_err().kind(), ErrorKind::NotFound);
    let zero = Client::connect(&address, Lines::new(), Duration::ZERO).unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
}

/// A Unix listener whose queue is full lets a connect wait, for ever if nothing bounds it.
#[test]
fn a_connect_gives_up_at_the_deadline() {
    let folder = TempDir::new();
    let path = folder.join("full.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let address = Address::from(path.as_path());
    let mut waiting = Vec::new();
    let error = loop {
        match Client::connect(&address, Lines::new(), SHORT) {
            Ok(client) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 1000, "the queue has no end");
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

#[test]
fn a_silent_peer_is_given_up_and_may_still_answer_later() {
    let (mut client, mut peer) = pair(Lines::new(), SHORT);
    let error = client.receive().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    peer.write_all(b"half a li").unwrap();
    let error = client.receive().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    peer.write_all(b"ne\n").unwrap();
    assert_eq!(client.receive().unwrap(), Some(&b"half a line"[..]));
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let (mut client, _peer) = pair(LengthPrefixed::u32_be().maximum(1 << 30), SHORT);
    let error = client.send(&vec![0; 64 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

#[test]
fn a_stream_that_ends_within_a_frame_is_no_clean_end() {
    let (mut client, mut peer) = pair(LengthPrefixed::u8(), DEADLINE);
    peer.write_all(b"\x03abc\x03de").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.receive().unwrap(), Some(&b"abc"[..]));
    for _ in 0..2 {
        let error = client.receive().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(frame_error(&error), FrameError::Truncated { bytes: 3 });
    }
}

#[test]
fn a_last_line_without_its_end_is_a_line() {
    let (mut client, mut peer) = pair(Lines::new(), DEADLINE);
    peer.write_all(b"one\r\ntwo").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.receive().unwrap(), Some(&b"one"[..]));
    assert_eq!(client.receive().unwrap(), Some(&b"two"[..]));
    assert_eq!(client.receive().unwrap(), None);
}

#[test]
fn what_is_no_frame_is_told_each_time() {
    let (mut client, mut peer) = pair(LengthPrefixed::u16_be().maximum(10), DEADLINE);
    peer.write_all(&[0, 1, 7, 0, 11]).unwrap();
    assert_eq!(client.receive().unwrap(), Some(&[7][..]));
    for _ in 0..2 {
        let error = client.receive().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(frame_error(&error), FrameError::TooLarge { length: 11, maximum: 10 });
    }
}

#[test]
fn a_reset_is_an_error_and_no_end() {
    let (mut client, peer) = pair(Lines::new(), DEADLINE);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(client.receive().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_cannot_be_sent_is_not_sent_in_part() {
    let (mut client, mut peer) = pair(Lines::new().maximum(5), DEADLINE);
    let error = client.send(b"two\nlines").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(frame_error(&error), FrameError::TooLarge { length: 9, maximum: 5 });
    let error = client.send_all(["one", "a\nb", "two"]).unwrap_err();
    assert_eq!(frame_error(&error), FrameError::DelimiterInside { at: 1 });
    client.send_all(["three", "four"]).unwrap();
    client.send_raw(b"as it\nis").unwrap();
    client.finish().unwrap();
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"three\nfour\nas it\nis");
}

/// What is kept of a frame is bounded, whatever the codec allows.
#[test]
fn a_frame_larger_than_the_input_cap_is_refused() {
    for (size, fits) in [(996, true), (997, false)] {
        let codec = LengthPrefixed::u32_be();
        let (client, mut peer) = pair(codec, DEADLINE);
        let mut client = client.input_cap(1000);
        let mut bytes = Vec::new();
        codec.append(&mut bytes, &vec![3; size]).unwrap();
        peer.write_all(&bytes).unwrap();
        match client.receive() {
            Ok(frame) => assert!(fits && frame.is_some_and(|frame| frame.len() == size)),
            Err(error) => {
                assert!(!fits, "{error}");
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert!(error.to_string().contains("1000 bytes"), "{error}");
            }
        }
    }
}

#[test]
fn its_halves_work_at_a_time() {
    let (client, mut peer) = pair(LengthPrefixed::u32_be().maximum(1 << 20), DEADLINE);
    let (mut sender, mut receiver) = client.split();
    let echo = thread::spawn(move || {
        let mut back = peer.try_clone().unwrap();
        std::io::copy(&mut peer, &mut back).unwrap();
        back.shutdown(Shutdown::Write).unwrap();
    });
    // More than the kernels hold: it needs the other half to read.
    let sending = thread::spawn(move || {
        (0..64).for_each(|n: u8| sender.send(&vec![n; 1 << 19]).unwrap());
        sender.finish().unwrap();
    });
    for n in 0..64 {
        let payload = receiver.receive().unwrap().unwrap();
        assert!(payload.len() == 1 << 19 && payload.iter().all(|&byte| byte == n), "frame {n}");
    }
    assert_eq!(receiver.receive().unwrap(), None);
    sending.join().unwrap();
    echo.join().unwrap();
}
