use super::output::Payload;
use super::{Callbacks, Reactor};
use crate::buffer::Shared;
use crate::connection::{CloseReason, Key, Peer, Permit, Receipt, Written};
use crate::driver::Driver;
use crate::net::Stream;

/// What another thread asks of a reactor.
#[derive(Debug)]
pub(crate) enum Command<M> {
    Message(M),
    Write {
        key: Key,
        payload: Shared,
        receipt: Option<Receipt>,
    },
    Close(Key),
    Abort(Key),
    /// A connection that another reactor accepted.
    Adopt(Box<Adoption>),
}

#[derive(Debug)]
pub(crate) struct Adoption {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    pub(crate) listener: u16,
    pub(crate) permit: Option<Box<Permit>>,
}

impl<D: Driver, C: Callbacks> Reactor<D, C> {
    /// Carries out what other threads have asked for, at most a budget of it.
    pub(super) fn read_mailbox(&mut self) {
        for _ in 0..self.io.settings.mailbox_budget {
            let Some(command) = self.mailboxes[self.io.index as usize].pop() else { return };
            self.io.counters.commands += 1;
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command<C::Message>) {
        match command {
            Command::Message(message) => self.callbacks.message(&mut self.io, &mut self.driver, message),
            Command::Write { key, payload, receipt } => {
                let written = self.io.write(&mut self.driver, key, Payload::Shared(payload), receipt);
                if written == Written::Closed {
                    self.io.counters.stale_commands += 1;
                }
            }
            Command::Close(key) if self.is_alive(key) => {
                self.io.close(&mut self.driver, key, CloseReason::Local)
            }
            Command::Abort(key) if self.is_alive(key) => self.io.condemn(key, CloseReason::Aborted),
            Command::Close(_) | Command::Abort(_) => self.io.counters.stale_commands += 1,
            Command::Adopt(adoption) => self.adopt(*adoption),
        }
    }

    fn is_alive(&self, key: Key) -> bool {
        self.io.find(self.io.id(key)).is_some()
    }
}
