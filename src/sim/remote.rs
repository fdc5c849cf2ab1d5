use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::Reading;
use crate::connection::Peer;
use crate::driver::sim::{Progress, World};
use crate::net::Address;

/// The other end of one of the server's connections: its socket, and the program that uses it.
///
/// What it is asked to do reaches the server with the simulated network, so in one of the next turns. A
/// clone is another name for the same end.
#[derive(Clone)]
pub struct Remote {
    world: Rc<RefCell<World>>,
    link: usize,
}

impl Remote {
    pub(super) fn new(world: &Rc<RefCell<World>>, link: usize) -> Self {
        Self { world: Rc::clone(world), link }
    }

    /// Who the server says it is: the address it connects from, or the one that was dialed.
    pub fn peer(&self) -> Peer {
        self.world.borrow().peer(self.link)
    }

    /// Where the server dialed to; `None` if the remote connected by itself.
    pub fn dialed(&self) -> Option<Address> {
        self.world.borrow().dialed(self.link)
    }

    /// Sends bytes behind those that were sent before. Nothing comes of it after [`Remote::finish`],
    /// [`Remote::close`] or [`Remote::reset`].
    pub fn send(&self, bytes: &[u8]) {
        self.world.borrow_mut().remote_sends(self.link, bytes);
    }

    /// Ends its side of the stream behind what was sent (FIN), and goes on reading.
    pub fn finish(&self) {
        self.world.borrow_mut().remote_finishes(self.link);
    }

    /// Closes its socket: a FIN, and a reset for everything that the server sends from then on.
    pub fn close(&self) {
        self.world.borrow_mut().remote_closes(self.link);
    }

    /// Resets the connection. What is on its way to the server is lost.
    pub fn reset(&self) {
        self.world.borrow_mut().remote_resets(self.link);
    }

    /// How it reads from now on; promptly unless set or [`Faults::slow_remotes`](super::Faults) chose it.
    pub fn set_reading(&self, reading: Reading) {
        self.world.borrow_mut().remote_reads(self.link, reading);
    }

    /// Everything that it has received so far.
    pub fn received(&self) -> Vec<u8> {
        self.world.borrow().received(self.link).to_vec()
    }

    /// How many bytes it has received so far.
    pub fn received_count(&self) -> usize {
        self.world.borrow().received(self.link).len()
    }

    /// How many bytes it has sent that have not reached the server's kernel.
    pub fn unsent(&self) -> usize {
        self.progress().unsent
    }

    /// Whether the connection stands, or did: the listener's queue has it, or the dial was answered.
    pub fn is_connected(&self) -> bool {
        self.progress().is_connected
    }

    /// Whether it was refused: nobody listens any more.
    pub fn is_refused(&self) -> bool {
        self.progress().is_refused
    }

    /// Whether it has received everything that the server sent, and the end of its stream (FIN).
    pub fn saw_end(&self) -> bool {
        self.progress().saw_end
    }

    /// Whether the server, or its kernel, has reset the connection.
    pub fn saw_reset(&self) -> bool {
        self.progress().saw_reset
    }

    /// Whether it has reset the connection itself, as asked or by a fault.
    pub fn has_reset(&self) -> bool {
        self.progress().has_reset
    }

    /// Whether nothing more will come from the server: its end, a reset, a refusal.
    pub fn is_over(&self) -> bool {
        let progress = self.progress();
        progress.saw_end || progress.saw_reset || progress.has_reset || progress.is_refused
    }

    fn progress(&self) -> Progress {
        self.world.borrow().progress(self.link)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.progress();
        f.debug_struct("Remote")
            .field("peer", &self.peer())
            .field("progress", &progress)
            .finish_non_exhaustive()
    }
}
