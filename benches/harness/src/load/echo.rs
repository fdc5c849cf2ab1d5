//! Connections that stay: in a closed loop or at a constant rate, beside a firehose.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use socket2::Socket;

use super::lane::{Flow, HOSE_CHUNK, Lane};
use super::pace::Pace;
use super::ring::{Completion, Plan, Ring, Wait};
use super::window::{Tally, Window};
use super::{DRAIN_TIMEOUT, Mode, SETUP_TIMEOUT, Share, connect};

/// The most memory in buffers for replies.
const MOST_BUFFER_BYTES: usize = 32 << 20;

const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const HOSE_RECEIVE: u64 = 2;
const HOSE_SEND: u64 = 3;

fn tag(kind: u64, index: usize) -> u64 {
    kind << 32 | index as u64
}

/// Runs one thread's connections for a slice.
pub(super) fn run(share: &Share<'_>) -> Result<Tally> {
    let sockets = connect::connect_all(share)?;
    let outcome = Echo::new(share, &sockets).and_then(Echo::run);
    sockets.iter().for_each(connect::reset);
    outcome
}

/// What paces the messages while the slice lasts.
#[derive(Debug)]
enum Pacing {
    /// Every connection gets one message, as a proof that it works.
    Proof,
    Closed,
    Rate(Pace),
}

struct Echo<'a> {
    share: &'a Share<'a>,
    ring: Ring,
    lanes: Vec<Lane>,
    hoses: Vec<Flow>,
    /// Messages that are due or under way.
    outstanding: usize,
    /// Whether sends are told only if they fail. With a single message in flight the reply tells
    /// of the send.
    quiet: bool,
    pacing: Pacing,
    completions: Vec<Completion>,
}

impl<'a> Echo<'a> {
    fn new(share: &'a Share<'a>, sockets: &[Socket]) -> Result<Self> {
        let load = share.shared.load;
        let in_flight = match load.mode {
            Mode::Closed { depth } => depth,
            // Slow servers may get behind by any number: some are received at a time.
            Mode::Rate { .. } | Mode::Churn { .. } | Mode::Broadcast { .. } => 4,
        };
        let buffer = (in_flight * load.size).next_power_of_two().clamp(256, HOSE_CHUNK);
        let buffers = (share.connections * 2).next_power_of_two();
        let plan = Plan {
            operations: sockets.len() * 2,
            shared_buffers: buffers.clamp(64, 4_096.min(MOST_BUFFER_BYTES / buffer)),
            shared_buffer_size: buffer,
            own_buffers: share.firehose,
            own_buffer_size: HOSE_CHUNK,
        };
        let ring = Ring::new(plan, share.shared.address.into())?;
        let files: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.use_files(&files)?;
        let index = |i: usize| i * load.threads + share.thread;
        Ok(Self {
            share,
            ring,
            lanes: (0..share.connections).map(|i| Lane::new(index(i), load.size)).collect(),
            hoses: (0..share.firehose).map(|i| Flow::of_connection(index(share.connections + i))).collect(),
            outstanding: 0,
            quiet: matches!(load.mode, Mode::Closed { depth: 1 }),
            pacing: Pacing::Proof,
            completions: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Tally> {
        let clock = self.share.shared.clock;
        for lane in 0..self.lanes.len() {
            self.ring.receive_again_and_again(lane as u32, tag(RECEIVE, lane));
        }
        let mut unmeasured = Window::never(self.share.watched());
        self.owe_all(1);
        let deadline = clock.now() + SETUP_TIMEOUT.as_nanos() as u64;
        while self.outstanding > 0 {
            self.turn(&mut unmeasured)?;
            self.ensure_before(deadline)?;
        }

        let mut window = self.share.rendezvous()?;
        self.begin();
        while !window.is_closed() {
            self.turn(&mut window)?;
        }
        let deadline = clock.now() + DRAIN_TIMEOUT.as_nanos() as u64;
        while self.is_busy(&window) {
            self.turn(&mut window)?;
            self.ensure_before(deadline)?;
        }
        Ok(window.into_tally())
    }

    /// Starts the load, now that every connection is known to work.
    fn begin(&mut self) {
        let share = self.share;
        let load = share.shared.load;
        match load.mode {
            Mode::Rate { per_second, late_after } => {
                let now = share.shared.clock.now();
                let threads = (share.thread, load.threads);
                let connections = (share.connections, load.connections);
                let pace = Pace::new(now, per_second, late_after, threads, connections);
                self.pacing = Pacing::Rate(pace);
            }
            Mode::Closed { depth } => {
                self.pacing = Pacing::Closed;
                self.owe_all(depth);
            }
            Mode::Churn { .. } => unreachable!("churn keeps no connections"),
            Mode::Broadcast { .. } => unreachable!("broadcast is no echo"),
        }
        for hose in 0..self.hoses.len() {
            self.hose_send(hose);
            self.hose_receive(hose);
        }
    }

    fn is_busy(&self, window: &Window<'_>) -> bool {
        let due = matches!(&self.pacing, Pacing::Rate(pace) if pace.next_due() < window.end());
        due || self.outstanding > 0 || self.hoses.iter().any(|hose| hose.unanswered() > 0)
    }

    fn ensure_before(&self, deadline: u64) -> Result<()> {
        if self.share.shared.clock.now() < deadline {
            return Ok(());
        }
        let bytes: usize = self.hoses.iter().map(Flow::unanswered).sum();
        bail!(
            "the server stopped answering: {} messages and {bytes} bytes of the firehose are \
             outstanding",
            self.outstanding
        )
    }

    fn owe_all(&mut self, messages: usize) {
        let now = self.share.shared.clock.now();
        for lane in 0..self.lanes.len() {
            (0..messages).for_each(|_| self.owe(lane, now));
            self.send(lane);
        }
    }

    fn owe(&mut self, lane: usize, since: u64) {
        self.lanes[lane].owe(since);
        self.outstanding += 1;
    }

    fn send(&mut self, lane: usize) {
        if let Some(bytes) = self.lanes[lane].take(self.share.shared.pattern, self.quiet) {
            self.ring.send(lane as u32, bytes, tag(SEND, lane), self.quiet);
        }
    }

    /// Waits for something to happen, and deals with all that has.
    fn turn(&mut self, window: &mut Window<'_>) -> Result<()> {
        let shared = self.share.shared;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.turn(self.wait(window), &mut completions)?;
        let now = shared.clock.now();
        window.advance(now)?;
        for completion in &completions {
            let index = (completion.tag & u64::from(u32::MAX)) as usize;
            match completion.tag >> 32 {
                RECEIVE => self.received(index, completion, window, now),
                SEND => self.sent(index, completion),
                HOSE_RECEIVE => self.hose_received(index, completion, window),
                _ => self.hose_sent(index, completion, window),
            }
            .with_context(|| self.name(completion.tag >> 32, index))?;
        }
        self.completions = completions;
        self.send_due(window);
        shared.ensure_going()
    }

    fn name(&self, kind: u64, index: usize) -> String {
        let address = self.share.shared.address;
        match kind {
            RECEIVE | SEND => format!("connection {index} to {address}"),
            _ => format!("firehose connection {index} to {address}"),
        }
    }

    fn wait(&self, window: &Window<'_>) -> Wait {
        let due = match &self.pacing {
            Pacing::Rate(pace) if pace.next_due() < window.end() => Some(pace.next_due()),
            _ => None,
        };
        self.share.shared.wait(due.into_iter().chain(window.next_mark()).min())
    }

    fn send_due(&mut self, window: &mut Window<'_>) {
        let clock = self.share.shared.clock;
        let end = window.end();
        while let Pacing::Rate(pace) = &mut self.pacing {
            let now = clock.now();
            if pace.next_due() >= end {
                return;
            }
            let Some((lane, due)) = pace.take(now) else {
                return;
            };
            if pace.is_late(due, now) {
                window.count_late(due);
            }
            self.owe(lane, due);
            self.send(lane);
        }
    }

    fn received(
        &mut self,
        lane: usize,
        completion: &Completion,
        window: &mut Window<'_>,
        now: u64,
    ) -> Result<()> {
        match completion.result() {
            Ok(0) => bail!("lost: the server closed it"),
            Ok(length) => {
                let buffer = completion.buffer().context("a receive without a buffer")?;
                let bytes = self.ring.shared_bytes(buffer, length);
                let replies = self.lanes[lane].give_back(self.share.shared.pattern, bytes)?;
                self.ring.recycle(buffer);
                self.outstanding -= replies;
                for _ in 0..replies {
                    let since = self.lanes[lane].finish_oldest();
                    match self.pacing {
                        Pacing::Proof => {}
                        Pacing::Rate(_) => window.count_due_reply(since, now),
                        Pacing::Closed => {
                            window.count_reply(since, now);
                            if !window.is_closed() {
                                self.owe(lane, now);
                            }
                        }
                    }
                }
                self.send(lane);
            }
            // The buffers will do again after this turn.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("lost"),
        }
        if !completion.more() {
            self.ring.receive_again_and_again(lane as u32, tag(RECEIVE, lane));
        }
        Ok(())
    }

    fn sent(&mut self, lane: usize, completion: &Completion) -> Result<()> {
        let length = completion.result().context("lost while sending")?;
        if !self.quiet {
            self.lanes[lane].sent(length)?;
            self.send(lane);
        }
        Ok(())
    }

    fn hose_file(&self, hose: usize) -> u32 {
        (self.lanes.len() + hose) as u32
    }

    fn hose_send(&mut self, hose: usize) {
        let bytes = self.hoses[hose].take(self.share.shared.pattern, HOSE_CHUNK);
        self.ring.send(self.hose_file(hose), bytes, tag(HOSE_SEND, hose), false);
    }

    fn hose_sent(&mut self, hose: usize, completion: &Completion, window: &Window<'_>) -> Result<()> {
        let length = completion.result().context("lost while sending")?;
        if length != HOSE_CHUNK {
            bail!("lost: {length} of {HOSE_CHUNK} bytes were sent");
        }
        if !window.is_closed() {
            self.hose_send(hose);
        }
        Ok(())
    }

    /// One receive at a time, so that a turn stays short and the measured replies are seen soon.
    fn hose_receive(&mut self, hose: usize) {
        self.ring.receive(self.hose_file(hose), hose, tag(HOSE_RECEIVE, hose));
    }

    fn hose_received(&mut self, hose: usize, completion: &Completion, window: &mut Window<'_>) -> Result<()> {
        let length = completion.result().context("lost")?;
        if length == 0 {
            bail!("lost: the server closed it");
        }
        let bytes = self.ring.own_bytes(hose, length);
        self.hoses[hose].give_back(self.share.shared.pattern, bytes)?;
        window.count_firehose(length);
        self.hose_receive(hose);
        Ok(())
    }
}
