//! Opens connections no faster than the servers accept them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::run::Run;
use crate::output::format::count;
use crate::worker::Order;

/// Connections of each server that were dialed and not accepted yet. The kernel completes a connection before a
/// server accepts it; where too many wait, it drops others, which try again a second later.
const UNACCEPTED: u64 = 256;

/// Connections that a client is told to dial at a time: it wakes for some milliseconds of work.
const CHUNK: u64 = 128;

/// How long to wait at least before the servers are asked again how far they are.
const POLL: Duration = Duration::from_micros(500);

/// How long a dial may take beyond its own timeout.
const MARGIN: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// Opens connections until there are so many; tells how long that took.
    pub(super) fn open_to(&mut self, total: u64) -> Result<Duration> {
        self.progress.update_from_now();
        let begun = Instant::now();
        // However the kernel spreads them, no listener's queue gets more than it holds, nor does that of packets.
        let window = (UNACCEPTED * self.servers.len() as u64)
            .min(self.listening.backlog.into())
            .min(self.plan.in_flight.unwrap_or(u64::MAX));
        let mut patience = Patience::new(self.args.deadline + MARGIN);
        loop {
            let asked = Instant::now();
            self.ask_servers()?;
            let accepted = self.accepted();
            if accepted >= total {
                break;
            }
            self.dial((accepted + window).min(total))?;
            ensure!(
                patience.has_with(accepted),
                "of {total} connections the servers have accepted {accepted}, but no more for {:?}",
                patience.limit
            );
            self.progress.update(|| format!("{} of {} connections open", count(accepted), count(total)));
            // Asking costs the servers time: take a half of it at most.
            thread::sleep(asked.elapsed().max(POLL));
        }
        self.await_clients(total)?;
        let took = begun.elapsed();
        self.progress.finish(&format!("{} connections open after {took:.2?}", count(total)));
        Ok(took)
    }

    /// Tells clients in turn to dial, until so many were dialed in all.
    fn dial(&mut self, up_to: u64) -> Result<()> {
        let mut missing = up_to.saturating_sub(self.dialed.iter().sum());
        while missing > 0 {
            let fewest = (0..self.clients.len())
                .filter(|&index| self.dialed[index] < self.plan.layout.share(index as u64))
                .min_by_key(|&index| self.dialed[index] / CHUNK);
            let Some(index) = fewest else { return Ok(()) };
            let room = self.plan.layout.share(index as u64) - self.dialed[index];
            let more = missing.min(room).min(CHUNK - self.dialed[index] % CHUNK);
            self.dialed[index] += more;
            missing -= more;
            self.crew.tell(self.clients[index], &Order::Dial { up_to: self.dialed[index] as usize })?;
        }
        Ok(())
    }

    /// Waits until the clients have them too, and all are still there.
    fn await_clients(&mut self, total: u64) -> Result<()> {
        let mut patience = Patience::new(self.args.deadline + MARGIN);
        loop {
            let (opened, ended) = self.ask_clients()?;
            ensure!(ended == 0, "{ended} of {opened} connections have ended in the clients");
            if opened >= total {
                break;
            }
            ensure!(
                patience.has_with(opened),
                "the servers have accepted {total} connections, the clients opened {opened}, but no more for {:?}",
                patience.limit
            );
            thread::sleep(POLL);
        }
        self.ask_servers()?;
        ensure!(self.open() == total, "the servers have {} of {total} connections open", self.open());
        Ok(())
    }
}

/// Runs out where nothing changes for too long.
#[derive(Debug)]
pub(super) struct Patience<T> {
    pub(super) limit: Duration,
    last: Option<T>,
    since: Instant,
}

impl<T: PartialEq> Patience<T> {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, last: None, since: Instant::now() }
    }

    /// Whether there is patience left with something that is now so.
    pub(super) fn has_with(&mut self, now: T) -> bool {
        if self.last.as_ref() != Some(&now) {
            self.last = Some(now);
            self.since = Instant::now();
        }
        self.since.elapsed() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_begins_anew_with_every_change() {
        let mut patience = Patience::new(Duration::from_millis(30));
        for step in 0..4 {
            thread::sleep(Duration::from_millis(20));
            assert!(patience.has_with(step));
        }
        thread::sleep(Duration::from_millis(40));
        assert!(!patience.has_with(3));
    }
}
