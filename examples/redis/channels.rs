//! Who of this reactor's connections has subscribed to what.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use corelane::{ConnId, Core, Sessions, Shared};

use crate::reply::Reply;
use crate::session::Session;

/// Channels that one connection may subscribe to, and bytes of their names.
const MOST_CHANNELS: usize = 16 * 1024;
const MOST_NAMES: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Channels {
    members: HashMap<Rc<[u8]>, HashSet<ConnId>>,
}

impl Channels {
    pub(crate) fn subscribe(&mut self, session: &mut Session, id: ConnId, channel: &[u8]) {
        if !session.channels.contains(channel) {
            if session.channels.len() == MOST_CHANNELS || session.channel_bytes + channel.len() > MOST_NAMES {
                return session.out().error("ERR too many subscriptions");
            }
            let name = match self.members.get_key_value(channel) {
                Some((name, _)) => Rc::clone(name),
                None => Rc::from(channel),
            };
            self.members.entry(Rc::clone(&name)).or_default().insert(id);
            session.channels.insert(name);
            session.channel_bytes += channel.len();
        }
        confirm(session, "subscribe", Some(channel));
    }

    pub(crate) fn unsubscribe(&mut self, session: &mut Session, id: ConnId, channel: &[u8]) {
        if session.channels.remove(channel) {
            session.channel_bytes -= channel.len();
        }
        self.leave(id, channel);
        confirm(session, "unsubscribe", Some(channel));
    }

    pub(crate) fn unsubscribe_all(&mut self, session: &mut Session, id: ConnId) {
        if session.channels.is_empty() {
            return confirm(session, "unsubscribe", None);
        }
        session.channel_bytes = 0;
        while let Some(channel) = session.channels.pop_first() {
            self.leave(id, &channel);
            confirm(session, "unsubscribe", Some(&channel));
        }
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, session: &Session, id: ConnId) {
        session.channels.iter().for_each(|channel| self.leave(id, channel));
    }

    fn leave(&mut self, id: ConnId, channel: &[u8]) {
        if let Some(members) = self.members.get_mut(channel) {
            members.remove(&id);
            if members.is_empty() {
                self.members.remove(channel);
            }
        }
    }

    /// Sends a message to each subscriber, one copy for all of them; how many there are. One that has more
    /// than `most` bytes to take is cut off.
    pub(crate) fn publish(
        &self,
        channel: &[u8],
        text: &[u8],
        most: usize,
        sessions: &mut Sessions<Session>,
        core: &mut Core<'_>,
    ) -> usize {
        let Some(members) = self.members.get(channel) else { return 0 };
        let (mut old, mut new) = (None, None);
        for &id in members {
            let Some(session) = sessions.get_mut(id) else { continue };
            let frame = if session.is_resp3 { &mut new } else { &mut old };
            let frame = frame.get_or_insert_with(|| message(channel, text, session.is_resp3));
            if session.is_done() {
                // Beyond the server's cap the connection is cut off: that is the library's own policy.
                core.write_shared(id, frame);
            } else if session.unwritten() + frame.len() <= most {
                session.out().shared(frame);
            } else {
                core.abort(id);
            }
        }
        members.len()
    }
}

fn message(channel: &[u8], text: &[u8], is_resp3: bool) -> Shared {
    let mut reply = Reply::default();
    reply.push(3, is_resp3);
    reply.bulk(b"message");
    reply.bulk(channel);
    reply.bulk(text);
    reply.into_bytes().into()
}

fn confirm(session: &mut Session, what: &str, channel: Option<&[u8]>) {
    let (count, is_resp3) = (session.channels.len(), session.is_resp3);
    let out = session.out();
    out.push(3, is_resp3);
    out.bulk(what.as_bytes());
    match channel {
        Some(channel) => out.bulk(channel),
        None => out.null(is_resp3),
    }
    out.integer(count as i64);
}
