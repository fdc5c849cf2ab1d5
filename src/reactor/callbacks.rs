use super::{ConnectError, Io};
use crate::connection::{CloseReason, Flow, Key};
use crate::driver::Port;
use crate::time::TimerId;

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Flow(Flow),
    Panicked,
}

/// What became of a callback that was shown input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) consumed: usize,
    pub(crate) then: Then,
}

/// What became of a connection that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Accepted,
    Refused,
    Panicked,
}

/// What a reactor tells the user's code, in a form that has lost the user's types. `handler` implements
/// it; every call catches panics.
pub(crate) trait Callbacks {
    type Message: Send + 'static;

    fn start(&mut self, io: &mut Io, port: &mut dyn Port) -> Then;
    fn open(&mut self, io: &mut Io, port: &mut dyn Port, key: Key) -> Offer;
    fn data(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, bytes: &[u8]) -> Outcome;
    fn eof(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, bytes: &[u8]) -> Outcome;
    fn drained(&mut self, io: &mut Io, port: &mut dyn Port, key: Key) -> Then;
    fn close(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, reason: CloseReason);
    fn connect_error(&mut self, io: &mut Io, port: &mut dyn Port, key: Key, error: ConnectError);
    fn message(&mut self, io: &mut Io, port: &mut dyn Port, message: Self::Message);
    fn timer(&mut self, io: &mut Io, port: &mut dyn Port, id: TimerId, key: u64);
    fn tick(&mut self, io: &mut Io, port: &mut dyn Port);
    fn shutdown(&mut self, io: &mut Io, port: &mut dyn Port);
    /// Asks about one connection whether it may be closed now that the server shuts down.
    fn drain(&mut self, io: &mut Io, port: &mut dyn Port, key: Key) -> Then;
}
