use nix::sys::signal::{SigSet, Signal};

/// Keeps SIGPIPE from the calling thread for as long as it lives: writing to a peer that has gone is an error.
/// Rust's own `main` ignores the signal, but the process may have another, and sendfile(2) has no flag for it.
pub(crate) fn block_sigpipe() {
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    if let Err(error) = pipe.thread_block() {
        tracing::warn!(%error, "cannot block SIGPIPE");
    }
}
