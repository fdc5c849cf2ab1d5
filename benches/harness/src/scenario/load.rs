//! The load model as it is asked for, ping-pong and pipelining among it: every request is answered, in order.

use super::{Check, Facts, held};

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    vec![facts.opened(), facts.answered()]
}

/// With many in flight the order is what is at stake; a reply in another's place has other bytes.
pub(super) fn pipelined(facts: &Facts<'_>, depth: usize) -> Vec<Check> {
    let mut checks = checks(facts);
    let connections = facts.plan.connections as u64;
    let answered = facts.tally.answered;
    checks.push(held(
        "in order",
        format!("the replies to {depth} requests in flight came in their order on {connections} connections"),
        // Each has as many in flight from the beginning.
        answered >= depth as u64 * facts.plan.active_in_all() as u64,
        Some(format!("{answered} replies, each compared with the request whose turn it was")),
    ));
    checks
}
