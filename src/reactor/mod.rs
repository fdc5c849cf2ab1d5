//! One event loop: the turn, accept, read, write, ready list, mailbox, timers, reap.
//!
//! Called by `server`, which makes one reactor per core, and through [`Io`] by `handler`, whose `Core` and
//! `Conn` are views of it. It knows nothing of handlers: what it has to tell, it tells [`Callbacks`].
//!
//! | file | what is in it |
//! |---|---|
//! | `turn` | the order of things: poll, events, ready list, mailbox, timers, flush, reap, publish |
//! | `io` | the state that callbacks may touch while the turn goes on |
//! | `output` | writing: gather, flush, watermarks, receipts |
//! | `input` | reading: deliver, keep what was not consumed, end of stream |
//! | `accept`, `placement` | new connections, and which reactor gets them |
//! | `dialing` | connections that we open |
//! | `closing` | the ways a connection ends, deadlines, reaping |
//! | `drain` | the end of the reactor |
//! | `mailbox`, `command` | what other threads ask for |

mod accept;
mod callbacks;
mod closing;
mod command;
mod counters;
mod dialing;
mod drain;
mod input;
mod io;
mod mailbox;
mod output;
mod placement;
mod settings;
mod turn;

pub(crate) use callbacks::{Callbacks, Offer, Outcome, Then};
pub(crate) use command::Command;
pub(crate) use counters::Published;
pub use counters::Snapshot;
pub use dialing::{ConnectError, ConnectProblem};
pub(crate) use drain::{Control, Joint, Share, Stop};
pub(crate) use io::{Io, panic_message};
pub(crate) use mailbox::{Mailbox, Rejected};
pub(crate) use output::Payload;
pub(crate) use placement::Policy;
pub use settings::Backpressure;
pub(crate) use settings::Settings;
pub(crate) use turn::{Parts, Reactor};
