//! Servers on tokio, with one runtime of many threads or with a runtime per core.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, net};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::{ACCEPT_RETRY, Peer};

/// A connection's buffer. Only as much of it as a read fills is ever touched, so a small one would
/// save nothing where messages are small, and cost system calls where they are large.
const BUFFER: usize = 64 * 1024;

/// What is done with a connection.
pub trait Service: 'static {
    /// Serves a connection to its end. A failed one concerns its client only.
    fn serve(stream: TcpStream) -> impl Future<Output = ()> + Send;
}

/// Sends back what it receives.
#[derive(Debug)]
pub struct Echo;

impl Service for Echo {
    async fn serve(stream: TcpStream) {
        let _ = echo(stream).await;
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    while stream.read_buf(&mut buffer).await? != 0 {
        stream.write_all(&buffer).await?;
        buffer.clear();
    }
    Ok(())
}

/// Serves on the multi-thread runtime: one listener, tasks stolen between the workers.
pub fn on_one_runtime<S: Service>(peer: Peer) -> ! {
    let peer = Arc::new(peer);
    let listener = peer.listen();
    let started = AtomicUsize::new(0);
    let peer_of_threads = Arc::clone(&peer);
    let runtime = Builder::new_multi_thread()
        .worker_threads(peer.threads())
        .enable_all()
        .on_thread_start(move || peer_of_threads.pin(started.fetch_add(1, Ordering::Relaxed)))
        .build()
        .unwrap_or_else(|error| peer.die("cannot start the runtime", &error));
    runtime.block_on(async {
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = listener.unwrap_or_else(|error| peer.die("cannot register the listener", &error));
        match listener.local_addr() {
            Ok(addr) => peer.announce(addr),
            Err(error) => peer.die("cannot tell the listener's address", &error),
        }
        // On a worker: the thread that blocks here is not one, and would wake a worker for every
        // connection.
        let served = tokio::spawn(accept::<S>(listener)).await;
        let Err(error) = served.unwrap_or_else(|error| Err(error.into()));
        peer.die("the accept loop failed", &error)
    })
}

/// Serves on a current-thread runtime for each core, each with a listener, and nothing shared.
pub fn on_a_runtime_per_core<S: Service>(peer: Peer) -> ! {
    peer.serve_per_thread(setup, |(runtime, listener)| runtime.block_on(accept::<S>(listener)))
}

fn setup(listener: net::TcpListener) -> io::Result<(Runtime, TcpListener)> {
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener)?
    };
    Ok((runtime, listener))
}

/// Accepts connections for ever, each served by a task of its own. Whatever keeps one from being
/// accepted is waited out.
async fn accept<S: Service>(listener: TcpListener) -> io::Result<Infallible> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(S::serve(stream))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}
