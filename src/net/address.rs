use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a server listens or a connection goes.
///
/// | text | address |
/// |---|---|
/// | `127.0.0.1:7000`, `[::1]:7000` | TCP; port 0 lets the kernel choose |
/// | `unix:/run/service.sock`, `unix:relative.sock` | a Unix stream socket by path |
/// | `unix:@name` | a Unix stream socket in Linux's abstract namespace |
///
/// Names are not resolved: give an IP address.
///
/// ```
/// use corelane::Address;
///
/// let address: Address = "unix:/tmp/echo.sock".parse().unwrap();
/// assert_eq!(address.to_string(), "unix:/tmp/echo.sock");
/// assert!("localhost:80".parse::<Address>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6 with a port.
    Tcp(SocketAddr),
    /// A path; at most 107 bytes on Linux, 103 on macOS and BSD ([unix(7)]).
    ///
    /// [unix(7)]: https://man7.org/linux/man-pages/man7/unix.7.html
    Unix(PathBuf),
    /// A name in the abstract namespace, which only Linux has; at most 107 bytes.
    Abstract(Vec<u8>),
}

/// A text that is no [`Address`], and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, problem } = self;
        write!(f, "address {text:?}: {problem} (expected IPV4:PORT, [IPV6]:PORT, unix:/path or unix:@name)")
    }
}

impl std::error::Error for AddressError {}

/// The room in `sockaddr_un::sun_path`, less its terminating zero.
const PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

impl Address {
    pub(crate) fn check(&self) -> Result<(), AddressError> {
        let refuse = |problem| Err(AddressError { text: self.to_string(), problem });
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Unix(path) => match path.as_os_str().as_encoded_bytes() {
                [] => refuse("the path is empty"),
                // unix://x.sock would be x.sock in the root folder, which nobody means.
                [b'/', b'/', ..] => refuse("the path begins with two slashes"),
                bytes if bytes.len() > PATH_LIMIT => refuse("the path is too long for a socket"),
                bytes if bytes.contains(&0) => refuse("the path contains a zero byte"),
                _ => Ok(()),
            },
            Self::Abstract(_) if !cfg!(target_os = "linux") => refuse("abstract names exist on Linux only"),
            Self::Abstract(name) if name.is_empty() => refuse("the abstract name is empty"),
            Self::Abstract(name) if name.len() > PATH_LIMIT => refuse("the abstract name is too long"),
            Self::Abstract(_) => Ok(()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = match text.strip_prefix("unix:") {
            Some(name) if name.starts_with('@') => Self::Abstract(name.as_bytes()[1..].to_vec()),
            Some(path) => Self::Unix(PathBuf::from(path)),
            None => text.parse().map(Self::Tcp).map_err(|_| AddressError {
                text: text.to_owned(),
                problem: "not an IP address with a port",
            })?,
        };
        address.check()?;
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<std::convert::Infallible> for AddressError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_prints_it_reads() {
        for text in ["127.0.0.1:0", "[::1]:7000", "unix:/a/b", "unix:rel", "unix:@abstract"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn errors_name_the_address_and_the_problem() {
        for (text, problem) in [
            ("localhost:80", "not an IP address"),
            ("127.0.0.1", "not an IP address"),
            ("::1:80", "not an IP address"),
            ("127.0.0.1:65536", "not an IP address"),
            ("unix:", "empty"),
            ("unix:@", "empty"),
            ("unix://run/x.sock", "two slashes"),
            (&format!("unix:/{}", "x".repeat(200)), "too long"),
            ("unix:/a\0b", "zero byte"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
