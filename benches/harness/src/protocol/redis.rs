//! Redis's requests, inline and as arrays of RESP, and the keys that must be there before they are asked for.

use std::io::{BufReader, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use corelane::Address;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Material;
use crate::outcome::{Status, WithStatus};
use crate::plan::{Operation, Plan};

/// Requests that are sent before their replies are read.
const BATCH: usize = 64;

pub(super) fn write_key(into: &mut Vec<u8>, size: usize, key: u64) {
    into.extend_from_slice(b"bench:");
    write_number(into, size as u64);
    into.push(b':');
    write_number(into, key);
}

/// A SET up to its value, as an array of RESP.
pub(super) fn write_set(into: &mut Vec<u8>, size: usize, key: u64) {
    into.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
    write_bulk_key(into, size, key);
    into.extend_from_slice(b"\r\n$");
    write_number(into, size as u64);
    into.extend_from_slice(b"\r\n");
}

/// A GET but for the end of its last line, as an array of RESP.
pub(super) fn write_get(into: &mut Vec<u8>, size: usize, key: u64) {
    into.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
    write_bulk_key(into, size, key);
}

/// A key behind its length.
fn write_bulk_key(into: &mut Vec<u8>, size: usize, key: u64) {
    let digits = |number: u64| number.checked_ilog10().unwrap_or_default() + 1;
    into.push(b'$');
    write_number(into, "bench::".len() as u64 + u64::from(digits(size as u64) + digits(key)));
    into.extend_from_slice(b"\r\n");
    write_key(into, size, key);
}

/// Which piece of the text is the value of a key.
pub(super) fn piece(key: u64) -> u64 {
    key.wrapping_mul(7_919)
}

pub(super) fn write_number(into: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    into.extend_from_slice(&digits[first..]);
}

/// Sets every key that is to be got.
pub(crate) fn set_keys(plan: &Plan, material: &Material) -> Result<()> {
    let address = plan.target.address();
    let socket = connect(&address, plan.connect_timeout)
        .with_context(|| format!("cannot connect to {address}"))
        .status(Status::Unreachable)?;
    let mut stream = BufReader::new(socket);
    let gets = plan.mix.iter().filter(|entry| entry.operation == Operation::Get);
    let mut sizes: Vec<usize> = gets.map(|entry| entry.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut requests = Vec::new();
    for size in sizes {
        for first in (0..u64::from(plan.keys)).step_by(BATCH) {
            let keys = first..(first + BATCH as u64).min(plan.keys.into());
            requests.clear();
            for key in keys.clone() {
                requests.extend_from_slice(b"SET ");
                write_key(&mut requests, size, key);
                requests.push(b' ');
                requests.extend_from_slice(material.text.piece(piece(key), size));
                requests.extend_from_slice(b"\r\n");
            }
            stream.get_mut().write_all(&requests).context("cannot set keys").status(Status::Unreachable)?;
            for _ in keys {
                let mut reply = [0; 5];
                stream.read_exact(&mut reply).context("cannot set keys").status(Status::Unreachable)?;
                check(&reply).status(Status::WrongData)?;
            }
        }
    }
    Ok(())
}

fn check(reply: &[u8]) -> Result<()> {
    ensure!(reply == b"+OK\r\n", "SET was answered `{}`", reply.escape_ascii());
    Ok(())
}

fn connect(address: &Address, patience: Duration) -> std::io::Result<Socket> {
    let (domain, target) = match address {
        Address::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        Address::Abstract(name) => {
            use std::os::unix::ffi::OsStringExt;
            let path = [&[0], name.as_slice()].concat();
            (Domain::UNIX, SockAddr::unix(std::ffi::OsString::from_vec(path))?)
        }
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.connect_timeout(&target, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_resp_tell_their_lengths() {
        for (size, key, expected) in [
            (3, 0, "*2\r\n$3\r\nGET\r\n$9\r\nbench:3:0"),
            (64, 9, "*2\r\n$3\r\nGET\r\n$10\r\nbench:64:9"),
            (1_024, 999, "*2\r\n$3\r\nGET\r\n$14\r\nbench:1024:999"),
        ] {
            let mut written = Vec::new();
            write_get(&mut written, size, key);
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
        let mut written = Vec::new();
        write_set(&mut written, 10, 10);
        assert_eq!(written, b"*3\r\n$3\r\nSET\r\n$11\r\nbench:10:10\r\n$10\r\n");
    }
}
