use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use corelane::codec::{Decoder, Lines};
use corelane::{
    CloseReason, Conn, ConnId, Core, Flow, Handle, Handler, Input, Open, Peer, Sessions, TimerId,
};

use crate::Limits;
use crate::links::Links;
use crate::message::{Answer, Message, Name, Request};
use crate::owned::Owned;
use crate::text::{Command, HELP, listing, name, readable};

/// One reactor's part of the server.
pub(crate) struct Chat {
    limits: Limits,
    links: Links,
    /// What this reactor owns, for members everywhere.
    owned: Owned,
    /// The members on this reactor by room, whoever owns it.
    present: HashMap<Name, HashSet<ConnId>>,
}

/// A connection's state. While it waits for an answer no further line of it is looked at: lines are obeyed
/// in order, and a member who sends faster than the owners answer feels the backpressure of TCP.
pub(crate) struct Member {
    peer: Peer,
    lines: Decoder<Lines>,
    nickname: Option<Name>,
    room: Option<Name>,
    waits_for: WaitsFor,
    /// Has sent all it ever will, and goes when the last answer has come.
    is_leaving: bool,
}

enum WaitsFor {
    Nothing,
    Word,
    Nickname(Name),
    Room(Name),
    /// The rooms of so many reactors, with what the others have answered.
    Rooms(usize, Vec<(Name, usize)>),
}

impl Handler for Chat {
    type Session = Member;
    type Message = Message;

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Member> {
        notice(conn, "welcome; which nickname do you want?");
        Open::Accept(Member {
            peer: conn.peer(),
            lines: Decoder::new(Lines::new().maximum(self.limits.line)),
            nickname: None,
            room: None,
            waits_for: WaitsFor::Nothing,
            is_leaving: false,
        })
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, member: &mut Member, input: &mut Input<'_>) -> Flow {
        while !member.is_waiting() {
            match member.lines.next(input) {
                Ok(Some(line)) => match self.obey(conn, member, line) {
                    Flow::Continue => {}
                    end => return end,
                },
                Ok(None) => return Flow::Continue,
                Err(_) => return self.refuse_line(conn, member),
            }
        }
        // The answer resumes it, and what is left of the input is shown again.
        conn.pause();
        Flow::Continue
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, member: &mut Member, input: &mut Input<'_>) -> Flow {
        let flow = match member.lines.last(input) {
            Ok(Some(line)) => self.obey(conn, member, line),
            Ok(None) => Flow::Continue,
            Err(_) => self.refuse_line(conn, member),
        };
        member.is_leaving = true;
        if member.is_waiting() { flow } else { Flow::Close }
    }

    fn on_close(&mut self, id: ConnId, mut member: Member, reason: CloseReason, core: &mut Core<'_>) {
        if matches!(reason, CloseReason::SlowConsumer | CloseReason::WriteStall) {
            log_cut_off(&member, reason);
        }
        self.forget(id, &mut member, core);
    }

    fn on_message(&mut self, message: Message, sessions: &mut Sessions<Member>, core: &mut Core<'_>) {
        match message {
            Message::Ask { member, name, request } => {
                self.owned.serve(member, &name, request, &mut self.links, core);
            }
            Message::AskRooms { member } => self.links.tell(core, member, self.owned.rooms()),
            Message::Tell { member: id, answer } => {
                // Who has gone meanwhile has no session, and was forgotten when it went.
                if let Some(member) = sessions.get_mut(id) {
                    self.hear(id, member, answer, core);
                }
            }
            Message::Deliver { room, line } => {
                for id in self.present.get(&room).into_iter().flatten() {
                    // One payload for all. Whoever has too much waiting is cut off for this write.
                    core.write_shared(*id, &line);
                }
            }
        }
    }

    fn on_timer(&mut self, _: TimerId, _: u64, _: &mut Sessions<Member>, core: &mut Core<'_>) {
        self.links.retry(core);
    }

    fn on_shutdown(&mut self, _: &mut Sessions<Member>, _: &mut Core<'_>) {
        self.owned.is_ending = true;
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>, _: &mut Member) -> Flow {
        notice(conn, "the server is shutting down; goodbye");
        Flow::Close
    }
}

impl Chat {
    pub(crate) fn new(limits: Limits, most_waiting: usize, handle: Handle<Message>) -> Self {
        Self {
            links: Links::new(handle, most_waiting),
            owned: Owned::new(limits.clone()),
            present: HashMap::new(),
            limits,
        }
    }

    /// Does what a line says, or asks the owner who can.
    fn obey(&mut self, conn: &mut Conn<'_>, member: &mut Member, line: &[u8]) -> Flow {
        let id = conn.id();
        let text = readable(line);
        let command = match Command::parse(&text) {
            Command::Nothing => return Flow::Continue,
            // The first line is a nickname.
            Command::Say(nickname) if member.nickname.is_none() => Command::Nick(nickname),
            command => command,
        };
        match (command, member.nickname.clone(), member.room.clone()) {
            (Command::Help, ..) => drop(conn.write(HELP.as_bytes())),
            (Command::Unknown(word), ..) => notice(conn, &format!("there is no /{word}; try /help")),
            (Command::Quit, ..) => {
                notice(conn, "goodbye");
                self.forget(id, member, conn.core());
                return Flow::Close;
            }
            (Command::Nick(nickname), ..) => self.claim(conn, member, nickname),
            (_, None, _) => notice(conn, "your nickname first, please"),
            (Command::Rooms, ..) => self.ask_rooms(id, member, conn.core()),
            (Command::Join(room), Some(nickname), _) => self.join(conn, member, room, nickname),
            (_, _, None) => notice(conn, "you are in no room; /join one"),
            (Command::Leave, _, Some(room)) => {
                member.room = None;
                self.leave(id, &room, conn.core());
                notice(conn, &format!("you have left {room}"));
            }
            (Command::Who, _, Some(room)) => self.ask(conn, member, WaitsFor::Word, &room, Request::Who),
            (Command::Say(text), Some(nickname), Some(room)) => {
                let line = format!("{nickname}: {text}\n").into();
                self.ask(conn, member, WaitsFor::Word, &room, Request::Say { line });
            }
            (Command::Me(text), Some(nickname), Some(room)) => {
                let line = format!("* {nickname} {text}\n").into();
                self.ask(conn, member, WaitsFor::Word, &room, Request::Say { line });
            }
            (Command::Nothing, ..) => {}
        }
        Flow::Continue
    }

    fn claim(&mut self, conn: &mut Conn<'_>, member: &mut Member, nickname: &str) {
        let longest = self.limits.name;
        match name(nickname, longest) {
            Some(name) => {
                self.ask(conn, member, WaitsFor::Nickname(name.clone()), &name, Request::Claim);
            }
            None => refuse_name(conn, "nickname", longest),
        }
    }

    fn join(&mut self, conn: &mut Conn<'_>, member: &mut Member, room: &str, nickname: Name) {
        let longest = self.limits.name;
        match name(&room.to_ascii_lowercase(), longest) {
            Some(room) if member.room.as_ref() == Some(&room) => {
                notice(conn, &format!("you are in {room} already"));
            }
            Some(room) => {
                self.ask(conn, member, WaitsFor::Room(room.clone()), &room, Request::Join { nickname });
            }
            None => refuse_name(conn, "room's name", longest),
        }
    }

    /// Asks the owner of a name for something that the member has to wait for.
    fn ask(
        &mut self,
        conn: &mut Conn<'_>,
        member: &mut Member,
        waits_for: WaitsFor,
        name: &Name,
        request: Request,
    ) {
        member.waits_for = waits_for;
        let id = conn.id();
        self.links.ask(conn.core(), id, name, request);
    }

    /// Asks every reactor for the rooms it owns.
    fn ask_rooms(&mut self, id: ConnId, member: &mut Member, core: &mut Core<'_>) {
        let reactors = self.links.reactors();
        member.waits_for = WaitsFor::Rooms(reactors, Vec::new());
        for reactor in 0..reactors {
            self.links.send(core, reactor, Message::AskRooms { member: id });
        }
    }

    /// An owner has answered.
    fn hear(&mut self, id: ConnId, member: &mut Member, answer: Answer, core: &mut Core<'_>) {
        match answer {
            Answer::Done => {}
            Answer::Text(text) | Answer::Refused(text) => tell(core, id, &text),
            Answer::Named(nickname) => self.named(id, member, nickname, core),
            Answer::Joined { room, members, history } => {
                tell(core, id, &format!("you are in {room} ({members} here)"));
                for line in &history {
                    core.write_shared(id, line);
                }
                return self.joined(id, member, room, core);
            }
            Answer::Rooms(some) => {
                let WaitsFor::Rooms(reactors, found) = &mut member.waits_for else { return };
                found.extend(some);
                *reactors -= 1;
                if *reactors > 0 {
                    return;
                }
                let rooms = found.iter().map(|(room, members)| format!("{room} ({members})")).collect();
                tell(core, id, &format!("rooms, with their members: {}", listing(rooms)));
            }
        }
        member.waits_for = WaitsFor::Nothing;
        if member.is_leaving {
            core.close(id);
        } else {
            core.resume(id);
        }
    }

    fn named(&mut self, id: ConnId, member: &mut Member, nickname: Name, core: &mut Core<'_>) {
        tell(core, id, &format!("you are {nickname}; /join ROOM to talk, /help for more"));
        if let Some(room) = &member.room {
            self.links.ask(core, id, room, Request::Rename { nickname: nickname.clone() });
        }
        if let Some(old) = member.nickname.replace(nickname.clone())
            && !old.eq_ignore_ascii_case(&nickname)
        {
            self.links.ask(core, id, &old, Request::Release);
        }
    }

    /// What the owner has delivered before it answered is in the history, and what it delivers from now on
    /// comes behind its answer: nothing is missed, and nothing comes twice.
    fn joined(&mut self, id: ConnId, member: &mut Member, room: Name, core: &mut Core<'_>) {
        if let Some(old) = member.room.replace(room.clone()) {
            self.leave(id, &old, core);
        }
        self.present.entry(room).or_default().insert(id);
    }

    fn leave(&mut self, id: ConnId, room: &Name, core: &mut Core<'_>) {
        if let Some(members) = self.present.get_mut(room) {
            members.remove(&id);
            if members.is_empty() {
                self.present.remove(room);
            }
        }
        self.links.ask(core, id, room, Request::Leave);
    }

    /// Removes every trace of a member, also those that are still being made: the owner gets this behind the
    /// request that it undoes.
    fn forget(&mut self, id: ConnId, member: &mut Member, core: &mut Core<'_>) {
        let (mut room, mut nickname) = (None, None);
        match std::mem::replace(&mut member.waits_for, WaitsFor::Nothing) {
            WaitsFor::Room(asked) => room = Some(asked),
            WaitsFor::Nickname(asked) => nickname = Some(asked),
            _ => {}
        }
        for room in [member.room.take(), room].into_iter().flatten() {
            self.leave(id, &room, core);
        }
        for nickname in [member.nickname.take(), nickname].into_iter().flatten() {
            self.links.ask(core, id, &nickname, Request::Release);
        }
    }

    fn refuse_line(&mut self, conn: &mut Conn<'_>, member: &mut Member) -> Flow {
        notice(conn, &format!("a line has at most {} bytes; goodbye", self.limits.line));
        let id = conn.id();
        self.forget(id, member, conn.core());
        Flow::Close
    }
}

impl Member {
    fn is_waiting(&self) -> bool {
        !matches!(self.waits_for, WaitsFor::Nothing)
    }
}

fn refuse_name(conn: &mut Conn<'_>, what: &str, longest: usize) {
    notice(conn, &format!("a {what} has 1 to {longest} letters, digits, - and _, a letter first"));
}

/// A line of the server's own, to the connection whose callback runs.
fn notice(conn: &mut Conn<'_>, text: &str) {
    conn.write_slices(&[b"-- ", text.as_bytes(), b"\n"]);
}

/// The same, to any other.
fn tell(core: &mut Core<'_>, id: ConnId, text: &str) {
    core.write_slices(id, &[b"-- ", text.as_bytes(), b"\n"]);
}

fn log_cut_off(member: &Member, reason: CloseReason) {
    let nickname = member.nickname.as_deref().unwrap_or("somebody");
    let (peer, reason) = (member.peer, reason.name());
    // Not `eprintln`, which panics where nobody reads.
    let _ = writeln!(io::stderr(), "cut off {nickname} at {peer}, who reads too slowly: {reason}");
}
