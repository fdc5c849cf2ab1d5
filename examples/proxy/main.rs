//! A TCP and Unix proxy: it carries each connection to one of several upstreams, byte for byte.
//!
//! ```text
//! cargo run --release --example proxy -- --listen 127.0.0.1:7000 \
//!     --upstream 127.0.0.1:7001 --upstream unix:/run/service.sock --balance least-connections
//! ```
//!
//! Each direction flows as fast as its receiver reads. Ends and resets are passed on. An upstream that
//! refuses, or does not answer in time, is passed over for the next. SIGUSR1 prints the counters; SIGTERM
//! lets transfers finish.

#[path = "../common/mod.rs"]
mod common;
mod handler;
mod upstreams;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use corelane::{Address, Backpressure};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

use handler::Proxy;
use upstreams::{Balance, Upstreams};

/// A TCP and Unix proxy to one or several upstreams.
///
/// SIGUSR1 prints counters for each upstream. SIGTERM or SIGINT stops accepting, lets transfers finish,
/// prints what was done and exits with 0; a second one cuts them off.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    server: common::ServerOptions,
    /// Where connections are carried to, repeatable: IPV4:PORT, [IPV6]:PORT, unix:/path or unix:@name.
    #[arg(long = "upstream", value_name = "ADDR", required = true)]
    upstreams: Vec<Address>,
    /// Which upstream gets the next connection.
    #[arg(long, value_enum, default_value = "round-robin")]
    balance: Balance,
    /// Pass an upstream over that has not answered after so many milliseconds; 0: wait as long as the
    /// kernel does.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2_000)]
    dial_timeout: u64,
    /// At the end, cut off what has not finished after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    /// At the end, close connections that have been quiet for so many seconds: they may wait for nothing.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    drain_idle: u64,
}

/// Prints the counters whenever SIGUSR1 comes, beside the reactors, which go on.
fn print_at_signal(upstreams: Arc<Upstreams>) -> io::Result<()> {
    let mut signals = Signals::new([SIGUSR1])?;
    let print = move || {
        for _ in signals.forever() {
            let mut out = io::stdout();
            let _ = write!(out, "{upstreams}").and_then(|()| out.flush());
        }
    };
    thread::Builder::new().name("proxy-counters".into()).spawn(print).map(drop)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let upstreams = Arc::new(Upstreams::new(options.upstreams, options.balance));
    if let Err(error) = print_at_signal(Arc::clone(&upstreams)) {
        eprintln!("cannot wait for SIGUSR1: {error}");
        return ExitCode::FAILURE;
    }
    let server = options
        .server
        .server()
        // The handler sees to it: what one side does not take holds up the other.
        .backpressure(Backpressure::Manual)
        .drain_deadline(Duration::from_secs(options.drain));
    let dial_timeout = Duration::from_millis(options.dial_timeout);
    let drain_idle = Duration::from_secs(options.drain_idle.max(1));
    common::serve(server, move |_| Proxy::new(Arc::clone(&upstreams), dial_timeout, drain_idle))
}
