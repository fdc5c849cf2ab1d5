//! The echo service on tokio, whatever runtime it runs on.

use std::convert::Infallible;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::ACCEPT_RETRY;

/// A connection's buffer. Only as much of it as a read fills is ever touched, so a small one would
/// save nothing where messages are small, and cost system calls where they are large.
const BUFFER: usize = 64 * 1024;

/// Accepts connections for ever, each served by a task of its own.
///
/// # Errors
///
/// None so far: whatever keeps a connection from being accepted is waited out.
pub async fn serve(listener: TcpListener) -> io::Result<Infallible> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // A failed connection concerns its client only.
                    let _ = echo(stream).await;
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    while stream.read_buf(&mut buffer).await? != 0 {
        stream.write_all(&buffer).await?;
        buffer.clear();
    }
    Ok(())
}
