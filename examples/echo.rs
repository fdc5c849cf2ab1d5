//! The smallest useful server: it sends back what it receives.
//!
//! ```text
//! cargo run --release --example echo -- --listen 127.0.0.1:7000 --listen unix:/tmp/echo.sock
//! ```
//!
//! SIGTERM or SIGINT drains it; it prints what it did and exits with 0. A second one forces it.

mod common;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use corelane::{Balance, Conn, Flow, Handler, Input, Open, Pinning, Server};

/// An echo server on every core.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    server: common::ServerOptions,
    /// Keep each reactor on one CPU.
    #[arg(long)]
    pin: bool,
    /// Who spreads connections over the reactors.
    #[arg(long, value_enum, default_value = "kernel")]
    balance: Spread,
}

#[derive(Clone, Copy, ValueEnum)]
enum Spread {
    Kernel,
    Cpu,
    RoundRobin,
    LeastConnections,
    Source,
}

struct Echo;

impl Handler for Echo {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        conn.write(input.take_all());
        Flow::Continue
    }
}

fn server(options: &Options) -> Server {
    let balance = match options.balance {
        Spread::Kernel => Balance::Kernel,
        Spread::Cpu => Balance::CpuSteering,
        Spread::RoundRobin => Balance::RoundRobin,
        Spread::LeastConnections => Balance::LeastConnections,
        Spread::Source => Balance::SourceHash,
    };
    let pinning = if options.pin { Pinning::Cores } else { Pinning::Off };
    options.server.server().pinning(pinning).balance(balance)
}

fn main() -> ExitCode {
    common::serve(server(&Options::parse()), |_| Echo)
}
