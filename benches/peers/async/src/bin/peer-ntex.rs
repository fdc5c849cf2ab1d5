//! HTTP server on ntex and its own runtime, which takes io_uring where the kernel has it.

use corelane_peers::Peer;
use corelane_peers_async::ntex_serve::serve;
use ntex::rt::DefaultRuntime;

fn main() -> ! {
    let about = "HTTP server on ntex and io_uring, answering GET /plaintext";
    serve(Peer::with_one_listener(env!("CARGO_BIN_NAME"), about), DefaultRuntime)
}
