use std::fmt;

use http::StatusCode;

use super::connection::{Flags, Reading, conn, part};
use super::date;
use super::encode::{self, Fields};
use super::exchange::{Exchange, ReplyError};
use super::layer::{Layer, PIECE, UNCOPIED};
use crate::Shared;

/// How long the body of a reply will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Length {
    /// So many bytes, no more and no fewer.
    Known(u64),
    /// Nobody knows: it is sent in chunks, and to a client of version 1.0 until the connection closes.
    Unknown,
}

/// A reply in the making: its status and headers so far.
///
/// The layer adds `Content-Length` or `Transfer-Encoding`, `Connection` and `Date`. If a header is not allowed, the
/// client gets a 500 without a body in its place, and the caller the error. It gets the same where the reply is dropped
/// before it was sent.
#[must_use = "dropped before `send`, `stream` or `upgrade` it is a 500"]
pub struct Reply<'a, T: Default + 'static> {
    exchange: Exchange<'a, T>,
    /// Where in the output that gathers this reply begins. It is made there, wherever it belongs.
    mark: usize,
    place: Place,
    /// What is known of the exchange: its entry is told at the end.
    flags: Flags,
    status: StatusCode,
    has_date: bool,
    has_upgrade: bool,
    error: Option<ReplyError>,
}

/// Where the bytes of a reply go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There is nothing to answer.
    Nowhere,
    /// The reply is made.
    Done,
    /// Its turn has come: they leave.
    Out,
    /// They wait in the entry of this place in the queue.
    Held(usize),
}

impl<'a, T: Default + 'static> Reply<'a, T> {
    #[inline(always)]
    pub(super) fn new(mut exchange: Exchange<'a, T>, status: StatusCode) -> Self {
        exchange.select();
        let Layer { connections, out, .. } = &mut *exchange.layer;
        let connection = &connections[exchange.index];
        let (place, flags, mut error) = match connection.position(exchange.number) {
            Some(position) => match connection.queue[position].flags {
                flags if flags.has(part::BEGUN) => (Place::Nowhere, flags, Some(ReplyError::Begun)),
                flags if position == 0 && connection.queue[0].held.is_empty() => (Place::Out, flags, None),
                flags => (Place::Held(position), flags, None),
            },
            None => (Place::Nowhere, Flags::default(), Some(ReplyError::Over)),
        };
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            error.get_or_insert(ReplyError::Status);
        }
        let mark = out.len();
        encode::status_line(out, status);
        Self { exchange, mark, place, flags, status, has_date: false, has_upgrade: false, error }
    }

    /// Adds a header. Its name is a token, its value has no control character but the tab; `Content-Length`,
    /// `Transfer-Encoding`, `Connection` and `Keep-Alive` are the layer's. What is wrong is told by [`Reply::send`] and
    /// its like.
    #[inline]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        match encode::check(name, value) {
            Ok(()) => encode::field(self.out(), name, value),
            Err(error) => _ = self.error.get_or_insert(error),
        }
        self.has_date |= name.len() == 4 && name.eq_ignore_ascii_case("date");
        self.has_upgrade |= name.len() == 7 && name.eq_ignore_ascii_case("upgrade");
        self
    }

    /// Adds headers that were checked before.
    #[inline(always)]
    pub fn fields(mut self, fields: &Fields) -> Self {
        self.out().extend_from_slice(fields.as_bytes());
        self
    }

    /// Has the connection closed behind this reply.
    pub fn close(mut self) -> Self {
        self.flags.set(part::CLOSE);
        self
    }

    /// Sends it with this body, and ends the exchange. To HEAD, and with a status that has no body, only the headers go.
    /// The body may be of any size: of a large one, what the client does not take at once is copied and kept for it.
    ///
    /// # Errors
    ///
    /// What was wrong with the headers: the client gets a 500 then. [`ReplyError::Begun`] and [`ReplyError::Over`] if
    /// there is nothing to answer.
    #[inline(always)]
    pub fn send(self, body: &[u8]) -> Result<(), ReplyError> {
        if self.is_plain() && body.len() < UNCOPIED {
            self.send_plain(body);
            return Ok(());
        }
        self.send_any(body)
    }

    /// Whether nothing about request and reply asks for more than a length and a date.
    #[inline]
    fn is_plain(&self) -> bool {
        const ODD: u32 = part::HEAD
            | part::CLOSE
            | part::KEEP
            | part::BODY
            | part::EXPECTS
            | part::UPGRADE
            | part::CONNECT
            | part::INTERNAL;
        self.place == Place::Out
            && self.error.is_none()
            && !self.has_date
            && !self.has_upgrade
            && !self.flags.has(ODD)
            && !matches!(self.status.as_u16(), 100..=199 | 204 | 304)
    }

    #[inline(always)]
    fn send_plain(mut self, body: &[u8]) {
        let Layer { out, date, config, .. } = &mut *self.exchange.layer;
        if config.date {
            out.extend_from_slice(date.and_length());
        } else {
            out.extend_from_slice(date::LENGTH);
        }
        encode::decimal(out, body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
        self.flags.set(part::BEGUN | part::DONE);
        self.finish(body.len());
    }

    #[inline(never)]
    fn send_any(mut self, body: &[u8]) -> Result<(), ReplyError> {
        let has_body = self.head(Length::Known(body.len() as u64), true)?;
        let sent = if has_body { body.len() } else { 0 };
        match self.place {
            _ if !has_body => {}
            Place::Out if body.len() >= UNCOPIED => self.exchange.pass_on(body, b""),
            _ => self.out().extend_from_slice(body),
        }
        self.finish(sent);
        Ok(())
    }

    /// As [`Reply::send`], for a body that is shared and not copied. Of more than 256 KiB, what the client does not take at
    /// once is copied.
    ///
    /// # Errors
    ///
    /// As [`Reply::send`].
    pub fn send_shared(mut self, body: &Shared) -> Result<(), ReplyError> {
        if !(UNCOPIED..=PIECE).contains(&body.len()) || self.place != Place::Out {
            return self.send(body);
        }
        if !self.head(Length::Known(body.len() as u64), true)? {
            self.finish(0);
            return Ok(());
        }
        let Exchange { core, layer, index, .. } = &mut self.exchange;
        layer.flush(core);
        if let Some(id) = layer.id(*index) {
            let written = core.write_shared(id, body);
            layer.note(core, *index, written);
        }
        self.finish(body.len());
        Ok(())
    }

    /// Sends the head; the body follows with [`Exchange::write`], and [`Exchange::end`] behind it, whenever the service
    /// likes. If the client waits to be asked for the request's body, it is asked now, unless
    /// [`Exchange::pause_body`] was called.
    ///
    /// # Errors
    ///
    /// As [`Reply::send`].
    pub fn stream(mut self, length: Length) -> Result<(), ReplyError> {
        self.ask_for_body();
        self.head(length, false)?;
        self.begin(length);
        Ok(())
    }

    /// Sends the head, and makes the connection the service's own: what the client has sent and sends behind the
    /// request goes to [`Service::on_upgraded_data`](super::Service::on_upgraded_data). With status 101 an `Upgrade`
    /// header must name the protocol; to CONNECT the answer is a 200.
    ///
    /// # Errors
    ///
    /// As [`Reply::send`]; [`ReplyError::Upgrade`] to a request that asked for no upgrade, as one of version 1.0 cannot, or
    /// that has a body: it gets a 500.
    pub fn upgrade(mut self) -> Result<(), ReplyError> {
        if self.flags.has(part::BODY) || !self.flags.has(part::OFFERS) {
            self.error.get_or_insert(ReplyError::Upgrade);
        } else {
            self.flags.set(part::UPGRADE);
        }
        self.head(Length::Unknown, false)?;
        self.exchange.layer.connections[self.exchange.index].flags.set(conn::LAST);
        self.begin(Length::Unknown);
        Ok(())
    }

    #[inline]
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.exchange.layer.out
    }

    /// The interim reply, in front of the one that was begun, where the client waits for it.
    fn ask_for_body(&mut self) {
        let is_waiting = self.flags.has(part::EXPECTS) && !self.flags.has(part::PAUSED);
        if is_waiting && self.error.is_none() {
            self.flags.clear(part::EXPECTS);
            let mark = self.mark;
            self.out().splice(mark..mark, CONTINUE.iter().copied());
            self.mark += CONTINUE.len();
        }
    }

    /// Writes the rest of the head; whether a body follows it. `is_whole`: all of the body is there.
    fn head(&mut self, length: Length, is_whole: bool) -> Result<bool, ReplyError> {
        let is_switch = self.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_switch && self.error.is_none() && !self.flags.has(part::UPGRADE) {
            self.error = Some(ReplyError::Status);
        }
        // Behind a 2xx the client of a CONNECT speaks to somebody else (RFC 9110, 9.3.6).
        let is_tunnel = self.flags.has(part::CONNECT) && self.status.is_success();
        if is_tunnel && self.error.is_none() && !self.flags.has(part::UPGRADE) {
            self.error = Some(ReplyError::Upgrade);
        }
        if let Some(error) = self.error {
            self.answer_for(error);
            return Err(error);
        }
        self.conclude(length, is_whole);
        self.lines(length);
        Ok(!self.flags.has(part::BODILESS))
    }

    /// What follows from the reply for its exchange.
    fn conclude(&mut self, length: Length, is_whole: bool) {
        let must_close = is_whole && self.flags.has(part::BODY) && self.leaves_too_much();
        let flags = &mut self.flags;
        flags.set(if is_whole { part::BEGUN | part::DONE } else { part::BEGUN });
        if must_close {
            flags.set(part::CLOSE);
        }
        if matches!(self.status.as_u16(), 204 | 304) || flags.has(part::UPGRADE) {
            flags.set(part::LENGTHLESS | part::BODILESS);
        } else if length == Length::Unknown {
            flags.set(if flags.has(part::HTTP10) { part::CLOSE } else { part::CHUNKED });
        }
        if flags.has(part::HEAD) {
            flags.set(part::BODILESS);
        }
        if flags.has(part::CLOSE) {
            self.exchange.layer.connections[self.exchange.index].flags.set(conn::LAST);
        }
    }

    /// The rest of the request's body is read and dropped if that is not too much; and a client that waits to be asked
    /// for it may or may not send it, so nobody knows where the next request would begin.
    #[cold]
    fn leaves_too_much(&self) -> bool {
        let Layer { connections, config, .. } = &*self.exchange.layer;
        let left = match connections[self.exchange.index].reading {
            Reading::Body(body) => body.left().unwrap_or(0),
            Reading::Head { .. } => 0,
        };
        left > config.limits.discard || self.flags.has(part::EXPECTS)
    }

    /// The headers that are the layer's, and the end of the head.
    fn lines(&mut self, length: Length) {
        let flags = self.flags;
        let connection: &[u8] = match () {
            () if self.status == StatusCode::SWITCHING_PROTOCOLS => b"connection: upgrade\r\n",
            () if flags.has(part::UPGRADE) => b"",
            // What is offered, with a 426 or without, is of this connection alone (RFC 9110, 7.8).
            () if self.has_upgrade && flags.has(part::CLOSE) => b"connection: close, upgrade\r\n",
            () if self.has_upgrade => b"connection: upgrade\r\n",
            () if !flags.has(part::CLOSE | part::KEEP) => b"",
            () if flags.has(part::CLOSE) => b"connection: close\r\n",
            () => b"connection: keep-alive\r\n",
        };
        let Layer { out, date, config, .. } = &mut *self.exchange.layer;
        let has_date = config.date && !self.has_date;
        if let Length::Known(length) = length
            && !flags.has(part::LENGTHLESS)
        {
            if has_date {
                out.extend_from_slice(date.and_length());
            } else {
                out.extend_from_slice(date::LENGTH);
            }
            encode::decimal(out, length);
            out.extend_from_slice(b"\r\n");
        } else {
            if has_date {
                out.extend_from_slice(date.line());
            }
            if flags.has(part::CHUNKED) {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
        }
        if !connection.is_empty() {
            out.extend_from_slice(connection);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Nobody is to wait for ever because the service did not go on with its reply. Where it panicked, the connection is
    /// reset.
    #[cold]
    fn dropped(&mut self) {
        if self.place == Place::Nowhere || std::thread::panicking() {
            let mark = self.mark;
            return self.out().truncate(mark);
        }
        tracing::error!("a reply was begun and not sent: the client gets a 500");
        self.fail();
    }

    /// The service's reply is none: the client gets one that says so.
    #[cold]
    fn answer_for(&mut self, error: ReplyError) {
        if self.place != Place::Nowhere {
            tracing::error!(%error, "a reply was not allowed: the client gets a 500");
            self.fail();
        }
    }

    fn fail(&mut self) {
        let mark = self.mark;
        self.out().truncate(mark);
        (self.error, self.has_date, self.has_upgrade) = (None, false, false);
        self.flags.clear(part::UPGRADE);
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        self.status = status;
        encode::status_line(self.out(), status);
        if self.head(Length::Known(0), true).is_ok() {
            self.finish(0);
        }
    }

    /// The head is whole, and a body follows.
    fn begin(&mut self, length: Length) {
        let left = match length {
            Length::Known(length) => length,
            Length::Unknown => u64::MAX,
        };
        self.tell(0, left);
        self.exchange.layer.list(self.exchange.index);
    }

    /// The reply is whole; so many bytes of body were sent.
    #[inline(always)]
    fn finish(&mut self, sent: usize) {
        let Exchange { layer, index, .. } = &mut self.exchange;
        let is_simple = self.place == Place::Out && !self.flags.has(part::BODY | part::CLOSE);
        if is_simple && layer.complete_only(*index, self.status.as_u16(), sent as u64) {
            self.place = Place::Done;
        } else {
            self.tell(sent as u64, 0);
            self.exchange.layer.complete(&mut self.exchange.core, self.exchange.index);
        }
        let Exchange { core, layer, index, .. } = &mut self.exchange;
        layer.flush_if_much(core);
        layer.list(*index);
    }

    /// Tells the entry what has become of it, and gives it what must wait.
    fn tell(&mut self, sent: u64, left: u64) {
        let Layer { connections, out, .. } = &mut *self.exchange.layer;
        let (position, is_held) = match std::mem::replace(&mut self.place, Place::Done) {
            Place::Nowhere | Place::Done => return,
            Place::Out => (0, false),
            Place::Held(position) => (position, true),
        };
        let entry = &mut connections[self.exchange.index].queue[position];
        if is_held {
            entry.held.tail().extend_from_slice(&out[self.mark..]);
            out.truncate(self.mark);
        }
        entry.flags = self.flags;
        entry.status = self.status.as_u16();
        (entry.sent, entry.left) = (sent, left);
    }
}

/// Asks a client for the body that it waits with.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl<T: Default + 'static> Drop for Reply<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.place != Place::Done {
            self.dropped();
        }
    }
}

impl<T: Default> fmt::Debug for Reply<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}
