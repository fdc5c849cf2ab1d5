//! Honest connections beside others that behave badly: the honest ones are served as if they were alone.

use super::{Check, Facts, held};

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut answered = facts.answered();
    let latency = facts.tally.phases.reply.best().and_then(|reply| reply.quantile_us(0.999));
    answered.name = "honest ones answered".to_owned();
    answered.detail = latency.map(|us| format!("p99.9 {:.3} ms", us / 1e3));
    vec![facts.opened(), facts.kept(), answered, crowd(facts)]
}

/// That there was a crowd at all: without one the rest would prove nothing.
fn crowd(facts: &Facts<'_>) -> Check {
    let crowd = facts.tally.crowd;
    let asked = facts.plan.crowd.count as u64;
    let tried = crowd.opened + crowd.refused;
    held(
        "the others were there",
        format!("{asked} connections that behave badly tried to stand beside them"),
        tried >= asked,
        Some(format!(
            "{} let in, {} refused, {} cut off by the target, {} standing at the end; {} whole and right replies",
            crowd.opened, crowd.refused, crowd.cut_off, crowd.standing, crowd.answered
        )),
    )
}

/// Those who ask properly, only slowly, get every byte, or are cut off.
pub(super) fn slow(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = checks(facts);
    let crowd = facts.tally.crowd;
    checks.push(held(
        "slow ones intact",
        "what slow ones asked for came whole and right, or the target cut them off",
        crowd.answered > 0 || crowd.cut_off + crowd.refused > 0,
        None,
    ));
    checks
}
