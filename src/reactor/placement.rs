//! Which reactor gets a connection that one of them has accepted for all.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::counters::Published;
use crate::connection::Peer;

/// How one acceptor spreads the connections of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    RoundRobin,
    LeastConnections,
    SourceHash,
}

/// What a reactor that accepts for others remembers, over all its addresses.
#[derive(Debug)]
pub(super) struct Placement {
    reactors: Arc<[Published]>,
    /// How many connections each reactor was given.
    given: Vec<u64>,
    next: usize,
    hasher: RandomState,
}

impl Placement {
    pub(super) fn new(reactors: Arc<[Published]>) -> Self {
        let given = vec![0; reactors.len()];
        Self { reactors, given, next: 0, hasher: RandomState::new() }
    }

    /// The reactor for a connection from `peer`.
    pub(super) fn choose(&mut self, policy: Policy, peer: Peer) -> usize {
        let count = self.reactors.len();
        let chosen = match (policy, peer) {
            (Policy::SourceHash, Peer::Tcp(address)) => {
                self.hasher.hash_one(address.ip().to_canonical()) as usize % count
            }
            (Policy::LeastConnections, _) => self.least(),
            // A Unix peer has no source to hash.
            (Policy::RoundRobin | Policy::SourceHash, _) => self.next % count,
        };
        self.given[chosen] += 1;
        self.next = (chosen + 1) % count;
        chosen
    }

    /// A connection that was chosen for another reactor stayed here after all.
    pub(super) fn stays(&mut self, here: usize, chosen: usize) {
        self.given[chosen] -= 1;
        self.given[here] += 1;
    }

    /// The reactor with the fewest connections among those given: what has been given and not ended, so
    /// that those still on their way in a mailbox count. Ties go round.
    fn least(&self) -> usize {
        let count = self.reactors.len();
        let load = |index: usize| {
            let ended = self.reactors[index].snapshot().accepted_ended;
            self.given[index].saturating_sub(ended)
        };
        (0..count).map(|step| (self.next + step) % count).min_by_key(|&index| load(index)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::Counters;
    use super::*;

    fn reactors(count: usize) -> Arc<[Published]> {
        (0..count).map(|_| Published::default()).collect()
    }

    fn peer(last: u8) -> Peer {
        Peer::Tcp(([127, 0, 0, last], 1000 + u16::from(last)).into())
    }

    #[test]
    fn round_robin_goes_round() {
        let mut placement = Placement::new(reactors(3));
        let chosen: Vec<_> = (0..6).map(|n| placement.choose(Policy::RoundRobin, peer(n))).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_source_always_goes_to_the_same_reactor() {
        let mut placement = Placement::new(reactors(4));
        for source in 0..50 {
            let first = placement.choose(Policy::SourceHash, peer(source));
            assert!((0..5).all(|_| placement.choose(Policy::SourceHash, peer(source)) == first));
        }
    }

    #[test]
    fn the_least_loaded_is_chosen() {
        let reactors = reactors(3);
        let mut placement = Placement::new(Arc::clone(&reactors));
        let mut choose = || placement.choose(Policy::LeastConnections, peer(1));
        let first: Vec<_> = (0..9).map(|_| choose()).collect();
        assert_eq!(first, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        // Two connections of the second reactor end.
        let mut counters = Counters::default();
        counters.accepted_ended = 2;
        reactors[1].publish(&mut counters);
        assert_eq!(choose(), 1);
        assert_eq!(choose(), 1);
        assert_ne!(choose(), 1);
    }
}
