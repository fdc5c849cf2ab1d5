//! Echo server on monoio and epoll, thread per core.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;

use corelane_peers::Peer;
use corelane_peers_async::monoio_echo;
use monoio::time::TimeDriver;
use monoio::{LegacyDriver, Runtime, RuntimeBuilder};

type Epoll = Runtime<TimeDriver<LegacyDriver>>;

fn main() -> ! {
    let about = "TCP echo server on monoio and epoll, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(setup, run)
}

fn setup(listener: TcpListener) -> io::Result<(Epoll, TcpListener)> {
    listener.set_nonblocking(true)?;
    let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    Ok((runtime, listener))
}

fn run((mut runtime, listener): (Epoll, TcpListener)) -> io::Result<Infallible> {
    runtime.block_on(monoio_echo::serve(listener))
}
