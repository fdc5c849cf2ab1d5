//! A demonstration service: HTTP/1.1 with a bit of everything that services do, to measure and to look at.
//!
//! ```text
//! cargo run --release --features http1 --example netapp -- --listen 127.0.0.1:8080 --files .
//! curl -i http://127.0.0.1:8080/slow?ms=20
//! ```
//!
//! | path | what it does |
//! |---|---|
//! | `/plaintext`, `/json` | as the TechEmpower benchmarks want them |
//! | `/fast` | answers at once, or after `--fast-delay` |
//! | `/slow` | answers after 1 to 300 ms, or `?ms=`; the loop goes on meanwhile |
//! | `/alloc` | allocates much, and keeps some of it |
//! | `/echo` | sends the request's body back as it comes, at the pace at which it is read |
//! | `/files/` | the directory of `--files` |
//! | `/healthz` | 200 as long as there is somebody to say so |
//! | `/readyz` | 200, and 503 from the signal that ends it on |
//! | `/metrics` | counters for Prometheus |
//!
//! SIGTERM ends it: `/readyz` turns to 503, requests are served for `--grace` seconds more, then what is under way is
//! finished, and a report is printed. A second signal ends it at once.

#[path = "../common/mod.rs"]
mod common;

mod alloc;
mod ending;
mod later;
mod metrics;
mod options;
mod pages;
mod service;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use ending::Ending;
use options::Options;
use service::{Netapp, Settings};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let http = options.http().build()?;
    let ending = Ending::new(options.grace());
    let settings = Settings {
        fast_delay: options.fast_delay(),
        alloc_keep: options.alloc_keep,
        // One directory for all reactors: it is opened here, where a mistake can still be told.
        files: options.files()?.map(Arc::new),
        protocol: http.clone(),
        ending: ending.clone(),
        waiting: Arc::default(),
    };
    let server = options.server.configure(http.server()).input_cap(options.input_cap());
    let handlers = http.clone();
    let running = server.start(move |start| handlers.handler(Netapp::new(settings.clone(), start)))?;
    // Before anybody is told that we are here: a signal that comes at once is to be a good end too.
    ending.follow_signals(running.handle())?;
    for address in running.addresses() {
        println!("listening on {address}");
    }
    // Whoever started us may be reading through a pipe; if nobody is, that is no reason to stop.
    let _ = std::io::stdout().flush();
    println!("{}", running.join());
    println!("answered {}", metrics::summary(&http.total()));
    Ok(())
}
