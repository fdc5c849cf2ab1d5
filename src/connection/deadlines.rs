//! When a connection must be looked at, computed anew from its state each time it is asked: messages do not
//! touch the wheel, they only leave a tick behind.

use super::{CloseReason, Connection, Flag, Phase};
use crate::time::TICK;

/// The deadlines of a server in ticks; 0 stands for none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Periods {
    pub(crate) first_byte: u32,
    pub(crate) idle: u32,
    pub(crate) write_stall: u32,
    pub(crate) linger: u32,
    /// As `write_stall`, for what is flushed before a close; never 0.
    pub(crate) flush_stall: u32,
    /// Bytes a second of an incomplete message, and the ticks before that is looked at.
    pub(crate) minimum_rate: u32,
    pub(crate) grace: u32,
}

/// What has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Dial,
    Linger,
    Close(CloseReason),
}

impl Connection {
    /// The tick at which the next deadline runs out if nothing happens until then, and what it is.
    pub(crate) fn deadline(&self, periods: &Periods, now: u32) -> Option<(u32, Due)> {
        let mut next: Option<(u32, Due)> = None;
        let mut consider = |at: u32, due: Due| {
            // Ticks wrap after 497 days: they are compared by their distance from now.
            let sooner =
                next.is_none_or(|(other, _)| (at.wrapping_sub(now) as i32) < other.wrapping_sub(now) as i32);
            if sooner {
                next = Some((at, due));
            }
        };
        match self.phase {
            Phase::Dead => {}
            Phase::Connecting => {
                if self.until != 0 {
                    consider(self.until, Due::Dial);
                }
            }
            Phase::Lingering => consider(self.until, Due::Linger),
            Phase::Open | Phase::Flushing => {
                if let Some(at) = self.stalls_at(periods) {
                    consider(at, Due::Close(CloseReason::WriteStall));
                }
                if self.phase == Phase::Open {
                    if self.idle != 0 && self.may_be_idle(periods) {
                        consider(self.active.wrapping_add(self.idle), Due::Close(CloseReason::Idle));
                    }
                    let is_awaited = !self.has(Flag::FirstByte) && !self.has(Flag::Dialed);
                    if periods.first_byte != 0 && is_awaited && !self.is_suspended() {
                        let at = self.opened.wrapping_add(periods.first_byte);
                        consider(at, Due::Close(CloseReason::FirstByte));
                    }
                    if let Some(at) = self.too_slow_at(periods) {
                        consider(at, Due::Close(CloseReason::MinimumRate));
                    }
                }
            }
        }
        next
    }

    /// Whether it is the peer of whom nothing comes. What waits for the peer to take it has a deadline of its own,
    /// if there is one; and of whom we read nothing, because the handler has paused it, nothing can come.
    fn may_be_idle(&self, periods: &Periods) -> bool {
        if self.has(Flag::Blocked) { periods.write_stall == 0 } else { !self.is_suspended() }
    }

    fn stalls_at(&self, periods: &Periods) -> Option<u32> {
        let outbox = self.outbox.as_ref()?;
        let period = match self.phase {
            Phase::Flushing => periods.flush_stall,
            _ => periods.write_stall,
        };
        (period != 0 && self.has(Flag::Blocked)).then(|| outbox.progress.wrapping_add(period))
    }

    /// When the rate of an incomplete message falls below the minimum, if nothing more of it comes.
    fn too_slow_at(&self, periods: &Periods) -> Option<u32> {
        let inbox = self.inbox.as_ref()?;
        if periods.minimum_rate == 0 || self.is_suspended() || self.has(Flag::Ended) {
            return None;
        }
        let per_second = 1_000_000_000 / TICK;
        let paid_for = inbox.received.saturating_mul(per_second) / u64::from(periods.minimum_rate);
        let paid_for = u32::try_from(paid_for).unwrap_or(u32::MAX / 2).min(u32::MAX / 2);
        Some(inbox.since.wrapping_add(paid_for.max(periods.grace)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Inbox, Outbox, Peer};

    const NOW: u32 = u32::MAX - 10; // ticks are about to wrap

    fn open() -> Connection {
        let mut connection = Connection::new(Peer::Unix, Phase::Open, NOW);
        connection.set(Flag::FirstByte);
        connection
    }

    fn inbox(received: u64) -> Box<Inbox> {
        let mut inbox = Box::<Inbox>::default();
        (inbox.since, inbox.received) = (NOW, received);
        inbox
    }

    #[test]
    fn without_deadlines_nothing_is_due() {
        assert_eq!(open().deadline(&Periods::default(), NOW), None);
    }

    #[test]
    fn the_earliest_deadline_is_next() {
        let mut connection = open();
        connection.clear(Flag::FirstByte);
        connection.idle = 300;
        let periods = Periods { first_byte: 100, ..Periods::default() };
        let expected = (NOW.wrapping_add(100), Due::Close(CloseReason::FirstByte));
        assert_eq!(connection.deadline(&periods, NOW), Some(expected));
        connection.set(Flag::FirstByte);
        let expected = (NOW.wrapping_add(300), Due::Close(CloseReason::Idle));
        assert_eq!(connection.deadline(&periods, NOW), Some(expected));
    }

    #[test]
    fn a_write_stalls_only_while_the_kernel_is_full() {
        let mut connection = open();
        connection.outbox = Some(Box::new(Outbox::default()));
        connection.outbox.as_mut().unwrap().progress = NOW;
        let periods = Periods { write_stall: 50, ..Periods::default() };
        assert_eq!(connection.deadline(&periods, NOW), None);
        connection.set(Flag::Blocked);
        let expected = (NOW.wrapping_add(50), Due::Close(CloseReason::WriteStall));
        assert_eq!(connection.deadline(&periods, NOW), Some(expected));
    }

    #[test]
    fn bytes_buy_time_at_the_minimum_rate() {
        let mut connection = open();
        let periods = Periods { minimum_rate: 1000, grace: 20, ..Periods::default() };
        connection.inbox = Some(inbox(10));
        assert_eq!(connection.deadline(&periods, NOW).map(|due| due.0), Some(NOW.wrapping_add(20)));
        // 5,000 bytes at 1,000 a second: five seconds, 500 ticks.
        connection.inbox = Some(inbox(5000));
        assert_eq!(connection.deadline(&periods, NOW).map(|due| due.0), Some(NOW.wrapping_add(500)));
        connection.set(Flag::Paused);
        assert_eq!(connection.deadline(&periods, NOW), None, "we do not read: not the peer's fault");
    }
}
