use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use corelane::Address;
use socket2::{Domain, SockRef, Socket, Type};

use super::{DEADLINE, eventually};

/// A blocking client; every call of it gives up at the deadline.
#[derive(Debug)]
pub(crate) enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How a stream ended, as its reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub(crate) fn try_connect(address: &Address) -> io::Result<Self> {
        let client = match address {
            Address::Tcp(address) => Self::Tcp(TcpStream::connect_timeout(address, DEADLINE)?),
            Address::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            Address::Abstract(name) => {
                Self::Unix(UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?)?)
            }
        };
        client.limit_waits();
        Ok(client)
    }

    /// One that lets the server send very little before it reads.
    pub(crate) fn connect_narrow(address: &Address) -> Self {
        let Address::Tcp(address) = address else { panic!("{address} has no window") };
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&(*address).into()).unwrap();
        let client = Self::Tcp(socket.into());
        client.limit_waits();
        client
    }

    /// One that comes from `local`.
    pub(crate) fn connect_from(local: [u8; 4], address: &Address) -> Self {
        let Address::Tcp(address) = address else { panic!("{address} has no source") };
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((local, 0)).into()).unwrap();
        socket.connect(&(*address).into()).unwrap();
        let client = Self::Tcp(socket.into());
        client.limit_waits();
        client
    }

    fn limit_waits(&self) {
        let socket = SockRef::from(self);
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.write_all(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    #[track_caller]
    pub(crate) fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.read_exact(&mut bytes).unwrap_or_else(|error| panic!("cannot receive {count} bytes: {error}"));
        bytes
    }

    /// Sends and expects the same back.
    #[track_caller]
    pub(crate) fn echo(&mut self, bytes: &[u8]) {
        self.send(bytes);
        assert_eq!(self.receive(bytes.len()), bytes);
    }

    /// Everything up to the end, and which end that was.
    #[track_caller]
    pub(crate) fn receive_rest(&mut self) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        match self.read_to_end(&mut bytes) {
            Ok(_) => (bytes, End::Fin),
            Err(error) if is_reset(&error) => (bytes, End::Reset),
            Err(error) => panic!("neither an end nor a reset: {error}"),
        }
    }

    /// Everything up to an end in good order.
    #[track_caller]
    pub(crate) fn receive_all(&mut self) -> Vec<u8> {
        let (bytes, end) = self.receive_rest();
        assert_eq!(end, End::Fin, "reset after {} bytes", bytes.len());
        bytes
    }

    /// Sends until the kernels on both sides are full; how much that was.
    pub(crate) fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        self.set_patience(Duration::from_millis(200));
        let mut sent = 0;
        while sent < bytes.len() {
            match self.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("cannot send: {error}"),
            }
        }
        self.limit_waits();
        sent
    }

    /// How long a read waits from now on.
    pub(crate) fn set_read_patience(&self, patience: Duration) {
        SockRef::from(self).set_read_timeout(Some(patience)).unwrap();
    }

    fn set_patience(&self, patience: Duration) {
        SockRef::from(self).set_write_timeout(Some(patience)).unwrap();
    }

    /// Ends the sending side.
    pub(crate) fn finish(&self) {
        SockRef::from(self).shutdown(Shutdown::Write).unwrap();
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        SockRef::from(&self).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn another(&self) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().unwrap()),
            Self::Unix(stream) => Self::Unix(stream.try_clone().unwrap()),
        }
    }
}

/// Waits until nobody listens at an address any more.
///
/// Closing a listener is not enough: a child process that another test is just starting holds everything that
/// is open until it runs its own program.
#[track_caller]
pub(crate) fn wait_for_nobody_at(address: &Address) {
    eventually(&format!("nobody at {address}"), || Client::try_connect(address).is_err());
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A call on a socket with a timeout fails where the process was stopped and goes on (signal(7)), as a container does
/// that is frozen for a moment.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        })
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
