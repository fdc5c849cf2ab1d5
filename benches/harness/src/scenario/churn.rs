//! Connections that come and go: each is let in, answered, and ended in good order.

use super::{Check, Facts, held};
use crate::plan::End;

pub(super) fn checks(facts: &Facts<'_>, end: End) -> Vec<Check> {
    let (cycles, opened) = (facts.tally.cycles, facts.tally.counts.connections_opened);
    let badly = facts.tally.ended_badly;
    let how = match end {
        End::Fin => "ended by the client's FIN and then the target's",
        End::Rst => "ended by the client's RST",
        End::Half => "ended by the target after the client's FIN, behind the last reply",
    };
    let went = held(
        "came and went",
        format!("connections were opened and {how}"),
        cycles > 0 && facts.tally.counts.connections_lost == 0 && badly == 0,
        Some(format!(
            "{opened} opened, {cycles} of them ended in the time of the load, {badly} of all with a reset instead"
        )),
    );
    vec![went, facts.answered()]
}
