//! Socket options that neither std nor `socket2` wraps.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "most of them are Linux's alone"))]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
