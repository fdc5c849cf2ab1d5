//! A frame that is received and answered allocates nothing once its server is warm, whole or in parts.
#![cfg(feature = "codec")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use corelane::codec::{Codec, Decoder, Delimited, Fixed, LengthPrefixed, Lines};
use corelane::{Conn, Core, Flow, Handler, Input, Open, Server};

thread_local! {
    static IS_REACTOR: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts what reactor threads allocate.
struct Counting;

fn count() {
    if IS_REACTOR.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Echoes whole frames.
struct Echo<C>(C);

impl<C: Codec + Clone + 'static> Handler for Echo<C> {
    type Session = Decoder<C>;
    type Message = ();

    fn on_start(&mut self, _: &mut Core<'_>) {
        IS_REACTOR.set(true);
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

/// Runs `step` often enough to warm everything up, then again, and returns what the latter allocated.
fn allocations_of(mut step: impl FnMut()) -> u64 {
    (0..300).for_each(|_| step());
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    (0..1_000).for_each(|_| step());
    ALLOCATIONS.load(Ordering::SeqCst) - before
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
    assert_eq!(allocations_of(one), 0, "{name}: one frame in flight");

    let batch = frame.repeat(depth);
    let pipelined = || {
        client.write_all(&batch).unwrap();
        expect(&mut client, &batch);
    };
    assert_eq!(allocations_of(pipelined), 0, "{name}: {depth} in flight");

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
    assert_eq!(allocations_of(split), 0, "{name}: a frame in two parts");
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
