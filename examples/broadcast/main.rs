//! A price feed: publishers send lines `SYMBOL VALUE..`, and every subscriber gets each of them.
//!
//! ```text
//! cargo run --release --example broadcast -- --listen 127.0.0.1:7000 --publish 127.0.0.1:7001
//! nc 127.0.0.1 7000                                   # a subscriber, or as many as you like
//! echo "EURUSD 1.0842" | nc -N 127.0.0.1 7001         # a publisher
//! ```
//!
//! Whoever subscribes gets the latest line of each symbol first, and then every line as it comes: the lines of
//! a symbol in their order. A subscriber that takes its lines too slowly holds up nobody: either it misses
//! lines and gets the latest of each symbol when it has caught up (`--slow conflate`), or it is cut off
//! (`--slow close`). Where two publishers send the same symbol at once, the newer line wins everywhere.

#[path = "../common/mod.rs"]
mod common;

mod board;
mod feed;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use corelane::{Address, Server, SocketOptions, Watermarks};

use board::Registry;
use feed::{Feed, Settings};

/// The size of a reactor's read buffer, and so about the most that a batch holds beside one line.
const READ_BUFFER: usize = 64 * 1024;

/// A price feed: many subscribers get what a few publishers send, line by line.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    server: common::ServerOptions,
    /// Address to take publishers at, repeatable, as for --listen, which is where subscribers go.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001")]
    publish: Vec<Address>,
    /// What becomes of a subscriber for which more than --backlog waits.
    #[arg(long, value_enum, default_value = "conflate")]
    slow: Slow,
    /// Bytes that may wait for a subscriber, beside those in the kernel.
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024, value_parser = bytes)]
    backlog: usize,
    /// Bytes that the kernel keeps for a subscriber: what is there is not conflated any more
    /// [default: the kernel's choice].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    send_buffer: Option<usize>,
    /// The longest line.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = bytes)]
    max_line: usize,
    /// The most symbols; a publisher that sends another is closed.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = bytes)]
    symbols: usize,
    /// Batches of lines, of 64 KiB at most, that may wait for a reactor; beyond, publishers wait.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = bytes)]
    mailbox: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Slow {
    /// It misses lines, and gets the latest of each symbol when it has taken what waits.
    Conflate,
    /// It is cut off.
    Close,
}

/// 1 to 64 Mi, so that sums of a few cannot overflow.
fn bytes(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().map_err(|error| error.to_string())?;
    if (1..=64 << 20).contains(&number) { Ok(number) } else { Err("not within 1 to 67108864".into()) }
}

fn server(options: &Options) -> Server {
    // What one batch may come to, and so one write.
    let batch = 2 * (READ_BUFFER + options.max_line);
    let watermarks = match options.slow {
        // Nothing is written above the high mark, so no more than a batch comes on top of it.
        Slow::Conflate => {
            Watermarks { high: options.backlog, low: options.backlog / 4, cap: options.backlog + batch }
        }
        Slow::Close => {
            let cap = options.backlog.max(batch);
            let high = cap.min(READ_BUFFER);
            Watermarks { high, low: high / 4, cap }
        }
    };
    let server = options
        .server
        .server()
        .watermarks(watermarks)
        .read_buffer(READ_BUFFER)
        .input_cap(batch)
        .mailbox(options.mailbox.min(1 << 20), 1 << 30)
        .socket_options(SocketOptions { send_buffer: options.send_buffer, ..SocketOptions::default() })
        .tick(Duration::from_secs(1));
    options.publish.iter().cloned().fold(server, Server::listen)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let first_publisher = options.server.listen.len();
    let settings =
        Settings { first_publisher, max_line: options.max_line, conflates: options.slow == Slow::Conflate };
    let registry = Arc::new(Registry::new(options.symbols));
    let label = move |address| if address < first_publisher { "listening on" } else { "publish on" };
    common::serve_as(server(&options), label, move |start| Feed::new(settings, start, Arc::clone(&registry)))
}
