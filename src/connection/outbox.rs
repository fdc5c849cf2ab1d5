//! Output that the kernel has not taken yet, in order, and the receipts that wait for it.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::{Delivery, Inbox, Receipt};
use crate::buffer::{BLOCK, FileSlice, Pool, Shared};

/// What a waiting file counts against the watermarks and the cap, however long it is: its bytes are no memory, but
/// its descriptor and place in the queue are, so they have a bound too.
pub(crate) const FILE_COST: usize = 8 * 1024;

/// What connections borrow while they have something waiting, and give back when they have not.
#[derive(Debug)]
pub(crate) struct Pools {
    blocks: Pool<Vec<u8>>,
    inboxes: Pool<Box<Inbox>>,
    outboxes: Pool<Box<Outbox>>,
}

impl Pools {
    /// At most this many free parts of a kind: 4 MiB of blocks, and 6 MiB in inboxes.
    const LIMIT: usize = 256;

    /// So many of the inboxes may keep as much as this: where messages are large, the part of one and what the
    /// read buffer brings behind it meet there for a moment, on whichever connection is read.
    const ROOMY: usize = 16;
    const ROOM: usize = 8 * BLOCK;

    pub(crate) const fn new() -> Self {
        Self {
            blocks: Pool::new(Self::LIMIT),
            inboxes: Pool::new(Self::LIMIT),
            outboxes: Pool::new(Self::LIMIT),
        }
    }

    pub(crate) fn inbox(&mut self) -> Box<Inbox> {
        self.inboxes.take().unwrap_or_default()
    }

    pub(crate) fn give_inbox(&mut self, mut inbox: Box<Inbox>) {
        inbox.reset(if self.inboxes.len() < Self::ROOMY { Self::ROOM } else { BLOCK });
        self.inboxes.give(inbox);
    }

    /// Whoever had it before, its write-stall clock begins at `now`.
    pub(crate) fn outbox(&mut self, now: u32) -> Box<Outbox> {
        let mut outbox = self.outboxes.take().unwrap_or_default();
        outbox.progress = now;
        outbox
    }

    pub(crate) fn give_outbox(&mut self, mut outbox: Box<Outbox>) {
        debug_assert!(outbox.receipts.is_empty(), "a receipt would be answered late");
        while let Some(segment) = outbox.segments.pop_front() {
            self.give_segment(segment);
        }
        outbox.segments.shrink_to(64);
        outbox.receipts.shrink_to(16);
        outbox.length = 0;
        outbox.offset = 0;
        outbox.files = Files::default();
        self.outboxes.give(outbox);
    }

    pub(crate) fn trim(&mut self) {
        self.blocks.trim();
        self.inboxes.trim();
        self.outboxes.trim();
    }

    /// Whether nothing is kept, so that there is nothing to trim.
    pub(crate) fn are_empty(&self) -> bool {
        self.blocks.is_empty() && self.inboxes.is_empty() && self.outboxes.is_empty()
    }

    fn give_segment(&mut self, segment: Segment) {
        if let Segment::Block(mut block) = segment
            && block.capacity() <= 2 * BLOCK
        {
            block.clear();
            self.blocks.give(block);
        }
    }
}

#[derive(Debug)]
enum Segment {
    /// Bytes copied from small writes and from what the kernel refused.
    Block(Vec<u8>),
    Shared(Shared),
    /// What is left to send of a file; boxed, that the others are no larger for it.
    File(Box<FileSlice>),
}

impl Segment {
    /// Its bytes, if they are in memory.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Block(block) => Some(block),
            Self::Shared(shared) => Some(shared),
            Self::File(_) => None,
        }
    }
}

/// The files among the segments.
#[derive(Debug, Default)]
struct Files {
    count: usize,
    /// What is left to send of them all.
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    /// The write's place in the connection's stream of output bytes.
    start: u64,
    end: u64,
    receipt: Receipt,
}

/// The queue itself. `stream position` below counts the bytes that the kernel has taken of a connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    segments: VecDeque<Segment>,
    /// How much of the first segment the kernel has taken.
    offset: usize,
    length: usize,
    files: Files,
    receipts: VecDeque<Pending>,
    /// The tick at which the kernel last took something, for the write-stall deadline.
    pub(crate) progress: u32,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// What counts against the watermarks and the cap.
    pub(crate) fn cost(&self) -> usize {
        self.length - self.files.bytes + self.files.count * FILE_COST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Nothing waits, neither bytes nor receipts.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && self.receipts.is_empty()
    }

    pub(crate) fn append(&mut self, mut bytes: &[u8], pools: &mut Pools) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            let room = match self.segments.back() {
                Some(Segment::Block(block)) => block.capacity() - block.len(),
                _ => 0,
            };
            if room == 0 {
                let block = pools.blocks.take().unwrap_or_else(|| Vec::with_capacity(BLOCK));
                self.segments.push_back(Segment::Block(block));
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(Segment::Block(block)) = self.segments.back_mut() {
                block.extend_from_slice(now);
            }
            bytes = later;
        }
    }

    #[inline]
    pub(crate) fn append_shared(&mut self, shared: Shared) {
        if !shared.is_empty() {
            self.length += shared.len();
            self.segments.push_back(Segment::Shared(shared));
        }
    }

    pub(crate) fn append_file(&mut self, file: FileSlice) {
        if !file.is_empty() {
            self.length += file.len() as usize;
            self.files.bytes += file.len() as usize;
            self.files.count += 1;
            self.segments.push_back(Segment::File(Box::new(file)));
        }
    }

    #[inline]
    pub(crate) fn has_files(&self) -> bool {
        self.files.count > 0
    }

    /// What is left to send of the file that is at the front.
    pub(crate) fn front_file(&self) -> Option<&FileSlice> {
        match self.segments.front() {
            Some(Segment::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Fills `slices` from the front of the queue up to a file, at most `limit` bytes in all; returns how many
    /// slices were filled and how many bytes they hold.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], limit: usize) -> (usize, usize) {
        let (mut count, mut total) = (0, 0);
        let mut skip = self.offset;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            let Some(bytes) = segment.bytes() else { break };
            let bytes = &bytes[skip..];
            let bytes = &bytes[..bytes.len().min(limit - total)];
            skip = 0;
            if bytes.is_empty() {
                break;
            }
            *slice = IoSlice::new(bytes);
            total += bytes.len();
            count += 1;
        }
        (count, total)
    }

    /// How many pieces the queue is in.
    pub(crate) fn pieces(&self) -> usize {
        self.segments.len()
    }

    /// Drops `count` bytes from the front: the kernel has them.
    ///
    /// # Panics
    /// If `count` is more than there is.
    pub(crate) fn advance(&mut self, mut count: usize, pools: &mut Pools) {
        assert!(count <= self.length, "the kernel took {count} of {} bytes", self.length);
        self.length -= count;
        while count > 0 {
            let Some(first) = self.segments.front_mut() else { break };
            let left = match first {
                Segment::File(file) => {
                    let taken = count.min(file.len() as usize);
                    file.advance(taken as u64);
                    self.files.bytes -= taken;
                    if !file.is_empty() {
                        return;
                    }
                    self.files.count -= 1;
                    taken
                }
                first => {
                    let left = first.bytes().map_or(0, <[u8]>::len) - self.offset;
                    if count < left {
                        self.offset += count;
                        return;
                    }
                    left
                }
            };
            count -= left;
            self.offset = 0;
            if let Some(done) = self.segments.pop_front() {
                pools.give_segment(done);
            }
        }
    }

    /// Asks that `receipt` be answered when the kernel has taken the bytes from `start` to `end`.
    pub(crate) fn expect(&mut self, start: u64, end: u64, receipt: Receipt) {
        self.receipts.push_back(Pending { start, end, receipt });
    }

    /// Takes the next receipt that is settled now that the kernel has taken `position` bytes.
    pub(crate) fn settled(&mut self, position: u64) -> Option<Receipt> {
        self.receipts.front().filter(|pending| pending.end <= position)?;
        self.receipts.pop_front().map(|pending| pending.receipt)
    }

    /// Takes the next receipt, whose write will never be complete, and what is to be said of it.
    pub(crate) fn failed(&mut self, position: u64) -> Option<(Receipt, Delivery)> {
        let pending = self.receipts.pop_front()?;
        let delivery = match position {
            position if position >= pending.end => Delivery::Sent,
            position => Delivery::Failed { sent: position.saturating_sub(pending.start) as usize },
        };
        Some((pending.receipt, delivery))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file of 100,000 bytes that nobody else sees.
    fn file() -> FileSlice {
        static FILE: std::sync::OnceLock<FileSlice> = std::sync::OnceLock::new();
        let make = || {
            let path = std::env::temp_dir().join(format!("corelane-outbox-{}", std::process::id()));
            std::fs::write(&path, (0..100_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>()).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            FileSlice::whole(file).unwrap()
        };
        FILE.get_or_init(make).clone()
    }

    #[derive(Debug, Clone)]
    enum Call {
        Append(Vec<u8>),
        Shared(Vec<u8>),
        File {
            offset: u64,
            length: u64,
        },
        /// The kernel takes this part (of 255) of what it is offered.
        Send {
            slices: usize,
            part: u8,
        },
    }

    fn call() -> impl Strategy<Value = Call> {
        let bytes = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any::<u8>(), 0..(3 * BLOCK)),
        ];
        prop_oneof![
            3 => bytes.clone().prop_map(Call::Append),
            1 => bytes.prop_map(Call::Shared),
            1 => (0..50_000_u64, 0..50_000_u64).prop_map(|(offset, length)| Call::File { offset, length }),
            3 => (1..6usize, any::<u8>()).prop_map(|(slices, part)| Call::Send { slices, part }),
        ]
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_whole_and_in_order(calls in prop::collection::vec(call(), 1..80), limit in 1..60_000usize) {
            let mut pools = Pools::new();
            let mut outbox = Outbox::default();
            let (mut put, mut got) = (Vec::new(), Vec::new());
            for call in calls {
                match call {
                    Call::Append(bytes) => {
                        outbox.append(&bytes, &mut pools);
                        put.extend(bytes);
                    }
                    Call::Shared(bytes) => {
                        put.extend(&bytes);
                        outbox.append_shared(Shared::from(bytes));
                    }
                    Call::File { offset, length } => {
                        let slice = file().range(offset, length).unwrap();
                        let mut bytes = vec![0; length as usize];
                        if length > 0 {
                            prop_assert_eq!(slice.read(&mut bytes).unwrap(), bytes.len());
                        }
                        put.extend(bytes);
                        outbox.append_file(slice);
                    }
                    Call::Send { part, .. } if outbox.front_file().is_some() => {
                        let mut bytes = vec![0; limit];
                        let read = outbox.front_file().map_or(Ok(0), |file| file.read(&mut bytes)).unwrap();
                        let taken = read * part as usize / 255;
                        got.extend_from_slice(&bytes[..taken]);
                        outbox.advance(taken, &mut pools);
                    }
                    Call::Send { slices, part } => {
                        let mut list = vec![IoSlice::new(&[]); slices];
                        let (count, total) = outbox.gather(&mut list, limit);
                        prop_assert!(total <= limit);
                        let offered: Vec<u8> = list[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                        prop_assert_eq!(offered.len(), total);
                        prop_assert_eq!(total == 0, outbox.is_empty());
                        let taken = total * part as usize / 255;
                        got.extend_from_slice(&offered[..taken]);
                        drop(list);
                        outbox.advance(taken, &mut pools);
                    }
                }
                prop_assert_eq!(outbox.len(), put.len() - got.len());
                prop_assert_eq!(&put[..got.len()], &got[..]);
                let files = outbox.segments.iter().filter(|segment| matches!(segment, Segment::File(_)));
                let of_files: usize = files.clone().map(|segment| match segment {
                    Segment::File(file) => file.len() as usize,
                    _ => 0,
                }).sum();
                prop_assert_eq!(outbox.cost(), outbox.len() - of_files + files.count() * FILE_COST);
            }
        }
    }

    #[test]
    fn inboxes_in_use_keep_their_room_and_a_burst_of_them_does_not() {
        let mut pools = Pools::new();
        let mut inboxes: Vec<_> = (0..100).map(|_| pools.inbox()).collect();
        inboxes.iter_mut().for_each(|inbox| inbox.append(&vec![0; Pools::ROOM]));
        inboxes.into_iter().for_each(|inbox| pools.give_inbox(inbox));
        let rooms: Vec<_> = (0..100).map(|_| pools.inbox().capacity()).collect();
        assert_eq!(rooms.iter().filter(|room| **room > BLOCK).count(), Pools::ROOMY);
        assert!(rooms.iter().all(|room| *room <= Pools::ROOM));
    }

    #[test]
    fn a_segment_is_no_larger_for_files() {
        assert_eq!(size_of::<Segment>(), size_of::<Vec<u8>>());
    }

    #[test]
    fn a_reused_outbox_starts_its_clock_anew() {
        let mut pools = Pools::new();
        let first = pools.outbox(7);
        pools.give_outbox(first);
        assert_eq!(pools.outbox(9_000).progress, 9_000);
    }

    #[test]
    fn small_writes_share_a_block() {
        let (mut pools, mut outbox) = (Pools::new(), Outbox::default());
        for _ in 0..1000 {
            outbox.append(b"0123456789", &mut pools);
        }
        assert_eq!(outbox.pieces(), 1);
    }

    #[test]
    fn shared_bytes_are_not_copied() {
        let payload = Shared::from(vec![7; 100]);
        let mut outbox = Outbox::default();
        outbox.append_shared(payload.clone());
        let mut list = [IoSlice::new(&[])];
        outbox.gather(&mut list, usize::MAX);
        assert_eq!(list[0].as_ptr(), payload.as_ptr());
    }

    #[test]
    fn a_failed_receipt_says_how_much_of_its_own_write_went_out() {
        let mut outbox = Outbox::default();
        for (start, end) in [(0, 10), (10, 30), (30, 40)] {
            outbox.expect(start, end, Receipt::new(|_| {}));
        }
        assert!(outbox.settled(9).is_none());
        assert!(outbox.settled(15).is_some());
        assert!(outbox.settled(15).is_none());
        assert_eq!(outbox.failed(15).map(|failed| failed.1), Some(Delivery::Failed { sent: 5 }));
        assert_eq!(outbox.failed(15).map(|failed| failed.1), Some(Delivery::Failed { sent: 0 }));
        assert!(outbox.failed(15).is_none());
    }
}
