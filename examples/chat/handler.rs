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
        conn.write(b"-- welcome; which nickname do you want?\n");
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
        let id = conn.id();
        while !member.is_waiting() {
            let flow = match member.lines.next(input) {
                Ok(Some(line)) => self.obey(conn.core(), id, member, line),
                Ok(None) => return Flow::Continue,
                Err(_) => self.refuse_line(conn.core(), id, member),
            };
            if flow != Flow::Continue {
                return flow;
            }
        }
        // The answer resumes it, and what is left of the input is shown again.
        conn.pause();
        Flow::Continue
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, member: &mut Member, input: &mut Input<'_>) -> Flow {
        let id = conn.id();
        // The last line may lack its end.
        let flow = match member.lines.last(input) {
            Ok(Some(line)) => self.obey(conn.core(), id, member, line),
            Ok(None) => Flow::Close,
            Err(_) => self.refuse_line(conn.core(), id, member),
        };
        member.is_leaving = true;
        if member.is_waiting() { flow } else { Flow::Close }
    }

    fn on_close(&mut self, id: ConnId, mut member: Member, reason: CloseReason, core: &mut Core<'_>) {
        if matches!(reason, CloseReason::SlowConsumer | CloseReason::WriteStall) {
            log_cut_off(&member, reason);
        }
        self.forget(core, id, &mut member);
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
                    self.hear(core, id, member, answer);
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
        conn.write(b"-- the server is shutting down; goodbye\n");
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
    fn obey(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member, line: &[u8]) -> Flow {
        let text = readable(line);
        let command = match Command::parse(&text) {
            // The first line is a nickname.
            Command::Say(nickname) if member.nickname.is_none() => Command::Nick(nickname),
            command => command,
        };
        match (command, member.nickname.clone(), member.room.clone()) {
            (Command::Nothing, ..) => {}
            (Command::Help, ..) => drop(core.write(id, HELP.as_bytes())),
            (Command::Unknown(word), ..) => notice(core, id, &format!("there is no /{word}; try /help")),
            (Command::Quit, ..) => {
                notice(core, id, "goodbye");
                self.forget(core, id, member);
                return Flow::Close;
            }
            (Command::Nick(nickname), ..) => self.claim(core, id, member, nickname),
            (_, None, _) => notice(core, id, "your nickname first, please"),
            (Command::Rooms, ..) => self.ask_rooms(core, id, member),
            (Command::Join(room), Some(nickname), _) => self.join(core, id, member, room, nickname),
            (_, _, None) => notice(core, id, "you are in no room; /join one"),
            (Command::Leave, _, Some(room)) => {
                member.room = None;
                self.leave(core, id, &room);
                notice(core, id, &format!("you have left {room}"));
            }
            (Command::Who, _, Some(room)) => {
                member.waits_for = WaitsFor::Word;
                self.links.ask(core, id, &room, Request::Who);
            }
            (Command::Say(text), Some(nickname), Some(room)) => {
                self.say(core, id, member, &room, format!("{nickname}: {text}\n"));
            }
            (Command::Me(text), Some(nickname), Some(room)) => {
                self.say(core, id, member, &room, format!("* {nickname} {text}\n"));
            }
        }
        Flow::Continue
    }

    fn claim(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member, nickname: &str) {
        match name(nickname, self.limits.name) {
            Some(nickname) => {
                self.links.ask(core, id, &nickname, Request::Claim);
                member.waits_for = WaitsFor::Nickname(nickname);
            }
            None => self.refuse_name(core, id, "nickname"),
        }
    }

    fn join(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member, room: &str, nickname: Name) {
        match name(&room.to_ascii_lowercase(), self.limits.name) {
            Some(room) if member.room.as_ref() == Some(&room) => {
                notice(core, id, &format!("you are in {room} already"));
            }
            Some(room) => {
                self.links.ask(core, id, &room, Request::Join { nickname });
                member.waits_for = WaitsFor::Room(room);
            }
            None => self.refuse_name(core, id, "room's name"),
        }
    }

    fn say(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member, room: &Name, line: String) {
        member.waits_for = WaitsFor::Word;
        self.links.ask(core, id, room, Request::Say { line: line.into() });
    }

    /// Asks every reactor for the rooms it owns.
    fn ask_rooms(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member) {
        let reactors = self.links.reactors();
        member.waits_for = WaitsFor::Rooms(reactors, Vec::new());
        for reactor in 0..reactors {
            self.links.send(core, reactor, Message::AskRooms { member: id });
        }
    }

    /// An owner has answered.
    fn hear(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member, answer: Answer) {
        match answer {
            Answer::Done => {}
            Answer::Text(text) | Answer::Refused(text) => notice(core, id, &text),
            Answer::Named(nickname) => self.named(core, id, member, nickname),
            Answer::Joined { room, members, history } => {
                notice(core, id, &format!("you are in {room} ({members} here)"));
                for line in &history {
                    core.write_shared(id, line);
                }
                return self.joined(core, id, member, room);
            }
            Answer::Rooms(some) => {
                let WaitsFor::Rooms(reactors, found) = &mut member.waits_for else { return };
                found.extend(some);
                *reactors -= 1;
                if *reactors > 0 {
                    return;
                }
                let rooms = found.iter().map(|(room, members)| format!("{room} ({members})")).collect();
                notice(core, id, &format!("rooms, with their members: {}", listing(rooms)));
            }
        }
        member.waits_for = WaitsFor::Nothing;
        if member.is_leaving {
            core.close(id);
        } else {
            core.resume(id);
        }
    }

    fn named(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member, nickname: Name) {
        notice(core, id, &format!("you are {nickname}; /join ROOM to talk, /help for more"));
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
    fn joined(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member, room: Name) {
        if let Some(old) = member.room.replace(room.clone()) {
            self.leave(core, id, &old);
        }
        self.present.entry(room).or_default().insert(id);
    }

    fn leave(&mut self, core: &mut Core<'_>, id: ConnId, room: &Name) {
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
    fn forget(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member) {
        let (mut room, mut nickname) = (None, None);
        match std::mem::replace(&mut member.waits_for, WaitsFor::Nothing) {
            WaitsFor::Room(asked) => room = Some(asked),
            WaitsFor::Nickname(asked) => nickname = Some(asked),
            _ => {}
        }
        for room in [member.room.take(), room].into_iter().flatten() {
            self.leave(core, id, &room);
        }
        for nickname in [member.nickname.take(), nickname].into_iter().flatten() {
            self.links.ask(core, id, &nickname, Request::Release);
        }
    }

    fn refuse_line(&mut self, core: &mut Core<'_>, id: ConnId, member: &mut Member) -> Flow {
        notice(core, id, &format!("a line has at most {} bytes; goodbye", self.limits.line));
        self.forget(core, id, member);
        Flow::Close
    }

    fn refuse_name(&self, core: &mut Core<'_>, id: ConnId, what: &str) {
        let longest = self.limits.name;
        let text = format!("a {what} has 1 to {longest} letters, digits, - and _, a letter first");
        notice(core, id, &text);
    }
}

impl Member {
    fn is_waiting(&self) -> bool {
        !matches!(self.waits_for, WaitsFor::Nothing)
    }
}

/// A line of the server's own.
fn notice(core: &mut Core<'_>, id: ConnId, text: &str) {
    core.write_slices(id, &[b"-- ", text.as_bytes(), b"\n"]);
}

fn log_cut_off(member: &Member, reason: CloseReason) {
    let nickname = member.nickname.as_deref().unwrap_or("somebody");
    let (peer, reason) = (member.peer, reason.name());
    // Not `eprintln`, which panics where nobody reads.
    let _ = writeln!(io::stderr(), "cut off {nickname} at {peer}, who reads too slowly: {reason}");
}
