//! The phases after the opening: connections held idle, some of them talking, all of them woken at once.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::open::Patience;
use super::run::Run;
use crate::measure::{Meter, Used};
use crate::outcome::{self, Status};
use crate::output::format::count;
use crate::worker::{Monotonic, Order, Talk, Tally, Word};

/// How long a client may take to notice a late reply, beyond its deadline.
const MARGIN: Duration = Duration::from_secs(5);

/// How long an order takes to reach a worker, on a busy machine; all begin at the same time after it.
const LEAD: Duration = Duration::from_millis(100);
const LEAD_PER_WORKER: Duration = Duration::from_millis(4);

/// How often the memory is read until it stays as it is.
const SETTLING: Duration = Duration::from_millis(200);

/// How long messages go back and forth while system calls are counted, at most.
const COUNTED: Duration = Duration::from_millis(500);

/// A talk in which system calls were counted; its times and rates are of no use.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) talked: Talked,
    /// Why they were not counted.
    pub(super) refused: Option<String>,
}

/// What came of a talk.
#[derive(Debug)]
pub(super) struct Talked {
    pub(super) tally: Tally,
    /// From the common beginning.
    pub(super) elapsed: Duration,
    pub(super) server: Used,
    pub(super) client: Used,
    /// Messages by reactor, server after server.
    pub(super) by_reactor: Vec<u64>,
}

/// What the servers used while nothing happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) time: Duration,
    pub(super) server: Used,
}

impl Run<'_> {
    /// Waits until the servers have done what they still do after the opening, for this long at most.
    pub(super) fn settle(&mut self, most: Duration) -> Result<()> {
        let until = Instant::now() + most;
        let mut before = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.watch(left.min(SETTLING))?;
            let now = Some((self.memory(0)?.user_bytes, self.server_meter.cpu()?));
            if now == before || Instant::now() >= until {
                return Ok(());
            }
            before = now;
        }
    }

    /// Leaves all connections idle for a while.
    pub(super) fn hold(&mut self, time: Duration) -> Result<Held> {
        let before = self.server_meter.read()?;
        let begun = Instant::now();
        let until = begun + time;
        self.progress.update_from_now();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let server = self.server_meter.read()?.since(before);
                return Ok(Held { time: begun.elapsed(), server });
            }
            self.progress.update(|| format!("holding them idle, {left:.1?} to go"));
            self.watch(left.min(Duration::from_millis(500)))?;
        }
    }

    /// Talks shortly as the run does later, and counts system calls: counting slows all of them, so it is done here.
    pub(super) fn talk_counted(&mut self) -> Result<Counted> {
        self.server_meter.count_calls();
        self.client_meter.count_calls();
        let uncounted = [&self.server_meter, &self.client_meter].into_iter().find_map(Meter::uncounted);
        let refused = uncounted.map(str::to_owned);
        let talked = self.talk(self.args.size, self.args.active, 1, self.args.duration.min(COUNTED))?;
        self.server_meter.stop_counting();
        self.client_meter.stop_counting();
        Ok(Counted { talked, refused })
    }

    /// Has messages go back and forth on a share of the connections, for a time and at least some rounds.
    pub(super) fn talk(&mut self, size: usize, active: f64, rounds: u32, time: Duration) -> Result<Talked> {
        let lead = LEAD + LEAD_PER_WORKER * self.clients.len() as u32;
        let bytes_before = self.bytes_by_reactor()?;
        let before = (self.server_meter.read()?, self.client_meter.read()?);
        let at = Monotonic::now()?.after(lead);
        let begun = Instant::now() + at.left()?;
        let talk =
            Talk { size, rounds, active, at, time, deadline: self.args.deadline, wave: self.plan.wave() };
        for index in 0..self.clients.len() {
            self.crew.tell(self.clients[index], &Order::Talk(talk))?;
        }
        let tally = self.tallies(size)?;
        let elapsed = begun.elapsed();
        let used = (self.server_meter.read()?, self.client_meter.read()?);
        let bytes = self.bytes_by_reactor()?;
        let by_reactor =
            bytes.iter().zip(&bytes_before).map(|(after, before)| (after - before) / size as u64).collect();
        Ok(Talked {
            tally,
            elapsed,
            server: used.0.since(before.0),
            client: used.1.since(before.1),
            by_reactor,
        })
    }

    /// The tallies of all clients, summed up.
    fn tallies(&mut self, size: usize) -> Result<Tally> {
        let begun = Instant::now();
        let mut sum = Tally::new();
        let mut progress = vec![0; self.clients.len()];
        let mut left = self.clients.len();
        let mut patience = Patience::new(self.args.deadline + MARGIN);
        self.progress.update_from_now();
        while left > 0 {
            match self.hear(Instant::now() + Duration::from_millis(500))? {
                Some((_, Word::Talked(tally))) => {
                    sum.add(&tally)?;
                    left -= 1;
                }
                Some((who, Word::Progress { messages })) => {
                    if let Some(index) = self.clients.iter().position(|&client| client == who) {
                        progress[index] = messages;
                    }
                }
                None => {}
                Some(other) => return Err(self.unexpected("tally", &other)),
            }
            let messages: u64 = progress.iter().sum();
            if !patience.has_with((messages, left)) {
                let why = format!("{left} clients have received nothing for {:?}", patience.limit);
                return Err(outcome::ends(Status::Unreachable, why));
            }
            let elapsed = begun.elapsed();
            self.progress.update(|| talking(messages, size, elapsed));
        }
        Ok(sum)
    }

    fn bytes_by_reactor(&mut self) -> Result<Vec<u64>> {
        self.ask_servers()?;
        Ok(self.statuses.iter().flat_map(|status| status.bytes_in.iter().copied()).collect())
    }

    /// The connections of every reactor, server after server, as they last told.
    pub(super) fn connections_by_reactor(&self) -> Vec<u64> {
        self.statuses.iter().flat_map(|status| status.active.iter().copied()).collect()
    }
}

fn talking(messages: u64, size: usize, elapsed: Duration) -> String {
    let rate = messages as f64 / elapsed.as_secs_f64();
    format!(
        "{:4.1} s: {} messages of {size} B, {}/s",
        elapsed.as_secs_f64(),
        count(messages),
        count(rate as u64)
    )
}
