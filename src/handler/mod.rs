//! The contract with the user's code: [`Handler`], and what its callbacks are given.
//!
//! Called by users; `dispatch` is what a reactor sees of it. Each view (`Core`, `Conn`) is a borrow of the
//! reactor's state for the time of one callback, which is why none of them can leave it.

mod conn;
mod core;
mod dispatch;
mod handle;
mod input;
mod relay;
mod sessions;

pub use self::core::Core;
pub use conn::{Conn, Origin};
pub(crate) use dispatch::Dispatch;
pub use handle::{Handle, SendError};
pub use input::Input;
pub use relay::Relay;
pub use sessions::Sessions;

use crate::connection::{CloseReason, ConnId, Flow};
use crate::reactor::ConnectError;
use crate::time::TimerId;

/// What `on_open` makes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Open<S> {
    /// Serve it; this is its state, which every later callback gets and `on_close` gives back.
    Accept(S),
    /// Send what was written in `on_open`, if anything, and close. No further callback follows.
    Refuse,
}

/// The user's code: one value per reactor, made there by the factory given to
/// [`Server::start`](crate::Server::start), called on that reactor's thread only, never twice at once. It
/// need not be `Send` and needs no locks.
///
/// Every callback must return soon: while it runs, the reactor does nothing else. Work that takes longer
/// belongs on another thread, which answers through a [`Handle`].
///
/// # Order
///
/// `on_start` comes first. For each connection: `on_open`, then any number of `on_data` and `on_drained`,
/// at most one `on_eof`, at most one `on_drain`, and last `on_close`, exactly once, if `on_open` accepted
/// it. No `on_data` follows `on_eof` unless input was left unconsumed and shown again after a pause. For
/// a dialed connection `on_connect_error` may come instead of `on_open`. `on_shutdown` comes once; no new
/// connection is dialed after it. See [`guide`](crate::guide#the-order-of-callbacks).
///
/// # Panics
///
/// A panic in a callback of a connection resets that connection and is counted and logged; the reactor and
/// its other connections go on. [`PanicPolicy`](crate::PanicPolicy) can make it abort the process instead.
pub trait Handler: Sized + 'static {
    /// The state of one connection.
    type Session: 'static;

    /// What other threads may send to this reactor; `()` where nothing is.
    type Message: Send + 'static;

    /// A connection was accepted, or one that was dialed now stands ([`Conn::origin`] tells). Nothing has
    /// been read from it yet.
    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Self::Session>;

    /// There is input, never empty. What is not consumed is there again at the next call, with more behind
    /// it. The next call comes when more has arrived, or after reading was paused and resumed.
    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Self::Session, input: &mut Input<'_>) -> Flow;

    /// Output that had risen above the high watermark has fallen to the low one.
    fn on_drained(&mut self, conn: &mut Conn<'_>, session: &mut Self::Session) -> Flow {
        let _ = (conn, session);
        Flow::Continue
    }

    /// The peer will send no more. `input` is what was left unconsumed; it may be empty. What a pause held back is
    /// shown to `on_data` first. By default the connection is flushed and closed; with [`Flow::Continue`] it stays
    /// open for writing.
    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Self::Session, input: &mut Input<'_>) -> Flow {
        let _ = (conn, session, input);
        Flow::Close
    }

    /// The connection has ended: its socket is closed, every receipt answered. Its id is stale already.
    fn on_close(&mut self, id: ConnId, session: Self::Session, reason: CloseReason, core: &mut Core<'_>) {
        let _ = (id, session, reason, core);
    }

    /// A [`Handle`] sent a message.
    fn on_message(
        &mut self,
        message: Self::Message,
        sessions: &mut Sessions<Self::Session>,
        core: &mut Core<'_>,
    ) {
        let _ = (message, sessions, core);
    }

    /// A timer set with [`Core::set_timer`] is due; `key` is what it was set with.
    fn on_timer(
        &mut self,
        timer: TimerId,
        key: u64,
        sessions: &mut Sessions<Self::Session>,
        core: &mut Core<'_>,
    ) {
        let _ = (timer, key, sessions, core);
    }

    /// Another period of [`Server::tick`](crate::Server::tick) has passed.
    fn on_tick(&mut self, sessions: &mut Sessions<Self::Session>, core: &mut Core<'_>) {
        let _ = (sessions, core);
    }

    /// The reactor begins; no connection is there yet. A panic here makes the start fail.
    fn on_start(&mut self, core: &mut Core<'_>) {
        let _ = core;
    }

    /// The server shuts down: the listeners are closed, what had been waiting in them was accepted, and
    /// `on_drain` follows for each connection.
    fn on_shutdown(&mut self, sessions: &mut Sessions<Self::Session>, core: &mut Core<'_>) {
        let _ = (sessions, core);
    }

    /// The server shuts down: may this connection be closed? Input that had arrived has been delivered, up to
    /// the [byte budget](crate::Server::byte_budget) of a turn.
    /// By default yes, in good order. A handler that still owes a reply answers [`Flow::Continue`] and
    /// closes the connection itself when it is done, before the drain deadline.
    fn on_drain(&mut self, conn: &mut Conn<'_>, session: &mut Self::Session) -> Flow {
        let _ = (conn, session);
        Flow::Close
    }

    /// A dial failed; the id returned by [`Core::connect`] is stale now.
    fn on_connect_error(&mut self, id: ConnId, error: ConnectError, core: &mut Core<'_>) {
        let _ = (id, error, core);
    }
}
