//! A blocking client of frames, for tests and tools.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Codec, Decoder, FrameError};
use crate::Address;

/// How much is read at a time at first; the buffer grows with the frames.
const CHUNK: usize = 64 * 1024;

/// What a [`Client`] keeps of a frame that is not whole, unless told otherwise: as a server does.
const DEFAULT_INPUT_CAP: usize = 1024 * 1024;

/// A blocking connection that sends and receives frames, for tests and tools.
///
/// Every call gives up with [`ErrorKind::TimedOut`] when its peer has let it wait for longer than the deadline:
/// for the connection, for the next bytes, or for room to send. A frame that trickles in byte by byte is given
/// up at twice the deadline at the latest.
///
/// ```no_run
/// use std::time::Duration;
/// use corelane::codec::{Client, LengthPrefixed};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let address = "127.0.0.1:7000".parse()?;
/// let mut client = Client::connect(&address, LengthPrefixed::u32_be(), Duration::from_secs(5))?;
/// client.send(b"request")?;
/// match client.receive()? {
///     Some(reply) => println!("{} bytes", reply.len()),
///     None => println!("the server closed the connection"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// It reads only in [`Client::receive`]. Who sends more than two kernels' buffers hold before receiving, waits
/// for a server that waits for him: take it apart with [`Client::split`] and do both at a time.
#[derive(Debug)]
pub struct Client<C> {
    sender: Sender<C>,
    receiver: Receiver<C>,
}

/// The sending half of a [`Client`].
#[derive(Debug)]
pub struct Sender<C> {
    socket: Arc<Socket>,
    deadline: Duration,
    codec: C,
    /// Where a batch is put together; its memory stays.
    batch: Vec<u8>,
}

/// The receiving half of a [`Client`].
#[derive(Debug)]
pub struct Receiver<C> {
    socket: Arc<Socket>,
    deadline: Duration,
    decoder: Decoder<C>,
    input_cap: usize,
    buffer: Vec<u8>,
    /// The part of the buffer that was received and not taken.
    start: usize,
    end: usize,
    has_ended: bool,
}

impl<C: Codec + Clone> Client<C> {
    /// Connects, and waits no longer than `deadline` for it.
    ///
    /// # Errors
    ///
    /// What the kernel says, with the address; [`ErrorKind::InvalidInput`] for a deadline of zero.
    pub fn connect(address: &Address, codec: C, deadline: Duration) -> io::Result<Self> {
        let socket = connect(address, deadline).map_err(|error| {
            let text = match has_expired(&error) {
                true => format!("no connection to {address} within {deadline:?}"),
                false => format!("cannot connect to {address}: {error}"),
            };
            io::Error::new(if has_expired(&error) { ErrorKind::TimedOut } else { error.kind() }, text)
        })?;
        let socket = Arc::new(socket);
        let receiver = Receiver {
            socket: Arc::clone(&socket),
            deadline,
            decoder: Decoder::new(codec.clone()),
            input_cap: DEFAULT_INPUT_CAP,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            has_ended: false,
        };
        Ok(Self { sender: Sender { socket, deadline, codec, batch: Vec::new() }, receiver })
    }
}

impl<C: Codec> Client<C> {
    /// How much is kept of a frame that is not whole: 1 MiB unless set. Memory is taken as bytes come.
    pub fn input_cap(mut self, bytes: usize) -> Self {
        self.receiver.input_cap = bytes;
        self
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.sender.send(payload)
    }

    /// Sends several frames together.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_all`].
    pub fn send_all<P: AsRef<[u8]>>(&mut self, payloads: impl IntoIterator<Item = P>) -> io::Result<()> {
        self.sender.send_all(payloads)
    }

    /// Sends bytes as they are: for tests of what a server does with them.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sender.send_raw(bytes)
    }

    /// Ends the sending side; what the server still sends can be received.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn finish(&mut self) -> io::Result<()> {
        self.sender.finish()
    }

    /// The payload of the next frame; `None`: the server has ended its stream in good order.
    ///
    /// # Errors
    ///
    /// As [`Receiver::receive`].
    pub fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        self.receiver.receive()
    }

    /// Its two halves, for a thread each.
    pub fn split(self) -> (Sender<C>, Receiver<C>) {
        (self.sender, self.receiver)
    }
}

impl<C> AsFd for Client<C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sender.socket.as_fd()
    }
}

impl<C: Codec> Sender<C> {
    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] around the [`FrameError`] if this is no payload for the codec, and nothing
    /// is sent; [`ErrorKind::TimedOut`] at the deadline; what the kernel says.
    pub fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let envelope = self.codec.wrap(payload).map_err(invalid_input)?;
        let slices = [envelope.header(), payload, envelope.trailer()];
        send(&self.socket, &mut slices.map(IoSlice::new), self.deadline)
    }

    /// Sends several frames together, in as few system calls as the kernel allows.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`]; nothing is sent if one of them is no payload for the codec.
    pub fn send_all<P: AsRef<[u8]>>(&mut self, payloads: impl IntoIterator<Item = P>) -> io::Result<()> {
        self.batch.clear();
        for payload in payloads {
            self.codec.append(&mut self.batch, payload.as_ref()).map_err(invalid_input)?;
        }
        send(&self.socket, &mut [IoSlice::new(&self.batch)], self.deadline)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&self.socket, &mut [IoSlice::new(bytes)], self.deadline)
    }

    /// Ends the sending side.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

impl<C: Codec> Receiver<C> {
    /// The payload of the next frame; `None`: the server has ended its stream in good order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] around the [`FrameError`] if what came is no frame, each time from then on;
    /// [`ErrorKind::UnexpectedEof`] around it if the stream ended within one; [`ErrorKind::InvalidData`] if
    /// one does not fit into the [input cap](Client::input_cap); [`ErrorKind::TimedOut`] at the deadline;
    /// what the kernel says.
    pub fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        let begun = Instant::now();
        loop {
            let bytes = &self.buffer[self.start..self.end];
            let found = if self.has_ended { self.decoder.find_last(bytes) } else { self.decoder.find(bytes) };
            if let Some(frame) = found.map_err(invalid_data)? {
                let start = self.start;
                self.start += frame.length;
                return Ok(Some(&self.buffer[start..][frame.payload]));
            }
            if self.has_ended {
                return Ok(None);
            }
            if self.end > self.start && begun.elapsed() > self.deadline {
                let text = format!("no whole frame within {:?}", self.deadline);
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            self.fill()?;
        }
    }

    /// Receives more behind what is there.
    fn fill(&mut self) -> io::Result<()> {
        self.make_room()?;
        let count = receive(&self.socket, &mut self.buffer[self.end..], self.deadline)?;
        self.end += count;
        self.has_ended = count == 0;
        Ok(())
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end < self.buffer.len() {
            return Ok(());
        }
        if self.end >= self.input_cap {
            let text = format!("a frame is larger than the input cap of {} bytes", self.input_cap);
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        let size = (2 * self.buffer.len()).max(CHUNK).min(self.input_cap);
        self.buffer.resize(size, 0);
        Ok(())
    }
}

fn invalid_input(error: FrameError) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, error)
}

fn invalid_data(error: FrameError) -> io::Error {
    let kind = match error {
        FrameError::Truncated { .. } => ErrorKind::UnexpectedEof,
        _ => ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}

/// Where a timeout of a socket's has passed, read(2), write(2) and a Unix connect(2) say `EAGAIN`.
fn has_expired(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn connect(address: &Address, deadline: Duration) -> io::Result<Socket> {
    if deadline.is_zero() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a deadline of zero"));
    }
    let (domain, to) = match address {
        Address::Tcp(to) => (Domain::for_address(*to), SockAddr::from(*to)),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        Address::Abstract(name) => {
            (Domain::UNIX, SockAddr::unix(OsStr::from_bytes(&[b"\0", name.as_slice()].concat()))?)
        }
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_read_timeout(Some(deadline))?;
    socket.set_write_timeout(Some(deadline))?;
    if domain == Domain::UNIX {
        // The write timeout bounds the wait for room in the listener's queue.
        // Interrupted, it has not connected (unlike TCP), and can be tried again.
        while let Err(error) = socket.connect(&to) {
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
    } else {
        socket.connect_timeout(&to, deadline)?;
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

fn send(mut socket: &Socket, mut slices: &mut [IoSlice<'_>], deadline: Duration) -> io::Result<()> {
    // Takes empty ones from the front.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match socket.write_vectored(slices) {
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if has_expired(&error) => {
                let text = format!("the server took nothing for {deadline:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(mut socket: &Socket, buffer: &mut [u8], deadline: Duration) -> io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if has_expired(&error) => {
                let text = format!("the server sent nothing for {deadline:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            received => return received,
        }
    }
}
