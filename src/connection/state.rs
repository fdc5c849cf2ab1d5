use super::admission::Permit;
use super::reason::PackedReason;
use super::{CloseReason, Inbox, Outbox, PackedPeer, Peer};

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Dialed, and the kernel has not said yet what came of it.
    Connecting,
    Open,
    /// Closing in good order: what waits is flushed first.
    Flushing,
    /// Our side is shut down; what the peer still sends is discarded until it ends too.
    Lingering,
    /// The socket is closed; the slot is freed at the end of the turn.
    Dead,
}

/// What else is known of a connection, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Flag {
    /// There may be input in the kernel: an edge came and was not read to its end.
    Readable = 1,
    /// The kernel has said that the peer's side is shut: read to the end, however short the reads.
    EndAhead = 1 << 1,
    /// The end of the peer's stream has been read.
    Ended = 1 << 2,
    /// The handler wants no input.
    Paused = 1 << 3,
    /// More than the high watermark waits, or did and it has not fallen to the low one since.
    AboveHigh = 1 << 4,
    /// The kernel's send buffer is full; an edge will come.
    Blocked = 1 << 5,
    /// In the ready list.
    Queued = 1 << 6,
    /// In the list of connections to flush.
    Dirty = 1 << 7,
    /// `on_drained` is due, and comes before any input that waited for it.
    Drained = 1 << 8,
    /// Unconsumed input is to be shown again although nothing new came.
    Redeliver = 1 << 9,
    /// Reading stops by itself above the high watermark.
    Automatic = 1 << 10,
    /// Shut down the sending side when all is flushed.
    FinWanted = 1 << 11,
    FinSent = 1 << 12,
    /// `on_open` has accepted it, so `on_close` is owed.
    Opened = 1 << 13,
    /// Some byte has come.
    FirstByte = 1 << 14,
    /// We dialed it.
    Dialed = 1 << 15,
    /// The handler was asked to let it go, because the server shuts down.
    DrainAsked = 1 << 16,
}

/// Where in the flags the number of a turn begins: behind the last flag.
const TURN_SHIFT: u32 = (Flag::DrainAsked as u32).trailing_zeros() + 1;

fn turn_bits(turn: u64) -> u32 {
    turn as u32 & (u32::MAX >> TURN_SHIFT)
}

/// What every message touches comes first and stays together, for few cache lines hold a connection of 88 bytes
/// as it happens to lie.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Connection {
    pub(crate) inbox: Option<Box<Inbox>>,
    pub(crate) bytes_in: u64,
    pub(crate) outbox: Option<Box<Outbox>>,
    /// What the kernel has taken.
    pub(crate) bytes_out: u64,
    /// The tick at which a byte last moved.
    pub(crate) active: u32,
    flags: u32,
    pub(crate) phase: Phase,
    peer: PackedPeer,
    pub(crate) permit: Option<Box<Permit>>,
    /// The idle deadline in ticks, 0 for none.
    pub(crate) idle: u32,
    /// The tick of birth.
    pub(crate) opened: u32,
    /// The tick at which the present phase ends, where it has an end (dialing, lingering).
    pub(crate) until: u32,
    reason: PackedReason,
    /// Which of the server's addresses it came in by.
    pub(crate) listener: u16,
}

impl Connection {
    pub(crate) fn new(peer: Peer, phase: Phase, now: u32) -> Self {
        Self {
            inbox: None,
            outbox: None,
            permit: None,
            bytes_in: 0,
            bytes_out: 0,
            peer: peer.into(),
            opened: now,
            active: now,
            until: 0,
            idle: 0,
            flags: 0,
            reason: PackedReason::NONE,
            listener: 0,
            phase,
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer.into()
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u32 != 0
    }

    pub(crate) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u32;
    }

    pub(crate) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u32);
    }

    /// Clears `flag` and says whether it was set.
    pub(crate) fn take(&mut self, flag: Flag) -> bool {
        let was = self.has(flag);
        self.clear(flag);
        was
    }

    pub(crate) fn assign(&mut self, flag: Flag, value: bool) {
        if value { self.set(flag) } else { self.clear(flag) }
    }

    /// Whether input is left in the kernel on purpose.
    pub(crate) fn is_suspended(&self) -> bool {
        let is_full = self.has(Flag::AboveHigh) || self.has(Flag::Drained);
        self.has(Flag::Paused) || (self.has(Flag::Automatic) && is_full)
    }

    /// Whether it is open and there may be input that the handler wants.
    #[inline]
    pub(crate) fn is_to_be_read(&self) -> bool {
        const WANTED: u32 = Flag::Readable as u32 | Flag::Ended as u32 | Flag::Paused as u32;
        const FULL: u32 = Flag::AboveHigh as u32 | Flag::Drained as u32;
        let is_held = self.flags & FULL != 0 && self.has(Flag::Automatic);
        self.phase == Phase::Open && self.flags & WANTED == Flag::Readable as u32 && !is_held
    }

    /// Books received bytes that are about to be delivered; `more`: there may be more of them.
    #[inline]
    pub(crate) fn receive(&mut self, count: usize, more: bool, now: u32) {
        self.bytes_in += count as u64;
        self.active = now;
        self.flags = self.flags & !(Flag::Readable as u32 | Flag::Redeliver as u32) | Flag::FirstByte as u32;
        if more {
            self.set(Flag::Readable);
        }
    }

    /// Whether it is open, nothing waits and nothing is wanted of it: the state of most connections at most
    /// times.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.outbox.is_none()
            && self.phase == Phase::Open
            && self.flags & (Flag::Blocked as u32 | Flag::FinWanted as u32) == 0
    }

    /// Whether a payload was sent to it by another than its own callback in this turn. The flags have room for
    /// the last bits of a turn's number: of 32,768 turns one is mistaken for another, and then what is sent
    /// waits for the end of the turn.
    #[inline]
    pub(crate) fn was_passed_to_in(&self, turn: u64) -> bool {
        self.flags >> TURN_SHIFT == turn_bits(turn)
    }

    #[inline]
    pub(crate) fn note_passed_to_in(&mut self, turn: u64) {
        self.flags = self.flags & ((1 << TURN_SHIFT) - 1) | turn_bits(turn) << TURN_SHIFT;
    }

    /// Whether the handler may still write to it.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Connecting) && !self.has(Flag::FinWanted)
    }

    /// Bytes that the kernel has not taken, without those still in the reactor's scratch.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    /// What of that counts against the watermarks and the cap.
    pub(crate) fn waiting_cost(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.cost())
    }

    /// The first cause is the one that counts.
    pub(crate) fn blame(&mut self, reason: CloseReason) {
        if self.reason().is_none() {
            self.set_reason(reason);
        }
    }

    /// Why it ends, if it does.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.reason.unpack()
    }

    pub(crate) fn set_reason(&mut self, reason: CloseReason) {
        self.reason = PackedReason::from(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_of_a_payload_leaves_the_flags_alone() {
        let mut connection = Connection::new(Peer::Unix, Phase::Open, 0);
        connection.set(Flag::DrainAsked);
        for turn in [1, 2, 32_767, 32_769, u64::MAX] {
            assert!(!connection.was_passed_to_in(turn), "{turn}");
            connection.note_passed_to_in(turn);
            assert!(connection.was_passed_to_in(turn), "{turn}");
            assert!(connection.has(Flag::DrainAsked) && !connection.has(Flag::Readable));
        }
        connection.receive(1, true, 0);
        assert!(connection.was_passed_to_in(u64::MAX));
    }

    #[test]
    fn a_connection_is_small() {
        // Generation, socket and an empty session come on top: 20 bytes. The whole is to stay within 128.
        assert!(size_of::<Connection>() <= 88, "{} bytes", size_of::<Connection>());
        let mut slab = slab::Slab::new();
        let keys: Vec<usize> =
            (0..2).map(|_| slab.insert(Connection::new(Peer::Unix, Phase::Open, 0))).collect();
        let [first, second] = [0, 1].map(|index: usize| std::ptr::from_ref(&slab[keys[index]]) as usize);
        assert_eq!(second - first, size_of::<Connection>(), "an entry of the slab is no larger");
    }
}
