//! Requests and replies in frames that begin with their length; and a client that pipelines and checks every
//! byte.
//!
//! ```text
//! cargo run --release --example frames -- --listen 127.0.0.1:7000
//! cargo run --release --example frames -- client 127.0.0.1:7000 --requests 1000000 --depth 64 --size 100
//! ```
//!
//! A frame is its length (32 bits, the high byte first) and so many bytes. A request is an id of eight bytes
//! and a body; the reply to it is a zero, the id, and the body backwards. What is no request is answered with
//! a one and a text, and the connection is closed.

mod client;
#[path = "../common/mod.rs"]
mod common;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use corelane::codec::{Codec, Decoder, LengthPrefixed};
use corelane::{Conn, Flow, Handler, Input, Open, Server, Watermarks};

const DONE: u8 = 0;
const REFUSED: u8 = 1;

/// The id in front of a request.
const ID: usize = 8;

/// A request and reply service of length-prefixed frames, and its client.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    mode: Option<Mode>,
    #[command(flatten)]
    service: ServiceOptions,
}

#[derive(Subcommand)]
enum Mode {
    /// Send requests to a server, many at a time, and check the replies.
    Client(client::ClientOptions),
}

#[derive(Args)]
struct ServiceOptions {
    #[command(flatten)]
    server: common::ServerOptions,
    /// The largest request in bytes, its length not counted.
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024,
          value_parser = clap::value_parser!(u32).range(ID as i64..=256 << 20))]
    max_frame: u32,
}

/// The service on one reactor.
struct Service {
    requests: LengthPrefixed,
    replies: LengthPrefixed,
    /// Where a reply is put together; its memory stays.
    reply: Vec<u8>,
}

impl Service {
    fn new(max_frame: usize) -> Self {
        let requests = LengthPrefixed::u32_be().maximum(max_frame);
        Self { requests, replies: reply_codec(max_frame), reply: Vec::new() }
    }

    fn answer(&mut self, conn: &mut Conn<'_>, request: &[u8]) -> Flow {
        let Some((id, body)) = request.split_at_checked(ID) else {
            return self.refuse(conn, "a request begins with eight bytes of id");
        };
        self.reply.clear();
        self.reply.push(DONE);
        self.reply.extend_from_slice(id);
        self.reply.extend(body.iter().rev());
        self.send_reply(conn)
    }

    /// Says what is wrong. What was written is sent before the connection closes.
    fn refuse(&mut self, conn: &mut Conn<'_>, problem: &str) -> Flow {
        self.reply.clear();
        self.reply.push(REFUSED);
        self.reply.extend_from_slice(problem.as_bytes());
        let _ = self.send_reply(conn);
        Flow::Close
    }

    fn send_reply(&self, conn: &mut Conn<'_>) -> Flow {
        match self.replies.write(conn, &self.reply) {
            Ok(_) => Flow::Continue,
            Err(_) => Flow::Close,
        }
    }
}

impl Handler for Service {
    type Session = Decoder<LengthPrefixed>;
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<Self::Session> {
        Open::Accept(Decoder::new(self.requests))
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, requests: &mut Self::Session, input: &mut Input<'_>) -> Flow {
        loop {
            let flow = match requests.next(input) {
                Ok(Some(request)) => self.answer(conn, request),
                Ok(None) => return Flow::Continue,
                Err(error) => self.refuse(conn, &error.to_string()),
            };
            if flow != Flow::Continue {
                return flow;
            }
        }
    }
}

/// A reply has one byte more than its request; what is refused is told in a few words.
fn reply_codec(largest_request: usize) -> LengthPrefixed {
    LengthPrefixed::u32_be().maximum((largest_request + 1).max(1024))
}

/// A server that has room for the largest frame, in and out.
fn server(options: &ServiceOptions) -> Server {
    let max_frame = options.max_frame as usize;
    let marks = Watermarks::default();
    let cap = marks.cap.max(4 * max_frame);
    let input_cap = max_frame + 64 * 1024;
    options.server.server().input_cap(input_cap).watermarks(Watermarks { cap, ..marks })
}

fn main() -> ExitCode {
    let Options { mode, service } = Options::parse();
    match mode {
        Some(Mode::Client(options)) => client::run(&options),
        None => {
            let max_frame = service.max_frame as usize;
            common::serve(server(&service), move |_| Service::new(max_frame))
        }
    }
}
