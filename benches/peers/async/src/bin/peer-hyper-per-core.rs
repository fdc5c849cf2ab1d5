//! HTTP server on hyper and tokio, thread per core.

use corelane_peers::Peer;
use corelane_peers::tokio_serve::on_a_runtime_per_core;
use corelane_peers_async::hyper_serve::Hyper;

fn main() -> ! {
    let about =
        "HTTP server on hyper, with a current-thread runtime of tokio per core, answering GET /plaintext";
    on_a_runtime_per_core::<Hyper>(Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about))
}
