//! The flags.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use corelane::MinimumRate;
use corelane::http1::files::Files;
use corelane::http1::{Config, Limits, Timeouts};

use crate::common::ServerOptions;

/// A demonstration service: HTTP/1.1 with a bit of everything that services do.
#[derive(Parser)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    /// Directory to serve below /files/ [default: none].
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Let /fast take so long.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    fast_delay: u64,
    /// Allocations of /alloc that each reactor keeps; the oldest makes room.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) alloc_keep: usize,
    /// Print one of so many requests to standard error; 0: none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    log_every: u32,
    /// Go on serving for so long after the signal, while /readyz says 503.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    grace: u64,
    /// Time for the head of a request, from its first byte on (408).
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    head_deadline: u64,
    /// How fast a body must come, on average since its head (408).
    #[arg(long, value_name = "BYTES/S", default_value_t = 240)]
    body_rate: u32,
    /// How long after its head a body is first held to that.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    body_grace: u64,
    /// The largest request line with headers (431).
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().head)]
    max_head: usize,
    /// The most headers (431).
    #[arg(long, value_name = "N", default_value_t = Limits::default().headers)]
    max_headers: usize,
    /// The longest target (414).
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().target)]
    max_target: usize,
    /// The largest body (413).
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    max_body: u64,
    /// The largest extensions of all chunks of a body together (400).
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().chunk_extension)]
    max_chunk_extension: usize,
    /// How much of a body is read and dropped if the reply is ready before it; where more is left the connection
    /// closes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().discard)]
    max_discard: u64,
    /// Requests of a connection that may wait for their replies at a time; others stay unread.
    #[arg(long, value_name = "N", default_value_t = Limits::default().pipeline)]
    pipeline: usize,
    /// How much may wait of replies whose turn has not come; above it no further request is read.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().held)]
    max_held: usize,
    /// Requests of a connection, before it is closed.
    #[arg(long, value_name = "N", default_value_t = Limits::default().requests)]
    max_requests: u32,
}

/// What stands for "never": the longest deadline there is.
const NEVER: Duration = Duration::from_secs(24 * 86_400);

impl Options {
    /// The settings of the protocol.
    pub(crate) fn http(&self) -> Config {
        Config {
            limits: Limits {
                head: self.max_head,
                headers: self.max_headers,
                target: self.max_target,
                body: self.max_body,
                chunk_extension: self.max_chunk_extension,
                pipeline: self.pipeline,
                held: self.max_held,
                requests: self.max_requests,
                discard: self.max_discard,
            },
            timeouts: Timeouts {
                head: Duration::from_secs(self.head_deadline),
                body: MinimumRate {
                    bytes_per_second: self.body_rate,
                    grace: Duration::from_secs(self.body_grace),
                },
                keep_alive: self.server.idle().unwrap_or(NEVER),
                write_stall: self.server.stall().unwrap_or(NEVER),
            },
            log_every: self.log_every,
            ..Config::default()
        }
    }

    /// What a connection may leave unread must hold a head, and a part of what follows it.
    pub(crate) fn input_cap(&self) -> usize {
        (2 * self.max_head).max(1 << 20)
    }

    pub(crate) fn files(&self) -> io::Result<Option<Files>> {
        let Some(path) = &self.files else { return Ok(None) };
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("--files {}: {error}", path.display()));
        Files::new(path).map(Some).map_err(named)
    }

    pub(crate) fn fast_delay(&self) -> Option<Duration> {
        (self.fast_delay > 0).then(|| Duration::from_millis(self.fast_delay))
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }
}
