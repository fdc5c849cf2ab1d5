//! Echo server written by hand on epoll, thread per core: the yardstick that corelane is measured
//! with.

use std::io;
use std::os::fd::RawFd;

use corelane_peers::Peer;
use corelane_peers::epoll::{Service, Worker};
use corelane_peers::raw::send_all;

fn main() -> ! {
    let about = "TCP echo server written by hand on epoll, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about)
        .serve_per_thread(|listener| Worker::new(listener, Echo), Worker::run)
}

struct Echo;

/// What the kernel would not take yet.
struct Pending {
    bytes: Box<[u8]>,
    sent: usize,
}

impl Service for Echo {
    /// Boxed, as it is rare and the table is large.
    type State = Option<Box<Pending>>;

    #[inline]
    fn owes(state: &Self::State) -> bool {
        state.is_some()
    }

    fn pay(&mut self, fd: RawFd, state: &mut Self::State) -> io::Result<bool> {
        if let Some(rest) = state {
            rest.sent += send_all(fd, &rest.bytes[rest.sent..])?;
            if rest.sent < rest.bytes.len() {
                return Ok(false);
            }
        }
        *state = None;
        Ok(true)
    }

    #[inline]
    fn answer(&mut self, fd: RawFd, state: &mut Self::State, received: &[u8]) -> io::Result<bool> {
        let sent = send_all(fd, received)?;
        if sent < received.len() {
            *state = Some(Box::new(Pending { bytes: received[sent..].into(), sent: 0 }));
        }
        Ok(sent == received.len())
    }
}
