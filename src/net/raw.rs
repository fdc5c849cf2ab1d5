//! System calls that neither std nor `socket2` wraps as they are needed here.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "most of them are Linux's alone"))]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// recv(2), and below send(2), past the C library: there they are points at which a thread can be cancelled,
/// which nobody does to a reactor, and glibc before 2.41 pays four atomic read-modify-writes a message for it.
#[cfg(target_os = "linux")]
#[inline]
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let nobody = std::ptr::null_mut::<libc::sockaddr>();
    let no_length = std::ptr::null_mut::<libc::socklen_t>();
    // SAFETY: the descriptor is open as long as `socket` lives, and the kernel writes at most `buffer.len()`
    // bytes to `buffer`; no address is asked for; recvfrom(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
            0,
            nobody,
            no_length,
        )
    };
    count(result)
}

/// A write to a peer that has gone is an error, and no SIGPIPE.
#[cfg(target_os = "linux")]
#[inline]
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let nobody = std::ptr::null::<libc::sockaddr>();
    // SAFETY: the descriptor is open as long as `socket` lives, and the kernel reads `bytes.len()` bytes from
    // `bytes`; there is no address; sendto(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendto,
            socket.as_raw_fd(),
            bytes.as_ptr(),
            bytes.len(),
            libc::MSG_NOSIGNAL,
            nobody,
            0,
        )
    };
    count(result)
}

#[cfg(target_os = "linux")]
#[inline]
fn count(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// An option whose value the kernel reads as a plain `T`.
pub(super) fn set<T: Copy>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` lives, and `value` points to `length` bytes that
    // the kernel only reads; setsockopt(2).
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The backlog that the kernel gave a listening TCP socket: it caps what was asked by `somaxconn`.
#[cfg(target_os = "linux")]
pub(super) fn backlog(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` lives, and the kernel writes at most `length`
    // bytes to `info`; getsockopt(2), tcp(7).
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: tcp_info consists of integers, for which the zeros it started with are values too.
    let info = unsafe { info.assume_init() };
    // For a listener the kernel keeps its limit here (net/ipv4/tcp_diag.c and tcp_get_info).
    Some(info.tcpi_sacked)
}
