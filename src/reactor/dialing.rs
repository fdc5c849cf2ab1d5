//! Connections that we open: the id at once, the outcome as a callback.

use std::fmt;
use std::io;

use super::{Callbacks, Io, Reactor};
use crate::connection::{CloseReason, ConnId, Connection, Flag, Key, Peer, Phase};
use crate::driver::{Driver, Ending, Port, Readiness};
use crate::net::{Address, Dial, DialFailure};
use crate::time::ticks;

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError {
    /// Where to.
    pub address: Address,
    /// What [`Dial::token`] was given.
    pub token: u64,
    /// What happened.
    pub problem: ConnectProblem,
}

/// What can happen to a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectProblem {
    /// Nothing came back within the dial's timeout.
    TimedOut,
    /// Nobody listens there (`ECONNREFUSED`; for a Unix path also `ENOENT`).
    Refused,
    /// Every port of this host towards that address is in use (`EADDRNOTAVAIL`). Widen
    /// `net.ipv4.ip_local_port_range`, or dial from further local addresses with [`Dial::from_ip`].
    PortsExhausted,
    /// This host does not have the address given to [`Dial::from_ip`].
    NoSuchLocalAddress,
    /// A socket option is out of range (`EINVAL`) or was refused by the kernel.
    Option {
        /// Its name, as the field of [`SocketOptions`](crate::SocketOptions) is called.
        name: &'static str,
        /// What the kernel said.
        errno: i32,
    },
    /// The process or the host has no descriptor left (`EMFILE`, `ENFILE`).
    DescriptorsExhausted,
    /// There is no way to that address (`ENETUNREACH`, `EHOSTUNREACH`).
    Unreachable,
    /// A Unix listener's queue is full (`EAGAIN`): try again later.
    QueueFull,
    /// The server is shutting down.
    ShuttingDown,
    /// What was written to it meanwhile met the output cap, under
    /// [`SlowConsumer::Close`](crate::SlowConsumer::Close).
    OutputOverflow,
    /// Another error of the kernel's, by its `errno`.
    Io(i32),
}

impl From<DialFailure> for ConnectProblem {
    fn from(failure: DialFailure) -> Self {
        match failure {
            DialFailure::Option(name, errno) => Self::Option { name, errno },
            DialFailure::LocalAddress => Self::NoSuchLocalAddress,
            DialFailure::Kernel(error) => Self::of_error(&error),
        }
    }
}

impl ConnectProblem {
    fn of_error(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ENOENT) => Self::Refused,
            Some(libc::EADDRNOTAVAIL) => Self::PortsExhausted,
            Some(libc::EMFILE | libc::ENFILE) => Self::DescriptorsExhausted,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Self::Unreachable,
            Some(libc::ETIMEDOUT) => Self::TimedOut,
            Some(libc::EAGAIN) => Self::QueueFull,
            Some(errno) => Self::Io(errno),
            None => Self::Io(0),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}: ", self.address)?;
        match self.problem {
            ConnectProblem::TimedOut => f.write_str("timed out"),
            ConnectProblem::Refused => f.write_str("nobody listens there"),
            ConnectProblem::PortsExhausted => f.write_str(
                "no local port left towards it (widen net.ipv4.ip_local_port_range or dial from more addresses)",
            ),
            ConnectProblem::NoSuchLocalAddress => f.write_str("this host does not have the local address"),
            ConnectProblem::Option { name, errno } => {
                write!(f, "socket option {name}: {}", io::Error::from_raw_os_error(errno))
            }
            ConnectProblem::DescriptorsExhausted => f.write_str("no file descriptor left (RLIMIT_NOFILE)"),
            ConnectProblem::Unreachable => f.write_str("unreachable"),
            ConnectProblem::QueueFull => f.write_str("its queue is full"),
            ConnectProblem::ShuttingDown => f.write_str("the server is shutting down"),
            ConnectProblem::OutputOverflow => f.write_str("what was written to it met the output cap"),
            ConnectProblem::Io(errno) => io::Error::from_raw_os_error(errno).fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

/// A dial until its outcome has been told.
#[derive(Debug)]
pub(super) struct PendingDial {
    address: Address,
    token: u64,
}

impl Io {
    /// Begins to connect. Whatever becomes of it is told later, never from within this call.
    pub(crate) fn connect<P: Port + ?Sized>(&mut self, port: &mut P, dial: &Dial) -> ConnId {
        let tick = self.tick();
        let peer = match dial.to {
            Address::Tcp(address) => Peer::Tcp(address),
            Address::Unix(_) | Address::Abstract(_) => Peer::Unix,
        };
        let mut connection = Connection::new(peer, Phase::Connecting, tick);
        connection.set(Flag::Dialed);
        if !dial.timeout.is_zero() {
            // 0 stands for none, which a wrapped tick could be by accident.
            connection.until = tick.wrapping_add(ticks(dial.timeout)).max(1);
        }
        let key = self.connections.insert(connection);
        self.counters.dialed += 1;
        self.counters.active += 1;
        self.dials.insert(key, PendingDial { address: dial.to.clone(), token: dial.token });
        let problem = if self.draining {
            Some(ConnectProblem::ShuttingDown)
        } else {
            port.dial(key, dial).err().map(|failure| {
                if let DialFailure::Kernel(error) = &failure {
                    self.counters.count_error(error.raw_os_error().unwrap_or(0));
                }
                failure.into()
            })
        };
        match problem {
            Some(problem) => self.fail_dial(key, problem),
            None => self.arm(key),
        }
        self.id(key)
    }

    pub(super) fn fail_dial(&mut self, key: Key, problem: ConnectProblem) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase != Phase::Connecting {
            return;
        }
        connection.phase = Phase::Dead;
        connection.blame(CloseReason::Local);
        self.wheel.cancel(key.slot);
        self.counters.dial_failures += 1;
        if let Some(PendingDial { address, token }) = self.dials.remove(&key) {
            self.failed_dials.push_back((key, ConnectError { address, token, problem }));
        }
    }

    /// What the dial was given to be known by; while its outcome is being told.
    pub(crate) fn dial_token(&self, key: Key) -> Option<u64> {
        self.dials.get(&key).map(|dial| dial.token)
    }
}

impl<D: Driver, C: Callbacks> Reactor<D, C> {
    /// An edge of a connection that is being opened.
    pub(super) fn dial_ready(&mut self, key: Key, readiness: Readiness) {
        match self.driver.is_connected(key.slot) {
            Ok(false) => {}
            Ok(true) => {
                let tick = self.io.tick();
                let Some(connection) = self.io.connections.get_mut(key) else { return };
                connection.phase = Phase::Open;
                connection.active = tick;
                self.io.counters.connected += 1;
                self.offer(key);
                self.io.dials.remove(&key);
                // The edge may also have announced input, or the end of it.
                self.ready(key, Readiness { writable: false, ..readiness });
            }
            Err(error) => {
                self.io.counters.count_error(error.raw_os_error().unwrap_or(0));
                self.io.fail_dial(key, ConnectProblem::of_error(&error));
            }
        }
    }

    pub(super) fn dial_timed_out(&mut self, key: Key) {
        self.io.fail_dial(key, ConnectProblem::TimedOut);
    }

    /// Fails every dial that is under way.
    pub(super) fn cancel_dials(&mut self) {
        for slot in 0..self.io.connections.end() {
            if let Some(key) = self.io.connections.key_at(slot) {
                self.io.fail_dial(key, ConnectProblem::ShuttingDown);
            }
        }
    }

    pub(super) fn report_failed_dial(&mut self, key: Key, error: ConnectError) {
        self.close_failed_dial(key);
        self.callbacks.connect_error(&mut self.io, &mut self.driver, key, error);
    }

    /// Ends failed dials that nobody will be told of.
    pub(super) fn forget_failed_dials(&mut self) {
        while let Some((key, _)) = self.io.failed_dials.pop_front() {
            self.close_failed_dial(key);
        }
        self.reap();
    }

    fn close_failed_dial(&mut self, key: Key) {
        self.io.fail_receipts(key);
        self.driver.close(key.slot, Ending::Orderly);
        let outbox = self.io.connections.get_mut(key).and_then(|connection| connection.outbox.take());
        if let Some(outbox) = outbox {
            self.io.pools.give_outbox(outbox);
        }
        self.io.counters.active -= 1;
        self.io.dead.push(key);
    }
}
