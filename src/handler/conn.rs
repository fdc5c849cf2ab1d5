use std::fmt;
use std::io;
use std::time::Duration;

use super::Core;
use crate::buffer::{FileSlice, Shared};
use crate::connection::{ConnId, Connection, Flag, Key, Peer, Receipt, Written};
use crate::net::{Address, SocketOptions};
use crate::reactor::{Backpressure, Payload};
use crate::time::TICK;

/// How a connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Accepted from the server's address of this index, in the order of
    /// [`Running::addresses`](crate::Running::addresses).
    Accepted(usize),
    /// Dialed with [`Core::connect`].
    Dialed,
}

/// The connection that a callback is about.
///
/// What is written through it is gathered and leaves in one system call when the callback returns, except
/// that a write of 8 KiB or more leaves at once, together with what was gathered, uncopied.
///
/// It cannot leave its callback: keep the [`ConnId`] instead.
///
/// ```compile_fail,E0521
/// # use corelane::*;
/// struct Keeper { kept: Option<Conn<'static>> }
/// # impl Handler for Keeper {
/// #    type Session = (); type Message = ();
/// fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<()> {
///     self.kept = Some(*conn);
///     Open::Accept(())
/// }
/// #    fn on_data(&mut self, _: &mut Conn<'_>, _: &mut (), _: &mut Input<'_>) -> Flow { Flow::Close }
/// # }
/// ```
pub struct Conn<'a> {
    core: Core<'a>,
    key: Key,
}

impl<'a> Conn<'a> {
    pub(super) fn new(core: Core<'a>, key: Key) -> Self {
        Self { core, key }
    }

    /// The connection's name, good for ever, on any thread.
    pub fn id(&self) -> ConnId {
        self.core.io.id(self.key)
    }

    /// The reactor with all its other connections.
    pub fn core(&mut self) -> &mut Core<'a> {
        &mut self.core
    }

    /// Writes bytes, whole or not at all.
    pub fn write(&mut self, bytes: &[u8]) -> Written {
        if self.core.io.gather(self.key, bytes) {
            return Written::Accepted;
        }
        self.put(Payload::Slices(&[bytes]), None)
    }

    /// Writes several slices as one, whole or not at all.
    pub fn write_slices(&mut self, slices: &[&[u8]]) -> Written {
        self.put(Payload::Slices(slices), None)
    }

    /// Writes bytes that are shared with other connections and not copied.
    pub fn write_shared(&mut self, bytes: &Shared) -> Written {
        self.put(Payload::Shared(bytes.clone()), None)
    }

    /// Writes bytes and has `receipt` answered when the kernel has taken all of them, or will not.
    pub fn write_with_receipt(&mut self, bytes: &[u8], receipt: Receipt) -> Written {
        self.put(Payload::Slices(&[bytes]), Some(receipt))
    }

    /// Writes a range of a file behind what was written before, on Linux with sendfile(2): its bytes do not pass
    /// through the program. Elsewhere, and where the file system does not lend its pages, they are read and sent
    /// 64 KiB at a time.
    ///
    /// In the course of one turn at most the server's [byte budget](crate::Server::byte_budget) is sent, so that a
    /// large file holds up nobody. What waits of it is no memory: against the watermarks and the cap a file counts
    /// 8 KiB, however long it is. Whoever wants to know when it has left writes it with a receipt.
    ///
    /// A file that turns out shorter than its range ends the connection with a reset and
    /// [`CloseReason::FileTruncated`](crate::CloseReason::FileTruncated); one that cannot be read, with
    /// [`CloseReason::Io`](crate::CloseReason::Io). Reading what is not in the page cache makes the reactor wait
    /// for the disk.
    pub fn write_file(&mut self, file: FileSlice) -> Written {
        self.put(Payload::File(file), None)
    }

    /// As [`Conn::write_file`], and has `receipt` answered.
    pub fn write_file_with_receipt(&mut self, file: FileSlice, receipt: Receipt) -> Written {
        self.put(Payload::File(file), Some(receipt))
    }

    /// Bytes written that the kernel has not taken yet, those of files included.
    pub fn pending_output(&self) -> usize {
        self.core.io.pending(self.key)
    }

    /// Ends our side of the stream behind what was written (`shutdown(SHUT_WR)`); the peer may go on
    /// sending. Later writes answer [`Written::Closed`].
    pub fn finish(&mut self) {
        let Core { io, port, .. } = &mut self.core;
        io.finish_sending(*port, self.key);
    }

    /// Stops reading: `on_data` comes no more until [`Conn::resume`], and the peer will feel the
    /// backpressure of TCP. The end of the peer's stream is not noticed meanwhile; a reset is.
    pub fn pause(&mut self) {
        self.core.io.pause(self.key);
    }

    /// Reads again. Input that was left unconsumed is shown again even if nothing new has come.
    pub fn resume(&mut self) {
        self.core.io.resume(self.key);
    }

    /// Whether the handler has paused it.
    pub fn is_paused(&self) -> bool {
        self.state(false, |connection| connection.has(Flag::Paused))
    }

    /// Whether the reactor stops reading from this connection by itself while its output is above the high
    /// watermark. The server's setting until changed here.
    pub fn set_backpressure(&mut self, backpressure: Backpressure) {
        if let Some(connection) = self.core.io.connections.get_mut(self.key) {
            connection.assign(Flag::Automatic, backpressure == Backpressure::Automatic);
        }
    }

    /// Another idle deadline than the server's for this connection, or none. It counts from the last byte
    /// that moved, or from now where there was none before. Up to 24 days.
    pub fn set_idle_deadline(&mut self, deadline: Option<Duration>) {
        self.core.io.set_idle_deadline(self.key, deadline);
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.state(Peer::Unix, Connection::peer)
    }

    /// How the connection came to be.
    pub fn origin(&self) -> Origin {
        self.state(Origin::Dialed, |connection| {
            if connection.has(Flag::Dialed) {
                Origin::Dialed
            } else {
                Origin::Accepted(connection.listener.into())
            }
        })
    }

    /// In `on_open` of a dialed connection, what [`Dial::token`](crate::Dial::token) was given; `None` at any
    /// other time.
    pub fn dial_token(&self) -> Option<u64> {
        self.core.io.dial_token(self.key)
    }

    /// Our end's address; asks the kernel.
    ///
    /// # Errors
    ///
    /// What getsockname(2) says.
    pub fn local_address(&self) -> io::Result<Address> {
        self.core.port.local_address(self.key.slot)
    }

    /// Sets socket options of this one connection: `nodelay` as it says, of the others those that are
    /// given. Those for listeners are ignored here.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a value out of range, else what the kernel says;
    /// both name the option.
    pub fn set_options(&mut self, options: &SocketOptions) -> io::Result<()> {
        options.check().map_err(|(field, value, accepted)| {
            let text = format!("socket option {field}: {value} is not within {accepted}");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        self.core.port.set_options(self.key.slot, options)
    }

    /// Bytes received on this connection.
    pub fn bytes_in(&self) -> u64 {
        self.state(0, |connection| connection.bytes_in)
    }

    /// Bytes of this connection that the kernel has taken.
    pub fn bytes_out(&self) -> u64 {
        self.state(0, |connection| connection.bytes_out)
    }

    /// How long ago it was accepted or dialed, to 10 ms.
    pub fn age(&self) -> Duration {
        let now = self.core.io.tick();
        let ticks = self.state(0, |connection| now.wrapping_sub(connection.opened));
        Duration::from_nanos(u64::from(ticks) * TICK)
    }

    fn put(&mut self, payload: Payload<'_>, receipt: Option<Receipt>) -> Written {
        self.core.io.write(self.core.port, self.key, payload, receipt)
    }

    /// The connection cannot go while its callback runs, so the default is never seen.
    fn state<T>(&self, default: T, look: impl FnOnce(&Connection) -> T) -> T {
        self.core.io.connections.get(self.key).map_or(default, look)
    }
}

impl fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.id()).field("peer", &self.peer()).finish_non_exhaustive()
    }
}
