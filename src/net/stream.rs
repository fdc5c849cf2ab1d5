#[cfg(not(target_os = "linux"))]
use std::io::Read;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::Address;
#[cfg(target_os = "linux")]
use crate::buffer::FileSlice;

/// A connected (or connecting) stream socket, non-blocking.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A write to a peer that has gone must be an error, not a SIGPIPE: the process may not be a Rust `main`.
/// Apple's systems have a socket option for it instead, which std sets.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: libc::c_int = 0;
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: libc::c_int = libc::MSG_NOSIGNAL;

/// What is sent is not the end of a message.
#[cfg(target_os = "linux")]
const MORE_FOLLOWS: libc::c_int = libc::MSG_MORE;
#[cfg(not(target_os = "linux"))]
const MORE_FOLLOWS: libc::c_int = 0;

impl Stream {
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_io(|| receive(stream, buffer)),
            Self::Unix(stream) => stream.try_io(|| receive(stream, buffer)),
        }
    }

    /// One gathered write; `slices` must be at most `IOV_MAX`.
    #[inline]
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            // send(2) is a little cheaper than sendmsg(2), and one slice is what most replies are.
            (Self::Tcp(stream), [slice]) => stream.try_io(|| send(stream, slice)),
            (Self::Unix(stream), [slice]) => stream.try_io(|| send(stream, slice)),
            (Self::Unix(stream), _) => stream.try_io(|| gathered(stream, slices, NO_SIGNAL)),
            (Self::Tcp(stream), _) => stream.try_io(|| gathered(stream, slices, NO_SIGNAL)),
        }
    }

    /// As [`Stream::send`], where more follows at once: a segment that is not full may wait for it.
    pub(crate) fn send_ahead(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_io(|| gathered(stream, slices, NO_SIGNAL | MORE_FOLLOWS)),
            Self::Unix(stream) => stream.try_io(|| gathered(stream, slices, NO_SIGNAL | MORE_FOLLOWS)),
        }
    }

    /// Sends at most `most` bytes from the beginning of `file`, past the program's memory; 0 where the file has
    /// none there. It knows no `MSG_NOSIGNAL`: the calling thread must have SIGPIPE blocked.
    #[cfg(target_os = "linux")]
    pub(crate) fn send_file(&self, file: &FileSlice, most: usize) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_io(|| send_file(stream, file, most)),
            Self::Unix(stream) => stream.try_io(|| send_file(stream, file, most)),
        }
    }

    pub(crate) fn shut_down_sending(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Closes with a reset instead of an end of stream; Unix sockets know no reset.
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // A failure leaves the default: an orderly end. Nothing can be done about it here.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// The error that the kernel has kept for this socket, which it forgets by telling.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    /// Whether a dialed connection stands; `false` while the kernel has not said.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        let Self::Tcp(stream) = self else { return Ok(true) };
        match stream.peer_addr() {
            // A port of this host that nobody listens on can be the very one the kernel chose for us:
            // the socket has then connected to itself (RFC 9293, simultaneous open).
            Ok(peer) if stream.local_addr().is_ok_and(|local| local == peer) => {
                Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(Address::Tcp),
            Self::Unix(stream) => stream.local_addr().map(|address| super::listener::unix_address(&address)),
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn receive(stream: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    super::raw::receive(stream.as_fd(), buffer)
}

#[cfg(not(target_os = "linux"))]
fn receive(stream: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Read::read(&mut &*SockRef::from(stream), buffer)
}

#[cfg(target_os = "linux")]
#[inline]
fn send(stream: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    super::raw::send(stream.as_fd(), bytes)
}

#[cfg(not(target_os = "linux"))]
fn send(stream: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(stream).send_with_flags(bytes, NO_SIGNAL)
}

fn gathered(stream: &impl AsFd, slices: &[IoSlice<'_>], flags: libc::c_int) -> io::Result<usize> {
    SockRef::from(stream).send_vectored_with_flags(slices, flags)
}

#[cfg(target_os = "linux")]
fn send_file(stream: &impl AsFd, file: &FileSlice, most: usize) -> io::Result<usize> {
    // A slice ends within the range of an offset.
    let mut offset = file.offset() as libc::off_t;
    let most = usize::try_from(file.len()).unwrap_or(usize::MAX).min(most);
    Ok(nix::sys::sendfile::sendfile(stream, file.file(), Some(&mut offset), most)?)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
