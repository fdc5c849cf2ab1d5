//! Echo server on tokio's multi-thread runtime.

use corelane_peers::Peer;
use corelane_peers::tokio_serve::{Echo, on_one_runtime};

fn main() -> ! {
    let about = "TCP echo server on tokio's multi-thread runtime";
    on_one_runtime::<Echo>(Peer::with_one_listener(env!("CARGO_BIN_NAME"), about))
}
