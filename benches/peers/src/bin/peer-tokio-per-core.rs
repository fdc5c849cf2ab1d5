//! Echo server on tokio, thread per core.

use corelane_peers::Peer;
use corelane_peers::tokio_serve::{Echo, on_a_runtime_per_core};

fn main() -> ! {
    let about = "TCP echo server on tokio, with a current-thread runtime per core";
    on_a_runtime_per_core::<Echo>(Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about))
}
