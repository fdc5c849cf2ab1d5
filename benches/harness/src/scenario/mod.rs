//! The scenarios: what connections go through, and what must hold of it.
//!
//! A scenario shapes the plan ([`Settings`](crate::plan::Settings) asks it) and afterwards says what was asserted
//! and whether it held. One file each has the assertions; the engine does the rest. Called by the commands.

mod broadcast;
mod churn;
mod crowd;
pub(crate) mod half_open;
mod idle;
mod load;
mod partly_active;
mod storms;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::engine::{Tally, Wave};
use crate::plan::{Load, Mischief, Plan, Refusal};
use crate::result::Check;

/// What connections go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    Load,
    IdleHold,
    PartlyActive,
    PingPong,
    Pipelined,
    Broadcast,
    ConnectStorm,
    WakeStorm,
    Churn,
    SlowReader,
    SlowWriter,
    Slowloris,
    HalfOpen,
    HalfClose,
    ResetStorm,
    ReconnectStorm,
    Hostile,
}

/// Every scenario with its name and what it does.
pub(crate) const ALL: [(Scenario, &str, &str); 17] = [
    (Scenario::Load, "load", "the load model as it is asked for"),
    (Scenario::IdleHold, "idle-hold", "hold connections idle, then use each once"),
    (Scenario::PartlyActive, "partly-active", "a part of the connections carries the load beside idle ones"),
    (Scenario::PingPong, "ping-pong", "one message in flight on each connection"),
    (Scenario::Pipelined, "pipelined", "many messages in flight on each connection, in order"),
    (Scenario::Broadcast, "broadcast", "what one publishes reaches every connection, once and in order"),
    (Scenario::ConnectStorm, "connect-storm", "open all connections at once"),
    (Scenario::WakeStorm, "wake-storm", "all connections send at once, again and again"),
    (Scenario::Churn, "churn", "connect, ask, end with FIN or RST, again and again"),
    (Scenario::SlowReader, "slow-reader", "some ask for much and take it slowly, beside honest ones"),
    (Scenario::SlowWriter, "slow-writer", "some send their requests in drops, beside honest ones"),
    (Scenario::Slowloris, "slowloris", "some never end their request, beside honest ones"),
    (Scenario::HalfOpen, "half-open", "peers that vanish without a word (CAP_NET_ADMIN), beside honest ones"),
    (Scenario::HalfClose, "half-close", "clients end their sending side and still get every reply"),
    (
        Scenario::ResetStorm,
        "reset-storm",
        "all connections are reset with a request in flight, and come back",
    ),
    (Scenario::ReconnectStorm, "reconnect-storm", "all connections end at once and come back"),
    (Scenario::Hostile, "hostile", "attackers of every kind beside honest ones, whose p99.9 is the result"),
];

impl Scenario {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        ALL.iter().find(|(_, name, _)| *name == text).map(|(scenario, ..)| *scenario).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|(_, name, _)| *name).collect();
            Refusal::new("scenario", format!("`{text}` is none of {}", names.join(", ")))
        })
    }

    pub(crate) fn name(self) -> &'static str {
        ALL.iter().find(|(scenario, ..)| *scenario == self).map_or("load", |(_, name, _)| name)
    }

    /// The percentage of connections that carry the load unless another is asked for.
    pub(crate) fn default_active(self) -> f64 {
        if self == Self::PartlyActive { 10.0 } else { 100.0 }
    }

    /// What the connections do that behave badly beside the measured ones.
    pub(crate) fn mischief(self) -> &'static [Mischief] {
        match self {
            Self::SlowReader => &[Mischief::SlowReader],
            Self::SlowWriter => &[Mischief::SlowWriter],
            Self::Slowloris => &[Mischief::Slowloris],
            Self::HalfOpen => &[Mischief::Silent],
            Self::Hostile => &[
                Mischief::Silent,
                Mischief::SlowReader,
                Mischief::SlowWriter,
                Mischief::Slowloris,
                Mischief::Reset,
                Mischief::Garbage,
            ],
            _ => &[],
        }
    }

    /// Whether honest connections are measured beside others.
    pub(crate) fn has_crowd(self) -> bool {
        !self.mischief().is_empty()
    }
}

/// What there is to judge by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) tally: &'a Tally,
    /// What came of peers that were to vanish; of `half-open`.
    pub(crate) vanished: Option<&'a half_open::Vanished>,
}

/// What the scenario asserts, and whether it held.
pub(crate) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    match (facts.plan.scenario, &facts.plan.load) {
        (Scenario::Pipelined, Load::Closed { depth, .. }) => load::pipelined(facts, *depth),
        (Scenario::IdleHold, _) => idle::checks(facts),
        (Scenario::PartlyActive, _) => partly_active::checks(facts),
        (Scenario::ConnectStorm, _) => storms::connect(facts),
        (Scenario::WakeStorm, _) => storms::wake(facts),
        (Scenario::ResetStorm, _) => storms::reset(facts),
        (Scenario::ReconnectStorm, _) => storms::come_back(facts, "back after ends"),
        (Scenario::Churn | Scenario::HalfClose, Load::Churn { end, .. }) => churn::checks(facts, *end),
        (Scenario::SlowReader, _) => crowd::slow_readers(facts),
        (Scenario::SlowWriter, _) => crowd::slow(facts),
        (Scenario::Slowloris | Scenario::Hostile, _) => crowd::checks(facts),
        (Scenario::HalfOpen, _) => half_open::checks(facts),
        (Scenario::Broadcast, _) => broadcast::checks(facts),
        _ => load::checks(facts),
    }
}

fn held(name: &str, asserted: impl Into<String>, held: bool, detail: Option<String>) -> Check {
    Check { name: name.to_owned(), asserted: asserted.into(), held, detail }
}

impl Facts<'_> {
    /// Every connection came to stand.
    fn opened(&self) -> Check {
        let (asked, opened) = (self.plan.connections as u64, self.tally.counts.connections_opened);
        held(
            "all opened",
            format!("{asked} connections stood"),
            opened >= asked,
            Some(format!("{opened} opened")),
        )
    }

    /// None was ended by the target.
    fn kept(&self) -> Check {
        let lost = self.tally.counts.connections_lost;
        held("none lost", "the target ended no connection", lost == 0, Some(format!("{lost} lost")))
    }

    /// Every request was answered, and rightly: a wrong reply ends the run.
    fn answered(&self) -> Check {
        let (asked, answered) = (self.tally.asked, self.tally.answered);
        held(
            "all answered",
            "every request was answered, and every reply right",
            answered > 0 && asked == answered,
            Some(format!("{answered} of {asked}")),
        )
    }

    /// Each wave reached every connection, and was answered on each.
    fn waves(&self, name: &str) -> Vec<Check> {
        let waves = &self.tally.waves;
        let connections = self.plan.connections as u64;
        let is_whole = |wave: &&Wave| wave.sent >= connections && wave.answered == wave.sent;
        let whole = waves.iter().filter(is_whole).count();
        let slowest = waves.iter().map(|wave| wave.last_ns).max().unwrap_or_default();
        let rounds = match (&self.plan.load, self.plan.waves) {
            (Load::Storm { rounds, .. }, _) => *rounds as usize,
            (_, planned) => planned.map_or(0, |planned| planned.rounds as usize),
        };
        let text = format!("in each of {rounds} rounds every connection was answered");
        let detail =
            format!("{whole} whole; the last reply of the slowest after {:.1} ms", slowest as f64 / 1e6);
        vec![held(name, text, rounds > 0 && whole == rounds, Some(detail))]
    }
}
