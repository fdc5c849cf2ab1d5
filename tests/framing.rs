//! Framing on real sockets: any cut, both directions, bad frames, and what leaves in one system call.
#![cfg(feature = "codec")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use corelane::codec::{
    Client, Codec, Decoder, Delimited, Described, Fixed, FrameError, LengthPrefixed, Lines,
};
use corelane::{
    Address, CloseReason, Conn, ConnId, Core, Dial, Flow, Handle, Handler, Input, Open, Report, Running,
    Server, Sessions,
};
use support::{DEADLINE, Random, TempDir, eventually, join_in_time};

/// Sends every frame back, says what is wrong with what is none, and reports the ends.
struct Echo<C> {
    codec: C,
    ends: mpsc::Sender<(Option<FrameError>, CloseReason)>,
    /// What to dial when told to, and what to send there first.
    dials: Vec<u8>,
}

enum Order {
    Dial(Address),
    /// Do nothing until the other end of this is gone.
    Wait(mpsc::Receiver<()>),
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

struct Session<C> {
    frames: Decoder<C>,
    error: Option<FrameError>,
}

impl<C: Codec + Clone + 'static> Handler for Echo<C> {
    type Session = Session<C>;
    type Message = Order;

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Self::Session> {
        if conn.dial_token().is_some() {
            self.codec.write(conn, &self.dials).unwrap();
        }
        Open::Accept(Session { frames: Decoder::new(self.codec.clone()), error: None })
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session<C>, input: &mut Input<'_>) -> Flow {
        loop {
            match session.frames.next(input) {
                Ok(Some(frame)) => _ = self.codec.write(conn, frame).unwrap(),
                Ok(None) => return Flow::Continue,
                Err(error) => {
                    session.error = Some(error);
                    self.codec.write(conn, error.to_string().as_bytes()).unwrap();
                    return Flow::Close;
                }
            }
        }
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Session<C>, input: &mut Input<'_>) -> Flow {
        match session.frames.last(input) {
            Ok(Some(frame)) => _ = self.codec.write(conn, frame).unwrap(),
            Ok(None) => {}
            Err(error) => session.error = Some(error),
        }
        Flow::Close
    }

    fn on_close(&mut self, _: ConnId, session: Session<C>, reason: CloseReason, _: &mut Core<'_>) {
        // A test that has seen enough is gone.
        let _ = self.ends.send((session.error, reason));
    }

    fn on_message(&mut self, order: Order, _: &mut Sessions<Self::Session>, core: &mut Core<'_>) {
        match order {
            Order::Dial(to) => _ = core.connect(&Dial::to(to).token(1)),
            Order::Wait(until) => _ = until.recv_timeout(DEADLINE),
        }
    }
}

struct EchoServer {
    running: Option<Running<Order>>,
    handle: Handle<Order>,
    address: Address,
    ends: mpsc::Receiver<(Option<FrameError>, CloseReason)>,
}

impl EchoServer {
    fn start<C: Codec + Clone + Send + Sync + 'static>(codec: C) -> Self {
        Self::with(Server::new().listen("127.0.0.1:0"), codec)
    }

    fn with<C: Codec + Clone + Send + Sync + 'static>(server: Server, codec: C) -> Self {
        let (sender, ends) = mpsc::channel();
        let factory = move |_: &_| Echo { codec: codec.clone(), ends: sender.clone(), dials: b"GO!".into() };
        let running = server.reactors(1).start(factory).unwrap();
        let address = running.addresses().next().unwrap().clone();
        Self { handle: running.handle(), address, running: Some(running), ends }
    }

    fn client<C: Codec + Clone>(&self, codec: C) -> Client<C> {
        Client::connect(&self.address, codec, DEADLINE).unwrap()
    }

    fn end(&self) -> (Option<FrameError>, CloseReason) {
        self.ends.recv_timeout(DEADLINE).expect("the end of a connection")
    }

    fn stop(mut self) -> Report {
        let running = self.running.take().unwrap();
        // In good order it would wait for clients that are still there.
        running.stop_now();
        join_in_time(running)
    }
}

/// Payloads of all sizes, in random pieces and byte by byte, come back whole.
fn echoes<C: Codec + Clone + Send + Sync + 'static>(codec: C, payloads: &[Vec<u8>]) {
    let server = EchoServer::start(codec.clone());
    let mut bytes = Vec::new();
    payloads.iter().for_each(|payload| codec.append(&mut bytes, payload).unwrap());
    for most in [1, 5_000] {
        // Byte by byte the first ones are enough.
        let end = if most == 1 { bytes.len().min(3_000) } else { bytes.len() };
        let (mut sender, mut receiver) = server.client(codec.clone()).split();
        let sent = bytes[..end].to_vec();
        let sending = thread::spawn(move || {
            let mut random = Random::new(most as u64);
            random.pieces(&sent, most).into_iter().for_each(|piece| sender.send_raw(piece).unwrap());
            sender
        });
        let mut taken = 0;
        let whole = payloads.iter().take_while(|payload| {
            let mut frame = Vec::new();
            codec.append(&mut frame, payload).unwrap();
            taken += frame.len();
            taken <= end
        });
        for payload in whole {
            assert!(receiver.receive().unwrap() == Some(payload), "{} bytes", payload.len());
        }
        drop(sending.join().unwrap());
    }
    server.stop();
}

#[test]
fn every_codec_on_a_socket() {
    let mut random = Random::new(3);
    let mut sized = |sizes: &[usize]| -> Vec<Vec<u8>> {
        sizes.iter().map(|&size| random.bytes(size).iter().map(|byte| byte | 0x10).collect()).collect()
    };
    let payloads = sized(&[0, 1, 200, 8_191, 8_192, 3, 65_000, 0, 40_000, 1]);
    echoes(LengthPrefixed::u16_be(), &payloads);
    echoes(LengthPrefixed::u16_le().including_header(), &payloads);
    echoes(LengthPrefixed::u32_be().including_header(), &payloads);
    echoes(LengthPrefixed::u32_le(), &payloads);
    echoes(LengthPrefixed::varint(), &payloads);
    echoes(Lines::new(), &payloads);
    echoes(Lines::crlf(), &payloads);
    echoes(Delimited::new(b"\r\n\r\n"), &payloads);
    echoes(LengthPrefixed::u8(), &sized(&[0, 1, 255, 0, 100]));
    echoes(Fixed::new(100), &sized(&[100; 50]));
    let described: Vec<Vec<u8>> =
        sized(&[0, 1, 200, 250]).into_iter().map(|body| [&[body.len() as u8], &body[..]].concat()).collect();
    echoes(Described::new(1, |header| Ok(1 + usize::from(header[0]))), &described);
}

#[test]
fn unix_sockets_carry_frames_too() {
    let folder = TempDir::new();
    let codec = LengthPrefixed::u32_be();
    let path = folder.join("frames.sock");
    let server = EchoServer::with(Server::new().listen(path.as_path()), codec);
    let mut client = server.client(codec);
    client.send_all(["one", "", "two"]).unwrap();
    for expected in ["one", "", "two"] {
        assert_eq!(client.receive().unwrap(), Some(expected.as_bytes()));
    }
    server.stop();
}

#[test]
fn a_connection_that_was_dialed_speaks_frames() {
    let codec = LengthPrefixed::varint();
    let server = EchoServer::start(codec);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    server.handle.send(0, Order::Dial(listener.local_addr().unwrap().into())).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = [0; 4];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\x03GO!");
    for piece in [&b"\x02h"[..], b"i\x03", b"you\0\x01"] {
        peer.write_all(piece).unwrap();
    }
    peer.write_all(b"x").unwrap();
    let mut bytes = [0; 10];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\x02hi\x03you\0\x01x");
    drop(peer);
    assert_eq!(server.end(), (None, CloseReason::PeerClosed));
    server.stop();
}

/// A typed error for the handler; for the peer the text it sends and a clean end, although the peer goes on
/// sending what it had announced.
#[test]
fn a_frame_that_is_too_large_is_told_and_the_connection_ends_cleanly() {
    let codec = LengthPrefixed::u32_be().maximum(1_000);
    let server = EchoServer::start(codec);
    let error = FrameError::TooLarge { length: 100_000, maximum: 1_000 };
    let mut client = server.client(codec);
    client.send(b"before").unwrap();
    client.send_raw(&100_000_u32.to_be_bytes()).unwrap();
    client.send_raw(&[0; 100_000]).unwrap();
    assert_eq!(client.receive().unwrap(), Some(&b"before"[..]));
    assert_eq!(client.receive().unwrap(), Some(error.to_string().as_bytes()));
    assert_eq!(client.receive().unwrap(), None, "an end and no reset");
    drop(client);
    assert_eq!(server.end(), (Some(error), CloseReason::Local));
    server.stop();
}

/// Nothing but the header has come: nobody waits for a frame that is refused.
#[test]
fn a_frame_that_is_too_large_is_refused_at_its_header() {
    let codec = LengthPrefixed::u16_be().maximum(1_000);
    let server = EchoServer::start(codec);
    let mut client = server.client(codec);
    client.send_raw(&1_001_u16.to_be_bytes()).unwrap();
    assert!(client.receive().unwrap().unwrap().starts_with(b"a frame of 1001 bytes"));
    assert_eq!(client.receive().unwrap(), None);
    server.stop();
}

#[test]
fn frames_that_make_no_sense_are_refused() {
    let codec = LengthPrefixed::varint();
    let server = EchoServer::start(codec);
    for (bytes, problem) in [
        (&[0x80, 0][..], "longer than it needs"),
        (&[0xff; 10], "larger than 64 bits"),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "18446744073709551615 bytes"),
    ] {
        let mut client = server.client(codec);
        client.send_raw(bytes).unwrap();
        let text = String::from_utf8(client.receive().unwrap().unwrap().to_vec()).unwrap();
        assert!(text.contains(problem), "{text}");
        assert_eq!(client.receive().unwrap(), None);
        drop(client);
        assert_eq!(server.end().1, CloseReason::Local);
    }
    server.stop();
}

#[test]
fn a_peer_that_leaves_within_a_frame_is_known_to_have() {
    let codec = LengthPrefixed::u32_be();
    let server = EchoServer::start(codec);
    let mut client = server.client(codec);
    client.send_raw(b"\0\0\0\x09half").unwrap();
    client.finish().unwrap();
    assert_eq!(client.receive().unwrap(), None);
    assert_eq!(server.end(), (Some(FrameError::Truncated { bytes: 8 }), CloseReason::PeerClosed));
    server.stop();
}

#[test]
fn the_last_line_needs_no_end() {
    let server = EchoServer::start(Lines::new());
    let mut client = server.client(Lines::new());
    client.send_raw(b"one\r\ntwo").unwrap();
    client.finish().unwrap();
    assert_eq!(client.receive().unwrap(), Some(&b"one"[..]));
    assert_eq!(client.receive().unwrap(), Some(&b"two"[..]));
    assert_eq!(client.receive().unwrap(), None);
    server.stop();
}

/// The relation that the documentation tells of: the cap must hold the largest frame.
#[test]
fn the_input_cap_bounds_what_is_kept_of_a_frame() {
    let codec = LengthPrefixed::u32_be();
    let server = EchoServer::with(Server::new().listen("127.0.0.1:0").input_cap(1_000), codec);
    let mut client = server.client(codec);
    // Its header and 995 bytes may have to be kept; then it is whole.
    let mut frame = Vec::new();
    codec.append(&mut frame, &[7; 996]).unwrap();
    client.send_raw(&frame[..999]).unwrap();
    eventually("its arrival", || server.handle.total().bytes_in == 999);
    client.send_raw(&frame[999..]).unwrap();
    assert_eq!(client.receive().unwrap(), Some(&[7; 996][..]));
    client.send_raw(&1_100_u32.to_be_bytes()).unwrap();
    client.send_raw(&[7; 1_099]).unwrap();
    assert_eq!(server.end(), (None, CloseReason::InputOverflow));
    server.stop();
}

/// How many writes the server makes for what is sent to it in one piece.
fn writes_for<C: Codec + Clone + Send + Sync + 'static>(codec: C, payloads: &[&[u8]]) -> u64 {
    let server = EchoServer::start(codec.clone());
    let mut client = server.client(codec);
    let (go, wait) = mpsc::channel();
    // One frame, so that the connection is served; the rest when nobody looks, so that it is seen as one.
    client.send(payloads[0]).unwrap();
    assert!(client.receive().unwrap().is_some());
    server.handle.send(0, Order::Wait(wait)).unwrap();
    client.send_all(payloads).unwrap();
    drop(go);
    for payload in payloads {
        assert_eq!(client.receive().unwrap(), Some(*payload));
    }
    server.stop().total.writes - 1
}

#[test]
fn replies_to_a_batch_leave_in_one_system_call() {
    assert_eq!(writes_for(LengthPrefixed::u32_be(), &[&b"request"[..]; 200]), 1);
    assert_eq!(writes_for(Lines::crlf(), &[&b"request"[..]; 200]), 1);
}

#[test]
fn a_large_payload_leaves_in_one_system_call_with_its_header() {
    assert_eq!(writes_for(LengthPrefixed::u32_be(), &[&[b'x'; 20_000]]), 1);
    assert_eq!(writes_for(Delimited::new(b"\r\n\r\n"), &[&[b'x'; 20_000]]), 1);
    // With what was gathered before it.
    assert_eq!(writes_for(LengthPrefixed::u32_be(), &[b"small", &[b'x'; 20_000]]), 1);
}
