//! Echo server on glommio, thread per core.

use std::convert::Infallible;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::{io, net};

use corelane_peers::{ACCEPT_RETRY, Peer};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

/// A connection's buffer. Only as much of it as a read fills is ever touched.
const BUFFER: usize = 64 * 1024;

fn main() -> ! {
    let about = "TCP echo server on glommio, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(setup, run)
}

fn setup(listener: net::TcpListener) -> io::Result<(LocalExecutor, net::TcpListener)> {
    Ok((LocalExecutorBuilder::new(Placement::Unbound).make()?, listener))
}

fn run((executor, listener): (LocalExecutor, net::TcpListener)) -> io::Result<Infallible> {
    executor.run(serve(listener))
}

async fn serve(listener: net::TcpListener) -> io::Result<Infallible> {
    // SAFETY: the descriptor is a listener's, and has just been given up by its owner.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    loop {
        match listener.accept().await {
            Ok(stream) => {
                // A failed connection concerns its client only.
                drop(glommio::spawn_local(echo(stream)).detach());
            }
            Err(error) => {
                if io::Error::from(error).kind() != io::ErrorKind::ConnectionAborted {
                    glommio::timer::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}
