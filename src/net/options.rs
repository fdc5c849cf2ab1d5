use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

#[cfg(target_os = "linux")]
use super::raw;

/// When to ask a silent peer whether it is still there ([tcp(7)]: `TCP_KEEPIDLE`, `TCP_KEEPINTVL`,
/// `TCP_KEEPCNT`). Whole seconds; the kernel rounds down.
///
/// [tcp(7)]: https://man7.org/linux/man-pages/man7/tcp.7.html
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe: 1 s to 32,767 s.
    pub idle: Duration,
    /// Time between probes: 1 s to 32,767 s.
    pub interval: Duration,
    /// Unanswered probes before the connection is reset: 1 to 127.
    pub count: u32,
}

/// What to ask the kernel for on every connection of a server, or on one that is dialed.
///
/// `None` leaves the kernel's default. Options of TCP do nothing on Unix sockets. On Linux they are set on
/// the listener, from which accepted connections inherit them, so they cost no system call per
/// connection; elsewhere they are set on each. What a platform lacks is an
/// [`Unsupported`](io::ErrorKind::Unsupported) error that names the option, not silence.
///
/// ```
/// use corelane::SocketOptions;
///
/// let options = SocketOptions { send_buffer: Some(256 * 1024), ..SocketOptions::default() };
/// assert!(options.nodelay);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small segments at once (`TCP_NODELAY`). On by default: corelane gathers writes itself.
    pub nodelay: bool,
    /// The kernel's receive buffer in bytes (`SO_RCVBUF`; Linux doubles it, caps it by `rmem_max` and
    /// switches off its own sizing). 1 to 2^30.
    pub receive_buffer: Option<usize>,
    /// The kernel's send buffer in bytes (`SO_SNDBUF`, as above, `wmem_max`). 1 to 2^30.
    pub send_buffer: Option<usize>,
    /// Probes of silent peers.
    pub keepalive: Option<Keepalive>,
    /// How long sent data may stay unacknowledged before the kernel gives up (`TCP_USER_TIMEOUT`, Linux).
    /// 1 ms to 2^31 - 1 ms.
    pub user_timeout: Option<Duration>,
    /// Unsent bytes up to which the kernel calls the socket writable (`TCP_NOTSENT_LOWAT`, Linux): less of
    /// a backlog in the kernel, where it cannot be taken back. 1 to 2^31 - 1 bytes.
    pub notsent_lowat: Option<u32>,
    /// Acknowledge at once instead of waiting for a reply to carry it (`TCP_QUICKACK`, Linux). The kernel
    /// may leave this mode by itself; not inherited, so one more system call per connection.
    pub quickack: bool,
    /// How many connections may be waiting with data in their SYN (`TCP_FASTOPEN`, Linux, listeners;
    /// `net.ipv4.tcp_fastopen` must allow it). 1 to 2^31.
    pub fastopen: Option<u32>,
    /// Accept a connection only when its first byte has come, for at most this long
    /// (`TCP_DEFER_ACCEPT`, Linux, listeners). 1 s to 32,767 s, whole seconds.
    pub defer_accept: Option<Duration>,
    /// What `close` does with unsent data (`SO_LINGER`). `Some(0)` resets every connection at its end;
    /// leave it alone unless that is wanted: corelane flushes and lingers itself. Nothing but 0 s: for a longer time
    /// close(2) would wait for the peer's acknowledgement, and with it the whole reactor.
    pub linger: Option<Duration>,
    /// Busy-poll the device queue for this long (`SO_BUSY_POLL`, Linux, needs `CAP_NET_ADMIN` to raise).
    /// 1 us to 1 s.
    pub busy_poll: Option<Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            receive_buffer: None,
            send_buffer: None,
            keepalive: None,
            user_timeout: None,
            notsent_lowat: None,
            quickack: false,
            fastopen: None,
            defer_accept: None,
            linger: None,
            busy_poll: None,
        }
    }
}

/// A field out of range: its name, its value and what is accepted.
pub(crate) type OutOfRange = (&'static str, String, &'static str);

impl SocketOptions {
    /// Whether every value is one that the kernel takes.
    pub(crate) fn check(&self) -> Result<(), OutOfRange> {
        fn within<T: PartialOrd + std::fmt::Debug>(
            field: &'static str,
            value: Option<T>,
            range: std::ops::RangeInclusive<T>,
            accepted: &'static str,
        ) -> Result<(), OutOfRange> {
            match value {
                Some(value) if !range.contains(&value) => Err((field, format!("{value:?}"), accepted)),
                _ => Ok(()),
            }
        }
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        within("receive_buffer", self.receive_buffer, 1..=1 << 30, "1 to 2^30 bytes")?;
        within("send_buffer", self.send_buffer, 1..=1 << 30, "1 to 2^30 bytes")?;
        if let Some(keepalive) = self.keepalive {
            within("keepalive.idle", Some(keepalive.idle), seconds(1, 32_767), "1 s to 32,767 s")?;
            within("keepalive.interval", Some(keepalive.interval), seconds(1, 32_767), "1 s to 32,767 s")?;
            within("keepalive.count", Some(keepalive.count), 1..=127, "1 to 127")?;
        }
        let milliseconds = Duration::from_millis(1)..=Duration::from_millis((1 << 31) - 1);
        within("user_timeout", self.user_timeout, milliseconds, "1 ms to 2^31 - 1 ms")?;
        within("notsent_lowat", self.notsent_lowat, 1..=(1 << 31) - 1, "1 to 2^31 - 1 bytes")?;
        within("fastopen", self.fastopen, 1..=(1 << 31) - 1, "1 to 2^31 - 1")?;
        within("defer_accept", self.defer_accept, seconds(1, 32_767), "1 s to 32,767 s")?;
        within("linger", self.linger, seconds(0, 0), "0 s")?;
        let microseconds = Duration::from_micros(1)..=Duration::from_secs(1);
        within("busy_poll", self.busy_poll, microseconds, "1 us to 1 s")
    }

    /// Sets what a connection can have; for a listener, what its connections are to inherit.
    pub(crate) fn apply(&self, socket: &impl AsFd, is_tcp: bool) -> io::Result<()> {
        let socket = SockRef::from(socket);
        if let Some(size) = self.receive_buffer {
            named("receive_buffer", socket.set_recv_buffer_size(size))?;
        }
        if let Some(size) = self.send_buffer {
            named("send_buffer", socket.set_send_buffer_size(size))?;
        }
        if is_tcp {
            named("nodelay", socket.set_tcp_nodelay(self.nodelay))?;
            if let Some(keepalive) = &self.keepalive {
                named("keepalive", socket.set_tcp_keepalive(&keepalive.into()))?;
            }
            if self.linger.is_some() {
                named("linger", socket.set_linger(self.linger))?;
            }
            self.apply_linux(&socket)?;
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn apply_linux(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if self.user_timeout.is_some() {
            named("user_timeout", socket.set_tcp_user_timeout(self.user_timeout))?;
        }
        if let Some(bytes) = self.notsent_lowat {
            named("notsent_lowat", socket.set_tcp_notsent_lowat(bytes))?;
        }
        if let Some(duration) = self.busy_poll {
            named("busy_poll", socket.set_busy_poll(duration.as_micros() as u32))?;
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn apply_linux(&self, _socket: &SockRef<'_>) -> io::Result<()> {
        let asked = [
            ("user_timeout", self.user_timeout.is_some()),
            ("notsent_lowat", self.notsent_lowat.is_some()),
            ("busy_poll", self.busy_poll.is_some()),
            ("quickack", self.quickack),
        ];
        asked.iter().find(|asked| asked.1).map_or(Ok(()), |asked| unsupported(asked.0))
    }

    /// Sets what only a listening TCP socket has.
    #[cfg(target_os = "linux")]
    pub(crate) fn apply_to_listener(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        if let Some(queue) = self.fastopen {
            let queue = queue as libc::c_int;
            named("fastopen", raw::set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &queue))?;
        }
        if let Some(wait) = self.defer_accept {
            let wait = wait.as_secs() as libc::c_int;
            named("defer_accept", raw::set(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &wait))?;
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn apply_to_listener(&self, _socket: &impl AsFd) -> io::Result<()> {
        let asked = [("fastopen", self.fastopen.is_some()), ("defer_accept", self.defer_accept.is_some())];
        asked.iter().find(|asked| asked.1).map_or(Ok(()), |asked| unsupported(asked.0))
    }

    /// Sets on an accepted connection what it has not inherited from its listener.
    pub(crate) fn apply_to_accepted(&self, socket: &impl AsFd, is_tcp: bool) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if is_tcp && self.quickack {
            named("quickack", SockRef::from(socket).set_tcp_quickack(true))?;
        }
        if cfg!(not(target_os = "linux")) {
            self.apply(socket, is_tcp)?;
        }
        Ok(())
    }
}

impl From<&Keepalive> for TcpKeepalive {
    fn from(keepalive: &Keepalive) -> Self {
        Self::new().with_time(keepalive.idle).with_interval(keepalive.interval).with_retries(keepalive.count)
    }
}

/// An error of the kernel's, and which option it was about.
#[derive(Debug)]
pub(super) struct OptionError {
    pub(super) option: &'static str,
    pub(super) error: io::Error,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socket option {}: {}", self.option, self.error)
    }
}

impl std::error::Error for OptionError {}

fn named<T>(option: &'static str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), OptionError { option, error }))
}

#[cfg(not(target_os = "linux"))]
fn unsupported(option: &'static str) -> io::Result<()> {
    named(option, Err(io::Error::new(io::ErrorKind::Unsupported, "does not exist on this platform")))
}
