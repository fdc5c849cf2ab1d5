//! What was measured of a server, all its turns together.

use std::net::SocketAddr;

use anyhow::Result;

use super::watch::Seen;
use crate::engine::{ReactorUse, Tally};
use crate::result::Slice;

/// The turns of one server.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) address: Option<SocketAddr>,
    pub(super) begun_unix_ms: u64,
    pub(super) slices: Vec<Slice>,
    /// Of all slices as of one run.
    pub(super) tally: Tally,
    /// The share of the time that the server's busiest thread wanted, in each slice in which it was seen.
    pub(super) server_busiest: Vec<f64>,
}

impl Turns {
    /// Adds a slice, in which the same threads did what they had done in those before.
    pub(super) fn count(&mut self, slice: &Tally, seen: Option<Seen>) -> Result<()> {
        self.server_busiest.extend(seen.map(|seen| seen.used.demand()));
        let seconds = self.tally.seconds + slice.seconds;
        let before = std::mem::take(&mut self.tally.reactors);
        self.tally.merge(&Tally { series: Vec::new(), ..slice.clone() })?;
        self.tally.seconds = seconds;
        let threads = self.tally.reactors.iter_mut();
        threads.zip(before).for_each(|(thread, earlier)| add(thread, earlier));
        Ok(())
    }
}

fn add(whole: &mut ReactorUse, more: ReactorUse) {
    whole.seconds += more.seconds;
    whole.cpu_s += more.cpu_s;
    whole.wait_s += more.wait_s;
    whole.messages += more.messages;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_judged_as_one_run() {
        let of = |cpu_s: f64| ReactorUse { seconds: 1.0, cpu_s, messages: 5, ..ReactorUse::default() };
        let mut turns = Turns::default();
        for shares in [[0.1, 1.0], [0.3, 0.2], [0.2, 0.0]] {
            let mut slice = Tally { seconds: 1.0, reactors: shares.map(of).to_vec(), ..Tally::default() };
            (slice.counts.sent, slice.counts.late) = (100, 1);
            turns.count(&slice, None).unwrap();
        }
        let tally = &turns.tally;
        assert_eq!((tally.seconds, tally.counts.sent, tally.counts.late), (3.0, 300, 3));
        assert_eq!((tally.reactors.len(), tally.reactors[1].messages), (2, 15));
        // The busier thread of the whole, and not the busiest moment.
        assert!((tally.demand() - 0.4).abs() < 1e-9, "{tally:?}");
    }
}
