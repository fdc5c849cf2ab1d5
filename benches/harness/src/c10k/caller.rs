//! The client's handler: dials, keeps one message in flight on each connection, and verifies what
//! comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use corelane::{
    CloseReason, Conn, ConnId, ConnectError, Core, Dial, Flow, Handler, Input, Open, Sessions, Written,
};
use hdrhistogram::Histogram;

use crate::latency;
use crate::pattern::{Pattern, Place};

/// What a reactor of the client is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Open connections until the client has dialed so many in all.
    Dial {
        up_to: usize,
    },
    Talk(Talk),
    /// From now on connections may end.
    Part,
}

/// Messages that go back and forth on all connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    /// Bytes of a message.
    pub(super) size: usize,
    /// What every connection carries at least.
    pub(super) rounds: u32,
    /// No message is sent after this beyond those.
    pub(super) until: Instant,
    /// How long a reply may take.
    pub(super) deadline: Duration,
}

/// What a reactor has to tell.
#[derive(Debug)]
pub(super) enum Event {
    /// The talk is over; every message was answered.
    Talked(Tally),
    /// The first of a reactor's failures; the others are not told.
    Failed(String),
}

/// What was counted in a talk.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) latencies: Histogram<u64>,
    pub(super) messages: u64,
    /// The messages of the connection that had the fewest, and of that which had the most.
    pub(super) fewest: u32,
    pub(super) most: u32,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { latencies: latency::histogram(), messages: 0, fewest: u32::MAX, most: 0 }
    }

    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        self.messages += other.messages;
        self.fewest = self.fewest.min(other.fewest);
        self.most = self.most.max(other.most);
        Ok(())
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    /// Where the next byte to come back stands in the pattern; with none outstanding, the next to be sent.
    place: Place,
    /// Bytes to come back.
    missing: usize,
    /// When the message in flight was sent.
    sent: Instant,
    messages: u32,
}

impl Session {
    /// Begins a message and returns its bytes.
    fn begin(&mut self, pattern: &'static Pattern, size: usize, now: Instant) -> &'static [u8] {
        self.missing = size;
        self.sent = now;
        pattern.bytes(self.place, size)
    }

    /// Verifies what came back; tells whether the reply is complete.
    fn take(&mut self, pattern: &Pattern, received: &[u8]) -> Result<bool> {
        let (missing, length) = (self.missing, received.len());
        ensure!(length <= missing, "{length} bytes came back where {missing} were outstanding");
        pattern.verify(self.place, received)?;
        self.place = self.place.after(length);
        self.missing -= length;
        Ok(self.missing == 0)
    }
}

#[derive(Debug)]
enum Stage {
    Idle,
    Talking { talk: Talk, outstanding: usize, tally: Tally },
    Parting,
}

/// What the handlers of all reactors have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) target: SocketAddr,
    /// Addresses to dial from in turn; the kernel's choice if there are none.
    pub(super) sources: Arc<[Ipv4Addr]>,
    pub(super) dial_timeout: Duration,
    pub(super) pattern: &'static Pattern,
    pub(super) events: Sender<Event>,
    pub(super) opened: Arc<AtomicUsize>,
}

/// The handler of one reactor.
#[derive(Debug)]
pub(super) struct Caller {
    common: Common,
    /// The next connection of this reactor among those of all.
    next_dial: usize,
    next_open: usize,
    reactors: usize,
    stage: Stage,
    has_failed: bool,
}

impl Caller {
    /// How often replies are looked for that are late.
    pub(super) const TICK: Duration = Duration::from_millis(100);

    pub(super) fn new(common: Common, reactor: usize, reactors: usize) -> Self {
        Self {
            common,
            next_dial: reactor,
            next_open: reactor,
            reactors,
            stage: Stage::Idle,
            has_failed: false,
        }
    }

    /// Who waits for events has gone only if the run has failed already.
    fn tell(&self, event: Event) {
        let _ = self.common.events.send(event);
    }

    fn fail(&mut self, problem: String) {
        if !std::mem::replace(&mut self.has_failed, true) {
            self.tell(Event::Failed(problem));
        }
    }

    fn dial(&mut self, up_to: usize, core: &mut Core<'_>) {
        let Common { target, ref sources, dial_timeout, .. } = self.common;
        while self.next_dial < up_to {
            let mut dial = Dial::to(target).timeout(dial_timeout);
            if let Some(source) = sources.get(self.next_dial % sources.len().max(1)) {
                dial = dial.from_ip((*source).into());
            }
            core.connect(&dial);
            self.next_dial += self.reactors;
        }
    }

    fn begin(&mut self, talk: Talk, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        let mut outstanding = 0;
        for (id, session) in sessions.iter_mut() {
            session.messages = 0;
            let message = session.begin(self.common.pattern, talk.size, Instant::now());
            let written = core.write(id, message);
            outstanding += 1;
            if !written.is_taken() {
                self.fail(unwritten(id, written));
            }
        }
        self.stage = Stage::Talking { talk, outstanding, tally: Tally::new() };
        self.finish_if_answered();
    }

    /// Takes in what came back; returns the next message if one is to be sent.
    fn receive(&mut self, session: &mut Session, received: &[u8]) -> Result<Option<&'static [u8]>> {
        if !session.take(self.common.pattern, received)? {
            return Ok(None);
        }
        let Stage::Talking { talk, outstanding, tally } = &mut self.stage else { return Ok(None) };
        let now = Instant::now();
        let latency = now.saturating_duration_since(session.sent);
        tally.latencies.saturating_record(latency.as_nanos() as u64);
        tally.messages += 1;
        session.messages += 1;
        if now < talk.until || session.messages < talk.rounds {
            return Ok(Some(session.begin(self.common.pattern, talk.size, now)));
        }
        tally.fewest = tally.fewest.min(session.messages);
        tally.most = tally.most.max(session.messages);
        *outstanding -= 1;
        self.finish_if_answered();
        Ok(None)
    }

    fn finish_if_answered(&mut self) {
        if let Stage::Talking { outstanding: 0, .. } = self.stage
            && let Stage::Talking { tally, .. } = std::mem::replace(&mut self.stage, Stage::Idle)
        {
            self.tell(Event::Talked(tally));
        }
    }
}

fn unwritten(id: ConnId, written: Written) -> String {
    format!("connection {id}: a message was not taken to be sent ({written:?})")
}

impl Handler for Caller {
    type Session = Session;
    type Message = Order;

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<Session> {
        let place = Place::of_connection(self.next_open);
        self.next_open += self.reactors;
        self.common.opened.fetch_add(1, Ordering::Relaxed);
        Open::Accept(Session { place, missing: 0, sent: Instant::now(), messages: 0 })
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        match self.receive(session, input.take_all()) {
            Ok(None) => Flow::Continue,
            Ok(Some(message)) => {
                let written = conn.write(message);
                if !written.is_taken() {
                    self.fail(unwritten(conn.id(), written));
                }
                Flow::Continue
            }
            Err(problem) => {
                self.fail(format!("connection {}: {problem}", conn.id()));
                Flow::Abort
            }
        }
    }

    fn on_close(&mut self, id: ConnId, _: Session, reason: CloseReason, _: &mut Core<'_>) {
        if !matches!(self.stage, Stage::Parting) {
            self.fail(format!("connection {id} was lost: {}", reason.name()));
        }
    }

    fn on_connect_error(&mut self, _: ConnId, error: ConnectError, _: &mut Core<'_>) {
        self.fail(format!("a connection could not be opened: {error}"));
    }

    fn on_message(&mut self, order: Order, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        match order {
            Order::Dial { up_to } => self.dial(up_to, core),
            Order::Talk(talk) => self.begin(talk, sessions, core),
            Order::Part => self.stage = Stage::Parting,
        }
    }

    fn on_tick(&mut self, sessions: &mut Sessions<Session>, _: &mut Core<'_>) {
        let Stage::Talking { talk: Talk { deadline, .. }, .. } = self.stage else { return };
        let now = Instant::now();
        let is_late =
            |session: &Session| session.missing > 0 && now.saturating_duration_since(session.sent) > deadline;
        let late = sessions.iter().filter(|(_, session)| is_late(session)).count();
        if late > 0 {
            self.fail(format!("the replies on {late} connections did not arrive within {deadline:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(index: usize) -> Session {
        Session { place: Place::of_connection(index), missing: 0, sent: Instant::now(), messages: 0 }
    }

    #[test]
    fn replies_are_verified_piece_by_piece() {
        let pattern = Pattern::leak(100);
        let mut session = session(3);
        for _ in 0..1_000 {
            let message = session.begin(pattern, 100, Instant::now());
            assert!(!session.take(pattern, &message[..1]).unwrap());
            assert!(!session.take(pattern, &message[1..70]).unwrap());
            assert!(session.take(pattern, &message[70..]).unwrap());
        }
    }

    #[test]
    fn what_was_not_sent_is_found() {
        let pattern = Pattern::leak(100);
        let mut ours = session(3);
        let message = ours.begin(pattern, 64, Instant::now());
        let mut wrong = message.to_vec();
        wrong[63] ^= 1;
        assert!(ours.take(pattern, &wrong).unwrap_err().to_string().contains("wrong byte"));
        assert!(ours.take(pattern, session(4).begin(pattern, 64, Instant::now())).is_err());
        let more = pattern.bytes(Place::of_connection(3), 65);
        let said = ours.take(pattern, more).unwrap_err().to_string();
        assert_eq!(said, "65 bytes came back where 64 were outstanding");
        assert!(session(3).take(pattern, &message[..1]).is_err());
    }

    #[test]
    fn tallies_are_added() {
        let tally = |messages, fewest, most| Tally { messages, fewest, most, ..Tally::new() };
        let mut sum = Tally::new();
        sum.add(&tally(10, 4, 6)).unwrap();
        sum.add(&Tally::new()).unwrap();
        sum.add(&tally(5, 5, 9)).unwrap();
        assert_eq!((sum.messages, sum.fewest, sum.most), (15, 4, 9));
    }
}
