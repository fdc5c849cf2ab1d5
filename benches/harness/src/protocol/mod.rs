//! What is said to a target: requests of each kind, and replies that are compared byte by byte.
//!
//! A [`Wire`] speaks for all connections of one reactor; what belongs to a connection is its [`Talk`]. Neither
//! knows sockets or clocks: bytes and times are passed in. Replies come in the order of their requests in every
//! protocol here. Called by the engine; `redis` also by whoever prepares a server.

mod exact;
mod http;
mod material;
pub(crate) mod redis;
#[cfg(test)]
mod tests;
mod wrong;

use std::collections::VecDeque;

use crate::pattern::{Pattern, Place};
use crate::plan::{Dialect, Operation, Plan};
use exact::{Exact, Parts};
use http::Http;
pub(crate) use wrong::Wrong;

/// A request that was sent and not answered in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// When it was due.
    pub(crate) intended: u64,
    /// When it was sent.
    pub(crate) sent: u64,
    /// Which of the requests of the mix.
    entry: u16,
    /// What it is for, to whoever sent it.
    pub(crate) purpose: Purpose,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To see that the connection works.
    Proof,
    /// The load.
    Load,
    /// One that all connections send at the same time.
    Wave,
}

/// A request that has been answered in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) request: Pending,
    /// When the first byte of the reply was seen.
    pub(crate) first_byte: u64,
    /// Whether the target will close the connection behind it.
    pub(crate) is_last: bool,
}

/// Where a connection is in what it says, or in what it hears.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    connection: u64,
    /// Requests, or replies, so far.
    count: u64,
    /// In the pattern.
    place: Place,
}

impl Cursor {
    /// A number for this request alone, the same whenever it is asked for.
    fn dice(&self, seed: u64) -> u64 {
        mixed(mixed(seed ^ self.connection) ^ self.count)
    }

    fn step(&mut self, bytes: usize) {
        self.count += 1;
        self.place = self.place.after(bytes);
    }
}

/// One connection's conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    said: Cursor,
    heard: Cursor,
    /// The oldest unanswered request stands apart: with one in flight nothing else is allocated.
    front: Option<Pending>,
    rest: VecDeque<Pending>,
    /// Bytes of the front's reply that have come.
    got: usize,
    /// When the first of them was seen; 0 if none was.
    first_byte: u64,
    reader: http::Reader,
}

impl Talk {
    /// The conversation of the connection of this number.
    pub(crate) fn new(connection: u64) -> Self {
        let cursor = Cursor { connection, count: 0, place: Place::of_connection(connection as usize) };
        Self {
            said: cursor,
            heard: cursor,
            front: None,
            rest: VecDeque::new(),
            got: 0,
            first_byte: 0,
            reader: http::Reader::default(),
        }
    }

    /// Requests without a reply.
    pub(crate) fn unanswered(&self) -> usize {
        usize::from(self.front.is_some()) + self.rest.len()
    }

    /// The oldest request without a reply.
    pub(crate) fn oldest(&self) -> Option<&Pending> {
        self.front.as_ref()
    }

    /// All requests without a reply.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.front.iter().chain(&self.rest)
    }

    fn push(&mut self, request: Pending) {
        match &self.front {
            None => self.front = Some(request),
            Some(_) => self.rest.push_back(request),
        }
    }

    fn pop(&mut self) {
        self.front = self.rest.pop_front();
    }
}

#[derive(Debug)]
enum Speech {
    Exact(Exact),
    Http(Http),
}

/// What one reactor says and hears.
#[derive(Debug)]
pub(crate) struct Wire {
    speech: Speech,
    /// The sum of the weights up to each entry.
    weights: Vec<u64>,
    seed: u64,
    /// Where heads of requests and replies are put together.
    head: Vec<u8>,
    verified: u64,
}

/// What all reactors have in common, made once.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pattern: &'static Pattern,
    text: &'static material::Text,
}

impl Material {
    /// For messages as large as those of the plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let largest = plan.largest().max(1);
        Self { pattern: Pattern::leak(largest), text: material::Text::leak(largest) }
    }
}

impl Wire {
    pub(crate) fn new(plan: &Plan, material: &Material) -> Self {
        let speech = match plan.target.dialect {
            Dialect::Http => Speech::Http(Http::new(plan)),
            _ => Speech::Exact(Exact::new(plan, material.clone())),
        };
        let mut sum = 0;
        let weights = plan.mix.iter().map(|entry| {
            sum += u64::from(entry.weight);
            sum
        });
        let weights = weights.collect();
        Self { speech, weights, seed: plan.seed, head: Vec::with_capacity(256), verified: 0 }
    }

    /// The bytes of the longest request.
    pub(crate) fn longest_request(&self) -> usize {
        match &self.speech {
            Speech::Http(http) => http.longest_request(),
            Speech::Exact(exact) => exact.longest_request(),
        }
    }

    /// Bytes of replies that were compared with what they should be.
    pub(crate) fn verified(&self) -> u64 {
        self.verified
    }

    /// Has a connection say its next request, which was due and is sent at these `times`; `write` gets its bytes in
    /// up to three parts, and tells whether they were taken.
    #[inline]
    pub(crate) fn ask(
        &mut self,
        talk: &mut Talk,
        times: (u64, u64),
        purpose: Purpose,
        write: impl FnOnce(&[&[u8]]) -> bool,
    ) -> bool {
        let entry = match (purpose, self.weights.len()) {
            (Purpose::Proof, _) | (_, 1) => 0,
            _ => self.pick(&talk.said),
        };
        let (taken, advance) = match &self.speech {
            Speech::Http(http) => (write(&[http.request(entry)]), 0),
            Speech::Exact(exact) => {
                let Parts { body, tail, advance } = exact.request(entry, purpose, &talk.said, &mut self.head);
                let taken = match (self.head.is_empty(), tail.is_empty()) {
                    (true, true) => write(&[body]),
                    _ => write(&[&self.head, body, tail]),
                };
                (taken, advance)
            }
        };
        if taken {
            talk.said.step(advance);
            talk.push(Pending { intended: times.0, sent: times.1, entry, purpose });
        }
        taken
    }

    fn pick(&self, said: &Cursor) -> u16 {
        let total = self.weights.last().copied().unwrap_or(1);
        let drawn = said.dice(self.seed) % total;
        self.weights.partition_point(|sum| *sum <= drawn) as u16
    }

    /// Takes in what was received, up to the end of one reply; `None` if that is still to come. Bytes that stay in
    /// `input` are to be shown again, with more behind them.
    #[inline]
    pub(crate) fn hear(
        &mut self,
        talk: &mut Talk,
        input: &mut &[u8],
        now: u64,
    ) -> Result<Option<Answered>, Wrong> {
        if input.is_empty() {
            return Ok(None);
        }
        let Some(front) = talk.front else { return Err(Wrong::unasked(input)) };
        if talk.first_byte == 0 {
            talk.first_byte = now;
        }
        let before = input.len();
        let mut is_last = false;
        let complete = match &mut self.speech {
            Speech::Http(http) => match http.hear(front.entry, &mut talk.reader, input)? {
                http::Heard::More => false,
                http::Heard::Reply { closes } => {
                    is_last = closes;
                    true
                }
            },
            Speech::Exact(exact) => {
                let parts = exact.reply(front.entry, front.purpose, &talk.heard, &mut self.head);
                let complete = parts.compare(&self.head, &mut talk.got, input)?;
                if complete {
                    talk.heard.step(parts.advance);
                }
                complete
            }
        };
        self.verified += (before - input.len()) as u64;
        if !complete {
            return Ok(None);
        }
        talk.got = 0;
        let first_byte = std::mem::take(&mut talk.first_byte);
        talk.pop();
        Ok(Some(Answered { request: front, first_byte, is_last }))
    }

    /// The beginning of a request, and a byte by which it can go on for ever without an end.
    pub(crate) fn endless(&self) -> (Vec<u8>, u8) {
        match &self.speech {
            Speech::Http(_) => (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_vec(), b'x'),
            Speech::Exact(exact) => exact.endless(),
        }
    }
}

/// What is compared, in words.
pub(crate) fn verification(plan: &Plan) -> &'static str {
    match plan.target.dialect {
        Dialect::Echo => "every byte of every reply, with what that connection had sent",
        Dialect::Frames => "every byte of every reply: length, id, and the body backwards",
        Dialect::Redis => "every byte of every reply, values with what their key was set to",
        Dialect::Http if plan.verify => {
            "status and length of every reply, its body with the first of its path"
        }
        Dialect::Http => "status and length of every reply; bodies were not compared",
    }
}

/// Whether redis needs its keys to be there before anything is asked.
pub(crate) fn needs_keys(plan: &Plan) -> bool {
    plan.target.dialect == Dialect::Redis && plan.mix.iter().any(|entry| entry.operation == Operation::Get)
}

/// A well mixed number of a number (the finalizer of splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
impl Pending {
    pub(crate) fn at(intended: u64, sent: u64, purpose: Purpose) -> Self {
        Self { intended, sent, entry: 0, purpose }
    }
}
