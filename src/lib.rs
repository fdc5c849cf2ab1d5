//! corelane is a thread-per-core event-loop server runtime. Each core runs one reactor: its own poller, its
//! own listener on the shared port, its own connections, its own handler. Nothing on the path of a byte is
//! shared between cores, locked, or allocated.
//!
//! A whole server:
//!
//! ```no_run
//! use corelane::{Conn, Flow, Handler, Input, Open, Server, StartError};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Session = ();
//!     type Message = ();
//!
//!     fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
//!         Open::Accept(())
//!     }
//!
//!     fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
//!         conn.write(input.take_all());
//!         Flow::Continue
//!     }
//! }
//!
//! fn main() -> Result<(), StartError> {
//!     let server = Server::new().listen("127.0.0.1:7000").handle_signals().start(|_| Echo)?;
//!     println!("{}", server.join());
//!     Ok(())
//! }
//! ```
//!
//! [`guide`] explains the concepts, the order of callbacks, backpressure, deadlines, threads, shutdown and
//! testing, and has a table for those who come from gnet or evio.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `codec` (on by default) | module `codec`: framing by length, delimiter, line, size, or a rule of your own |
//! | `http1` | module `http1`: HTTP/1.1 servers |
//! | `sim` | module `sim`: a seeded, deterministic imitation of the kernel to test handlers with |
//! | `bytes` | [`Input`] is a `bytes::Buf` |
//!
//! Linux is first; macOS and the BSDs compile and are type-checked. 64-bit targets only.

mod buffer;
#[cfg(feature = "codec")]
pub mod codec;
mod connection;
mod driver;
pub mod guide;
mod handler;
#[cfg(feature = "http1")]
pub mod http1;
mod net;
mod process;
mod reactor;
mod server;
#[cfg(feature = "sim")]
pub mod sim;
mod time;

/// Fuzz targets.
#[cfg(fuzzing)]
pub mod fuzz {
    #[cfg(feature = "codec")]
    pub use crate::codec::fuzz::framing;
    pub use crate::connection::fuzz::{deadlines, inbox, outbox, slots_and_wheel};
    #[cfg(all(feature = "http1", feature = "sim"))]
    pub use crate::http1::fuzz::http1_connection;
    #[cfg(feature = "http1")]
    pub use crate::http1::fuzz::{http1_chunks, http1_head};
}

pub use buffer::{FileSlice, Shared};
pub use connection::{CloseReason, ConnId, Delivery, Flow, Peer, Receipt, Written};
pub use handler::{Conn, Core, Handle, Handler, Input, Open, Origin, Relay, SendError, Sessions};
pub use net::{Address, AddressError, Dial, Keepalive, SocketOptions};
pub use process::FileLimit;
pub use reactor::{Backpressure, ConnectError, ConnectProblem, Snapshot};
pub use server::{
    Balance, ConfigError, Deadlines, Listening, MinimumRate, PanicPolicy, PanicReport, Pinning, Polling,
    ReactorFailure, Report, Running, Server, SlowConsumer, Start, StartError, Watermarks,
};
pub use time::TimerId;
