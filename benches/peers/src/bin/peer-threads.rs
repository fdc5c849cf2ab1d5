//! Echo server with a thread per connection, blocking all the way.
//!
//! The `--threads` threads only accept. A connection's thread inherits the CPU of the one that
//! accepted it, so `--pin` and `--steer` mean here what they mean for the other peers.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::thread;

use corelane_peers::blocking::echo;
use corelane_peers::{ACCEPT_RETRY, Peer};

/// A connection's stack. The loop below needs a few hundred bytes of it; the rest is room for a
/// signal frame and for what the standard library keeps there. The default of 2 MiB would exhaust
/// address space limits long before.
const STACK: usize = 64 * 1024;

fn main() -> ! {
    let about = "TCP echo server with a thread per connection; --threads counts the accepting ones";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(Ok, run)
}

fn run(listener: TcpListener) -> io::Result<Infallible> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                // A failed connection concerns its client only.
                let body = move || drop(echo(stream));
                // Without a thread the connection is closed, as `body` owned it; the next one may
                // have to wait too.
                if thread::Builder::new().stack_size(STACK).spawn(body).is_err() {
                    thread::sleep(ACCEPT_RETRY);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => thread::sleep(ACCEPT_RETRY),
        }
    }
}
