//! Writing. What a callback writes to its own connection is gathered in the reactor's scratch and leaves in
//! one `writev` when the callback returns; a large slice leaves at once with what was gathered, uncopied;
//! what the kernel refuses is kept in the connection's outbox. What others write to it waits there for the
//! end of the turn, but a large slice, the first shared payload of a turn, and what exceeds the high watermark
//! leave at once.

use std::io::{ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{ConnectProblem, Io};
use crate::buffer::{BLOCK, FileSlice, Shared};
use crate::connection::{
    CloseReason, Connection, Delivery, FILE_COST, Flag, Key, Outbox, Phase, Pools, Receipt, Written,
};
use crate::driver::{Port, Sent};

/// A write of at least this many bytes leaves at once, uncopied. Below, copying it (8 KiB: about 0.2 us)
/// costs less than what a system call of its own would (0.5 us and up, and a segment on the wire).
const LARGE: usize = 8 * 1024;

/// Gathered bytes are flushed when they are this many, to keep the wire busy while a callback goes on.
const GATHER_LIMIT: usize = 64 * 1024;

/// Slices in one gathered write: the system's `IOV_MAX`, which is 1,024 on Linux, macOS and the BSDs.
const MOST_SLICES: usize = 1024;

/// Slices that the common case needs; an array of 1,024 would be cleared for every write.
const FEW_SLICES: usize = 8;

/// Bytes in one gathered write. The kernel takes at most 2^31 less a page, and on some systems refuses more
/// instead of taking part of it (writev(2): `EINVAL` if the sum overflows).
const MOST_BYTES: usize = 1 << 30;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Payload<'a> {
    Slices(&'a [&'a [u8]]),
    Shared(Shared),
    File(FileSlice),
}

impl Payload<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Slices(slices) => slices.iter().map(|slice| slice.len()).sum(),
            Self::Shared(shared) => shared.len(),
            Self::File(file) => file.len() as usize,
        }
    }

    /// What of its `length` counts against the watermarks and the cap.
    fn cost(&self, length: usize) -> usize {
        if matches!(self, Self::File(_)) { FILE_COST } else { length }
    }
}

/// Bytes that follow the outbox and belong to the caller: what was gathered, then slices of a large write.
#[derive(Debug)]
struct Tail<'a> {
    gathered: &'a [u8],
    slices: &'a [&'a [u8]],
    length: usize,
    /// How many of them have been sent.
    done: usize,
}

impl<'a> Tail<'a> {
    fn new(gathered: &'a [u8], slices: &'a [&'a [u8]]) -> Self {
        let length = gathered.len() + slices.iter().map(|slice| slice.len()).sum::<usize>();
        Self { gathered, slices, length, done: 0 }
    }

    fn left(&self) -> usize {
        self.length - self.done
    }

    /// The pieces that have not been sent.
    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut skip = self.done;
        std::iter::once(self.gathered).chain(self.slices.iter().copied()).filter_map(move |piece| {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            Some(&piece[skipped..]).filter(|rest| !rest.is_empty())
        })
    }
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushed {
    All,
    /// There is more, and room for it, but others wait.
    OverBudget,
    /// The kernel is full.
    Blocked,
    Failed(CloseReason),
}

impl Io {
    /// Writes to any connection of this reactor, whole or not at all.
    pub(crate) fn write<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        key: Key,
        payload: Payload<'_>,
        receipt: Option<Receipt>,
    ) -> Written {
        let is_current = self.current == Some(key);
        let gathered = if is_current { self.scratch.len() } else { 0 };
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_writable())
        else {
            return Written::Closed;
        };
        let (waiting, cost) = (connection.waiting() + gathered, connection.waiting_cost() + gathered);
        let length = payload.len();
        let is_countable = waiting.checked_add(length).is_some();
        if !is_countable || cost.saturating_add(payload.cost(length)) > self.settings.output_cap {
            return self.refuse(key, cost);
        }
        if let Some(receipt) = receipt {
            let start = connection.bytes_out + waiting as u64;
            let outbox = connection.outbox.get_or_insert_with(|| self.pools.outbox(self.tick));
            outbox.expect(start, start + length as u64, receipt);
        }
        match payload {
            Payload::Slices(slices) if is_current && length < LARGE && gathered + length < GATHER_LIMIT => {
                slices.iter().for_each(|slice| self.scratch.extend_from_slice(slice));
                if cost + length <= self.settings.high_watermark {
                    return Written::Accepted;
                }
            }
            payload if is_current => self.write_to_current(port, key, payload),
            Payload::Slices(slices) if length >= LARGE && !connection.has(Flag::Blocked) => {
                self.flush_other(port, key, slices);
            }
            payload => {
                self.write_to_other(key, payload);
                self.relieve(port, key);
            }
        }
        self.level(key)
    }

    /// A write does not fit under the cap behind what is `waiting`.
    #[cold]
    fn refuse(&mut self, key: Key, waiting: usize) -> Written {
        self.counters.refused_writes += 1;
        if self.settings.close_slow_consumers {
            self.close_for_overflow(key);
        } else if waiting > self.settings.low_watermark
            && let Some(connection) = self.connections.get_mut(key)
        {
            // Whoever was refused is told when it is worth trying again.
            connection.set(Flag::AboveHigh);
        }
        Written::Refused
    }

    /// Ends a connection that takes less than is written to it; of a dial the handler learns otherwise.
    #[cold]
    fn close_for_overflow(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|connection| connection.phase == Phase::Connecting) {
            self.fail_dial(key, ConnectProblem::OutputOverflow);
        } else {
            self.condemn(key, CloseReason::SlowConsumer);
        }
    }

    /// The short way of a small write to the connection whose callback runs, if nothing else waits there;
    /// whether it was taken. Then it is below every mark.
    #[inline]
    pub(crate) fn gather(&mut self, key: Key, bytes: &[u8]) -> bool {
        let length = self.scratch.len() + bytes.len();
        let is_small = bytes.len() < LARGE && length < GATHER_LIMIT && length <= self.settings.high_watermark;
        let is_plain = is_small
            && self.current == Some(key)
            && self.connections.get(key).is_some_and(Connection::is_plain);
        if is_plain {
            self.scratch.extend_from_slice(bytes);
        }
        is_plain
    }

    /// Everything about a connection's own callback begins here.
    pub(super) fn begin(&mut self, key: Key) {
        debug_assert!(self.current.is_none() && self.scratch.is_empty());
        self.current = Some(key);
    }

    /// And ends here: what was gathered leaves. What most callbacks need is done here, with one look at
    /// the connection and one system call; the rest is `flush_with`'s.
    #[inline(always)]
    pub(super) fn finish<P: Port + ?Sized>(&mut self, port: &mut P, key: Key) {
        self.current = None;
        let Some(connection) = self.connections.get_mut(key) else { return self.scratch.clear() };
        if !connection.is_plain() {
            return self.finish_slowly(port, key);
        }
        if self.scratch.is_empty() {
            return;
        }
        self.counters.writes += 1;
        match port.send(key.slot, &[IoSlice::new(&self.scratch)]) {
            Ok(Sent { bytes, .. }) if bytes == self.scratch.len() => {
                self.counters.bytes_out += bytes as u64;
                connection.bytes_out += bytes as u64;
                connection.active = self.tick;
                self.scratch.clear();
                if connection.has(Flag::AboveHigh) {
                    self.note_drained(key);
                }
            }
            result => self.sent_less(port, key, result),
        }
    }

    /// The kernel has not taken everything that was gathered.
    #[cold]
    fn sent_less<P: Port + ?Sized>(&mut self, port: &mut P, key: Key, result: std::io::Result<Sent>) {
        let scratch = std::mem::take(&mut self.scratch);
        let mut tail = Tail::new(&scratch, &[]);
        let mut before = 0;
        if let Some(connection) = self.connections.get_mut(key) {
            before = connection.bytes_out;
        }
        let flushed = match self.account(key, result, &mut tail) {
            None => self.send_all(port, key, &mut tail),
            Some(flushed) => flushed,
        };
        self.keep_rest(key, &tail);
        self.flushed(port, key, flushed, before);
        self.keep_scratch(scratch);
    }

    #[cold]
    fn finish_slowly<P: Port + ?Sized>(&mut self, port: &mut P, key: Key) {
        self.flush_with(port, key, &[]);
    }

    /// Forgets what the current callback has gathered: it panicked in the middle of something.
    pub(super) fn discard_gathered(&mut self) {
        self.scratch.clear();
    }

    fn write_to_current<P: Port + ?Sized>(&mut self, port: &mut P, key: Key, payload: Payload<'_>) {
        match payload {
            Payload::Slices(slices) => self.flush_with(port, key, slices),
            payload => {
                // It leaves with what was gathered before it when the callback returns.
                let scratch = std::mem::take(&mut self.scratch);
                if let Some(connection) = self.connections.get_mut(key) {
                    let outbox = connection.outbox.get_or_insert_with(|| self.pools.outbox(self.tick));
                    outbox.append(&scratch, &mut self.pools);
                    append(outbox, payload, &mut self.pools);
                }
                self.keep_scratch(scratch);
            }
        }
    }

    /// The short way of a payload to one of many connections: the first of a turn leaves at once, while the
    /// connection is in the nearer caches; further ones gather for the end of the turn, so that however many
    /// there are, two system calls send them. `None` where it is not for this way.
    #[inline]
    pub(crate) fn pass_on<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        key: Key,
        shared: &Shared,
    ) -> Option<Written> {
        let turn = self.counters.turns;
        let is_sane = !shared.is_empty() && shared.len() <= self.settings.output_cap;
        let connection = self.connections.get_mut(key).filter(|_| is_sane && self.current != Some(key))?;
        if !connection.is_plain() || connection.has(Flag::AboveHigh) || connection.was_passed_to_in(turn) {
            return None;
        }
        connection.note_passed_to_in(turn);
        self.counters.writes += 1;
        match port.send(key.slot, &[IoSlice::new(shared)]) {
            Ok(Sent { bytes, .. }) if bytes == shared.len() => {
                self.counters.bytes_out += bytes as u64;
                connection.bytes_out += bytes as u64;
                connection.active = self.tick;
                Some(Written::Accepted)
            }
            result => Some(self.passed_on_less(port, key, shared, result)),
        }
    }

    /// The kernel has not taken all of the payload: the rest waits uncopied.
    #[cold]
    fn passed_on_less<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        key: Key,
        shared: &Shared,
        result: std::io::Result<Sent>,
    ) -> Written {
        let Some(connection) = self.connections.get_mut(key) else { return Written::Closed };
        let before = connection.bytes_out;
        let outbox = connection.outbox.get_or_insert_with(|| self.pools.outbox(self.tick));
        outbox.append_shared(shared.clone());
        let mut tail = Tail::new(&[], &[]);
        let flushed = match self.account(key, result, &mut tail) {
            None => self.send_all(port, key, &mut tail),
            Some(flushed) => flushed,
        };
        self.flushed(port, key, flushed, before);
        self.level(key)
    }

    fn write_to_other(&mut self, key: Key, payload: Payload<'_>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let outbox = connection.outbox.get_or_insert_with(|| self.pools.outbox(self.tick));
        append(outbox, payload, &mut self.pools);
        if !connection.has(Flag::Dirty) {
            connection.set(Flag::Dirty);
            self.dirty.push(key);
        }
    }

    /// Sends at once what others have written in this turn, where it is more than the high watermark: that
    /// mark is for peers that do not take their output, not for many writes in one turn.
    fn relieve<P: Port + ?Sized>(&mut self, port: &mut P, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.waiting_cost() > self.settings.high_watermark
            && connection.phase == Phase::Open
            && !connection.has(Flag::Blocked)
        {
            self.flush(port, key);
        }
    }

    /// Where the connection's output stands against the high watermark.
    fn level(&mut self, key: Key) -> Written {
        let gathered = if self.current == Some(key) { self.scratch.len() } else { 0 };
        match self.connections.get_mut(key) {
            Some(connection) if connection.waiting_cost() + gathered > self.settings.high_watermark => {
                connection.set(Flag::AboveHigh);
                Written::High
            }
            _ => Written::Accepted,
        }
    }

    /// Sends what waits, in order: the outbox, then what the current callback has gathered, then `slices`.
    /// What the kernel does not take is in the outbox afterwards.
    pub(super) fn flush_with<P: Port + ?Sized>(&mut self, port: &mut P, key: Key, slices: &[&[u8]]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.connections.get_mut(key)
            && matches!(connection.phase, Phase::Open | Phase::Flushing | Phase::Connecting)
        {
            let mut tail = Tail::new(&scratch, slices);
            let before = connection.bytes_out;
            let flushed = if connection.has(Flag::Blocked) || connection.phase == Phase::Connecting {
                Flushed::Blocked
            } else {
                self.send_all(port, key, &mut tail)
            };
            self.keep_rest(key, &tail);
            self.flushed(port, key, flushed, before);
        }
        scratch.clear();
        self.keep_scratch(scratch);
    }

    /// Sends what waits for a connection other than the current one, whose gathered bytes stay where they are.
    pub(super) fn flush<P: Port + ?Sized>(&mut self, port: &mut P, key: Key) {
        self.flush_other(port, key, &[]);
    }

    /// The same, and `slices` behind it.
    fn flush_other<P: Port + ?Sized>(&mut self, port: &mut P, key: Key, slices: &[&[u8]]) {
        debug_assert!(self.current != Some(key));
        let gathered = std::mem::take(&mut self.scratch);
        self.flush_with(port, key, slices);
        self.scratch = gathered;
    }

    fn keep_scratch(&mut self, mut scratch: Vec<u8>) {
        scratch.clear();
        // A single callback may have gathered much before it met the limit; do not keep that for ever.
        scratch.shrink_to(2 * GATHER_LIMIT);
        self.scratch = scratch;
    }

    fn send_all<P: Port + ?Sized>(&mut self, port: &mut P, key: Key, tail: &mut Tail<'_>) -> Flushed {
        let mut first = None;
        loop {
            let Some(connection) = self.connections.get(key) else { return Flushed::All };
            let before = *first.get_or_insert(connection.bytes_out);
            if connection.waiting() + tail.left() == 0 {
                return Flushed::All;
            }
            let outbox = connection.outbox.as_deref();
            let files = outbox.filter(|outbox| outbox.has_files());
            // A large write of the handler's goes out whole; only a backlog is held to the budget, and files.
            let budget = (self.settings.byte_budget as u64).saturating_sub(connection.bytes_out - before);
            if budget == 0 && (tail.left() == 0 || files.is_some()) {
                return Flushed::OverBudget;
            }
            self.counters.writes += 1;
            let result = match files {
                Some(outbox) => send_towards_file(port, key.slot, outbox, budget as usize),
                None => send_gathered(port, key.slot, outbox, tail),
            };
            if let Some(flushed) = self.account(key, result, tail) {
                return flushed;
            }
        }
    }

    /// Books what one system call has sent; `None` where another is worth while.
    fn account(&mut self, key: Key, result: std::io::Result<Sent>, tail: &mut Tail<'_>) -> Option<Flushed> {
        let Some(connection) = self.connections.get_mut(key) else { return Some(Flushed::All) };
        match result {
            Ok(Sent { bytes, room }) => {
                self.counters.bytes_out += bytes as u64;
                connection.bytes_out += bytes as u64;
                connection.active = self.tick;
                let from_outbox = bytes.min(connection.waiting());
                tail.done += bytes - from_outbox;
                if let Some(outbox) = &mut connection.outbox {
                    outbox.advance(from_outbox, &mut self.pools);
                    outbox.progress = self.tick;
                }
                match connection.waiting() + tail.left() {
                    0 => Some(Flushed::All),
                    _ if room && bytes > 0 => None,
                    _ => Some(Flushed::Blocked),
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.counters.blocked_writes += 1;
                Some(Flushed::Blocked)
            }
            Err(error) => Some(Flushed::Failed(CloseReason::of_error(&error))),
        }
    }

    /// Copies what is left of the tail into the outbox.
    fn keep_rest(&mut self, key: Key, tail: &Tail<'_>) {
        if tail.left() == 0 {
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let outbox = connection.outbox.get_or_insert_with(|| self.pools.outbox(self.tick));
        tail.pieces().for_each(|piece| outbox.append(piece, &mut self.pools));
    }

    /// Draws the consequences of a flush.
    fn flushed<P: Port + ?Sized>(&mut self, port: &mut P, key: Key, flushed: Flushed, before: u64) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.bytes_out != before || flushed == Flushed::All {
            self.settle_receipts(key);
        }
        match flushed {
            Flushed::All => self.all_flushed(port, key),
            Flushed::OverBudget => {
                self.note_drained(key);
                self.enqueue(key);
            }
            Flushed::Blocked => {
                self.note_drained(key);
                if let Some(connection) = self.connections.get_mut(key)
                    && connection.phase != Phase::Connecting
                {
                    connection.set(Flag::Blocked);
                    self.arm(key);
                }
            }
            Flushed::Failed(reason) => self.condemn_undelivered(key, reason),
        }
    }

    fn all_flushed<P: Port + ?Sized>(&mut self, port: &mut P, key: Key) {
        self.note_drained(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.outbox.as_ref().is_some_and(|outbox| outbox.is_idle())
            && let Some(outbox) = connection.outbox.take()
        {
            self.pools.give_outbox(outbox);
        }
        if connection.has(Flag::FinWanted) && !connection.has(Flag::FinSent) {
            connection.set(Flag::FinSent);
            port.shut_down(key.slot);
        }
        if connection.phase == Phase::Flushing {
            self.linger(port, key);
        }
    }

    /// Has `on_drained` called, from the ready list, if output has fallen from high to low.
    fn note_drained(&mut self, key: Key) {
        let gathered = if self.current == Some(key) { self.scratch.len() } else { 0 };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.has(Flag::AboveHigh)
            && connection.waiting_cost() + gathered <= self.settings.low_watermark
        {
            connection.clear(Flag::AboveHigh);
            if connection.phase == Phase::Open {
                connection.set(Flag::Drained);
                self.enqueue(key);
            }
        }
    }

    fn settle_receipts(&mut self, key: Key) {
        while let Some(receipt) = self.connections.get_mut(key).and_then(settled) {
            self.answer(receipt, Delivery::Sent);
        }
    }

    /// Answers whatever receipts the connection still has: it has ended.
    pub(super) fn fail_receipts(&mut self, key: Key) {
        let failed = |connection: &mut Connection| connection.outbox.as_mut()?.failed(connection.bytes_out);
        while let Some((receipt, delivery)) = self.connections.get_mut(key).and_then(failed) {
            self.answer(receipt, delivery);
        }
    }

    fn answer(&mut self, receipt: Receipt, delivery: Delivery) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| receipt.answer(delivery))) {
            self.record_panic("receipt", payload);
        }
    }
}

fn settled(connection: &mut Connection) -> Option<Receipt> {
    connection.outbox.as_mut()?.settled(connection.bytes_out)
}

fn append(outbox: &mut Outbox, payload: Payload<'_>, pools: &mut Pools) {
    match payload {
        Payload::Slices(slices) => slices.iter().for_each(|slice| outbox.append(slice, pools)),
        Payload::Shared(shared) => outbox.append_shared(shared),
        Payload::File(file) => outbox.append_file(file),
    }
}

/// One system call, where files wait: what is before the first of them, or at most `budget` bytes of it. A file
/// is sent in parts even where the kernel would take it whole, so that others are served meanwhile.
#[cold]
fn send_towards_file<P: Port + ?Sized>(
    port: &mut P,
    slot: u32,
    outbox: &Outbox,
    budget: usize,
) -> std::io::Result<Sent> {
    if let Some(file) = outbox.front_file() {
        return port.send_file(slot, file, budget);
    }
    let mut slices = [IoSlice::new(&[]); FEW_SLICES];
    let (count, _) = outbox.gather(&mut slices, MOST_BYTES);
    port.send_ahead(slot, &slices[..count])
}

/// One system call.
fn send_gathered<P: Port + ?Sized>(
    port: &mut P,
    slot: u32,
    outbox: Option<&Outbox>,
    tail: &Tail<'_>,
) -> std::io::Result<Sent> {
    let outbox = outbox.filter(|outbox| !outbox.is_empty());
    let pieces = outbox.map_or(0, Outbox::pieces) + tail.slices.len() + 1;
    if pieces <= FEW_SLICES {
        send_up_to::<FEW_SLICES, P>(port, slot, outbox, tail)
    } else {
        send_up_to::<MOST_SLICES, P>(port, slot, outbox, tail)
    }
}

fn send_up_to<const N: usize, P: Port + ?Sized>(
    port: &mut P,
    slot: u32,
    outbox: Option<&Outbox>,
    tail: &Tail<'_>,
) -> std::io::Result<Sent> {
    let mut slices = [IoSlice::new(&[]); N];
    let (mut count, mut total) = outbox.map_or((0, 0), |outbox| outbox.gather(&mut slices, MOST_BYTES));
    // The tail comes after all of the outbox or not at all.
    if outbox.is_none_or(|outbox| outbox.len() == total) {
        for piece in tail.pieces().take(N - count) {
            let piece = &piece[..piece.len().min(MOST_BYTES - total)];
            if piece.is_empty() {
                break;
            }
            slices[count] = IoSlice::new(piece);
            count += 1;
            total += piece.len();
        }
    }
    port.send(slot, &slices[..count])
}

const _: () = assert!(LARGE <= BLOCK, "what is copied fits a block");
