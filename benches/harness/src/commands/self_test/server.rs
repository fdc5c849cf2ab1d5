//! An echo server that pauses at known times, on a thread of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long the server looks away from a request to end.
const NAP: Duration = Duration::from_millis(20);

/// A stretch of time in which nothing was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) begin: Instant,
    /// When all that had come was answered.
    pub(super) end: Instant,
}

/// The server.
#[derive(Debug)]
pub(super) struct PausingServer {
    address: SocketAddr,
    pauses: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Pause>>,
}

impl PausingServer {
    pub(super) fn start(pause: Duration, every: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        let address = listener.local_addr().context("the listener has no address")?;
        listener.set_nonblocking(true).context("cannot set O_NONBLOCK")?;
        let (pauses, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let flags = [Arc::clone(&pauses), Arc::clone(&stop)];
        let serve = move || serve(&listener, pause, every, &flags);
        let thread = thread::Builder::new().name("pausing-server".to_owned()).spawn(serve)?;
        Ok(Self { address, pauses, stop, thread })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on there are pauses, the first after as long as there is between two.
    pub(super) fn begin(&self) {
        self.pauses.store(true, Ordering::Relaxed);
    }

    /// Ends it; the pauses that there were.
    pub(super) fn end(self) -> Vec<Pause> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Serves one connection after the other.
fn serve(
    listener: &TcpListener,
    pause: Duration,
    every: Duration,
    flags: &[Arc<AtomicBool>; 2],
) -> Vec<Pause> {
    let mut pauses = Vec::new();
    while !flags[1].load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => echo(stream, pause, every, flags, &mut pauses).unwrap_or_default(),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    pauses
}

/// Echoes until the client ends. A pause begins when it is due, and ends when it has lasted, each to as near as this
/// thread is woken; when that was is noted.
fn echo(
    mut stream: TcpStream,
    pause: Duration,
    every: Duration,
    [begin, stop]: &[Arc<AtomicBool>; 2],
    pauses: &mut Vec<Pause>,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 20];
    let mut next = None;
    while !stop.load(Ordering::Relaxed) {
        if next.is_none() && begin.load(Ordering::Relaxed) {
            next = Some(Instant::now() + (every - pause));
        }
        let now = Instant::now();
        if let Some(due) = next.filter(|due| *due <= now) {
            thread::sleep((due + pause).saturating_duration_since(now));
            let length = stream.read(&mut buffer)?;
            let end = Instant::now();
            stream.write_all(&buffer[..length])?;
            pauses.push(Pause { begin: now, end });
            next = Some(due + every);
            continue;
        }
        let patience = next.map_or(NAP, |due| due - now).min(NAP);
        stream.set_read_timeout(Some(patience.max(Duration::from_micros(50))))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => stream.write_all(&buffer[..length])?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
