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

/// The digits of a key's number: all keys of a size are as long, so that requests differ in these alone.
const DIGITS: usize = 7;

pub(super) fn write_key(into: &mut Vec<u8>, size: usize, key: u64) {
    into.extend_from_slice(b"bench:");
    write_number(into, size as u64);
    into.extend_from_slice(b":0000000");
    let start = into.len() - DIGITS;
    write_digits(&mut into[start..], key);
}

fn write_digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A SET up to its value, or a GET.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    /// Where the digits of the key are in it.
    digits: usize,
}

impl Request {
    /// Of values of a size; as an array of RESP, or inline.
    pub(super) fn new(operation: &Operation, size: usize, resp: bool) -> Self {
        let mut key = Vec::new();
        write_key(&mut key, size, 0);
        let length = key.len();
        let (before, after) = match (operation, resp) {
            (Operation::Set, true) => {
                (format!("*3\r\n$3\r\nSET\r\n${length}\r\n"), format!("\r\n${size}\r\n"))
            }
            (Operation::Set, false) => ("SET ".to_owned(), " ".to_owned()),
            (_, true) => (format!("*2\r\n$3\r\nGET\r\n${length}\r\n"), "\r\n".to_owned()),
            (_, false) => ("GET ".to_owned(), "\r\n".to_owned()),
        };
        let bytes = [before.as_bytes(), &key, after.as_bytes()].concat();
        Self { bytes, digits: before.len() + length - DIGITS }
    }

    /// Writes the one for a key.
    #[inline]
    pub(super) fn write(&self, into: &mut Vec<u8>, key: u64) {
        let start = into.len() + self.digits;
        into.extend_from_slice(&self.bytes);
        write_digits(&mut into[start..start + DIGITS], key);
    }
}

/// Which piece of the text is the value of a key.
pub(super) fn piece(key: u64) -> u64 {
    key.wrapping_mul(7_919)
}

fn write_number(into: &mut Vec<u8>, mut number: u64) {
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
    fn requests_differ_in_the_digits_of_their_key() {
        for (operation, size, resp, key, expected) in [
            (Operation::Get, 3, true, 0, "*2\r\n$3\r\nGET\r\n$15\r\nbench:3:0000000\r\n"),
            (Operation::Get, 64, false, 9, "GET bench:64:0000009\r\n"),
            (
                Operation::Set,
                1_024,
                true,
                999_999,
                "*3\r\n$3\r\nSET\r\n$18\r\nbench:1024:0999999\r\n$1024\r\n",
            ),
            (Operation::Set, 10, false, 10, "SET bench:10:0000010 "),
        ] {
            let mut written = Vec::new();
            Request::new(&operation, size, resp).write(&mut written, key);
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }
}
