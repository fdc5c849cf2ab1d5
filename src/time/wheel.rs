//! A hierarchical timing wheel whose entries are linked through a table indexed by connection slot.
//!
//! Each key has at most one entry, so the wheel's size is bounded by the connections; setting, moving and
//! cancelling are a few stores; finding what is due costs nothing where nothing is.
//! After G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels" (1987).

/// Bits of a tick that one level looks at; 64 buckets make a level's occupancy one `u64`.
const BITS: u32 = 6;
const BUCKETS: usize = 1 << BITS;
/// Four levels of 64 reach 2^24 ticks (46 hours at 10 ms); what lies further off is parked in the last
/// level and sorted in again when the wheel gets there.
const LEVELS: usize = 4;
const REACH: u64 = 1 << (BITS * LEVELS as u32);

const NONE: u32 = u32::MAX;
/// `Node::bucket` of a key that is not in the wheel.
const OUT: u16 = u16::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    when: u64,
    next: u32,
    previous: u32,
    bucket: u16,
}

const VACANT: Node = Node { when: 0, next: NONE, previous: NONE, bucket: OUT };

/// Deadlines by key, in ticks.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Every tick up to and including this one has been handed out.
    now: u64,
    nodes: Vec<Node>,
    heads: [u32; LEVELS * BUCKETS],
    occupied: [u64; LEVELS],
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { now: 0, nodes: Vec::new(), heads: [NONE; LEVELS * BUCKETS], occupied: [0; LEVELS] }
    }

    /// Makes `key` due at tick `when`, instead of whenever it was due before. A tick that has passed is
    /// due at the next [`Wheel::advance`] to a later tick.
    pub(crate) fn set(&mut self, key: u32, when: u64) {
        self.cancel(key);
        let index = key as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, VACANT);
        }
        self.nodes[index].when = when.max(self.now + 1);
        self.link(key);
    }

    pub(crate) fn cancel(&mut self, key: u32) {
        let Some(node) = self.nodes.get(key as usize).copied() else {
            return;
        };
        if node.bucket == OUT {
            return;
        }
        let bucket = node.bucket as usize;
        match node.previous {
            NONE => self.heads[bucket] = node.next,
            previous => self.nodes[previous as usize].next = node.next,
        }
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
        if self.heads[bucket] == NONE {
            self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        }
        self.nodes[key as usize].bucket = OUT;
    }

    /// The tick at which `key` is due.
    pub(crate) fn due(&self, key: u32) -> Option<u64> {
        let node = self.nodes.get(key as usize)?;
        (node.bucket != OUT).then_some(node.when)
    }

    /// No key is due before the returned tick. It may be early (a bucket of a higher level), never late.
    pub(crate) fn next(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_in(level)).min()
    }

    /// Moves on to `now` and appends the keys that have become due to `due`; they are out of the wheel.
    pub(crate) fn advance(&mut self, now: u64, due: &mut Vec<u32>) {
        while let Some(tick) = self.next().filter(|&tick| tick <= now) {
            self.now = tick;
            for level in (0..LEVELS).rev() {
                if self.next_boundary(level, tick) {
                    self.empty(level, tick, due);
                }
            }
        }
        self.now = self.now.max(now);
    }

    /// Whether `tick` is where a bucket of `level` begins.
    fn next_boundary(&self, level: usize, tick: u64) -> bool {
        tick & ((1 << (BITS * level as u32)) - 1) == 0
    }

    /// Takes the bucket of `level` that begins at `tick` apart: what is due goes to `due`, the rest to the
    /// levels below.
    fn empty(&mut self, level: usize, tick: u64, due: &mut Vec<u32>) {
        let bucket = Self::bucket(level, tick);
        let mut key = std::mem::replace(&mut self.heads[bucket], NONE);
        self.occupied[level] &= !(1 << (bucket % BUCKETS));
        while key != NONE {
            let node = &mut self.nodes[key as usize];
            node.bucket = OUT;
            let (this, when) = (key, node.when);
            key = node.next;
            if when <= tick {
                due.push(this);
            } else {
                self.link(this);
            }
        }
    }

    fn bucket(level: usize, tick: u64) -> usize {
        level * BUCKETS + (tick >> (BITS * level as u32)) as usize % BUCKETS
    }

    fn link(&mut self, key: u32) {
        // What is out of reach waits in the furthest bucket and is linked anew from there.
        let when = self.nodes[key as usize].when.min(self.now + REACH - 1);
        // The highest digit in which `when` differs from now decides the level.
        let digits = (when ^ self.now).checked_ilog2().unwrap_or(0) / BITS;
        let level = (digits as usize).min(LEVELS - 1);
        let bucket = Self::bucket(level, when);
        let head = self.heads[bucket];
        if head != NONE {
            self.nodes[head as usize].previous = key;
        }
        let node = &mut self.nodes[key as usize];
        node.next = head;
        node.previous = NONE;
        node.bucket = bucket as u16;
        self.heads[bucket] = key;
        self.occupied[level] |= 1 << (bucket % BUCKETS);
    }

    /// Where the first occupied bucket of `level` begins.
    fn next_in(&self, level: usize) -> Option<u64> {
        if self.occupied[level] == 0 {
            return None;
        }
        let shift = BITS * level as u32;
        let here = self.now >> shift;
        // The bucket under the hand has been emptied, so an occupied one there is a whole round ahead.
        let from = here + 1;
        let turned = self.occupied[level].rotate_right((from % BUCKETS as u64) as u32);
        Some((from + u64::from(turned.trailing_zeros())) << shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn advance(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn an_entry_is_due_at_its_tick_and_once() {
        let mut wheel = Wheel::new();
        wheel.set(7, 5);
        assert_eq!(advance(&mut wheel, 4), []);
        assert_eq!(advance(&mut wheel, 5), [7]);
        assert_eq!(advance(&mut wheel, 500), []);
    }

    #[test]
    fn the_past_is_due_at_the_next_tick() {
        let mut wheel = Wheel::new();
        advance(&mut wheel, 100);
        wheel.set(1, 3);
        assert_eq!(wheel.next(), Some(101));
        assert_eq!(advance(&mut wheel, 101), [1]);
    }

    #[test]
    fn beyond_its_reach_it_still_keeps_time() {
        let mut wheel = Wheel::new();
        let when = 3 * REACH + 17;
        wheel.set(0, when);
        assert_eq!(advance(&mut wheel, when - 1), []);
        assert_eq!(advance(&mut wheel, when), [0]);
    }

    #[test]
    fn an_empty_wheel_asks_for_no_wake_up() {
        let mut wheel = Wheel::new();
        wheel.set(3, 1000);
        wheel.cancel(3);
        assert_eq!(wheel.next(), None);
    }

    #[derive(Debug, Clone)]
    enum Call {
        Set(u32, u64),
        Cancel(u32),
        Advance(u64),
    }

    fn call() -> impl Strategy<Value = Call> {
        let distance = prop_oneof![0..70u64, 0..5000u64, 0..300_000u64, 0..(REACH * 2)];
        prop_oneof![
            4 => (0..24u32, distance.clone()).prop_map(|(key, by)| Call::Set(key, by)),
            1 => (0..24u32).prop_map(Call::Cancel),
            2 => distance.prop_map(Call::Advance),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(calls in prop::collection::vec(call(), 1..200)) {
            let mut wheel = Wheel::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for call in calls {
                match call {
                    Call::Set(key, by) => {
                        wheel.set(key, now + by);
                        model.insert(key, (now + by).max(now + 1));
                    }
                    Call::Cancel(key) => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    Call::Advance(by) => {
                        now += by;
                        let due = advance(&mut wheel, now);
                        let expected: Vec<u32> =
                            model.iter().filter(|&(_, &when)| when <= now).map(|(&key, _)| key).collect();
                        model.retain(|_, when| *when > now);
                        prop_assert_eq!(due, expected);
                    }
                }
                let first = model.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                prop_assert!(wheel.next() <= first);
                for key in 0..24 {
                    prop_assert_eq!(wheel.due(key), model.get(&key).copied());
                }
            }
        }
    }
}
