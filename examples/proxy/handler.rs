//! What happens to a client and its upstream: one handler serves the connections of both.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelane::{
    CloseReason, Conn, ConnId, ConnectError, ConnectProblem, Core, Dial, Flow, Handler, Input, Open, Origin,
    Written,
};

use crate::upstreams::{Lease, Upstreams};

/// A client and what it is connected to.
pub(crate) struct Pair {
    client: ConnId,
    /// The dial, and then the connection, to the upstream.
    server: Cell<ConnId>,
    upstream: RefCell<Lease>,
    /// Upstreams that have failed.
    failed: Cell<usize>,
    /// One of the two has ended its side.
    is_half_closed: Cell<bool>,
}

/// One of the two.
pub(crate) struct Session {
    pair: Rc<Pair>,
    is_client: bool,
}

impl Session {
    fn other(&self) -> ConnId {
        if self.is_client { self.pair.server.get() } else { self.pair.client }
    }

    fn count(&self, bytes: usize) {
        let upstream = self.pair.upstream.borrow();
        if self.is_client { upstream.count_bytes_to(bytes) } else { upstream.count_bytes_from(bytes) }
    }
}

pub(crate) struct Proxy {
    upstreams: Arc<Upstreams>,
    dial_timeout: Duration,
    drain_idle: Duration,
    /// Dials under way.
    dials: HashMap<ConnId, Rc<Pair>>,
}

impl Proxy {
    pub(crate) fn new(upstreams: Arc<Upstreams>, dial_timeout: Duration, drain_idle: Duration) -> Self {
        Self { upstreams, dial_timeout, drain_idle, dials: HashMap::new() }
    }

    fn dial(&self, upstream: &Lease, core: &mut Core<'_>) -> ConnId {
        core.connect(&Dial::to(upstream.address.clone()).timeout(self.dial_timeout))
    }

    /// A client has come. What it sends stays in the kernel until an upstream stands.
    fn accept(&mut self, conn: &mut Conn<'_>) -> Session {
        conn.pause();
        let upstream = self.upstreams.choose();
        let server = self.dial(&upstream, conn.core());
        let pair = Rc::new(Pair {
            client: conn.id(),
            server: Cell::new(server),
            upstream: RefCell::new(upstream),
            failed: Cell::new(0),
            is_half_closed: Cell::new(false),
        });
        self.dials.insert(server, Rc::clone(&pair));
        Session { pair, is_client: true }
    }

    /// An upstream stands: its client may go on, if it is still there.
    fn connected(&mut self, conn: &mut Conn<'_>) -> Option<Session> {
        let pair = self.dials.remove(&conn.id())?;
        pair.upstream.borrow().count_connection();
        conn.core().resume(pair.client).then_some(Session { pair, is_client: false })
    }
}

impl Handler for Proxy {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        match conn.origin() {
            Origin::Accepted(_) => Open::Accept(self.accept(conn)),
            Origin::Dialed => self.connected(conn).map_or(Open::Refuse, Open::Accept),
        }
    }

    fn on_connect_error(&mut self, id: ConnId, error: ConnectError, core: &mut Core<'_>) {
        let Some(pair) = self.dials.remove(&id) else { return };
        if error.problem == ConnectProblem::ShuttingDown {
            core.abort(pair.client);
            return;
        }
        pair.upstream.borrow().count_failure(&error);
        pair.failed.set(pair.failed.get() + 1);
        if pair.failed.get() == self.upstreams.len() {
            self.upstreams.turn_away();
            core.abort(pair.client);
        } else if core.is_open(pair.client) {
            let next = self.upstreams.next(&pair.upstream.borrow());
            pair.server.set(self.dial(&next, core));
            pair.upstream.replace(next);
            self.dials.insert(pair.server.get(), pair);
        }
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        session.count(input.len());
        match conn.core().write(session.other(), input.take_all()) {
            Written::Accepted => Flow::Continue,
            Written::High => {
                conn.pause();
                Flow::Continue
            }
            Written::Refused | Written::Closed => Flow::Abort,
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        conn.core().resume(session.other());
        Flow::Continue
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Session, _: &mut Input<'_>) -> Flow {
        let other = session.other();
        if session.pair.is_half_closed.replace(true) {
            conn.core().close(other);
            return Flow::Close;
        }
        conn.core().finish(other);
        Flow::Continue
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>, _: &mut Session) -> Flow {
        // Nobody but the two knows when they are done; when they fall silent they probably are.
        conn.set_idle_deadline(Some(self.drain_idle));
        Flow::Continue
    }

    fn on_close(&mut self, _: ConnId, session: Session, reason: CloseReason, core: &mut Core<'_>) {
        let other = session.other();
        self.dials.remove(&other);
        match reason {
            CloseReason::PeerClosed | CloseReason::Local | CloseReason::Idle => core.close(other),
            // Whatever else ended it: the other side must not take its stream for complete.
            _ => core.abort(other),
        };
    }
}
