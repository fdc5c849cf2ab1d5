//! Clients that never finish their requests: each of many connections sends the head of an HTTP request a byte at a
//! time, their turns evenly over the time. Once a second it prints how many are open, how many the server has cut off and
//! after how long at most; those are opened anew.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

/// What is sent, over and over; there is no end of the head in it.
const HEAD: &[u8] =
    b"GET / HTTP/1.1\r\nhost: slow\r\nx-padding: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// The longest pause between two looks at whose turn it is.
const STEP: Duration = Duration::from_millis(1);

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
    /// When its first byte was sent.
    begun: Instant,
}

impl Slow {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, sent: 0, begun: Instant::now() })
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
        if self.sent == 0 {
            self.begun = Instant::now();
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
    corelane_peers::raise_descriptor_limit();
    let every = Duration::from_millis(flags.every.max(1));
    let until = Instant::now() + Duration::from_secs(flags.duration);
    let mut all: Vec<Slow> = Vec::new();
    for _ in 0..flags.connections {
        all.push(Slow::open(flags.to)?);
    }
    println!("trickling over {} connections", all.len());
    let (mut turns, mut closed, mut oldest) = (0_u64, 0_u64, Duration::ZERO);
    let (begun, mut told) = (Instant::now(), Instant::now());
    while Instant::now() < until {
        let due = (begun.elapsed().as_secs_f64() / every.as_secs_f64() * all.len() as f64) as u64;
        while turns < due {
            let at = (turns % all.len() as u64) as usize;
            turns += 1;
            if !all[at].step() {
                closed += 1;
                // Seen at its next turn, so up to the time between two bytes after it was.
                oldest = oldest.max(all[at].begun.elapsed());
                all[at] = Slow::open(flags.to)?;
            }
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            println!(
                "open {} closed {closed}, seen {:.1} s after its first byte at most",
                all.len(),
                oldest.as_secs_f64()
            );
        }
        thread::sleep(STEP);
    }
    Ok(())
}
