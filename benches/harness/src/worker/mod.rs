//! Processes of this program that share the work of one run, and the one that coordinates them.
//!
//! A run that needs more descriptors than one process may have starts this program again, as servers
//! (`echo-server --worker`) and as clients (`worker`). Each has one channel to the coordinator, a socket pair that
//! is its stdin and stdout, with a JSON document a line: [`Order`] one way, [`Word`] the other. A worker ends with
//! its channel, and the kernel kills it with its coordinator; a worker that dies is seen at the end of its channel.
//! An idle run sends nothing.
//!
//! `stand` coordinates, and [`spread`] for the engine; the hidden commands run what is here.

mod channel;
mod client;
mod crew;
pub(crate) mod spread;
mod words;

pub(crate) use channel::{hear, say};
pub(crate) use client::{Args, run};
pub(crate) use crew::{Crew, Death, News};
pub(crate) use words::{
    Assignment, Blame, Ended, Fault, Listening, Monotonic, Order, Status, Talk, Tally, Word,
};
