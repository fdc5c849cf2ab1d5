//! HTTP server on hyper and tokio's multi-thread runtime.

use corelane_peers::Peer;
use corelane_peers::tokio_serve::on_one_runtime;
use corelane_peers_async::hyper_serve::Hyper;

fn main() -> ! {
    let about = "HTTP server on hyper and tokio's multi-thread runtime, answering GET /plaintext";
    on_one_runtime::<Hyper>(Peer::with_one_listener(env!("CARGO_BIN_NAME"), about))
}
