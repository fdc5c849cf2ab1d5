//! New connections: taken from the kernel within a budget, counted in, given to a reactor, offered to the
//! handler. Running out of descriptors or memory pauses accepting, and nothing else.

use std::io::{self, ErrorKind};

use super::command::{Adoption, Command};
use super::{Backpressure, Callbacks, Mailbox, Offer, Policy, Reactor, Rejected, Then};
use crate::connection::{CloseReason, Connection, Flag, Flow, Full, Key, Peer, Permit, Phase};
use crate::driver::Driver;
use crate::net::Stream;
use crate::time::Nanos;

/// The first pause after the kernel had no descriptor or memory for a connection; it doubles up to the
/// longest. Descriptors that a connection of ours frees end it at once.
const FIRST_PAUSE: Nanos = 10_000_000;
const LONGEST_PAUSE: Nanos = 1_000_000_000;

/// Errors of one connection, behind which others may wait: it ended while it was queued, the firewall
/// refused it, or Linux passes on an error of its network (accept(2), "Error handling").
const PASSING: [i32; 10] = [
    libc::ECONNABORTED,
    libc::EPERM,
    libc::EPROTO,
    libc::ENOPROTOOPT,
    libc::ENETDOWN,
    libc::ENETUNREACH,
    libc::EHOSTDOWN,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
    libc::ECONNRESET,
];

const LOG_INTERVAL: Nanos = 1_000_000_000;

/// One of the server's addresses as this reactor sees it.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// Who gets its connections; `None`: the kernel has spread them, each reactor keeps its own.
    policy: Option<Policy>,
    /// Connections may be waiting.
    is_ready: bool,
}

impl Acceptor {
    pub(super) fn new(policy: Option<Policy>) -> Self {
        Self { policy, is_ready: false }
    }
}

/// Accepting waits for descriptors or memory.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// When to try again; 0 where there is no pause.
    until: Nanos,
    length: Nanos,
    logged: Option<Nanos>,
}

/// What came of one attempt.
enum Accepted {
    Taken,
    /// The error was of one connection: there may be more behind it.
    Skipped,
    NobodyWaiting,
    Exhausted,
}

impl<D: Driver, C: Callbacks> Reactor<D, C> {
    pub(super) fn accept_ready(&mut self, listener: u16) {
        if let Some(acceptor) = self.acceptors.get_mut(listener as usize) {
            acceptor.is_ready = true;
        }
    }

    /// Whether connections are known to wait and may be taken now.
    pub(super) fn can_accept(&self) -> bool {
        self.pause.until == 0 && self.acceptors.iter().any(|acceptor| acceptor.is_ready)
    }

    /// When accepting goes on by itself.
    pub(super) fn accepting_resumes(&self) -> Option<Nanos> {
        (self.pause.until != 0).then_some(self.pause.until)
    }

    pub(super) fn resume_accepting(&mut self) {
        self.pause.until = 0;
    }

    /// Takes connections from all listeners that have some, each within the budget of a turn.
    pub(super) fn accept_some(&mut self) {
        if self.pause.until > self.io.now() {
            return;
        }
        self.pause.until = 0;
        for listener in 0..self.acceptors.len() {
            let mut budget = self.io.settings.accept_budget;
            while budget > 0 && self.acceptors[listener].is_ready && self.pause.until == 0 {
                budget -= 1;
                self.accept(listener as u16);
            }
        }
    }

    /// Takes what the kernel has queued and stops listening: a listener that is closed with connections in
    /// its queue makes the kernel reset them.
    pub(super) fn stop_accepting(&mut self) {
        self.pause = Pause::default();
        for listener in 0..self.acceptors.len() as u16 {
            // Others may go on connecting as fast as we accept; a queue's length is enough.
            let mut left = 2 * 65_536;
            while left > 0 && matches!(self.accept(listener), Accepted::Taken | Accepted::Skipped) {
                left -= 1;
            }
            self.driver.close_listener(listener);
        }
        self.acceptors.clear();
    }

    fn accept(&mut self, listener: u16) -> Accepted {
        match self.driver.accept(listener) {
            Ok((socket, peer)) => {
                self.pause.length = 0;
                self.place(socket, peer, listener);
                Accepted::Taken
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.acceptors[listener as usize].is_ready = false;
                Accepted::NobodyWaiting
            }
            Err(error) => self.accept_failed(&error),
        }
    }

    fn accept_failed(&mut self, error: &io::Error) -> Accepted {
        self.io.counters.accept_errors += 1;
        self.io.counters.count_error(error.raw_os_error().unwrap_or(0));
        if error.raw_os_error().is_some_and(|errno| PASSING.contains(&errno)) {
            return Accepted::Skipped;
        }
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, or something unheard of: trying again at once would spin.
        self.io.counters.accept_pauses += 1;
        let pause = &mut self.pause;
        pause.length = (pause.length * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        pause.until = self.io.now() + pause.length;
        if pause.logged.is_none_or(|logged| self.io.now() >= logged + LOG_INTERVAL) {
            pause.logged = Some(self.io.now());
            tracing::warn!(
                reactor = self.io.index,
                %error,
                open = self.io.counters.active,
                "cannot accept; serving on and trying again"
            );
        }
        Accepted::Exhausted
    }

    /// Counts an accepted connection in and gives it to its reactor.
    fn place(&mut self, socket: D::Socket, peer: Peer, listener: u16) {
        let source = peer.tcp().map(|address| address.ip().to_canonical());
        let permit = match self.admission.as_ref().map(|admission| admission.admit(source)) {
            None => None,
            Some(Ok(permit)) => Some(Box::new(permit)),
            Some(Err(full)) => {
                match full {
                    Full::Server => self.io.counters.shed_by_server_cap += 1,
                    Full::Source => self.io.counters.shed_by_source_cap += 1,
                }
                return;
            }
        };
        let here = self.io.index as usize;
        let chosen = match self.acceptors[listener as usize].policy {
            // During a shutdown others may be ending already.
            Some(policy) if self.control.asked().is_none() => self.placement.choose(policy, peer),
            _ => here,
        };
        if chosen == here {
            return self.take_in(socket, peer, listener, permit);
        }
        match self.driver.export(socket) {
            Ok(stream) => self.hand_over(chosen, Adoption { stream, peer, listener, permit }),
            Err(socket) => self.take_in(socket, peer, listener, permit),
        }
    }

    fn hand_over(&mut self, reactor: usize, adoption: Adoption) {
        let mailbox: &Mailbox<Command<C::Message>> = &self.mailboxes[reactor];
        match mailbox.push(Command::Adopt(Box::new(adoption)), 0) {
            Ok(()) => self.io.counters.handed_over += 1,
            // A reactor that is so far behind gets nothing more; the connection stays here.
            Err(Rejected::Full(Command::Adopt(adoption)) | Rejected::Closed(Command::Adopt(adoption))) => {
                self.placement.stays(self.io.index.into(), reactor);
                self.adopt(*adoption);
            }
            Err(_) => {}
        }
    }

    /// Takes over a connection that another reactor accepted.
    pub(super) fn adopt(&mut self, adoption: Adoption) {
        let Adoption { stream, peer, listener, permit } = adoption;
        if let Some(socket) = self.import(stream) {
            self.take_in(socket, peer, listener, permit);
        }
    }

    fn import(&mut self, stream: Stream) -> Option<D::Socket> {
        self.driver.import(stream)
    }

    /// Gives an accepted connection its slot, watches it, and offers it to the handler.
    fn take_in(&mut self, socket: D::Socket, peer: Peer, listener: u16, permit: Option<Box<Permit>>) {
        let mut connection = Connection::new(peer, Phase::Open, self.io.tick());
        connection.listener = listener;
        connection.permit = permit;
        let key = self.io.connections.insert(connection);
        if let Err(error) = self.driver.install(key, socket) {
            // ENOMEM, or ENOSPC where fs.epoll.max_user_watches is met.
            self.io.counters.accept_errors += 1;
            self.io.counters.count_error(error.raw_os_error().unwrap_or(0));
            tracing::warn!(reactor = self.io.index, %error, %peer, "cannot watch an accepted connection");
            self.io.connections.remove(key);
            self.io.counters.accepted += 1;
            self.io.counters.accepted_ended += 1;
            return;
        }
        self.io.counters.accepted += 1;
        self.io.counters.active += 1;
        if let Some(drain) = &mut self.drain {
            drain.asked = drain.asked.min(key.slot);
            drain.open_at_start += 1;
        }
        self.offer(key);
    }

    /// Asks the handler whether it wants a new connection, accepted or dialed.
    pub(super) fn offer(&mut self, key: Key) {
        let Some(connection) = self.io.connections.get_mut(key) else { return };
        connection.idle = self.io.settings.periods.idle;
        let automatic = self.io.settings.backpressure == Backpressure::Automatic;
        connection.assign(Flag::Automatic, automatic);
        self.io.begin(key);
        let offer = self.callbacks.open(&mut self.io, &mut self.driver, key);
        if offer == Offer::Accepted
            && let Some(connection) = self.io.connections.get_mut(key)
        {
            connection.set(Flag::Opened);
        }
        let then = if offer == Offer::Panicked { Then::Panicked } else { Then::Flow(Flow::Continue) };
        self.finish(key, then);
        match offer {
            Offer::Accepted => self.io.arm(key),
            Offer::Refused => {
                self.io.counters.refused += 1;
                self.io.close(&mut self.driver, key, CloseReason::Local);
            }
            Offer::Panicked => self.apply(key, then),
        }
    }
}
