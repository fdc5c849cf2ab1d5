//! The handler: reads requests, has each carried out where its keys are, and sends the replies in order.

use std::hash::BuildHasher;
use std::io::{self, Write};
use std::mem;
use std::time::{Duration, Instant};

use corelane::{CloseReason, Conn, ConnId, Core, Flow, Handler, Input, Open, Sessions, Start, TimerId};
use rapidhash::quality::RandomState;

use crate::channels::Channels;
use crate::commands::{Command, Limits, Place, Run, SYNTAX};
use crate::introduction;
use crate::mail::{Batch, Mail, Message};
use crate::protocol::{Args, Parser};
use crate::reply::Reply;
use crate::session::{Joined, Session};
use crate::store::Store;

/// Replies are sent when there are this many bytes of them, and not only at the end of the requests.
const PIECE: usize = 64 * 1024;
/// Room for the owners of this many keys stays from one request to the next.
const MOST_OWNERS: usize = 4096;
/// Keys whose time has come that are freed in one tick.
const SWEPT: usize = 10_000;

/// What the flags say, for all reactors.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) max_memory: usize,
    /// The largest request.
    pub(crate) max_request: usize,
    /// The most messages that may wait for one connection.
    pub(crate) max_output: usize,
    pub(crate) limits: Limits,
    /// The idle deadline of who has not subscribed.
    pub(crate) idle: Option<Duration>,
    /// The same on all reactors: it says which of them owns a key.
    pub(crate) hasher: RandomState,
    pub(crate) started: Instant,
}

pub(crate) struct Service {
    settings: Settings,
    /// The index of this reactor.
    mine: usize,
    store: Store,
    channels: Channels,
    mail: Mail,
    parser: Parser,
    /// Buffers for the replies of connections that have some.
    spare: Vec<Reply>,
    /// The owners of the keys of the request at hand.
    owners: Vec<usize>,
    /// Connections that are not read because too much waits for other reactors.
    stalled: Vec<ConnId>,
    accepted: u64,
}

impl Service {
    pub(crate) fn new(settings: Settings, start: &Start<Message>) -> Self {
        let limit = settings.max_memory / start.reactors();
        Self {
            mine: start.reactor(),
            store: Store::new(settings.hasher, limit),
            channels: Channels::default(),
            mail: Mail::new(start.handle()),
            parser: Parser::default(),
            spare: Vec::new(),
            owners: Vec::new(),
            stalled: Vec::new(),
            accepted: 0,
            settings,
        }
    }

    /// Reads requests for as long as there is room for their replies.
    fn serve(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let id = conn.id();
        // Once it has ended we are not called again, unless we leave something that can be shown again.
        session.is_closing |= session.has_ended && input.is_empty();
        if session.is_closing {
            input.take_all();
            return verdict(session);
        }
        if self.mail.is_clogged() {
            self.stalled.push(id);
            conn.pause();
            return Flow::Continue;
        }
        self.set_time(conn.core());
        session.lend(&mut self.spare);
        let mut parser = match session.parser.take() {
            Some(parser) => *parser,
            None => mem::take(&mut self.parser),
        };
        let is_all = self.read_requests(&mut parser, conn, session, input);
        if parser.is_within() {
            session.parser = Some(Box::new(parser));
        } else {
            self.parser = parser;
        }
        session.is_closing |= session.has_ended && (is_all || input.is_empty());
        let is_member = !session.channels.is_empty();
        if is_member != session.may_be_idle {
            // Nobody knows when there is news.
            conn.set_idle_deadline(if is_member { None } else { self.settings.idle });
            session.may_be_idle = is_member;
        }
        session.asked += self.mail.send(conn.core());
        // With answers on their way, what is ready leaves with them: one write instead of two.
        if !session.is_waiting() {
            session.flush(conn.core(), id);
        }
        session.take_back(&mut self.spare);
        verdict(session)
    }

    /// Whether nothing is left that could be read now.
    fn read_requests(
        &mut self,
        parser: &mut Parser,
        conn: &mut Conn<'_>,
        session: &mut Session,
        input: &mut Input<'_>,
    ) -> bool {
        let id = conn.id();
        loop {
            // Not taken in time, the rest of the input is shown again when it is.
            if session.ready_size() >= PIECE && !session.flush(conn.core(), id) {
                return false;
            }
            if session.is_full() {
                session.is_paused = true;
                conn.pause();
                return false;
            }
            match parser.next(input.peek(), self.settings.max_request) {
                Ok(Some(length)) => {
                    let args = parser.args(input.take(length));
                    if args.len() > 0 {
                        self.run(args, id, session);
                    }
                    if session.is_closing {
                        break;
                    }
                }
                Ok(None) => return true,
                Err(error) => {
                    session.out().error(format!("ERR Protocol error: {}", error.0));
                    session.is_closing = true;
                    break;
                }
            }
        }
        input.take_all();
        true
    }

    /// Has one request carried out, here or elsewhere.
    #[inline]
    fn run(&mut self, args: Args<'_>, id: ConnId, session: &mut Session) {
        let Some(command) = Command::find(args.at(0)) else {
            return session.out().error(introduction::unknown(args));
        };
        if let Err(error) = check(command, args, session) {
            return session.out().error(error);
        }
        match command.place {
            Place::Key => match self.owner(args.at(1)) {
                owner if owner == self.mine => self.execute(command, args, session),
                owner => {
                    session.note(command.run);
                    let ticket = session.expect();
                    self.mail.to(owner, id).add(ticket, command, args.from(0), session.is_resp3);
                }
            },
            Place::Keys(step) => {
                if self.are_mine(args, step) {
                    self.execute(command, args, session);
                } else {
                    self.ask_owners(command, args, step, id, session);
                }
            }
            Place::Everywhere if command.run == Run::Publish => {
                // Through our own mailbox too: messages are sent where all sessions are at hand.
                let ticket = session.expect_parts(Joined::Sum, self.mail.reactors());
                for reactor in 0..self.mail.reactors() {
                    self.mail.to(reactor, id).add(ticket, command, args.from(0), session.is_resp3);
                }
            }
            Place::Everywhere if self.mail.reactors() == 1 => self.execute(command, args, session),
            Place::Everywhere => self.ask_all(command, args, id, session),
            Place::Connection => self.about_connection(command, args, id, session),
        }
    }

    #[inline]
    fn execute(&mut self, command: &Command, args: Args<'_>, session: &mut Session) {
        let is_resp3 = session.is_resp3;
        command.execute(&mut self.store, self.settings.limits, args, is_resp3, session.out());
    }

    #[inline]
    fn owner(&self, key: &[u8]) -> usize {
        match self.mail.reactors() {
            1 => 0,
            // Of the hash's bits those in the middle: the store's table goes by the lowest and the highest.
            reactors => ((self.settings.hasher.hash_one(key) >> 16 & 0xffff_ffff) as usize * reactors) >> 32,
        }
    }

    /// Looks up who owns the keys, an argument out of `step`; whether this reactor does.
    fn are_mine(&mut self, args: Args<'_>, step: usize) -> bool {
        if self.mail.reactors() == 1 {
            return true;
        }
        self.owners.clear();
        self.owners.shrink_to(MOST_OWNERS);
        for at in (1..args.len()).step_by(step) {
            self.owners.push(self.owner(args.at(at)));
        }
        self.owners.iter().all(|&owner| owner == self.mine)
    }

    /// A command with many keys: each reactor gets those it owns, with what belongs to them.
    fn ask_owners(
        &mut self,
        command: &'static Command,
        args: Args<'_>,
        step: usize,
        id: ConnId,
        session: &mut Session,
    ) {
        session.note(command.run);
        let owners = &self.owners;
        let asked: Vec<usize> =
            (0..self.mail.reactors()).filter(|reactor| owners.contains(reactor)).collect();
        let ticket = match command.run {
            Run::Mget => session.expect_values(self.settings.limits.reply, asked.len(), self.owners.clone()),
            Run::Mset => session.expect_parts(Joined::Ok, asked.len()),
            _ => session.expect_parts(Joined::Sum, asked.len()),
        };
        let mut here = self.mail.batch(id);
        for reactor in asked {
            let owned = (0..owners.len()).filter(|&key| owners[key] == reactor);
            let words = owned.flat_map(|key| (0..step).map(move |at| args.at(1 + key * step + at)));
            let words = args.from(0).take(1).chain(words);
            let batch = if reactor == self.mine { &mut here } else { self.mail.to(reactor, id) };
            batch.add(ticket.part(reactor), command, words, session.is_resp3);
        }
        self.execute_here(here, session);
    }

    fn ask_all(&mut self, command: &'static Command, args: Args<'_>, id: ConnId, session: &mut Session) {
        session.note(command.run);
        let joined = match command.run {
            Run::Keys => Joined::Arrays { most: self.settings.limits.reply },
            Run::Flushdb => Joined::Ok,
            _ => Joined::Sum,
        };
        let ticket = session.expect_parts(joined, self.mail.reactors());
        let mut here = self.mail.batch(id);
        for reactor in 0..self.mail.reactors() {
            let batch = if reactor == self.mine { &mut here } else { self.mail.to(reactor, id) };
            batch.add(ticket.part(reactor), command, args.from(0), session.is_resp3);
        }
        self.execute_here(here, session);
    }

    /// Our own part of a request that others have parts in; at once, as what follows it may depend on it.
    fn execute_here(&mut self, mut batch: Box<Batch>, session: &mut Session) {
        let (store, limits) = (&mut self.store, self.settings.limits);
        batch.execute(|command, args, is_resp3, out| command.execute(store, limits, args, is_resp3, out));
        batch.answers().for_each(|(ticket, part)| session.answer(ticket, part));
        self.mail.recycle(batch);
    }

    fn about_connection(&mut self, command: &Command, args: Args<'_>, id: ConnId, session: &mut Session) {
        match command.run {
            Run::Subscribe => {
                args.from(1).for_each(|channel| self.channels.subscribe(session, id, channel));
            }
            Run::Unsubscribe if args.len() == 1 => self.channels.unsubscribe_all(session, id),
            Run::Unsubscribe => {
                args.from(1).for_each(|channel| self.channels.unsubscribe(session, id, channel));
            }
            Run::Reset => {
                self.channels.remove(session, id);
                session.reset();
            }
            _ => introduction::answer(command, args, session, &self.settings),
        }
    }

    /// Carries out what another reactor's connection asks for.
    fn requested(&mut self, mut batch: Box<Batch>, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        let Self { store, channels, settings, .. } = self;
        batch.execute(|command, args, is_resp3, out| {
            if command.run == Run::Publish {
                let most = settings.max_output;
                let receivers = channels.publish(args.at(1), args.at(2), most, sessions, core);
                return out.integer(receivers as i64);
            }
            command.execute(store, settings.limits, args, is_resp3, out);
        });
        if batch.from.reactor() == self.mine {
            self.answered(batch, sessions, core);
        } else {
            self.mail.post(batch.from.reactor(), Message::Answers(batch), core);
        }
    }

    /// Gives a connection of ours the answers it waits for.
    fn answered(&mut self, batch: Box<Batch>, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        let id = batch.from;
        if let Some(session) = sessions.get_mut(id) {
            session.lend(&mut self.spare);
            batch.answers().for_each(|(ticket, part)| session.answer(ticket, part));
            session.asked -= batch.size();
            session.flush(core, id);
            session.take_back(&mut self.spare);
            if session.is_paused && !session.is_waiting() {
                session.is_paused = false;
                core.resume(id);
            }
            if session.is_closing && session.is_done() {
                core.close(id);
            }
        }
        self.mail.recycle(batch);
    }

    /// Sends on what had no room before.
    fn retry(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        for mut batch in self.mail.retry(core) {
            batch.execute(|_, _, _, out| out.error("ERR server is shutting down"));
            self.answered(batch, sessions, core);
        }
        if !self.mail.is_clogged() {
            self.stalled.drain(..).for_each(|id| {
                core.resume(id);
            });
        }
    }

    fn set_time(&mut self, core: &Core<'_>) {
        let now = core.now().saturating_duration_since(self.settings.started);
        self.store.set_time(now.as_millis() as u64);
    }
}

/// What is wrong with a request, if anything is.
#[inline]
fn check(command: &Command, args: Args<'_>, session: &Session) -> Result<(), String> {
    let is_even = args.len().is_multiple_of(2);
    if !command.accepts(args.len()) || command.run == Run::Mset && is_even {
        return Err(introduction::wrong_number(command.name));
    }
    if session.is_listening_only()
        && !matches!(command.run, Run::Subscribe | Run::Unsubscribe | Run::Ping | Run::Reset | Run::Quit)
    {
        return Err(introduction::only_listening(command, args));
    }
    if command.run == Run::Flushdb {
        let is_known =
            |word: &[u8]| word.eq_ignore_ascii_case(b"async") || word.eq_ignore_ascii_case(b"sync");
        if args.len() > 2 || !args.from(1).all(is_known) {
            return Err(SYNTAX.to_owned());
        }
    }
    Ok(())
}

fn verdict(session: &Session) -> Flow {
    if session.is_closing && session.is_done() { Flow::Close } else { Flow::Continue }
}

impl Handler for Service {
    type Session = Session;
    type Message = Message;

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<Session> {
        self.accepted += 1;
        let number = self.accepted * self.mail.reactors() as u64 + self.mine as u64;
        Open::Accept(Session::new(number))
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        self.serve(conn, session, input)
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        let id = conn.id();
        session.flush(conn.core(), id);
        verdict(session)
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        session.has_ended = true;
        self.serve(conn, session, input)
    }

    fn on_close(&mut self, id: ConnId, session: Session, reason: CloseReason, _: &mut Core<'_>) {
        self.channels.remove(&session, id);
        if reason == CloseReason::SlowConsumer {
            // Not `eprintln`, which panics where nobody reads.
            let _ = writeln!(
                io::stderr(),
                "client {} is cut off: it does not take what it is sent",
                session.number
            );
        }
    }

    fn on_message(&mut self, message: Message, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.set_time(core);
        match message {
            Message::Requests(batch) => self.requested(batch, sessions, core),
            Message::Answers(batch) => self.answered(batch, sessions, core),
        }
    }

    fn on_timer(&mut self, _: TimerId, _: u64, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.retry(sessions, core);
    }

    fn on_tick(&mut self, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.set_time(core);
        self.store.sweep(SWEPT);
    }

    fn on_drain(&mut self, _: &mut Conn<'_>, session: &mut Session) -> Flow {
        session.is_closing = true;
        verdict(session)
    }
}
