use slab::Slab;

use super::Key;

/// A slab whose keys go stale: a key finds its value, or nothing, but never another value.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slab: Slab<T>,
    /// The generation of each slot that was ever used.
    generations: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { slab: Slab::new(), generations: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        let slot = self.slab.insert(value);
        if slot == self.generations.len() {
            self.generations.push(1);
        }
        Key { slot: slot as u32, generation: self.generations[slot] }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.slab.get(key.slot as usize).filter(|_| self.generations[key.slot as usize] == key.generation)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        if *self.generations.get(key.slot as usize)? != key.generation {
            return None;
        }
        self.slab.get_mut(key.slot as usize)
    }

    /// The key of whatever is in `slot` now.
    pub(crate) fn key_at(&self, slot: u32) -> Option<Key> {
        self.slab.contains(slot as usize).then(|| Key { slot, generation: self.generations[slot as usize] })
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let generation = &mut self.generations[key.slot as usize];
        *generation = generation.wrapping_add(1).max(1);
        Some(self.slab.remove(key.slot as usize))
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// One more than the highest slot ever used: where a walk over all slots ends.
    pub(crate) fn end(&self) -> u32 {
        self.generations.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn a_key_finds_its_value_or_nothing(removals in prop::collection::vec(any::<Option<u8>>(), 1..300)) {
            let mut slots = Slots::new();
            let mut model: HashMap<Key, usize> = HashMap::new();
            let mut keys = Vec::new();
            for (value, removal) in removals.into_iter().enumerate() {
                match removal {
                    Some(which) if !keys.is_empty() => {
                        let key = keys[which as usize % keys.len()];
                        prop_assert_eq!(slots.remove(key), model.remove(&key));
                    }
                    _ => {
                        let key = slots.insert(value);
                        prop_assert!(key.generation != 0);
                        prop_assert!(model.insert(key, value).is_none(), "a key came twice");
                        keys.push(key);
                    }
                }
                prop_assert_eq!(slots.len(), model.len());
                for key in &keys {
                    prop_assert_eq!(slots.get(*key), model.get(key));
                    let expected = model.get(key).map(|_| *key);
                    prop_assert_eq!(slots.key_at(key.slot).filter(|found| found == key), expected);
                }
            }
        }
    }

    #[test]
    fn a_generation_skips_zero_when_it_wraps() {
        let mut slots = Slots::new();
        let key = slots.insert(());
        slots.generations[0] = u32::MAX;
        let last = Key { generation: u32::MAX, ..key };
        assert_eq!(slots.remove(last), Some(()));
        assert_eq!(slots.insert(()).generation, 1);
    }
}
