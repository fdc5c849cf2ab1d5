//! HTTP/1.1 for servers, without an async runtime: a layer on [`Handler`](crate::Handler), for users of the library.
//!
//! A [`Service`] gets requests and answers them. [`Config::build`] makes a [`Protocol`], and that the handler of each
//! reactor:
//!
//! ```no_run
//! use corelane::http1::{Config, Exchange, Request, Service, StatusCode};
//!
//! struct Hello;
//!
//! impl Service for Hello {
//!     type State = ();
//!     type Message = ();
//!
//!     fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, ()>) {
//!         let _ = match request.path() {
//!             "/" => exchange.reply(StatusCode::OK).header("content-type", "text/plain").send(b"hello\n"),
//!             _ => exchange.reply(StatusCode::NOT_FOUND).send(b""),
//!         };
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let http = Config::default().build()?;
//! let handlers = http.clone();
//! let server = http.server().listen("127.0.0.1:8080").handle_signals().start(move |_| handlers.handler(Hello))?;
//! println!("{}\n{} requests", server.join(), http.total().requests);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Request`] is a view of the input; nothing of it is copied or allocated. What cannot be answered at once is
//! answered later: keep the [`Responder`], which any thread may have, and find the exchange again with
//! [`Context::exchange`] in `on_message` or `on_timer`, or with [`Exchange::other`] in the callback of another one.
//! Replies leave in the order of their requests, whatever the order in which they are made; up to
//! [`Limits::pipeline`] requests of a connection wait at a time.
//!
//! Types of the crate `http` convert where the layer meets other code: a [`Request`] into its `Method`, `Uri`, `Request`,
//! its [`Headers`] into a `HeaderMap`, and [`Reply::header_map`] takes one.
//!
//! # Bodies
//!
//! | direction | how |
//! |---|---|
//! | request | [`Service::on_body`], part by part, then [`Service::on_body_end`] with the trailers; [`Exchange::pause_body`] holds the peer up |
//! | reply, at once | [`Reply::send`], [`Reply::send_shared`] |
//! | reply, in parts | [`Reply::stream`], then [`Exchange::write`] until [`Written::High`](crate::Written::High), on in [`Service::on_drained`], last [`Exchange::end`] |
//! | reply, from a file | [`Reply::stream`] with its length, then [`Exchange::write_by`] |
//!
//! [`Limits::body`] holds for all requests; [`Exchange::limit_body`] allows one of them less.
//!
//! A client that sends `Expect: 100-continue` is asked for the body when the callback that had the request returns
//! without a reply and without [`Exchange::pause_body`], or when the body is resumed; never if it was answered before.
//!
//! # What is refused
//!
//! Whatever two implementations could understand differently gets a 4xx or 5xx and the connection closes; [`Problem`]
//! lists it. In particular: `Content-Length` with `Transfer-Encoding`, twice, as a list, or as anything but digits;
//! codings other than `chunked` alone, and any of them in version 1.0; lines that do not end with CR LF, folded lines,
//! white space before a colon, control characters; chunks whose size is malformed or does not fit; no `Host`, two, an
//! invalid one, or another one than the target's; targets whose form is not for their method.
//!
//! # Other protocols
//!
//! [`Reply::upgrade`] makes a connection the service's own, with all that the client has sent behind the request:
//! see [`Service::on_upgraded_data`].
//!
//! # Shutdown
//!
//! Exchanges under way finish; the last reply of a connection says `Connection: close`. Connections without one close at
//! once.

mod access;
mod body;
mod config;
mod connection;
mod convert;
mod counters;
mod date;
mod encode;
mod exchange;
pub mod files;
#[cfg(any(test, fuzzing))]
#[allow(
    unreachable_pub,
    missing_docs,
    reason = "public for the fuzzer alone, which builds with cfg(fuzzing)"
)]
pub mod fuzz;
mod handler;
mod head;
mod layer;
mod line;
mod problem;
mod receive;
mod refusal;
mod reply;
mod request;
mod service;
mod target;
mod trailers;
mod upgrade;
mod watch;

pub use access::Access;
pub use config::{Config, ConfigError, Limits, MOST_HEADERS, Protocol, Timeouts};
pub use counters::{CountersSnapshot, LATENCY_BUCKETS};
pub use encode::Fields;
pub use exchange::{Context, Exchange, ReplyError, Responder};
pub use handler::{Http, Session};
pub use http::StatusCode;
pub use problem::Problem;
pub use reply::{Length, Reply};
pub use request::{Headers, Method, Request, Version};
pub use service::Service;
pub use upgrade::Upgraded;
