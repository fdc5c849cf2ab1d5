//! The commands that load a target as a plan says: `run`, and those that run again and again.
//!
//! Each reads its flags, has the engine run, and makes a result of what that counted; `output` writes it. Called by
//! `main`; `compare` judges, corrects and looks at servers as they do.

pub(crate) mod added_latency;
pub(crate) mod correction;
pub(crate) mod find_max;
pub(crate) mod probe;
pub(crate) mod run;
pub(crate) mod self_test;
mod session;
pub(crate) mod sweep;
mod uring;
pub(crate) mod verdict;
mod watch;
