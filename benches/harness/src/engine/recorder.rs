//! Latencies and counts of one reactor, in the window that is measured.
//!
//! Only numbers come in: times in nanoseconds since the beginning of the run. So it can be checked against
//! arithmetic.

use hdrhistogram::Histogram;

use super::tally::{Tally, Wave};
use crate::latency::{Latencies, histogram};
use crate::protocol::{Answered, Purpose};
use crate::result::Second;

const SECOND: u64 = 1_000_000_000;

/// Latencies until the last byte and until the first, which are nearly always the same: only where they are not is
/// more than one number recorded.
#[derive(Debug)]
struct Pair {
    last: Histogram<u64>,
    /// Those of `last` whose first byte came earlier, and when.
    split: Histogram<u64>,
    first: Histogram<u64>,
}

impl Pair {
    fn new() -> Self {
        Self { last: histogram(), split: histogram(), first: histogram() }
    }

    #[inline]
    fn record(&mut self, since: u64, first_byte: u64, now: u64, count: u64) {
        let latency = now.saturating_sub(since).max(1);
        self.last.saturating_record_n(latency, count);
        if first_byte < now {
            self.split.saturating_record_n(latency, count);
            self.first.saturating_record_n(first_byte.saturating_sub(since).max(1), count);
        }
    }

    /// Until the first byte, until the last.
    fn finish(self) -> (Latencies, Latencies) {
        let mut first = self.last.clone();
        // Every one of them was recorded in `last` too, so both succeed.
        let _ = first.subtract(&self.split);
        let _ = first.add(&self.first);
        (first.into(), self.last.into())
    }
}

/// Where in its run a reactor is.
#[derive(Debug)]
pub(crate) struct Recorder {
    begin: u64,
    end: u64,
    /// Whether messages are due at times of their own.
    is_open: bool,
    /// Whether connections are opened all the time, not only before the window.
    connects_count: bool,
    raw: Pair,
    corrected: Pair,
    connect: Histogram<u64>,
    /// When each was due, and what came of it.
    waves: Vec<(u64, Wave)>,
    wave_latency: Histogram<u64>,
    second: Second,
    second_latency: Histogram<u64>,
    next_second: u64,
    /// Seconds of the series that were told of already.
    told: usize,
    /// Connections that stand.
    pub(crate) standing: u64,
    pub(crate) tally: Tally,
}

impl Recorder {
    pub(crate) fn new(is_open: bool, connects_count: bool) -> Self {
        Self {
            begin: u64::MAX,
            end: u64::MAX,
            is_open,
            connects_count,
            raw: Pair::new(),
            corrected: Pair::new(),
            connect: histogram(),
            waves: Vec::new(),
            wave_latency: histogram(),
            second: Second::default(),
            second_latency: histogram(),
            next_second: u64::MAX,
            told: 0,
            standing: 0,
            tally: Tally::default(),
        }
    }

    /// Sets the window.
    pub(crate) fn measure(&mut self, begin: u64, end: u64) {
        (self.begin, self.end) = (begin, end);
        self.next_second = begin + SECOND;
    }

    /// When it closes.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn begin(&self) -> u64 {
        self.begin
    }

    fn holds(&self, time: u64) -> bool {
        (self.begin..self.end).contains(&time)
    }

    /// Takes note of the time: seconds that are over are put away.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64) {
        if now >= self.next_second {
            self.put_seconds_away(now);
        }
    }

    #[cold]
    fn put_seconds_away(&mut self, now: u64) {
        while now >= self.next_second && self.next_second < self.end {
            self.put_second_away();
            self.next_second += SECOND;
        }
        if self.next_second >= self.end && now >= self.end {
            self.put_second_away();
            self.next_second = u64::MAX;
        }
    }

    /// A second that is over and was not asked for yet.
    pub(crate) fn next_to_tell(&mut self) -> Option<&Second> {
        let second = self.tally.series.get(self.told)?;
        self.told += 1;
        Some(second)
    }

    fn put_second_away(&mut self) {
        let index = self.second.second;
        self.second.connections = Some(self.standing);
        if !self.second_latency.is_empty() {
            // Kept to 1%: there may be many of them.
            let mut latency = Latencies::coarse();
            for bucket in self.second_latency.iter_recorded() {
                latency.record_many(bucket.value_iterated_to(), bucket.count_at_value());
            }
            self.second.latency = Some(latency);
            self.second_latency.reset();
        }
        let next = Second { second: index + 1, ..Second::default() };
        let done = std::mem::replace(&mut self.second, next);
        self.tally.series.push(done);
    }

    /// Messages were sent which nothing but the reply before them had made due.
    #[inline]
    pub(crate) fn sent_many(&mut self, count: u64, bytes: usize, now: u64) {
        if self.holds(now) {
            self.tally.counts.sent += count;
            self.tally.counts.sent_bytes += bytes as u64;
            self.second.sent += count;
        }
    }

    /// A message that was due at `intended` was sent.
    #[inline]
    pub(crate) fn sent(&mut self, intended: u64, now: u64, bytes: usize, late_after: u64) -> bool {
        let belongs = self.holds(if self.is_open { intended } else { now });
        if !belongs {
            return false;
        }
        self.tally.counts.sent += 1;
        self.tally.counts.sent_bytes += bytes as u64;
        self.second.sent += 1;
        let is_late = now.saturating_sub(intended) > late_after;
        if is_late && self.is_open {
            self.tally.counts.late += 1;
            self.second.late += 1;
        }
        is_late
    }

    /// A reply of the load came.
    #[inline]
    pub(crate) fn answered(&mut self, reply: &Answered, now: u64) {
        self.advance(now);
        if reply.request.purpose == Purpose::Wave {
            return self.answered_wave(reply, now);
        }
        self.replied((reply.request.intended, reply.request.sent), reply.first_byte, 1, now);
    }

    /// Replies came, to `count` requests that were due and sent at these `times` alike.
    ///
    /// In an open loop their latency belongs to the window in which the requests were due, however late the replies
    /// are: were only the replies within the window counted, the slowest ones would be missing.
    #[inline]
    pub(crate) fn replied(&mut self, times: (u64, u64), first_byte: u64, count: u64, now: u64) {
        let (intended, sent) = times;
        let is_within = self.holds(now);
        let is_of_window = self.holds(if self.is_open { intended } else { sent });
        self.count(is_within, is_of_window, count);
        if self.is_open && self.holds(intended) {
            self.corrected.record(intended, first_byte, now, count);
            self.raw.record(sent, first_byte, now, count);
            if is_within {
                self.second_latency.saturating_record_n(now.saturating_sub(intended).max(1), count);
            }
        } else if !self.is_open && is_within {
            self.raw.record(sent, first_byte, now, count);
            self.second_latency.saturating_record_n(now.saturating_sub(sent).max(1), count);
        }
    }

    /// A message was sent that no connection had room for when it was due.
    pub(crate) fn held_back(&mut self, due: u64, now: u64, is_late: bool) {
        if self.holds(due) {
            self.tally.held_back += u64::from(is_late);
            self.tally.sent_behind += u64::from(now >= self.end);
        }
    }

    /// A message that was due is not going to be sent. Its latency would have been longer than it has waited by `now`.
    pub(crate) fn never_sent(&mut self, due: u64, now: u64) {
        self.tally.counts.never_sent += u64::from(self.holds(due));
        self.never_answered(due, now);
    }

    /// As [`Recorder::never_sent`], of one that was sent and has no reply.
    pub(crate) fn never_answered(&mut self, due: u64, now: u64) {
        if self.is_open && self.holds(due) {
            self.corrected.record(due, now, now, 1);
        }
    }

    /// A wave was sent on so many connections.
    pub(crate) fn wave(&mut self, due: u64, sent: u64) {
        self.waves.push((due, Wave { sent, ..Wave::default() }));
    }

    fn answered_wave(&mut self, reply: &Answered, now: u64) {
        let intended = reply.request.intended;
        let latency = now.saturating_sub(intended).max(1);
        if let Some((_, wave)) = self.waves.iter_mut().rev().find(|(due, _)| *due == intended) {
            wave.answered += 1;
            wave.last_ns = wave.last_ns.max(latency);
        }
        self.wave_latency.saturating_record(latency);
    }

    /// Counts replies that come within the window or not, to messages of it or not.
    #[inline]
    fn count(&mut self, is_within: bool, is_of_window: bool, replies: u64) {
        let counts = &mut self.tally.counts;
        let if_so = |is: bool| if is { replies } else { 0 };
        counts.received += if_so(is_within);
        self.second.received += if_so(is_within);
        counts.carried_in += if_so(is_within && !is_of_window);
        counts.outstanding += if_so(is_of_window && !is_within);
    }

    /// A delivery of what was published at `intended`, where nothing is asked for.
    pub(crate) fn delivered(&mut self, intended: u64, sent: u64, now: u64) {
        self.advance(now);
        self.count(self.holds(now), self.holds(intended), 1);
        if self.holds(intended) {
            self.corrected.record(intended, now, now, 1);
            self.raw.record(sent, now, now, 1);
            if self.holds(now) {
                self.second_latency.saturating_record(now.saturating_sub(intended).max(1));
            }
        }
    }

    /// A connection that was wanted at `since` stands.
    pub(crate) fn connected(&mut self, since: u64, now: u64) {
        self.advance(now);
        self.standing += 1;
        self.tally.counts.connections_opened += 1;
        self.second.opened += u64::from(self.holds(now));
        if !self.connects_count || self.holds(now) {
            self.connect.saturating_record(now.saturating_sub(since).max(1));
        }
    }

    /// Something went wrong that does not end the run.
    pub(crate) fn error(&mut self, kind: &str) {
        *self.tally.counts.errors.entry(kind.to_owned()).or_default() += 1;
        self.second.errors += 1;
    }

    /// What was counted, at the end or at whatever time the run is stopped.
    pub(crate) fn finish(mut self, now: u64) -> Tally {
        self.advance(now);
        let measured = now.min(self.end).saturating_sub(self.begin);
        if self.next_second != u64::MAX && measured > 0 {
            self.put_second_away();
        }
        let mut tally = self.tally;
        tally.seconds = measured as f64 / 1e9;
        let (first, last) = self.raw.finish();
        let filled = |latencies: Latencies| (latencies.count() > 0).then_some(latencies);
        tally.phases.reply.raw = filled(last);
        tally.phases.first_byte.raw = filled(first);
        if self.is_open {
            let (first, last) = self.corrected.finish();
            tally.phases.reply.corrected = filled(last);
            tally.phases.first_byte.corrected = filled(first);
        }
        tally.phases.connect.raw = filled(self.connect.into());
        tally.waves = self.waves.into_iter().map(|(_, wave)| wave).collect();
        tally.wave_latency = self.wave_latency.into();
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Pending;

    const MS: u64 = 1_000_000;

    fn reply(intended: u64, sent: u64, first_byte: u64) -> Answered {
        Answered { request: Pending::at(intended, sent, Purpose::Load), first_byte, is_last: false }
    }

    /// A window from 1 s to 3 s.
    fn recorder(is_open: bool) -> Recorder {
        let mut recorder = Recorder::new(is_open, false);
        recorder.measure(SECOND, 3 * SECOND);
        recorder
    }

    #[test]
    fn a_closed_loop_counts_the_replies_within_the_window() {
        let mut recorder = recorder(false);
        for now in [SECOND - MS, SECOND + MS, 2 * SECOND + MS, 3 * SECOND + MS] {
            recorder.sent(now - MS / 2, now - MS / 2, 64, MS);
            recorder.answered(&reply(now - MS / 2, now - MS / 2, now), now);
        }
        let tally = recorder.finish(4 * SECOND);
        assert_eq!((tally.counts.sent, tally.counts.received, tally.counts.late), (2, 2, 0));
        assert_eq!((tally.counts.carried_in, tally.counts.outstanding), (0, 0));
        assert_eq!(tally.seconds, 2.0);
        assert!(tally.phases.reply.corrected.is_none());
        assert_eq!(tally.phases.reply.raw.unwrap().count(), 2);
        let series: Vec<_> = tally.series.iter().map(|second| (second.second, second.received)).collect();
        assert_eq!(series, [(0, 1), (1, 1)]);
    }

    #[test]
    fn an_open_loop_counts_latencies_where_they_were_due() {
        let mut recorder = recorder(true);
        recorder.sent(SECOND - MS, SECOND + MS, 64, MS);
        recorder.answered(&reply(SECOND - MS, SECOND + MS, 0), SECOND + 2 * MS);
        assert!(recorder.sent(2 * SECOND, 2 * SECOND + 5 * MS, 64, MS));
        recorder.answered(&reply(2 * SECOND, 2 * SECOND + 5 * MS, 0), 5 * SECOND);
        let tally = recorder.finish(5 * SECOND);
        assert_eq!((tally.counts.sent, tally.counts.late, tally.counts.received), (1, 1, 1));
        assert_eq!((tally.counts.carried_in, tally.counts.outstanding), (1, 1));
        let (corrected, raw) = (tally.phases.reply.corrected.unwrap(), tally.phases.reply.raw.unwrap());
        assert_eq!((corrected.count(), raw.count()), (1, 1));
        assert!(corrected.max_us().unwrap() > raw.max_us().unwrap());
    }

    /// Ten are sent every 100 ms and answered after 250 ms, but for the last two.
    #[test]
    fn what_was_sent_and_what_was_answered_add_up() {
        for is_open in [false, true] {
            let mut recorder = recorder(is_open);
            for sent in (0..33).map(|place| SECOND / 2 + place * 100 * MS) {
                for _ in 0..10 {
                    recorder.sent(sent, sent, 64, MS);
                    recorder.answered(&reply(sent, sent, 0), sent + 250 * MS);
                }
            }
            for _ in 0..2 {
                recorder.sent(3 * SECOND - MS, 3 * SECOND - MS, 64, MS);
            }
            let mut counts = recorder.finish(4 * SECOND).counts;
            counts.settle();
            assert_eq!((counts.sent, counts.received), (202, 200));
            assert_eq!((counts.carried_in, counts.outstanding, counts.unanswered), (20, 20, 2));
            let answered = counts.received + counts.outstanding + counts.unanswered;
            assert_eq!(counts.sent + counts.carried_in, answered);
        }
    }

    #[test]
    fn the_first_byte_is_told_apart() {
        let mut recorder = recorder(false);
        let start = 2 * SECOND;
        recorder.answered(&reply(start, start, start + 2 * MS), start + 2 * MS);
        recorder.answered(&reply(start, start, start + MS), start + 50 * MS);
        let tally = recorder.finish(3 * SECOND);
        let (first, last) = (tally.phases.first_byte.raw.unwrap(), tally.phases.reply.raw.unwrap());
        assert_eq!((first.count(), last.count()), (2, 2));
        assert!((2_000.0..2_004.0).contains(&first.max_us().unwrap()));
        assert!((50_000.0..50_100.0).contains(&last.max_us().unwrap()));
    }

    /// A target that stands still for a second while 1,000 messages a second are due: the latencies from when they
    /// were due are spread evenly up to that second, whatever was recorded from when they were sent.
    #[test]
    fn a_pause_shows_in_full_from_the_intended_start() {
        let mut recorder = recorder(true);
        for index in 0..2_000_u64 {
            let intended = SECOND + index * MS;
            let answered = if index < 1_000 { 2 * SECOND } else { intended + MS / 10 };
            recorder.answered(&reply(intended, answered - MS / 10, answered), answered);
        }
        let tally = recorder.finish(3 * SECOND);
        let corrected = tally.phases.reply.corrected.unwrap();
        // Within the three digits that a histogram keeps.
        for (quantile, expected) in
            [(0.75, 500_000.0), (0.9, 800_000.0), (0.999, 998_000.0), (1.0, 1_000_000.0)]
        {
            let got = corrected.quantile_us(quantile).unwrap();
            assert!((got - expected).abs() <= expected / 1_000.0, "{quantile}: {got}");
        }
        assert!(tally.phases.reply.raw.unwrap().max_us().unwrap() < 101.0);
    }

    /// Those that were due and have no reply are in the corrected latencies with what is known of theirs.
    #[test]
    fn what_was_never_sent_or_answered_has_waited_until_the_end() {
        let mut recorder = recorder(true);
        recorder.sent(2 * SECOND, 2 * SECOND, 64, MS);
        recorder.never_answered(2 * SECOND, 4 * SECOND);
        recorder.never_sent(3 * SECOND - MS, 4 * SECOND);
        // Of the warm-up.
        recorder.never_sent(SECOND - MS, 4 * SECOND);
        let tally = recorder.finish(4 * SECOND);
        assert_eq!((tally.counts.sent, tally.counts.never_sent), (1, 1));
        assert!(tally.phases.reply.raw.is_none());
        for latencies in [tally.phases.reply.corrected.unwrap(), tally.phases.first_byte.corrected.unwrap()] {
            assert_eq!(latencies.count(), 2);
            let (least, most) = (latencies.quantile_us(0.0).unwrap(), latencies.max_us().unwrap());
            assert!((1e6..1.003e6).contains(&least) && (2e6..2.003e6).contains(&most), "{least} {most}");
        }
    }

    #[test]
    fn what_was_held_back_may_be_sent_behind_the_window() {
        let mut recorder = recorder(true);
        recorder.held_back(SECOND - MS, 2 * SECOND, true);
        recorder.held_back(2 * SECOND, 2 * SECOND + MS, false);
        recorder.held_back(2 * SECOND, 3 * SECOND, true);
        let tally = recorder.finish(4 * SECOND);
        assert_eq!((tally.held_back, tally.sent_behind), (1, 1));
    }

    #[test]
    fn a_run_that_is_stopped_has_what_it_had() {
        let mut recorder = recorder(false);
        recorder.answered(&reply(SECOND, SECOND, 0), SECOND + 100 * MS);
        let tally = recorder.finish(SECOND + 500 * MS);
        assert_eq!((tally.seconds, tally.counts.received, tally.series.len()), (0.5, 1, 1));
        let before = Recorder::new(false, false).finish(77);
        assert_eq!((before.seconds, before.series.len()), (0.0, 0));
    }

    #[test]
    fn waves_have_latencies_of_their_own() {
        let mut recorder = recorder(false);
        recorder.wave(SECOND, 2);
        let mut answer = reply(SECOND, SECOND, 0);
        answer.request.purpose = Purpose::Wave;
        recorder.answered(&answer, SECOND + MS);
        recorder.answered(&answer, SECOND + 3 * MS);
        let tally = recorder.finish(3 * SECOND);
        assert_eq!(tally.waves, [Wave { sent: 2, answered: 2, last_ns: 3 * MS }]);
        assert_eq!((tally.wave_latency.count(), tally.counts.received), (2, 0));
    }
}
