//! Echo server on tokio, thread per core: a current-thread runtime and a listener for each, nothing
//! shared.

use std::convert::Infallible;
use std::{io, net};

use corelane_peers::{Peer, tokio_echo};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

fn main() -> ! {
    let about = "TCP echo server on tokio, with a current-thread runtime per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(setup, run)
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

fn run((runtime, listener): (Runtime, TcpListener)) -> io::Result<Infallible> {
    runtime.block_on(tokio_echo::serve(listener))
}
