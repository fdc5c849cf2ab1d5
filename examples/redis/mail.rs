//! Requests to the reactors that own their keys, and the answers. What one call of `on_data` has to ask of a
//! reactor goes there in one message, and comes back in the same one with the answers in it.

#![allow(clippy::vec_box, reason = "what is kept is sent again, and messages hold it in a box")]

use corelane::{ConnId, Core, Handle, Relay};

use crate::commands::Command;
use crate::protocol::{Args, Span};
use crate::reply::{Mark, Part, Reply};
use crate::session::Ticket;

/// Messages that wait for room in a mailbox before requests are no longer read.
const MOST_WAITING: usize = 256;
/// Batches that are kept to be used again, and how many bytes or words they may have room for.
const MOST_SPARE: usize = 64;
const MOST_KEPT: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) enum Message {
    Requests(Box<Batch>),
    Answers(Box<Batch>),
}

/// Requests of one connection to one reactor.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) from: ConnId,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    requests: Vec<Request>,
    replies: Reply,
}

#[derive(Debug)]
struct Request {
    ticket: Ticket,
    command: &'static Command,
    /// Its words are the spans up to here.
    end: usize,
    is_resp3: bool,
    /// Its reply ends here.
    replied: Mark,
}

impl Batch {
    fn new(from: ConnId) -> Self {
        let (bytes, spans, requests) = (Vec::new(), Vec::new(), Vec::new());
        Self { from, bytes, spans, requests, replies: Reply::default() }
    }

    pub(crate) fn add<'a>(
        &mut self,
        ticket: Ticket,
        command: &'static Command,
        words: impl Iterator<Item = &'a [u8]>,
        is_resp3: bool,
    ) {
        for word in words {
            self.spans.push(Span::new(self.bytes.len(), word.len()));
            self.bytes.extend_from_slice(word);
        }
        let end = self.spans.len();
        self.requests.push(Request { ticket, command, end, is_resp3, replied: Mark::default() });
    }

    /// Bytes of its requests.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Has each request replied to, in order.
    pub(crate) fn execute(&mut self, mut execute: impl FnMut(&'static Command, Args<'_>, bool, &mut Reply)) {
        let mut start = 0;
        for request in &mut self.requests {
            let args = Args::new(&self.bytes, &self.spans[start..request.end]);
            execute(request.command, args, request.is_resp3, &mut self.replies);
            start = request.end;
            request.replied = self.replies.mark();
        }
    }

    pub(crate) fn answers(&self) -> impl Iterator<Item = (Ticket, Part<'_>)> {
        let mut start = Mark::default();
        self.requests.iter().map(move |request| {
            let part = self.replies.part(start, request.replied);
            start = request.replied;
            (request.ticket, part)
        })
    }
}

/// The post office of one reactor.
#[derive(Debug)]
pub(crate) struct Mail {
    relay: Relay<Message>,
    /// What the connection whose requests are being read asks of each reactor.
    open: Vec<Option<Box<Batch>>>,
    spare: Vec<Box<Batch>>,
}

impl Mail {
    pub(crate) fn new(handle: Handle<Message>) -> Self {
        let open = (0..handle.reactors()).map(|_| None).collect();
        Self { relay: Relay::new(handle, 0), open, spare: Vec::new() }
    }

    pub(crate) fn reactors(&self) -> usize {
        self.open.len()
    }

    /// Whether so much waits for other reactors that none should be asked for more.
    #[inline]
    pub(crate) fn is_clogged(&self) -> bool {
        self.relay.waiting() >= MOST_WAITING
    }

    /// What goes to a reactor when the requests at hand have been read.
    pub(crate) fn to(&mut self, reactor: usize, from: ConnId) -> &mut Batch {
        let Self { open, spare, .. } = self;
        open[reactor].get_or_insert_with(|| take_spare(spare, from))
    }

    /// A batch that stays here.
    pub(crate) fn batch(&mut self, from: ConnId) -> Box<Batch> {
        take_spare(&mut self.spare, from)
    }

    /// Sends what has been asked; how many bytes that is.
    pub(crate) fn send(&mut self, core: &mut Core<'_>) -> usize {
        let mut bytes = 0;
        for reactor in 0..self.open.len() {
            if let Some(batch) = self.open[reactor].take() {
                bytes += batch.size();
                self.post(reactor, Message::Requests(batch), core);
            }
        }
        bytes
    }

    pub(crate) fn post(&mut self, reactor: usize, message: Message, core: &mut Core<'_>) {
        self.relay.send(core, reactor, message);
    }

    /// Sends on what had no room; the requests that nobody will answer, because their reactor has stopped.
    pub(crate) fn retry(&mut self, core: &mut Core<'_>) -> impl Iterator<Item = Box<Batch>> + use<> {
        self.relay.retry(core).into_iter().filter_map(|message| match message {
            Message::Requests(batch) => Some(batch),
            // Whoever asked is gone.
            Message::Answers(_) => None,
        })
    }

    /// Keeps a batch for the next use.
    pub(crate) fn recycle(&mut self, mut batch: Box<Batch>) {
        let is_small = batch.bytes.capacity() <= MOST_KEPT && batch.spans.capacity() <= MOST_KEPT;
        if self.spare.len() < MOST_SPARE && is_small {
            batch.bytes.clear();
            batch.spans.clear();
            batch.requests.clear();
            batch.replies.clear();
            self.spare.push(batch);
        }
    }
}

fn take_spare(spare: &mut Vec<Box<Batch>>, from: ConnId) -> Box<Batch> {
    match spare.pop() {
        Some(mut batch) => {
            batch.from = from;
            batch
        }
        None => Box::new(Batch::new(from)),
    }
}
