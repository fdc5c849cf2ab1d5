//! The client's handler: dials, keeps one message in flight on each connection, or on as many as may be at a time, and
//! verifies what comes back.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use corelane::{
    CloseReason, Conn, ConnId, ConnectError, ConnectProblem, Core, Dial, Flow, Handler, Input, Open,
    Sessions, TimerId, Written,
};

use super::client::Event;
use crate::latency::Latencies;
use crate::pattern::{Pattern, Place};
use crate::worker::{Blame, Fault, Talk, Tally};

/// What a reactor of the client is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Open connections until the client has dialed so many in all.
    Dial {
        up_to: usize,
    },
    Talk(Talk),
    /// From now on connections may end.
    Part,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where the next byte to come back stands in the pattern; with none outstanding, the next to be sent.
    place: Place,
    /// Bytes to come back.
    missing: usize,
    /// When the message in flight was due.
    due: Instant,
    /// When it was sent.
    sent: Instant,
    messages: u32,
    /// Which connection of its reactor it is.
    index: u32,
}

impl Session {
    fn new(place: Place, index: u32) -> Self {
        let now = Instant::now();
        Self { place, missing: 0, due: now, sent: now, messages: 0, index }
    }

    /// Begins a message that was due then, and returns its bytes.
    fn begin(&mut self, pattern: &'static Pattern, size: usize, due: Instant, now: Instant) -> &'static [u8] {
        self.missing = size;
        (self.due, self.sent) = (due, now);
        pattern.bytes(self.place, size)
    }

    /// Verifies what came back; tells whether the reply is complete.
    fn take(&mut self, pattern: &Pattern, received: &[u8]) -> Result<bool, String> {
        let (missing, length) = (self.missing, received.len());
        if length > missing {
            return Err(format!("{length} bytes came back where {missing} were outstanding"));
        }
        pattern.verify(self.place, received).map_err(|mismatch| mismatch.to_string())?;
        self.place = self.place.after(length);
        self.missing -= length;
        Ok(self.missing == 0)
    }
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// The time at which all begin has not come.
    Waiting(Talk),
    Talking(Talking),
    Parting,
}

#[derive(Debug)]
struct Talking {
    talk: Talk,
    begun: Instant,
    until: Instant,
    /// Connections that have not had all their replies.
    outstanding: usize,
    /// Connections whose turn to send has not come, as many messages as may be are under way.
    waiting: VecDeque<ConnId>,
    /// Messages under way.
    under_way: u64,
    /// The next turn of the reactor has those that wait send.
    is_called: bool,
    tally: Box<Tally>,
}

impl Talking {
    fn has_room(&self) -> bool {
        self.under_way < self.talk.wave
    }

    /// Whether a connection that has carried so many messages is to carry another.
    fn goes_on(&self, messages: u32, now: Instant) -> bool {
        messages < self.talk.rounds || now < self.until
    }

    /// When a message that is sent now was due: where each sends once, all are due at the beginning.
    fn due(&self, now: Instant) -> Instant {
        if self.talk.time.is_zero() && self.talk.rounds == 1 { self.begun } else { now }
    }

    /// A connection has carried all its messages.
    fn complete(&mut self, messages: u32) {
        self.tally.fewest = self.tally.fewest.min(messages);
        self.tally.most = self.tally.most.max(messages);
        self.outstanding -= 1;
    }
}

/// What the handlers of all reactors have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common<T> {
    pub(super) target: SocketAddr,
    /// Addresses to dial from in turn; the kernel's choice if there are none.
    pub(super) sources: Arc<[Ipv4Addr]>,
    pub(super) dial_timeout: Duration,
    pub(super) pattern: &'static Pattern,
    /// Takes what the reactors have to tell.
    pub(super) tell: T,
    pub(super) opened: Arc<AtomicUsize>,
    /// The index of the first connection of this client among those of all clients.
    pub(super) first: usize,
    /// From when the time of a dial is counted.
    pub(super) begun: Instant,
}

/// The handler of one reactor.
#[derive(Debug)]
pub(crate) struct Caller<T> {
    common: Common<T>,
    /// The next connection of this reactor among those of all.
    next_dial: usize,
    next_open: usize,
    reactors: usize,
    /// Connections that were opened.
    opened: u32,
    connect: Latencies,
    stage: Stage,
    has_failed: bool,
}

impl<T: Fn(Event)> Caller<T> {
    pub(super) fn new(common: Common<T>, reactor: usize, reactors: usize) -> Self {
        Self {
            common,
            next_dial: reactor,
            next_open: reactor,
            reactors,
            opened: 0,
            connect: Latencies::new(),
            stage: Stage::Idle,
            has_failed: false,
        }
    }

    fn fail(&mut self, blame: Blame, problem: String) {
        if !std::mem::replace(&mut self.has_failed, true) {
            (self.common.tell)(Event::Failed(Fault::new(blame, problem)));
        }
    }

    fn dial(&mut self, up_to: usize, core: &mut Core<'_>) {
        let Common { target, ref sources, dial_timeout, .. } = self.common;
        while self.next_dial < up_to {
            let now = self.common.begun.elapsed().as_nanos() as u64;
            let mut dial = Dial::to(target).timeout(dial_timeout).token(now);
            if let Some(source) = sources.get(self.next_dial % sources.len().max(1)) {
                dial = dial.from_ip((*source).into());
            }
            core.connect(&dial);
            self.next_dial += self.reactors;
        }
    }

    /// Begins a talk at once, or at its time.
    fn plan(&mut self, talk: Talk, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        match talk.at.left() {
            Ok(Duration::ZERO) => self.begin(talk, sessions, core),
            Ok(left) => {
                self.stage = Stage::Waiting(talk);
                core.set_timer(left, 0);
            }
            Err(error) => self.fail(Blame::Host, format!("no clock: {error}")),
        }
    }

    fn begin(&mut self, talk: Talk, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        let begun = Instant::now();
        let connect = std::mem::take(&mut self.connect);
        let mut waiting = VecDeque::new();
        for (id, session) in sessions.iter_mut().filter(|(_, session)| is_active(session.index, talk.active))
        {
            session.messages = 0;
            waiting.push_back(id);
        }
        self.stage = Stage::Talking(Talking {
            talk,
            begun,
            until: begun + talk.time,
            outstanding: waiting.len(),
            tally: Box::new(Tally { connect, active: waiting.len() as u64, ..Tally::new() }),
            waiting,
            under_way: 0,
            is_called: false,
        });
        self.send_waiting(sessions, core);
    }

    /// Has those that wait send, as many as may be under way.
    fn send_waiting(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        let Stage::Talking(talking) = &mut self.stage else { return };
        talking.is_called = false;
        let mut unsent = None;
        while talking.has_room()
            && let Some(id) = talking.waiting.pop_front()
        {
            // One that is gone has been told of as lost.
            let Some(session) = sessions.get_mut(id) else { continue };
            let now = Instant::now();
            if !talking.goes_on(session.messages, now) {
                talking.complete(session.messages);
                continue;
            }
            talking.under_way += 1;
            talking.tally.in_flight = talking.tally.in_flight.max(talking.under_way);
            let message = session.begin(self.common.pattern, talking.talk.size, talking.due(now), now);
            let written = core.write(id, message);
            if !written.is_taken() {
                unsent = Some(unwritten(id, written));
            }
        }
        if let Some(problem) = unsent {
            self.fail(Blame::Host, problem);
        }
        self.finish_if_answered();
    }

    /// Takes in what came back; returns the next message if one is to be sent.
    fn receive(
        &mut self,
        session: &mut Session,
        received: &[u8],
        conn: &mut Conn<'_>,
    ) -> Result<Option<&'static [u8]>, String> {
        let missing = session.missing;
        let is_complete = session.take(self.common.pattern, received)?;
        let Stage::Talking(talking) = &mut self.stage else { return Ok(None) };
        let size = talking.talk.size;
        let is_first = missing == size;
        if !is_first && !is_complete {
            return Ok(None);
        }
        let now = Instant::now();
        let since = |then: Instant| now.saturating_duration_since(then);
        if is_first {
            talking.tally.count_first(since(session.due), since(session.sent));
        }
        if !is_complete {
            return Ok(None);
        }
        talking.tally.count(since(session.due), since(session.sent), since(talking.begun), size);
        session.messages += 1;
        let goes_on = talking.goes_on(session.messages, now);
        if goes_on && talking.waiting.is_empty() {
            return Ok(Some(session.begin(self.common.pattern, size, now, now)));
        }
        talking.under_way -= 1;
        if goes_on {
            talking.waiting.push_back(conn.id());
        } else {
            talking.complete(session.messages);
        }
        if !talking.waiting.is_empty() && !std::mem::replace(&mut talking.is_called, true) {
            conn.core().set_timer(Duration::ZERO, 0);
        }
        self.finish_if_answered();
        Ok(None)
    }

    fn finish_if_answered(&mut self) {
        if let Stage::Talking(Talking { outstanding: 0, .. }) = self.stage
            && let Stage::Talking(talking) = std::mem::replace(&mut self.stage, Stage::Idle)
        {
            (self.common.tell)(Event::Talked(talking.tally));
        }
    }
}

/// Whether the connection of this index is among so many percent that are active; they are spread evenly.
fn is_active(index: u32, percent: f64) -> bool {
    let up_to = |count: u32| (f64::from(count) * percent / 100.0).ceil();
    up_to(index + 1) > up_to(index)
}

fn unwritten(id: ConnId, written: Written) -> String {
    format!("connection {id}: a message was not taken to be sent ({written:?})")
}

impl<T: Fn(Event) + 'static> Handler for Caller<T> {
    type Session = Session;
    type Message = Order;

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        let place = Place::of_connection(self.common.first + self.next_open);
        let index = self.opened;
        self.next_open += self.reactors;
        self.opened += 1;
        if let Some(dialed) = conn.dial_token() {
            self.connect.record((self.common.begun.elapsed().as_nanos() as u64).saturating_sub(dialed));
        }
        self.common.opened.fetch_add(1, Ordering::Relaxed);
        Open::Accept(Session::new(place, index))
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        match self.receive(session, input.take_all(), conn) {
            Ok(None) => Flow::Continue,
            Ok(Some(message)) => {
                let written = conn.write(message);
                if !written.is_taken() {
                    self.fail(Blame::Host, unwritten(conn.id(), written));
                }
                Flow::Continue
            }
            Err(problem) => {
                self.fail(Blame::WrongData, format!("connection {}: {problem}", conn.id()));
                Flow::Abort
            }
        }
    }

    fn on_close(&mut self, id: ConnId, _: Session, reason: CloseReason, _: &mut Core<'_>) {
        if !matches!(self.stage, Stage::Parting) {
            self.fail(Blame::Target, format!("connection {id} was lost: {}", reason.name()));
        }
    }

    fn on_connect_error(&mut self, _: ConnId, error: ConnectError, _: &mut Core<'_>) {
        let blame = match error.problem {
            ConnectProblem::PortsExhausted
            | ConnectProblem::NoSuchLocalAddress
            | ConnectProblem::Option { .. }
            | ConnectProblem::DescriptorsExhausted => Blame::Host,
            _ => Blame::Target,
        };
        self.fail(blame, format!("a connection could not be opened: {error}"));
    }

    fn on_message(&mut self, order: Order, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        match order {
            Order::Dial { up_to } => self.dial(up_to, core),
            Order::Talk(talk) => self.plan(talk, sessions, core),
            Order::Part => {
                self.stage = Stage::Parting;
                (self.common.tell)(Event::Parted);
            }
        }
    }

    fn on_timer(&mut self, _: TimerId, _: u64, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        match self.stage {
            Stage::Waiting(talk) => self.begin(talk, sessions, core),
            Stage::Talking(_) => self.send_waiting(sessions, core),
            Stage::Idle | Stage::Parting => {}
        }
    }

    fn on_tick(&mut self, sessions: &mut Sessions<Session>, _: &mut Core<'_>) {
        let Stage::Talking(Talking { talk: Talk { deadline, .. }, .. }) = self.stage else { return };
        let now = Instant::now();
        let is_late =
            |session: &Session| session.missing > 0 && now.saturating_duration_since(session.sent) > deadline;
        let late = sessions.iter().filter(|(_, session)| is_late(session)).count();
        if late > 0 {
            let problem = format!("the replies on {late} connections did not arrive within {deadline:?}");
            self.fail(Blame::Target, problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(index: usize) -> Session {
        Session::new(Place::of_connection(index), 0)
    }

    #[test]
    fn replies_are_verified_piece_by_piece() {
        let pattern = Pattern::leak(100);
        let begin =
            |session: &mut Session, size| session.begin(pattern, size, Instant::now(), Instant::now());
        let mut session = session(3);
        for _ in 0..1_000 {
            let message = begin(&mut session, 100);
            assert!(!session.take(pattern, &message[..1]).unwrap());
            assert!(!session.take(pattern, &message[1..70]).unwrap());
            assert!(session.take(pattern, &message[70..]).unwrap());
        }
    }

    #[test]
    fn what_was_not_sent_is_found() {
        let pattern = Pattern::leak(100);
        let begin =
            |session: &mut Session, size| session.begin(pattern, size, Instant::now(), Instant::now());
        let mut ours = session(3);
        let message = begin(&mut ours, 64);
        let mut wrong = message.to_vec();
        wrong[63] ^= 1;
        assert!(ours.take(pattern, &wrong).unwrap_err().contains("wrong byte"));
        assert!(ours.take(pattern, begin(&mut session(4), 64)).is_err());
        let more = pattern.bytes(Place::of_connection(3), 65);
        let said = ours.take(pattern, more).unwrap_err();
        assert_eq!(said, "65 bytes came back where 64 were outstanding");
        assert!(session(3).take(pattern, &message[..1]).is_err());
    }

    #[test]
    fn the_active_ones_are_spread() {
        let active = |percent, of| (0..of).filter(|&index| is_active(index, percent)).count();
        assert_eq!((active(100.0, 7), active(10.0, 1_000), active(0.5, 1_000)), (7, 100, 5));
        assert_eq!(active(1.0, 3), 1);
        assert_eq!((0..10).filter(|&index| is_active(index, 50.0)).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
    }
}
