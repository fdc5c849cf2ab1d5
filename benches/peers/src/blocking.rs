//! The echo of the peers that have a thread or a coroutine for each connection.
#![allow(clippy::missing_errors_doc, reason = "each returns what the stream says")]

use std::io::{self, Read, Write};

/// A connection's buffer, on the heap.
const BUFFER: usize = 64 * 1024;

/// Echoes until the peer has finished.
pub fn echo(mut stream: impl Read + Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        stream.write_all(&buffer[..read])?;
    }
}
