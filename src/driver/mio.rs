//! The kernel's sockets, polled by mio: epoll, kqueue, or poll(2) where mio has nothing better.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook_mio::v1_0::Signals;

use super::{Driver, Ending, Event, Port, Readiness, Received, Sent, Wait, Wake};
use crate::buffer::FileSlice;
#[cfg(target_os = "linux")]
use crate::buffer::truncated;
use crate::connection::{Key, Peer};
use crate::net::{self, Address, Dial, DialFailure, Listener, SocketOptions, Stream};
use crate::time::{Nanos, nanos};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a poll token holds a slot and a generation of 32 bits each");

/// Tokens of generation 0, which no connection has.
const WAKER: Token = Token(0);
const ALARM: Token = Token(1);
const SIGNALS: Token = Token(2);
const FIRST_LISTENER: usize = 16;

/// mio emulates edges on poll(2) by leaving a socket out until an operation on it would have blocked: a
/// short read or write then does not mean that another edge will come.
const EDGES_NEED_WOULD_BLOCK: bool = cfg!(mio_unsupported_force_poll_poll);

/// That emulation can also lose a wake-up that comes while a socket is re-armed (tokio-rs/mio#1874), so
/// there nobody sleeps for long.
const LONGEST_SLEEP: Option<Duration> =
    if EDGES_NEED_WOULD_BLOCK { Some(Duration::from_millis(10)) } else { None };

/// Events that one call of the kernel returns at most; what is left over comes with the next.
const EVENTS: usize = 1024;

/// Of a connection. A read ends at urgent data (RFC 9293, 3.8.5) although more has come behind it: then a short read does
/// not mean that everything was read, and the kernel must tell.
#[cfg(target_os = "linux")]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(target_os = "linux"))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// What is read of a file at once where the kernel does not send files by itself.
const FILE_BLOCK: usize = 64 * 1024;

/// The reactor asks for the socket of a slot that has none; it does not.
const NO_SOCKET: io::ErrorKind = io::ErrorKind::NotConnected;

/// A reactor's poller and its sockets.
pub(crate) struct MioDriver {
    poll: Poll,
    events: Events,
    /// The last poll returned as many events as it can.
    is_full: bool,
    start: Instant,
    listeners: Vec<Option<Listener>>,
    streams: Vec<Option<Stream>>,
    /// The one buffer that all connections are read into; out while it is leased.
    buffer: Option<Box<[u8]>>,
    buffer_size: usize,
    /// What was read of a file, on its way to a socket; empty where the kernel sends files.
    file_block: Vec<u8>,
    alarm: Alarm,
    /// Those of the process that this driver tells of.
    signals: Option<Signals>,
}

impl fmt::Debug for MioDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MioDriver").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// The read buffer, filled up to `length`.
#[derive(Debug)]
pub(crate) struct Lease {
    buffer: Box<[u8]>,
    length: usize,
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl MioDriver {
    /// A driver that accepts from `listeners`, numbered in their order (`None`: another reactor has that
    /// one), and a waker for it.
    pub(crate) fn new(mut listeners: Vec<Option<Listener>>, buffer_size: usize) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            if let Some(listener) = listener {
                poll.registry().register(listener, Token(FIRST_LISTENER + index), Interest::READABLE)?;
            }
        }
        let alarm = Alarm::new(&poll)?;
        let driver = Self {
            poll,
            events: Events::with_capacity(EVENTS),
            is_full: false,
            start: Instant::now(),
            listeners,
            streams: Vec::new(),
            buffer: None,
            buffer_size,
            file_block: Vec::new(),
            alarm,
            signals: None,
        };
        Ok((driver, waker))
    }

    /// Tells of these signals of the process from now on.
    pub(crate) fn watch_signals(&mut self, signals: &[i32]) -> io::Result<()> {
        let mut signals = Signals::new(signals)?;
        self.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        self.signals = Some(signals);
        Ok(())
    }

    #[cold]
    fn take_signals(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let Some(signals) = &mut self.signals else { return Ok(()) };
        events.extend(signals.pending().map(Event::Signalled));
        if EDGES_NEED_WOULD_BLOCK {
            // signal-hook reads the pipe behind mio's back.
            self.poll.registry().reregister(signals, SIGNALS, Interest::READABLE)?;
        }
        Ok(())
    }

    #[inline]
    fn stream(&self, slot: u32) -> io::Result<&Stream> {
        match self.streams.get(slot as usize) {
            Some(Some(stream)) => Ok(stream),
            _ => Err(NO_SOCKET.into()),
        }
    }

    fn watch(&mut self, key: Key, mut stream: Stream) -> io::Result<()> {
        let token = Token((key.generation as usize) << 32 | key.slot as usize);
        self.poll.registry().register(&mut stream, token, INTEREST)?;
        let slot = key.slot as usize;
        if slot >= self.streams.len() {
            self.streams.resize_with(slot + 1, || None);
        }
        self.streams[slot] = Some(stream);
        Ok(())
    }

    /// Sends a file through memory. What the socket does not take is read again.
    #[cold]
    fn copy_file(&mut self, slot: u32, file: &FileSlice, most: usize) -> io::Result<Sent> {
        let mut block = std::mem::take(&mut self.file_block);
        block.resize(FILE_BLOCK, 0);
        let most = most.min(FILE_BLOCK);
        let sent = file
            .read(&mut block[..most])
            .and_then(|length| self.send(slot, &[IoSlice::new(&block[..length])]));
        self.file_block = block;
        sent
    }

    fn timeout(&mut self, wait: Wait) -> io::Result<Option<Duration>> {
        let timeout = match wait {
            Wait::No => Some(Duration::ZERO),
            Wait::ForEver => None,
            Wait::Roughly(when) => Some(self.until(when)),
            Wait::Exactly(when) => {
                let left = self.until(when);
                if left.is_zero() { Some(left) } else { self.alarm.set(when, left)? }
            }
        };
        Ok(match (timeout, LONGEST_SLEEP) {
            (Some(timeout), Some(longest)) => Some(timeout.min(longest)),
            (None, longest) => longest,
            (timeout, None) => timeout,
        })
    }

    fn until(&self, when: Nanos) -> Duration {
        Duration::from_nanos(when.saturating_sub(nanos(self.start.elapsed())))
    }
}

fn event_of(event: &mio::event::Event) -> Option<Event> {
    match event.token() {
        WAKER => Some(Event::Woken),
        ALARM | SIGNALS => None,
        Token(token) => {
            let (slot, generation) = (token as u32, (token >> 32) as u32);
            if generation == 0 {
                return Some(Event::Accept((token - FIRST_LISTENER) as u16));
            }
            let readiness = Readiness {
                readable: event.is_readable(),
                writable: event.is_writable(),
                ended: event.is_read_closed() || event.is_priority(),
                failed: event.is_error(),
            };
            Some(Event::Ready(Key { slot, generation }, readiness))
        }
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Wake for Waker {
    fn wake(&self) {
        if let Err(error) = Waker::wake(self) {
            // An eventfd whose counter is full is one that has woken the reactor long since.
            tracing::error!(%error, "cannot wake a reactor");
        }
    }
}

impl Port for MioDriver {
    #[inline(always)]
    fn send(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let stream = self.stream(slot)?;
        let asked: usize = match slices {
            [slice] => slice.len(),
            slices => slices.iter().map(|slice| slice.len()).sum(),
        };
        loop {
            match stream.send(slices) {
                Ok(bytes) => {
                    // A kernel that took less than it was given has no room, and says so by an edge when
                    // it has again (epoll(7), questions and answers, 9).
                    let room = bytes == asked || EDGES_NEED_WOULD_BLOCK;
                    return Ok(Sent { bytes, room });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send_ahead(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let stream = self.stream(slot)?;
        let asked: usize = slices.iter().map(|slice| slice.len()).sum();
        let bytes = uninterrupted(|| stream.send_ahead(slices))?;
        Ok(Sent { bytes, room: bytes == asked || EDGES_NEED_WOULD_BLOCK })
    }

    #[cfg(target_os = "linux")]
    fn send_file(&mut self, slot: u32, file: &FileSlice, most: usize) -> io::Result<Sent> {
        let stream = self.stream(slot)?;
        match uninterrupted(|| stream.send_file(file, most)) {
            Ok(0) => Err(truncated()),
            // Less than was asked for means a full socket, or a file that ends here, or a signal: which, the next
            // call tells.
            Ok(bytes) => Ok(Sent { bytes, room: true }),
            // Not every file system lends its pages (sendfile(2)).
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                self.copy_file(slot, file, most)
            }
            Err(error) => Err(error),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn send_file(&mut self, slot: u32, file: &FileSlice, most: usize) -> io::Result<Sent> {
        self.copy_file(slot, file, most)
    }

    fn shut_down(&mut self, slot: u32) {
        if let Ok(stream) = self.stream(slot)
            && let Err(error) = stream.shut_down_sending()
        {
            // ENOTCONN: the peer has reset; reading will say so.
            tracing::trace!(%error, slot, "cannot shut down the sending side");
        }
    }

    fn dial(&mut self, key: Key, dial: &Dial) -> Result<(), DialFailure> {
        let stream = net::dial(dial)?;
        Ok(self.watch(key, stream)?)
    }

    fn set_options(&mut self, slot: u32, options: &SocketOptions) -> io::Result<()> {
        let stream = self.stream(slot)?;
        options.apply(stream, stream.is_tcp())?;
        options.apply_to_accepted(stream, stream.is_tcp())
    }

    fn local_address(&self, slot: u32) -> io::Result<Address> {
        self.stream(slot)?.local_address()
    }
}

impl Driver for MioDriver {
    type Socket = Stream;
    type Lease = Lease;

    fn epoch(&self) -> Instant {
        self.start
    }

    #[inline]
    fn now(&mut self) -> Nanos {
        nanos(self.start.elapsed())
    }

    fn poll(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        let mut timeout = self.timeout(wait)?;
        while let Err(error) = self.poll.poll(&mut self.events, timeout) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            // An empty poll would be taken for the word that nothing has happened; and who was stopped for a while, as
            // by a debugger, finds much.
            timeout = Some(Duration::ZERO);
        }
        let (mut count, mut signalled) = (0, false);
        events.extend(self.events.iter().filter_map(|event| {
            count += 1;
            signalled |= event.token() == SIGNALS;
            event_of(event)
        }));
        self.is_full = count >= EVENTS;
        if signalled { self.take_signals(events) } else { Ok(()) }
    }

    fn has_more_events(&self) -> bool {
        self.is_full
    }

    fn accept(&mut self, listener: u16) -> io::Result<(Stream, Peer)> {
        let Some(Some(socket)) = self.listeners.get_mut(listener as usize) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let result = socket.accept();
        if EDGES_NEED_WOULD_BLOCK
            && result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            // mio re-arms TCP listeners there by itself, but not Unix ones.
            let token = Token(FIRST_LISTENER + listener as usize);
            self.poll.registry().reregister(socket, token, Interest::READABLE)?;
        }
        result
    }

    fn close_listener(&mut self, listener: u16) {
        self.listeners[listener as usize] = None;
    }

    fn install(&mut self, key: Key, socket: Stream) -> io::Result<()> {
        self.watch(key, socket)
    }

    #[inline(always)]
    fn receive(&mut self, slot: u32, to_the_end: bool) -> Received<Lease> {
        let mut buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => vec![0; self.buffer_size].into_boxed_slice(),
        };
        let received = loop {
            match self.stream(slot).and_then(|stream| stream.receive(&mut buffer)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        match received {
            Ok(0) => {
                self.buffer = Some(buffer);
                Received::End
            }
            Ok(length) => Received::Data {
                more: length == buffer.len() || to_the_end || EDGES_NEED_WOULD_BLOCK,
                lease: Lease { buffer, length },
            },
            Err(error) => {
                self.buffer = Some(buffer);
                if error.kind() == io::ErrorKind::WouldBlock {
                    Received::Empty
                } else {
                    Received::Failed(error)
                }
            }
        }
    }

    #[inline]
    fn release(&mut self, lease: Lease) {
        self.buffer = Some(lease.buffer);
    }

    fn is_connected(&mut self, slot: u32) -> io::Result<bool> {
        self.stream(slot)?.is_connected()
    }

    fn close(&mut self, slot: u32, ending: Ending) {
        // Closing the descriptor takes it out of epoll and kqueue; mio does it for poll(2) on drop.
        let stream = self.streams.get_mut(slot as usize).and_then(Option::take);
        match (stream, ending) {
            (Some(stream), Ending::Reset) => stream.reset(),
            (stream, _) => drop(stream),
        }
    }

    fn export(&mut self, socket: Stream) -> Result<Stream, Stream> {
        Ok(socket)
    }

    fn import(&mut self, stream: Stream) -> Option<Stream> {
        Some(stream)
    }
}

/// Wakes the poller at a time finer than the millisecond that mio's timeouts are rounded up to.
#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
#[derive(Debug)]
struct Alarm {
    timer: nix::sys::timerfd::TimerFd,
    set_to: Nanos,
}

#[cfg(all(target_os = "linux", not(mio_unsupported_force_poll_poll)))]
impl Alarm {
    fn new(poll: &Poll) -> io::Result<Self> {
        use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
        use std::os::fd::{AsFd, AsRawFd};
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        // The edge alone is wanted, so the timer is never read.
        let fd = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut mio::unix::SourceFd(&fd), ALARM, Interest::READABLE)?;
        Ok(Self { timer, set_to: 0 })
    }

    /// The timeout to poll with: none, for the timer will wake the poller `left` from now.
    fn set(&mut self, when: Nanos, left: Duration) -> io::Result<Option<Duration>> {
        use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};
        if self.set_to != when {
            self.timer.set(Expiration::OneShot(left.into()), TimerSetTimeFlags::empty())?;
            self.set_to = when;
        }
        Ok(None)
    }
}

/// Here the poller's own timeout must do: exact on kqueue, rounded up to a millisecond on poll(2).
#[cfg(not(all(target_os = "linux", not(mio_unsupported_force_poll_poll))))]
#[derive(Debug)]
struct Alarm;

#[cfg(not(all(target_os = "linux", not(mio_unsupported_force_poll_poll))))]
impl Alarm {
    fn new(_poll: &Poll) -> io::Result<Self> {
        Ok(Self)
    }

    fn set(&mut self, _when: Nanos, left: Duration) -> io::Result<Option<Duration>> {
        Ok(Some(left))
    }
}
