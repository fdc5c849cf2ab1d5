//! A cache that speaks redis's protocol: strings with expiry, and publish and subscribe.
//!
//! ```text
//! cargo run --release --example redis -- --listen 127.0.0.1:6379
//! redis-cli set greeting hello ex 60
//! redis-benchmark -t set,get -P 16
//! ```
//!
//! Each key belongs to one reactor, which its hash names; nothing is locked. A request for a key of another
//! reactor goes there as a message and its answer comes back as one, and replies leave in the order of the
//! requests, whoever made them. Requests with many keys are carried out by their owners one by one: a reader
//! may see some of an MSET before the rest.
//!
//! Its commands answer as redis-server 7.0 does. What differs:
//!
//! - A request has at most 1,048,576 words, where redis takes 2,147,483,647. A value is at most as large as a
//!   request (`--max-request`, which CONFIG GET tells as `proto-max-bulk-len`). A connection has at most 16,384
//!   channels with names of 1 MiB in all, and a name of 1,024 bytes.
//! - MGET, KEYS and COMMAND INFO answer with an error where the reply would be larger than `--max-output`.
//! - SET has EX, PX, NX and XX. There are no passwords: HELLO has AUTH for the user `default` alone.
//! - COMMAND tells a command's name, arity, keys and whether it needs memory, and has no docs. CONFIG GET knows
//!   what benchmarks ask for. HELLO tells a name and a version of its own.

#[path = "../common/mod.rs"]
mod common;

mod channels;
mod commands;
mod introduction;
mod mail;
mod protocol;
mod reply;
mod service;
mod session;
mod store;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use commands::Limits;
use corelane::Watermarks;
use rapidhash::quality::RandomState;
use service::{Service, Settings};

/// Of payloads that are written through a mailbox; messages do not count, and are all we send.
const MAILBOX_BYTES: usize = 1 << 20;
/// How often keys that have expired are looked for.
const SWEEP: Duration = Duration::from_millis(100);

/// A cache for redis's clients, its keys spread over all cores.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    server: common::ServerOptions,
    /// Bytes that keys and values may take; each reactor has an equal share of it.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    max_memory: usize,
    /// The largest request, all its arguments together, and the largest value.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1024..=512 << 20))]
    max_request: u64,
    /// The most bytes that may wait for one client, but for one value: a larger reply is refused, and who
    /// leaves more messages untaken is cut off.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20)]
    max_output: usize,
    /// Messages that may wait for one reactor; who finds no room tries again, and reads no more meanwhile.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    mailbox: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let max_request = options.max_request as usize;
    let marks = Watermarks::default();
    // A value is written whole, behind what the high mark lets wait.
    let cap = options.max_output.max(max_request + 2 * marks.high);
    let settings = Settings {
        max_memory: options.max_memory,
        max_request,
        max_output: options.max_output,
        limits: Limits { value: max_request, reply: cap },
        idle: options.server.idle(),
        hasher: RandomState::new(),
        started: Instant::now(),
    };
    let server = options
        .server
        .server()
        .watermarks(Watermarks { cap, ..marks })
        // A request is served when it has come in full; behind it there may be the start of the next.
        .input_cap(max_request + 128 * 1024)
        .mailbox(options.mailbox, MAILBOX_BYTES)
        .tick(SWEEP);
    common::serve(server, move |start| Service::new(settings.clone(), start))
}
