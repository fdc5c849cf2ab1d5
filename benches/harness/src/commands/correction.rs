//! Closed loops: what a client that waits for its replies did not get to see.
//!
//! Nothing is due in a closed loop, so a target that stands still is asked less, and the raw percentiles are too good.
//! The usual estimate takes it that each place in flight is used evenly: at the mean time between two of its sends. For
//! every reply that took longer, those are added that would have been sent meanwhile and have waited for the rest.

use crate::engine::Tally;
use crate::latency::format_ns;
use crate::plan::{Load, Plan};

/// Puts corrected latencies beside the raw ones of a closed loop.
pub(crate) fn fill_in(plan: &Plan, tally: &mut Tally) {
    let Load::Closed { depth, .. } = plan.load else { return };
    let places = plan.active_in_all() * depth;
    let Some(every) = interval(places, tally) else { return };
    for phase in [&mut tally.phases.reply, &mut tally.phases.first_byte] {
        phase.fill_in(every);
    }
}

/// The mean time between two sends of one place in flight, in nanoseconds.
fn interval(places: usize, tally: &Tally) -> Option<u64> {
    let replies = tally.counts.received;
    (replies > 0).then(|| ((tally.seconds * 1e9 * places as f64 / replies as f64) as u64).max(1))
}

/// How results are corrected, each by a time of its own.
pub(crate) fn method() -> String {
    explain("")
}

/// How every explanation begins.
const OF_CLOSED_LOOPS: &str = "closed loop: nothing is due at a time of its own.";

/// Whether a note tells how a closed loop was corrected: of another correction it is not true.
pub(crate) fn is_note(note: &str) -> bool {
    note.starts_with(OF_CLOSED_LOOPS)
}

fn explain(time: &str) -> String {
    format!(
        "{OF_CLOSED_LOOPS} Raw is what was measured; corrected is an estimate of what \
         a client that does not wait would see: for every reply that took longer than {time}the mean time between two \
         sends of one place in flight, those are added that such a client would have sent meanwhile"
    )
}

/// How it was corrected.
pub(super) fn note(tally: &Tally) -> String {
    match tally.phases.reply.filled_every_us {
        Some(every_us) => explain(&format!("{}, ", format_ns(every_us * 1e3))),
        None => "closed loop: nothing was answered, so there is nothing to correct".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latencies;

    /// One connection that is answered every millisecond for a second, and then waits for a second: at 999 replies in
    /// two seconds one would be sent each 2.002 ms, of which 499 fall into the wait.
    #[test]
    fn a_wait_is_filled_in_at_the_mean_pace() {
        let mut latencies = Latencies::new();
        latencies.record_many(1_000_000, 998);
        latencies.record(1_000_000_000);
        let mut tally = Tally { seconds: 2.0, ..Tally::default() };
        tally.counts.received = 999;
        let every = interval(1, &tally).unwrap();
        assert_eq!(every, 2_002_002);
        tally.phases.reply.raw = Some(latencies);
        tally.phases.reply.fill_in(every);
        let reply = &tally.phases.reply;
        let (raw, corrected) = (reply.raw.as_ref().unwrap(), reply.corrected.as_ref().unwrap());
        assert_eq!((raw.count(), corrected.count()), (999, 999 + 498));
        assert!(raw.quantile_us(0.9).unwrap() < 1_001.0);
        // Of 1,497 the last 149 are those with more than 700.6 ms of the wait before them.
        let p90 = corrected.quantile_us(0.9).unwrap() / 1e3;
        assert!((698.0..704.0).contains(&p90), "{p90}");
        assert_eq!(reply.best(), reply.raw.as_ref(), "the headline is what was measured");
        assert!(note(&tally).contains("longer than 2.00 ms"), "{}", note(&tally));
    }

    #[test]
    fn more_places_in_flight_are_used_less_often() {
        let mut tally = Tally { seconds: 1.0, ..Tally::default() };
        assert_eq!(interval(64, &tally), None);
        tally.counts.received = 64_000;
        assert_eq!(interval(64, &tally), Some(1_000_000));
    }
}
