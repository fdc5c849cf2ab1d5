//! A message that is received and answered allocates nothing once its server is warm.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use corelane::{Conn, Core, Flow, Handler, Input, Open, Server, Sessions, Shared};
use support::{CountingAllocator, allocations_of, count_this_thread};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Echoes whole lines, and passes what it is sent on to every connection.
struct Lines;

impl Handler for Lines {
    type Session = ();
    type Message = Shared;

    fn on_start(&mut self, _: &mut Core<'_>) {
        count_this_thread();
    }

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        while let Some(end) = input.peek().iter().position(|&byte| byte == b'\n') {
            conn.write(input.take(end + 1));
        }
        Flow::Continue
    }

    fn on_message(&mut self, message: Shared, sessions: &mut Sessions<()>, core: &mut Core<'_>) {
        for (id, ()) in sessions.iter() {
            core.write_shared(id, &message);
        }
    }
}

fn expect(client: &mut TcpStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

/// One test: the counter is the process's.
#[test]
fn steady_state_allocates_nothing() {
    let server = Server::new().listen("127.0.0.1:0").reactors(1).start(|_| Lines).unwrap();
    let handle = server.handle();
    let address = server.addresses().next().unwrap().to_string();
    let mut clients: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(&address).unwrap()).collect();
    clients.iter().for_each(|client| client.set_nodelay(true).unwrap());

    let one = |client: &mut TcpStream| {
        client.write_all(b"ping\n").unwrap();
        expect(client, b"ping\n");
    };
    assert_eq!(allocations_of(2_000, || clients.iter_mut().for_each(one)), 0, "one message in flight");

    let batch = b"message\n".repeat(16);
    let pipelined = |client: &mut TcpStream| {
        client.write_all(&batch).unwrap();
        expect(client, &batch);
    };
    assert_eq!(allocations_of(2_000, || pipelined(&mut clients[0])), 0, "sixteen in flight");

    let split = |client: &mut TcpStream| {
        let before = handle.total().bytes_in;
        client.write_all(b"first half,").unwrap();
        // Two writes can arrive as one; and parts that nobody needs for a second are given back.
        while handle.total().bytes_in == before {
            std::thread::yield_now();
        }
        client.write_all(b" second half\n").unwrap();
        expect(client, b"first half, second half\n");
    };
    assert_eq!(allocations_of(2_000, || split(&mut clients[1])), 0, "a message in two parts");

    let news = Shared::from("news\n");
    let broadcast = || {
        let before = handle.total().bytes_out;
        handle.send(0, news.clone()).unwrap();
        clients.iter_mut().for_each(|client| expect(client, &news));
        // A second message in the same turn would have to wait, and so need what is given back when unused.
        while handle.total().bytes_out == before {
            std::thread::yield_now();
        }
    };
    assert_eq!(allocations_of(2_000, broadcast), 0, "a broadcast of a shared payload");
}
