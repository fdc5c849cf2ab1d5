use std::io;
use std::net::IpAddr;
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::listener::socket_address;
use super::options::OptionError;
use super::{Address, SocketOptions, Stream};

/// Where and how to connect; the argument of [`Core::connect`](crate::Core::connect).
///
/// ```
/// use std::time::Duration;
/// use corelane::{Address, Dial};
///
/// let upstream: Address = "127.0.0.1:6379".parse().unwrap();
/// let dial = Dial::to(upstream).timeout(Duration::from_secs(1)).from_ip([127, 0, 0, 2].into());
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Dial {
    pub(crate) to: Address,
    pub(crate) local: Option<IpAddr>,
    pub(crate) timeout: Duration,
    pub(crate) options: SocketOptions,
    pub(crate) token: u64,
}

impl Dial {
    /// To `address`, from whatever local address the kernel chooses, within five seconds.
    pub fn to(address: impl Into<Address>) -> Self {
        Self {
            to: address.into(),
            local: None,
            timeout: Duration::from_secs(5),
            options: SocketOptions::default(),
            token: 0,
        }
    }

    /// Give up after this long. Five seconds by default; zero means the kernel's own patience (about two
    /// minutes on Linux).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connect from this address of the host, with a port that the kernel chooses at the connect
    /// (`IP_BIND_ADDRESS_NO_PORT` on Linux: a port in use towards another destination can then serve
    /// again, so each local address has some 28,000 ports for each destination).
    pub fn from_ip(mut self, local: IpAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// A number of the caller's, by which it knows the dial again: [`Conn::dial_token`](crate::Conn::dial_token)
    /// has it in `on_open`, [`ConnectError::token`](crate::ConnectError::token) where it failed. 0 unless set.
    pub fn token(mut self, token: u64) -> Self {
        self.token = token;
        self
    }

    /// Socket options of this connection.
    pub fn options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }
}

/// Why a dial failed before the network had a part in it, and when it had.
#[derive(Debug)]
pub(crate) enum DialFailure {
    /// A socket option that is out of range, or that the kernel refused, with its `errno`.
    Option(&'static str, i32),
    /// The host does not have the local address.
    LocalAddress,
    Kernel(io::Error),
}

impl From<io::Error> for DialFailure {
    fn from(error: io::Error) -> Self {
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<OptionError>());
        match refused {
            Some(refused) => {
                Self::Option(refused.option, refused.error.raw_os_error().unwrap_or(libc::ENOTSUP))
            }
            None => Self::Kernel(error),
        }
    }
}

/// Begins to connect. The socket becomes writable when the kernel knows what came of it.
pub(crate) fn dial(dial: &Dial) -> Result<Stream, DialFailure> {
    dial.options.check().map_err(|(option, ..)| DialFailure::Option(option, libc::EINVAL))?;
    let target = socket_address(&dial.to)?;
    let is_tcp = matches!(dial.to, Address::Tcp(_));
    let protocol = is_tcp.then_some(Protocol::TCP);
    let socket = Socket::new(Domain::from(i32::from(target.family())), Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    dial.options.apply(&socket, is_tcp)?;
    if let Some(local) = dial.local.filter(|_| is_tcp) {
        #[cfg(target_os = "linux")]
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)
            .map_err(io::Error::from)?;
        socket.bind(&std::net::SocketAddr::new(local, 0).into()).map_err(of_bind)?;
    }
    match socket.connect(&target) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(if is_tcp {
        Stream::Tcp(TcpStream::from_std(socket.into()))
    } else {
        Stream::Unix(UnixStream::from_std(socket.into()))
    })
}

/// Without a port to reserve, binding fails with `EADDRNOTAVAIL` only for want of the address.
fn of_bind(error: io::Error) -> DialFailure {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => DialFailure::LocalAddress,
        _ => error.into(),
    }
}
