use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A TCP address. An IPv4 client of a dual-stack listener appears as IPv4.
    Tcp(SocketAddr),
    /// The other end of a Unix socket; clients seldom bind a name, so it has none here.
    Unix,
}

impl Peer {
    /// The address, where it is TCP.
    pub const fn tcp(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A [`Peer`] in 23 bytes instead of 32, and without alignment: it stands in every connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedPeer {
    ip: [u8; 16],
    scope: [u8; 4],
    port: [u8; 2],
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
    Unix,
}

impl From<Peer> for PackedPeer {
    fn from(peer: Peer) -> Self {
        let (ip, scope, port, kind) = match peer {
            Peer::Unix => (Ipv6Addr::UNSPECIFIED, 0, 0, Kind::Unix),
            Peer::Tcp(SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), 0, v4.port(), Kind::V4),
            Peer::Tcp(SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
                Some(v4) => (v4.to_ipv6_mapped(), 0, v6.port(), Kind::V4),
                None => (*v6.ip(), v6.scope_id(), v6.port(), Kind::V6),
            },
        };
        Self { ip: ip.octets(), scope: u32::to_ne_bytes(scope), port: u16::to_ne_bytes(port), kind }
    }
}

impl From<PackedPeer> for Peer {
    fn from(packed: PackedPeer) -> Self {
        let [.., a, b, c, d] = packed.ip;
        let (scope, port) = (u32::from_ne_bytes(packed.scope), u16::from_ne_bytes(packed.port));
        match packed.kind {
            Kind::Unix => Self::Unix,
            Kind::V4 => Self::Tcp((IpAddr::from(Ipv4Addr::new(a, b, c, d)), port).into()),
            Kind::V6 => {
                let ip = Ipv6Addr::from(packed.ip);
                Self::Tcp(SocketAddrV6::new(ip, port, 0, scope).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing() {
        for text in ["1.2.3.4:5", "[::1]:6", "[fe80::1%3]:7", "255.255.255.255:65535"] {
            let peer = Peer::Tcp(text.parse().unwrap());
            assert_eq!(Peer::from(PackedPeer::from(peer)), peer);
        }
        assert_eq!(Peer::from(PackedPeer::from(Peer::Unix)), Peer::Unix);
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_self() {
        let mapped = Peer::Tcp("[::ffff:10.0.0.1]:9".parse().unwrap());
        assert_eq!(Peer::from(PackedPeer::from(mapped)), Peer::Tcp("10.0.0.1:9".parse().unwrap()));
    }

    #[test]
    fn it_is_as_small_as_it_says() {
        assert_eq!((size_of::<PackedPeer>(), align_of::<PackedPeer>()), (23, 1));
    }
}
