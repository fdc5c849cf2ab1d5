use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Problem;

/// Buckets of latency: one for each power of two of microseconds.
pub const LATENCY_BUCKETS: usize = 32;

/// What one reactor's handler counts. It alone writes, with plain stores; anybody reads.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: Counter,
    /// By the first digit of the status.
    statuses: [Counter; 5],
    body_in: Counter,
    body_out: Counter,
    problems: [Counter; Problem::COUNT],
    aborted: Counter,
    upgrades: Counter,
    latency: [Counter; LATENCY_BUCKETS],
    latency_sum: Counter,
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    #[inline]
    pub(super) fn request(&self) {
        self.requests.add(1);
    }

    pub(super) fn body_in(&self, bytes: usize) {
        self.body_in.add(bytes as u64);
    }

    pub(super) fn problem(&self, problem: Problem) {
        self.problems[problem.index()].add(1);
    }

    pub(super) fn aborted(&self) {
        self.aborted.add(1);
    }

    /// A connection goes over to another protocol, behind a reply of this status.
    pub(super) fn upgrade(&self, status: u16, nanos: u64) {
        self.upgrades.add(1);
        self.reply(status, 0, nanos);
    }

    /// A reply of the layer itself is complete.
    pub(super) fn refusal(&self, status: u16) {
        self.status(status);
    }

    #[inline]
    fn status(&self, status: u16) {
        if let Some(class) = self.statuses.get((status / 100).wrapping_sub(1) as usize) {
            class.add(1);
        }
    }

    /// A reply is complete.
    #[inline]
    pub(super) fn reply(&self, status: u16, body: u64, nanos: u64) {
        self.status(status);
        self.body_out.add(body);
        // Most are answered in the turn in which they came.
        if nanos == 0 {
            return self.latency[0].add(1);
        }
        self.latency[bucket(nanos)].add(1);
        self.latency_sum.add(nanos);
    }

    pub(super) fn snapshot(&self) -> CountersSnapshot {
        let mut latency = [0; LATENCY_BUCKETS];
        latency.iter_mut().zip(&self.latency).for_each(|(to, from)| *to = from.get());
        let mut problems = [0; Problem::COUNT];
        problems.iter_mut().zip(&self.problems).for_each(|(to, from)| *to = from.get());
        let mut statuses = [0; 5];
        statuses.iter_mut().zip(&self.statuses).for_each(|(to, from)| *to = from.get());
        CountersSnapshot {
            requests: self.requests.get(),
            statuses,
            body_in: self.body_in.get(),
            body_out: self.body_out.get(),
            problems,
            aborted: self.aborted.get(),
            upgrades: self.upgrades.get(),
            latency,
            latency_sum: Duration::from_nanos(self.latency_sum.get()),
        }
    }
}

/// Bucket 0 holds what took less than a microsecond, bucket n less than 2^n, the last all the rest.
fn bucket(nanos: u64) -> usize {
    let micros = nanos / 1000;
    ((u64::BITS - micros.leading_zeros()) as usize).min(LATENCY_BUCKETS - 1)
}

/// What the handler of a reactor, or of all of them, has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountersSnapshot {
    /// Requests whose head was whole and in order.
    pub requests: u64,
    /// Replies by the class of their status: 1xx (only 101), 2xx, 3xx, 4xx, 5xx. Those of the layer itself count; one
    /// that is cut short because the rest of the request does not come is none.
    pub statuses: [u64; 5],
    /// Bytes of bodies received, without their framing.
    pub body_in: u64,
    /// Bytes of bodies of complete replies, without their framing. A reply is complete when the server has taken all of
    /// it: what is waiting then to be sent, and what a file has, is counted.
    pub body_out: u64,
    /// Requests that the layer refused, by [`Problem::index`].
    pub problems: [u64; Problem::COUNT],
    /// Requests whose exchange did not come to its end: the connection did before.
    pub aborted: u64,
    /// Connections that went over to another protocol.
    pub upgrades: u64,
    /// Replies of the service by the time from the head to the end of the reply: bucket 0 holds those of less than a microsecond,
    /// bucket n those of less than 2^n, the last all the rest. Times are those of the reactor's turns: a request that
    /// is answered in the turn in which it came took none.
    pub latency: [u64; LATENCY_BUCKETS],
    /// All these times together.
    pub latency_sum: Duration,
}

impl CountersSnapshot {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        let sum = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        self.requests += other.requests;
        sum(&mut self.statuses, &other.statuses);
        self.body_in += other.body_in;
        self.body_out += other.body_out;
        sum(&mut self.problems, &other.problems);
        self.aborted += other.aborted;
        self.upgrades += other.upgrades;
        sum(&mut self.latency, &other.latency);
        self.latency_sum += other.latency_sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_its_bound_says() {
        assert_eq!([0, 999, 1_000, 1_999, 2_000, 4_000, 1_000_000].map(bucket), [0, 0, 1, 1, 2, 3, 10]);
        assert_eq!(bucket(u64::MAX), LATENCY_BUCKETS - 1);
    }
}
