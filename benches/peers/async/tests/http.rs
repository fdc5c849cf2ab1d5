//! Every peer that speaks HTTP answers, in order when asked many things at once, and ends on SIGTERM.

#[path = "../../tests/support/mod.rs"]
mod support;

support::peers! {
    support::http::answers;
    actix: "peer-actix" Once;
    hyper: "peer-hyper" Once;
    hyper_per_core: "peer-hyper-per-core" PerThread;
    ntex: "peer-ntex" Once;
    ntex_epoll: "peer-ntex-epoll" Once;
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
