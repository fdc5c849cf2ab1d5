//! What a service answers with: the exchange, and the views from which it is reached.

use std::fmt;

use http::StatusCode;

use super::connection::{Connection, Entry, Reading, conn, part};
use super::encode;
use super::layer::{Layer, PIECE, UNCOPIED};
use super::reply::Reply;
use crate::{ConnId, Core, Peer, Shared, Written};

/// The most that a streamed reply whose turn has not come may hold, and where its producer is told to wait.
const HELD_MOST: usize = 1024 * 1024;
const HELD_HIGH: usize = 16 * 1024;

/// Names one request for ever, on any thread: what a service keeps to answer later. It goes stale when the exchange
/// is over or the connection ends, and then nothing comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Responder {
    pub(super) id: ConnId,
    pub(super) index: u32,
    pub(super) number: u32,
}

impl Responder {
    /// The connection that the request came on.
    pub fn connection(&self) -> ConnId {
        self.id
    }
}

/// What was wrong with a reply. It is the service's mistake, except [`ReplyError::Over`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyError {
    /// The exchange is over: its connection has closed, or its reply is whole.
    Over,
    /// A reply was begun before.
    Begun,
    /// The body of a reply that was not begun.
    NotBegun,
    /// A status from 100 to 199: those are the layer's, except 101, which [`Reply::upgrade`] sends.
    Status,
    /// A header's name is no token.
    HeaderName,
    /// A header's value has a control character in it.
    HeaderValue,
    /// `Content-Length`, `Transfer-Encoding`, `Connection`, `Keep-Alive`: the layer sets them.
    ReservedHeader,
    /// The body is longer or shorter than was said. A reply that is too short closes its connection.
    Length,
    /// It is not this reply's turn, or it is sent in chunks: see [`Exchange::write_by`].
    Turn,
    /// The request does not allow an upgrade: it asks for none, or its body is still coming. Or it was CONNECT, which has no
    /// other reply of success.
    Upgrade,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Over => "the exchange is over",
            Self::Begun => "a reply was begun before",
            Self::NotBegun => "no reply was begun",
            Self::Status => "this status is not for replies",
            Self::HeaderName => "a header's name is no token",
            Self::HeaderValue => "a header's value has a control character in it",
            Self::ReservedHeader => "this header is the layer's to set",
            Self::Length => "the body is not as long as was said",
            Self::Turn => "it is not this reply's turn",
            Self::Upgrade => "the request allows no upgrade",
        })
    }
}

impl std::error::Error for ReplyError {}

/// One request and its reply.
///
/// It cannot leave its callback: keep the [`Responder`] instead.
pub struct Exchange<'a, T: Default + 'static> {
    pub(super) core: Core<'a>,
    pub(super) layer: &'a mut Layer<T>,
    pub(super) index: usize,
    pub(super) number: u32,
}

impl<'a, T: Default + 'static> Exchange<'a, T> {
    pub(super) fn new(core: Core<'a>, layer: &'a mut Layer<T>, index: usize, number: u32) -> Self {
        Self { core, layer, index, number }
    }

    /// What to keep in order to answer later.
    pub fn responder(&self) -> Responder {
        Responder { id: self.connection_id(), index: self.index as u32, number: self.number }
    }

    fn connection_id(&self) -> ConnId {
        self.layer.connections[self.index].id
    }

    /// The service's state of this exchange; `None` when it is over.
    pub fn state(&mut self) -> Option<&mut T> {
        self.entry().map(|entry| &mut entry.state)
    }

    /// The reactor: timers, other connections, the time.
    pub fn core(&mut self) -> &mut Core<'a> {
        &mut self.core
    }

    /// Who asks.
    pub fn peer(&self) -> Option<Peer> {
        self.core.peer(self.connection_id())
    }

    /// Another exchange of this reactor that is not over.
    pub fn other(&mut self, responder: Responder) -> Option<Exchange<'_, T>> {
        find(&mut self.core, self.layer, responder)
    }

    /// Begins the reply. Nothing is sent before [`Reply::send`] or one of its like is called; dropped before that, it is
    /// a 500, like one whose headers are not allowed.
    pub fn reply(&mut self, status: StatusCode) -> Reply<'_, T> {
        Reply::new(self.reborrow(), status)
    }

    /// Writes a part of the reply's body. After [`Written::High`] wait for
    /// [`Service::on_drained`](super::Service::on_drained); [`Written::Refused`] says that nothing was taken, since a
    /// reply whose turn has not come, or whose client takes nothing, may hold no more than 1 MiB. One write may be of any
    /// size: what the client does not take at once is held for it.
    ///
    /// # Errors
    ///
    /// [`ReplyError::NotBegun`], [`ReplyError::Over`], and [`ReplyError::Length`] for more than was said; nothing is
    /// written then.
    pub fn write(&mut self, data: &[u8]) -> Result<Written, ReplyError> {
        self.select();
        let (entry, is_front) = self.writable(data.len())?;
        let flags = entry.flags;
        if data.is_empty() || flags.has(part::BODILESS) {
            return Ok(Written::Accepted);
        }
        if !is_front && entry.held.len() + data.len() > HELD_MOST {
            entry.flags.set(part::BLOCKED);
            return Ok(Written::Refused);
        }
        entry.count(data.len());
        let mut room = [0; 18];
        let (size, end): (&[u8], &[u8]) = match flags.has(part::CHUNKED) {
            true => (encode::chunk_size(data.len(), &mut room), b"\r\n"),
            false => (b"", b""),
        };
        if !is_front {
            [size, data, end].iter().for_each(|slice| entry.held.tail().extend_from_slice(slice));
            if entry.held.len() <= HELD_HIGH {
                return Ok(Written::Accepted);
            }
            entry.flags.set(part::BLOCKED);
            return Ok(Written::High);
        }
        if data.len() > PIECE {
            self.layer.out.extend_from_slice(size);
            self.pass_on(data, end);
        } else if data.len() >= UNCOPIED {
            self.layer.flush_with(&mut self.core, &[size, data, end]);
        } else {
            let out = &mut self.layer.out;
            [size, data, end].iter().for_each(|slice| out.extend_from_slice(slice));
            self.layer.flush_if_much(&mut self.core);
        }
        Ok(self.level())
    }

    /// As [`Exchange::write`], for bytes that are shared and not copied. Of more than 256 KiB, what the client does not
    /// take at once is copied.
    ///
    /// # Errors
    ///
    /// As [`Exchange::write`].
    pub fn write_shared(&mut self, data: &Shared) -> Result<Written, ReplyError> {
        self.select();
        let (entry, is_front) = self.writable(data.len())?;
        if !is_front || !(UNCOPIED..=PIECE).contains(&data.len()) || entry.flags.has(part::BODILESS) {
            return self.write(data);
        }
        let is_chunked = entry.flags.has(part::CHUNKED);
        entry.count(data.len());
        if is_chunked {
            self.layer.out.extend_from_slice(encode::chunk_size(data.len(), &mut [0; 18]));
        }
        self.layer.flush(&mut self.core);
        let written = self.core.write_shared(self.connection_id(), data);
        self.layer.note(&mut self.core, self.index, written);
        if is_chunked {
            self.layer.out.extend_from_slice(b"\r\n");
        }
        Ok(self.level())
    }

    /// Writes a part of the reply's body by other means, such as a file that the kernel sends: `write` is called when
    /// all that comes before it has been passed on, and must write just `length` bytes to the connection, or break it.
    ///
    /// # Errors
    ///
    /// As [`Exchange::write`], and [`ReplyError::Turn`] where replies before this one are not whole, or the body is
    /// sent in chunks; [`Service::on_drained`](super::Service::on_drained) follows when its turn has come.
    pub fn write_by(
        &mut self,
        length: u64,
        write: impl FnOnce(&mut Core<'_>, ConnId) -> Written,
    ) -> Result<Written, ReplyError> {
        self.select();
        let count = usize::try_from(length).map_err(|_| ReplyError::Length)?;
        let (entry, is_front) = self.writable(count)?;
        if entry.flags.has(part::BODILESS) {
            return Ok(Written::Accepted);
        }
        if !is_front || entry.flags.has(part::CHUNKED) {
            entry.flags.assign(part::BLOCKED, !is_front);
            return Err(ReplyError::Turn);
        }
        entry.count(count);
        self.layer.flush(&mut self.core);
        let id = self.connection_id();
        let written = write(&mut self.core, id);
        self.layer.note(&mut self.core, self.index, written);
        Ok(self.level())
    }

    /// Whether all replies before this one are whole, so that what is written leaves.
    pub fn is_turn(&self) -> bool {
        self.connection().is_some_and(|connection| {
            connection.position(self.number) == Some(0) && connection.queue[0].held.is_empty()
        })
    }

    /// Ends the body of the reply, and with it the exchange.
    ///
    /// # Errors
    ///
    /// [`ReplyError::NotBegun`], [`ReplyError::Over`], and [`ReplyError::Length`] if less was written than was said:
    /// the connection closes then.
    pub fn end(&mut self) -> Result<(), ReplyError> {
        self.end_with_trailers(&[])
    }

    /// As [`Exchange::end`], with trailers where the body is sent in chunks; elsewhere there is no place for them and
    /// they are left out.
    ///
    /// # Errors
    ///
    /// As [`Exchange::end`], and those of [`Reply::header`]; nothing has ended then.
    pub fn end_with_trailers(&mut self, trailers: &[(&str, &[u8])]) -> Result<(), ReplyError> {
        for (name, value) in trailers {
            encode::check(name, value)?;
        }
        self.select();
        let (entry, is_front) = self.writable(0)?;
        let is_short = entry.is_short();
        let has_end = entry.flags.has(part::CHUNKED) && !entry.flags.has(part::BODILESS);
        entry.flags.set(part::DONE | if is_short { part::CLOSE } else { 0 });
        if has_end {
            let out = match self.entry() {
                Some(entry) if !is_front => entry.held.tail(),
                _ => &mut self.layer.out,
            };
            out.extend_from_slice(b"0\r\n");
            trailers.iter().for_each(|(name, value)| encode::field(out, name, value));
            out.extend_from_slice(b"\r\n");
        }
        self.done();
        if is_short { Err(ReplyError::Length) } else { Ok(()) }
    }

    /// Gives the exchange up: its connection is reset, with all others on it.
    pub fn abort(&mut self) {
        let id = self.connection_id();
        if self.entry().is_some() {
            self.core.abort(id);
        }
    }

    /// No more of the request's body is delivered until [`Exchange::resume_body`]: the peer will feel the backpressure.
    pub fn pause_body(&mut self) {
        if let Some(entry) = self.entry() {
            entry.flags.set(part::PAUSED);
            self.layer.list(self.index);
        }
    }

    /// The request's body is wanted again.
    pub fn resume_body(&mut self) {
        let now = self.layer.now;
        let index = self.index;
        let Some(connection) = self.layer.connections.get_mut(index) else { return };
        let Some(entry) = connection.entry(self.number) else { return };
        if entry.flags.take(part::PAUSED) {
            (connection.since, connection.received) = (now, 0);
            self.layer.list(index);
        }
    }

    /// Allows no more than `most` bytes of body to follow, where [`Limits::body`](super::Limits::body) would allow more:
    /// for [`Service::on_request`](super::Service::on_request), where it is known what the request is for. What is longer
    /// gets a 413, by its length at once and in chunks as soon as one does not fit;
    /// [`Service::on_abort`](super::Service::on_abort) follows and the connection closes. Once the body or the reply is
    /// whole it does nothing.
    pub fn limit_body(&mut self, most: u64) {
        if let Some(connection) = self.layer.connections.get_mut(self.index)
            && connection.next.wrapping_sub(self.number) == 1
            && let Reading::Body(body) = &mut connection.reading
            && !connection.flags.has(conn::DISCARD)
        {
            body.limit(most);
        }
    }

    pub(super) fn reborrow(&mut self) -> Exchange<'_, T> {
        Exchange {
            core: self.core.reborrow(),
            layer: &mut *self.layer,
            index: self.index,
            number: self.number,
        }
    }

    fn connection(&self) -> Option<&Connection<T>> {
        self.layer.connections.get(self.index)
    }

    pub(super) fn entry(&mut self) -> Option<&mut Entry<T>> {
        self.layer.connections.get_mut(self.index)?.entry(self.number)
    }

    #[inline]
    pub(super) fn select(&mut self) {
        self.layer.select(&mut self.core, self.index);
    }

    /// The entry, if its body may be written, and whether its turn has come.
    fn writable(&mut self, count: usize) -> Result<(&mut Entry<T>, bool), ReplyError> {
        let connection = self.layer.connections.get_mut(self.index).ok_or(ReplyError::Over)?;
        let position = connection.position(self.number).ok_or(ReplyError::Over)?;
        let entry = &mut connection.queue[position];
        match () {
            () if entry.flags.has(part::DONE) => Err(ReplyError::Over),
            () if !entry.flags.has(part::BEGUN) => Err(ReplyError::NotBegun),
            () if entry.flags.has(part::UPGRADE) => Err(ReplyError::Over),
            () if count as u64 > entry.left => Err(ReplyError::Length),
            () => {
                let is_front = position == 0 && entry.held.is_empty();
                Ok((entry, is_front))
            }
        }
    }

    /// Passes on a large part of the body; what the peer does not take at once is held, and so is what comes behind.
    pub(super) fn pass_on(&mut self, data: &[u8], end: &[u8]) {
        let passed = self.layer.pass_on(&mut self.core, data);
        match self.entry() {
            Some(entry) if passed < data.len() => {
                [&data[passed..], end].iter().for_each(|slice| entry.held.tail().extend_from_slice(slice))
            }
            _ => self.layer.out.extend_from_slice(end),
        }
    }

    /// Whether the producer may go on.
    fn level(&mut self) -> Written {
        let Some(connection) = self.layer.connections.get_mut(self.index) else { return Written::Closed };
        let is_high = connection.flags.has(conn::HIGH);
        let Some(entry) = connection.entry(self.number) else { return Written::Closed };
        entry.flags.assign(part::BLOCKED, is_high);
        if is_high { Written::High } else { Written::Accepted }
    }

    /// The reply is whole.
    #[inline]
    pub(super) fn done(&mut self) {
        self.layer.complete(&mut self.core, self.index);
        self.layer.flush_if_much(&mut self.core);
        self.layer.list(self.index);
    }
}

impl<T: Default> Entry<T> {
    fn count(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if self.left != u64::MAX {
            self.left -= bytes as u64;
        }
    }

    fn is_short(&self) -> bool {
        self.left != 0 && self.left != u64::MAX && !self.flags.has(part::BODILESS)
    }
}

impl<T: Default> fmt::Debug for Exchange<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("responder", &self.responder()).finish_non_exhaustive()
    }
}

/// The exchange that a responder names, if it is not over.
pub(super) fn find<'a, T: Default + 'static>(
    core: &'a mut Core<'_>,
    layer: &'a mut Layer<T>,
    responder: Responder,
) -> Option<Exchange<'a, T>> {
    let index = responder.index as usize;
    let connection = layer.connections.get(index).filter(|connection| connection.id == responder.id)?;
    let position = connection.position(responder.number)?;
    let is_open = !connection.flags.has(conn::CLOSED)
        && !connection.queue[position].flags.has(part::DONE | part::INTERNAL | part::UPGRADE);
    is_open.then(|| Exchange::new(core.reborrow(), layer, index, responder.number))
}

/// The reactor and all its exchanges, in callbacks that are not about one of them.
pub struct Context<'a, T: Default + 'static> {
    core: Core<'a>,
    layer: &'a mut Layer<T>,
}

impl<'a, T: Default + 'static> Context<'a, T> {
    pub(super) fn new(core: Core<'a>, layer: &'a mut Layer<T>) -> Self {
        Self { core, layer }
    }

    /// The reactor.
    pub fn core(&mut self) -> &mut Core<'a> {
        &mut self.core
    }

    /// The exchange that a responder names; `None` if it is over.
    pub fn exchange(&mut self, responder: Responder) -> Option<Exchange<'_, T>> {
        find(&mut self.core, self.layer, responder)
    }

    /// The upgraded connection that a responder names; `None` if it has ended.
    pub fn upgraded(&mut self, responder: Responder) -> Option<super::Upgraded<'_, T>> {
        super::upgrade::find(&mut self.core, self.layer, responder)
    }

    /// Open connections of this reactor that speak HTTP or were upgraded from it.
    pub fn connections(&self) -> usize {
        self.layer.connections.len()
    }

    /// Whether the server shuts down.
    pub fn is_draining(&self) -> bool {
        self.layer.draining
    }
}

impl<T: Default> fmt::Debug for Context<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
