//! One publishes: every line reaches every subscriber, once and in order.

use super::{Check, Facts, held};

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let (published, delivered) = (facts.tally.published, facts.tally.delivered);
    let connections = facts.plan.connections as u64;
    let whole = held(
        "every line to everybody",
        format!("{published} lines reached {connections} subscribers, once and in order"),
        published > 0 && delivered == published * connections,
        Some(format!("{delivered} deliveries, every byte compared")),
    );
    vec![facts.opened(), whole]
}
