//! A part of the connections carries the load: all of it is answered, and the idle ones still stand at the end.

use super::{Check, Facts};

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = vec![facts.opened(), facts.kept(), facts.answered()];
    checks.extend(facts.waves("idle ones used at the end"));
    checks
}
