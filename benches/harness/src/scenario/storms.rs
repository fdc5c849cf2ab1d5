//! Everything at once: connections that are opened, woken, ended or reset together.

use super::{Check, Facts, held};

/// All connections were opened at once, and then each was used.
pub(super) fn connect(facts: &Facts<'_>) -> Vec<Check> {
    let mut opened = facts.opened();
    let connect = facts.tally.phases.connect.raw.as_ref();
    opened.detail = connect.and_then(|connect| {
        let second = connect.histogram().count_between(1_000_000_000, u64::MAX);
        let last = connect.max_us()? / 1e3;
        Some(format!("the last after {last:.1} ms; {second} took a second or more (a SYN sent again)"))
    });
    let mut checks = vec![opened, facts.kept()];
    checks.extend(facts.waves("used after the storm"));
    checks
}

/// Each wave was answered whole.
pub(super) fn wake(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = vec![facts.opened(), facts.kept()];
    checks.extend(facts.waves("woken"));
    checks
}

/// The resets came while the target owed every connection a reply, and all came back.
pub(super) fn reset(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = come_back(facts, "back after resets");
    let (ended, owed) = (facts.tally.cycles, facts.tally.owed_at_the_end);
    checks.push(held(
        "requests in flight",
        "each connection had sent a request and had no reply when it was reset",
        ended > 0 && owed == ended,
        Some(format!("{owed} of {ended}")),
    ));
    checks
}

/// After each storm all connections came back, and each was answered.
pub(super) fn come_back(facts: &Facts<'_>, name: &str) -> Vec<Check> {
    let mut checks = vec![facts.opened()];
    checks.extend(facts.waves(name));
    checks
}
