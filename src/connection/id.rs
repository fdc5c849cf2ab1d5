use std::fmt;

/// Names one connection, for ever: after it has closed, no other connection answers to its id.
///
/// An id is the reactor, the slot in that reactor's table, and the slot's generation, which changes each
/// time the slot is freed. A generation is 32 bits wide, so an id would have to be kept while its slot
/// is reused four thousand million times before it could be mistaken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) key: Key,
    pub(crate) reactor: u16,
}

impl ConnId {
    /// The index of the reactor that the connection lives on, counted from 0.
    pub fn reactor(self) -> usize {
        self.reactor.into()
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.reactor, self.key.slot, self.key.generation)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// A [`ConnId`] within its reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    /// Never 0, which the driver uses for what is not a connection.
    pub(crate) generation: u32,
}
