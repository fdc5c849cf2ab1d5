//! The guide: concepts, the order of callbacks, framing, backpressure, deadlines, threads, shutdown, testing. Only
//! documentation; every example in it compiles.
//!
//! # Concepts
//!
//! A [`Server`](crate::Server) is a configuration. Starting it binds every address and starts one
//! **reactor** per core: a thread with a poller, a table of connections and a handler of its own. A
//! connection lives and dies on the reactor that got it, so what belongs to it is never shared and never
//! locked.
//!
//! A [`Handler`](crate::Handler) is your code. A factory makes one on each reactor's thread; it is not
//! `Send`, so `Rc`, `RefCell` and plain fields are all it needs. A connection's own state is its
//! **session**: `on_open` makes it, every callback borrows it, `on_close` gives it back by value.
//!
//! Four views are lent to callbacks:
//!
//! | view | what it is |
//! |---|---|
//! | [`Conn`](crate::Conn) | the connection that the callback is about |
//! | [`Input`](crate::Input) | what has been received and not consumed, in one contiguous piece |
//! | [`Core`](crate::Core) | the reactor: every other connection by id, timers, dialing |
//! | [`Sessions`](crate::Sessions) | the sessions by id, in callbacks that are not about one connection |
//!
//! None of them can be kept. What can is a [`ConnId`](crate::ConnId): it names one connection for ever, on
//! any thread, and goes stale with it. A stale id is answered ([`Written::Closed`](crate::Written::Closed),
//! `None`, `false`), never misdelivered.
//!
//! ```
//! use corelane::{Conn, Flow, Handler, Input, Open};
//!
//! /// Counts lines and answers each with its number.
//! struct Numbers;
//!
//! impl Handler for Numbers {
//!     type Session = u64;
//!     type Message = ();
//!
//!     fn on_open(&mut self, _: &mut Conn<'_>) -> Open<u64> {
//!         Open::Accept(0)
//!     }
//!
//!     fn on_data(&mut self, conn: &mut Conn<'_>, lines: &mut u64, input: &mut Input<'_>) -> Flow {
//!         while let Some(end) = input.peek().iter().position(|&byte| byte == b'\n') {
//!             input.consume(end + 1);
//!             *lines += 1;
//!             conn.write(format!("{lines}\n").as_bytes());
//!         }
//!         Flow::Continue // half a line stays in the input, and comes again with its other half
//!     }
//! }
//! ```
//!
//! The example [`echo`] is the smallest server, with all its flags; what the others show is said below, where it is
//! explained.
//!
//! # The order of callbacks
//!
//! All callbacks of a handler are called on its reactor's thread, one at a time, never from within one
//! another: what a callback does to another connection (a close, a failed write) is told after it returns.
//!
//! 1. `on_start`, once.
//! 2. For each connection:
//!    1. `on_open`. For a dialed connection `on_connect_error` may come instead, and nothing after it. After
//!       [`Open::Refuse`](crate::Open::Refuse) nothing follows.
//!    2. `on_data`, `on_drained`, in any number and order. `on_data` never has an empty input.
//!    3. `on_eof`, at most once, when the peer has ended its side and every byte before it was delivered.
//!    4. `on_drain`, at most once, when the server shuts down.
//!    5. Every receipt that is still open is answered.
//!    6. `on_close`, exactly once. The id is stale by then; the slot is reused at the earliest in the next
//!       turn.
//! 3. `on_message`, `on_timer` and `on_tick` come between them.
//! 4. `on_shutdown`, once, after the listeners have been emptied and closed and before the first `on_drain`.
//!
//! One turn of a reactor: poll; accept, read and write what the events say; connections that used up their
//! budget before; the mailbox; timers; flush what was written to others; ends and freed slots; counters.
//! Each step has a budget, so the worst delay that others can cause is the sum of the budgets: a connection
//! reads at most 256 KiB a turn, 64 connections are accepted, 256 commands and 256 timers served.
//!
//! # Writing
//!
//! A write is taken whole or not at all. Small ones are gathered and leave in one system call when the
//! callback returns; what is written to another connection leaves at the end of the turn. One of 8 KiB or more
//! leaves at once with what was gathered, uncopied. What the kernel does not take waits in the connection's
//! outbox. [`Shared`](crate::Shared) payloads are never copied, however many connections they go to; the first
//! of a turn to another connection leaves at once:
//!
//! ```
//! # use corelane::{ConnId, Core, Shared};
//! fn announce(members: &[ConnId], text: &str, core: &mut Core<'_>) {
//!     let text = Shared::from(text);
//!     for member in members {
//!         core.write_shared(*member, &text);
//!     }
//! }
//! ```
//!
//! A [`Receipt`](crate::Receipt) tells when the kernel has all of a write, or that it never will.
//!
//! The example [`broadcast`] sends one payload to the subscribers of all reactors.
//!
#![cfg_attr(feature = "codec", doc = include_str!("guide/framing.md"))]
#![cfg_attr(feature = "http1", doc = include_str!("guide/http.md"))]
//! # Backpressure
//!
//! Output that waits has three marks ([`Watermarks`](crate::Watermarks)):
//!
//! - Above **high** (64 KiB) writes answer [`Written::High`](crate::Written::High), and by default the
//!   reactor stops reading from that connection: a peer that does not take its replies cannot send
//!   requests either. What the handler left unconsumed is shown again later.
//! - At **low** (16 KiB) `on_drained` is called and reading goes on. A producer writes its next part there.
//! - At the **cap** (4 MiB) a write is refused, and by default the connection is reset as a slow consumer.
//!   [`SlowConsumer::RefuseWrites`](crate::SlowConsumer::RefuseWrites) leaves it to the handler instead.
//!
//! A producer that has more than a few parts ready writes some and goes on in the next turn (a timer of zero, or
//! a message to itself): written until `High`, they hold the reactor for as long as a fast peer keeps up.
//!
//! Where input and output are not of one connection, as in a proxy, set
//! [`Backpressure::Manual`](crate::Backpressure::Manual) and pause the other side:
//!
//! ```
//! # use corelane::{Backpressure, Conn, ConnId, Flow, Handler, Input, Open, Written};
//! # struct Proxy;
//! # impl Handler for Proxy {
//! #     type Session = ConnId;
//! #     type Message = ();
//! #     fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<ConnId> {
//! #         conn.set_backpressure(Backpressure::Manual);
//! #         Open::Accept(conn.id())
//! #     }
//! fn on_data(&mut self, conn: &mut Conn<'_>, other: &mut ConnId, input: &mut Input<'_>) -> Flow {
//!     match conn.core().write(*other, input.take_all()) {
//!         Written::High => conn.pause(),
//!         Written::Closed => return Flow::Close,
//!         Written::Accepted | Written::Refused => {}
//!     }
//!     Flow::Continue
//! }
//!
//! fn on_drained(&mut self, conn: &mut Conn<'_>, other: &mut ConnId) -> Flow {
//!     conn.core().resume(*other);
//!     Flow::Continue
//! }
//! # }
//! ```
//!
//! The example [`proxy`] is this in full; [`broadcast`] conflates what a slow subscriber has missed, and [`chat`]
//! cuts slow members off. [`redis`] goes on with replies that are larger than its clients take at a time.
//!
//! Pausing costs nothing: bytes stay in the kernel and TCP slows the peer down. Input that the handler
//! leaves unconsumed is bounded by [`Server::input_cap`](crate::Server::input_cap).
//!
//! # Deadlines
//!
//! [`Deadlines`](crate::Deadlines) bound how long a peer may keep the server waiting: for the first byte,
//! while idle, while it takes no output, after a close, and for the rest of a message. They are kept to
//! 20 ms and cost a message nothing. Each closes the connection with its own
//! [`CloseReason`](crate::CloseReason). [`Conn::set_idle_deadline`](crate::Conn::set_idle_deadline) changes
//! the idle deadline of one connection: in the example [`redis`], who waits for messages has none.
//!
//! [`Core::set_timer`](crate::Core::set_timer) is for the application's own times, precise and cancellable;
//! [`Server::tick`](crate::Server::tick) for periodic work.
//!
//! ```
//! use std::time::Duration;
//! use corelane::{Deadlines, MinimumRate, Server};
//!
//! let server = Server::new().deadlines(Deadlines {
//!     first_byte: Some(Duration::from_secs(10)),
//!     idle: Some(Duration::from_secs(60)),
//!     write_stall: Some(Duration::from_secs(30)),
//!     minimum_rate: Some(MinimumRate { bytes_per_second: 500, grace: Duration::from_secs(5) }),
//!     ..Deadlines::default()
//! });
//! ```
//!
//! # Threads
//!
//! A callback must return soon. Work that takes longer goes to another thread, which answers through a
//! [`Handle`](crate::Handle): a message to a reactor, or a write to a connection. Handles are cheap to
//! clone. Their mailboxes are bounded; a full one gives the value back at once.
//!
//! ```
//! use std::sync::mpsc;
//! use std::thread;
//! use corelane::{Conn, ConnId, Flow, Handler, Input, Open, Server};
//!
//! /// Hands each request to a worker thread and goes on.
//! struct Offload {
//!     jobs: mpsc::Sender<(ConnId, Vec<u8>)>,
//! }
//!
//! impl Handler for Offload {
//!     type Session = ();
//!     type Message = ();
//!
//!     fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
//!         Open::Accept(())
//!     }
//!
//!     fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
//!         match self.jobs.send((conn.id(), input.take_all().to_vec())) {
//!             Ok(()) => Flow::Continue,
//!             Err(_) => Flow::Close,
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::new().listen("127.0.0.1:0").reactors(2).start(|start| {
//!     let (jobs, work) = mpsc::channel::<(ConnId, Vec<u8>)>();
//!     let handle = start.handle();
//!     thread::spawn(move || {
//!         for (id, request) in work {
//!             let reply = request.to_ascii_uppercase(); // something slow
//!             if handle.write(id, reply).is_err() {
//!                 return; // the server has stopped, or is hopelessly behind
//!             }
//!         }
//!     });
//!     Offload { jobs }
//! })?;
//! server.shutdown();
//! server.join();
//! # Ok(())
//! # }
//! ```
//!
//! Connections of *another* reactor are reached in the same way, with a handle kept from
//! [`Start::handle`](crate::Start::handle).
//!
//! State that connections of several reactors share is given an owner, one reactor, and reached by messages:
//! nothing is locked, and the order in which the owner decides is the order for everybody. The example [`chat`]
//! is about that, and sends through a [`Relay`](crate::Relay), which keeps what a full mailbox has no room for;
//! [`redis`] shards a table in the same way and keeps replies in the order of their requests. A message from a handler to its own reactor is also the way from
//! `on_data` to the sessions of other connections.
//!
//! # Dialing
//!
//! [`Core::connect`](crate::Core::connect) opens a connection from a reactor; the same handler serves it.
//! The id is there at once and may be written to; the outcome comes as `on_open` or `on_connect_error`.
//! [`Conn::origin`](crate::Conn::origin) tells accepted and dialed connections apart. A server without an
//! address is a client. The example [`proxy`] dials one of several upstreams for each client, and the next where
//! that fails.
//!
//! # Shutdown
//!
//! [`Running::shutdown`](crate::Running::shutdown), or SIGTERM with
//! [`Server::handle_signals`](crate::Server::handle_signals):
//!
//! 1. Each reactor accepts what its listeners have queued, then closes them: no client that was let in by
//!    the kernel is reset.
//! 2. `on_shutdown`.
//! 3. For each connection: what has arrived is delivered, then `on_drain` asks whether it may go. By default
//!    it is flushed, half-closed, and closed when the peer has closed. A handler that still owes a reply
//!    returns [`Flow::Continue`](crate::Flow::Continue) and closes the connection when it has sent it. A
//!    reactor that has no connection left goes on with messages, timers and ticks until no other has any:
//!    their handlers may need what it owns.
//! 4. At the [drain deadline](crate::Server::drain_deadline), or at a second signal, what is left is reset.
//! 5. [`Running::join`](crate::Running::join) returns the [`Report`](crate::Report).
//!
//! All examples drain on SIGTERM; [`proxy`] lets transfers finish, and [`broadcast`] lets publishers go first, so that
//! subscribers get what they had sent.
//!
//! # Overload and failure
//!
//! - Running out of descriptors or memory pauses accepting, never serving; accepting goes on by itself.
//! - [`Server::max_connections`](crate::Server::max_connections) and
//!   [`max_connections_per_source`](crate::Server::max_connections_per_source) shed what is too much.
//! - A panic in a callback costs its connection, is counted, logged, and in the report.
//! - Every end has a [`CloseReason`](crate::CloseReason); [`Handle::counters`](crate::Handle::counters) has
//!   them by reason, with everything else a reactor counts.
//!
//! What an application keeps is its own to bound. The example [`redis`] refuses what is beyond its memory, and a
//! reply beyond what may wait for a client; [`chat`] and [`broadcast`] bound lines, rooms and symbols.
//!
//! # Tuning a server
//!
//! | to get | set |
//! |---|---|
//! | the shortest latency when little is going on | [`Polling::Spin`](crate::Polling::Spin) |
//! | the cheapest system calls, in a process for each core | [`reactors(1)`](crate::Server::reactors) and [`Server::run`](crate::Server::run): a process of one thread |
//! | a short tail on many cores | [`Pinning::Cores`](crate::Pinning::Cores) with [`Balance::CpuSteering`](crate::Balance::CpuSteering) |
//! | evenly loaded reactors with few, long-lived connections | [`Balance::LeastConnections`](crate::Balance::LeastConnections) |
//! | throughput of large messages | a larger [`read_buffer`](crate::Server::read_buffer) and [`byte_budget`](crate::Server::byte_budget) |
//! | fairness among many small ones | a smaller `byte_budget` |
//! | less data stuck in the kernel | [`SocketOptions::notsent_lowat`](crate::SocketOptions::notsent_lowat) |
//!
//! # Testing with the simulator
//!
//! With the feature `sim`, the module `sim` runs a handler on a seeded imitation of the kernel: short
//! reads and writes, resets, exhausted descriptors, reordered events, a clock of its own. The same seed gives
//! the same run.
//!
//! [`echo`]: ../../../../examples/echo.rs
//! [`chat`]: ../../../../examples/chat/main.rs
//! [`frames`]: ../../../../examples/frames/main.rs
//! [`redis`]: ../../../../examples/redis/main.rs
//! [`proxy`]: ../../../../examples/proxy/main.rs
//! [`broadcast`]: ../../../../examples/broadcast/main.rs
//! [`netapp`]: ../../../../examples/netapp/main.rs
//!
#![doc = include_str!("guide/coming_from.md")]
