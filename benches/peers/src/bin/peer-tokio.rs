//! Echo server on tokio's multi-thread runtime: one listener, tasks stolen between the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use corelane_peers::{Peer, tokio_echo};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

fn main() {
    let peer = Arc::new(Peer::with_one_listener(
        env!("CARGO_BIN_NAME"),
        "TCP echo server on tokio's multi-thread runtime",
    ));
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
        let served = tokio::spawn(tokio_echo::serve(listener)).await;
        let Err(error) = served.unwrap_or_else(|error| Err(error.into()));
        peer.die("the accept loop failed", &error)
    });
}
