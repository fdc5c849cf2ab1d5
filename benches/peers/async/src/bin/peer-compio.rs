//! Echo server on compio and io_uring, thread per core.

use std::convert::Infallible;
use std::{io, net};

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::Runtime;
use corelane_peers::{ACCEPT_RETRY, Peer};

/// A connection's buffer. Only as much of it as a read fills is ever touched.
const BUFFER: usize = 64 * 1024;

fn main() -> ! {
    let about = "TCP echo server on compio and io_uring, thread per core";
    Peer::with_listener_per_thread(env!("CARGO_BIN_NAME"), about).serve_per_thread(setup, run)
}

fn setup(listener: net::TcpListener) -> io::Result<(Runtime, net::TcpListener)> {
    let mut driver = ProactorBuilder::new();
    driver.coop_taskrun(true).taskrun_flag(true);
    Ok((Runtime::builder().with_proactor(driver).build()?, listener))
}

fn run((runtime, listener): (Runtime, net::TcpListener)) -> io::Result<Infallible> {
    runtime.block_on(serve(listener))
}

async fn serve(listener: net::TcpListener) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A failed connection concerns its client only.
                compio::runtime::spawn(echo(stream)).detach();
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => compio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let BufResult(read, bytes) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let BufResult(written, bytes) = stream.write_all(bytes).await;
        written?;
        buffer = bytes;
        buffer.clear();
    }
}
