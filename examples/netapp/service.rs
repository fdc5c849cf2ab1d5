//! Which request is answered by what.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corelane::http1::files::{FileBody, Files};
use corelane::http1::{
    Access, Context, Exchange, Headers, Http, Length, Method, Protocol, ReplyError, Request, Responder,
    Service, StatusCode,
};
use corelane::{Handle, Handler, Start, TimerId, Written};

use crate::alloc::Allocations;
use crate::ending::Ending;
use crate::later::Later;
use crate::metrics;
use crate::pages::Pages;

/// What all reactors are told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) fast_delay: Option<Duration>,
    pub(crate) alloc_keep: usize,
    pub(crate) files: Option<Arc<Files>>,
    pub(crate) protocol: Protocol,
    pub(crate) ending: Ending,
    /// Replies that wait for their time.
    pub(crate) waiting: Arc<AtomicU64>,
}

/// The service of one reactor.
pub(crate) struct Netapp {
    settings: Settings,
    server: Handle<()>,
    pages: Pages,
    later: Later,
    allocations: Allocations,
    /// Of the delays of `/slow`.
    seed: u64,
}

/// What is under way in one exchange.
#[derive(Default)]
pub(crate) enum State {
    /// Nothing that would have to be remembered.
    #[default]
    Plain,
    /// A timer, by its key.
    Later(usize),
    Echo,
    /// A file whose turn has not come.
    File(FileBody),
}

impl Netapp {
    pub(crate) fn new(settings: Settings, start: &Start<<Http<Self> as Handler>::Message>) -> Self {
        Self {
            allocations: Allocations::new(settings.alloc_keep),
            later: Later::new(Arc::clone(&settings.waiting)),
            settings,
            server: start.handle(),
            pages: Pages::new(),
            seed: start.reactor() as u64 + 1,
        }
    }

    fn route(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, State>) -> Result<(), ReplyError> {
        let path = request.path();
        if path == "/echo" {
            return echo(request, exchange);
        }
        if let (Some(files), Some(path)) = (&self.settings.files, path.strip_prefix("/files/")) {
            let waiting = files.answer(request, path, exchange)?;
            keep(waiting, exchange);
            return Ok(());
        }
        if !matches!(request.method(), Method::Get | Method::Head) {
            let reply = exchange.reply(StatusCode::METHOD_NOT_ALLOWED).header("allow", "GET, HEAD");
            return reply.send(b"");
        }
        match path {
            "/plaintext" => self.pages.plaintext(exchange),
            "/json" => self.pages.json(exchange),
            "/fast" => match self.settings.fast_delay {
                None => self.pages.text(exchange, StatusCode::OK, "fast"),
                Some(delay) => {
                    self.later.answer(exchange, delay, "fast".into());
                    Ok(())
                }
            },
            "/slow" => self.slow(request, exchange),
            "/alloc" => {
                let line = self.allocations.work();
                self.pages.text(exchange, StatusCode::OK, line.trim_end())
            }
            "/healthz" => self.pages.text(exchange, StatusCode::OK, "alive"),
            "/readyz" if self.settings.ending.has_begun() => {
                self.pages.text(exchange, StatusCode::SERVICE_UNAVAILABLE, "draining")
            }
            "/readyz" => self.pages.text(exchange, StatusCode::OK, "ready"),
            "/metrics" => {
                let waiting = self.settings.waiting.load(Ordering::Relaxed);
                let page = metrics::page(&self.server.total(), &self.settings.protocol.total(), waiting);
                let reply = exchange.reply(StatusCode::OK);
                reply.header("content-type", "text/plain; version=0.0.4").send(page.as_bytes())
            }
            _ => self.pages.text(exchange, StatusCode::NOT_FOUND, "nothing here"),
        }
    }

    /// Answers after `?ms=`, or a while that is drawn.
    fn slow(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, State>) -> Result<(), ReplyError> {
        let asked =
            request.query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("ms=")));
        let (delay, line) = match asked.map(str::parse) {
            // Nothing of what was drawn: whoever compares replies finds them all alike.
            None => (self.draw(), "waited a while".into()),
            Some(Ok(delay @ 1..=300)) => (delay, format!("waited {delay} ms")),
            Some(_) => {
                return self.pages.text(exchange, StatusCode::BAD_REQUEST, "ms is not within 1 to 300");
            }
        };
        self.later.answer(exchange, Duration::from_millis(delay), line);
        Ok(())
    }

    /// 1 to 300 milliseconds (a step of xorshift64).
    fn draw(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        1 + self.seed % 300
    }
}

impl Service for Netapp {
    type State = State;
    type Message = ();

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, State>) {
        settle(self.route(request, exchange), exchange);
    }

    fn on_body(&mut self, exchange: &mut Exchange<'_, State>, data: &[u8]) {
        if !matches!(exchange.state(), Some(State::Echo)) {
            return;
        }
        match exchange.write(data) {
            Ok(Written::Accepted) => {}
            // The reader is slower than the sender: the sender waits.
            Ok(Written::High) => exchange.pause_body(),
            _ => exchange.abort(),
        }
    }

    fn on_body_end(&mut self, exchange: &mut Exchange<'_, State>, trailers: &Headers<'_>) {
        if matches!(exchange.state(), Some(State::Echo)) {
            let trailers: Vec<_> = trailers.iter().collect();
            // Some trailers cannot be repeated; the body can.
            let ended = exchange.end_with_trailers(&trailers).or_else(|_| exchange.end());
            settle(ended, exchange);
        }
    }

    fn on_drained(&mut self, exchange: &mut Exchange<'_, State>) {
        match exchange.state().map(std::mem::take) {
            Some(State::File(body)) => match body.send(exchange) {
                Ok(waiting) => keep(waiting, exchange),
                Err(error) => settle(Err(error), exchange),
            },
            Some(State::Echo) => {
                if let Some(state) = exchange.state() {
                    *state = State::Echo;
                }
                exchange.resume_body();
            }
            _ => {}
        }
    }

    fn on_abort(&mut self, responder: Responder, state: State, context: &mut Context<'_, State>) {
        if let State::Later(key) = state {
            self.later.forget(responder, key, context.core());
        }
    }

    fn on_timer(&mut self, _: TimerId, key: u64, context: &mut Context<'_, State>) {
        let Some((responder, line)) = self.later.due(key) else { return };
        let Some(mut exchange) = context.exchange(responder) else { return };
        let answered = self.pages.text(&mut exchange, StatusCode::OK, line);
        settle(answered, &mut exchange);
    }

    fn on_access(&mut self, access: &Access<'_>) {
        let Access { id, method, target, status, bytes, duration, .. } = access;
        eprintln!("{id} {method} {target} {status} {bytes} bytes {} us", duration.as_micros());
    }
}

/// Sends the body back as it comes, and as fast as it is read.
fn echo(request: &Request<'_>, exchange: &mut Exchange<'_, State>) -> Result<(), ReplyError> {
    let content_type = request.header("content-type").unwrap_or(b"application/octet-stream");
    let length = request.content_length().map_or(Length::Unknown, Length::Known);
    exchange.reply(StatusCode::OK).header("content-type", content_type).stream(length)?;
    if !request.has_body() {
        return exchange.end();
    }
    if let Some(state) = exchange.state() {
        *state = State::Echo;
    }
    Ok(())
}

fn keep(waiting: Option<FileBody>, exchange: &mut Exchange<'_, State>) {
    if let (Some(body), Some(state)) = (waiting, exchange.state()) {
        *state = State::File(body);
    }
}

/// A reply that cannot be made is a mistake of ours; nobody is to wait for it.
fn settle(answered: Result<(), ReplyError>, exchange: &mut Exchange<'_, State>) {
    match answered {
        Ok(()) | Err(ReplyError::Over) => {}
        Err(error) => {
            eprintln!("cannot answer: {error}");
            exchange.abort();
        }
    }
}
