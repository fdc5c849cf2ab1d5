//! Echo, byte-exact, over every kind of socket, number of reactors, balance and origin of the reply.

mod support;

use std::fmt::Debug;
use std::sync::mpsc::{self, Sender};
use std::thread;

use corelane::{
    Address, Balance, Conn, ConnId, Flow, Handle, Handler, Input, Open, SendError, Server, Shared, Watermarks,
};
use support::{Client, Random, TempDir, join_in_time};

const CLIENTS: usize = 10;
const BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
enum Transport {
    Tcp,
    Unix,
}

/// Who writes the reply.
#[derive(Debug, Clone, Copy)]
enum From {
    OnData,
    AnotherThread,
}

macro_rules! cells {
    ($($name:ident: $transport:ident, $reactors:literal, $balance:ident, $from:ident;)*) => {
        $(#[test]
        fn $name() {
            echo(Transport::$transport, $reactors, Balance::$balance, From::$from);
        })*
    };
}

cells! {
    tcp_one_reactor_kernel_hash_from_on_data: Tcp, 1, Kernel, OnData;
    tcp_one_reactor_kernel_hash_from_another_thread: Tcp, 1, Kernel, AnotherThread;
    tcp_one_reactor_one_acceptor_from_on_data: Tcp, 1, RoundRobin, OnData;
    tcp_one_reactor_one_acceptor_from_another_thread: Tcp, 1, RoundRobin, AnotherThread;
    tcp_three_reactors_kernel_hash_from_on_data: Tcp, 3, Kernel, OnData;
    tcp_three_reactors_kernel_hash_from_another_thread: Tcp, 3, Kernel, AnotherThread;
    tcp_three_reactors_one_acceptor_from_on_data: Tcp, 3, RoundRobin, OnData;
    tcp_three_reactors_one_acceptor_from_another_thread: Tcp, 3, RoundRobin, AnotherThread;
    unix_one_reactor_kernel_hash_from_on_data: Unix, 1, Kernel, OnData;
    unix_one_reactor_kernel_hash_from_another_thread: Unix, 1, Kernel, AnotherThread;
    unix_one_reactor_one_acceptor_from_on_data: Unix, 1, RoundRobin, OnData;
    unix_one_reactor_one_acceptor_from_another_thread: Unix, 1, RoundRobin, AnotherThread;
    unix_three_reactors_kernel_hash_from_on_data: Unix, 3, Kernel, OnData;
    unix_three_reactors_kernel_hash_from_another_thread: Unix, 3, Kernel, AnotherThread;
    unix_three_reactors_one_acceptor_from_on_data: Unix, 3, RoundRobin, OnData;
    unix_three_reactors_one_acceptor_from_another_thread: Unix, 3, RoundRobin, AnotherThread;
}

struct Echo;

impl Handler for Echo {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
        conn.write(input.take_all());
        Flow::Continue
    }
}

/// Has another thread send everything back, the end too.
struct Delegate {
    worker: Sender<Work>,
    handle: Handle<()>,
}

enum Work {
    Echo(Handle<()>, ConnId, Vec<u8>),
    End(Handle<()>, ConnId),
}

impl Handler for Delegate {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
        let work = Work::Echo(self.handle.clone(), conn.id(), input.take_all().to_vec());
        self.worker.send(work).unwrap();
        Flow::Continue
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, (): &mut (), _: &mut Input<'_>) -> Flow {
        self.worker.send(Work::End(self.handle.clone(), conn.id())).unwrap();
        Flow::Continue
    }
}

/// Asks again until the mailbox has room.
fn insist<T: Debug>(mut value: T, ask: impl Fn(T) -> Result<(), SendError<T>>) {
    loop {
        match ask(value) {
            Ok(()) => return,
            Err(SendError::Full(back)) => value = back,
            Err(stopped) => panic!("{stopped:?}"),
        }
        thread::yield_now();
    }
}

fn work(work: Work) {
    match work {
        Work::Echo(handle, id, bytes) => insist(Shared::from(bytes), |bytes| handle.write(id, bytes)),
        Work::End(handle, id) => insist(id, |id| handle.close(id)),
    }
}

fn echo(transport: Transport, reactors: usize, balance: Balance, from: From) {
    let directory = TempDir::new();
    let address: Address = match transport {
        Transport::Tcp => "127.0.0.1:0".parse().unwrap(),
        Transport::Unix => Address::Unix(directory.join("echo")),
    };
    let server = Server::new().listen(address).reactors(reactors).balance(balance);
    let running = match from {
        From::OnData => server.start(|_| Echo),
        From::AnotherThread => {
            let (worker, works) = mpsc::channel();
            thread::spawn(move || works.into_iter().for_each(work));
            // The other thread knows no backpressure: what it writes must have room.
            let server = server.watermarks(Watermarks { cap: 2 * BYTES, ..Watermarks::default() });
            server.start(move |start| Delegate { worker: worker.clone(), handle: start.handle() })
        }
    };
    let running = running.unwrap();
    let address = running.addresses().next().unwrap().clone();
    let clients = (0..CLIENTS).map(|seed| {
        let address = address.clone();
        thread::spawn(move || client(&address, seed as u64))
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.join().unwrap();
    }
    running.shutdown();
    let report = join_in_time(running);
    assert_eq!(report.total.accepted, CLIENTS as u64);
    assert_eq!(report.total.bytes_in, report.total.bytes_out);
    assert_eq!(report.total.closed_in_all(), CLIENTS as u64);
    if matches!(transport, Transport::Unix) || balance == Balance::RoundRobin {
        assert!(report.reactors.iter().all(|reactor| reactor.accepted >= CLIENTS as u64 / reactors as u64));
    }
}

/// Sends random bytes in chunks of random sizes, reads in others, and ends its side last.
fn client(address: &Address, seed: u64) {
    let mut random = Random::new(seed);
    let count = BYTES + random.below(10_000);
    let bytes = random.bytes(count);
    let mut sender = Client::connect(address);
    let mut receiver = sender.another();
    let expected = bytes.clone();
    let reading = thread::spawn(move || {
        let echoed = receiver.receive_all();
        assert_eq!(echoed.len(), expected.len());
        assert!(echoed == expected, "the echo differs");
    });
    for piece in random.pieces(&bytes, 50_000) {
        sender.send(piece);
    }
    sender.finish();
    reading.join().unwrap();
}
