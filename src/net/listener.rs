use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Address, SocketOptions, Stream};
use crate::connection::Peer;

/// Whether others, reactors or processes, bind sockets of their own to the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Alone,
    /// `SO_REUSEPORT` (`SO_REUSEPORT_LB` on FreeBSD): the kernel spreads connections over the sockets.
    Among,
}

/// A listening socket, non-blocking.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Kind,
    options: SocketOptions,
    backlog: u32,
    /// Removes a Unix socket's path when the listener goes.
    _path: Option<BoundPath>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) fn bind(
        address: &Address,
        backlog: u32,
        options: &SocketOptions,
        sharing: Sharing,
    ) -> io::Result<Self> {
        let asked = i32::try_from(backlog).unwrap_or(i32::MAX);
        let (socket, path) = match address {
            Address::Tcp(address) => {
                let socket = tcp_socket(*address)?;
                if sharing == Sharing::Among {
                    share_port(&socket)?;
                }
                options.apply(&socket, true)?;
                options.apply_to_listener(&socket)?;
                socket.bind(&(*address).into())?;
                (socket, None)
            }
            Address::Unix(path) => bind_path(path, options)?,
            Address::Abstract(name) => {
                let socket = unix_socket(options)?;
                socket.bind(&abstract_address(name)?)?;
                (socket, None)
            }
        };
        socket.listen(asked)?;
        socket.set_nonblocking(true)?;
        let backlog = effective_backlog(&socket, backlog);
        let socket = match address {
            Address::Tcp(_) => Kind::Tcp(TcpListener::from_std(socket.into())),
            _ => Kind::Unix(UnixListener::from_std(socket.into())),
        };
        Ok(Self { socket, options: options.clone(), backlog, _path: path })
    }

    /// Fails where somebody listens on a TCP address, also if that one would share it.
    pub(crate) fn check_free(address: &Address) -> io::Result<()> {
        match address {
            Address::Tcp(address) if address.port() != 0 => tcp_socket(*address)?.bind(&(*address).into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<(Stream, Peer)> {
        let (stream, peer) = match &self.socket {
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                (Stream::Tcp(stream), Peer::Tcp(address))
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                (Stream::Unix(stream), Peer::Unix)
            }
        };
        // A peer that reset before we came here makes options fail: reading will say the same.
        if let Err(error) = self.options.apply_to_accepted(&stream, stream.is_tcp()) {
            tracing::debug!(%error, %peer, "socket option not set on an accepted connection");
        }
        Ok((stream, peer))
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Kind::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Kind::Unix(listener) => listener.local_addr().map(|address| unix_address(&address)),
        }
    }

    /// How many connections the kernel queues, after its own limit (`net.core.somaxconn`).
    pub(crate) fn backlog(&self) -> u32 {
        self.backlog
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Kind::Tcp(listener) => listener.register(registry, token, interests),
            Kind::Unix(listener) => listener.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Kind::Tcp(listener) => listener.reregister(registry, token, interests),
            Kind::Unix(listener) => listener.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.socket {
            Kind::Tcp(listener) => listener.deregister(registry),
            Kind::Unix(listener) => listener.deregister(registry),
        }
    }
}

/// A stream socket; close-on-exec, so that children inherit none (Linux and BSD set it atomically).
fn kind() -> Type {
    Type::STREAM
}

fn unix_socket(options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind(), None)?;
    options.apply(&socket, false)?;
    Ok(socket)
}

fn tcp_socket(address: std::net::SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::]:80 beside 0.0.0.0:80 is then no conflict, whatever the system's default.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(target_os = "freebsd")]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port_lb(true)
}

#[cfg(not(target_os = "freebsd"))]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

fn effective_backlog(socket: &Socket, asked: u32) -> u32 {
    #[cfg(target_os = "linux")]
    {
        if let Some(backlog) = super::raw::backlog(socket.as_fd()) {
            return backlog;
        }
        let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        if let Some(limit) = limit.ok().and_then(|text| text.trim().parse().ok()) {
            return asked.min(limit);
        }
    }
    let _ = socket;
    asked
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt;
    let path: Vec<u8> = std::iter::once(0).chain(name.iter().copied()).collect();
    SockAddr::unix(std::ffi::OsStr::from_bytes(&path))
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SockAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The socket address that connects to `address`, for dialing.
pub(super) fn socket_address(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Tcp(address) => Ok((*address).into()),
        Address::Unix(path) => SockAddr::unix(path),
        Address::Abstract(name) => abstract_address(name),
    }
}

pub(super) fn unix_address(address: &UnixAddress) -> Address {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        if let Some(name) = address.as_abstract_name() {
            return Address::Abstract(name.to_vec());
        }
    }
    Address::Unix(address.as_pathname().map(Path::to_owned).unwrap_or_default())
}

fn bind_path(path: &Path, options: &SocketOptions) -> io::Result<(Socket, Option<BoundPath>)> {
    let socket = unix_socket(options)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    Ok((socket, BoundPath::of(path)))
}

/// Removes a socket that nobody listens on any more, and nothing else.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let in_use = |why: &str| io::Error::new(io::ErrorKind::AddrInUse, why);
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("the path exists and is not a socket"));
    }
    let probe = Socket::new(Domain::UNIX, kind(), None)?;
    // A listener whose queue is full must not hold us up.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(in_use("another process listens on this path")),
    }
}

/// A path that we have bound; removed at the end if it is still the same file.
#[derive(Debug)]
struct BoundPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl BoundPath {
    fn of(path: &Path) -> Option<Self> {
        // The working directory may change before the listener goes.
        let path = std::path::absolute(path).ok()?;
        let metadata = std::fs::symlink_metadata(&path).ok()?;
        Some(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's path");
        }
    }
}
