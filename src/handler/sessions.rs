use std::num::NonZeroU32;

use crate::connection::{ConnId, Key};

/// The sessions of one reactor's connections, for callbacks that are not about one of them.
///
/// It is apart from [`Core`](super::Core), so that one can be walked while the other writes:
///
/// ```
/// # use corelane::{Core, Sessions, Shared};
/// fn broadcast(text: &Shared, sessions: &Sessions<String>, core: &mut Core<'_>) {
///     for (id, nickname) in sessions {
///         if nickname != "nobody" {
///             core.write_shared(id, text);
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Sessions<S> {
    reactor: u16,
    /// By slot, with the generation that the session belongs to: never 0, so an empty session takes no more
    /// than that.
    slots: Vec<Option<(NonZeroU32, S)>>,
}

impl<S> Sessions<S> {
    pub(super) const fn new(reactor: u16) -> Self {
        Self { reactor, slots: Vec::new() }
    }

    /// The session of an open connection of this reactor.
    pub fn get(&self, id: ConnId) -> Option<&S> {
        let (generation, session) = self.slots.get(id.key.slot as usize)?.as_ref()?;
        (generation.get() == id.key.generation && id.reactor == self.reactor).then_some(session)
    }

    /// As [`Sessions::get`], to change it.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut S> {
        if id.reactor != self.reactor {
            return None;
        }
        self.at(id.key)
    }

    /// All of them, in an order that stays the same while none comes or goes.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (ConnId, &S)> {
        let reactor = self.reactor;
        self.slots.iter().enumerate().filter_map(move |(slot, entry)| {
            let (generation, session) = entry.as_ref()?;
            Some((id(reactor, slot, generation.get()), session))
        })
    }

    /// As [`Sessions::iter`], to change them.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (ConnId, &mut S)> {
        let reactor = self.reactor;
        self.slots.iter_mut().enumerate().filter_map(move |(slot, entry)| {
            let (generation, session) = entry.as_mut()?;
            Some((id(reactor, slot, generation.get()), session))
        })
    }

    #[inline]
    pub(super) fn at(&mut self, key: Key) -> Option<&mut S> {
        let (generation, session) = self.slots.get_mut(key.slot as usize)?.as_mut()?;
        (generation.get() == key.generation).then_some(session)
    }

    pub(super) fn insert(&mut self, key: Key, session: S) {
        let slot = key.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = NonZeroU32::new(key.generation).map(|generation| (generation, session));
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<S> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        entry.take_if(|(generation, _)| generation.get() == key.generation).map(|(_, session)| session)
    }
}

impl<'a, S> IntoIterator for &'a Sessions<S> {
    type Item = (ConnId, &'a S);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

fn id(reactor: u16, slot: usize, generation: u32) -> ConnId {
    let key = Key { slot: slot as u32, generation };
    ConnId { key, reactor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_answers_to_its_own_id_alone() {
        let mut sessions = Sessions::new(3);
        let key = Key { slot: 5, generation: 7 };
        sessions.insert(key, "mine");
        assert_eq!(sessions.get(id(3, 5, 7)), Some(&"mine"));
        for stale in [id(3, 5, 6), id(3, 4, 7), id(3, 900, 7), id(2, 5, 7)] {
            assert_eq!(sessions.get(stale), None, "{stale}");
            assert_eq!(sessions.get_mut(stale), None, "{stale}");
        }
        assert_eq!(sessions.iter().map(|(id, _)| id).collect::<Vec<_>>(), [id(3, 5, 7)]);
        assert_eq!(sessions.remove(Key { slot: 5, generation: 6 }), None);
        assert_eq!(sessions.remove(key), Some("mine"));
        assert_eq!(sessions.remove(key), None);
    }
}
