//! Every peer echoes to the byte, whatever its clients do, holds back a client that does not read,
//! and ends on SIGTERM.

mod support;

support::peers! {
    support::echoes;
    epoll: "peer-epoll" PerThread;
    io_uring: "peer-io-uring" PerThread;
    mio: "peer-mio" PerThread;
    tokio: "peer-tokio" Once;
    tokio_per_core: "peer-tokio-per-core" PerThread;
    threads: "peer-threads" PerThread;
}

#[test]
fn pinned_and_steered() {
    support::pinned_and_steered(ALL);
}

#[test]
fn bad_flags_are_refused() {
    support::bad_flags_are_refused(ALL);
}

#[test]
fn a_port_in_use_is_refused() {
    support::a_port_in_use_is_refused(ALL);
}
