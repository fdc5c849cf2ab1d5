//! The stretch of a slice that is measured.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::cpu::{CpuClock, CpuList};
use crate::latency;

/// Nanoseconds since a moment that all threads of a slice share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What one thread counted while its window was open.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) latencies: Histogram<u64>,
    pub(super) messages: u64,
    pub(super) late: u64,
    pub(super) firehose_bytes: u64,
    pub(super) elapsed: Duration,
    pub(super) client_cpu: Duration,
    pub(super) server_cpu: Duration,
    pub(super) busy_cpu: Duration,
}

/// The clocks at one end of the window.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: u64,
    client: Duration,
    server: Duration,
    busy: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Before,
    Open(Mark),
    Closed,
}

/// Whose CPU time is taken at both ends of the window, beside the thread's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched<'a> {
    pub(super) server: CpuClock,
    /// All the CPUs in use; a single thread watches them, as it takes a while.
    pub(super) cpus: Option<&'a CpuList>,
}

/// The window of one thread: it opens after the warm-up, and closes a slice later.
#[derive(Debug)]
pub(super) struct Window<'a> {
    begin: u64,
    end: u64,
    state: State,
    watched: Watched<'a>,
    tally: Tally,
}

impl<'a> Window<'a> {
    pub(super) fn new(start: u64, warmup: Duration, slice: Duration, watched: Watched<'a>) -> Self {
        let begin = start + warmup.as_nanos() as u64;
        Self {
            begin,
            end: begin + slice.as_nanos() as u64,
            state: State::Before,
            watched,
            tally: Tally {
                latencies: latency::histogram(),
                messages: 0,
                late: 0,
                firehose_bytes: 0,
                elapsed: Duration::ZERO,
                client_cpu: Duration::ZERO,
                server_cpu: Duration::ZERO,
                busy_cpu: Duration::ZERO,
            },
        }
    }

    /// A window that never opens.
    pub(super) fn never(watched: Watched<'a>) -> Self {
        let never = Duration::from_nanos(u64::MAX / 4);
        Self::new(0, never, never, watched)
    }

    /// Opens or closes the window if it is time to.
    pub(super) fn advance(&mut self, now: u64) -> Result<()> {
        match self.state {
            State::Before if now >= self.begin => self.state = State::Open(self.mark(now)?),
            State::Open(opened) if now >= self.end => {
                let closed = self.mark(now)?;
                self.tally.elapsed = Duration::from_nanos(closed.at - opened.at);
                self.tally.client_cpu = closed.client.saturating_sub(opened.client);
                self.tally.server_cpu = closed.server.saturating_sub(opened.server);
                self.tally.busy_cpu = closed.busy.saturating_sub(opened.busy);
                self.state = State::Closed;
            }
            _ => {}
        }
        Ok(())
    }

    fn mark(&self, at: u64) -> Result<Mark> {
        Ok(Mark {
            at,
            client: CpuClock::of_this_thread().read()?,
            server: self.watched.server.read()?,
            busy: self.watched.cpus.map_or(Ok(Duration::ZERO), CpuList::busy)?,
        })
    }

    /// When the window opens or closes next; `None` once it has closed.
    pub(super) fn next_mark(&self) -> Option<u64> {
        match self.state {
            State::Before => Some(self.begin),
            State::Open(_) => Some(self.end),
            State::Closed => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// When the window is planned to close.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Counts a reply to a message that the reply before had allowed.
    pub(super) fn count_reply(&mut self, sent: u64, now: u64) {
        if self.is_open() {
            self.tally.messages += 1;
            self.tally.latencies.saturating_record(now.saturating_sub(sent));
        }
    }

    /// Counts a reply to a message that was due at the `intended` time.
    ///
    /// Its latency belongs to the slice in which it was due, however late the reply is: were only
    /// the replies within the window counted, the slowest ones would be missing.
    pub(super) fn count_due_reply(&mut self, intended: u64, now: u64) {
        if self.is_open() {
            self.tally.messages += 1;
        }
        if (self.begin..self.end).contains(&intended) {
            self.tally.latencies.saturating_record(now.saturating_sub(intended));
        }
    }

    /// Counts a message that was sent too long after the `intended` time.
    pub(super) fn count_late(&mut self, intended: u64) {
        if (self.begin..self.end).contains(&intended) {
            self.tally.late += 1;
        }
    }

    pub(super) fn count_firehose(&mut self, bytes: usize) {
        if self.is_open() {
            self.tally.firehose_bytes += bytes as u64;
        }
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window from 1,000 to 3,000 ns.
    fn window() -> Window<'static> {
        Window::new(
            500,
            Duration::from_nanos(500),
            Duration::from_nanos(2_000),
            Watched { server: CpuClock::of_this_thread(), cpus: None },
        )
    }

    #[test]
    fn only_the_open_window_counts() {
        let mut window = window();
        for now in [900, 1_100, 2_900, 3_100] {
            window.advance(now).unwrap();
            window.count_reply(now - 50, now);
            window.count_firehose(10);
        }
        assert!(window.is_closed());
        let tally = window.into_tally();
        assert_eq!((tally.messages, tally.firehose_bytes), (2, 20));
        assert_eq!(tally.latencies.len(), 2);
        assert_eq!(tally.latencies.max(), 50);
        assert_eq!(tally.elapsed, Duration::from_nanos(2_000));
    }

    #[test]
    fn a_due_message_counts_where_it_was_due() {
        let mut window = window();
        window.advance(1_000).unwrap();
        window.count_due_reply(900, 1_200);
        window.count_late(900);
        window.count_due_reply(2_500, 2_600);
        window.advance(3_000).unwrap();
        window.count_due_reply(2_900, 7_900);
        window.count_late(2_900);
        window.count_due_reply(3_000, 8_000);
        let tally = window.into_tally();
        assert_eq!((tally.messages, tally.late), (2, 1));
        assert_eq!(tally.latencies.len(), 2);
        assert!((5_000..5_010).contains(&tally.latencies.max()));
    }

    #[test]
    fn marks_follow_each_other() {
        let mut window = window();
        assert_eq!(window.next_mark(), Some(1_000));
        window.advance(1_000).unwrap();
        assert_eq!(window.next_mark(), Some(3_000));
        window.advance(3_000).unwrap();
        assert_eq!(window.next_mark(), None);
    }
}
