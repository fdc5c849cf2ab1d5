//! One that wants everything cannot keep the others waiting.

mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use corelane::{Flow, Handle, Server, Shared, SocketOptions, Written};
use support::{Client, Job, Script, TestServer, eventually};

/// Runs a thread until it is dropped.
struct Hose {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hose {
    fn new(mut push: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                push();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Hose {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// Small messages are echoed, big ones swallowed.
fn ping_pong() -> Script {
    Script::new().quiet().data(|conn, input, _| {
        let bytes = input.take_all();
        if bytes.len() < 100 && bytes[0] != 0 {
            conn.write(bytes);
        }
        Flow::Continue
    })
}

/// A hundred connections go to and fro many times.
fn play(clients: &mut [Client]) {
    for round in 1..20u8 {
        clients.iter_mut().for_each(|client| client.send(&[round; 10]));
        clients.iter_mut().for_each(|client| assert_eq!(client.receive(10), [round; 10]));
    }
}

#[test]
fn a_fire_hose_of_bytes_starves_nobody() {
    let server = TestServer::start(ping_pong());
    let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
    let mut hose = server.client();
    let bytes = vec![0; 1 << 20];
    let hose = Hose::new(move || hose.write_all(&bytes).unwrap());
    eventually("the hose to run", || server.handle.total().bytes_in > 4 << 20);
    play(&mut clients);
    let before = server.handle.total().bytes_in;
    eventually("the hose not to starve either", || server.handle.total().bytes_in > before + (1 << 20));
    drop(hose);
}

#[test]
fn a_fire_hose_of_commands_starves_nobody() {
    let server = TestServer::start(ping_pong());
    let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
    let handle: Handle<Job> = server.handle.clone();
    let hose = Hose::new(move || {
        let _ = handle.send(0, Job(Box::new(|_, _| ())));
    });
    eventually("the hose to run", || server.handle.total().commands > 10_000);
    play(&mut clients);
    drop(hose);
}

#[test]
fn a_fire_hose_of_connections_starves_nobody() {
    let server = TestServer::start(ping_pong());
    let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
    let address = server.address().clone();
    let hose = Hose::new(move || Client::connect(&address).reset());
    eventually("the hose to run", || server.handle.total().accepted > 1_000);
    play(&mut clients);
    drop(hose);
}

#[test]
fn a_fire_hose_of_output_starves_nobody() {
    // It takes as fast as it can what the server has ready in any amount.
    let bytes = Shared::from(vec![0; 1 << 20]);
    let more = bytes.clone();
    let script = ping_pong().drained(move |conn, _| {
        assert_eq!(conn.write_shared(&more), Written::High);
        Flow::Continue
    });
    let server = TestServer::start(script);
    let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
    for _ in &clients {
        server.opened();
    }
    let (mut taker, id) = server.connect();
    // More than the kernel takes at once.
    server.core(move |core| while core.write_shared(id, &bytes) == Written::Accepted {});
    let hose = Hose::new(move || drop(taker.receive(1 << 16)));
    eventually("the hose to run", || server.handle.total().bytes_out > 4 << 20);
    play(&mut clients);
    drop(hose);
}

#[test]
fn what_arrives_in_one_burst_is_read_to_the_end_although_no_edge_comes_again() {
    // Far more than the budget of a turn, and then silence.
    for (read_buffer, budget) in [(512, 1), (512, 1_000), (4096, 4096), (64 << 10, 1)] {
        let options = SocketOptions { receive_buffer: Some(4 << 20), ..SocketOptions::default() };
        let server = Server::new().read_buffer(read_buffer).byte_budget(budget).socket_options(options);
        let server = TestServer::with(server, Script::new().quiet());
        let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
        server.settle();
        let hold = server.hold(0);
        for client in &mut clients {
            client.send(&[1; 100_000]);
        }
        drop(hold);
        eventually("everything", || server.handle.total().bytes_in == 400_000);
        server.settle();
        assert!(server.total().budget_exhausted > 0);
    }
}
