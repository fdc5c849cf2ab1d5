//! What was measured of a server, all its turns together.

use std::net::SocketAddr;

use anyhow::Result;

use super::look::Look;
use super::watch::Seen;
use crate::engine::{ReactorUse, Tally};
use crate::result::{Counter, Slice};

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
    /// Context switches of the server, voluntary and not, and the messages it answered meanwhile.
    pub(super) switches: [u64; 2],
    pub(super) served: u64,
    /// The kernel's counters in these slices alone.
    pub(super) kernel: Vec<Counter>,
    /// Why the server was not seen in one of the slices.
    pub(super) problem: Option<String>,
    pub(super) look: Option<Look>,
}

impl Turns {
    /// Adds a slice, in which the same threads did what they had done in those before.
    pub(super) fn count(&mut self, slice: &Tally, seen: Seen) -> Result<()> {
        seen.kernel.into_iter().for_each(|counter| add_counter(&mut self.kernel, counter));
        self.problem = self.problem.take().or(seen.problem);
        if let Some(server) = seen.server {
            self.server_busiest.push(server.threads.demand());
            self.switches[0] += server.used.voluntary;
            self.switches[1] += server.used.involuntary;
            self.served += slice.answered;
        }
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

/// Adds what a counter moved by in another slice.
fn add_counter(counters: &mut Vec<Counter>, more: Counter) {
    match counters.iter_mut().find(|counter| counter.name == more.name) {
        Some(counter) => counter.after += more.after.saturating_sub(more.before),
        None => counters.push(more),
    }
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
            let counter = Counter { name: "Tcp.InErrs".to_owned(), before: 10, after: 12 };
            turns.count(&slice, Seen { kernel: vec![counter], ..Seen::default() }).unwrap();
        }
        assert_eq!((turns.kernel[0].before, turns.kernel[0].after, turns.kernel.len()), (10, 16, 1));
        let tally = &turns.tally;
        assert_eq!((tally.seconds, tally.counts.sent, tally.counts.late), (3.0, 300, 3));
        assert_eq!((tally.reactors.len(), tally.reactors[1].messages), (2, 15));
        // The busier thread of the whole, and not the busiest moment.
        assert!((tally.demand() - 0.4).abs() < 1e-9, "{tally:?}");
    }
}
