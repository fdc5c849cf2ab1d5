//! Honest connections beside others that behave badly: the honest ones are served as if they were alone.
//!
//! What a target does to the others is its own affair: one with deadlines cuts them off, one without holds them. It is
//! told, and not judged. Judged is that they were there and did what they are there for: else the rest proves nothing.

use super::{Check, Facts, held};
use crate::engine::MUCH_UNREAD;
use crate::plan::Mischief;

pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut answered = facts.answered();
    let latency = facts.tally.phases.reply.best().and_then(|reply| reply.quantile_us(0.999));
    answered.name = "honest ones answered".to_owned();
    answered.detail = latency.map(|us| format!("p99.9 {:.3} ms", us / 1e3));
    vec![facts.opened(), facts.kept(), answered, crowd(facts)]
}

/// That each of the crowd did what it should, or was kept from it by the target.
fn crowd(facts: &Facts<'_>) -> Check {
    let crowd = facts.tally.crowd;
    let asked = facts.plan.crowd.count as u64;
    let fate = match crowd.cut_off {
        0 => "the target has no deadline that one of them met in this time, and holds them",
        _ => "the target does not put up with all of them",
    };
    held(
        "the others were there",
        format!(
            "each of {asked} connections {}, or the target turned it away",
            doing(&facts.plan.crowd.kinds)
        ),
        crowd.members_met >= asked && (crowd.members_acted > 0 || asked == 0),
        Some(format!(
            "{} did; {} let in, {} refused, {} cut off by the target, {} standing at the end: {fate}; {} whole and \
             right replies",
            crowd.members_acted, crowd.opened, crowd.refused, crowd.cut_off, crowd.standing, crowd.answered
        )),
    )
}

/// What those of these kinds are there for.
fn doing(kinds: &[Mischief]) -> &'static str {
    match kinds {
        [Mischief::Silent] => "stood without a word",
        [Mischief::SlowReader] => "asked ahead of what it read",
        [Mischief::SlowWriter] => "sent a request in drops",
        [Mischief::Slowloris] => "began a request without an end",
        _ => "that behave badly did so",
    }
}

/// As of the slow ones, and that each left more unread than its connection holds: it waits at the target.
pub(super) fn slow_readers(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = slow(facts);
    let crowd = facts.tally.crowd;
    let asked = facts.plan.crowd.count as u64;
    checks.push(held(
        "much left unread",
        format!(
            "each of {asked} slow readers left {} KiB or more unread of what it had asked for, or the target turned it \
             away",
            MUCH_UNREAD >> 10
        ),
        crowd.members_owed_much >= asked,
        Some(format!("{} did or were; at most {} KiB", crowd.members_owed_much, crowd.owed_most >> 10)),
    ));
    checks
}

/// Each of those who ask properly, only slowly, gets every byte, or is cut off.
pub(super) fn slow(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = checks(facts);
    let (asked, intact) = (facts.plan.crowd.count as u64, facts.tally.crowd.members_intact);
    checks.push(held(
        "slow ones intact",
        format!("what each of {asked} slow ones asked for came whole and right, or the target cut it off"),
        intact >= asked,
        Some(format!(
            "{intact} of {asked}; a slow writer takes a second for a request, a slow reader takes some KiB ten times a \
             second"
        )),
    ));
    checks
}
