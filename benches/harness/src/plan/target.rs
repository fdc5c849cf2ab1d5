//! Whom to load.

use std::fmt;
use std::net::ToSocketAddrs;

use corelane::Address;
use serde::{Deserialize, Serialize};

use super::Refusal;

/// What is said to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dialect {
    /// Bytes that come back as they are.
    Echo,
    /// HTTP/1.1 without TLS.
    Http,
    /// Redis's inline requests.
    Redis,
    /// Requests and replies with their length in front, as the example `frames` has them.
    Frames,
}

impl Dialect {
    /// As the flag has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Http => "http",
            Self::Redis => "redis",
            Self::Frames => "frames",
        }
    }
}

/// Where the target is, and what is said to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) dialect: Dialect,
    /// As [`Address`] writes it.
    address: String,
    /// What the `Host` of HTTP says.
    pub(crate) host: String,
    /// The path that is fetched over HTTP.
    pub(crate) path: String,
}

impl Target {
    pub(crate) fn new(dialect: Dialect, address: &Address) -> Self {
        let address = address.to_string();
        let host = if address.starts_with("unix:") { "localhost".to_owned() } else { address.clone() };
        Self { dialect, address, host, path: "/".to_owned() }
    }

    /// Reads what a user writes; a name is looked up.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |problem: String| Refusal::new("target", format!("`{text}`: {problem}"));
        if text.starts_with("unix:") {
            let address = text.parse().map_err(|error| refuse(format!("{error}")))?;
            return Ok(Self::new(Dialect::Echo, &address));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let (dialect, default_port) = match scheme {
            "tcp" => (Dialect::Echo, None),
            "http" => (Dialect::Http, Some(80)),
            "redis" => (Dialect::Redis, Some(6379)),
            "frames" => (Dialect::Frames, None),
            "https" => return Err(refuse("TLS is not spoken here; use http://".to_owned())),
            _ => {
                return Err(refuse(format!(
                    "`{scheme}://` is not tcp://, http://, redis://, frames:// or unix:"
                )));
            }
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if dialect != Dialect::Http && path != "/" {
            return Err(refuse("only http:// has a path".to_owned()));
        }
        let with_port = match default_port {
            Some(port) if !has_port(authority) => format!("{authority}:{port}"),
            _ => authority.to_owned(),
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| refuse(format!("no HOST:PORT that can be resolved ({error})")))?
            .next()
            .ok_or_else(|| refuse("the name has no address".to_owned()))?;
        let host = authority.to_owned();
        Ok(Self { dialect, address: address.to_string(), host, path: path.to_owned() })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Address {
        self.address.parse().expect("an address was printed")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dialect, address, path, .. } = self;
        match dialect {
            Dialect::Echo if address.starts_with("unix:") => formatter.write_str(address),
            Dialect::Echo => write!(formatter, "tcp://{address}"),
            Dialect::Http => write!(formatter, "http://{address}{path}"),
            Dialect::Redis => write!(formatter, "redis://{address}"),
            Dialect::Frames => write!(formatter, "frames://{address}"),
        }
    }
}

/// Whether a port follows the name or the bracketed address.
fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_target_is_read() {
        for (text, printed) in [
            ("127.0.0.1:7000", "tcp://127.0.0.1:7000"),
            ("tcp://[::1]:7000", "tcp://[::1]:7000"),
            ("unix:/run/echo.sock", "unix:/run/echo.sock"),
            ("unix:@echo", "unix:@echo"),
            ("http://127.0.0.1", "http://127.0.0.1:80/"),
            ("http://[::1]/plaintext", "http://[::1]:80/plaintext"),
            ("http://127.0.0.1:8080/a?b=c", "http://127.0.0.1:8080/a?b=c"),
            ("redis://127.0.0.1", "redis://127.0.0.1:6379"),
            ("frames://127.0.0.1:9", "frames://127.0.0.1:9"),
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), printed, "{text}");
        }
        assert_eq!(Target::parse("http://127.0.0.1:81/").unwrap().host, "127.0.0.1:81");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for (text, problem) in [
            ("ftp://127.0.0.1:1", "is not tcp://"),
            ("https://127.0.0.1", "TLS"),
            ("127.0.0.1", "HOST:PORT"),
            ("tcp://127.0.0.1:99999", "HOST:PORT"),
            ("tcp://127.0.0.1:9/x", "only http://"),
            ("unix:", "empty"),
            ("", "HOST:PORT"),
        ] {
            let refusal = Target::parse(text).unwrap_err().to_string();
            assert!(refusal.starts_with("--target: ") && refusal.contains(problem), "{refusal}");
        }
    }
}
