//! The smallest useful server: it sends back what it receives.
//!
//! ```text
//! cargo run --release --example echo -- --listen 127.0.0.1:7000 --listen unix:/tmp/echo.sock
//! ```
//!
//! SIGTERM or SIGINT drains it; it prints what it did and exits with 0. A second one forces it.

mod common;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use corelane::{Balance, Conn, Flow, Handler, Input, Open, Pinning, Polling, Server};

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
    /// Look for events for so many microseconds before sleeping; 0: sleep at once.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin: u64,
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
    let server =
        options.server.server().pinning(if options.pin { Pinning::Cores } else { Pinning::Off }).balance(
            match options.balance {
                Spread::Kernel => Balance::Kernel,
                Spread::Cpu => Balance::CpuSteering,
                Spread::RoundRobin => Balance::RoundRobin,
                Spread::LeastConnections => Balance::LeastConnections,
                Spread::Source => Balance::SourceHash,
            },
        );
    match options.spin {
        0 => server,
        spin => server.polling(Polling::Spin(Duration::from_micros(spin))),
    }
}

fn main() -> ExitCode {
    common::serve(server(&Options::parse()), |_| Echo)
}
