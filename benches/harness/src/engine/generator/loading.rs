//! The load models: what is sent when, and what follows a reply.

use corelane::{Conn, Core, Flow, Sessions};

use super::{Alarm, Generator, Outlet, Session, Stage, Wanted};
use crate::plan::{Arrivals, End, Load, Profile, Spread, Think};
use crate::protocol::{Answered, Purpose};

/// How long a storm waits before it looks again whether all are back from the last, in nanoseconds.
const NOT_BACK: u64 = 1_000_000;

impl Generator {
    /// Begins the load.
    pub(super) fn go(&mut self, start: u64, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        if self.stage != Stage::Waiting {
            return;
        }
        self.stage = Stage::Loading;
        let common = std::sync::Arc::clone(&self.common);
        let plan = &common.plan;
        let begin = start + plan.warmup.as_nanos() as u64;
        let end = begin + plan.duration.as_nanos() as u64;
        self.recorder.measure(begin, end);
        self.gauge.go();
        self.set_alarm(core, begin, Alarm::Begin, 0);
        self.set_alarm(core, end, Alarm::End, 0);
        let now = common.now();
        if let Some(waves) = plan.waves {
            self.waves_left = waves.rounds;
            self.next_wave = begin + waves.first.as_nanos() as u64;
            self.set_alarm(core, self.next_wave, Alarm::Wave, 0);
        }
        match &plan.load {
            Load::Closed { .. } if plan.ramp_up.is_some() => {
                let seconds = plan.ramp_up.unwrap_or_default().as_secs_f64();
                let profile = Profile::constant(plan.connections as f64 / seconds, seconds);
                self.to_dial = self.quota;
                let part = (self.quota, plan.connections);
                self.arrivals = self.position.pace(plan, profile, Arrivals::Even, begin, part);
                self.dial_due(core, now);
            }
            Load::Closed { depth, .. } => {
                for lane in 0..self.active as u32 {
                    (0..*depth).for_each(|_| self.ask_on(lane, sessions, core, now, now, Purpose::Load));
                }
            }
            Load::Open { profile, arrivals, .. } => {
                self.free.extend(0..self.active as u32);
                for (_, session) in sessions.iter_mut().filter(|(_, session)| session.antic.is_none()) {
                    session.is_listed = (session.lane as usize) < self.active;
                }
                let profile = profile.after_warmup(plan.warmup.as_secs_f64());
                let part = (self.active, plan.active_in_all());
                self.pace = self.position.pace(plan, profile, *arrivals, start, part);
                self.send_due(sessions, core, now);
            }
            Load::Churn { .. } => {
                (0..self.quota).for_each(|_| self.dial(core, Wanted { antic: None, since: now }));
            }
            Load::Storm { every, rounds, .. } => {
                self.waves_left = *rounds;
                self.next_wave = begin + every.as_nanos() as u64 / 2;
                self.set_alarm(core, self.next_wave, Alarm::Storm, 0);
            }
            Load::Idle | Load::Broadcast { .. } => {}
        }
    }

    /// Sends a request on a lane, if that stands.
    fn ask_on(
        &mut self,
        lane: u32,
        sessions: &mut Sessions<Session>,
        core: &mut Core<'_>,
        intended: u64,
        now: u64,
        purpose: Purpose,
    ) {
        let Some(id) = self.lanes.get(lane as usize).copied().flatten() else { return };
        if let Some(session) = sessions.get_mut(id) {
            self.ask(Outlet::Other(core, id), session, intended, now, purpose);
        }
    }

    /// Begins the load on a connection that came while it goes on.
    pub(super) fn start_lane(&mut self, conn: &mut Conn<'_>, session: &mut Session, now: u64) {
        let goes_on = self.stage == Stage::Loading && now < self.recorder.end();
        match self.common.plan.load {
            Load::Closed { depth, .. } if goes_on && (session.lane as usize) < self.active => {
                for _ in 0..depth {
                    self.ask(Outlet::Own(conn), session, now, now, Purpose::Load);
                }
            }
            Load::Open { .. } => self.has_room(conn, session, now),
            _ => {}
        }
    }

    /// What follows a reply.
    #[inline]
    pub(super) fn replied(
        &mut self,
        conn: &mut Conn<'_>,
        session: &mut Session,
        reply: &Answered,
        now: u64,
    ) -> Flow {
        self.outstanding -= 1;
        self.answers += 1;
        if reply.is_last {
            session.is_ending = true;
        }
        if reply.request.purpose == Purpose::Proof {
            self.proven(conn.core(), now);
            return Flow::Continue;
        }
        self.recorder.tally.answered += 1;
        self.gauge.replied(1);
        self.recorder.answered(reply, now);
        if reply.request.purpose == Purpose::Wave {
            if matches!(self.common.plan.load, Load::Storm { .. }) {
                self.proven(conn.core(), now);
            }
            if self.common.plan.load.is_open() && !reply.is_last {
                self.has_room(conn, session, now);
            }
            self.check_finished();
            return Flow::Continue;
        }
        let goes_on = self.stage == Stage::Loading && now < self.recorder.end();
        match self.common.plan.load {
            Load::Closed { think: None, .. } if goes_on && !reply.is_last => {
                self.ask(Outlet::Own(conn), session, now, now, Purpose::Load);
            }
            Load::Closed { think: Some(think), .. } if goes_on => {
                let at = now + self.pause(think);
                self.set_alarm(conn.core(), at, Alarm::Thought, session.lane);
            }
            Load::Open { .. } if !reply.is_last => {
                self.has_room(conn, session, now);
            }
            Load::Churn { end, .. } => return self.cycle(conn, session, end, now),
            _ => {}
        }
        self.check_finished();
        Flow::Continue
    }

    /// A pause between a reply and the next request, in nanoseconds.
    fn pause(&mut self, think: Think) -> u64 {
        let mean = think.mean.as_nanos() as f64;
        match think.spread {
            Spread::Constant => mean as u64,
            Spread::Exponential => (-mean * (1.0 - self.rng.f64()).ln()) as u64,
        }
    }

    /// A connection has paused long enough.
    pub(super) fn thought(
        &mut self,
        lane: u32,
        sessions: &mut Sessions<Session>,
        core: &mut Core<'_>,
        now: u64,
    ) {
        if self.stage == Stage::Loading && now < self.recorder.end() {
            self.ask_on(lane, sessions, core, now, now, Purpose::Load);
        }
    }

    /// A connection that comes and goes has its reply.
    fn cycle(&mut self, conn: &mut Conn<'_>, session: &mut Session, end: End, now: u64) -> Flow {
        if session.left > 0 {
            session.left -= 1;
            self.ask(Outlet::Own(conn), session, now, now, Purpose::Load);
            return Flow::Continue;
        }
        match end {
            End::Fin => {
                session.is_ending = true;
                Flow::Close
            }
            End::Rst => {
                session.is_ending = true;
                Flow::Abort
            }
            // The target ends it when it has seen the end of our side and sent every reply.
            End::Half => Flow::Continue,
        }
    }

    /// Sends what is due, as far as there is room for it.
    pub(super) fn send_due(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>, now: u64) {
        let Some(mut pace) = self.pace.take() else { return };
        while let Some(due) = pace.take(now) {
            self.backlog.push_back(due);
        }
        if let Some(next) = pace.next_due() {
            self.set_alarm(core, next, Alarm::Due, 0);
        }
        self.pace = Some(pace);
        while let Some(&due) = self.backlog.front() {
            let Some(lane) = self.free.pop_front() else { return };
            let Some(id) = self.lanes[lane as usize] else { continue };
            let Some(session) = sessions.get_mut(id) else { continue };
            self.backlog.pop_front();
            self.ask(Outlet::Other(core, id), session, due, now, Purpose::Load);
            session.is_listed = session.talk.unanswered() < self.depth();
            if session.is_listed {
                self.free.push_back(lane);
            }
        }
    }

    fn depth(&self) -> usize {
        match self.common.plan.load {
            Load::Open { depth, .. } => depth,
            _ => usize::MAX,
        }
    }

    /// A connection can take another message: one that had to wait, or one that is due later.
    fn has_room(&mut self, conn: &mut Conn<'_>, session: &mut Session, now: u64) {
        if session.is_listed || session.lane as usize >= self.active {
            return;
        }
        while session.talk.unanswered() < self.depth() {
            let Some(due) = self.backlog.pop_front() else {
                session.is_listed = true;
                self.free.push_back(session.lane);
                return;
            };
            let late_before = self.recorder.tally.counts.late;
            if self.ask(Outlet::Own(conn), session, due, now, Purpose::Load) {
                let is_late = self.recorder.tally.counts.late > late_before;
                self.recorder.held_back(due, now, is_late);
            }
        }
    }

    /// Closes the window: nothing is sent any more but waves that are still to come, and what had no room before.
    pub(super) fn end_window(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>, now: u64) {
        self.send_due(sessions, core, now);
        self.close_window(now);
        self.recorder.advance(now);
        self.to_dial = 0;
        self.stage = Stage::Draining;
        self.check_finished();
    }

    /// Has every connection send one message.
    pub(super) fn wave(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>, now: u64) {
        let due = self.next_wave;
        let mut sent = 0;
        for lane in 0..self.lanes.len() {
            let Some(id) = self.lanes[lane] else { continue };
            let Some(session) = sessions.get_mut(id) else { continue };
            sent += u64::from(self.ask(Outlet::Other(core, id), session, due, now, Purpose::Wave));
        }
        self.recorder.wave(due, sent);
        self.after_wave(core, Alarm::Wave);
    }

    fn after_wave(&mut self, core: &mut Core<'_>, alarm: Alarm) {
        self.waves_left = self.waves_left.saturating_sub(1);
        let every = match (&self.common.plan.load, self.common.plan.waves) {
            (Load::Storm { every, .. }, _) => *every,
            (_, Some(waves)) => waves.every,
            _ => return,
        };
        self.next_wave += every.as_nanos() as u64;
        if self.waves_left > 0 {
            self.set_alarm(core, self.next_wave, alarm, 0);
        }
        self.check_finished();
    }

    /// A storm comes, once all are back from the last.
    pub(super) fn storm(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>, now: u64) {
        if self.connecting > 0 {
            self.next_wave = self.next_wave.max(now + NOT_BACK);
            return self.set_alarm(core, self.next_wave, Alarm::Storm, 0);
        }
        self.strike(sessions, core, now);
    }

    /// Ends all connections at once, and dials as many.
    ///
    /// A request that is to be under way is sent in the same callback: no reply can be taken in before the end.
    fn strike(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>, now: u64) {
        let Load::Storm { end, in_flight, .. } = self.common.plan.load else { return };
        let (mut ended, mut owed) = (0, 0);
        for lane in 0..self.lanes.len() {
            let Some(id) = self.lanes[lane].take() else { continue };
            self.vacant.push(lane as u32);
            if let Some(session) = sessions.get_mut(id) {
                if in_flight {
                    self.ask(Outlet::Now(core, id), session, now, now, Purpose::Load);
                    let is_sent = core.pending_output(id) == Some(0);
                    owed += u64::from(is_sent && session.talk.unanswered() > 0);
                }
                session.is_ending = true;
                ended += 1;
            }
            match end {
                End::Rst => core.abort(id),
                End::Fin | End::Half => core.close(id),
            };
        }
        self.recorder.tally.cycles += ended;
        self.recorder.tally.owed_at_the_end += owed;
        self.recorder.wave(now, ended);
        (0..ended).for_each(|_| self.dial(core, Wanted { antic: None, since: now }));
        self.after_wave(core, Alarm::Storm);
    }
}
