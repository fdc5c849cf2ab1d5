//! What the coordinator and its workers say to each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Error, Result};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::engine::{self, Point, Progress, Share};
use crate::latency::Latencies;
use crate::outcome;
use crate::plan::Plan;

/// From the coordinator to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// The first order of a client.
    Connect(Assignment),
    /// Open connections until so many were dialed in all.
    Dial {
        up_to: usize,
    },
    Talk(Talk),
    /// The first order to a client that runs a share of a plan.
    Load(Box<Load>),
    /// All have come to the point that was reached: go on.
    Go,
    /// Tell how things stand.
    Status,
    /// From now on connections may end.
    Part,
    /// End in good order.
    End,
}

/// A share of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) plan: Plan,
    pub(crate) share: Share,
}

/// As [`engine::Progress`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Loaded {
    opened: u64,
    answered: u64,
    elapsed: Option<Duration>,
}

impl From<&Progress> for Loaded {
    fn from(progress: &Progress) -> Self {
        let Progress { opened, answered, elapsed } = *progress;
        Self { opened, answered, elapsed }
    }
}

impl From<Loaded> for Progress {
    fn from(loaded: Loaded) -> Self {
        let Loaded { opened, answered, elapsed } = loaded;
        Self { opened, answered, elapsed }
    }
}

/// What a client is to be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) target: SocketAddr,
    /// Addresses to dial from in turn; the kernel's choice if there are none.
    pub(crate) sources: Vec<Ipv4Addr>,
    /// One for every CPU it may use if not given.
    pub(crate) reactors: Option<usize>,
    /// The index of its first connection among those of all workers: each sends other bytes.
    pub(crate) first: usize,
    /// Bytes of the largest message.
    pub(crate) largest: usize,
    pub(crate) dial_timeout: Duration,
    /// How often late replies are looked for.
    pub(crate) tick: Duration,
}

/// Messages that go back and forth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Talk {
    /// Bytes of a message.
    pub(crate) size: usize,
    /// What every active connection carries at least.
    pub(crate) rounds: u32,
    /// The share of the connections that is active, in percent.
    pub(crate) active: f64,
    /// When all begin.
    pub(crate) at: Monotonic,
    /// No message is sent after so long beyond the rounds.
    pub(crate) time: Duration,
    /// How long a reply may take.
    pub(crate) deadline: Duration,
    /// Messages of a reactor that are under way at a time; connections beyond these wait for their turn.
    pub(crate) wave: u64,
}

/// A time that all processes of this host share (CLOCK_MONOTONIC), in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Monotonic(u64);

impl Monotonic {
    pub(crate) fn now() -> Result<Self> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        Ok(Self(now.as_nanos() as u64))
    }

    pub(crate) fn after(self, time: Duration) -> Self {
        Self(self.0 + time.as_nanos() as u64)
    }

    /// How long it is until then; zero if it is past.
    pub(crate) fn left(self) -> Result<Duration> {
        Ok(Duration::from_nanos(self.0.saturating_sub(Self::now()?.0)))
    }
}

/// From a worker to the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// A server is there.
    Listening(Listening),
    /// A client is there, with so many reactors.
    Ready { reactors: usize },
    /// Of a server, when asked.
    Status(Status),
    /// Of a client, when asked: connections it has opened, and how many of them have ended.
    Opened { opened: u64, ended: u64 },
    /// How many messages a client has had answered in a talk that goes on.
    Progress { messages: u64 },
    /// A talk is over; every message was answered.
    Talked(Box<Tally>),
    /// Connections may end now.
    Parted,
    /// A share of a plan has come to this point, and waits for the others.
    Reached(Point),
    /// How far a share of a plan is.
    Loaded(Loaded),
    /// What was counted in a share of a plan.
    Finished(Box<engine::Tally>),
    /// The first of a worker's failures; the others are not told.
    Failed(Fault),
    /// The last word of a worker that ends in good order.
    Ended(Ended),
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) reactors: usize,
    /// Connections that the kernel queues for each listener.
    pub(crate) backlog: u32,
}

/// How things stand in a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Connections accepted so far.
    pub(crate) accepted: u64,
    /// Times that accepting paused for want of descriptors or memory.
    pub(crate) accept_pauses: u64,
    /// What the kernel said then, by `errno`.
    pub(crate) errors: Vec<(i32, u64)>,
    /// Connections that are open, by reactor.
    pub(crate) active: Vec<u64>,
    /// Bytes that came in, by reactor.
    pub(crate) bytes_in: Vec<u64>,
}

impl Status {
    pub(crate) fn open(&self) -> u64 {
        self.active.iter().sum()
    }
}

/// How a worker ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Connections that were open when it was asked to end.
    pub(crate) open: u64,
    pub(crate) drained: u64,
    pub(crate) cut_off: u64,
    /// For people, on one line.
    pub(crate) report: String,
}

impl Ended {
    pub(crate) fn add(&mut self, other: Self) {
        self.open += other.open;
        self.drained += other.drained;
        self.cut_off += other.cut_off;
        self.report = other.report;
    }
}

/// What went wrong, and whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) blame: Blame,
    pub(crate) problem: String,
}

/// What is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Blame {
    /// It sent what it should not have.
    WrongData,
    /// It cannot be reached, closes connections or answers late.
    Target,
    /// Ports, addresses or descriptors.
    Host,
    /// The client itself, or nobody knows.
    Client,
}

impl Fault {
    pub(crate) fn new(blame: Blame, problem: impl Into<String>) -> Self {
        Self { blame, problem: problem.into() }
    }

    /// Of an error with its status.
    pub(crate) fn of(error: &Error) -> Self {
        let blame = match outcome::Status::of(error) {
            outcome::Status::WrongData => Blame::WrongData,
            outcome::Status::Unreachable => Blame::Target,
            outcome::Status::HostLimits => Blame::Host,
            _ => Blame::Client,
        };
        Self::new(blame, outcome::line(error))
    }

    /// The exit status of a run that ends with it.
    pub(crate) fn status(&self) -> outcome::Status {
        match self.blame {
            Blame::WrongData => outcome::Status::WrongData,
            Blame::Target => outcome::Status::Unreachable,
            Blame::Host => outcome::Status::HostLimits,
            Blame::Client => outcome::Status::Failed,
        }
    }
}

/// What was counted in a talk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// From when each message was due: the first when all began, the others when the reply before had come.
    pub(crate) corrected: Latencies,
    /// From when it was sent.
    pub(crate) raw: Latencies,
    /// The same until the first byte of each reply.
    pub(crate) first_corrected: Latencies,
    pub(crate) first_raw: Latencies,
    /// From the dial to the open connection, of those opened since the last talk.
    pub(crate) connect: Latencies,
    pub(crate) messages: u64,
    /// Bytes that came back, each compared with what was sent.
    pub(crate) verified: u64,
    /// Connections that carried messages.
    pub(crate) active: u64,
    /// The most messages that were in flight at a time, on each reactor; of several, the sum.
    #[serde(default)]
    pub(crate) in_flight: u64,
    /// The messages of the connection that had the fewest, and of that which had the most.
    pub(crate) fewest: u32,
    pub(crate) most: u32,
    /// Replies by the second in which they came, with their latencies.
    pub(crate) seconds: Vec<(u64, Latencies)>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            corrected: Latencies::new(),
            raw: Latencies::new(),
            first_corrected: Latencies::new(),
            first_raw: Latencies::new(),
            connect: Latencies::new(),
            messages: 0,
            verified: 0,
            active: 0,
            in_flight: 0,
            fewest: u32::MAX,
            most: 0,
            seconds: Vec::new(),
        }
    }

    /// Counts the first byte of a reply.
    pub(crate) fn count_first(&mut self, corrected: Duration, raw: Duration) {
        self.first_corrected.record(corrected.as_nanos() as u64);
        self.first_raw.record(raw.as_nanos() as u64);
    }

    /// Counts a reply of `bytes` that came so long after the beginning.
    pub(crate) fn count(&mut self, corrected: Duration, raw: Duration, after: Duration, bytes: usize) {
        let ns = |time: Duration| time.as_nanos() as u64;
        self.corrected.record(ns(corrected));
        self.raw.record(ns(raw));
        self.messages += 1;
        self.verified += bytes as u64;
        let second = after.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, || (0, Latencies::coarse()));
        }
        self.seconds[second].0 += 1;
        self.seconds[second].1.record(ns(corrected));
    }

    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.corrected.merge(&other.corrected)?;
        self.raw.merge(&other.raw)?;
        self.first_corrected.merge(&other.first_corrected)?;
        self.first_raw.merge(&other.first_raw)?;
        self.connect.merge(&other.connect)?;
        self.messages += other.messages;
        self.verified += other.verified;
        self.active += other.active;
        self.in_flight += other.in_flight;
        self.fewest = self.fewest.min(other.fewest);
        self.most = self.most.max(other.most);
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), || (0, Latencies::coarse()));
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.0 += theirs.0;
            mine.1.merge(&theirs.1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_are_added() {
        let ms = Duration::from_millis;
        let mut one = Tally { active: 2, fewest: 4, most: 6, ..Tally::new() };
        one.count_first(ms(2), ms(1));
        one.count(ms(2), ms(1), ms(100), 64);
        let mut other = Tally { active: 1, fewest: 5, most: 9, ..Tally::new() };
        other.count_first(ms(3), ms(2));
        other.count(ms(4), ms(3), ms(2_500), 64);
        other.count(ms(4), ms(3), ms(10), 64);
        one.add(&other).unwrap();
        one.add(&Tally::new()).unwrap();
        assert_eq!((one.messages, one.verified, one.active, one.fewest, one.most), (3, 192, 3, 4, 9));
        let seconds: Vec<_> = one.seconds.iter().map(|second| second.0).collect();
        assert_eq!(seconds, [2, 0, 1]);
        assert_eq!((one.corrected.count(), one.raw.count()), (3, 3));
        assert_eq!((one.first_corrected.count(), one.first_raw.count()), (2, 2));
    }

    #[test]
    fn words_survive_the_channel() {
        let mut tally = Tally::new();
        tally.count(Duration::from_micros(70), Duration::from_micros(60), Duration::ZERO, 64);
        let text = serde_json::to_string(&Word::Talked(Box::new(tally.clone()))).unwrap();
        assert!(!text.contains('\n'));
        let Word::Talked(back) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(*back, tally);
    }

    #[test]
    fn all_processes_have_one_clock() {
        let now = Monotonic::now().unwrap();
        assert_eq!(now.left().unwrap(), Duration::ZERO);
        assert!(now.after(Duration::from_secs(9)).left().unwrap() > Duration::from_secs(8));
    }
}
