//! A frame that is received and answered allocates nothing once its server is warm, whole or in parts.
#![cfg(feature = "codec")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use corelane::codec::{Codec, Decoder, Delimited, Fixed, LengthPrefixed, Lines};
use corelane::{Conn, Core, Flow, Handler, Input, Open, Server};
use support::{CountingAllocator, allocations_of, count_this_thread};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Echoes whole frames.
struct Echo<C>(C);

impl<C: Codec + Clone + 'static> Handler for Echo<C> {
    type Session = Decoder<C>;
    type Message = ();

    fn on_start(&mut self, _: &mut Core<'_>) {
        count_this_thread();
    }

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<Decoder<C>> {
        Open::Accept(Decoder::new(self.0.clone()))
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, frames: &mut Decoder<C>, input: &mut Input<'_>) -> Flow {
        loop {
            match frames.next(input) {
                Ok(Some(frame)) => _ = self.0.write(conn, frame),
                Ok(None) => return Flow::Continue,
                Err(_) => return Flow::Abort,
            }
        }
    }
}

fn expect(client: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == bytes);
}

fn check<C: Codec + Clone + Send + Sync + 'static>(name: &str, codec: C, payload: &[u8], depth: usize) {
    let mut frame = Vec::new();
    codec.append(&mut frame, payload).unwrap();
    let server = Server::new().listen("127.0.0.1:0").reactors(1).start(move |_| Echo(codec.clone())).unwrap();
    let handle = server.handle();
    let mut client = TcpStream::connect(server.addresses().next().unwrap().to_string()).unwrap();
    client.set_nodelay(true).unwrap();

    let one = || {
        client.write_all(&frame).unwrap();
        expect(&mut client, &frame);
    };
    assert_eq!(allocations_of(1_000, one), 0, "{name}: one frame in flight");

    let batch = frame.repeat(depth);
    let pipelined = || {
        client.write_all(&batch).unwrap();
        expect(&mut client, &batch);
    };
    assert_eq!(allocations_of(1_000, pipelined), 0, "{name}: {depth} in flight");

    let (first, second) = frame.split_at(frame.len() / 2);
    let split = || {
        let before = handle.total().bytes_in;
        client.write_all(first).unwrap();
        // Two writes can arrive as one; and parts that nobody needs for a second are given back.
        while handle.total().bytes_in == before {
            std::thread::yield_now();
        }
        client.write_all(second).unwrap();
        expect(&mut client, &frame);
    };
    assert_eq!(allocations_of(1_000, split), 0, "{name}: a frame in two parts");
}

/// One test: the counter is the process's.
#[test]
fn steady_state_allocates_nothing() {
    check("u32", LengthPrefixed::u32_be(), &[7; 100], 16);
    // Sent uncopied; a part of one waits for its rest with the next read buffer behind it.
    check("large", LengthPrefixed::u32_be(), &[7; 20_000], 4);
    check("varint", LengthPrefixed::varint().including_header(), &[7; 300], 16);
    check("lines", Lines::crlf(), &[7; 100], 16);
    check("delimited", Delimited::new(b"\r\n\r\n"), &[7; 100], 16);
    check("fixed", Fixed::new(100), &[7; 100], 16);
}
