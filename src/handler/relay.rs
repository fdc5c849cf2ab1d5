use std::collections::VecDeque;
use std::time::Duration;

use super::{Core, Handle, SendError};

/// How soon a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Sends messages from a handler to the reactors, its own included, in their order and without loss.
///
/// A mailbox is bounded, and [`Handle::send`] gives back what it has no room for. A handler must not wait, so
/// a relay keeps such messages, and those behind them, and sends them by a timer. It bounds nothing itself: a
/// handler that goes by [`Relay::waiting`] and reads no more requests while that is much bounds what waits.
///
/// ```
/// # use corelane::{Conn, Core, Flow, Handler, Input, Open, Relay, Sessions, Start, TimerId};
/// struct Mirror {
///     relay: Relay<Vec<u8>>,
/// }
///
/// impl Mirror {
///     fn new(start: &Start<Vec<u8>>) -> Self {
///         Self { relay: Relay::new(start.handle(), 0) }
///     }
/// }
///
/// impl Handler for Mirror {
/// #   type Session = ();
/// #   type Message = Vec<u8>;
/// #   fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> { Open::Accept(()) }
///     fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
///         let bytes = input.take_all();
///         (0..self.relay.reactors()).for_each(|reactor| self.relay.send(conn.core(), reactor, bytes.to_vec()));
///         Flow::Continue
///     }
///
///     fn on_timer(&mut self, _: TimerId, _: u64, _: &mut Sessions<()>, core: &mut Core<'_>) {
///         self.relay.retry(core);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Relay<M> {
    handle: Handle<M>,
    /// By reactor.
    queues: Vec<VecDeque<M>>,
    waiting: usize,
    /// Those that nobody will take any more.
    returned: Vec<M>,
    timer_key: u64,
    timer_is_set: bool,
}

impl<M: Send + 'static> Relay<M> {
    /// A relay whose timer has the key `timer_key`: when it comes, the handler must call [`Relay::retry`].
    pub fn new(handle: Handle<M>, timer_key: u64) -> Self {
        let queues = (0..handle.reactors()).map(|_| VecDeque::new()).collect();
        Self { handle, queues, waiting: 0, returned: Vec::new(), timer_key, timer_is_set: false }
    }

    /// How many reactors the server has.
    pub fn reactors(&self) -> usize {
        self.queues.len()
    }

    /// Messages that wait for room in a mailbox.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sends a message to the reactor of this index, behind those that wait for room there.
    ///
    /// # Panics
    ///
    /// If the server has no such reactor.
    pub fn send(&mut self, core: &mut Core<'_>, reactor: usize, message: M) {
        self.queues[reactor].push_back(message);
        self.waiting += 1;
        self.push_on(reactor);
        self.set_timer(core);
    }

    /// Sends what waits, as far as there is room now. Returns the messages that could not be sent because
    /// their reactor has stopped, which it does only at the end of the server.
    pub fn retry(&mut self, core: &mut Core<'_>) -> Vec<M> {
        self.timer_is_set = false;
        (0..self.reactors()).for_each(|reactor| self.push_on(reactor));
        let returned = std::mem::take(&mut self.returned);
        self.set_timer(core);
        returned
    }

    fn push_on(&mut self, reactor: usize) {
        let queue = &mut self.queues[reactor];
        while let Some(message) = queue.pop_front() {
            match self.handle.send(reactor, message) {
                Ok(()) => {}
                Err(SendError::Full(message)) => return queue.push_front(message),
                Err(SendError::Stopped(message)) => self.returned.push(message),
            }
            self.waiting -= 1;
        }
    }

    fn set_timer(&mut self, core: &mut Core<'_>) {
        if !self.timer_is_set && (self.waiting > 0 || !self.returned.is_empty()) {
            self.timer_is_set = true;
            core.set_timer(RETRY, self.timer_key);
        }
    }
}
