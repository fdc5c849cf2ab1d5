//! The handler of one of the client's reactors.
//!
//! It dials its connections and proves each by a first message (`dialing`), sends what the load model says
//! (`loading`), and has the crowd misbehave (`crowd`). Only this file knows in which order callbacks come.

mod antics;
mod dialing;
mod loading;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Error;
use corelane::{
    CloseReason, Conn, ConnId, ConnectError, Core, Flow, Handler, Input, Open, Sessions, TimerId,
};

use super::crowd::Crowd;
use super::pace::{Pace, Position};
use super::recorder::Recorder;
use super::session::{Outlet, Session, Wanted};
use super::usage::Gauge;
use super::{Common, Event, Order, ReactorUse};
use crate::outcome::{Status, ends};
use crate::plan::{End, Load};
use crate::protocol::{Purpose, Wire};

/// Where a reactor is in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Connections are being opened.
    Opening,
    /// They all stand.
    Waiting,
    Loading,
    /// Nothing more falls due. What no connection had room for is still sent, and replies are outstanding.
    Draining,
    Done,
}

/// What timers are for, in the upper half of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    /// Messages are due.
    Due,
    /// A connection has thought enough; its lane is in the lower half of the key.
    Thought,
    /// The window opens.
    Begin,
    /// The window closes.
    End,
    Wave,
    Storm,
    /// Connections are due to be dialed.
    Dial,
    /// Those that were turned away may be dialed again.
    Again,
}

impl Alarm {
    const ALL: [Self; 8] =
        [Self::Due, Self::Thought, Self::Begin, Self::End, Self::Wave, Self::Storm, Self::Dial, Self::Again];

    fn key(self, lane: u32) -> u64 {
        (self as u64) << 32 | u64::from(lane)
    }
}

/// The handler of one reactor.
pub(in crate::engine) struct Generator {
    common: Arc<Common>,
    index: usize,
    position: Position,
    wire: Wire,
    stage: Stage,
    recorder: Recorder,
    /// Measured connections that this reactor is to have.
    quota: usize,
    /// Those of them that carry the load.
    active: usize,
    /// Measured connections that are still to be dialed.
    to_dial: usize,
    /// Those that were dialed and are not proven yet.
    connecting: usize,
    /// When those of them were wanted that found the queue of a Unix listener full, and are to be dialed again.
    turned_away: Vec<u64>,
    window: usize,
    /// Connections dialed so far, the crowd's included.
    dialed: u64,
    /// Those opened so far.
    opened: u64,
    /// The measured connections.
    lanes: Vec<Option<ConnId>>,
    /// Which of them have carried load.
    loaded: Vec<bool>,
    vacant: Vec<u32>,
    /// When connections come, if they come over time.
    arrivals: Option<Pace>,
    pace: Option<Pace>,
    /// Lanes that have room for a message, in turn.
    free: VecDeque<u32>,
    /// Times of messages that no lane had room for.
    backlog: VecDeque<u64>,
    /// Requests without a reply.
    outstanding: usize,
    waves_left: u32,
    next_wave: u64,
    crowd: Crowd,
    rng: fastrand::Rng,
    late_after: u64,
    gauge: Gauge,
    used: ReactorUse,
    /// Replies since they were last shown.
    answers: u64,
    has_failed: bool,
}

impl Generator {
    pub(in crate::engine) fn new(common: Arc<Common>, index: usize) -> Self {
        let (plan, share) = (&common.plan, &common.share);
        let quota = common.part(share.connections, index);
        // As connections are: the first of each process come before the second ones.
        let position = Position {
            index: index * share.processes + share.process,
            of: share.processes * super::reactors(plan),
        };
        let comes_and_goes = matches!(plan.load, Load::Churn { .. });
        Self {
            index,
            position,
            wire: Wire::new(plan, &common.material),
            stage: Stage::Opening,
            recorder: Recorder::new(plan.load.is_open(), comes_and_goes),
            quota,
            active: common.part(share.active, index),
            to_dial: if plan.prove { quota } else { 0 },
            connecting: 0,
            turned_away: Vec::new(),
            window: (plan.connect_window / common.reactors).max(1),
            dialed: 0,
            opened: 0,
            lanes: Vec::new(),
            loaded: Vec::new(),
            vacant: Vec::new(),
            arrivals: None,
            pace: None,
            free: VecDeque::new(),
            backlog: VecDeque::new(),
            outstanding: 0,
            waves_left: 0,
            next_wave: 0,
            crowd: Crowd::new(plan, common.crowd_of(index)),
            rng: fastrand::Rng::with_seed(plan.seed ^ position.index as u64),
            late_after: plan.late_after.as_nanos() as u64,
            gauge: Gauge::new(!plan.warmup.is_zero()),
            used: ReactorUse::default(),
            answers: 0,
            has_failed: false,
            common,
        }
    }

    /// Whoever waits for events has gone only if the run is over.
    fn tell(&self, event: Event) {
        let _ = self.common.events.send(event);
    }

    /// Ends the run; only the first failure is told.
    fn fail(&mut self, error: Error) {
        if self.stage != Stage::Done && !std::mem::replace(&mut self.has_failed, true) {
            self.tell(Event::Failed(error));
        }
    }

    fn fail_with(&mut self, status: Status, text: String) {
        self.fail(ends(status, text));
    }

    fn set_alarm(&self, core: &mut Core<'_>, at: u64, alarm: Alarm, lane: u32) {
        let after = at.saturating_sub(self.common.at(core.now()));
        core.set_timer(std::time::Duration::from_nanos(after), alarm.key(lane));
    }

    /// Tells that all connections stand, once they do.
    fn check_opened(&mut self) {
        let all = self.to_dial == 0 && self.connecting == 0 && self.crowd.is_settled();
        if self.stage == Stage::Opening && all {
            self.stage = Stage::Waiting;
            self.gauge.count_calls();
            self.tell(Event::Opened);
        }
    }

    /// Ends the reactor's part once nothing is outstanding.
    fn check_finished(&mut self) {
        let churns = matches!(self.common.plan.load, Load::Churn { .. });
        let is_idle = self.outstanding == 0 && self.waves_left == 0 && self.connecting == 0;
        let is_idle = is_idle && self.backlog.is_empty() && (!churns || self.recorder.standing == 0);
        if self.stage == Stage::Draining && is_idle {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let now = self.common.now();
        if self.stage == Stage::Loading {
            // Stopped in the middle of the window.
            self.close_window(now);
        }
        self.stage = Stage::Done;
        let is_open = self.common.plan.load.is_open();
        let mut recorder = std::mem::replace(&mut self.recorder, Recorder::new(is_open, false));
        let until = recorder.end().min(now);
        let not_taken = self.pace.as_mut().map(|pace| pace.take_before(until)).into_iter().flatten();
        for due in self.backlog.drain(..).chain(not_taken) {
            recorder.never_sent(due, now);
        }
        let mut tally = recorder.finish(now);
        tally.counts.connections_asked = self.quota as u64;
        tally.counts.verified_bytes = self.wire.verified();
        tally.counts.settle();
        tally.crowd = self.crowd.tally();
        tally.loaded = self.loaded.iter().filter(|is_loaded| **is_loaded).count() as u64;
        self.used.messages = tally.counts.received;
        tally.reactors = vec![self.used];
        (tally.toll, tally.counted) = (Some(self.gauge.toll()), self.gauge.counted);
        self.tell(Event::Finished(Box::new(tally)));
    }

    fn open_window(&mut self) {
        self.gauge.begin();
    }

    fn close_window(&mut self, now: u64) {
        let used = self.gauge.end();
        let seconds = now.saturating_sub(self.recorder.begin()) as f64 / 1e9;
        self.used = ReactorUse {
            seconds,
            cpu_s: used.cpu.as_secs_f64(),
            wait_s: used.wait.as_secs_f64(),
            connections: self.recorder.standing,
            messages: 0,
        };
    }

    fn tick(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        let now = self.common.now();
        self.recorder.advance(now);
        self.show_answers();
        while let Some(second) = self.recorder.next_to_tell() {
            let told = Event::Second(Box::new(second.clone()));
            let _ = self.common.events.send(told);
        }
        if self.stage != Stage::Done {
            self.misbehave(sessions, core, now);
            self.look_for_late_replies(sessions, now);
            self.look_for_lost_time(now);
        }
    }

    /// Gives up what no connection has had room for since the window closed.
    fn look_for_lost_time(&mut self, now: u64) {
        let limit = self.common.plan.deadline.as_nanos() as u64;
        if self.stage == Stage::Draining && now.saturating_sub(self.recorder.end()) > limit {
            self.backlog.drain(..).for_each(|due| self.recorder.never_sent(due, now));
            self.check_finished();
        }
    }

    /// Takes note of requests of the load that will have no reply.
    fn give_up(&mut self, session: &Session, now: u64) {
        for request in session.talk.pending().filter(|request| request.purpose == Purpose::Load) {
            self.recorder.never_answered(request.intended, now);
        }
    }

    fn look_for_late_replies(&mut self, sessions: &Sessions<Session>, now: u64) {
        let deadline = self.common.plan.deadline;
        let limit = deadline.as_nanos() as u64;
        let churns = matches!(self.common.plan.load, Load::Churn { .. });
        if churns && self.stage == Stage::Draining && now.saturating_sub(self.recorder.end()) > limit {
            let standing = self.recorder.standing;
            let text =
                format!("the target did not end {standing} connections within {deadline:?} of their client");
            return self.fail_with(Status::Unreachable, text);
        }
        let is_late = |session: &Session| {
            let oldest = session.talk.oldest().filter(|_| session.antic.is_none());
            oldest.is_some_and(|request| now.saturating_sub(request.sent) > limit)
        };
        let late = sessions.iter().filter(|(_, session)| is_late(session)).count();
        if late > 0 {
            let text =
                format!("the target stopped answering: no reply on {late} connections within {deadline:?}");
            self.fail_with(Status::Unreachable, text);
        }
    }
}

impl Handler for Generator {
    type Session = Session;
    type Message = Order;

    fn on_start(&mut self, core: &mut Core<'_>) {
        let now = self.common.now();
        self.dial_crowd(core, now);
        self.dial_more(core, now);
        self.check_opened();
    }

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        let now = self.common.now();
        let wanted = Wanted::of_token(conn.dial_token().unwrap_or_default());
        self.opened += 1;
        let number = (self.opened - 1) * self.position.of as u64 + self.position.index as u64;
        match wanted.antic {
            Some(member) => Open::Accept(self.crowd_opened(conn, member, number, now)),
            None if self.stage == Stage::Done => Open::Refuse,
            None => Open::Accept(self.lane_opened(conn, wanted.since, number, now)),
        }
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let now = self.common.now();
        let all = input.peek();
        self.recorder.tally.counts.received_bytes += all.len() as u64;
        if session.antic.is_some() {
            return self.crowd_heard(conn, session, input, now);
        }
        let mut rest = all;
        let flow = loop {
            match self.wire.hear(&mut session.talk, &mut rest, now) {
                Ok(None) => break Flow::Continue,
                Ok(Some(reply)) => match self.replied(conn, session, &reply, now) {
                    Flow::Continue => {}
                    flow => break flow,
                },
                Err(wrong) => {
                    let text = format!("connection {}: {wrong}", conn.id());
                    self.fail_with(Status::WrongData, text);
                    break Flow::Abort;
                }
            }
        };
        input.consume(all.len() - rest.len());
        flow
    }

    fn on_eof(&mut self, _: &mut Conn<'_>, session: &mut Session, _: &mut Input<'_>) -> Flow {
        let is_half = matches!(self.common.plan.load, Load::Churn { end: End::Half, .. });
        if is_half && session.left == 0 && session.talk.unanswered() == 0 {
            session.is_ending = true;
        }
        Flow::Close
    }

    fn on_close(&mut self, id: ConnId, session: Session, reason: CloseReason, core: &mut Core<'_>) {
        if session.antic.is_some() {
            self.crowd_closed(id, &session);
        } else if self.stage != Stage::Done {
            self.lane_closed(id, &session, reason, core);
        }
    }

    fn on_connect_error(&mut self, _: ConnId, error: ConnectError, core: &mut Core<'_>) {
        let wanted = Wanted::of_token(error.token);
        match wanted.antic {
            Some(member) => {
                self.crowd.refused(member);
                self.check_opened();
            }
            None => self.dial_failed(&error, core),
        }
    }

    fn on_message(&mut self, order: Order, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        match order {
            Order::Go { start } => self.go(start, sessions, core),
            Order::Stop if self.stage != Stage::Done => {
                let now = self.common.now();
                sessions
                    .iter()
                    .filter(|(_, session)| session.antic.is_none())
                    .for_each(|(_, session)| self.give_up(session, now));
                self.finish();
            }
            Order::Stop => {}
        }
    }

    fn on_timer(&mut self, _: TimerId, key: u64, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        if self.stage == Stage::Done {
            return;
        }
        let Some(alarm) = Alarm::ALL.get((key >> 32) as usize) else { return };
        let now = self.common.now();
        match alarm {
            Alarm::Due => self.send_due(sessions, core, now),
            Alarm::Thought => self.thought(key as u32, sessions, core, now),
            Alarm::Begin => self.open_window(),
            Alarm::End => self.end_window(sessions, core, now),
            Alarm::Wave => self.wave(sessions, core, now),
            Alarm::Storm => self.storm(sessions, core, now),
            Alarm::Dial => self.dial_due(core, now),
            Alarm::Again => self.dial_again(core),
        }
    }

    fn on_tick(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.tick(sessions, core);
    }
}

impl Generator {
    /// Sends a connection's next request.
    #[inline]
    fn ask(
        &mut self,
        outlet: Outlet<'_, '_>,
        session: &mut Session,
        intended: u64,
        now: u64,
        purpose: Purpose,
    ) -> bool {
        let mut bytes = 0;
        let taken = self.wire.ask(&mut session.talk, (intended, now), purpose, |parts| {
            bytes = parts.iter().map(|part| part.len()).sum();
            outlet.write(parts)
        });
        if !taken {
            self.recorder.error("not taken");
            if purpose == Purpose::Load {
                self.recorder.never_sent(intended, now);
            }
            return false;
        }
        self.outstanding += 1;
        self.recorder.tally.asked += u64::from(purpose != Purpose::Proof);
        if purpose == Purpose::Load {
            if !std::mem::replace(&mut session.is_loaded, true) {
                self.note_load(session.lane);
            }
            self.recorder.sent(intended, now, bytes, self.late_after);
        }
        true
    }

    #[cold]
    fn note_load(&mut self, lane: u32) {
        let most = self.loaded.len().max(lane as usize + 1);
        self.loaded.resize(most, false);
        self.loaded[lane as usize] = true;
    }

    /// Lets others see how many replies there were: seldom, as the reactors share the place.
    fn show_answers(&mut self) {
        let answers = std::mem::take(&mut self.answers);
        self.common.gauges.answered.fetch_add(answers, Ordering::Relaxed);
    }
}
