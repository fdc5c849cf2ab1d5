//! Opening and ending connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::Share;
use super::window::Window;
use crate::limits;

/// A socket that is to be connected to `target`.
pub(super) fn socket(target: SocketAddr, source: Option<Ipv4Addr>) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))
        .context("cannot open a socket")?;
    socket.set_tcp_nodelay(true).context("cannot set TCP_NODELAY")?;
    if let Some(source) = source {
        // The port is chosen on connecting, when the destination is known: it can then be shared.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)
            .context("cannot set IP_BIND_ADDRESS_NO_PORT")?;
        socket
            .bind(&SocketAddr::from((source, 0)).into())
            .with_context(|| format!("cannot bind to {source}"))?;
    }
    Ok(socket)
}

/// Explains why connecting failed.
pub(super) fn explain(error: io::Error, target: SocketAddr) -> anyhow::Error {
    let no_port = error.raw_os_error() == Some(libc::EADDRNOTAVAIL);
    let error = anyhow::Error::from(error).context(format!("cannot connect to {target}"));
    match limits::ephemeral_ports() {
        Ok((first, last)) if no_port => error.context(format!(
            "no port of {first} to {last} (ip_local_port_range) is free for another connection"
        )),
        _ => error,
    }
}

/// Connects all of a thread's connections, the measured ones first.
pub(super) fn connect_all(share: &Share<'_>, window: &mut Window<'_>) -> Result<Vec<Socket>> {
    let shared = share.shared;
    let target = shared.address;
    (0..share.connections + share.firehose)
        .map(|index| {
            shared.ensure_going()?;
            let since = shared.clock.now();
            let socket = socket(target, share.source(index))?;
            socket
                .connect_timeout(&target.into(), shared.plan.connect_timeout)
                .map_err(|error| explain(error, target))?;
            if index < share.connections {
                window.recorder.connected(since, shared.clock.now());
                shared.opened.fetch_add(1, Ordering::Relaxed);
            }
            Ok(socket)
        })
        .collect()
}

/// Ends a connection at once with a reset, which leaves no TIME_WAIT behind.
///
/// Closing the descriptor would not do: the ring holds the socket until the kernel has taken it
/// down, some time after it has been dropped.
pub(super) fn reset(socket: &Socket) {
    // SAFETY: an address of zeroes is a valid value, and means AF_UNSPEC.
    let unspecified: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the address as long as is said.
    unsafe {
        libc::connect(
            socket.as_raw_fd(),
            &raw const unspecified,
            size_of_val(&unspecified) as libc::socklen_t,
        )
    };
}

/// Makes the closing of a socket a reset.
pub(super) fn reset_on_close(socket: &Socket) -> Result<()> {
    socket.set_linger(Some(Duration::ZERO)).context("cannot set SO_LINGER")
}
