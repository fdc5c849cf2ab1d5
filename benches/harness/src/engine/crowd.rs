//! Connections that behave badly: who they are, and what became of them.

use corelane::ConnId;

use super::tally::CrowdTally;
use crate::plan::{Mischief, Plan};

/// What a slow reader is to leave unread, in bytes: more than its receive buffer and the rest of the connection hold, so
/// that the target has to keep it, be it in its own memory or in its socket's.
pub(crate) const MUCH_UNREAD: u64 = 64 << 10;

/// What all slow readers of a run ask for ahead, and what one of them does at most: more than the send buffer of its
/// connection grows to, so that a target which waits for room does wait.
const UNREAD_IN_ALL: u64 = 256 << 20;
const MOST_UNREAD: u64 = 4 << 20;

/// How much of replies a slow reader asks for ahead, in bytes.
pub(super) fn unread_goal(plan: &Plan) -> u64 {
    (UNREAD_IN_ALL / plan.crowd.count.max(1) as u64).clamp(MUCH_UNREAD * 2, MOST_UNREAD)
}

/// What one of them is about.
#[derive(Debug)]
pub(super) struct Antic {
    /// Whose connection it is.
    pub(super) member: u32,
    pub(super) kind: Mischief,
    /// Bytes that are still to be sent, in drops.
    pub(super) drops: Vec<u8>,
    pub(super) sent: usize,
    /// Ticks that it has stood, and some before.
    pub(super) ticks: usize,
    /// Bytes of replies that it has taken, and how many replies they were.
    pub(super) heard: (u64, u64),
}

impl Antic {
    /// The bytes of a reply; of one that has not come whole, those that have.
    pub(super) fn reply_bytes(&self) -> u64 {
        let (bytes, replies) = self.heard;
        (bytes / replies.max(1)).max(1)
    }
}

/// One that behaves badly, over all the connections that it had, one after the other.
#[derive(Clone, Copy, Debug)]
struct Member {
    kind: Option<Mischief>,
    /// It did what it is there for.
    acted: bool,
    /// A reply to it came whole and right.
    answered: bool,
    /// It left much unread.
    owed_much: bool,
    /// The target did not let it in, or cut it off.
    repelled: bool,
}

/// All of them on one reactor.
#[derive(Debug)]
pub(super) struct Crowd {
    members: Vec<Member>,
    /// Those whose first dial has come to something.
    settled: usize,
    /// Those that are to be dialed (again).
    pub(super) to_dial: Vec<u32>,
    pub(super) standing: Vec<ConnId>,
    tally: CrowdTally,
}

impl Crowd {
    /// Those of these numbers among the crowd of all reactors, which take its kinds in turn.
    pub(super) fn new(plan: &Plan, numbers: impl Iterator<Item = usize>) -> Self {
        let kinds = &plan.crowd.kinds;
        let kind = |number: usize| kinds.get(number % kinds.len().max(1)).copied();
        let member = |number| Member {
            kind: kind(number),
            acted: false,
            answered: false,
            owed_much: false,
            repelled: false,
        };
        let members: Vec<Member> = numbers.map(member).collect();
        let to_dial = (0..members.len() as u32).collect();
        Self { members, settled: 0, to_dial, standing: Vec::new(), tally: CrowdTally::default() }
    }

    pub(super) fn kind(&self, member: u32) -> Option<Mischief> {
        self.members.get(member as usize)?.kind
    }

    /// Whether each was let in, or was not.
    pub(super) fn is_settled(&self) -> bool {
        self.settled >= self.members.len()
    }

    pub(super) fn refused(&mut self, member: u32) {
        self.settled += 1;
        self.tally.refused += 1;
        self.mark(member, |member| member.repelled = true);
    }

    pub(super) fn opened(&mut self, id: ConnId) {
        self.settled += 1;
        self.tally.opened += 1;
        self.standing.push(id);
    }

    /// One has done what it is there for.
    pub(super) fn acted(&mut self, member: u32) {
        self.mark(member, |member| member.acted = true);
    }

    /// One has ended, by the target's will or its own; it comes back at the next tick.
    pub(super) fn closed(&mut self, id: ConnId, member: u32, by_target: bool) {
        self.standing.retain(|standing| *standing != id);
        self.tally.cut_off += u64::from(by_target);
        self.mark(member, |member| member.repelled |= by_target);
        self.to_dial.push(member);
    }

    pub(super) fn answered(&mut self, member: u32) {
        self.tally.answered += 1;
        self.mark(member, |member| member.answered = true);
    }

    /// One has so many bytes of replies unread.
    pub(super) fn owed(&mut self, member: u32, bytes: u64) {
        self.tally.owed_most = self.tally.owed_most.max(bytes);
        if bytes >= MUCH_UNREAD {
            self.mark(member, |member| member.owed_much = true);
        }
    }

    fn mark(&mut self, member: u32, mark: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(member as usize) {
            mark(member);
        }
    }

    pub(super) fn tally(&self) -> CrowdTally {
        let count = |is: fn(&Member) -> bool| self.members.iter().filter(|member| is(member)).count() as u64;
        CrowdTally {
            standing: self.standing.len() as u64,
            members_acted: count(|member| member.acted),
            members_met: count(|member| member.acted || member.repelled),
            members_intact: count(|member| member.answered || member.repelled),
            members_owed_much: count(|member| member.owed_much || member.repelled),
            ..self.tally
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = crate::plan::tests::plan("--scenario hostile").unwrap();
        plan.crowd.kinds = vec![Mischief::SlowReader, Mischief::Reset];
        plan
    }

    #[test]
    fn kinds_are_taken_in_turn_by_the_crowd_of_all_reactors() {
        let kinds = |first| {
            let crowd = Crowd::new(&plan(), (first..6).step_by(3));
            (0..2).map(|member| crowd.kind(member).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(0), [Mischief::SlowReader, Mischief::Reset]);
        assert_eq!(kinds(1), [Mischief::Reset, Mischief::SlowReader]);
    }

    #[test]
    fn what_one_comes_to_says_nothing_of_the_others() {
        let mut crowd = Crowd::new(&plan(), 0..4);
        crowd.answered(1);
        crowd.answered(1);
        crowd.acted(1);
        crowd.refused(2);
        crowd.acted(3);
        crowd.owed(0, MUCH_UNREAD - 1);
        crowd.owed(1, MUCH_UNREAD);
        let tally = crowd.tally();
        assert_eq!((tally.answered, tally.refused), (2, 1));
        assert_eq!((tally.members_owed_much, tally.owed_most), (2, MUCH_UNREAD));
        assert_eq!((tally.members_acted, tally.members_met, tally.members_intact), (2, 3, 2));
    }
}
