use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use corelane::{ConnId, Core, Shared};

use crate::Limits;
use crate::links::Links;
use crate::message::{Answer, Message, Name, Request};
use crate::text::listing;

/// The nicknames and rooms that this reactor owns, whichever reactors their members are on.
pub(crate) struct Owned {
    limits: Limits,
    /// Who bears a nickname. Names that differ only in case are the same, so these are in lower case.
    nicknames: HashMap<String, ConnId>,
    rooms: HashMap<Name, Room>,
    /// The server shuts down: all are going, and need not be told of each other.
    pub(crate) is_ending: bool,
}

/// It is there as long as it has members.
#[derive(Default)]
struct Room {
    /// By the nickname that they are known by here.
    members: HashMap<ConnId, Name>,
    /// How many of them each reactor has: one that has none gets no messages.
    by_reactor: Vec<usize>,
    /// What was said last, in the order in which it was said.
    history: VecDeque<Shared>,
}

impl Owned {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, nicknames: HashMap::new(), rooms: HashMap::new(), is_ending: false }
    }

    /// Serves a request. Those of one member come in the order in which they were made, so a `Leave` or a
    /// `Release` never overtakes the `Join` or `Claim` that it undoes.
    pub(crate) fn serve(
        &mut self,
        member: ConnId,
        name: &Name,
        request: Request,
        links: &mut Links,
        core: &mut Core<'_>,
    ) {
        let answer = match request {
            Request::Claim => self.claim(member, name),
            Request::Join { nickname } => self.join(member, name, &nickname, links, core),
            Request::Say { line } => self.say(member, name, line, links, core),
            Request::Who => self.who(name),
            Request::Release => return self.release(member, name),
            Request::Leave => return self.leave(member, name, links, core),
            Request::Rename { nickname } => return self.rename(member, name, nickname, links, core),
        };
        links.tell(core, member, answer);
    }

    pub(crate) fn rooms(&self) -> Answer {
        Answer::Rooms(self.rooms.iter().map(|(name, room)| (name.clone(), room.members.len())).collect())
    }

    fn claim(&mut self, member: ConnId, nickname: &Name) -> Answer {
        let bearer = *self.nicknames.entry(nickname.to_ascii_lowercase()).or_insert(member);
        if bearer == member {
            Answer::Named(nickname.clone())
        } else {
            Answer::Refused(format!("{nickname} is taken; choose another nickname"))
        }
    }

    fn release(&mut self, member: ConnId, nickname: &str) {
        if let Entry::Occupied(bearer) = self.nicknames.entry(nickname.to_ascii_lowercase())
            && *bearer.get() == member
        {
            bearer.remove();
        }
    }

    fn join(
        &mut self,
        member: ConnId,
        name: &Name,
        nickname: &Name,
        links: &mut Links,
        core: &mut Core<'_>,
    ) -> Answer {
        let size = self.rooms.get(name).map(|room| room.members.len());
        if size.is_none() && self.rooms.len() >= self.limits.rooms {
            return Answer::Refused("there are too many rooms".into());
        }
        if size.unwrap_or(0) >= self.limits.members {
            return Answer::Refused(format!("{name} is full"));
        }
        let room = self.rooms.entry(name.clone()).or_default();
        room.by_reactor.resize(links.reactors(), 0);
        room.by_reactor[member.reactor()] += 1;
        room.members.insert(member, nickname.clone());
        let members = room.members.len();
        let history = room.history.iter().cloned().collect();
        // Who joins does not see the announcement: their reactor delivers to those it knows to be in the room.
        self.announce(name, format!("-- {nickname} has joined\n"), links, core);
        let answer = Answer::Joined { room: name.clone(), members, history };
        // Never withheld: what is delivered from now on must find the member there.
        links.send(core, member.reactor(), Message::Tell { member, answer });
        Answer::Done
    }

    fn leave(&mut self, member: ConnId, name: &Name, links: &mut Links, core: &mut Core<'_>) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(nickname) = room.members.remove(&member) else { return };
        room.by_reactor[member.reactor()] -= 1;
        if room.members.is_empty() {
            self.rooms.remove(name);
        } else {
            self.announce(name, format!("-- {nickname} has left\n"), links, core);
        }
    }

    fn rename(
        &mut self,
        member: ConnId,
        name: &Name,
        nickname: Name,
        links: &mut Links,
        core: &mut Core<'_>,
    ) {
        let room = self.rooms.get_mut(name);
        if let Some(known_as) = room.and_then(|room| room.members.get_mut(&member)) {
            let line = format!("-- {known_as} is now {nickname}\n");
            *known_as = nickname;
            self.announce(name, line, links, core);
        }
    }

    fn say(
        &mut self,
        member: ConnId,
        name: &Name,
        line: Shared,
        links: &mut Links,
        core: &mut Core<'_>,
    ) -> Answer {
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.members.contains_key(&member)) else {
            return Answer::Refused(format!("you are not in {name}"));
        };
        room.history.push_back(line.clone());
        if room.history.len() > self.limits.history {
            room.history.pop_front();
        }
        room.deliver(name, &line, links, core);
        Answer::Done
    }

    fn who(&self, name: &Name) -> Answer {
        let Some(room) = self.rooms.get(name) else { return Answer::Refused(format!("there is no {name}")) };
        let nicknames = room.members.values().map(|nickname| nickname.to_string()).collect();
        Answer::Text(format!("{} in {name}: {}", room.members.len(), listing(nicknames)))
    }

    /// Tells the members of a room who comes and goes, unless they are too many to care.
    fn announce(&self, name: &Name, line: String, links: &mut Links, core: &mut Core<'_>) {
        if let Some(room) = self.rooms.get(name)
            && room.members.len() <= self.limits.announce
            && !self.is_ending
        {
            room.deliver(name, &line.into(), links, core);
        }
    }
}

impl Room {
    /// One message for each reactor, however many members it has.
    fn deliver(&self, name: &Name, line: &Shared, links: &mut Links, core: &mut Core<'_>) {
        for (reactor, members) in self.by_reactor.iter().enumerate() {
            if *members > 0 {
                links.send(core, reactor, Message::Deliver { room: name.clone(), line: line.clone() });
            }
        }
    }
}
