//! corelane's echo server, for the other commands to run in a process of its own.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use corelane::{Address, Conn, Flow, Handle, Handler, Input, Open, Pinning, Polling, Server};
use serde::{Deserialize, Serialize};

/// Serve echo until SIGTERM or SIGINT, then end in good order.
///
/// Prints `listening on ADDRESS`; for every line on stdin a line of counters as JSON; at the end
/// what it did.
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
}

/// What the server tells while it runs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) reactors: usize,
    /// Connections that the kernel queues for each listener.
    pub(crate) backlog: u32,
    /// Connections accepted so far.
    pub(crate) accepted: u64,
    /// Connections that are open.
    pub(crate) active: u64,
    /// Times that accepting paused for want of descriptors or memory.
    pub(crate) accept_pauses: u64,
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
    let mut server = Server::new().listen(args.listen.clone()).handle_signals();
    if let Some(reactors) = args.reactors {
        server = server.reactors(reactors);
    }
    if args.pin {
        server = server.pinning(Pinning::Cores);
    }
    if args.spin > 0 {
        server = server.polling(Polling::Spin(Duration::from_micros(args.spin)));
    }
    let running = server.start(|_| Echo).map_err(|error| anyhow!("{error}"))?;
    let (handle, backlog) = (running.handle(), running.listening()[0].backlog);
    thread::Builder::new()
        .name("status".to_owned())
        .spawn(move || tell_status(&handle, backlog))
        .context("cannot start a thread")?;
    say(&format!("listening on {}", running.listening()[0].address));
    let report = running.join();
    say(&report.to_string());
    ensure!(report.failures.is_empty(), "a reactor failed");
    ensure!(report.total.panics == 0, "a callback panicked");
    ensure!(report.cut_off == 0, "{} connections did not end in good order", report.cut_off);
    Ok(())
}

/// Answers every line on stdin, until its end.
fn tell_status(handle: &Handle<()>, backlog: u32) {
    for _ in io::stdin().lines().map_while(Result::ok) {
        let total = handle.total();
        let status = Status {
            reactors: handle.reactors(),
            backlog,
            accepted: total.accepted,
            active: total.active,
            accept_pauses: total.accept_pauses,
        };
        if let Ok(text) = serde_json::to_string(&status) {
            say(&text);
        }
    }
}

/// Prints a line. If nobody reads it, that is no reason to stop serving.
fn say(line: &str) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
