//! The echo service on monoio, whatever driver it has.

use std::convert::Infallible;
use std::{io, net};

use corelane_peers::ACCEPT_RETRY;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

/// A connection's buffer. Only as much of it as a read fills is ever touched.
const BUFFER: usize = 64 * 1024;

/// Accepts connections for ever, each served by a task of its own.
///
/// # Errors
///
/// If the runtime cannot take the listener.
pub async fn serve(listener: net::TcpListener) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A failed connection concerns its client only.
                drop(monoio::spawn(echo(stream)));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => monoio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (read, bytes) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let (written, bytes) = stream.write_all(bytes).await;
        written?;
        buffer = bytes;
        buffer.clear();
    }
}
