//! What one reactor, one process, or all of them counted.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::latency::Latencies;
use crate::result::{Counts, Phase, Phases, Second};

/// What was counted in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// When the measured time began, where this process was that measured.
    #[serde(skip)]
    pub(crate) begun: Option<Instant>,
    /// The measured time.
    pub(crate) seconds: f64,
    pub(crate) phases: Phases,
    pub(crate) counts: Counts,
    pub(crate) series: Vec<Second>,
    /// Requests in all, before and after the measured time too, but without the first of each connection.
    pub(crate) asked: u64,
    /// Those of them that were answered.
    pub(crate) answered: u64,
    /// Connections that have carried load.
    pub(crate) loaded: u64,
    /// Late sends that no connection had room for when they were due: the target's fault, not the generator's.
    pub(crate) held_back: u64,
    /// Messages that no connection had room for until the measured time was over, and that were sent then.
    pub(crate) sent_behind: u64,
    /// Messages that every connection sent at once, by round.
    pub(crate) waves: Vec<Wave>,
    /// From when a wave was due until each of its replies.
    pub(crate) wave_latency: Latencies,
    /// Connections that came and went as the scenario has it.
    pub(crate) cycles: u64,
    /// Those of them that a storm ended while the target owed them a reply.
    pub(crate) owed_at_the_end: u64,
    /// Those of them that did not end in good order although their client did.
    pub(crate) ended_badly: u64,
    pub(crate) crowd: CrowdTally,
    /// Lines that were published, and deliveries of them.
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) reactors: Vec<ReactorUse>,
    /// What the client's reactors took beside CPU time; `None` of a client that does not tell.
    pub(crate) toll: Option<Toll>,
    /// Replies in the time in which system calls are counted.
    pub(crate) counted: u64,
    /// The run was stopped before its time.
    pub(crate) partial: bool,
}

/// One message on every connection at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wave {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// From the wave until its last reply.
    pub(crate) last_ns: u64,
}

/// What became of the connections that behave badly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrowdTally {
    pub(crate) opened: u64,
    /// Not let in.
    pub(crate) refused: u64,
    /// Ended by the target.
    pub(crate) cut_off: u64,
    /// Replies to them that came whole and right.
    pub(crate) answered: u64,
    pub(crate) standing: u64,
    /// Of those asked for, each counted once however often it came back: those that did what they are there for.
    pub(crate) members_acted: u64,
    /// Those that did, or that the target refused or cut off.
    pub(crate) members_met: u64,
    /// Those that had a whole and right reply, or that the target refused or cut off.
    pub(crate) members_intact: u64,
    /// Slow readers that left more unread than their connection holds, or that the target refused or cut off.
    pub(crate) members_owed_much: u64,
    /// The most that one of them left unread, in bytes.
    pub(crate) owed_most: u64,
}

/// One reactor of the generator in the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReactorUse {
    pub(crate) seconds: f64,
    pub(crate) cpu_s: f64,
    /// Ready to run, but without a CPU.
    pub(crate) wait_s: f64,
    pub(crate) connections: u64,
    pub(crate) messages: u64,
}

/// How often the client's reactors dealt with the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toll {
    /// Context switches in the measured time.
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
    /// System calls, in the warm-up if there is one: counting slows them all.
    pub(crate) system_calls: u64,
    /// Why they were not counted.
    pub(crate) uncounted: Option<String>,
}

impl Toll {
    fn add(&mut self, other: &Self) {
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
        self.system_calls += other.system_calls;
        self.uncounted = self.uncounted.take().or_else(|| other.uncounted.clone());
    }
}

impl ReactorUse {
    /// The share of the time that it was at work or wanted to be.
    pub(crate) fn demand(&self) -> f64 {
        if self.seconds > 0.0 { (self.cpu_s + self.wait_s) / self.seconds } else { 0.0 }
    }
}

impl Tally {
    /// Adds what another reactor or process counted in the same run.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        self.seconds = self.seconds.max(other.seconds);
        merge_phases(&mut self.phases, &other.phases)?;
        merge_counts(&mut self.counts, &other.counts);
        merge_series(&mut self.series, &other.series)?;
        self.asked += other.asked;
        self.answered += other.answered;
        self.loaded += other.loaded;
        self.held_back += other.held_back;
        self.sent_behind += other.sent_behind;
        if self.waves.len() < other.waves.len() {
            self.waves.resize(other.waves.len(), Wave::default());
        }
        for (ours, theirs) in self.waves.iter_mut().zip(&other.waves) {
            ours.sent += theirs.sent;
            ours.answered += theirs.answered;
            ours.last_ns = ours.last_ns.max(theirs.last_ns);
        }
        self.wave_latency.merge(&other.wave_latency)?;
        self.cycles += other.cycles;
        self.owed_at_the_end += other.owed_at_the_end;
        self.ended_badly += other.ended_badly;
        self.crowd.opened += other.crowd.opened;
        self.crowd.refused += other.crowd.refused;
        self.crowd.cut_off += other.crowd.cut_off;
        self.crowd.answered += other.crowd.answered;
        self.crowd.standing += other.crowd.standing;
        self.crowd.members_acted += other.crowd.members_acted;
        self.crowd.members_met += other.crowd.members_met;
        self.crowd.members_intact += other.crowd.members_intact;
        self.crowd.members_owed_much += other.crowd.members_owed_much;
        self.crowd.owed_most = self.crowd.owed_most.max(other.crowd.owed_most);
        self.published += other.published;
        self.delivered += other.delivered;
        self.reactors.extend_from_slice(&other.reactors);
        match (&mut self.toll, &other.toll) {
            (Some(ours), Some(theirs)) => ours.add(theirs),
            (ours @ None, theirs) => ours.clone_from(theirs),
            (Some(_), None) => {}
        }
        self.counted += other.counted;
        self.partial |= other.partial;
        Ok(())
    }

    /// Replies in each second of the measured time.
    pub(crate) fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.counts.received as f64 / self.seconds } else { 0.0 }
    }

    /// Messages that were due in the measured time, and that no connection had room for in it.
    pub(crate) fn not_sent_in_time(&self) -> u64 {
        self.counts.never_sent + self.sent_behind
    }

    /// Late sends that were the generator's own fault.
    pub(crate) fn own_late(&self) -> u64 {
        self.counts.late.saturating_sub(self.held_back)
    }

    /// The busiest reactor's share of time at work, or ready to.
    pub(crate) fn demand(&self) -> f64 {
        self.reactors.iter().map(ReactorUse::demand).fold(0.0, f64::max)
    }
}

fn merge_phases(ours: &mut Phases, theirs: &Phases) -> Result<()> {
    let pairs = [
        (&mut ours.connect, &theirs.connect),
        (&mut ours.first_byte, &theirs.first_byte),
        (&mut ours.reply, &theirs.reply),
    ];
    for (ours, theirs) in pairs {
        let Phase { corrected, raw, .. } = ours;
        merge_latencies(corrected, theirs.corrected.as_ref())?;
        merge_latencies(raw, theirs.raw.as_ref())?;
    }
    Ok(())
}

fn merge_latencies(ours: &mut Option<Latencies>, theirs: Option<&Latencies>) -> Result<()> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => ours.merge(theirs),
        (ours @ None, Some(theirs)) => {
            *ours = Some(theirs.clone());
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

fn merge_counts(ours: &mut Counts, theirs: &Counts) {
    ours.connections_asked += theirs.connections_asked;
    ours.connections_opened += theirs.connections_opened;
    ours.connections_lost += theirs.connections_lost;
    ours.sent += theirs.sent;
    ours.received += theirs.received;
    ours.carried_in += theirs.carried_in;
    ours.outstanding += theirs.outstanding;
    ours.unanswered += theirs.unanswered;
    ours.sent_bytes += theirs.sent_bytes;
    ours.received_bytes += theirs.received_bytes;
    ours.verified_bytes += theirs.verified_bytes;
    ours.late += theirs.late;
    ours.never_sent += theirs.never_sent;
    for (kind, count) in &theirs.errors {
        *ours.errors.entry(kind.clone()).or_default() += count;
    }
}

fn merge_series(ours: &mut Vec<Second>, theirs: &[Second]) -> Result<()> {
    let mut seconds: BTreeMap<u32, Second> =
        std::mem::take(ours).into_iter().map(|second| (second.second, second)).collect();
    for second in theirs {
        let ours = seconds
            .entry(second.second)
            .or_insert_with(|| Second { second: second.second, ..Second::default() });
        merge_second(ours, second)?;
    }
    *ours = seconds.into_values().collect();
    Ok(())
}

/// The last second that any reactor told of, as all that told of it saw it.
#[derive(Debug, Default)]
pub(crate) struct LatestSecond {
    latest: Option<Second>,
    /// Whether nobody has seen it yet.
    is_new: bool,
}

impl LatestSecond {
    /// Adds one reactor's second to what the others told of the same one.
    pub(crate) fn tell(&mut self, second: Second) -> Result<()> {
        self.is_new = true;
        match &mut self.latest {
            Some(latest) if latest.second == second.second => merge_second(latest, &second),
            Some(latest) if latest.second > second.second => Ok(()),
            latest => {
                *latest = Some(second);
                Ok(())
            }
        }
    }

    /// The second, if there is something new about it.
    pub(crate) fn take(&mut self) -> Option<&Second> {
        self.latest.as_ref().filter(|_| std::mem::take(&mut self.is_new))
    }
}

/// Adds what another counted in the same second.
fn merge_second(ours: &mut Second, theirs: &Second) -> Result<()> {
    ours.connections = match (ours.connections, theirs.connections) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    };
    ours.opened += theirs.opened;
    ours.sent += theirs.sent;
    ours.received += theirs.received;
    ours.late += theirs.late;
    ours.errors += theirs.errors;
    merge_latencies(&mut ours.latency, theirs.latency.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(latency: u64, second: u32) -> Tally {
        let mut latencies = Latencies::new();
        latencies.record(latency);
        let mut tally = Tally { seconds: 2.0, ..Tally::default() };
        tally.phases.reply.raw = Some(latencies.clone());
        tally.counts.received = 1;
        tally.counts.errors.insert("reset".to_owned(), 2);
        tally.series = vec![Second { second, received: 1, latency: Some(latencies), ..Second::default() }];
        tally.waves = vec![Wave { sent: 3, answered: 2, last_ns: latency }];
        tally.toll = Some(Toll { voluntary: 3, involuntary: 1, system_calls: 20, uncounted: None });
        tally.counted = 10;
        tally
    }

    #[test]
    fn parts_make_up_the_whole() {
        let mut whole = tally(1_000, 0);
        whole.merge(&tally(9_000, 1)).unwrap();
        whole.merge(&tally(5_000, 1)).unwrap();
        assert_eq!((whole.counts.received, whole.counts.errors["reset"]), (3, 6));
        let reply = whole.phases.reply.raw.as_ref().unwrap();
        assert_eq!((reply.count(), reply.quantile_us(0.5)), (3, Some(5.003)));
        let seconds: Vec<_> = whole.series.iter().map(|second| (second.second, second.received)).collect();
        assert_eq!(seconds, [(0, 1), (1, 2)]);
        assert_eq!(whole.series[1].latency.as_ref().unwrap().count(), 2);
        assert_eq!(whole.waves, [Wave { sent: 9, answered: 6, last_ns: 9_000 }]);
        assert!(whole.phases.reply.corrected.is_none());
        assert_eq!(whole.per_second(), 1.5);
        let toll = Toll { voluntary: 9, involuntary: 3, system_calls: 60, uncounted: None };
        assert_eq!((whole.toll, whole.counted), (Some(toll), 30));
    }

    #[test]
    fn a_tally_goes_through_json() {
        let tally = tally(1_234_567, 3);
        let text = serde_json::to_string(&tally).unwrap();
        assert_eq!(serde_json::from_str::<Tally>(&text).unwrap(), tally);
    }
}
