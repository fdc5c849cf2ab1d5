use std::fmt;
use std::sync::Arc;

use crate::buffer::Shared;
use crate::connection::{ConnId, Receipt};
use crate::reactor::{Command, Control, Mailbox, Published, Rejected, Snapshot, Stop};

/// The server, as any thread can reach it: messages to its reactors, writes to and closes of its
/// connections, its counters, its end.
///
/// Everything sent goes through a bounded mailbox of the reactor concerned and keeps its order there. A
/// full mailbox is an error that gives the value back at once; nothing here blocks. A reactor that is busy
/// is not woken, one that sleeps is woken once.
///
/// ```
/// # use corelane::{ConnId, Handle, SendError, Shared};
/// fn push(handle: &Handle<()>, id: ConnId) -> Result<(), SendError<Shared>> {
///     handle.write(id, "news\n")
/// }
/// ```
pub struct Handle<M> {
    mailboxes: Arc<[Mailbox<Command<M>>]>,
    published: Arc<[Published]>,
    control: Arc<Control>,
}

/// A command that was not taken, and the value it carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError<T> {
    /// The reactor's mailbox is full: it is behind. Try later, or drop the value knowingly.
    Full(T),
    /// The server has stopped, or never had that reactor.
    Stopped(T),
}

impl<T> SendError<T> {
    /// The value that was not taken.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Stopped(value) => value,
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the reactor's mailbox is full",
            Self::Stopped(_) => "the server has stopped",
        })
    }
}

impl<T: fmt::Debug> std::error::Error for SendError<T> {}

impl<M: Send + 'static> Handle<M> {
    pub(crate) fn new(
        mailboxes: Arc<[Mailbox<Command<M>>]>,
        published: Arc<[Published]>,
        control: Arc<Control>,
    ) -> Self {
        Self { mailboxes, published, control }
    }

    /// Begins to shut the server down in good order and returns at once: listeners are emptied and closed,
    /// the handlers are told, connections end as their handler lets them, at the latest at the drain
    /// deadline.
    pub fn shutdown(&self) {
        self.stop(Stop::Drain);
    }

    /// Ends the server now: every connection is reset.
    pub fn stop_now(&self) {
        self.stop(Stop::Force);
    }

    pub(crate) fn stop(&self, how: Stop) {
        self.control.stop(how);
        self.mailboxes.iter().for_each(Mailbox::wake);
    }

    /// How many reactors the server has.
    pub fn reactors(&self) -> usize {
        self.mailboxes.len()
    }

    /// Has `on_message` called on the reactor of this index.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the message.
    pub fn send(&self, reactor: usize, message: M) -> Result<(), SendError<M>> {
        let Some(mailbox) = self.mailboxes.get(reactor) else {
            return Err(SendError::Stopped(message));
        };
        mailbox.push(Command::Message(message), 0).map_err(|rejected| {
            give_back(rejected, |command| match command {
                Command::Message(message) => Some(message),
                _ => None,
            })
        })
    }

    /// Writes to a connection. Where that raises its output above the high watermark, its handler gets an
    /// `on_drained` for it later. Whether the connection still lives is found out on its reactor; ask with a receipt
    /// where that matters.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the bytes.
    pub fn write(&self, id: ConnId, bytes: impl Into<Shared>) -> Result<(), SendError<Shared>> {
        self.put(id, bytes.into(), None)
    }

    /// As [`Handle::write`], and has `receipt` answered in any case.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the bytes; the receipt has then been answered with nothing sent.
    pub fn write_with_receipt(
        &self,
        id: ConnId,
        bytes: impl Into<Shared>,
        receipt: Receipt,
    ) -> Result<(), SendError<Shared>> {
        self.put(id, bytes.into(), Some(receipt))
    }

    /// Closes a connection in good order, behind what was written to it before. A dial that is still under way
    /// is given up; no callback follows it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the id.
    pub fn close(&self, id: ConnId) -> Result<(), SendError<ConnId>> {
        self.tell(id, Command::Close(id.key))
    }

    /// Resets a connection. A dial that is still under way is given up; no callback follows it.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the id.
    pub fn abort(&self, id: ConnId) -> Result<(), SendError<ConnId>> {
        self.tell(id, Command::Abort(id.key))
    }

    /// The counters of each reactor, as of the end of its last turn.
    pub fn counters(&self) -> Vec<Snapshot> {
        self.published.iter().map(Published::snapshot).collect()
    }

    /// The counters of all reactors together.
    pub fn total(&self) -> Snapshot {
        let mut total = Snapshot::default();
        self.counters().iter().for_each(|snapshot| total.add(snapshot));
        total
    }

    fn put(&self, id: ConnId, payload: Shared, receipt: Option<Receipt>) -> Result<(), SendError<Shared>> {
        let Some(mailbox) = self.mailboxes.get(id.reactor()) else {
            return Err(SendError::Stopped(payload));
        };
        let bytes = payload.len();
        let command = Command::Write { key: id.key, payload, receipt };
        mailbox.push(command, bytes).map_err(|rejected| {
            give_back(rejected, |command| match command {
                Command::Write { payload, .. } => Some(payload),
                _ => None,
            })
        })
    }

    fn tell(&self, id: ConnId, command: Command<M>) -> Result<(), SendError<ConnId>> {
        let Some(mailbox) = self.mailboxes.get(id.reactor()) else {
            return Err(SendError::Stopped(id));
        };
        mailbox.push(command, 0).map_err(|rejected| give_back(rejected, |_| Some(id)))
    }
}

/// The value that a rejected command carried.
fn give_back<M, T>(rejected: Rejected<Command<M>>, value: impl Fn(Command<M>) -> Option<T>) -> SendError<T> {
    const SAME: &str = "a mailbox rejects the command it was given";
    match rejected {
        Rejected::Full(command) => SendError::Full(value(command).expect(SAME)),
        Rejected::Closed(command) => SendError::Stopped(value(command).expect(SAME)),
    }
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            mailboxes: Arc::clone(&self.mailboxes),
            published: Arc::clone(&self.published),
            control: Arc::clone(&self.control),
        }
    }
}

impl<M> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("reactors", &self.mailboxes.len()).finish_non_exhaustive()
    }
}
