//! What every example offers: where to listen, how many reactors, deadlines, caps, and a clean end.
#![allow(dead_code, reason = "each example uses a part of it")]

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use corelane::{Address, Deadlines, Handler, Polling, Running, Server, Start};

/// The flags that all examples share.
#[derive(Args)]
pub(crate) struct ServerOptions {
    /// Address to listen on, repeatable: IPV4:PORT, [IPV6]:PORT, unix:/path or unix:@name; port 0 takes a
    /// free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    pub(crate) listen: Vec<Address>,
    /// Reactors, and so threads [default: the CPUs available].
    #[arg(long, value_name = "N")]
    reactors: Option<usize>,
    /// Close connections without traffic after so many seconds; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    idle: u64,
    /// Cut off a peer that has taken none of its output for so many seconds; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    stall: u64,
    /// The most connections at a time.
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// The most connections at a time from one source address.
    #[arg(long, value_name = "N")]
    max_connections_per_source: Option<usize>,
    /// Look for events for so many microseconds before sleeping; 0: sleep at once. For a reactor that has a
    /// core of its own: nobody has to wake it, and the core is never free for others meanwhile.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin: u64,
}

impl ServerOptions {
    /// The deadline of connections without traffic.
    pub(crate) fn idle(&self) -> Option<Duration> {
        (self.idle > 0).then(|| Duration::from_secs(self.idle))
    }

    /// The deadline of peers that take no output.
    pub(crate) fn stall(&self) -> Option<Duration> {
        (self.stall > 0).then(|| Duration::from_secs(self.stall))
    }

    /// A server as the flags say, which drains on SIGTERM and SIGINT.
    pub(crate) fn server(&self) -> Server {
        let deadlines = Deadlines { idle: self.idle(), write_stall: self.stall(), ..Deadlines::default() };
        self.configure(Server::new().deadlines(deadlines).handle_signals())
    }

    /// Tells a server where to listen, and what of it.
    pub(crate) fn configure(&self, mut server: Server) -> Server {
        if let Some(reactors) = self.reactors {
            server = server.reactors(reactors);
        }
        if let Some(cap) = self.max_connections {
            server = server.max_connections(cap);
        }
        if let Some(cap) = self.max_connections_per_source {
            server = server.max_connections_per_source(cap);
        }
        if self.spin > 0 {
            server = server.polling(Polling::Spin(Duration::from_micros(self.spin)));
        }
        self.listen.iter().cloned().fold(server, Server::listen)
    }
}

/// Serves until a signal ends it: says where it listens, and at the end what it did.
pub(crate) fn serve<H: Handler>(
    server: Server,
    factory: impl Fn(&Start<H::Message>) -> H + Send + Sync + 'static,
) -> ExitCode {
    serve_as(server, |_| "listening on", factory)
}

/// As [`serve`]; `label` has a word for each of the server's addresses, by index.
pub(crate) fn serve_as<H: Handler>(
    server: Server,
    label: impl Fn(usize) -> &'static str,
    factory: impl Fn(&Start<H::Message>) -> H + Send + Sync + 'static,
) -> ExitCode {
    // Whoever started us may be reading through a pipe. If nobody is, that is no reason to stop, as `println`
    // would.
    let announce = |running: &Running<H::Message>| {
        let mut output = io::stdout().lock();
        for (index, address) in running.addresses().enumerate() {
            let _ = writeln!(output, "{} {address}", label(index));
        }
        let _ = output.flush();
    };
    match server.run(factory, announce) {
        Ok(report) => {
            let _ = writeln!(io::stdout(), "{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
