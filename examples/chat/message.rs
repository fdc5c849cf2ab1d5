use std::sync::Arc;

use corelane::{ConnId, Shared};

/// A nickname or the name of a room, as it goes from reactor to reactor.
pub(crate) type Name = Arc<str>;

/// What reactors say to each other, and to themselves: where the owner is the member's own reactor, the
/// message takes the same way through the mailbox, so that all messages of an owner keep one order.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the owner of `name`.
    Ask { member: ConnId, name: Name, request: Request },
    /// To every reactor: which rooms it owns. Each answers with `Rooms`.
    AskRooms { member: ConnId },
    /// To the reactor of the member who asked.
    Tell { member: ConnId, answer: Answer },
    /// To each reactor that has members in the room, once for all of them.
    Deliver { room: Name, line: Shared },
}

/// What a member wants of the owner of a name.
#[derive(Debug)]
pub(crate) enum Request {
    /// To bear this nickname. Answered by `Named` or `Refused`.
    Claim,
    /// To bear it no longer. No answer.
    Release,
    /// To be in this room. Answered by `Joined` and `Done`, or by `Refused`.
    Join { nickname: Name },
    /// To be in it no longer. No answer.
    Leave,
    /// To be known by another nickname there. No answer.
    Rename { nickname: Name },
    /// To have a line delivered to all who are there. Answered by `Done` or `Refused`.
    Say { line: Shared },
    /// Who is there. Answered by `Text`.
    Who,
}

/// What an owner answers. Each but `Joined` is the last answer to a request, or to `AskRooms` one reactor's.
#[derive(Debug)]
pub(crate) enum Answer {
    Named(Name),
    Joined {
        room: Name,
        members: usize,
        history: Vec<Shared>,
    },
    Done,
    Text(String),
    Refused(String),
    /// Each with the number of its members.
    Rooms(Vec<(Name, usize)>),
}
