//! Connections held idle: none is lost meanwhile, and each can be used afterwards.

use super::{Check, Facts};

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = vec![facts.opened(), facts.kept()];
    checks.extend(facts.waves("used after the hold"));
    checks
}
