//! The stretch of a slice that is measured.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cpu::{CpuClock, CpuList};
use crate::engine::{Gauge, ReactorUse, Recorder, Tally, Usage};

/// Nanoseconds since shortly before a moment that all threads of a slice share: never 0, which stands for no time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64 + 1
    }

    /// When it was `time`.
    pub(super) fn instant(self, time: u64) -> Instant {
        self.0 + Duration::from_nanos(time - 1)
    }
}

/// What one thread counted while its window was open, and the CPU time it took.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) tally: Tally,
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
    Closed { opened: Mark, closed: Mark, used: Usage },
}

/// Whose CPU time is taken at both ends of the window, beside the thread's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched<'a> {
    pub(super) server: Option<CpuClock>,
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
    firehose_bytes: u64,
    pub(super) recorder: Recorder,
    pub(super) gauge: Gauge,
}

impl<'a> Window<'a> {
    /// A window that is still to be planned.
    pub(super) fn new(watched: Watched<'a>, recorder: Recorder, gauge: Gauge) -> Self {
        Self {
            begin: u64::MAX,
            end: u64::MAX,
            state: State::Before,
            watched,
            firehose_bytes: 0,
            recorder,
            gauge,
        }
    }

    /// Has it open after a warm-up, and close a slice later.
    pub(super) fn plan(&mut self, start: u64, warmup: Duration, slice: Duration) {
        self.begin = start + warmup.as_nanos() as u64;
        self.end = self.begin + slice.as_nanos() as u64;
        self.recorder.measure(self.begin, self.end);
        self.gauge.go();
    }

    /// Opens or closes the window if it is time to.
    pub(super) fn advance(&mut self, now: u64) -> Result<()> {
        self.recorder.advance(now);
        match self.state {
            State::Before if now >= self.begin => {
                self.gauge.begin();
                self.state = State::Open(self.mark(now)?);
            }
            State::Open(opened) if now >= self.end => {
                let closed = self.mark(now)?;
                self.state = State::Closed { opened, closed, used: self.gauge.end() };
            }
            _ => {}
        }
        Ok(())
    }

    fn mark(&self, at: u64) -> Result<Mark> {
        Ok(Mark {
            at,
            client: CpuClock::of_this_thread().read()?,
            server: self.watched.server.map_or(Ok(Duration::ZERO), CpuClock::read)?,
            busy: self.watched.cpus.map_or(Ok(Duration::ZERO), CpuList::busy)?,
        })
    }

    /// When the window opens or closes next; `None` once it has closed.
    pub(super) fn next_mark(&self) -> Option<u64> {
        match self.state {
            State::Before => Some(self.begin),
            State::Open(_) => Some(self.end),
            State::Closed { .. } => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Counts a reply of so many bytes, all of them compared, to a message of as many.
    pub(super) fn count_reply(&mut self, sent: u64, bytes: usize, now: u64) {
        self.recorder.sent_many(1, bytes, sent);
        self.recorder.replied((sent, sent), now, 1, now);
        self.recorder.tally.counts.received_bytes += bytes as u64;
        self.recorder.tally.counts.verified_bytes += bytes as u64;
        self.recorder.tally.asked += 1;
        self.answered(1);
    }

    /// Counts replies, whenever they come.
    pub(super) fn answered(&mut self, replies: u64) {
        self.recorder.tally.answered += replies;
        self.gauge.replied(replies);
    }

    pub(super) fn count_firehose(&mut self, bytes: usize) {
        if matches!(self.state, State::Open(_)) {
            self.firehose_bytes += bytes as u64;
        }
    }

    /// What was counted, at the end or at whatever time the run is stopped.
    pub(super) fn finish(mut self, now: u64) -> Result<Part> {
        let (opened, closed, used) = match self.state {
            State::Closed { opened, closed, used } => (opened, closed, used),
            State::Open(opened) => (opened, self.mark(now)?, self.gauge.end()),
            State::Before => {
                let mark = self.mark(now)?;
                (mark, mark, Usage::default())
            }
        };
        let elapsed = Duration::from_nanos(closed.at - opened.at);
        let client_cpu = closed.client.saturating_sub(opened.client);
        let connections = self.recorder.standing;
        let mut tally = self.recorder.finish(now);
        tally.counts.settle();
        tally.reactors = vec![ReactorUse {
            seconds: elapsed.as_secs_f64(),
            cpu_s: client_cpu.as_secs_f64(),
            // A kernel that does not tell leaves zero.
            wait_s: used.wait.as_secs_f64(),
            connections,
            messages: tally.counts.received,
        }];
        (tally.toll, tally.counted) = (Some(self.gauge.toll()), self.gauge.counted);
        Ok(Part {
            tally,
            firehose_bytes: self.firehose_bytes,
            elapsed,
            client_cpu,
            server_cpu: closed.server.saturating_sub(opened.server),
            busy_cpu: closed.busy.saturating_sub(opened.busy),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window from 1,000 to 3,000 ns.
    fn window() -> Window<'static> {
        let watched = Watched { server: Some(CpuClock::of_this_thread()), cpus: None };
        let mut window = Window::new(watched, Recorder::new(false, false), Gauge::new(true));
        window.plan(500, Duration::from_nanos(500), Duration::from_nanos(2_000));
        window
    }

    #[test]
    fn only_the_open_window_counts() {
        let mut window = window();
        for now in [900, 1_100, 2_900, 3_100] {
            window.advance(now).unwrap();
            window.count_reply(now - 50, 64, now);
            window.count_firehose(10);
        }
        assert!(window.is_closed());
        let part = window.finish(4_000).unwrap();
        assert_eq!((part.tally.counts.received, part.firehose_bytes), (2, 20));
        let latencies = part.tally.phases.reply.raw.unwrap();
        assert_eq!((latencies.count(), latencies.quantile_ns(1.0)), (2, Some(50)));
        assert_eq!(part.elapsed, Duration::from_nanos(2_000));
    }

    #[test]
    fn a_window_that_is_cut_short_has_what_it_had() {
        let mut window = window();
        window.advance(1_000).unwrap();
        window.count_reply(1_000, 64, 1_200);
        let part = window.finish(1_500).unwrap();
        assert_eq!((part.tally.counts.received, part.elapsed), (1, Duration::from_nanos(500)));
        let part = self::window().finish(900).unwrap();
        assert_eq!((part.tally.counts.received, part.elapsed), (0, Duration::ZERO));
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
