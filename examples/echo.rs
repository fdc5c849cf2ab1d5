//! The smallest useful server: it sends back what it receives.
//!
//! ```text
//! cargo run --release --example echo -- --listen 127.0.0.1:7000 --listen unix:/tmp/echo.sock
//! ```
//!
//! SIGTERM or SIGINT drains it; it prints what it did and exits with 0. A second one forces it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use corelane::{
    Address, Balance, Conn, Deadlines, Flow, Handler, Input, Open, Pinning, Polling, Server, StartError,
};

/// An echo server on every core.
#[derive(Parser)]
struct Options {
    /// Address to listen on, repeatable: IPV4:PORT, [IPV6]:PORT, unix:/path or unix:@name; port 0 takes a
    /// free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    listen: Vec<Address>,
    /// Reactors, and so threads [default: the CPUs available].
    #[arg(long, value_name = "N")]
    reactors: Option<usize>,
    /// Keep each reactor on one CPU.
    #[arg(long)]
    pin: bool,
    /// Who spreads connections over the reactors.
    #[arg(long, value_enum, default_value = "kernel")]
    balance: Spread,
    /// Look for events for so many microseconds before sleeping; 0: sleep at once.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin: u64,
    /// Close connections without traffic after so many seconds; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    idle: u64,
    /// The most connections at a time.
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
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
    let deadline = (options.idle > 0).then(|| Duration::from_secs(options.idle));
    let mut server = Server::new()
        .deadlines(Deadlines { idle: deadline, write_stall: deadline, ..Deadlines::default() })
        .pinning(if options.pin { Pinning::Cores } else { Pinning::Off })
        .balance(match options.balance {
            Spread::Kernel => Balance::Kernel,
            Spread::Cpu => Balance::CpuSteering,
            Spread::RoundRobin => Balance::RoundRobin,
            Spread::LeastConnections => Balance::LeastConnections,
            Spread::Source => Balance::SourceHash,
        })
        .handle_signals();
    if let Some(reactors) = options.reactors {
        server = server.reactors(reactors);
    }
    if options.spin > 0 {
        server = server.polling(Polling::Spin(Duration::from_micros(options.spin)));
    }
    if let Some(cap) = options.max_connections {
        server = server.max_connections(cap);
    }
    options.listen.iter().cloned().fold(server, Server::listen)
}

fn run(options: &Options) -> Result<(), StartError> {
    let running = server(options).start(|_| Echo)?;
    for address in running.addresses() {
        println!("listening on {address}");
    }
    // Whoever started us may be reading through a pipe; if nobody is, that is no reason to stop.
    let _ = io::stdout().flush();
    println!("{}", running.join());
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}
