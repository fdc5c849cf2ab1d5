//! The way in: heads, bodies and trailers from a connection's input to the service.

use super::body::{Body, Piece};
use super::config::MOST_HEADERS;
use super::connection::{Reading, conn, part};
use super::exchange::Exchange;
use super::head::{self, Head};
use super::layer::Layer;
use super::reply::CONTINUE;
use super::{Headers, Http, Request, Service, trailers};
use crate::{Core, Input};

/// Bytes of a head without the end of a line after which it is looked at again all the same.
const LOOK_AGAIN: usize = 1024;

/// Why no more of the input was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// More is needed.
    Hungry,
    /// What is there must wait.
    Full,
}

impl<S: Service> Http<S> {
    /// Takes requests from the input until it is used up or must wait.
    #[inline]
    pub(super) fn receive(&mut self, core: &mut Core<'_>, index: usize, input: &mut Input<'_>) -> Stop {
        loop {
            let Layer { connections, config, .. } = &mut self.layer;
            let connection = &mut connections[index];
            if !connection.wants_input(&config.limits) {
                return Stop::Full;
            }
            let stop = match connection.reading {
                Reading::Head { seen } => self.take_head(core, index, input, seen as usize),
                Reading::Body(body) => self.take_body(core, index, input, body),
            };
            if let Some(stop) = stop {
                return stop;
            }
        }
    }

    #[inline]
    fn take_head(
        &mut self,
        core: &mut Core<'_>,
        index: usize,
        input: &mut Input<'_>,
        seen: usize,
    ) -> Option<Stop> {
        let bytes = input.peek();
        if bytes.is_empty() || seen > 0 && self.may_wait(bytes, seen) {
            return Some(Stop::Hungry);
        }
        let (mut room, mut more) = (head::ROOM, head::MUCH_ROOM);
        match &head::parse(bytes, &mut room, &mut more, &self.layer.config.limits) {
            Ok(Some(head)) => {
                input.consume(head.length);
                self.request(core, index, head, head.length == bytes.len());
                None
            }
            Ok(None) => {
                let connection = &mut self.layer.connections[index];
                if !connection.flags.has(conn::HEAD) {
                    connection.flags.set(conn::HEAD);
                    connection.since = self.layer.now;
                }
                connection.reading = Reading::Head { seen: bytes.len() as u32 };
                Some(Stop::Hungry)
            }
            Err(problem) => {
                self.refuse(core, index, *problem);
                Some(Stop::Full)
            }
        }
    }

    /// Whether a head of which so much was looked at in vain need not be looked at again: one that comes byte by byte
    /// is looked at once for each of its lines.
    #[cold]
    fn may_wait(&self, bytes: &[u8], seen: usize) -> bool {
        let news = bytes.get(seen..).unwrap_or_default();
        let is_little = news.len() < LOOK_AGAIN && bytes.len() < self.layer.config.limits.head;
        news.is_empty() || is_little && memchr::memchr(b'\n', news).is_none()
    }

    /// A request, whose head is whole. `is_last`: nothing has come behind it.
    #[inline]
    fn request(&mut self, core: &mut Core<'_>, index: usize, head: &Head<'_>, is_last: bool) {
        let layer = &mut self.layer;
        layer.counters.request();
        let mut flags = head.flags;
        let connection = &mut layer.connections[index];
        connection.flags.clear(conn::HEAD);
        let is_drained = layer.draining && (is_last || connection.flags.has(conn::ASKED));
        if is_drained || connection.next.saturating_add(1) >= layer.config.limits.requests {
            flags |= part::CLOSE;
        }
        if flags & part::CLOSE != 0 {
            connection.flags.set(conn::LAST);
        }
        connection.reading = Reading::Head { seen: 0 };
        if flags & part::BODY != 0 {
            connection.reading = Reading::Body(Body::new(head.framing, &layer.config.limits));
            (connection.since, connection.received, connection.dropped) = (layer.now, 0, 0);
        }
        let number = connection.push(flags, layer.now, &mut layer.spare);
        if layer.until_sample > 0 {
            layer.sample(index, head);
        }
        let mut exchange = Exchange::new(core.reborrow(), layer, index, number);
        self.service.on_request(&Request::new(head), &mut exchange);
    }

    fn take_body(
        &mut self,
        core: &mut Core<'_>,
        index: usize,
        input: &mut Input<'_>,
        mut body: Body,
    ) -> Option<Stop> {
        if body != Body::TooLong {
            self.invite(core, index);
        }
        let layer = &mut self.layer;
        if body.is_at_trailers() {
            return self.take_trailers(core, index, input);
        }
        let (framing, piece) = match body.next(input.peek(), &layer.config.limits) {
            Ok(next) => next,
            Err(problem) => {
                self.refuse(core, index, problem);
                return Some(Stop::Full);
            }
        };
        input.consume(framing);
        let connection = &mut layer.connections[index];
        connection.reading = Reading::Body(body);
        match piece {
            Piece::More => Some(Stop::Hungry),
            Piece::Data(count) => {
                connection.came(count, layer.now, &layer.config.timeouts);
                layer.counters.body_in(count);
                self.data(core, index, input.take(count));
                None
            }
            Piece::End if body.is_at_trailers() => None,
            Piece::End => {
                self.body_end(core, index, &Headers::default());
                None
            }
        }
    }

    fn take_trailers(&mut self, core: &mut Core<'_>, index: usize, input: &mut Input<'_>) -> Option<Stop> {
        let mut room = [httparse::EMPTY_HEADER; MOST_HEADERS];
        match trailers::parse(input.peek(), &mut room, &self.layer.config.limits) {
            Ok(Some((length, fields))) => {
                input.consume(length);
                self.body_end(core, index, &Headers::new(fields));
                None
            }
            Ok(None) => Some(Stop::Hungry),
            Err(problem) => {
                self.refuse(core, index, problem);
                Some(Stop::Full)
            }
        }
    }

    /// A part of a body: for the service, if it has not answered before.
    fn data(&mut self, core: &mut Core<'_>, index: usize, data: &[u8]) {
        let layer = &mut self.layer;
        let connection = &mut layer.connections[index];
        let number = connection.next.wrapping_sub(1);
        let is_over = connection.flags.has(conn::DISCARD);
        match connection.queue.back_mut() {
            Some(entry) if !is_over && !entry.flags.has(part::DONE) => {
                let mut exchange = Exchange::new(core.reborrow(), layer, index, number);
                self.service.on_body(&mut exchange, data);
            }
            last => {
                connection.dropped += data.len() as u64;
                match last {
                    _ if connection.dropped <= layer.config.limits.discard => {}
                    Some(entry) if !is_over => entry.flags.set(part::CLOSE | part::PAUSED),
                    _ => connection.flags.set(conn::CLOSING),
                }
            }
        }
    }

    fn body_end(&mut self, core: &mut Core<'_>, index: usize, trailers: &Headers<'_>) {
        let layer = &mut self.layer;
        let connection = &mut layer.connections[index];
        connection.reading = Reading::Head { seen: 0 };
        let number = connection.next.wrapping_sub(1);
        if connection.flags.take(conn::DISCARD) {
            return;
        }
        let Some(entry) = connection.queue.back_mut() else { return };
        entry.flags.clear(part::BODY | part::EXPECTS);
        if !entry.flags.has(part::DONE) {
            let mut exchange = Exchange::new(core.reborrow(), layer, index, number);
            self.service.on_body_end(&mut exchange, trailers);
        }
    }

    /// Asks a client for the body that it waits with, if the service wants it.
    #[inline]
    pub(super) fn invite(&mut self, core: &mut Core<'_>, index: usize) {
        let connection = &mut self.layer.connections[index];
        let is_first = connection.queue.len() == 1; // nothing is held of it: no reply was begun
        let Some(entry) = connection.queue.back_mut() else { return };
        if !entry.flags.has(part::EXPECTS) || entry.flags.has(part::DONE | part::PAUSED | part::BEGUN) {
            return;
        }
        entry.flags.clear(part::EXPECTS);
        if is_first {
            self.layer.select(core, index);
            self.layer.out.extend_from_slice(CONTINUE);
        } else {
            entry.held.tail().extend_from_slice(CONTINUE);
        }
    }
}
