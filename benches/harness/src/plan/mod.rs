//! What to run: the target, what is said to it, by which load model, over how many connections, for how long.
//!
//! A [`Plan`] is complete and checked; every process of a run has the same one. It comes from [`Settings`]:
//! the flags of a command and the keys of a scenario file, which are the same. Called by the commands; the
//! engine and the scenarios only read plans.

mod bounds;
mod mix;
mod model;
mod refusal;
mod schedule;
mod settings;
#[cfg(test)]
pub(crate) use settings::tests;
pub(crate) mod span;
mod target;
mod title;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use mix::{Entry, Operation};
pub(crate) use refusal::Refusal;
pub(crate) use schedule::{Arrivals, Profile, Segment, Times};
pub(crate) use settings::{Engine, Settings};
pub(crate) use span::Span;
pub(crate) use target::{Dialect, Target};

use crate::scenario::Scenario;

/// A run, whole and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// Where what is broadcast is published, of a server that takes publishers.
    pub(crate) publish: Option<String>,
    pub(crate) scenario: Scenario,
    /// What the requests are, by weight; never empty.
    pub(crate) mix: Vec<Entry>,
    pub(crate) load: Load,
    /// The connections that are measured; where they come and go, how many there are at a time.
    pub(crate) connections: usize,
    /// The share of them that carries the load, in percent; the others are idle.
    pub(crate) active: f64,
    /// Times at which every connection has one message to send.
    pub(crate) waves: Option<Waves>,
    pub(crate) crowd: Crowd,
    /// Whether each connection is proven by a first message before the run begins.
    pub(crate) prove: bool,
    /// Connections under way at a time while they are opened.
    pub(crate) connect_window: usize,
    /// If set, connections come evenly over this time, and each is loaded as soon as it stands.
    #[serde(with = "span::option")]
    pub(crate) ramp_up: Option<Duration>,
    #[serde(with = "span")]
    pub(crate) warmup: Duration,
    /// How long is measured.
    #[serde(with = "span")]
    pub(crate) duration: Duration,
    /// How long a reply may take.
    #[serde(with = "span")]
    pub(crate) deadline: Duration,
    #[serde(with = "span")]
    pub(crate) connect_timeout: Duration,
    /// A send so long after its time is late.
    #[serde(with = "span")]
    pub(crate) late_after: Duration,
    /// The percentage of sends that may be late.
    pub(crate) tolerance: f64,
    /// Reactors of each client process; `None`: one for each CPU it may use.
    pub(crate) reactors: Option<usize>,
    /// Client processes.
    pub(crate) workers: usize,
    /// How long the client looks for events before it sleeps; zero: not at all.
    #[serde(with = "span")]
    pub(crate) spin: Duration,
    /// Keys that redis requests are spread over.
    pub(crate) keys: u32,
    /// Whether SET and GET of redis are sent as RESP arrays instead of inline.
    pub(crate) resp: bool,
    /// Whether the bodies of HTTP replies are compared.
    pub(crate) verify: bool,
    pub(crate) seed: u64,
}

/// What decides when a message is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Each connection keeps `depth` messages in flight, and may pause after a reply.
    Closed { depth: usize, think: Option<Think> },
    /// Messages are due at times that do not depend on the server. A connection has at most `depth` in flight.
    Open { profile: Profile, arrivals: Arrivals, depth: usize },
    /// Nothing is sent but by waves.
    Idle,
    /// Connections are opened, used for so many requests, and ended, again and again.
    Churn { requests: u32, end: End },
    /// All connections are ended and opened again at once.
    Storm {
        #[serde(with = "span")]
        every: Duration,
        rounds: u32,
        end: End,
        /// Whether a request is under way on each when it ends.
        in_flight: bool,
    },
    /// A publisher sends lines at a constant rate, and each must reach every connection.
    Broadcast { per_second: f64 },
}

impl Load {
    /// Whether messages have times of their own, which the server cannot delay.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Broadcast { .. })
    }
}

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// In good order.
    Fin,
    /// With a reset.
    Rst,
    /// Only the sending side, behind the last request: the replies are still to come.
    Half,
}

/// The pause between a reply and the next request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Think {
    #[serde(with = "span")]
    pub(crate) mean: Duration,
    pub(crate) spread: Spread,
}

/// How pauses differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Spread {
    /// They do not.
    Constant,
    /// Exponentially distributed.
    Exponential,
}

/// One message on every connection at once, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waves {
    /// From the beginning of what is measured.
    #[serde(with = "span")]
    pub(crate) first: Duration,
    #[serde(with = "span")]
    pub(crate) every: Duration,
    pub(crate) rounds: u32,
}

/// Connections beside the measured ones that behave badly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Crowd {
    pub(crate) count: usize,
    /// They take these kinds in turn.
    pub(crate) kinds: Vec<Mischief>,
}

/// What a connection of the crowd does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mischief {
    /// Never sends a byte.
    Silent,
    /// Asks for much and takes it slowly.
    SlowReader,
    /// Sends its requests a few bytes at a time.
    SlowWriter,
    /// Begins a request and never ends it.
    Slowloris,
    /// Asks, and resets the connection before the reply can be there.
    Reset,
    /// Sends what is no request.
    Garbage,
}

impl Plan {
    /// How many of all connections carry the load.
    pub(crate) fn active_in_all(&self) -> usize {
        ((self.connections as f64 * self.active / 100.0).ceil() as usize).min(self.connections)
    }

    /// The bytes of the largest message.
    pub(crate) fn largest(&self) -> usize {
        self.mix.iter().map(|entry| entry.size).max().unwrap_or_default()
    }
}
