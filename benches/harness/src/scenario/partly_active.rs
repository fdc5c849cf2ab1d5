//! A part of the connections carries the load: all of it is answered, and the idle ones still stand at the end.

use super::{Check, Facts, held};

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = vec![facts.opened(), facts.kept(), facts.answered()];
    let (active, loaded) = (facts.plan.active_in_all() as u64, facts.tally.loaded);
    checks.push(held(
        "the others idle",
        format!("at most {active} of {} connections carried the load", facts.plan.connections),
        (1..=active).contains(&loaded),
        Some(format!("{loaded} did")),
    ));
    checks.extend(facts.waves("idle ones used at the end"));
    checks
}
