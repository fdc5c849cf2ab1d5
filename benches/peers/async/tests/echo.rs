//! Every peer on another runtime echoes to the byte, holds back a client that does not read, and ends on SIGTERM.

#[path = "../../tests/support/mod.rs"]
mod support;

support::peers! {
    support::echoes;
    compio: "peer-compio" PerThread;
    glommio: "peer-glommio" PerThread;
    may: "peer-may" Once;
    monoio: "peer-monoio" PerThread;
    monoio_epoll: "peer-monoio-epoll" PerThread;
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
