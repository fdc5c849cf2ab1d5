//! What one connection has sent and has yet to get back.

use std::collections::VecDeque;

use anyhow::{Result, ensure};

use crate::pattern::{Pattern, Place};

/// Messages that are due together are sent together, up to this many bytes.
const LARGEST_BATCH: usize = 64 * 1024;

/// The most bytes that a connection sends or receives at a time.
pub(super) fn largest_send(message: usize) -> usize {
    message.max(LARGEST_BATCH)
}

/// How much a connection of the firehose sends and receives at a time.
pub(super) const HOSE_CHUNK: usize = LARGEST_BATCH;

/// The two ends of the bytes that are on their way.
#[derive(Debug)]
pub(super) struct Flow {
    next: Place,
    expected: Place,
    unanswered: usize,
}

impl Flow {
    pub(super) fn of_connection(index: usize) -> Self {
        let place = Place::of_connection(index);
        Self { next: place, expected: place, unanswered: 0 }
    }

    /// The next bytes to send.
    pub(super) fn take(&mut self, pattern: &'static Pattern, length: usize) -> &'static [u8] {
        let bytes = pattern.bytes(self.next, length);
        self.next = self.next.after(length);
        self.unanswered += length;
        bytes
    }

    /// Checks bytes that have come back.
    pub(super) fn give_back(&mut self, pattern: &Pattern, received: &[u8]) -> Result<()> {
        ensure!(
            received.len() <= self.unanswered,
            "{} bytes came back when {} were outstanding",
            received.len(),
            self.unanswered
        );
        pattern.verify(self.expected, received)?;
        self.expected = self.expected.after(received.len());
        self.unanswered -= received.len();
        Ok(())
    }

    /// The bytes that were sent and have not come back.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }
}

/// A measured connection.
#[derive(Debug)]
pub(super) struct Lane {
    flow: Flow,
    size: usize,
    /// Bytes of the oldest message that have come back.
    partial: usize,
    /// Bytes the kernel is still sending. One send at a time, or their bytes could be mixed.
    sending: usize,
    /// Messages that are due and not handed to the kernel yet.
    owed: usize,
    /// Since when each message has been under way or due.
    since: VecDeque<u64>,
}

impl Lane {
    pub(super) fn new(index: usize, size: usize) -> Self {
        Self {
            flow: Flow::of_connection(index),
            size,
            partial: 0,
            sending: 0,
            owed: 0,
            since: VecDeque::new(),
        }
    }

    /// Makes one more message due.
    pub(super) fn owe(&mut self, since: u64) {
        self.owed += 1;
        self.since.push_back(since);
    }

    /// The bytes to send now; if `quiet` nobody will tell when they have been sent.
    pub(super) fn take(&mut self, pattern: &'static Pattern, quiet: bool) -> Option<&'static [u8]> {
        if self.owed == 0 || self.sending > 0 {
            return None;
        }
        let messages = self.owed.min((LARGEST_BATCH / self.size).max(1));
        self.owed -= messages;
        let length = messages * self.size;
        if !quiet {
            self.sending = length;
        }
        Some(self.flow.take(pattern, length))
    }

    /// Notes that a send has ended.
    pub(super) fn sent(&mut self, length: usize) -> Result<()> {
        ensure!(length == self.sending, "{length} of {} bytes were sent", self.sending);
        self.sending = 0;
        Ok(())
    }

    /// Checks bytes that have come back, and tells how many messages they complete.
    pub(super) fn give_back(&mut self, pattern: &Pattern, received: &[u8]) -> Result<usize> {
        self.flow.give_back(pattern, received)?;
        let complete = (self.partial + received.len()) / self.size;
        self.partial = (self.partial + received.len()) % self.size;
        Ok(complete)
    }

    /// Since when the oldest message has been under way; it is so no longer.
    pub(super) fn finish_oldest(&mut self) -> u64 {
        self.since.pop_front().expect("no more messages come back than were sent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_sent_one_batch_at_a_time() {
        let pattern = Pattern::leak(largest_send(64));
        let mut lane = Lane::new(0, 64);
        assert_eq!(lane.take(pattern, false), None);
        lane.owe(1);
        lane.owe(2);
        assert_eq!(lane.take(pattern, false).unwrap().len(), 128);
        lane.owe(3);
        assert_eq!(lane.take(pattern, false), None);
        assert!(lane.sent(127).is_err());
        lane.sent(128).unwrap();
        assert_eq!(lane.take(pattern, false).unwrap().len(), 64);
    }

    #[test]
    fn batches_are_bounded_and_messages_whole() {
        let pattern = Pattern::leak(largest_send(100_000));
        for (size, sent) in [(40_000, 40_000), (100_000, 100_000), (30_000, 60_000)] {
            let mut lane = Lane::new(0, size);
            (0..5).for_each(|since| lane.owe(since));
            assert_eq!(lane.take(pattern, true).unwrap().len(), sent);
        }
    }

    #[test]
    fn replies_complete_messages_however_they_are_cut() {
        let pattern = Pattern::leak(largest_send(10));
        let mut lane = Lane::new(5, 10);
        (0..3).for_each(|since| lane.owe(since));
        let sent = lane.take(pattern, true).unwrap();
        assert_eq!(lane.give_back(pattern, &sent[..9]).unwrap(), 0);
        assert_eq!(lane.give_back(pattern, &sent[9..25]).unwrap(), 2);
        assert_eq!((lane.finish_oldest(), lane.finish_oldest()), (0, 1));
        assert!(lane.give_back(pattern, &sent[20..25]).is_err());
        assert_eq!(lane.give_back(pattern, &sent[25..]).unwrap(), 1);
        assert!(lane.give_back(pattern, &sent[..1]).is_err());
    }
}
