use std::fmt;
use std::time::{Duration, Instant};

use crate::buffer::{FileSlice, Shared};
use crate::connection::{CloseReason, ConnId, Key, Peer, Receipt, Written};
use crate::driver::Port;
use crate::net::Dial;
use crate::reactor::{Io, Payload};
use crate::time::TimerId;

/// The reactor, as its callbacks see it: every connection of it by id, timers, dialing.
///
/// An id of another reactor, or of a connection that has ended, is stale here: calls answer so and do
/// nothing. To reach a connection of another reactor, use a [`Handle`](super::Handle).
///
/// A `Core` stays on its reactor:
///
/// ```compile_fail,E0277
/// fn needs_send<T: Send>(_: T) {}
/// fn callback(core: corelane::Core<'_>) {
///     needs_send(core);
/// }
/// ```
pub struct Core<'a> {
    pub(super) io: &'a mut Io,
    pub(super) port: &'a mut dyn Port,
}

impl Core<'_> {
    /// The index of this reactor, counted from 0.
    pub fn reactor(&self) -> usize {
        self.io.index.into()
    }

    /// The time at which this turn of the reactor began. The clock is read once a turn, not once a call.
    pub fn now(&self) -> Instant {
        self.io.epoch + Duration::from_nanos(self.io.now())
    }

    /// Whether the connection lives.
    pub fn is_open(&self, id: ConnId) -> bool {
        self.io.find(id).is_some()
    }

    /// How many connections live on this reactor, dialed ones included.
    pub fn connections(&self) -> usize {
        self.io.counters.active as usize
    }

    /// Writes to a connection: its bytes leave at the end of the turn, or of the callback if it is the
    /// connection's own, or at once where more than the high watermark has gathered. A write of 8 KiB or more
    /// leaves at once, uncopied, with what waited before it.
    pub fn write(&mut self, id: ConnId, bytes: &[u8]) -> Written {
        if id.reactor == self.io.index && self.io.gather(id.key, bytes) {
            return Written::Accepted;
        }
        self.put(id, Payload::Slices(&[bytes]), None)
    }

    /// Writes several slices as one, whole or not at all.
    pub fn write_slices(&mut self, id: ConnId, slices: &[&[u8]]) -> Written {
        self.put(id, Payload::Slices(slices), None)
    }

    /// Writes bytes that are shared with other connections and not copied. The first such payload of a turn
    /// leaves at once, and is with the kernel when this returns; what is written to the connection behind it
    /// leaves at the end of the turn.
    #[inline]
    pub fn write_shared(&mut self, id: ConnId, bytes: &Shared) -> Written {
        if id.reactor == self.io.index
            && let Some(written) = self.io.pass_on(self.port, id.key, bytes)
        {
            return written;
        }
        self.put(id, Payload::Shared(bytes.clone()), None)
    }

    /// As [`Core::write_shared`], and has `receipt` answered.
    pub fn write_with_receipt(&mut self, id: ConnId, bytes: &Shared, receipt: Receipt) -> Written {
        self.put(id, Payload::Shared(bytes.clone()), Some(receipt))
    }

    /// Writes a range of a file behind what was written before, as
    /// [`Conn::write_file`](crate::Conn::write_file) does. It leaves at the end of the turn.
    pub fn write_file(&mut self, id: ConnId, file: FileSlice) -> Written {
        self.put(id, Payload::File(file), None)
    }

    /// As [`Core::write_file`], and has `receipt` answered.
    pub fn write_file_with_receipt(&mut self, id: ConnId, file: FileSlice, receipt: Receipt) -> Written {
        self.put(id, Payload::File(file), Some(receipt))
    }

    /// Closes a connection in good order, as [`Flow::Close`](crate::Flow::Close) does. Whether it lived.
    ///
    /// A dial that is still under way is given up; no callback follows it.
    pub fn close(&mut self, id: ConnId) -> bool {
        self.with(id, |io, port, key| io.close(port, key, CloseReason::Local))
    }

    /// Resets a connection, as [`Flow::Abort`](crate::Flow::Abort) does. Whether it lived.
    pub fn abort(&mut self, id: ConnId) -> bool {
        self.with(id, |io, _, key| io.condemn(key, CloseReason::Aborted))
    }

    /// Ends the sending side of a connection behind what was written; the peer may go on sending.
    /// Whether it lived.
    pub fn finish(&mut self, id: ConnId) -> bool {
        self.with(id, |io, port, key| io.finish_sending(port, key))
    }

    /// Stops reading from a connection: its peer will feel the backpressure of TCP. Whether it lived.
    pub fn pause(&mut self, id: ConnId) -> bool {
        self.with(id, |io, _, key| io.pause(key))
    }

    /// Reads again from a paused connection. Input that was left unconsumed is shown again even if nothing
    /// new has come. Whether it lived.
    pub fn resume(&mut self, id: ConnId) -> bool {
        self.with(id, |io, _, key| io.resume(key))
    }

    /// Bytes written to a connection that the kernel has not taken, those of files included; `None` if it has
    /// ended.
    pub fn pending_output(&self, id: ConnId) -> Option<usize> {
        self.io.find(id).map(|key| self.io.pending(key))
    }

    /// Who is at the other end; `None` if the connection has ended.
    pub fn peer(&self, id: ConnId) -> Option<Peer> {
        let key = self.io.find(id)?;
        self.io.connections.get(key).map(|connection| connection.peer())
    }

    /// Opens a connection from this reactor. The outcome is told later, in `on_open` or
    /// `on_connect_error`, and never from within this call; what is written to the id meanwhile is sent
    /// when the connection stands.
    ///
    /// ```
    /// # use corelane::{Core, ConnId, Dial};
    /// # use std::net::SocketAddr;
    /// fn call_upstream(core: &mut Core<'_>, upstream: SocketAddr) -> ConnId {
    ///     let id = core.connect(&Dial::to(upstream));
    ///     core.write(id, b"PING\r\n");
    ///     id
    /// }
    /// ```
    pub fn connect(&mut self, dial: &Dial) -> ConnId {
        self.io.connect(self.port, dial)
    }

    /// Has `on_timer` called with `key` when `after` has passed since [`Core::now`], the beginning of this turn, never
    /// earlier. On Linux and kqueue it is
    /// exact to what the kernel's scheduler allows (some 50 us); with mio's poll(2) backend, to a
    /// millisecond. A zero `after` means the next turn.
    ///
    /// Timers cost memory until they fire or are cancelled; how many there are is the caller's to bound.
    pub fn set_timer(&mut self, after: Duration, key: u64) -> TimerId {
        self.io.set_timer(after, key)
    }

    /// Whether the timer had not fired; it will not now.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.io.cancel_timer(timer)
    }

    /// Another idle deadline than the server's for a connection, or none, as
    /// [`Conn::set_idle_deadline`](super::Conn::set_idle_deadline) sets it. Whether it lived.
    pub fn set_idle_deadline(&mut self, id: ConnId, deadline: Option<Duration>) -> bool {
        self.with(id, |io, _, key| io.set_idle_deadline(key, deadline))
    }

    /// The same view for a shorter time: what a layer keeps in a view of its own, which it lends on.
    pub fn reborrow(&mut self) -> Core<'_> {
        Core { io: self.io, port: self.port }
    }

    pub(super) fn put(&mut self, id: ConnId, payload: Payload<'_>, receipt: Option<Receipt>) -> Written {
        match self.io.find(id) {
            Some(key) => self.io.write(self.port, key, payload, receipt),
            None => Written::Closed,
        }
    }

    fn with(&mut self, id: ConnId, act: impl FnOnce(&mut Io, &mut dyn Port, Key)) -> bool {
        match self.io.find(id) {
            Some(key) => {
                act(self.io, self.port, key);
                true
            }
            None => false,
        }
    }
}

impl fmt::Debug for Core<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("reactor", &self.reactor()).finish_non_exhaustive()
    }
}
