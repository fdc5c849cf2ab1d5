//! A [`Handler`] as a reactor sees it: sessions beside connections, panics caught.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Conn, Core, Handler, Input, Open, Sessions};
use crate::connection::{CloseReason, Flow, Key};
use crate::driver::Port;
use crate::reactor::{Callbacks, ConnectError, Io, Offer, Outcome, Then};
use crate::time::TimerId;

#[derive(Debug)]
pub(crate) struct Dispatch<H: Handler> {
    pub(crate) handler: H,
    pub(crate) sessions: Sessions<H::Session>,
}

impl<H: Handler> Dispatch<H> {
    pub(crate) fn new(handler: H, reactor: u16) -> Self {
        Self { handler, sessions: Sessions::new(reactor) }
    }

    /// Calls back about the reactor as a whole.
    fn call(
        &mut self,
        name: &'static str,
        io: &mut Io,
        port: &mut dyn Port,
        call: impl FnOnce(&mut H, &mut Sessions<H::Session>, &mut Core<'_>),
    ) -> Then {
        let Self { handler, sessions } = self;
        let guarded = || {
            let mut core = Core { io, port };
            call(handler, sessions, &mut core);
        };
        match catch_unwind(AssertUnwindSafe(guarded)) {
            Ok(()) => Then::Flow(Flow::Continue),
            Err(payload) => {
                io.record_panic(name, payload);
                Then::Panicked
            }
        }
    }

    /// Calls back about one open connection.
    #[inline]
    fn call_conn(
        &mut self,
        name: &'static str,
        io: &mut Io,
        port: &mut dyn Port,
        key: Key,
        call: impl FnOnce(&mut H, &mut Conn<'_>, &mut H::Session) -> Flow,
    ) -> Then {
        let Self { handler, sessions } = self;
        // An open connection has a session; without one there is nobody to call.
        let Some(session) = sessions.at(key) else { return Then::Flow(Flow::Close) };
        let guarded = || {
            let core = Core { io, port };
            call(handler, &mut Conn::new(core, key), session)
        };
        match catch_unwind(AssertUnwindSafe(guarded)) {
            Ok(flow) => Then::Flow(flow),
            Err(payload) => {
                io.record_panic(name, payload);
                Then::Panicked
            }
        }
    }
}

impl<H: Handler> Callbacks for Dispatch<H> {
    type Message = H::Message;

    fn start(&mut self, io: &mut Io, port: &mut dyn Port) -> Then {
        self.call("on_start", io, port, |handler, _, core| handler.on_start(core))
    }

    fn open(&mut self, io: &mut Io, port: &mut dyn Port, key: Key) -> Offer {
        let Self { handler, sessions } = self;
        let guarded = || {
            let core = Core { io, port };
            handler.on_open(&mut Conn::new(core, key))
        };
        match catch_unwind(AssertUnwindSafe(guarded)) {
            Ok(Open::Accept(session)) => {
                sessions.insert(key, session);
                Offer::Accepted
            }
            Ok(Open::Refuse) => Offer::Refused,
            Err(payload) => {
                io.record_panic("on_open", payload);
                Offer::Panicked
            }
        }
    }

    #[inline]
    fn data(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, bytes: &[u8]) -> Outcome {
        let mut input = Input::new(bytes);
        let then = self.call_conn("on_data", io, port, key, |handler, conn, session| {
            handler.on_data(conn, session, &mut input)
        });
        Outcome { consumed: input.consumed(), then }
    }

    fn eof(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, bytes: &[u8]) -> Outcome {
        let mut input = Input::new(bytes);
        let then = self.call_conn("on_eof", io, port, key, |handler, conn, session| {
            handler.on_eof(conn, session, &mut input)
        });
        Outcome { consumed: input.consumed(), then }
    }

    fn drained(&mut self, io: &mut Io, port: &mut dyn Port, key: Key) -> Then {
        self.call_conn("on_drained", io, port, key, |handler, conn, session| {
            handler.on_drained(conn, session)
        })
    }

    fn close(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, reason: CloseReason) {
        if let Some(session) = self.sessions.remove(key) {
            let id = io.id(key);
            self.call("on_close", io, port, |handler, _, core| handler.on_close(id, session, reason, core));
        }
    }

    fn connect_error(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, error: ConnectError) {
        let id = io.id(key);
        self.call("on_connect_error", io, port, |handler, _, core| handler.on_connect_error(id, error, core));
    }

    fn message(&mut self, io: &mut Io, port: &mut dyn Port, message: H::Message) {
        self.call("on_message", io, port, |handler, sessions, core| {
            handler.on_message(message, sessions, core)
        });
    }

    fn timer(&mut self, io: &mut Io, port: &mut dyn Port, id: TimerId, key: u64) {
        self.call("on_timer", io, port, |handler, sessions, core| handler.on_timer(id, key, sessions, core));
    }

    fn tick(&mut self, io: &mut Io, port: &mut dyn Port) {
        self.call("on_tick", io, port, |handler, sessions, core| handler.on_tick(sessions, core));
    }

    fn shutdown(&mut self, io: &mut Io, port: &mut dyn Port) {
        self.call("on_shutdown", io, port, |handler, sessions, core| handler.on_shutdown(sessions, core));
    }

    fn drain(&mut self, io: &mut Io, port: &mut dyn Port, key: Key) -> Then {
        self.call_conn("on_drain", io, port, key, |handler, conn, session| handler.on_drain(conn, session))
    }
}
