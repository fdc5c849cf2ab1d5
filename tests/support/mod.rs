//! What the tests share: a scripted handler, clients that never wait for ever, random data, and looks at the
//! process.
#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]

mod allocations;
#[cfg(feature = "http1")]
pub(crate) mod cases;
pub(crate) mod chat;
mod child;
mod client;
mod example;
#[cfg(feature = "http1")]
pub(crate) mod http;
mod logs;
mod process;
mod programs;
mod random;
pub(crate) mod redis;
mod script;
mod server;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use allocations::{CountingAllocator, allocated_bytes, allocations_of, count_this_thread};
pub(crate) use child::{Child, alone, answer_questions, is_child, run_child};
pub(crate) use client::{Client, End, wait_for_nobody_at};
pub(crate) use example::Example;
pub(crate) use logs::Logs;
pub(crate) use process::{TempDir, descriptors, resident, resident_of, thread_ids};
pub(crate) use programs::installed;
pub(crate) use random::Random;
pub(crate) use script::{Event, Job, Report, Script, Scripted, Seen};
pub(crate) use server::{TestServer, join_in_time};

/// No wait is longer than this, however loaded the machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}
