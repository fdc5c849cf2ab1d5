use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use corelane::{ConnId, Core, Handle, Relay};

use crate::message::{Answer, Message, Name, Request};

/// Sends to the reactors, this one included. What their mailboxes have no room for waits, and what waits is
/// bounded, because who asks for more is made to wait as well: a member has one request under way at a time, and
/// while too much waits, the answers that allow the next are withheld.
pub(crate) struct Links {
    relay: Relay<Message>,
    most_waiting: usize,
    withheld: VecDeque<(ConnId, Answer)>,
}

impl Links {
    pub(crate) fn new(handle: Handle<Message>, most_waiting: usize) -> Self {
        Self { relay: Relay::new(handle, 0), most_waiting, withheld: VecDeque::new() }
    }

    pub(crate) fn reactors(&self) -> usize {
        self.relay.reactors()
    }

    /// The reactor that owns a name. All must agree on it, so the hash has no random seed.
    fn owner(&self, name: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        name.to_ascii_lowercase().hash(&mut hasher);
        (hasher.finish() % self.reactors() as u64) as usize
    }

    /// Asks the owner of a name.
    pub(crate) fn ask(&mut self, core: &mut Core<'_>, member: ConnId, name: &Name, request: Request) {
        self.send(core, self.owner(name), Message::Ask { member, name: name.clone(), request });
    }

    /// Gives a member the last answer to a request, behind which the next may come.
    pub(crate) fn tell(&mut self, core: &mut Core<'_>, member: ConnId, answer: Answer) {
        if self.are_behind() {
            self.withheld.push_back((member, answer));
        } else {
            self.send(core, member.reactor(), Message::Tell { member, answer });
        }
    }

    pub(crate) fn send(&mut self, core: &mut Core<'_>, reactor: usize, message: Message) {
        self.relay.send(core, reactor, message);
    }

    /// Sends what waits, as far as the mailboxes take it. To be called by `on_timer`.
    pub(crate) fn retry(&mut self, core: &mut Core<'_>) {
        // What comes back is for a reactor that has ended, and its members with it.
        drop(self.relay.retry(core));
        while !self.are_behind()
            && let Some((member, answer)) = self.withheld.pop_front()
        {
            self.tell(core, member, answer);
        }
    }

    fn are_behind(&self) -> bool {
        self.relay.waiting() >= self.most_waiting
    }
}
