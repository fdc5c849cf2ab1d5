use super::{Access, Context, Exchange, Headers, Request, Responder, Upgraded};
use crate::{CloseReason, Flow, Input, TimerId};

/// The user's code: one value per reactor, made there by the factory given to
/// [`Server::start`](crate::Server::start), called on that reactor's thread only. It need not be `Send`.
///
/// Callbacks must return soon, as those of a [`Handler`](crate::Handler).
///
/// # Order
///
/// For each request: `on_request`; if it has a body, `on_body` in any number and `on_body_end`, unless its reply is
/// whole before; `on_drained` in any number while a body of a reply is written. An exchange ends when its reply is
/// whole, or with `on_abort`; no callback follows for it. An exchange that was upgraded goes on with `on_upgraded`,
/// then `on_upgraded_data` and `on_upgraded_drained` in any number, at most one `on_upgraded_eof`, and ends with
/// `on_upgraded_close`.
///
/// # Panics
///
/// A panic in a callback about one connection resets it, as in any handler.
pub trait Service: Sized + 'static {
    /// The service's own state of one exchange: made when its request comes, dropped when it is over. `()` where none
    /// is needed.
    type State: Default + 'static;

    /// What other threads may send to this reactor; `()` where nothing is.
    type Message: Send + 'static;

    /// A request has come. Answer it with [`Exchange::reply`] at once, or keep [`Exchange::responder`] and answer later.
    ///
    /// Each request is to be answered some time: no deadline of the layer runs while the service has its turn, and replies
    /// to what was pipelined behind it wait for this one.
    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, Self::State>);

    /// A part of the request's body, without framing; never empty.
    fn on_body(&mut self, exchange: &mut Exchange<'_, Self::State>, data: &[u8]) {
        let _ = (exchange, data);
    }

    /// The request's body is whole. `trailers` came behind it; there are seldom any.
    fn on_body_end(&mut self, exchange: &mut Exchange<'_, Self::State>, trailers: &Headers<'_>) {
        let _ = (exchange, trailers);
    }

    /// The reply's body may be written on: what was written before has left but for a little, or it has become this
    /// reply's turn.
    fn on_drained(&mut self, exchange: &mut Exchange<'_, Self::State>) {
        let _ = exchange;
    }

    /// The exchange ended before its reply was whole: the connection closed, or the request's body turned out to be
    /// invalid or too slow. Its responder is stale.
    fn on_abort(&mut self, responder: Responder, state: Self::State, context: &mut Context<'_, Self::State>) {
        let _ = (responder, state, context);
    }

    /// A sampled exchange is over; see [`Config::log_every`](super::Config::log_every).
    fn on_access(&mut self, access: &Access<'_>) {
        let _ = access;
    }

    /// The head of the reply that [upgrades](super::Reply::upgrade) is written: from now on the connection is the
    /// service's.
    fn on_upgraded(&mut self, upgraded: &mut Upgraded<'_, Self::State>) {
        let _ = upgraded;
    }

    /// Input of an upgraded connection, never empty; what is not consumed is there again, as in
    /// [`Handler::on_data`](crate::Handler::on_data). By default it is closed.
    fn on_upgraded_data(&mut self, upgraded: &mut Upgraded<'_, Self::State>, input: &mut Input<'_>) -> Flow {
        let _ = (upgraded, input);
        Flow::Close
    }

    /// Output of an upgraded connection that had risen above the high watermark has fallen to the low one.
    fn on_upgraded_drained(&mut self, upgraded: &mut Upgraded<'_, Self::State>) -> Flow {
        let _ = upgraded;
        Flow::Continue
    }

    /// The peer of an upgraded connection will send no more. By default it is closed.
    fn on_upgraded_eof(&mut self, upgraded: &mut Upgraded<'_, Self::State>, input: &mut Input<'_>) -> Flow {
        let _ = (upgraded, input);
        Flow::Close
    }

    /// The server shuts down: may this upgraded connection be closed? By default yes.
    fn on_upgraded_drain(&mut self, upgraded: &mut Upgraded<'_, Self::State>) -> Flow {
        let _ = upgraded;
        Flow::Close
    }

    /// An upgraded connection has ended.
    fn on_upgraded_close(
        &mut self,
        responder: Responder,
        state: Self::State,
        reason: CloseReason,
        context: &mut Context<'_, Self::State>,
    ) {
        let _ = (responder, state, reason, context);
    }

    /// A [`Handle`](crate::Handle) sent a message.
    fn on_message(&mut self, message: Self::Message, context: &mut Context<'_, Self::State>) {
        let _ = (message, context);
    }

    /// A timer set with [`Core::set_timer`](crate::Core::set_timer) is due.
    fn on_timer(&mut self, timer: TimerId, key: u64, context: &mut Context<'_, Self::State>) {
        let _ = (timer, key, context);
    }

    /// Another period of [`Server::tick`](crate::Server::tick) has passed.
    fn on_tick(&mut self, context: &mut Context<'_, Self::State>) {
        let _ = context;
    }

    /// The reactor begins. A panic here makes the start fail.
    fn on_start(&mut self, context: &mut Context<'_, Self::State>) {
        let _ = context;
    }

    /// The server shuts down: exchanges that are under way may finish, no other begins.
    fn on_shutdown(&mut self, context: &mut Context<'_, Self::State>) {
        let _ = context;
    }
}
