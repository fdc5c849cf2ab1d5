use std::fmt;

/// What goes wrong, and how often: each field is a probability from 0 to 1 that is drawn whenever the thing
/// could happen.
///
/// All of it is allowed to happen to a server on a real kernel, so none of it may lose, repeat, reorder or
/// misdeliver a byte.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// A read returns less than is there.
    pub short_reads: f64,
    /// A write takes less than there is room for.
    pub short_writes: f64,
    /// A read finds nothing although an event announced input (`EAGAIN`).
    pub blocked_reads: f64,
    /// A write finds no room although there is some (`EAGAIN`).
    pub blocked_writes: f64,
    /// The driver cannot tell that it has read everything, so the next read finds nothing.
    pub needless_reads: f64,
    /// A signal interrupts the wait for events (`EINTR`).
    pub interrupted_polls: f64,
    /// The events of one poll come in any order.
    pub reordered_events: f64,
    /// One poll returns few events and leaves the others to the next.
    pub small_batches: f64,
    /// An event for which there is no reason, or for a connection that has gone.
    pub spurious_events: f64,
    /// An event that comes again.
    pub repeated_events: f64,
    /// No event for input that comes while earlier input has not been read.
    pub withheld_events: f64,
    /// An event that does not say that the peer has ended its stream or reset the connection.
    pub missing_hints: f64,
    /// More bytes come between an event and the read that it causes.
    pub late_arrivals: f64,
    /// What was sent in one piece comes in several.
    pub split_segments: f64,
    /// A segment is late, by up to two milliseconds.
    pub delays: f64,
    /// A remote that takes what it is sent little by little.
    pub slow_remotes: f64,
    /// The remote resets the connection; drawn for each segment.
    pub resets: f64,
    /// An accept fails: no descriptors, no memory, an aborted connection.
    pub accept_errors: f64,
    /// An accepted or dialed socket cannot be watched.
    pub install_errors: f64,
    /// A dial fails at once: no descriptors, no ports, no route.
    pub dial_errors: f64,
}

impl Faults {
    /// An ideal network and a kernel with room for everything.
    pub const fn none() -> Self {
        Self {
            short_reads: 0.0,
            short_writes: 0.0,
            blocked_reads: 0.0,
            blocked_writes: 0.0,
            needless_reads: 0.0,
            interrupted_polls: 0.0,
            reordered_events: 0.0,
            small_batches: 0.0,
            spurious_events: 0.0,
            repeated_events: 0.0,
            withheld_events: 0.0,
            missing_hints: 0.0,
            late_arrivals: 0.0,
            split_segments: 0.0,
            delays: 0.0,
            slow_remotes: 0.0,
            resets: 0.0,
            accept_errors: 0.0,
            install_errors: 0.0,
            dial_errors: 0.0,
        }
    }

    /// Everything that may delay bytes and nothing that ends a connection, for tests that count on every
    /// byte.
    pub const fn lossless() -> Self {
        Self { resets: 0.0, install_errors: 0.0, dial_errors: 0.0, accept_errors: 0.0, ..Self::lively() }
    }

    const fn lively() -> Self {
        Self {
            short_reads: 0.2,
            short_writes: 0.2,
            blocked_reads: 0.1,
            blocked_writes: 0.1,
            needless_reads: 0.1,
            interrupted_polls: 0.1,
            reordered_events: 0.5,
            small_batches: 0.2,
            spurious_events: 0.1,
            repeated_events: 0.1,
            withheld_events: 0.5,
            missing_hints: 0.1,
            late_arrivals: 0.1,
            split_segments: 0.5,
            delays: 0.3,
            slow_remotes: 0.1,
            resets: 0.002,
            accept_errors: 0.05,
            install_errors: 0.01,
            dial_errors: 0.05,
        }
    }
}

impl Default for Faults {
    /// A lively mix of everything.
    fn default() -> Self {
        Self::lively()
    }
}

/// What a reactor asks of its driver, which on a real kernel is a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// Waits for events (epoll_wait).
    Poll,
    /// Takes a connection from a listener (accept4).
    Accept,
    /// Watches a connection (epoll_ctl).
    Install,
    /// Reads (recv).
    Receive,
    /// Writes (send, sendmsg).
    Send,
    /// Writes from a file (sendfile).
    SendFile,
    /// Ends the sending side (shutdown).
    ShutDown,
    /// Begins to connect (socket, connect, epoll_ctl).
    Dial,
    /// Asks what became of a dial (getsockopt).
    IsConnected,
    /// Sets options of one connection (setsockopt).
    SetOptions,
    /// Asks for the own address (getsockname).
    LocalAddress,
    /// Closes a connection (close). It cannot fail.
    Close,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Poll,
        Self::Accept,
        Self::Install,
        Self::Receive,
        Self::Send,
        Self::SendFile,
        Self::ShutDown,
        Self::Dial,
        Self::IsConnected,
        Self::SetOptions,
        Self::LocalAddress,
        Self::Close,
    ];
}

/// How often each call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls([u64; Call::ALL.len()]);

impl Calls {
    /// How often this call was made.
    pub const fn of(&self, call: Call) -> u64 {
        self.0[call as usize]
    }

    /// What was called since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] - earlier.0[index]))
    }

    pub(super) fn count(&mut self, call: Call) -> u64 {
        self.0[call as usize] += 1;
        self.0[call as usize]
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for call in Call::ALL.into_iter().filter(|&call| self.of(call) > 0) {
            write!(f, "{separator}{call:?} {}", self.of(call))?;
            separator = ", ";
        }
        Ok(())
    }
}
