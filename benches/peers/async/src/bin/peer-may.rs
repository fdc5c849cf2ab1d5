//! Echo server on may: a stackful coroutine for each connection.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};

use corelane_peers::blocking::echo;
use corelane_peers::{ACCEPT_RETRY, Peer};
use may::net::TcpListener;
use may::{coroutine, go};

fn main() -> ! {
    let peer = Peer::with_one_listener(env!("CARGO_BIN_NAME"), "TCP echo server on may, with coroutines");
    may::config().set_workers(peer.threads()).set_worker_pin(peer.pinned());
    let listener = peer.listen();
    let addr =
        listener.local_addr().unwrap_or_else(|error| peer.die("cannot tell the listener's address", &error));
    // SAFETY: the descriptor is a listener's, and has just been given up by its owner.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    peer.announce(addr);
    let served = go!(move || serve(&listener)).join();
    let why = if served.is_err() { "it panicked" } else { "it ended" };
    peer.die("the accept loop failed", &io::Error::other(why))
}

fn serve(listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                // A failed connection concerns its client only.
                go!(move || drop(echo(stream)));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => coroutine::sleep(ACCEPT_RETRY),
        }
    }
}
