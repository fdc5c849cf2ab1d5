//! Protocols whose replies are known to the byte when the request is sent: echo, frames, redis.

use super::{Cursor, Material, Purpose, Wrong, redis};
use crate::plan::{Dialect, Entry, Operation, Plan};

/// What stands around the body of a request is no longer: a command, a key, lengths.
const LONGEST_FRAME: usize = 128;

/// The id in front of a request of the frames protocol.
const ID: usize = 8;

/// The length that is announced in a frame which never ends.
const ENDLESS_FRAME: u32 = 65_536;

/// A message behind its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) body: &'static [u8],
    pub(super) tail: &'static [u8],
    /// Bytes that the place in the pattern moves on.
    pub(super) advance: usize,
}

impl Parts {
    const fn of(body: &'static [u8], tail: &'static [u8]) -> Self {
        Self { body, tail, advance: 0 }
    }

    /// Compares what came, of which `got` bytes came before, and takes it from `input`. Whether all has come.
    #[inline]
    pub(super) fn compare(&self, head: &[u8], got: &mut usize, input: &mut &[u8]) -> Result<bool, Wrong> {
        let mut start = 0;
        for part in [head, self.body, self.tail] {
            let end = start + part.len();
            if *got < end {
                let expected = &part[*got - start..];
                let length = expected.len().min(input.len());
                let (received, rest) = input.split_at(length);
                if expected[..length] != *received {
                    return Err(difference(expected, input, *got));
                }
                *input = rest;
                *got += length;
                if *got < end {
                    return Ok(false);
                }
            }
            start = end;
        }
        Ok(true)
    }
}

#[cold]
fn difference(expected: &[u8], received: &[u8], got: usize) -> Wrong {
    let differs = expected.iter().zip(received).position(|(one, other)| one != other).unwrap_or_default();
    Wrong::byte(got + differs, &expected[differs..], &received[differs..])
}

/// One of these protocols.
#[derive(Debug)]
pub(super) struct Exact {
    dialect: Dialect,
    entries: Vec<Entry>,
    material: Material,
    /// Of redis, for each of the entries.
    commands: Vec<Command>,
    keys: u32,
    seed: u64,
}

/// What never changes of a SET or a GET of redis.
#[derive(Debug)]
struct Command {
    request: redis::Request,
    /// What stands before a value that is got.
    length: Vec<u8>,
}

impl Exact {
    pub(super) fn new(plan: &Plan, material: Material) -> Self {
        let (dialect, entries) = (plan.target.dialect, plan.mix.clone());
        let command = |entry: &Entry| Command {
            request: redis::Request::new(&entry.operation, entry.size, plan.resp),
            length: format!("${}\r\n", entry.size).into_bytes(),
        };
        let commands = entries.iter().map(command).collect();
        Self { dialect, entries, material, commands, keys: plan.keys, seed: plan.seed }
    }

    /// What is asked for: only redis knows more than one thing.
    fn operation(&self, entry: u16, purpose: Purpose) -> (&Operation, usize) {
        let Entry { operation, size, .. } = &self.entries[usize::from(entry)];
        match purpose {
            // Its keys may not be there yet.
            Purpose::Proof if self.dialect == Dialect::Redis => (&Operation::Ping, 0),
            _ => (operation, *size),
        }
    }

    /// Puts the head of a request together; the rest of it is returned.
    #[inline]
    pub(super) fn request(&self, entry: u16, purpose: Purpose, said: &Cursor, head: &mut Vec<u8>) -> Parts {
        let (operation, size) = self.operation(entry, purpose);
        let text = self.material.text;
        head.clear();
        match (self.dialect, operation) {
            (Dialect::Frames, _) => {
                head.extend_from_slice(&((ID + size) as u32).to_be_bytes());
                head.extend_from_slice(&frame_id(said));
                Parts::of(text.piece(frame_piece(said), size), b"")
            }
            (Dialect::Redis, Operation::Set) => {
                let key = self.key(said);
                self.commands[usize::from(entry)].request.write(head, key);
                Parts::of(text.piece(redis::piece(key), size), b"\r\n")
            }
            (Dialect::Redis, Operation::Get) => {
                self.commands[usize::from(entry)].request.write(head, self.key(said));
                Parts::of(b"", b"")
            }
            (Dialect::Redis, _) => Parts::of(b"PING\r\n", b""),
            (Dialect::Echo | Dialect::Http, _) => {
                Parts { body: self.material.pattern.bytes(said.place, size), tail: b"", advance: size }
            }
        }
    }

    /// Puts the head of the reply together that is due; the rest of it is returned.
    #[inline]
    pub(super) fn reply(&self, entry: u16, purpose: Purpose, heard: &Cursor, head: &mut Vec<u8>) -> Parts {
        let (operation, size) = self.operation(entry, purpose);
        let text = self.material.text;
        head.clear();
        match (self.dialect, operation) {
            (Dialect::Frames, _) => {
                head.extend_from_slice(&((1 + ID + size) as u32).to_be_bytes());
                head.push(0);
                head.extend_from_slice(&frame_id(heard));
                Parts::of(text.reversed(frame_piece(heard), size), b"")
            }
            (Dialect::Redis, Operation::Set) => Parts::of(b"+OK\r\n", b""),
            (Dialect::Redis, Operation::Get) => {
                head.extend_from_slice(&self.commands[usize::from(entry)].length);
                Parts::of(text.piece(redis::piece(self.key(heard)), size), b"\r\n")
            }
            (Dialect::Redis, _) => Parts::of(b"+PONG\r\n", b""),
            (Dialect::Echo | Dialect::Http, _) => {
                Parts { body: self.material.pattern.bytes(heard.place, size), tail: b"", advance: size }
            }
        }
    }

    fn key(&self, cursor: &Cursor) -> u64 {
        // The entry was drawn by the same dice; the key must not follow from it.
        (cursor.dice(!self.seed) >> 16) % u64::from(self.keys)
    }

    pub(super) fn longest_request(&self) -> usize {
        let largest = self.entries.iter().map(|entry| entry.size).max().unwrap_or_default();
        match self.dialect {
            Dialect::Echo => largest,
            _ => largest + LONGEST_FRAME,
        }
    }

    pub(super) fn endless(&self) -> (Vec<u8>, u8) {
        match self.dialect {
            Dialect::Frames => (ENDLESS_FRAME.to_be_bytes().to_vec(), b'x'),
            Dialect::Redis => (b"SET endless ".to_vec(), b'x'),
            Dialect::Echo | Dialect::Http => (Vec::new(), b'x'),
        }
    }
}

fn frame_id(cursor: &Cursor) -> [u8; ID] {
    (cursor.connection << 32 ^ cursor.count).to_be_bytes()
}

fn frame_piece(cursor: &Cursor) -> u64 {
    cursor.connection.wrapping_mul(7_919).wrapping_add(cursor.count.wrapping_mul(131))
}
