//! Connections beside the measured ones that carry as much as they can: the firehose.

use anyhow::{Context, Result, bail, ensure};

use super::ring::{Completion, Ring};
use super::window::Window;
use crate::outcome::{Status, WithStatus};
use crate::pattern::{Pattern, Place};

/// How much a connection sends and receives at a time.
pub(super) const CHUNK: usize = 64 * 1024;

/// One of these connections.
#[derive(Debug)]
pub(super) struct Hose {
    /// What the ring knows it as, and its buffer.
    file: u32,
    buffer: usize,
    /// Of its completions.
    tags: Tags,
    next: Place,
    expected: Place,
    /// Bytes that were sent and have not come back.
    unanswered: usize,
}

/// How a connection's operations are told apart from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tags {
    pub(super) receive: u64,
    pub(super) send: u64,
}

impl Hose {
    /// The connection of this number in the whole run.
    pub(super) fn new(number: usize, file: u32, buffer: usize, tags: Tags) -> Self {
        let place = Place::of_connection(number);
        Self { file, buffer, tags, next: place, expected: place, unanswered: 0 }
    }

    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Begins to send and to receive.
    pub(super) fn open(&mut self, pattern: &'static Pattern, ring: &mut Ring) {
        self.send(pattern, ring);
        self.receive(ring);
    }

    fn send(&mut self, pattern: &'static Pattern, ring: &mut Ring) {
        let bytes = pattern.bytes(self.next, CHUNK);
        self.next = self.next.after(CHUNK);
        self.unanswered += CHUNK;
        ring.send(self.file, bytes, self.tags.send);
    }

    /// A send has ended.
    pub(super) fn sent(
        &mut self,
        pattern: &'static Pattern,
        ring: &mut Ring,
        completion: &Completion,
        window: &Window<'_>,
    ) -> Result<()> {
        let length = completion.result().context("lost while sending")?;
        ensure!(length == CHUNK, "lost: {length} of {CHUNK} bytes were sent");
        if !window.is_closed() {
            self.send(pattern, ring);
        }
        Ok(())
    }

    /// One receive at a time, so that a turn stays short and the measured replies are seen soon.
    fn receive(&self, ring: &mut Ring) {
        ring.receive(self.file, self.buffer, self.tags.receive);
    }

    /// Bytes have come back.
    pub(super) fn received(
        &mut self,
        pattern: &'static Pattern,
        ring: &mut Ring,
        completion: &Completion,
        window: &mut Window<'_>,
    ) -> Result<()> {
        let length = completion.result().context("lost")?;
        if length == 0 {
            bail!("lost: the server closed it");
        }
        self.check(pattern, ring.own_bytes(self.buffer, length)).status(Status::WrongData)?;
        window.count_firehose(length);
        self.receive(ring);
        Ok(())
    }

    fn check(&mut self, pattern: &Pattern, received: &[u8]) -> Result<()> {
        let outstanding = self.unanswered;
        let length = received.len();
        ensure!(length <= outstanding, "{length} bytes came back when {outstanding} were outstanding");
        pattern.verify(self.expected, received)?;
        self.expected = self.expected.after(length);
        self.unanswered -= length;
        Ok(())
    }
}
