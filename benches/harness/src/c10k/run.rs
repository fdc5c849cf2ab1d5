//! One server and one client, and what they are put through.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow, bail, ensure};
use nix::unistd::Pid;

use super::args::Args;
use super::caller::{Talk, Tally};
use super::client::{self, Client};
use super::server::EchoServer;
use crate::cpu::CpuClock;
use crate::limits::{self, Descriptors};
use crate::output::format::count;
use crate::output::live::Progress;

/// Connections that were dialed and not accepted yet. The kernel completes a connection before the
/// server accepts it; where too many wait, it drops others, which try again a second later.
const UNACCEPTED: usize = 256;

/// How long the run may look away from a request to stop.
const NAP: Duration = Duration::from_millis(20);

/// How long to wait before the server is asked again how far it is.
const POLL: Duration = Duration::from_micros(500);

/// How long the client may take to notice a late reply.
const MARGIN: Duration = Duration::from_secs(2);

/// How long the server's end may trail the loss of its connections.
const END_PATIENCE: Duration = Duration::from_millis(300);

/// What came of a talk.
#[derive(Debug)]
pub(super) struct Talked {
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
    pub(super) server_cpu: Duration,
    pub(super) client_cpu: Duration,
}

/// A server and a client connected to it.
#[derive(Debug)]
pub(super) struct Run<'a> {
    args: &'a Args,
    stop: &'a AtomicBool,
    client: Client,
    server: EchoServer,
    pub(super) progress: Progress,
    pub(super) server_reactors: usize,
    backlog: usize,
}

impl<'a> Run<'a> {
    /// Starts both; messages will be of the `largest` size at most.
    pub(super) fn start(args: &'a Args, stop: &'a AtomicBool, largest: usize) -> Result<Self> {
        let mut server = EchoServer::start(args.reactors)?;
        let status = server.status()?;
        let client = Client::start(client::Plan {
            target: server.address(),
            sources: limits::sources(args.connections as u64, limits::ephemeral_ports()?),
            reactors: args.client_reactors,
            largest,
            dial_timeout: args.deadline,
        })?;
        let mut run = Self {
            args,
            stop,
            client,
            server,
            progress: Progress::new(),
            server_reactors: status.reactors,
            backlog: status.backlog as usize,
        };
        let started = format!(
            "server: process {}, {}, {} reactors; client: {} reactors",
            run.server.pid(),
            run.server.address(),
            run.server_reactors,
            run.client_reactors()
        );
        run.progress.finish(&started);
        Ok(run)
    }

    pub(super) fn client_reactors(&self) -> usize {
        self.client.reactors()
    }

    /// How many of the connections that were asked for fit, and if not all, why.
    pub(super) fn room(&mut self) -> Result<(usize, Option<String>)> {
        let ours = Descriptors::of(std::process::id())?;
        let (room, limited) = fit(self.args.connections, self.server.descriptors()?, ours)?;
        if let Some(why) = &limited {
            self.progress.finish(&format!("note: {why}"));
        }
        Ok((room, limited))
    }

    /// The server's memory in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        self.server.resident()
    }

    /// Opens connections until there are so many; tells how long that took.
    pub(super) fn open(&mut self, total: usize) -> Result<Duration> {
        let took = self.guarded(|run| run.try_open(total))?;
        let line = format!("{} connections open after {took:.2?}", count(total as u64));
        self.progress.finish(&line);
        Ok(took)
    }

    fn try_open(&mut self, total: usize) -> Result<Duration> {
        self.progress.update_from_now();
        let begun = Instant::now();
        let window = UNACCEPTED.min(self.backlog);
        let mut patience = Patience::new(self.args.deadline + MARGIN);
        loop {
            self.ensure_going()?;
            let status = self.server.status()?;
            let (accepted, opened) = (status.accepted as usize, self.client.opened());
            if accepted >= total && opened >= total {
                ensure!(status.active == total as u64, "the server has {} of {total} open", status.active);
                return Ok(begun.elapsed());
            }
            self.client.dial((accepted + window).min(total))?;
            ensure!(
                patience.has_with((accepted, opened)),
                "of {total} connections the client has opened {opened} and the server accepted {accepted}, \
                 but no more for {:?} (accepting paused {} times for want of descriptors or memory)",
                patience.limit,
                status.accept_pauses
            );
            self.progress.update(|| format!("{} of {total} connections open", count(opened as u64)));
            thread::sleep(POLL);
        }
    }

    /// Leaves all connections idle for a while; returns the CPU time that the server used in it.
    pub(super) fn hold(&mut self, time: Duration) -> Result<Duration> {
        self.guarded(|run| {
            let (clock, before) = (run.server.clock(), run.server.clock().read()?);
            let end = Instant::now() + time;
            run.progress.update_from_now();
            loop {
                run.ensure_going()?;
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(clock.read()?.saturating_sub(before));
                }
                run.progress.update(|| format!("holding them idle, {left:.1?} to go"));
                thread::sleep(left.min(NAP));
            }
        })
    }

    /// Has messages go back and forth on all connections, for a time and at least some rounds.
    pub(super) fn talk(&mut self, size: usize, rounds: u32, time: Duration) -> Result<Talked> {
        self.guarded(|run| run.try_talk(size, rounds, time))
    }

    fn try_talk(&mut self, size: usize, rounds: u32, time: Duration) -> Result<Talked> {
        self.progress.update_from_now();
        let clocks = [self.server.clock(), CpuClock::of_process(Pid::this())?];
        let read = || Ok::<_, Error>([clocks[0].read()?, clocks[1].read()?]);
        let (begun, cpu, bytes_before) = (Instant::now(), read()?, self.client.bytes_in());
        let mut tally = Tally::new();
        self.client.talk(Talk { size, rounds, until: begun + time, deadline: self.args.deadline })?;
        let mut left = self.client.reactors();
        let mut patience = Patience::new(self.args.deadline + MARGIN);
        while left > 0 {
            if let Some(of_reactor) = self.client.tally(NAP)? {
                tally.add(&of_reactor)?;
                left -= 1;
            }
            self.ensure_not_stopped()?;
            let received = self.client.bytes_in() - bytes_before;
            ensure!(patience.has_with(received), "the client has received nothing for {:?}", patience.limit);
            let elapsed = begun.elapsed();
            self.progress.update(|| talking(received / size as u64, elapsed));
        }
        let (elapsed, cpu_after) = (begun.elapsed(), read()?);
        let [server_cpu, client_cpu] = [0, 1].map(|which| cpu_after[which].saturating_sub(cpu[which]));
        Ok(Talked { tally, elapsed, server_cpu, client_cpu })
    }

    /// Ends the server by SIGTERM, then the client; returns what the server says.
    pub(super) fn end(mut self) -> Result<String> {
        self.guarded(|run| run.ensure_going())?;
        self.client.part()?;
        let report = self.server.end()?;
        self.client.end()?;
        Ok(report)
    }

    fn ensure_not_stopped(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    fn ensure_going(&mut self) -> Result<()> {
        self.ensure_not_stopped()?;
        self.client.ensure_well()?;
        if let Some(status) = self.server.ended(Duration::ZERO) {
            bail!("the server ended: {status}");
        }
        Ok(())
    }

    /// Does something, and says of its failure what else is known.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        act(self).map_err(|error| self.explain(error))
    }

    fn explain(&mut self, error: Error) -> Error {
        // If the server has ended, that is why; and its other connections are about to be lost too.
        let ended = self.server.ended(END_PATIENCE);
        let error = match self.client.ended() {
            0 | 1 => error,
            ended => anyhow!("{error:#} ({} connections have ended by now)", count(ended)),
        };
        match ended {
            Some(status) => anyhow!("the server ended ({status}): {error:#}"),
            None => error,
        }
    }
}

fn talking(messages: u64, elapsed: Duration) -> String {
    let rate = messages as f64 / elapsed.as_secs_f64();
    format!("{:4.1} s: {} messages, {}/s", elapsed.as_secs_f64(), count(messages), count(rate as u64))
}

/// How many of `asked` connections both processes have descriptors for, and if not all, why.
fn fit(asked: usize, server: Descriptors, client: Descriptors) -> Result<(usize, Option<String>)> {
    let room = server.room().min(client.room());
    if asked as u64 <= room {
        return Ok((asked, None));
    }
    let named = format!(
        "RLIMIT_NOFILE is {} in the server and {} in the client, where {} and {} descriptors are taken",
        server.limit, client.limit, server.used, client.used
    );
    ensure!(room > 0, "{named}: not one connection fits");
    let why = format!(
        "{named}: holding {} connections instead of {} \
         (raise the hard limit, as with `ulimit -Hn` or LimitNOFILE=, to hold all)",
        count(room),
        count(asked as u64)
    );
    Ok((room as usize, Some(why)))
}

/// Runs out where nothing changes for too long.
#[derive(Debug)]
struct Patience<T> {
    limit: Duration,
    last: Option<T>,
    since: Instant,
}

impl<T: PartialEq> Patience<T> {
    fn new(limit: Duration) -> Self {
        Self { limit, last: None, since: Instant::now() }
    }

    /// Whether there is patience left with something that is now so.
    fn has_with(&mut self, now: T) -> bool {
        if self.last.as_ref() != Some(&now) {
            self.last = Some(now);
            self.since = Instant::now();
        }
        self.since.elapsed() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(limit: u64, used: u64) -> Descriptors {
        Descriptors { limit, used }
    }

    #[test]
    fn what_fits_is_held() {
        let all = fit(10_000, descriptors(20_000, 20), descriptors(u64::MAX, 30)).unwrap();
        assert_eq!(all, (10_000, None));
    }

    #[test]
    fn the_limit_that_stands_in_the_way_is_named() {
        let (room, why) = fit(10_000, descriptors(1_024, 20), descriptors(1_024, 30)).unwrap();
        let why = why.unwrap();
        assert_eq!(room, 978);
        assert!(
            why.contains("RLIMIT_NOFILE is 1024 in the server and 1024 in the client, where 20 and 30"),
            "{why}"
        );
        assert!(why.contains("holding 978 connections instead of 10,000"), "{why}");
        let (room, why) = fit(3_000, descriptors(4_096, 20), descriptors(1_024, 30)).unwrap();
        assert_eq!(room, 978);
        assert!(why.unwrap().contains("4096 in the server and 1024 in the client"));
        let none = fit(10_000, descriptors(30, 20), descriptors(30, 30)).unwrap_err().to_string();
        assert!(none.contains("not one connection fits"), "{none}");
    }

    #[test]
    fn patience_begins_anew_with_every_change() {
        let mut patience = Patience::new(Duration::from_millis(30));
        for step in 0..4 {
            thread::sleep(Duration::from_millis(20));
            assert!(patience.has_with(step));
        }
        thread::sleep(Duration::from_millis(40));
        assert!(!patience.has_with(3));
    }
}
