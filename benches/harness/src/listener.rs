//! Who listens at an address of this machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use corelane::Address;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Where the kernel lists Unix sockets.
const UNIX: &str = "/proc/net/unix";

/// The flag there of one that takes connections.
const ACCEPTS: u32 = 1 << 16;

/// The processes that listen at a target, if they are on this machine and may be looked at; not this one.
pub(crate) fn processes(target: &Address) -> Vec<u32> {
    with_sockets(target).into_iter().filter(|pid| *pid != std::process::id()).collect()
}

fn with_sockets(target: &Address) -> Vec<u32> {
    // A name may be of any bytes.
    let read = |path: &str| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let inodes = match target {
        Address::Tcp(target) => {
            let path = if target.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
            listeners(&read(path), *target)
        }
        Address::Unix(path) => unix_listeners(&read(UNIX), &path.display().to_string()),
        Address::Abstract(name) => {
            unix_listeners(&read(UNIX), &format!("@{}", String::from_utf8_lossy(name)))
        }
    };
    if inodes.is_empty() {
        return Vec::new();
    }
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| has_one_of(*pid, &sockets)).collect()
}

fn has_one_of(pid: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|link| sockets.iter().any(|socket| link.to_str() == Some(socket)))
}

/// The inodes of the sockets that listen there, or on every address at that port.
fn listeners(text: &str, target: SocketAddr) -> Vec<u64> {
    let local = |address: &str| -> Option<(bool, u16)> {
        let (ip, port) = address.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let is_any = ip.bytes().all(|digit| digit == b'0');
        let is_ours = match target.ip() {
            IpAddr::V4(ip4) => {
                let bits = u32::from_str_radix(ip, 16).ok()?;
                Ipv4Addr::from_bits(u32::from_be(bits)) == ip4
            }
            // Words in the machine's order; any listener at the port will do.
            IpAddr::V6(_) => true,
        };
        Some((is_any || is_ours, port))
    };
    let inode = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (is_there, port) = local(fields.get(1)?)?;
        (is_there && port == target.port() && *fields.get(3)? == LISTEN)
            .then(|| fields.get(9)?.parse().ok())?
    };
    text.lines().skip(1).filter_map(inode).collect()
}

/// The inodes of the sockets that listen under a name, which is that of when they were bound.
fn unix_listeners(text: &str, name: &str) -> Vec<u64> {
    let inode = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().take(7).collect();
        let accepts = u32::from_str_radix(fields.get(3)?, 16).ok()? & ACCEPTS != 0;
        // A path may hold spaces.
        let is_there = line.strip_suffix(name)?.ends_with(' ');
        (accepts && is_there).then(|| fields.get(6)?.parse().ok())?
    };
    text.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

    use super::*;

    #[test]
    fn this_process_is_found_by_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::from(listener.local_addr().unwrap());
        // A process that another test is starting has our descriptors until it executes its program.
        let eventually = |expected: &[u32]| {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while with_sockets(&address) != expected {
                assert!(std::time::Instant::now() < deadline, "{:?}", with_sockets(&address));
                std::thread::yield_now();
            }
        };
        eventually(&[std::process::id()]);
        assert_eq!(processes(&address), [0; 0], "the client is no server");
        drop(listener);
        eventually(&[]);
        let name = format!("corelane bench {}", std::process::id());
        let abstract_name = UnixAddr::from_abstract_name(&name).unwrap();
        let path = std::env::temp_dir().join(format!("{name}.sock"));
        let _ = fs::remove_file(&path);
        for (address, listener) in [
            (Address::Abstract(name.into_bytes()), UnixListener::bind_addr(&abstract_name).unwrap()),
            (Address::Unix(path.clone()), UnixListener::bind(&path).unwrap()),
        ] {
            let found = with_sockets(&address);
            assert!(found.contains(&std::process::id()), "{address}: {found:?}");
            drop(listener);
        }
        let _ = fs::remove_file(&path);
        assert_eq!(processes(&"unix:@nobody".parse().unwrap()), [0; 0]);
    }
}
