//! Every peer echoes to the byte, whatever its clients do, holds back a client that does not read,
//! and ends on SIGTERM.

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

const EPOLL: &str = env!("CARGO_BIN_EXE_peer-epoll");
const MIO: &str = env!("CARGO_BIN_EXE_peer-mio");
const TOKIO: &str = env!("CARGO_BIN_EXE_peer-tokio");
const TOKIO_PER_CORE: &str = env!("CARGO_BIN_EXE_peer-tokio-per-core");
const THREADS: &str = env!("CARGO_BIN_EXE_peer-threads");
const ALL: [&str; 5] = [EPOLL, MIO, TOKIO, TOKIO_PER_CORE, THREADS];

const TOTAL: usize = 4 << 20;
/// More than the socket buffers on a connection's way there and back can hold together.
const TOTAL_OF_SLOW_READER: usize = 64 << 20;
const MSS_OF_SLOW_READER: u32 = 1460;
/// Turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    process: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(program: &str, flags: &[&str]) -> Self {
        let mut process = Command::new(program)
            .args(["--addr", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let addr = line.strip_prefix("listening on ").and_then(|addr| addr.trim_end().parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{program} printed {line:?}"));
        Self { process, addr }
    }

    fn connect(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        self.connect_with(socket)
    }

    fn connect_with(&self, socket: Socket) -> TcpStream {
        socket.connect(&self.addr.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.into()
    }

    /// Ends the server, which must not have ended by itself.
    fn stop(mut self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status}");
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
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            count => {
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

fn check(program: &str, flags: &[&str]) {
    let server = Server::start(program, flags);
    thread::scope(|scope| {
        let server = &server;
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
    server.stop();
}

#[test]
fn epoll_echoes() {
    check(EPOLL, &["--threads", "2"]);
}

#[test]
fn mio_echoes() {
    check(MIO, &["--threads", "2"]);
}

#[test]
fn tokio_echoes() {
    check(TOKIO, &["--threads", "2"]);
}

#[test]
fn tokio_per_core_echoes() {
    check(TOKIO_PER_CORE, &["--threads", "2"]);
}

#[test]
fn threads_echo() {
    check(THREADS, &["--threads", "2"]);
}

#[test]
fn pinned_and_steered() {
    for program in ALL {
        let steer = if program == TOKIO { &["--pin"][..] } else { &["--pin", "--steer"] };
        // One thread, as more may not have a CPU each.
        let server = Server::start(program, &[steer, &["--threads", "1"]].concat());
        ping_pong(&server);
        server.stop();
    }
}

#[test]
fn bad_flags_are_refused() {
    let refused = |program: &str, flags: &[&str], reason: &str| {
        let output = Command::new(program).args(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{program} {flags:?}: {stderr}");
        assert!(stderr.contains(reason), "{program} {flags:?}: {stderr}");
        assert!(output.stdout.is_empty());
    };
    for program in ALL {
        refused(program, &["--threads", "0"], "--threads");
        refused(program, &["--addr", "nowhere"], "--addr");
        refused(program, &["--steer"], "--pin");
        refused(program, &["--threads", "4096", "--pin"], "--pin: 4096 threads");
        refused(program, &["--fast"], "--fast");
    }
    refused(TOKIO, &["--pin", "--steer", "--threads", "1"], "--steer: this peer has a single listener");
}

#[test]
fn a_port_in_use_is_refused() {
    let server = Server::start(EPOLL, &["--threads", "1"]);
    for program in ALL {
        let output = Command::new(program).args(["--addr", &server.addr.to_string()]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("cannot listen on"));
    }
    server.stop();
}
