/// What a callback wants done with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Flow {
    /// Go on.
    Continue,
    /// Flush what was written, shut down the sending side, discard what the peer still sends until it
    /// closes too or the linger deadline passes, then close. The peer gets every byte: closing a socket
    /// with unread input at once would make the kernel send a reset, which can destroy the last reply
    /// (RFC 9112, section 9.6, describes the problem).
    Close,
    /// Close at once with a reset (RST) and drop what was not sent yet.
    Abort,
}

/// Why a connection ended; the argument of [`Handler::on_close`](crate::Handler::on_close).
///
/// The first cause wins, with one exception: where output could not be delivered after a graceful close
/// had begun, the reason says what prevented it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer ended its side, and so did we, as [`Flow::Close`] in `on_eof` (the default) asks.
    PeerClosed,
    /// The peer reset the connection (`ECONNRESET`, `EPIPE`).
    Reset,
    /// A callback returned [`Flow::Close`], or [`Core::close`](crate::Core::close) or
    /// [`Handle::close`](crate::Handle::close) was called.
    Local,
    /// A callback returned [`Flow::Abort`], or `abort` was called on the core or a handle.
    Aborted,
    /// No byte came within the first-byte deadline.
    FirstByte,
    /// No byte moved in either direction within the idle deadline.
    Idle,
    /// The peer took no byte of waiting output within the write-stall deadline.
    WriteStall,
    /// Input of an incomplete message came in more slowly than the minimum rate.
    MinimumRate,
    /// The handler left more input unconsumed than the input cap allows.
    InputOverflow,
    /// Waiting output met the output cap, under [`SlowConsumer::Close`](crate::SlowConsumer::Close).
    SlowConsumer,
    /// The server shut down and the connection was closed in good order.
    Shutdown,
    /// The server shut down and the connection had not ended by the drain deadline.
    DrainDeadline,
    /// A callback of this connection panicked.
    HandlerPanic,
    /// A file that was to be sent ended before the range that [`Conn::write_file`](crate::Conn::write_file) was
    /// given: somebody has shortened it. The peer sees a reset, and so knows that what it has is not the whole.
    FileTruncated,
    /// The kernel reported another error, by its `errno`.
    Io(i32),
}

impl CloseReason {
    /// How many reasons there are; the errors of [`CloseReason::Io`] count as one.
    pub const COUNT: usize = 15;

    /// The names of all reasons, in the order of [`CloseReason::index`]; fit for labels of metrics.
    pub const NAMES: [&'static str; Self::COUNT] = [
        "peer_closed",
        "reset",
        "local",
        "aborted",
        "first_byte",
        "idle",
        "write_stall",
        "minimum_rate",
        "input_overflow",
        "slow_consumer",
        "shutdown",
        "drain_deadline",
        "handler_panic",
        "file_truncated",
        "io",
    ];

    /// The reason's place among all reasons, as in [`Snapshot::closed`](crate::Snapshot::closed).
    pub const fn index(self) -> usize {
        match self {
            Self::PeerClosed => 0,
            Self::Reset => 1,
            Self::Local => 2,
            Self::Aborted => 3,
            Self::FirstByte => 4,
            Self::Idle => 5,
            Self::WriteStall => 6,
            Self::MinimumRate => 7,
            Self::InputOverflow => 8,
            Self::SlowConsumer => 9,
            Self::Shutdown => 10,
            Self::DrainDeadline => 11,
            Self::HandlerPanic => 12,
            Self::FileTruncated => 13,
            Self::Io(_) => 14,
        }
    }

    /// The reason's name, fit for labels of metrics.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    pub(crate) fn of_error(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => Self::Reset,
            Some(errno) => Self::Io(errno),
            // The driver's word for a file that ends too early; no socket says so.
            None if error.kind() == std::io::ErrorKind::UnexpectedEof => Self::FileTruncated,
            None => Self::Io(0),
        }
    }
}

/// A reason or none in two bytes instead of eight: it stands in every connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedReason(i16);

impl PackedReason {
    pub(super) const NONE: Self = Self(-1);

    /// The reasons that carry nothing, by their index. Errors of the kernel's come behind them.
    const PLAIN: [CloseReason; CloseReason::COUNT - 1] = [
        CloseReason::PeerClosed,
        CloseReason::Reset,
        CloseReason::Local,
        CloseReason::Aborted,
        CloseReason::FirstByte,
        CloseReason::Idle,
        CloseReason::WriteStall,
        CloseReason::MinimumRate,
        CloseReason::InputOverflow,
        CloseReason::SlowConsumer,
        CloseReason::Shutdown,
        CloseReason::DrainDeadline,
        CloseReason::HandlerPanic,
        CloseReason::FileTruncated,
    ];

    const FIRST_ERROR: i16 = Self::PLAIN.len() as i16;

    pub(super) fn unpack(self) -> Option<CloseReason> {
        let index = usize::try_from(self.0).ok()?;
        let error = CloseReason::Io((self.0 - Self::FIRST_ERROR).into());
        Some(Self::PLAIN.get(index).copied().unwrap_or(error))
    }
}

impl From<CloseReason> for PackedReason {
    fn from(reason: CloseReason) -> Self {
        Self(match reason {
            // No system's errno comes near the limit.
            CloseReason::Io(errno) => Self::FIRST_ERROR + errno.clamp(0, 4096) as i16,
            reason => reason.index() as i16,
        })
    }
}

/// Its name; of an error of the kernel's also what it says.
impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(errno) => write!(f, "io: {}", std::io::Error::from_raw_os_error(*errno)),
            reason => f.write_str(reason.name()),
        }
    }
}

/// What became of a write. A write is taken whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Written {
    /// Taken: it is with the kernel, or will be at the end of the callback or turn.
    Accepted,
    /// Taken, and what now waits is more than the high watermark: `on_drained` follows when it has fallen
    /// below the low one.
    High,
    /// Not taken: it would not fit under the output cap. Under
    /// [`SlowConsumer::Close`](crate::SlowConsumer::Close) the connection closes for it. Under
    /// [`SlowConsumer::RefuseWrites`](crate::SlowConsumer::RefuseWrites) `on_drained` follows when output has
    /// fallen below the low watermark; if it is there already, the write is too large for the cap itself,
    /// or nearly.
    Refused,
    /// Not taken: the connection is closed, closing, or has ended its sending side; or the id is stale.
    Closed,
}

impl Written {
    /// Whether the bytes were taken.
    pub const fn is_taken(self) -> bool {
        matches!(self, Self::Accepted | Self::High)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_and_a_name_of_its_own() {
        let all = [&PackedReason::PLAIN[..], &[CloseReason::Io(5)]].concat();
        let places: Vec<_> = all.iter().map(|reason| reason.index()).collect();
        assert_eq!(places, (0..CloseReason::COUNT).collect::<Vec<_>>());
        for reason in all {
            assert_eq!(PackedReason::from(reason).unpack(), Some(reason));
        }
        assert_eq!(PackedReason::NONE.unpack(), None);
    }
}
