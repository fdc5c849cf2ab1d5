use std::fmt;

use http::StatusCode;

use super::connection::{Flags, Reading, conn, part};
use super::encode::{self, Fields};
use super::exchange::{Exchange, ReplyError};
use super::layer::UNCOPIED;
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
/// client gets a 500 without a body in its place, and the caller the error.
#[must_use = "nothing is sent before `send`, `stream` or `upgrade`"]
pub struct Reply<'a, T: Default + 'static> {
    exchange: Exchange<'a, T>,
    /// Taken from where it belongs, and put back at the end.
    out: Vec<u8>,
    place: Place,
    /// Where in it this reply begins.
    mark: usize,
    status: StatusCode,
    has_date: bool,
    error: Option<ReplyError>,
}

/// Where the bytes of a reply go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Out,
    Held,
}

impl<'a, T: Default + 'static> Reply<'a, T> {
    #[inline]
    pub(super) fn new(mut exchange: Exchange<'a, T>, status: StatusCode) -> Self {
        exchange.select();
        let mut error = None;
        let layer = &mut *exchange.layer;
        let connection = &mut layer.connections[exchange.index];
        let (mut out, place) = match connection.position(exchange.number) {
            Some(position) if connection.queue[position].flags.has(part::BEGUN) => {
                error = Some(ReplyError::Begun);
                (Vec::new(), Place::Nowhere)
            }
            Some(0) => (std::mem::take(&mut layer.out), Place::Out),
            Some(position) => (std::mem::take(&mut connection.queue[position].held), Place::Held),
            None => {
                error = Some(ReplyError::Over);
                (Vec::new(), Place::Nowhere)
            }
        };
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            error.get_or_insert(ReplyError::Status);
        }
        let mark = out.len();
        encode::status_line(&mut out, status);
        Self { exchange, out, place, mark, status, has_date: false, error }
    }

    /// Adds a header. Its name is a token, its value has no control character but the tab; `Content-Length`,
    /// `Transfer-Encoding`, `Connection` and `Keep-Alive` are the layer's. What is wrong is told by [`Reply::send`] and
    /// its like.
    #[inline]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        match encode::check(name, value) {
            Ok(()) => encode::field(&mut self.out, name, value),
            Err(error) => _ = self.error.get_or_insert(error),
        }
        self.has_date |= name.len() == 4 && name.eq_ignore_ascii_case("date");
        self
    }

    /// Adds headers that were checked before.
    #[inline]
    pub fn fields(mut self, fields: &Fields) -> Self {
        self.out.extend_from_slice(fields.as_bytes());
        self
    }

    /// Has the connection closed behind this reply.
    pub fn close(mut self) -> Self {
        if let Some(entry) = self.exchange.entry() {
            entry.flags.set(part::CLOSE);
        }
        self
    }

    /// Sends it with this body, and ends the exchange. To HEAD, and with a status that has no body, only the headers go.
    ///
    /// # Errors
    ///
    /// What was wrong with the headers: the client gets a 500 then. [`ReplyError::Begun`] and [`ReplyError::Over`] if
    /// there is nothing to answer.
    #[inline]
    pub fn send(mut self, body: &[u8]) -> Result<(), ReplyError> {
        let has_body = self.head(Length::Known(body.len() as u64), true)?;
        if has_body && (body.len() < UNCOPIED || self.place == Place::Held) {
            self.out.extend_from_slice(body);
        } else if has_body {
            self.put_back();
            self.exchange.layer.flush_with(&mut self.exchange.core, &[body]);
        }
        self.finish();
        Ok(())
    }

    /// As [`Reply::send`], for a body that is shared and not copied.
    ///
    /// # Errors
    ///
    /// As [`Reply::send`].
    pub fn send_shared(mut self, body: &Shared) -> Result<(), ReplyError> {
        if body.len() < UNCOPIED || self.place == Place::Held {
            return self.send(body);
        }
        if !self.head(Length::Known(body.len() as u64), true)? {
            self.finish();
            return Ok(());
        }
        self.put_back();
        let Exchange { core, layer, index, .. } = &mut self.exchange;
        layer.flush(core);
        if let Some(id) = layer.id(*index) {
            let written = core.write_shared(id, body);
            layer.note(core, *index, written);
        }
        self.finish();
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
        self.put_back();
        self.exchange.layer.list(self.exchange.index);
        Ok(())
    }

    /// Sends the head, and makes the connection the service's own: what the client has sent and sends behind the
    /// request goes to [`Service::on_upgraded_data`](super::Service::on_upgraded_data). With status 101 an `Upgrade`
    /// header must name the protocol; to CONNECT the answer is a 200.
    ///
    /// # Errors
    ///
    /// As [`Reply::send`]; [`ReplyError::Upgrade`] to a request of version 1.0 or with a body, which gets a 500.
    pub fn upgrade(mut self) -> Result<(), ReplyError> {
        if let Some(entry) = self.exchange.entry() {
            if entry.flags.has(part::HTTP10 | part::BODY) {
                self.error.get_or_insert(ReplyError::Upgrade);
            } else if self.error.is_none() {
                entry.flags.set(part::UPGRADE);
            }
        }
        self.head(Length::Unknown, false)?;
        let Exchange { layer, index, .. } = &mut self.exchange;
        layer.connections[*index].flags.set(conn::LAST);
        self.put_back();
        self.exchange.layer.list(self.exchange.index);
        Ok(())
    }

    /// The interim reply, in front of the one that was begun, where the client waits for it.
    fn ask_for_body(&mut self) {
        let mark = self.mark;
        if self.error.is_none()
            && let Some(entry) = self.exchange.entry()
            && !entry.flags.has(part::PAUSED)
            && entry.flags.take(part::EXPECTS)
        {
            self.out.splice(mark..mark, CONTINUE.iter().copied());
            self.mark += CONTINUE.len();
        }
    }

    /// Writes the rest of the head; whether a body follows it. `is_whole`: all of the body is there.
    #[inline]
    fn head(&mut self, length: Length, is_whole: bool) -> Result<bool, ReplyError> {
        if self.error.is_none() && self.status == StatusCode::SWITCHING_PROTOCOLS && !self.is_upgrade() {
            self.error = Some(ReplyError::Status);
        }
        if let Some(error) = self.error {
            self.answer_for(error);
            return Err(error);
        }
        let mut flags = self.flags(length, is_whole).ok_or(ReplyError::Over)?;
        self.lines(flags, length);
        let has_body = !flags.has(part::BODILESS);
        let Exchange { layer, index, number, .. } = &mut self.exchange;
        let connection = &mut layer.connections[*index];
        if flags.has(part::CLOSE) {
            connection.flags.set(conn::LAST);
        }
        let entry = connection.entry(*number).ok_or(ReplyError::Over)?;
        flags.set(if is_whole { part::BEGUN | part::DONE } else { part::BEGUN });
        entry.flags = flags;
        entry.status = self.status.as_u16();
        entry.left = match length {
            Length::Known(length) => length,
            Length::Unknown => u64::MAX,
        };
        if is_whole && has_body {
            entry.sent = entry.left;
        }
        Ok(has_body)
    }

    /// What is known of the exchange, and what follows from its reply.
    #[inline]
    fn flags(&mut self, length: Length, is_whole: bool) -> Option<Flags> {
        let discard = self.exchange.layer.config.limits.discard;
        let connection = &mut self.exchange.layer.connections[self.exchange.index];
        let mut flags = connection.entry(self.exchange.number)?.flags;
        // The rest of the request's body is read and dropped if that is not too much; and a client that waits to be
        // asked for it may or may not send it, so nobody knows where the next request would begin.
        if is_whole && flags.has(part::BODY) {
            let left = match connection.reading {
                Reading::Body(body) => body.left().unwrap_or(0),
                Reading::Head { .. } => 0,
            };
            if left > discard || flags.has(part::EXPECTS) {
                flags.set(part::CLOSE);
            }
        }
        let has_none = matches!(self.status.as_u16(), 204 | 304) || flags.has(part::UPGRADE);
        flags.assign(part::LENGTHLESS, has_none);
        flags.assign(part::BODILESS, has_none || flags.has(part::HEAD));
        if length == Length::Unknown && !has_none {
            flags.set(if flags.has(part::HTTP10) { part::CLOSE } else { part::CHUNKED });
        }
        Some(flags)
    }

    /// The headers that are the layer's, and the end of the head.
    #[inline]
    fn lines(&mut self, flags: Flags, length: Length) {
        let out = &mut self.out;
        if let Length::Known(length) = length
            && !flags.has(part::LENGTHLESS)
        {
            encode::content_length(out, length);
        } else if flags.has(part::CHUNKED) {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if flags.has(part::CLOSE | part::KEEP | part::UPGRADE) {
            let is_switch = self.status == StatusCode::SWITCHING_PROTOCOLS;
            out.extend_from_slice(match () {
                () if is_switch => b"connection: upgrade\r\n",
                () if flags.has(part::UPGRADE) => b"",
                () if flags.has(part::CLOSE) => b"connection: close\r\n",
                () => b"connection: keep-alive\r\n",
            });
        }
        let layer = &self.exchange.layer;
        if layer.config.date && !self.has_date {
            out.extend_from_slice(layer.date.line());
        }
        out.extend_from_slice(b"\r\n");
    }

    fn is_upgrade(&mut self) -> bool {
        self.exchange.entry().is_some_and(|entry| entry.flags.has(part::UPGRADE))
    }

    /// The service's reply is none: the client gets one that says so.
    #[cold]
    fn answer_for(&mut self, error: ReplyError) {
        if self.place == Place::Nowhere {
            return;
        }
        tracing::error!(%error, "a reply was not allowed: the client gets a 500");
        self.out.truncate(self.mark);
        (self.error, self.has_date) = (None, false);
        self.status = StatusCode::INTERNAL_SERVER_ERROR;
        encode::status_line(&mut self.out, self.status);
        if self.head(Length::Known(0), true).is_ok() {
            self.finish();
        }
    }

    /// The reply is whole.
    #[inline]
    fn finish(&mut self) {
        self.put_back();
        self.exchange.done();
    }

    #[inline]
    fn put_back(&mut self) {
        let out = std::mem::take(&mut self.out);
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Out => self.exchange.layer.out = out,
            Place::Held => {
                if let Some(entry) = self.exchange.entry() {
                    entry.held = out;
                }
            }
            Place::Nowhere => {}
        }
    }
}

/// Asks a client for the body that it waits with.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl<T: Default + 'static> Drop for Reply<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.place != Place::Nowhere {
            self.out.truncate(self.mark);
            self.put_back();
        }
    }
}

impl<T: Default> fmt::Debug for Reply<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}
