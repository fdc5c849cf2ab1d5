//! What a user builds: configuration, validation, start, balance, shutdown, the report at the end.
//!
//! Called by users. It makes the sockets, the threads and the reactors, and afterwards only waits.

mod config;
mod error;
mod launch;
mod report;
mod running;
mod signals;
#[cfg(feature = "sim")]
mod simulated;

pub use config::{
    Balance, Deadlines, MinimumRate, PanicPolicy, Pinning, Polling, Server, SlowConsumer, Watermarks,
};
pub use error::{ConfigError, StartError};
pub use launch::Start;
pub use report::{PanicReport, ReactorFailure, Report};
pub use running::{Listening, Running};
#[cfg(feature = "sim")]
pub(crate) use simulated::Simulated;
