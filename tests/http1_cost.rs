//! What a request costs: no allocation once its server is warm, and one system call for the replies to all requests of
//! a read. And what a quiet connection costs: no more than a bare one and 256 bytes.
#![cfg(feature = "http1")]

mod support;

use corelane::http1::*;
use corelane::{Conn, Flow, Handler, Input, Open, Server};
use support::http::{Served, serve};
use support::{Client, CountingAllocator, allocated_bytes, allocations_of, count_this_thread, eventually};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Static data, at once or in the next turn; and a body that is counted.
struct Static {
    waiting: Vec<Responder>,
}

impl Static {
    fn new() -> Self {
        Self { waiting: Vec::new() }
    }
}

impl Service for Static {
    type State = u64;
    type Message = ();

    fn on_start(&mut self, _: &mut Context<'_, u64>) {
        count_this_thread();
    }

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, u64>) {
        match (request.path(), request.has_body()) {
            ("/later", _) => {
                self.waiting.push(exchange.responder());
                exchange.core().set_timer(std::time::Duration::ZERO, 0);
            }
            (_, true) => {}
            _ => exchange.reply(StatusCode::OK).header("content-type", "text/plain").send(b"hello").unwrap(),
        }
    }

    fn on_body(&mut self, exchange: &mut Exchange<'_, u64>, data: &[u8]) {
        *exchange.state().unwrap() += data.len() as u64;
    }

    fn on_body_end(&mut self, exchange: &mut Exchange<'_, u64>, _: &Headers<'_>) {
        exchange.reply(StatusCode::OK).stream(Length::Unknown).unwrap();
        exchange.write(b"hello").unwrap();
        exchange.end().unwrap();
    }

    fn on_timer(&mut self, _: corelane::TimerId, _: u64, context: &mut Context<'_, u64>) {
        for responder in self.waiting.drain(..) {
            if let Some(mut exchange) = context.exchange(responder) {
                exchange.reply(StatusCode::OK).send(b"later").unwrap();
            }
        }
    }
}

/// Sends requests and receives their replies; how many bytes those were.
fn exchange(client: &mut Client, request: &[u8], replies: usize) -> u64 {
    client.send(request);
    let mut got = Vec::new();
    let mut buffer = [0; 65536];
    while got.windows(12).filter(|at| *at == b"HTTP/1.1 200").count() < replies
        || !(got.ends_with(b"hello") || got.ends_with(b"later") || got.ends_with(b"0\r\n\r\n"))
    {
        let count = std::io::Read::read(client, &mut buffer).unwrap();
        assert_ne!(count, 0);
        got.extend_from_slice(&buffer[..count]);
    }
    got.len() as u64
}

fn served() -> Served<Static> {
    serve(Config::default(), |_| Static::new())
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const LATER: &[u8] = b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &[u8] =
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

fn nothing_is_allocated_in_steady_state() {
    let served = served();
    let mut client = served.client();
    for (name, request, count) in [
        ("one", GET.to_vec(), 1),
        ("16 pipelined", GET.repeat(16), 16),
        ("later", LATER.to_vec(), 1),
        ("a body", POST.to_vec(), 1),
    ] {
        let allocated = allocations_of(1_000, || _ = exchange(&mut client, &request, count));
        assert_eq!(allocated, 0, "{name}");
    }
}

fn replies_to_one_read_leave_in_one_write() {
    let served = served();
    let mut client = served.client();
    let mut sent = exchange(&mut client, GET, 1);
    // A reactor publishes its counters at the end of a turn, when the reply has left already.
    eventually("the counters", || served.handle.total().bytes_out == sent);
    let before = served.handle.total();
    sent += exchange(&mut client, &GET.repeat(16), 16);
    eventually("the counters", || served.handle.total().bytes_out == sent);
    let after = served.handle.total();
    // With mio's poll(2) backend a read that finds nothing has to follow.
    let reads = if cfg!(mio_unsupported_force_poll_poll) { 2 } else { 1 };
    assert_eq!((after.reads - before.reads, after.writes - before.writes), (reads, 1));
}

/// Accepts and does nothing.
struct Bare;

impl Handler for Bare {
    type Session = ();
    type Message = ();
    fn on_start(&mut self, _: &mut corelane::Core<'_>) {
        count_this_thread();
    }
    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }
    fn on_data(&mut self, conn: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
        input.take_all();
        conn.write(b"HTTP/1.1 200 hello");
        Flow::Continue
    }
}

const CONNECTIONS: usize = 1000;

/// Bytes that the reactor holds for this many connections that have had a reply each.
fn held(address: &corelane::Address) -> i64 {
    let mut warm = Client::connect(address);
    exchange(&mut warm, GET, 1);
    let before = allocated_bytes();
    let clients: Vec<Client> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = Client::connect(address);
            exchange(&mut client, GET, 1);
            client
        })
        .collect();
    let held = allocated_bytes() - before;
    drop(clients);
    held
}

fn a_quiet_connection_costs_little_more_than_a_bare_one() {
    let bare = Server::new().reactors(1).listen("127.0.0.1:0").start(|_| Bare).unwrap();
    let held_bare = held(bare.addresses().next().unwrap());
    bare.stop_now();
    bare.join();
    let served = served();
    let held_http = held(&served.address);
    let more = (held_http - held_bare) / CONNECTIONS as i64;
    println!("bare {} bytes, http {} bytes each", held_bare / 1000, held_http / 1000);
    assert!(more <= 256, "{more} bytes more");
}

/// One test: the counters are the process's.
#[test]
fn costs() {
    nothing_is_allocated_in_steady_state();
    replies_to_one_read_leave_in_one_write();
    a_quiet_connection_costs_little_more_than_a_bare_one();
}
