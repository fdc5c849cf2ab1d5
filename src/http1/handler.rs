//! The layer as a handler of a reactor: what comes in goes to the connection it is of, and what comes of it to the
//! service.

use std::fmt;
use std::sync::Arc;

use super::config::Config;
use super::connection::{Connection, Reading, conn, part};
use super::counters::Counters;
use super::exchange::Exchange;
use super::head;
use super::layer::Layer;
use super::receive::Stop;
use super::{Context, Problem, Service, Upgraded, refusal};
use crate::{
    Backpressure, CloseReason, Conn, ConnId, Core, Flow, Handler, Input, Open, Origin, Sessions, TimerId,
};

/// Connections whose deadline has passed that are served in one turn.
const MOST_DUE: usize = 256;

/// HTTP/1.1 on one reactor: the [`Handler`] that [`Protocol::handler`](super::Protocol::handler) makes of a service.
pub struct Http<S: Service> {
    pub(super) service: S,
    pub(super) layer: Layer<S::State>,
}

/// A connection of [`Http`], as its reactor knows it.
#[derive(Debug)]
pub struct Session {
    index: u32,
}

impl<S: Service> Http<S> {
    pub(super) fn new(config: Arc<Config>, counters: Arc<Counters>, service: S) -> Self {
        Self { service, layer: Layer::new(config, counters) }
    }

    /// The service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.layer.connections.len()
    }

    /// The service, to change it.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Answers what cannot be served, behind the replies that are owed, and closes.
    #[cold]
    pub(super) fn refuse(&mut self, core: &mut Core<'_>, index: usize, problem: Problem) {
        self.layer.counters.problem(problem);
        if let Some((responder, state)) = refusal::refuse(&mut self.layer, core, index, problem) {
            self.layer.counters.aborted();
            let mut context = Context::new(core.reborrow(), &mut self.layer);
            self.service.on_abort(responder, state, &mut context);
        }
    }

    /// The peer has sent all that it will, and what is left of it is no request.
    #[cold]
    fn ended(&mut self, core: &mut Core<'_>, index: usize, input: &Input<'_>) {
        let connection = &mut self.layer.connections[index];
        if connection.flags.has(conn::LAST | conn::CLOSING | conn::CLOSED)
            && !matches!(connection.reading, Reading::Body(_))
        {
            return;
        }
        let problem = match (connection.reading, input.peek()) {
            (Reading::Head { .. }, [] | b"\r" | b"\r\n") => return connection.flags.set(conn::LAST),
            (Reading::Head { .. }, rest) => {
                let (mut room, mut more) = (head::ROOM, head::MUCH_ROOM);
                head::parse(rest, &mut room, &mut more, &self.layer.config.limits)
                    .err()
                    .unwrap_or(Problem::Truncated)
            }
            (Reading::Body(_), _) => Problem::Truncated,
        };
        self.refuse(core, index, problem);
    }

    /// What is to be done with a connection to which something has happened.
    #[inline]
    fn tend(&mut self, core: &mut Core<'_>, index: usize) {
        loop {
            let Some(connection) = self.layer.connections.get_mut(index) else { return };
            if connection.is_quiet() {
                return self.layer.take_spare(index);
            }
            if connection.flags.has(conn::CLOSED) {
                return;
            }
            if connection.is_over() {
                return self.shut(core, index);
            }
            if !self.go_on(core, index) {
                break;
            }
        }
        self.invite(core, index);
        self.steer(core, index);
    }

    /// Lets the first exchange go on, if it waited for that; whether it did.
    #[inline]
    fn go_on(&mut self, core: &mut Core<'_>, index: usize) -> bool {
        let layer = &mut self.layer;
        let connection = &mut layer.connections[index];
        let is_high = connection.flags.has(conn::HIGH);
        let is_tunnel = connection.flags.has(conn::TUNNEL);
        let responder = match connection.queue.is_empty() {
            true => return false,
            false => connection.responder(index, 0),
        };
        let entry = &mut connection.queue[0];
        let is_upgraded = entry.flags.has(part::UPGRADE) && entry.flags.has(part::BEGUN) && !is_tunnel;
        if is_upgraded && entry.held.is_empty() {
            connection.flags.clear(conn::STALL);
            connection.flags.set(conn::TUNNEL | conn::BUSY);
            // Before the service can set one of its own.
            core.set_idle_deadline(connection.id, None);
            let took = layer.now.saturating_sub(entry.started);
            layer.counters.upgrade(entry.status, took);
            let (sample, status) = (entry.sample.take(), entry.status);
            layer.log(index, sample, status, 0, took);
            layer.select(core, index);
            layer.flush(core);
            self.service.on_upgraded(&mut Upgraded::new(core.reborrow(), layer, index));
            return true;
        }
        if is_tunnel || is_high || !connection.flags.take(conn::WAKE) || !entry.flags.take(part::BLOCKED) {
            return false;
        }
        let mut exchange = Exchange::new(core.reborrow(), layer, index, responder.number);
        self.service.on_drained(&mut exchange);
        true
    }

    /// Reading and deadlines as the state of the connection wants them.
    #[inline]
    fn steer(&mut self, core: &mut Core<'_>, index: usize) {
        let layer = &mut self.layer;
        let connection = &mut layer.connections[index];
        let timeouts = &layer.config.timeouts;
        // Above the high watermark the reactor does not read anyway.
        let wants = connection.flags.has(conn::HIGH) || connection.wants_input(&layer.config.limits);
        if wants == connection.flags.has(conn::PAUSED) {
            connection.flags.assign(conn::PAUSED, !wants);
            if wants {
                (connection.since, connection.received) = (layer.now, 0);
                core.resume(connection.id);
            } else {
                core.pause(connection.id);
            }
        }
        let (mode, idle) = match () {
            () if connection.flags.has(conn::TUNNEL) => (conn::BUSY, None), // as it is since the upgrade
            () if connection.flags.has(conn::HIGH) => (conn::STALL, Some(timeouts.write_stall)),
            () if connection.queue.is_empty() => (0, Some(timeouts.keep_alive)),
            () => (conn::BUSY, None),
        };
        if connection.flags.only(conn::BUSY | conn::STALL) != mode {
            connection.flags.clear(conn::BUSY | conn::STALL);
            connection.flags.set(mode);
            core.set_idle_deadline(connection.id, idle);
        }
        if let Some((at, _)) = connection.deadline(timeouts) {
            layer.watch(index, at);
        }
        layer.take_spare(index);
    }

    /// Closes a connection in good order; what is unanswered on it never will be.
    #[cold]
    fn shut(&mut self, core: &mut Core<'_>, index: usize) {
        let layer = &mut self.layer;
        layer.select(core, index);
        layer.flush(core);
        let connection = &mut layer.connections[index];
        connection.flags.set(conn::CLOSED);
        core.close(connection.id);
        if !connection.flags.has(conn::TUNNEL) {
            self.abort_all(core, index);
        }
    }

    /// Tells the service of every exchange that ends unanswered.
    #[cold]
    fn abort_all(&mut self, core: &mut Core<'_>, index: usize) {
        loop {
            let layer = &mut self.layer;
            let Some(connection) = layer.connections.get_mut(index) else { return };
            if connection.queue.is_empty() {
                return layer.take_spare(index);
            }
            let responder = connection.responder(index, 0);
            let Some(entry) = connection.queue.pop_front() else { return };
            if entry.flags.has(part::INTERNAL) {
                continue;
            }
            layer.counters.aborted();
            if entry.flags.has(part::DONE) {
                continue;
            }
            let mut context = Context::new(core.reborrow(), layer);
            self.service.on_abort(responder, entry.state, &mut context);
        }
    }

    /// The end of every callback: other connections that something happened to, the access log, the output.
    #[inline]
    fn settle(&mut self, core: &mut Core<'_>) {
        self.layer.flush(core);
        while let Some(index) = self.layer.listed.pop_front() {
            if let Some(connection) = self.layer.connections.get_mut(index) {
                connection.flags.clear(conn::LISTED);
                self.tend(core, index);
                self.layer.flush(core);
            }
        }
        if !self.layer.finished.is_empty() {
            for finished in std::mem::take(&mut self.layer.finished) {
                self.service.on_access(&finished.access());
            }
        }
        self.layer.deadlines.arm(core, self.layer.now);
    }

    /// Input of a connection, or its end.
    #[inline]
    fn input(&mut self, core: &mut Core<'_>, index: usize, input: &mut Input<'_>) -> Flow {
        self.layer.begin(core);
        self.layer.current = index;
        loop {
            let flags = self.layer.connections[index].flags;
            if flags.has(conn::TUNNEL) {
                return self.tunnel(core, index, input);
            }
            let stop = self.receive(core, index, input);
            if flags.has(conn::ENDED) && (stop == Stop::Hungry || input.is_empty()) {
                self.ended(core, index, input);
            }
            self.layer.flush(core);
            self.tend(core, index);
            self.layer.flush(core);
            // Something may have made room for what had to wait.
            let goes_on = stop == Stop::Full && !input.is_empty() && self.wants_input(index);
            if !goes_on {
                break;
            }
        }
        self.settle(core);
        Flow::Continue
    }

    fn wants_input(&self, index: usize) -> bool {
        let Layer { connections, config, .. } = &self.layer;
        connections.get(index).is_some_and(|connection| connection.wants_input(&config.limits))
    }

    /// Input of an upgraded connection.
    #[cold]
    fn tunnel(&mut self, core: &mut Core<'_>, index: usize, input: &mut Input<'_>) -> Flow {
        let is_end = self.layer.connections[index].flags.has(conn::ENDED);
        let mut flow = Flow::Continue;
        if !input.is_empty() {
            let mut upgraded = Upgraded::new(core.reborrow(), &mut self.layer, index);
            flow = self.service.on_upgraded_data(&mut upgraded, input);
        }
        if is_end && flow == Flow::Continue {
            let mut upgraded = Upgraded::new(core.reborrow(), &mut self.layer, index);
            flow = self.service.on_upgraded_eof(&mut upgraded, input);
        }
        self.settle(core);
        flow
    }

    /// Calls the service about the reactor as a whole.
    #[inline]
    fn call(&mut self, core: &mut Core<'_>, call: impl FnOnce(&mut S, &mut Context<'_, S::State>)) {
        self.layer.begin(core);
        call(&mut self.service, &mut Context::new(core.reborrow(), &mut self.layer));
        self.settle(core);
    }

    /// Ends what has been too slow.
    fn expire(&mut self, core: &mut Core<'_>) {
        self.layer.begin(core);
        for _ in 0..MOST_DUE {
            let layer = &mut self.layer;
            let Some(index) = layer.due() else { break };
            match layer.connections[index].deadline(&layer.config.timeouts) {
                Some((at, problem)) if at <= layer.now => {
                    self.refuse(core, index, problem);
                    self.tend(core, index);
                }
                Some((at, _)) => layer.watch(index, at),
                None => {}
            }
        }
        self.settle(core);
    }

    /// May this connection go, now that the server shuts down?
    fn drain(&mut self, core: &mut Core<'_>, index: usize) -> Flow {
        let layer = &mut self.layer;
        let connection = &mut layer.connections[index];
        if connection.flags.has(conn::TUNNEL) {
            return self.service.on_upgraded_drain(&mut Upgraded::new(core.reborrow(), layer, index));
        }
        connection.flags.set(conn::ASKED);
        let is_waiting = connection.queue.len() > 1;
        match connection.queue.back_mut() {
            Some(last) => {
                last.close(is_waiting);
                connection.flags.set(conn::LAST);
                Flow::Continue
            }
            None if connection.flags.has(conn::HEAD) && !connection.flags.has(conn::DISCARD) => {
                Flow::Continue
            }
            None => {
                connection.flags.set(conn::CLOSED);
                Flow::Close
            }
        }
    }
}

impl<S: Service> Handler for Http<S> {
    type Session = Session;
    type Message = S::Message;

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        if conn.origin() == Origin::Dialed {
            return Open::Refuse;
        }
        conn.set_backpressure(Backpressure::Automatic);
        conn.set_idle_deadline(Some(self.layer.config.timeouts.keep_alive));
        let index = self.layer.connections.insert(Connection::new(conn.id()));
        Open::Accept(Session { index: index as u32 })
    }

    #[inline]
    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        self.input(conn.core(), session.index as usize, input)
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        let core = conn.core();
        let index = session.index as usize;
        self.layer.begin(core);
        self.layer.current = index;
        let connection = &mut self.layer.connections[index];
        connection.flags.clear(conn::HIGH);
        let mut flow = Flow::Continue;
        if connection.flags.has(conn::TUNNEL) {
            let mut upgraded = Upgraded::new(core.reborrow(), &mut self.layer, index);
            flow = self.service.on_upgraded_drained(&mut upgraded);
        } else {
            connection.flags.set(conn::WAKE);
            self.layer.complete(core, index);
            self.layer.flush(core);
            self.tend(core, index);
        }
        self.settle(core);
        flow
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let index = session.index as usize;
        self.layer.connections[index].flags.set(conn::ENDED);
        self.input(conn.core(), index, input)
    }

    fn on_close(&mut self, _: ConnId, session: Session, reason: CloseReason, core: &mut Core<'_>) {
        let index = session.index as usize;
        self.layer.begin(core);
        let connection = &mut self.layer.connections[index];
        connection.flags.set(conn::CLOSED);
        if connection.flags.has(conn::TUNNEL) {
            let responder = connection.responder(index, 0);
            if let Some(entry) = connection.queue.pop_front() {
                let mut context = Context::new(core.reborrow(), &mut self.layer);
                self.service.on_upgraded_close(responder, entry.state, reason, &mut context);
            }
        }
        self.abort_all(core, index);
        self.layer.connections.remove(index);
        self.settle(core);
    }

    fn on_message(&mut self, message: S::Message, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.call(core, |service, context| service.on_message(message, context));
    }

    fn on_timer(&mut self, timer: TimerId, key: u64, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        if self.layer.deadlines.is_mine(timer) {
            return self.expire(core);
        }
        self.call(core, |service, context| service.on_timer(timer, key, context));
    }

    fn on_tick(&mut self, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.call(core, |service, context| service.on_tick(context));
    }

    fn on_start(&mut self, core: &mut Core<'_>) {
        self.layer.start(core);
        self.call(core, |service, context| service.on_start(context));
    }

    fn on_shutdown(&mut self, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.layer.draining = true;
        self.call(core, |service, context| service.on_shutdown(context));
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        let index = session.index as usize;
        let core = conn.core();
        self.layer.begin(core);
        let flow = self.drain(core, index);
        if flow == Flow::Continue {
            self.tend(core, index);
        }
        self.settle(core);
        flow
    }
}

impl<S: Service> fmt::Debug for Http<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("connections", &self.layer.connections.len()).finish_non_exhaustive()
    }
}
