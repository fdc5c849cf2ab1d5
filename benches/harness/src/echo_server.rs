//! corelane's echo server, for the other commands to run in a process of its own.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use corelane::{
    Address, Conn, Deadlines, Flow, Handle, Handler, Input, Open, Pinning, Polling, Report, Running, Server,
};

use crate::worker::{self, Ended, Listening, Order, Status, Word};

/// Serve echo until SIGTERM or SIGINT, then end in good order.
///
/// Prints `listening on ADDRESS`, and at the end what it did.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: Address,
    /// Reactors, and so threads [default: the CPUs available].
    #[arg(long, value_name = "N")]
    reactors: Option<usize>,
    /// Keep each reactor on one CPU.
    #[arg(long)]
    pin: bool,
    /// Look for events for so many microseconds before sleeping; 0: sleep at once.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin: u64,
    /// Let other processes listen on the same address (SO_REUSEPORT).
    #[arg(long)]
    share_port: bool,
    /// How long connections may take to end at the end.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    drain_deadline: Duration,
    /// Speak with a coordinator on stdin and stdout, and end with it.
    #[arg(long)]
    worker: bool,
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

/// Runs the server.
pub(crate) fn run(args: &Args) -> Result<()> {
    let running = server(args).start(|_| Echo).map_err(|error| anyhow!("{error}"))?;
    let report = if args.worker { work(running)? } else { serve(running) };
    ensure!(report.failures.is_empty(), "a reactor failed");
    ensure!(report.total.panics == 0, "a callback panicked");
    ensure!(report.cut_off == 0, "{} connections did not end in good order", report.cut_off);
    Ok(())
}

fn server(args: &Args) -> Server {
    // A client that shares its CPU with a hundred others may be slow to answer the end of a connection.
    let deadlines = Deadlines { linger: args.drain_deadline, ..Deadlines::default() };
    let mut server = Server::new()
        .listen(args.listen.clone())
        .drain_deadline(args.drain_deadline)
        .deadlines(deadlines)
        .handle_signals();
    if let Some(reactors) = args.reactors {
        server = server.reactors(reactors);
    }
    if args.pin {
        server = server.pinning(Pinning::Cores);
    }
    if args.spin > 0 {
        server = server.polling(Polling::Spin(Duration::from_micros(args.spin)));
    }
    if args.share_port {
        server = server.share_port();
    }
    server
}

fn serve(running: Running<()>) -> Report {
    print(&format!("listening on {}", running.listening()[0].address));
    let report = running.join();
    print(&report.to_string());
    report
}

/// Serves as a worker of a run.
fn work(running: Running<()>) -> Result<Report> {
    let listening = &running.listening()[0];
    let Address::Tcp(address) = listening.address else { bail!("workers listen on TCP") };
    let (backlog, reactors) = (listening.backlog, running.reactors());
    let handle = running.handle();
    worker::hear(move |order| match order {
        Some(Order::Status) => worker::say(&Word::Status(status(&handle))),
        Some(Order::End) => handle.shutdown(),
        // The coordinator is gone, or what it says makes no sense.
        _ => handle.stop_now(),
    })?;
    worker::say(&Word::Listening(Listening { address, reactors, backlog }));
    let report = running.join();
    worker::say(&Word::Ended(Ended {
        open: report.open_at_shutdown,
        drained: report.drained,
        cut_off: report.cut_off,
        report: report.to_string().replace('\n', "; "),
    }));
    Ok(report)
}

fn status(handle: &Handle<()>) -> Status {
    let (reactors, total) = (handle.counters(), handle.total());
    Status {
        accepted: total.accepted,
        accept_pauses: total.accept_pauses,
        errors: total.errors,
        active: reactors.iter().map(|reactor| reactor.active).collect(),
        bytes_in: reactors.iter().map(|reactor| reactor.bytes_in).collect(),
    }
}

/// Prints a line. If nobody reads it, that is no reason to stop serving.
fn print(line: &str) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
