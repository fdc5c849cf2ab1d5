//! What a peer is held to, whichever package it is in.
//!
//! A package lists its peers in a table, a line each, and gets a test for each line.
#![allow(dead_code, unused_macros, unused_imports, reason = "each test file uses a part of it")]

pub(crate) mod http;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// How a peer takes connections, which is what `--steer` depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listens {
    PerThread,
    Once,
}

/// A line of a package's table.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) program: &'static str,
    pub(crate) listens: Listens,
}

/// A table of peers: makes `ALL`, and for each a test that calls `$check` with it.
///
/// The lines are `name_of_the_test: "name-of-the-program" Listens;`.
macro_rules! peers {
    ($check:path; $($test:ident: $name:literal $listens:ident;)*) => {
        const ALL: &[support::Peer] = &[$(support::Peer {
            program: env!(concat!("CARGO_BIN_EXE_", $name)),
            listens: support::Listens::$listens,
        }),*];

        $(#[test]
        fn $test() {
            $check(env!(concat!("CARGO_BIN_EXE_", $name)));
        })*
    };
}
pub(crate) use peers;

const TOTAL: usize = 4 << 20;
/// More than the socket buffers on a connection's way there and back can hold together.
const TOTAL_OF_SLOW_READER: usize = 64 << 20;
const MSS_OF_SLOW_READER: u32 = 1460;
/// Turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    process: Child,
    pub(crate) addr: SocketAddr,
}

impl Server {
    pub(crate) fn start(program: &str, flags: &[&str]) -> Self {
        Self::start_as(Command::new(program).args(flags))
    }

    /// Starts a program that has its flags, but for the address.
    pub(crate) fn start_as(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut process = command.args(["--addr", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let addr = line.strip_prefix("listening on ").and_then(|addr| addr.trim_end().parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{program} printed {line:?}"));
        Self { process, addr }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        self.connect_with(socket)
    }

    fn connect_with(&self, socket: Socket) -> TcpStream {
        socket.connect(&self.addr.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.into()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends the server, which must not have ended by itself.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
        let status = self.process.wait().unwrap();
        // By the signal itself, or in order because of it.
        assert!(status.signal() == Some(Signal::SIGTERM as i32) || status.success(), "{status}");
        let mut rest = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "more than one line on stdout");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // For a failed test: a process that `stop` has ended and waited for is left alone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Xorshift: the same numbers for the same seed. Its state must not be zero.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 1 to `max`, small ones as likely as large ones.
    fn size(&mut self, max: usize) -> usize {
        let bits = self.next() % u64::from(max.ilog2() + 1);
        (self.next() as usize % (2 << bits)).clamp(1, max)
    }
}

/// A stream of random bytes that repeats itself after a prime length only, so that no buffer size
/// divides it.
struct Pattern(Vec<u8>);

impl Pattern {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self((0..1_048_573).map(|_| random.next() as u8).collect())
    }

    /// At most `max` bytes from `offset` on.
    fn at(&self, offset: usize, max: usize) -> &[u8] {
        let rest = &self.0[offset % self.0.len()..];
        &rest[..max.min(rest.len())]
    }

    fn check(&self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = self.at(offset, bytes.len());
            let (head, tail) = bytes.split_at(expected.len());
            assert!(head == expected, "wrong bytes from {offset} on");
            (offset, bytes) = (offset + head.len(), tail);
        }
    }
}

/// Sends `total` bytes in chunks of random sizes, then closes that direction. Reports every stall.
fn send(mut stream: &TcpStream, pattern: &Pattern, seed: u64, total: usize, stalled: &Sender<usize>) {
    let mut random = Random::new(!seed);
    let mut sent = 0;
    while sent < total {
        match stream.write(pattern.at(sent, random.size(256 * 1024).min(total - sent))) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = stalled.send(sent);
            }
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Ends a connection on the way out, so that after a failure nobody goes on sending on it.
struct HangUp<'a>(&'a TcpStream);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Reads up to the end of the stream, at most `max` bytes at a time.
fn receive(mut stream: &TcpStream, pattern: &Pattern, total: usize, max: usize) {
    let _hang_up = HangUp(stream);
    let mut buffer = vec![0; max];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer) {
            // A process that was stopped and goes on, where the socket has a timeout (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
            Ok(0) => break,
            Ok(count) => {
                pattern.check(received, &buffer[..count]);
                received += count;
            }
        }
    }
    assert_eq!(received, total);
}

fn well_behaved(server: &Server, seed: u64) {
    let (stream, pattern) = (server.connect(), Pattern::new(seed));
    thread::scope(|scope| {
        scope.spawn(|| send(&stream, &pattern, seed, TOTAL, &channel().0));
        receive(&stream, &pattern, TOTAL, 64 * 1024);
    });
}

/// Reads nothing before its sending has stalled: a server that never stopped reading would take
/// everything first.
fn slow_reader(server: &Server, seed: u64) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The kernel sizes the server's send buffer by what it may have in flight: small segments and
    // a small window leave it too little room to take what is pending in one go.
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.set_tcp_mss(MSS_OF_SLOW_READER).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(250))).unwrap();
    let (stream, pattern) = (server.connect_with(socket), Pattern::new(seed));
    let (stalled, stall) = channel();
    thread::scope(|scope| {
        let (stream, pattern) = (&stream, &pattern);
        scope.spawn(move || send(stream, pattern, seed, TOTAL_OF_SLOW_READER, &stalled));
        stall.recv().expect("the server reads on while nothing is read from it");
        receive(stream, pattern, TOTAL_OF_SLOW_READER, 5000);
    });
}

/// Sends one byte at a time and waits for it.
fn ping_pong(server: &Server) {
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in 0..=255 {
        let mut echoed = [!byte];
        stream.write_all(&[byte]).unwrap();
        stream.read_exact(&mut echoed).unwrap();
        assert_eq!(echoed, [byte]);
    }
}

/// Leaves with its echo unread, which resets the connection under the server's hands.
fn rude(server: &Server) {
    let mut stream = server.connect();
    stream.write_all(&[7; 64 * 1024]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Everything an echo server must stand.
pub(crate) fn echoes(program: &str) {
    let server = Server::start(program, &["--threads", "2"]);
    stands(&server);
    server.stop();
}

/// As [`echoes`], a server that runs.
pub(crate) fn stands(server: &Server) {
    thread::scope(|scope| {
        for seed in 0..6 {
            scope.spawn(move || well_behaved(server, seed));
        }
        scope.spawn(|| slow_reader(server, 6));
        scope.spawn(|| ping_pong(server));
        scope.spawn(|| (0..50).for_each(|_| rude(server)));
        // Says nothing at all before it closes, and is closed in turn.
        scope.spawn(|| {
            let stream = server.connect();
            stream.shutdown(Shutdown::Write).unwrap();
            receive(&stream, &Pattern::new(7), 0, 1);
        });
    });
}

/// Every peer serves with its thread pinned, and steered if it has a listener for each thread.
pub(crate) fn pinned_and_steered(peers: &[Peer]) {
    for peer in peers {
        let pin = match peer.listens {
            Listens::Once => &["--pin"][..],
            Listens::PerThread => &["--pin", "--steer"],
        };
        // One thread, as more may not have a CPU each.
        let server = Server::start(peer.program, &[pin, &["--threads", "1"]].concat());
        drop(server.connect());
        server.stop();
    }
}

/// Every peer refuses nonsense with status 2 and names the flag.
pub(crate) fn bad_flags_are_refused(peers: &[Peer]) {
    let refused = |program: &str, flags: &[&str], reason: &str| {
        let output = Command::new(program).args(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{program} {flags:?}: {stderr}");
        assert!(stderr.contains(reason), "{program} {flags:?}: {stderr}");
        assert!(output.stdout.is_empty());
    };
    for &Peer { program, listens } in peers {
        refused(program, &["--threads", "0"], "--threads");
        refused(program, &["--addr", "nowhere"], "--addr");
        refused(program, &["--steer"], "--pin");
        refused(program, &["--threads", "4096", "--pin"], "--pin: 4096 threads");
        refused(program, &["--fast"], "--fast");
        if listens == Listens::Once {
            let reason = "--steer: this peer has a single listener";
            refused(program, &["--pin", "--steer", "--threads", "1"], reason);
        }
    }
}

/// Every peer says so, and ends, if somebody has its address.
pub(crate) fn a_port_in_use_is_refused(peers: &[Peer]) {
    let server = Server::start(peers[0].program, &["--threads", "1"]);
    for peer in peers {
        let address = server.addr.to_string();
        let output = Command::new(peer.program).args(["--addr", &address]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("cannot listen on"));
    }
    server.stop();
}
