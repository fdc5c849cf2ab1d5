//! The one seam to the kernel: what a reactor asks of sockets, clock and poller.
//!
//! Called by `reactor` alone, which is generic over [`Driver`], so the seam costs the real path nothing.
//! Two implementations: [`mio`] (the kernel) and, with the feature `sim`, [`sim`] (a seeded imitation).
//!
//! The contract, which both keep and a completion-based driver could keep too:
//!
//! - A socket belongs to the driver from [`Driver::install`] to [`Driver::close`] and is named by the slot
//!   of its connection.
//! - Events are edges. After [`Event::Ready`] the reactor asks for input until the driver says that there
//!   is no more (`more: false`, `Empty`, `End`, an error); only then does another edge announce input.
//!   Likewise for output after [`Sent::room`] was `false` or a send would have blocked.
//! - The driver hands over bytes, not readiness: [`Driver::receive`] answers with a lease on bytes that
//!   have arrived, whoever moved them and when. A lease goes back with [`Driver::release`].
//! - Events may be spurious, repeated and in any order between sockets.
//! - `EINTR` never comes through: the driver tries again.

mod mio;
#[cfg(feature = "sim")]
pub(crate) mod sim;

pub(crate) use self::mio::MioDriver;

use std::io::{self, IoSlice};
use std::ops::Deref;
use std::time::Instant;

use crate::buffer::FileSlice;
use crate::connection::{Key, Peer};
use crate::net::{Address, Dial, DialFailure, SocketOptions, Stream};
use crate::time::Nanos;

/// What has happened to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Connections may be waiting on this listener.
    Accept(u16),
    Ready(Key, Readiness),
    /// Another thread woke the reactor.
    Woken,
    /// The process was sent a signal that this driver was asked to tell of.
    Signalled(i32),
}

/// Hints, except `readable` and `writable`, which a driver must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer's stream ends behind what can be read now, or a read may for another reason end before all of it: reads
    /// go on until nothing comes.
    pub(crate) ended: bool,
    /// The connection is broken, or a dial failed.
    pub(crate) failed: bool,
}

/// How long to wait for events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    /// Until this time, which a timer of the user's asked for: as exactly as the platform can.
    Exactly(Nanos),
    /// Until about this time, rather later than earlier.
    Roughly(Nanos),
    ForEver,
}

/// What came of an attempt to receive.
#[derive(Debug)]
pub(crate) enum Received<L> {
    Data {
        lease: L,
        /// Whether it is worth asking again before the next edge.
        more: bool,
    },
    /// The peer has ended its stream.
    End,
    /// Nothing is there: the call was for nothing.
    Empty,
    Failed(io::Error),
}

/// What the kernel took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) bytes: usize,
    /// Whether it may take more before the next edge.
    pub(crate) room: bool,
}

/// How a socket is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Orderly,
    Reset,
}

/// Wakes one reactor's driver from its poll, from any thread.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
}

/// The part of a driver that callbacks reach, through `Core` and `Conn`: those are not generic, so here,
/// and nowhere else, the call is a virtual one. It is made for large writes and rare things.
pub(crate) trait Port {
    /// At most `IOV_MAX` slices.
    fn send(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<Sent>;

    /// As `send`, where more follows at once: the kernel may wait with the last segment for it.
    fn send_ahead(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<Sent>;

    /// Sends from the beginning of `file`, at most `most` bytes. [`io::ErrorKind::UnexpectedEof`]: the file has
    /// nothing there.
    fn send_file(&mut self, slot: u32, file: &FileSlice, most: usize) -> io::Result<Sent>;

    /// Shuts down the sending side.
    fn shut_down(&mut self, slot: u32);

    /// Begins to connect and installs the socket under `key`.
    fn dial(&mut self, key: Key, dial: &Dial) -> Result<(), DialFailure>;

    fn set_options(&mut self, slot: u32, options: &SocketOptions) -> io::Result<()>;

    fn local_address(&self, slot: u32) -> io::Result<Address>;
}

pub(crate) trait Driver: Port {
    /// A socket that has no slot yet.
    type Socket;
    /// Received bytes, for as long as a callback looks at them.
    type Lease: Deref<Target = [u8]>;

    /// When the driver was made: time zero.
    fn epoch(&self) -> Instant;

    /// Time since then.
    fn now(&mut self) -> Nanos;

    /// Appends what happened to `events`.
    fn poll(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()>;

    /// Whether more may have happened than the last poll had room for.
    fn has_more_events(&self) -> bool;

    fn accept(&mut self, listener: u16) -> io::Result<(Self::Socket, Peer)>;

    /// Stops listening. Connections that the kernel still queues are reset by it.
    fn close_listener(&mut self, listener: u16);

    /// Takes over an accepted socket and watches it from now on.
    fn install(&mut self, key: Key, socket: Self::Socket) -> io::Result<()>;

    /// `to_the_end`: the kernel has announced the end of the stream, so a short read is not the last.
    fn receive(&mut self, slot: u32, to_the_end: bool) -> Received<Self::Lease>;

    fn release(&mut self, lease: Self::Lease);

    /// Whether a dialed connection stands; `false` while the kernel has not said.
    fn is_connected(&mut self, slot: u32) -> io::Result<bool>;

    fn close(&mut self, slot: u32, ending: Ending);

    /// Turns an accepted socket into one that another reactor's driver can import; the socket itself where
    /// that cannot be.
    fn export(&mut self, socket: Self::Socket) -> Result<Stream, Self::Socket>;

    /// The reverse of [`Driver::export`]; `None` where that cannot be.
    fn import(&mut self, stream: Stream) -> Option<Self::Socket>;
}
