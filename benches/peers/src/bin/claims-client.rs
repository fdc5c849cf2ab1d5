//! The client of the claims that `benches/claims` tries: holds connections, or counts round trips.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use corelane_peers::raise_descriptor_limit;
use corelane_peers::raw::{epoll_create, epoll_ctl, epoll_wait, recv, send_all};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// Client of the claims' servers.
#[derive(Parser)]
#[command(version)]
struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Open connections and say `idle`; at a line of input send a message on each, read it back and say `echoed`; at
    /// the next line end
    Hold {
        /// Server, IP:PORT
        target: SocketAddr,
        /// Connections
        #[arg(long, value_name = "N", default_value = "1000")]
        connections: NonZeroUsize,
        /// Bytes of the message
        #[arg(long, value_name = "BYTES", default_value = "1024")]
        size: NonZeroUsize,
    },
    /// Keep one message in flight on each connection, and say how many came back: messages per second, microseconds
    /// of the server's CPU for each, and the 50th and 99th percentile of the time in microseconds
    Ping {
        /// Server: IP:PORT, or the path of a Unix socket
        target: String,
        /// Its process
        #[arg(long, value_name = "PID")]
        server: i32,
        /// Connections
        #[arg(long, value_name = "N", default_value = "64")]
        connections: NonZeroUsize,
        /// Bytes of a message
        #[arg(long, value_name = "BYTES", default_value = "64")]
        size: NonZeroUsize,
        /// How long is measured, in milliseconds; a tenth more goes before
        #[arg(long, value_name = "MILLISECONDS", default_value = "1000")]
        time: NonZeroUsize,
    },
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    raise_descriptor_limit();
    let done = match flags.what {
        What::Hold { target, connections, size } => hold(target, connections.get(), size.get()),
        What::Ping { target, server, connections, size, time } => {
            ping(&target, server, connections.get(), size.get(), Duration::from_millis(time.get() as u64))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claims-client: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A message that tells connections apart.
fn message(connection: usize, size: usize) -> Vec<u8> {
    (0..size).map(|index| (connection + index) as u8).collect()
}

fn wrong() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what came back is not what was sent")
}

fn say(word: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{word}").and_then(|()| stdout.flush())
}

fn hold(target: SocketAddr, connections: usize, size: usize) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(target)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        streams.push(stream);
    }
    say("idle")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let mut echoed = vec![0; size];
    for (index, stream) in streams.iter_mut().enumerate() {
        let message = message(index, size);
        stream.write_all(&message)?;
        stream.read_exact(&mut echoed)?;
        if echoed != message {
            return Err(wrong());
        }
    }
    say("echoed")?;
    io::stdin().read_line(&mut line)?;
    Ok(())
}

/// A connection with a message in flight.
struct Pinging {
    stream: OwnedFd,
    message: Vec<u8>,
    received: usize,
    sent_at: Instant,
}

fn connect(target: &str) -> io::Result<OwnedFd> {
    if let Ok(addr) = target.parse::<SocketAddr>() {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream.into())
    } else {
        let stream = UnixStream::connect(PathBuf::from(target))?;
        stream.set_nonblocking(true)?;
        Ok(stream.into())
    }
}

fn ping(target: &str, server: i32, connections: usize, size: usize, time: Duration) -> io::Result<()> {
    let clock = clock_getcpuclockid(Pid::from_raw(server))?;
    let epoll = epoll_create()?;
    let mut pinging = Vec::new();
    // Indexed by descriptor.
    let mut place = Vec::new();
    for index in 0..connections {
        let stream = connect(target)?;
        let fd = stream.as_raw_fd();
        epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, fd, (libc::EPOLLIN | libc::EPOLLET) as u32)?;
        place.resize(place.len().max(fd as usize + 1), usize::MAX);
        place[fd as usize] = index;
        pinging.push(Pinging { stream, message: message(index, size), received: 0, sent_at: Instant::now() });
    }
    for one in &mut pinging {
        one.send()?;
    }
    let mut round = |times: &mut Vec<u32>, length: Duration| {
        let begun = Instant::now();
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let mut buffer = vec![0; 64 * 1024];
        while begun.elapsed() < length {
            let count = match epoll_wait(&epoll, &mut events, PATIENCE.as_millis() as i32) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let one = &mut pinging[place[event.u64 as RawFd as usize]];
                one.receive(&mut buffer, times)?;
            }
        }
        Ok(begun.elapsed())
    };
    let mut times = Vec::with_capacity(1 << 20);
    round(&mut times, time / 10)?;
    times.clear();
    let before = cpu_time(clock)?;
    let elapsed = round(&mut times, time)?;
    let used = cpu_time(clock)?.saturating_sub(before);
    report(&mut times, elapsed, used);
    Ok(())
}

impl Pinging {
    fn send(&mut self) -> io::Result<()> {
        (self.received, self.sent_at) = (0, Instant::now());
        let sent = send_all(self.stream.as_raw_fd(), &self.message)?;
        // One message is less than the kernel takes, as the one before has come back.
        if sent == self.message.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self, buffer: &mut [u8], times: &mut Vec<u32>) -> io::Result<()> {
        loop {
            let left = self.message.len() - self.received;
            let count = match recv(self.stream.as_raw_fd(), buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if count > left || buffer[..count] != self.message[self.received..self.received + count] {
                return Err(wrong());
            }
            self.received += count;
            if self.received == self.message.len() {
                times.push(self.sent_at.elapsed().as_nanos() as u32);
                return self.send();
            }
        }
    }
}

fn cpu_time(clock: ClockId) -> io::Result<Duration> {
    Ok(clock.now()?.into())
}

fn report(times: &mut [u32], elapsed: Duration, used: Duration) {
    times.sort_unstable();
    let count = times.len();
    let percentile = |part: f64| {
        let index = ((count as f64 * part) as usize).min(count.saturating_sub(1));
        times.get(index).map_or(f64::NAN, |&time| f64::from(time) / 1e3)
    };
    println!(
        "{:.0} {:.3} {:.1} {:.1}",
        count as f64 / elapsed.as_secs_f64(),
        used.as_secs_f64() * 1e6 / count as f64,
        percentile(0.5),
        percentile(0.99)
    );
}
