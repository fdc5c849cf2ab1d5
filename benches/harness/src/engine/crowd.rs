//! Connections that behave badly: who they are, and what became of them.

use corelane::ConnId;

use super::tally::CrowdTally;
use crate::plan::{Mischief, Plan};

/// What one of them is about.
#[derive(Debug)]
pub(super) struct Antic {
    /// Its place among the kinds of the crowd.
    pub(super) index: u8,
    pub(super) kind: Mischief,
    /// Bytes that are still to be sent, in drops.
    pub(super) drops: Vec<u8>,
    pub(super) sent: usize,
    /// Ticks that it has stood, and some before.
    pub(super) ticks: usize,
}

/// All of them on one reactor.
#[derive(Debug)]
pub(super) struct Crowd {
    kinds: Vec<Mischief>,
    quota: usize,
    /// Those whose first dial has come to something.
    settled: usize,
    /// By kind, those that are to be dialed (again).
    pub(super) to_dial: Vec<u8>,
    pub(super) members: Vec<ConnId>,
    tally: CrowdTally,
}

impl Crowd {
    pub(super) fn new(plan: &Plan, quota: usize) -> Self {
        let kinds = plan.crowd.kinds.clone();
        let to_dial = (0..quota).map(|member| (member % kinds.len().max(1)) as u8).collect();
        Self { kinds, quota, settled: 0, to_dial, members: Vec::new(), tally: CrowdTally::default() }
    }

    pub(super) fn kind(&self, index: u8) -> Option<Mischief> {
        self.kinds.get(usize::from(index)).copied()
    }

    /// Whether each was let in, or was not.
    pub(super) fn is_settled(&self) -> bool {
        self.settled >= self.quota
    }

    pub(super) fn refused(&mut self) {
        self.settled += 1;
        self.tally.refused += 1;
    }

    pub(super) fn opened(&mut self, id: ConnId) {
        self.settled += 1;
        self.tally.opened += 1;
        self.members.push(id);
    }

    /// One has ended, by the target's will or its own; it comes back at the next tick.
    pub(super) fn closed(&mut self, id: ConnId, index: u8, by_target: bool) {
        self.members.retain(|member| *member != id);
        self.tally.cut_off += u64::from(by_target);
        self.to_dial.push(index);
    }

    pub(super) fn answered(&mut self) {
        self.tally.answered += 1;
    }

    pub(super) fn tally(&self) -> CrowdTally {
        CrowdTally { standing: self.members.len() as u64, ..self.tally }
    }
}
