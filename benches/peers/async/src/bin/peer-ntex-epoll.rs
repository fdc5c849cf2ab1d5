//! HTTP server on ntex and its own runtime, with epoll.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use corelane_peers::Peer;
use corelane_peers_async::ntex_serve::serve;
use ntex::rt::{BlockFuture, Reactor, Runner, Runtime, polling, with_reactor};

fn main() -> ! {
    let about = "HTTP server on ntex and epoll, answering GET /plaintext";
    serve(Peer::with_one_listener(env!("CARGO_BIN_NAME"), about), Epoll)
}

/// Runs every thread with the reactor on epoll, which the default one is only where there is no io_uring.
struct Epoll;

impl Runner for Epoll {
    fn block_on(&self, future: BlockFuture) -> Result<(), Box<dyn Any + Send>> {
        let reactor: Box<dyn Reactor> = Box::new(polling::Reactor::new().expect("epoll is there"));
        with_reactor(&reactor, || {
            catch_unwind(AssertUnwindSafe(|| {
                Runtime::new(reactor.handle()).block_on(future, &*reactor);
            }))
        })
    }
}
