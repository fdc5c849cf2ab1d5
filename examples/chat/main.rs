//! A chat server: nicknames, rooms, and members on every core.
//!
//! ```text
//! cargo run --release --example chat -- --listen 127.0.0.1:7000
//! nc 127.0.0.1 7000
//! ```
//!
//! It shows how state is divided over reactors instead of being locked. Each name, of a member or of a room,
//! has one owner: the reactor that its hash chooses. Only the owner knows who bears the name or who is in the
//! room, so it alone decides, and the order in which it decides is the order in which everybody sees it.
//! All else is messages:
//!
//! ```text
//!  alice ──"hello"──► her reactor ──Ask(Say)──► the room's owner ──Deliver──► reactors with members in it
//!                          ▲                          │                                │
//!                          └──────────Tell(Done)──────┘                  a write to each of them
//! ```
//!
//! | file | what is in it |
//! |---|---|
//! | `message.rs` | what reactors say to each other |
//! | `handler.rs` | the members on this reactor: their lines, and the answers they wait for |
//! | `owned.rs` | the names and rooms that this reactor owns |
//! | `links.rs` | sending to other reactors, whose mailboxes may be full |
//! | `text.rs` | what may be typed and shown |

#[path = "../common/mod.rs"]
mod common;
mod handler;
mod links;
mod message;
mod owned;
mod text;

use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser};
use corelane::{Server, Watermarks};

use handler::Chat;

/// A chat server on every core. Talk to it with `nc HOST PORT`, and type /help there.
#[derive(Parser)]
#[command(name = "chat", mut_arg("idle", |idle| idle.default_value("600")))]
struct Options {
    #[command(flatten)]
    server: common::ServerOptions,
    #[command(flatten)]
    limits: Limits,
    /// The most output in bytes that may wait for a member who does not read; beyond, the member is cut off.
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024)]
    output_cap: usize,
    /// How many messages may wait for a reactor before members must wait too.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    mailbox: usize,
}

/// What bounds the memory of the server, and the patience of its members.
#[derive(Args, Clone, Debug)]
struct Limits {
    /// Lines said in a room that it shows to whoever joins.
    #[arg(long, value_name = "N", default_value_t = 20)]
    history: usize,
    /// The most rooms that one reactor owns.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rooms: usize,
    /// The most members of a room.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    members: usize,
    /// The longest name of a member or a room.
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    name: usize,
    /// The longest line that may be sent.
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=16 << 20))]
    line: usize,
    /// Say who comes and goes only in rooms of up to so many members: to tell each of thousands about each
    /// other is millions of lines.
    #[arg(long, value_name = "N", default_value_t = 200)]
    announce: usize,
}

impl Options {
    /// The flags, unless a member would be cut off for one line alone, or for the history when joining.
    fn read() -> Self {
        let options = Self::parse();
        let Limits { history, line, name, .. } = options.limits;
        // What is not UTF-8 may become three bytes each.
        let longest = line.saturating_mul(3).saturating_add(name).saturating_add(4);
        if history.max(1).saturating_mul(longest) > options.output_cap {
            let problem = match history {
                0 => "--output-cap is too small for a line of --line bytes",
                _ => "--output-cap is too small for --history lines of --line bytes",
            };
            Self::command().error(ErrorKind::ValueValidation, problem).exit();
        }
        options
    }
}

fn server(options: &Options) -> Server {
    let cap = options.output_cap;
    options
        .server
        .server()
        // A line is obeyed when it has come in full; behind it there may be the start of the next.
        .input_cap(options.limits.line + 128 * 1024)
        .watermarks(Watermarks { high: (cap / 4).max(1), low: cap / 16, cap })
        .mailbox(options.mailbox, 64 << 20)
}

fn main() -> ExitCode {
    let options = Options::read();
    let (limits, mailbox) = (options.limits.clone(), options.mailbox);
    common::serve(server(&options), move |start| Chat::new(limits.clone(), mailbox, start.handle()))
}
