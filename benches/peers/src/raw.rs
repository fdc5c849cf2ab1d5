//! The system calls of the peers that are written by hand on epoll.
#![allow(clippy::missing_errors_doc, reason = "each returns what the kernel says")]

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Sends until all is sent or the kernel refuses, which is what makes it report when it will take
/// more.
#[inline]
pub fn send_all(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match send(fd, &bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => break,
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    Ok(sent)
}

/// Receives what there is, at most a buffer of it.
#[inline]
pub fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, which is borrowed for the
    // call.
    let result = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[inline]
fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`, which is borrowed for the
    // call.
    let result = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Accepts a connection that does not block.
#[inline]
pub fn accept4(listener: &TcpListener) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null pointers ask for no address, so the kernel writes nothing.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
    owned(fd)
}

/// A new epoll instance.
#[inline]
pub fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    owned(fd)
}

/// Takes over what a system call that makes a descriptor returned.
fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` for the caller, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds a descriptor, or changes what is wanted of it; its events carry its number.
#[inline]
pub fn epoll_ctl(epoll: &OwnedFd, operation: i32, fd: RawFd, events: u32) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: fd as u64 };
    // SAFETY: `event` outlives the call, and the kernel keeps a copy of it only.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for events, at most so many milliseconds; -1: for ever. How many there are.
#[inline]
pub fn epoll_wait(epoll: &OwnedFd, events: &mut [libc::epoll_event], timeout: i32) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `events.len()` events to `events`, which is borrowed for
    // the call.
    let result =
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, timeout) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
