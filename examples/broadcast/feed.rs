//! The handler: takes lines from publishers on whatever reactor they are, and brings them to the subscribers
//! of all reactors.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use corelane::codec::{Decoder, FrameError, Lines};
use corelane::{
    Backpressure, CloseReason, Conn, ConnId, Core, Flow, Handle, Handler, Input, Open, Origin, Relay,
    Sessions, Shared, Start, TimerId, Written,
};

use crate::board::{Batch, Board, Registry};

/// How soon is looked again whether a drain can go on.
const LOOK: Duration = Duration::from_millis(1);

/// The keys of the timers.
const RELAY: u64 = 0;
const DRAIN: u64 = 1;

#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// The index of the first of the server's addresses that are for publishers.
    pub(crate) first_publisher: usize,
    pub(crate) max_line: usize,
    pub(crate) conflates: bool,
}

pub(crate) enum Session {
    /// Boxed, that the many are no larger for the few.
    Publisher(Box<Decoder<Lines>>),
    Subscriber(Subscriber),
}

pub(crate) struct Subscriber {
    /// The place on the board up to which it has seen everything; `None` if it is up to date.
    behind: Option<u64>,
}

pub(crate) enum Message {
    Batch(Arc<Batch>),
    /// No batch comes after this one, from any reactor.
    End,
}

/// How far the end of the feed has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Drain {
    No,
    /// Publishers of this reactor may still have sent something.
    Publishing,
    /// Those of other reactors may.
    Published,
    /// Subscribers go as soon as they have everything.
    Over,
}

/// What becomes of subscribers that are too slow.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct SlowCounts {
    fell_behind: u64,
    cut_off: u64,
}

pub(crate) struct Feed {
    settings: Settings,
    registry: Arc<Registry>,
    handle: Handle<Message>,
    /// The symbols that this reactor has met, so that it need not ask the registry.
    symbols: HashMap<Box<[u8]>, u32>,
    board: Board,
    publishers: HashSet<ConnId>,
    /// Brings batches to the reactors. While one waits for room in a mailbox, nobody publishes here.
    relay: Relay<Message>,
    /// Publishers that wait until none does.
    waiting: Vec<ConnId>,
    /// Those that were waiting when they were asked to go.
    leaving: Vec<ConnId>,
    drain: Drain,
    /// Whether the last payload went from the last subscriber to the first.
    backwards: bool,
    /// Whether the timer is set.
    looks_again: bool,
    slow: SlowCounts,
    logged: SlowCounts,
}

impl Feed {
    pub(crate) fn new(settings: Settings, start: &Start<Message>, registry: Arc<Registry>) -> Self {
        Self {
            settings,
            registry,
            handle: start.handle(),
            symbols: HashMap::new(),
            board: Board::default(),
            publishers: HashSet::new(),
            relay: Relay::new(start.handle(), RELAY),
            waiting: Vec::new(),
            leaving: Vec::new(),
            drain: Drain::No,
            backwards: false,
            looks_again: false,
            slow: SlowCounts::default(),
            logged: SlowCounts::default(),
        }
    }

    /// Takes all lines that are there. Those before a line that is wrong are published all the same.
    fn read(
        &mut self,
        lines: &mut Decoder<Lines>,
        input: &mut Input<'_>,
    ) -> (Option<Batch>, Result<(), String>) {
        let (mut bytes, mut parts) = (Vec::with_capacity(input.len()), Vec::new());
        let outcome = loop {
            match lines.next(input) {
                Ok(Some(line)) => match self.symbol_of(line) {
                    Ok(symbol) => {
                        bytes.extend_from_slice(line);
                        bytes.push(b'\n');
                        parts.push((symbol, bytes.len()));
                    }
                    Err(error) => break Err(error.to_owned()),
                },
                Ok(None) => break Ok(()),
                Err(error) => break Err(explain(&error)),
            }
        };
        let batch = (!parts.is_empty()).then(|| Batch::new(bytes, parts, &self.registry));
        (batch, outcome)
    }

    fn symbol_of(&mut self, line: &[u8]) -> Result<u32, &'static str> {
        const EXPECTED: &str = "expected SYMBOL VALUE";
        let end = line.iter().position(|&byte| byte == b' ').ok_or(EXPECTED)?;
        let name = &line[..end];
        if name.is_empty() || end + 1 == line.len() {
            return Err(EXPECTED);
        }
        if let Some(&symbol) = self.symbols.get(name) {
            return Ok(symbol);
        }
        let symbol = self.registry.symbol(name).ok_or("too many symbols")?;
        self.symbols.insert(name.into(), symbol);
        Ok(symbol)
    }

    /// Sends a batch to all reactors, this one included.
    fn publish(&mut self, batch: Batch, core: &mut Core<'_>) {
        let batch = Arc::new(batch);
        for reactor in 0..self.relay.reactors() {
            self.relay.send(core, reactor, Message::Batch(batch.clone()));
        }
    }

    fn look_again(&mut self, core: &mut Core<'_>) {
        if !self.looks_again {
            self.looks_again = true;
            core.set_timer(LOOK, DRAIN);
        }
    }

    /// Brings a payload to all subscribers of this reactor that are up to date. It goes to and fro: then nobody
    /// is always the last, and the first are those that the processor's caches still know.
    fn bring(&mut self, payload: &Shared, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.backwards = !self.backwards;
        let mut sessions = sessions.iter_mut();
        while let Some((id, session)) = if self.backwards { sessions.next_back() } else { sessions.next() } {
            let Session::Subscriber(subscriber) = session else { continue };
            if subscriber.behind.is_some() {
                continue;
            }
            if core.write_shared(id, payload) == Written::High && self.settings.conflates {
                // That was the last for now; `on_drained` goes on from here.
                subscriber.behind = Some(self.board.end);
                self.slow.fell_behind += 1;
            }
        }
    }

    /// Sends the latest of what a subscriber has not seen, as much as it takes.
    fn catch_up(&self, conn: &mut Conn<'_>, subscriber: &mut Subscriber) {
        let Some(mut place) = subscriber.behind else { return };
        while let Some((next, line)) = self.board.after(place) {
            let written = conn.write(line);
            place = next;
            if written != Written::Accepted {
                subscriber.behind = Some(place);
                return;
            }
        }
        subscriber.behind = None;
    }

    fn flow_of(&self, subscriber: &Subscriber) -> Flow {
        let has_everything = self.drain == Drain::Over && subscriber.behind.is_none();
        if has_everything { Flow::Close } else { Flow::Continue }
    }

    /// In a drain, looks how far it has come.
    fn go_on_draining(&mut self, core: &mut Core<'_>) {
        if self.drain == Drain::Publishing && self.publishers.is_empty() && self.relay.waiting() == 0 {
            self.drain = Drain::Published;
            self.registry.count_published();
        }
        if self.drain == Drain::Published {
            // Every batch is in some mailbox by then, and in ours this message comes after all of them.
            let is_end = self.registry.published() == self.handle.reactors();
            if !is_end || self.handle.send(core.reactor(), Message::End).is_err() {
                self.look_again(core);
            }
        }
    }

    /// Publishes what a publisher has sent, unless somebody's batch still waits for room.
    fn take_from(&mut self, conn: &mut Conn<'_>, lines: &mut Decoder<Lines>, input: &mut Input<'_>) -> Flow {
        let mut outcome = Ok(());
        if self.relay.waiting() == 0 {
            let batch;
            (batch, outcome) = self.read(lines, input);
            if let Some(batch) = batch {
                self.publish(batch, conn.core());
            }
        }
        if let Err(error) = outcome {
            conn.write(format!("error: {error}\n").as_bytes());
            return Flow::Close;
        }
        if self.relay.waiting() > 0 {
            conn.pause();
            self.waiting.push(conn.id());
        }
        Flow::Continue
    }
}

impl Handler for Feed {
    type Session = Session;
    type Message = Message;

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        if matches!(conn.origin(), Origin::Accepted(address) if address >= self.settings.first_publisher) {
            if self.drain >= Drain::Published {
                return Open::Refuse;
            }
            self.publishers.insert(conn.id());
            let lines = Decoder::new(Lines::new().maximum(self.settings.max_line));
            return Open::Accept(Session::Publisher(Box::new(lines)));
        }
        // When the feed is silent, that is not the subscriber's fault; and one that takes nothing for a while
        // must still be heard when it leaves.
        conn.set_idle_deadline(None);
        conn.set_backpressure(Backpressure::Manual);
        let mut subscriber = Subscriber { behind: Some(0) };
        self.catch_up(conn, &mut subscriber);
        Open::Accept(Session::Subscriber(subscriber))
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        match session {
            Session::Publisher(lines) => self.take_from(conn, lines, input),
            Session::Subscriber(_) => {
                input.take_all();
                Flow::Continue
            }
        }
    }

    fn on_message(&mut self, message: Message, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        match message {
            Message::Batch(batch) => {
                let payload = self.board.put(&batch);
                self.bring(&payload, sessions, core);
            }
            Message::End => {
                self.drain = Drain::Over;
                close_up_to_date(sessions, core);
            }
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        let Session::Subscriber(subscriber) = session else { return Flow::Continue };
        self.catch_up(conn, subscriber);
        self.flow_of(subscriber)
    }

    fn on_timer(&mut self, _: TimerId, key: u64, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        if key == RELAY {
            // What comes back is for a reactor that has stopped, and has no subscribers.
            drop(self.relay.retry(core));
        } else {
            self.looks_again = false;
        }
        if self.relay.waiting() == 0 {
            if self.waiting.is_empty() {
                self.leaving.drain(..).for_each(|id| {
                    self.publishers.remove(&id);
                    core.close(id);
                });
            } else if !self.leaving.is_empty() {
                // Once more for these, when they have published what they had sent.
                self.look_again(core);
            }
            self.waiting.drain(..).for_each(|id| {
                core.resume(id);
            });
        }
        self.go_on_draining(core);
    }

    fn on_tick(&mut self, _: &mut Sessions<Session>, _: &mut Core<'_>) {
        if self.slow != self.logged {
            let SlowCounts { fell_behind, cut_off } = self.slow;
            // Not `eprintln`, which panics where nobody reads.
            let _ =
                writeln!(io::stderr(), "slow subscribers: {fell_behind} times conflated, {cut_off} cut off");
            self.logged = self.slow;
        }
    }

    fn on_close(&mut self, id: ConnId, session: Session, reason: CloseReason, core: &mut Core<'_>) {
        match session {
            Session::Publisher(_) => {
                self.publishers.remove(&id);
                self.go_on_draining(core);
            }
            Session::Subscriber(_) if reason == CloseReason::SlowConsumer => self.slow.cut_off += 1,
            Session::Subscriber(_) => {}
        }
    }

    fn on_shutdown(&mut self, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.drain = Drain::Publishing;
        self.go_on_draining(core);
    }

    /// Publishers go first, and subscribers when they have everything that was published on any reactor.
    fn on_drain(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        match session {
            Session::Publisher(_) if conn.is_paused() => {
                self.leaving.push(conn.id());
                Flow::Continue
            }
            Session::Publisher(_) => {
                self.publishers.remove(&conn.id());
                self.go_on_draining(conn.core());
                Flow::Close
            }
            Session::Subscriber(subscriber) => self.flow_of(subscriber),
        }
    }
}

impl Drop for Feed {
    /// However its reactor ends, the others must not wait for it.
    fn drop(&mut self) {
        if self.drain < Drain::Published {
            self.registry.count_published();
        }
    }
}

/// Those that are behind go when they have caught up.
fn close_up_to_date(sessions: &Sessions<Session>, core: &mut Core<'_>) {
    for (id, session) in sessions {
        if matches!(session, Session::Subscriber(Subscriber { behind: None })) {
            core.close(id);
        }
    }
}

fn explain(error: &FrameError) -> String {
    match error {
        FrameError::TooLarge { maximum, .. } => format!("a line is longer than {maximum} bytes"),
        error => error.to_string(),
    }
}
