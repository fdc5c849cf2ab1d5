//! One publisher and many subscribers: every line must reach each of them, once, whole, and in order.
//!
//! A line says its number, when it was due and when it was sent, so whoever gets it knows all there is to check.
//! Before the run the publisher sends marks: what a subscriber gets before its first one is of no account, as a
//! server may tell a new subscriber of what others had published. Behind the last line it says how many there were.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use corelane::{
    Address, CloseReason, Conn, ConnId, ConnectError, Core, Dial, Flow, Handler, Input, Open, Sessions,
    TimerId,
};
use nix::time::{ClockId, clock_gettime};

use super::pace::{Pace, Position};
use super::recorder::Recorder;
use super::usage::Gauge;
use super::{Common, Event, Order, ReactorUse};
use crate::outcome::{Status, ends};
use crate::plan::{Arrivals, Load, Plan, Profile, Refusal};

/// What a line begins with: a symbol, its number, when it was due and when it was sent, in nanoseconds.
const HEAD: usize = "S00 00000000 0000000000000000 0000000000000000 ".len();

/// The last of a run's lines, and what follows its name: how many there were.
const END: &[u8] = b"END ";

const MARK: &[u8] = b"MARK ";

/// Symbols that the lines are about.
const SYMBOLS: u64 = 16;

/// The token of the publisher's dial; of the others it is since when they are wanted.
const PUBLISHER: u64 = 0;

/// Keys of timers.
const DUE: u64 = 0;
const BEGIN: u64 = 1;
const CLOSE: u64 = 2;

/// Where the plan has lines published.
pub(super) fn publish_address(plan: &Plan) -> Result<Address> {
    let refuse = |problem: String| ends(Status::Usage, Refusal::new("publish", problem).to_string());
    if plan.largest() <= HEAD + 1 {
        let text = Refusal::new("size", format!("a line of broadcast has at least {} bytes", HEAD + 2));
        return Err(ends(Status::Usage, text.to_string()));
    }
    let Some(text) = &plan.publish else {
        return Err(refuse("where does the target take what is to be broadcast?".to_owned()));
    };
    text.parse().map_err(|error| refuse(format!("{error}")))
}

/// Nanoseconds of the clock that all processes of this machine have in common.
pub(super) fn machine_time() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    time.map_or(0, |time| time.as_nanos() as u64)
}

/// One connection: a subscriber, or the publisher.
#[derive(Debug, Default)]
pub(super) struct Session {
    is_publisher: bool,
    is_marked: bool,
    /// Lines that came.
    lines: u64,
    has_ended: bool,
}

/// The handler of one reactor.
#[derive(Debug)]
pub(super) struct Feed {
    common: Arc<Common>,
    index: usize,
    publish_to: Address,
    size: usize,
    filler: Vec<u8>,
    /// What turns a time of this process into one of the machine.
    offset: u64,
    recorder: Recorder,
    quota: usize,
    to_dial: usize,
    connecting: usize,
    marked: usize,
    ended: usize,
    publisher: Option<ConnId>,
    pace: Option<Pace>,
    published: u64,
    line: Vec<u8>,
    has_told: bool,
    is_done: bool,
    gauge: Gauge,
    used: ReactorUse,
}

impl Feed {
    pub(super) fn new(common: Arc<Common>, index: usize, publish_to: Address) -> Self {
        let quota = common.part(common.share.connections, index);
        let size = common.plan.largest();
        Self {
            offset: common.offset,
            index,
            publish_to,
            size,
            filler: (0..size + 26).map(|at| b'a' + (at % 26) as u8).collect(),
            recorder: Recorder::new(true, false),
            quota,
            to_dial: quota,
            connecting: 0,
            marked: 0,
            ended: 0,
            publisher: None,
            pace: None,
            published: 0,
            line: Vec::new(),
            has_told: false,
            is_done: false,
            gauge: Gauge::new(!common.plan.warmup.is_zero()),
            used: ReactorUse::default(),
            common,
        }
    }

    fn publishes(&self) -> bool {
        self.index == 0 && self.common.share.process == 0
    }

    fn tell(&self, event: Event) {
        let _ = self.common.events.send(event);
    }

    fn fail(&mut self, status: Status, text: String) {
        if !std::mem::replace(&mut self.is_done, true) {
            self.tell(Event::Failed(ends(status, text)));
        }
    }

    fn dial_more(&mut self, core: &mut Core<'_>) {
        let Common { plan, share, target, reactors, .. } = &*self.common;
        let window = (plan.connect_window / reactors).max(1);
        let now = self.common.now();
        while self.to_dial > 0 && self.connecting < window {
            let number = (self.quota - self.to_dial) * reactors + self.index;
            let mut dial = Dial::to(target.clone()).timeout(plan.connect_timeout).token(now);
            if let Some(source) = share.sources.get(number % share.sources.len().max(1)) {
                dial = dial.from_ip((*source).into());
            }
            core.connect(&dial);
            self.to_dial -= 1;
            self.connecting += 1;
        }
    }

    /// The line of this number, with its end.
    fn write_line(&mut self, number: u64, intended: u64, sent: u64) {
        use std::io::Write;
        self.line.clear();
        let (intended, sent) = (intended + self.offset, sent + self.offset);
        // Writing to a vector does not fail.
        let _ = write!(self.line, "S{:02} {number:08x} {intended:016x} {sent:016x} ", number % SYMBOLS);
        let start = (number % 26) as usize;
        self.line.extend_from_slice(&self.filler[start..start + self.size - HEAD - 1]);
        self.line.push(b'\n');
    }

    fn publish_due(&mut self, core: &mut Core<'_>, now: u64) {
        let (Some(id), Some(mut pace)) = (self.publisher, self.pace.take()) else { return };
        let late_after = self.common.plan.late_after.as_nanos() as u64;
        while let Some(due) = pace.take(now) {
            self.write_line(self.published, due, now);
            if core.write(id, &self.line).is_taken() {
                self.published += 1;
                self.recorder.sent(due, now, self.line.len(), late_after);
            } else {
                self.recorder.tally.counts.never_sent += 1;
            }
        }
        match pace.next_due() {
            Some(next) => {
                let after = next.saturating_sub(self.common.at(core.now()));
                core.set_timer(std::time::Duration::from_nanos(after), DUE);
            }
            None => {
                core.write(id, format!("END {:08x}\n", self.published).as_bytes());
            }
        }
        self.pace = Some(pace);
    }

    /// Takes a line in.
    fn heard(&mut self, session: &mut Session, line: &[u8], now: u64) -> Result<(), String> {
        if line.starts_with(MARK) {
            if !std::mem::replace(&mut session.is_marked, true) {
                self.marked += 1;
            }
            return Ok(());
        }
        if !session.is_marked {
            return Ok(());
        }
        if let Some(count) = line.strip_prefix(END) {
            session.has_ended = true;
            self.ended += 1;
            return match hex(count) {
                Some(count) if count == session.lines => Ok(()),
                _ => Err(format!("got {} lines of {}", session.lines, line.escape_ascii())),
            };
        }
        let expected = session.lines;
        let times = (line.len() == self.size - 1)
            .then(|| (hex(&line[4..12]), hex(&line[13..29]), hex(&line[30..46])));
        let Some((Some(number), Some(intended), Some(sent))) = times else {
            return Err(format!(
                "a line that nobody published: `{}`",
                &line[..line.len().min(48)].escape_ascii()
            ));
        };
        if number != expected {
            return Err(format!("line {number} came where {expected} was due"));
        }
        let start = (number % 26) as usize;
        if line[HEAD..] != self.filler[start..start + self.size - HEAD - 1] {
            return Err(format!("line {number} was changed on its way"));
        }
        session.lines += 1;
        let (intended, sent) = (intended.saturating_sub(self.offset), sent.saturating_sub(self.offset));
        self.recorder.delivered(intended, sent, now);
        self.recorder.tally.delivered += 1;
        self.gauge.replied(1);
        self.recorder.tally.counts.verified_bytes += self.size as u64;
        Ok(())
    }

    fn go(&mut self, start: u64, core: &mut Core<'_>) {
        let common = Arc::clone(&self.common);
        let plan = &common.plan;
        let Load::Broadcast { per_second } = plan.load else { return };
        let begin = start + plan.warmup.as_nanos() as u64;
        let end = begin + plan.duration.as_nanos() as u64;
        self.recorder.measure(begin, end);
        self.gauge.go();
        for (at, key) in [(begin, BEGIN), (end, CLOSE)] {
            let after = at.saturating_sub(common.at(core.now()));
            core.set_timer(std::time::Duration::from_nanos(after), key);
        }
        if self.publishes() {
            let profile = Profile::constant(per_second, (plan.warmup + plan.duration).as_secs_f64());
            self.pace = Position { index: 0, of: 1 }.pace(plan, profile, Arrivals::Even, start, (1, 1));
            self.publish_due(core, common.now());
        }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.is_done, true) {
            return;
        }
        let now = self.common.now();
        let recorder = std::mem::replace(&mut self.recorder, Recorder::new(true, false));
        let mut tally = recorder.finish(now);
        tally.counts.connections_asked = self.quota as u64;
        tally.published = self.published;
        self.used.messages = tally.counts.received;
        tally.reactors = vec![self.used];
        (tally.toll, tally.counted) = (Some(self.gauge.toll()), self.gauge.counted);
        self.tell(Event::Finished(Box::new(tally)));
    }

    fn tick(&mut self, core: &mut Core<'_>) {
        let now = self.common.now();
        self.recorder.advance(now);
        let all = self.to_dial == 0 && self.connecting == 0 && self.marked >= self.quota;
        let begun = self.recorder.end() != u64::MAX;
        if all && (self.publisher.is_some() || !self.publishes()) && !self.has_told {
            self.has_told = true;
            self.gauge.count_calls();
            self.tell(Event::Opened);
        }
        if let Some(publisher) = self.publisher.filter(|_| !begun) {
            core.write(publisher, format!("{}{now}\n", MARK.escape_ascii()).as_bytes());
        }
        let deadline = self.common.plan.deadline;
        if begun && self.ended >= self.quota && now >= self.recorder.end() {
            self.finish();
        } else if begun && now.saturating_sub(self.recorder.end()) > deadline.as_nanos() as u64 {
            let (lack, all) = (self.quota - self.ended, self.quota);
            let text = format!("{lack} of {all} subscribers did not get every line within {deadline:?}");
            self.fail(Status::Unreachable, text);
        }
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl Handler for Feed {
    type Session = Session;
    type Message = Order;

    fn on_start(&mut self, core: &mut Core<'_>) {
        if self.publishes() {
            let timeout = self.common.plan.connect_timeout;
            core.connect(&Dial::to(self.publish_to.clone()).timeout(timeout).token(PUBLISHER));
        }
        self.dial_more(core);
    }

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        let is_publisher = conn.dial_token() == Some(PUBLISHER);
        if is_publisher {
            self.publisher = Some(conn.id());
        } else {
            self.connecting -= 1;
            let now = self.common.now();
            self.recorder.connected(conn.dial_token().unwrap_or(now), now);
            self.common.gauges.opened.fetch_add(1, Ordering::Relaxed);
            self.dial_more(conn.core());
        }
        Open::Accept(Session { is_publisher, ..Session::default() })
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let now = self.common.now();
        if session.is_publisher {
            input.take_all();
            return Flow::Continue;
        }
        self.recorder.tally.counts.received_bytes += input.len() as u64;
        let mut lines = 0;
        while let Some(end) = memchr(input.peek()) {
            let line = &input.take(end + 1)[..end];
            lines += 1;
            if let Err(problem) = self.heard(session, line, now) {
                self.fail(Status::WrongData, format!("subscriber {}: {problem}", conn.id()));
                return Flow::Abort;
            }
        }
        self.common.gauges.answered.fetch_add(lines, Ordering::Relaxed);
        Flow::Continue
    }

    fn on_close(&mut self, id: ConnId, session: Session, reason: CloseReason, _: &mut Core<'_>) {
        if !self.is_done {
            let who = if session.is_publisher { "the publisher" } else { "a subscriber" };
            self.recorder.tally.counts.connections_lost += 1;
            self.fail(Status::Unreachable, format!("the target ended connection {id} of {who} ({reason})"));
        }
    }

    fn on_connect_error(&mut self, _: ConnId, error: ConnectError, _: &mut Core<'_>) {
        self.fail(Status::Unreachable, error.to_string());
    }

    fn on_message(&mut self, order: Order, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        match order {
            Order::Go { start } => self.go(start, core),
            Order::Stop => self.finish(),
        }
    }

    fn on_timer(&mut self, _: TimerId, key: u64, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        let now = self.common.now();
        match key {
            DUE => self.publish_due(core, now),
            BEGIN => self.gauge.begin(),
            _ => {
                let used = self.gauge.end();
                self.used = ReactorUse {
                    seconds: self.common.plan.duration.as_secs_f64(),
                    cpu_s: used.cpu.as_secs_f64(),
                    wait_s: used.wait.as_secs_f64(),
                    connections: self.recorder.standing,
                    messages: 0,
                };
            }
        }
    }

    fn on_tick(&mut self, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        if !self.is_done {
            self.tick(core);
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}
