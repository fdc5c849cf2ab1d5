//! Connections that went over to another protocol, and are the service's own.

use std::fmt;

use super::Responder;
use super::connection::conn;
use super::layer::Layer;
use crate::{ConnId, Core, Peer, Written};

/// A connection that was upgraded.
///
/// It cannot leave its callback: keep the [`Responder`] or the [`ConnId`] instead; [`Core::write`] and
/// [`Handle::write`](crate::Handle::write) reach it by the latter.
pub struct Upgraded<'a, T: Default + 'static> {
    core: Core<'a>,
    layer: &'a mut Layer<T>,
    index: usize,
}

impl<'a, T: Default + 'static> Upgraded<'a, T> {
    pub(super) fn new(core: Core<'a>, layer: &'a mut Layer<T>, index: usize) -> Self {
        Self { core, layer, index }
    }

    /// What names it.
    pub fn responder(&self) -> Responder {
        self.layer.connections[self.index].responder(self.index, 0)
    }

    /// The connection.
    pub fn id(&self) -> ConnId {
        self.layer.connections[self.index].id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Option<Peer> {
        self.core.peer(self.id())
    }

    /// The state of the exchange that was upgraded.
    pub fn state(&mut self) -> &mut T {
        &mut self.layer.connections[self.index].queue[0].state
    }

    /// Both at a time.
    pub fn state_and_core(&mut self) -> (&mut T, &mut Core<'a>) {
        (&mut self.layer.connections[self.index].queue[0].state, &mut self.core)
    }

    /// The reactor.
    pub fn core(&mut self) -> &mut Core<'a> {
        &mut self.core
    }

    /// Writes bytes, whole or not at all.
    pub fn write(&mut self, bytes: &[u8]) -> Written {
        let id = self.id();
        self.core.write(id, bytes)
    }

    /// Writes several slices as one, whole or not at all.
    pub fn write_slices(&mut self, slices: &[&[u8]]) -> Written {
        let id = self.id();
        self.core.write_slices(id, slices)
    }
}

impl<T: Default> fmt::Debug for Upgraded<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The upgraded connection that a responder names, if it has not ended.
pub(super) fn find<'a, T: Default + 'static>(
    core: &'a mut Core<'_>,
    layer: &'a mut Layer<T>,
    responder: Responder,
) -> Option<Upgraded<'a, T>> {
    let index = responder.index as usize;
    let connection = layer.connections.get(index).filter(|connection| connection.id == responder.id)?;
    let is_it = connection.flags.has(conn::TUNNEL) && connection.position(responder.number) == Some(0);
    (is_it && !connection.flags.has(conn::CLOSED)).then(|| Upgraded::new(core.reborrow(), layer, index))
}
