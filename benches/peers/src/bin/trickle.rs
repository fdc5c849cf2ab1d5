//! Clients that never finish their requests: each of many connections sends the head of an HTTP request a byte at a
//! time. Once a second it prints how many are open and how many the server has closed; those are opened anew.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

/// What is sent, over and over; there is no end of the head in it.
const HEAD: &[u8] =
    b"GET / HTTP/1.1\r\nhost: slow\r\nx-padding: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// How often a share of the connections gets its byte.
const STEP: Duration = Duration::from_millis(20);

/// Connections that send an HTTP request a byte at a time.
#[derive(Debug, Parser)]
struct Flags {
    /// Whom to connect to
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,

    /// How many connections
    #[arg(long, value_name = "N", default_value_t = 5000)]
    connections: usize,

    /// Milliseconds between two bytes of a connection
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    every: u64,

    /// Seconds until it ends
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    duration: u64,
}

struct Slow {
    stream: TcpStream,
    sent: usize,
}

impl Slow {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, sent: 0 })
    }

    /// Sends the next byte; whether the server still keeps the connection.
    fn step(&mut self) -> bool {
        let mut answer = [0; 512];
        match self.stream.read(&mut answer) {
            // An answer to half a request can only be a refusal.
            Ok(_) => return false,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return false,
            Err(_) => {}
        }
        let byte = HEAD[self.sent.min(HEAD.len() - 1)];
        self.sent += 1;
        match self.stream.write(&[byte]) {
            Ok(written) => written == 1,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let until = Instant::now() + Duration::from_secs(flags.duration);
    let mut all: Vec<Slow> = Vec::new();
    for _ in 0..flags.connections {
        all.push(Slow::open(flags.to)?);
    }
    println!("trickling over {} connections", all.len());
    let steps = (flags.every as usize / STEP.as_millis() as usize).max(1);
    let share = all.len().div_ceil(steps);
    let (mut at, mut closed, mut reopened_for) = (0, 0_u64, Instant::now());
    while Instant::now() < until {
        let begun = Instant::now();
        for _ in 0..share.min(all.len()) {
            at = (at + 1) % all.len();
            if !all[at].step() {
                closed += 1;
                all[at] = Slow::open(flags.to)?;
            }
        }
        if reopened_for.elapsed() >= Duration::from_secs(1) {
            reopened_for = Instant::now();
            println!("open {} closed {closed}", all.len());
        }
        thread::sleep(STEP.saturating_sub(begun.elapsed()));
    }
    println!("open {} closed {closed}", all.len());
    Ok(())
}
