//! Connections: how they are opened, proven, lost, and opened again.

use std::sync::atomic::Ordering;

use corelane::{CloseReason, Conn, ConnId, ConnectError, ConnectProblem, Core, Dial, SocketOptions};

use super::{Alarm, Generator, Outlet, Session, Stage, Wanted};
use crate::outcome::Status;
use crate::plan::{End, Load, Mischief};
use crate::protocol::Purpose;

/// How long to leave a full queue of a Unix listener alone, in nanoseconds.
const RETRY: u64 = 1_000_000;

/// The receive buffer of a connection that reads slowly, so that the kernel does not read in its place.
const SLOW_RECEIVE_BUFFER: usize = 4_096;

impl Generator {
    /// Dials as many of the measured connections as may be under way.
    pub(super) fn dial_more(&mut self, core: &mut Core<'_>, now: u64) {
        while self.to_dial > 0 && self.connecting < self.window && !self.has_failed {
            self.to_dial -= 1;
            self.dial(core, Wanted { antic: None, since: now });
        }
    }

    pub(super) fn dial(&mut self, core: &mut Core<'_>, wanted: Wanted) {
        self.connecting += usize::from(wanted.antic.is_none());
        self.try_to_dial(core, wanted);
    }

    fn try_to_dial(&mut self, core: &mut Core<'_>, wanted: Wanted) {
        let common = &self.common;
        let (plan, sources) = (&common.plan, &common.share.sources);
        let mut dial = Dial::to(common.target.clone()).timeout(plan.connect_timeout).token(wanted.token());
        let number = self.dialed as usize * common.reactors + self.index;
        if let Some(source) = sources.get(number % sources.len().max(1)) {
            dial = dial.from_ip((*source).into());
        }
        if wanted.antic.and_then(|member| self.crowd.kind(member)) == Some(Mischief::SlowReader) {
            let receive_buffer = Some(SLOW_RECEIVE_BUFFER);
            dial = dial.options(SocketOptions { receive_buffer, ..SocketOptions::default() });
        }
        self.dialed += 1;
        core.connect(&dial);
    }

    /// Dials again what found a full queue: each is wanted since it was, not since now.
    pub(super) fn dial_again(&mut self, core: &mut Core<'_>) {
        for since in std::mem::take(&mut self.turned_away) {
            self.try_to_dial(core, Wanted { antic: None, since });
        }
    }

    /// Dials what is due, where connections come over time.
    pub(super) fn dial_due(&mut self, core: &mut Core<'_>, now: u64) {
        let Some(mut arrivals) = self.arrivals.take() else { return };
        while let Some(due) = arrivals.take(now) {
            if self.to_dial > 0 {
                self.to_dial -= 1;
                self.dial(core, Wanted { antic: None, since: due });
            }
        }
        if let Some(next) = arrivals.next_due() {
            self.set_alarm(core, next, Alarm::Dial, 0);
        }
        self.arrivals = Some(arrivals);
    }

    /// A measured connection stands.
    pub(super) fn lane_opened(&mut self, conn: &mut Conn<'_>, since: u64, number: u64, now: u64) -> Session {
        self.recorder.connected(since, now);
        self.common.gauges.opened.fetch_add(1, Ordering::Relaxed);
        let lane = self.vacant.pop().unwrap_or_else(|| {
            self.lanes.push(None);
            (self.lanes.len() - 1) as u32
        });
        self.lanes[lane as usize] = Some(conn.id());
        let mut session = Session::new(number, lane);
        match self.common.plan.load {
            Load::Churn { requests, end } => {
                self.connecting -= 1;
                session.left = requests;
                let at_once = if end == End::Half { requests } else { 1 };
                for _ in 0..at_once {
                    session.left -= 1;
                    self.ask(Outlet::Own(conn), &mut session, now, now, Purpose::Load);
                }
                if end == End::Half {
                    conn.finish();
                }
            }
            Load::Storm { .. } if self.stage != Stage::Opening => {
                self.ask(Outlet::Own(conn), &mut session, since, now, Purpose::Wave);
            }
            _ if self.stage == Stage::Opening => {
                self.ask(Outlet::Own(conn), &mut session, now, now, Purpose::Proof);
            }
            _ => {
                self.connecting -= 1;
                self.start_lane(conn, &mut session, now);
                self.check_finished();
            }
        }
        session
    }

    /// The reply to a connection's first message is there.
    pub(super) fn proven(&mut self, core: &mut Core<'_>, now: u64) {
        self.connecting = self.connecting.saturating_sub(1);
        self.dial_more(core, now);
        self.check_opened();
        self.check_finished();
    }

    pub(super) fn dial_failed(&mut self, error: &ConnectError, core: &mut Core<'_>) {
        if self.stage == Stage::Done {
            return;
        }
        if error.problem == ConnectProblem::QueueFull {
            // It is still connecting, as one whose SYN the kernel sends again.
            if self.turned_away.is_empty() {
                self.set_alarm(core, self.common.now() + RETRY, Alarm::Again, 0);
            }
            return self.turned_away.push(Wanted::of_token(error.token).since);
        }
        self.connecting = self.connecting.saturating_sub(1);
        let status = match error.problem {
            ConnectProblem::PortsExhausted
            | ConnectProblem::DescriptorsExhausted
            | ConnectProblem::NoSuchLocalAddress
            | ConnectProblem::Option { .. } => Status::HostLimits,
            _ => Status::Unreachable,
        };
        let stand = self.recorder.standing;
        self.fail_with(status, format!("{error} ({stand} of its connections stand on this reactor)"));
    }

    /// A measured connection has ended: as it should, or not.
    pub(super) fn lane_closed(
        &mut self,
        id: ConnId,
        session: &Session,
        reason: CloseReason,
        core: &mut Core<'_>,
    ) {
        self.recorder.standing = self.recorder.standing.saturating_sub(1);
        self.outstanding = self.outstanding.saturating_sub(session.talk.unanswered());
        if let Some(lane) = self.lanes.get_mut(session.lane as usize).filter(|lane| **lane == Some(id)) {
            *lane = None;
            self.vacant.push(session.lane);
        }
        if !session.is_ending {
            self.recorder.tally.counts.connections_lost += 1;
            self.recorder.error(reason.name());
            let unanswered = session.talk.unanswered();
            let text =
                format!("the target ended connection {id} ({reason}) with {unanswered} requests unanswered");
            return self.fail_with(Status::Unreachable, text);
        }
        let now = self.common.now();
        let is_struck = matches!(self.common.plan.load, Load::Storm { .. });
        if session.talk.unanswered() > 0 && !is_struck {
            self.recorder.error("unanswered");
            self.give_up(session, now);
        }
        match self.common.plan.load {
            Load::Churn { end, .. } => {
                let is_good = matches!(reason, CloseReason::Local | CloseReason::PeerClosed);
                self.recorder.tally.ended_badly += u64::from(end != End::Rst && !is_good);
                self.recorder.tally.cycles += u64::from(self.stage == Stage::Loading);
                if self.stage == Stage::Loading && now < self.recorder.end() {
                    self.dial(core, Wanted { antic: None, since: now });
                }
            }
            Load::Storm { .. } => {}
            // It announced that it would close behind its last reply: another takes its place.
            _ if self.stage == Stage::Loading || !self.backlog.is_empty() => {
                self.dial(core, Wanted { antic: None, since: now })
            }
            _ => {}
        }
        self.check_finished();
    }
}
