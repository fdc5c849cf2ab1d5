use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use corelane::{ConnId, Core, Handle, SendError};

use crate::message::{Answer, Message, Name, Request};

/// When a full mailbox is tried again.
const PATIENCE: Duration = Duration::from_millis(1);

/// Sends to the reactors, this one included. A mailbox is bounded and may be full; nothing may block and
/// nothing may be lost. So what is not taken waits here and is sent later, in its order.
///
/// What waits is bounded, because who asks for more is made to wait as well: a member has one request under
/// way at a time, and while too much waits here, the answers that allow the next are withheld.
pub(crate) struct Links {
    handle: Handle<Message>,
    /// By reactor.
    waiting: Vec<VecDeque<Message>>,
    most_waiting: usize,
    withheld: VecDeque<(ConnId, Answer)>,
    timer_is_set: bool,
}

impl Links {
    pub(crate) fn new(handle: Handle<Message>, most_waiting: usize) -> Self {
        let waiting = (0..handle.reactors()).map(|_| VecDeque::new()).collect();
        Self { handle, waiting, most_waiting, withheld: VecDeque::new(), timer_is_set: false }
    }

    pub(crate) fn reactors(&self) -> usize {
        self.waiting.len()
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
        if self.waiting[reactor].is_empty() {
            self.try_send(reactor, message);
        } else {
            self.waiting[reactor].push_back(message);
        }
        self.come_back(core);
    }

    /// Sends what waits, as far as the mailboxes take it. To be called by `on_timer`.
    pub(crate) fn retry(&mut self, core: &mut Core<'_>) {
        self.timer_is_set = false;
        for reactor in 0..self.reactors() {
            while let Some(message) = self.waiting[reactor].pop_front() {
                if !self.try_send(reactor, message) {
                    break;
                }
            }
        }
        while !self.are_behind()
            && let Some((member, answer)) = self.withheld.pop_front()
        {
            self.tell(core, member, answer);
        }
        self.come_back(core);
    }

    fn are_behind(&self) -> bool {
        self.waiting.iter().any(|queue| queue.len() >= self.most_waiting)
    }

    /// Whether the mailbox had room. A message that it had none for is the first that waits.
    fn try_send(&mut self, reactor: usize, message: Message) -> bool {
        match self.handle.send(reactor, message) {
            Ok(()) => true,
            Err(SendError::Full(message)) => {
                self.waiting[reactor].push_front(message);
                false
            }
            // That reactor has ended, and its members with it.
            Err(SendError::Stopped(_)) => true,
        }
    }

    fn come_back(&mut self, core: &mut Core<'_>) {
        if !self.timer_is_set && self.waiting.iter().any(|queue| !queue.is_empty()) {
            core.set_timer(PATIENCE, 0);
            self.timer_is_set = true;
        }
    }
}
