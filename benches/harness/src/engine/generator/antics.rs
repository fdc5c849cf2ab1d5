//! What the crowd does, at every tick.

use corelane::{Conn, ConnId, Core, Flow, Input, Sessions};

use super::{Generator, Session, Stage, Wanted};
use crate::engine::crowd::{Antic, unread_goal};
use crate::outcome::Status;
use crate::plan::Mischief;
use crate::protocol::Purpose;

/// Requests that a slow reader has without a reply until it knows how large those are.
const ASKED_AHEAD: u64 = 64;

/// Requests that it adds at a time: the honest ones beside it are not to wait for the client.
const ASKED_AT_A_TIME: usize = 1_024;

/// Ticks that a slow writer takes for a request.
const DROPS: usize = 10;

/// Ticks between two bytes of a slowloris: two seconds, as it is to live on little.
const SLOWLORIS: usize = 20;

/// Bytes of garbage at a time.
const GARBAGE: usize = 256;

impl Generator {
    /// Dials those of the crowd that are not there.
    pub(super) fn dial_crowd(&mut self, core: &mut Core<'_>, now: u64) {
        for member in std::mem::take(&mut self.crowd.to_dial) {
            self.dial(core, Wanted { antic: Some(member), since: now });
        }
    }

    pub(super) fn crowd_opened(
        &mut self,
        conn: &mut Conn<'_>,
        member: u32,
        number: u64,
        now: u64,
    ) -> Session {
        let mut session = Session::new(number, u32::MAX);
        let kind = self.crowd.kind(member).unwrap_or(Mischief::Silent);
        let mut ticks = 0;
        self.crowd.opened(conn.id());
        let acted = match kind {
            Mischief::Silent => true,
            Mischief::SlowWriter => false,
            Mischief::SlowReader => {
                let id = conn.id();
                conn.pause();
                self.ask_ahead(conn.core(), &mut session, id, ASKED_AHEAD, now);
                session.talk.unanswered() > 0
            }
            Mischief::Slowloris => {
                let (begin, _) = self.wire.endless();
                // Not all in the same tick.
                ticks = self.rng.usize(..SLOWLORIS);
                conn.write(&begin).is_taken()
            }
            Mischief::Reset => {
                self.wire.ask(&mut session.talk, (now, now), Purpose::Proof, |parts| {
                    conn.write_slices(parts).is_taken()
                });
                // It is not done yet.
                false
            }
            Mischief::Garbage => conn.write(&self.garbage()).is_taken(),
        };
        if acted {
            self.crowd.acted(member);
        }
        session.antic =
            Some(Box::new(Antic { member, kind, drops: Vec::new(), sent: 0, ticks, heard: (0, 0) }));
        self.check_opened();
        session
    }

    /// Has a slow reader ask for more than it takes: so many requests are to be without a reply.
    fn ask_ahead(&mut self, core: &mut Core<'_>, session: &mut Session, id: ConnId, goal: u64, now: u64) {
        let lack = (goal as usize).saturating_sub(session.talk.unanswered());
        for _ in 0..lack.min(ASKED_AT_A_TIME) {
            let taken = self.wire.ask(&mut session.talk, (now, now), Purpose::Load, |parts| {
                core.write_slices(id, parts).is_taken()
            });
            if !taken {
                return;
            }
        }
    }

    /// Has each do what it does.
    pub(super) fn misbehave(&mut self, sessions: &mut Sessions<Session>, core: &mut Core<'_>, now: u64) {
        if matches!(self.stage, Stage::Loading | Stage::Waiting) {
            self.dial_crowd(core, now);
        }
        for index in (0..self.crowd.standing.len()).rev() {
            let Some(&id) = self.crowd.standing.get(index) else { continue };
            let Some(session) = sessions.get_mut(id) else { continue };
            let Some(mut antic) = session.antic.take() else { continue };
            match antic.kind {
                Mischief::Silent => {}
                Mischief::SlowReader => {
                    self.note_unread(core, id, session, &antic);
                    let goal = match antic.heard {
                        (_, 0) => ASKED_AHEAD,
                        _ => (unread_goal(&self.common.plan) / antic.reply_bytes()).max(ASKED_AHEAD),
                    };
                    self.ask_ahead(core, session, id, goal, now);
                    core.resume(id);
                }
                Mischief::SlowWriter => self.write_drop(core, id, session, &mut antic, now),
                Mischief::Slowloris => {
                    antic.ticks += 1;
                    if antic.ticks % SLOWLORIS == 0 {
                        core.write(id, &[self.wire.endless().1]);
                    }
                }
                Mischief::Reset => {
                    session.is_ending = true;
                    self.crowd.acted(antic.member);
                    core.abort(id);
                }
                Mischief::Garbage => {
                    core.write(id, &self.garbage());
                }
            }
            session.antic = Some(antic);
        }
    }

    /// Takes note of what a slow reader has asked for, as far as the kernel took it, and has not read.
    fn note_unread(&mut self, core: &Core<'_>, id: ConnId, session: &Session, antic: &Antic) {
        let unsent = core.pending_output(id).unwrap_or_default() as u64;
        let owed = session.talk.unanswered() as u64 * antic.reply_bytes();
        self.crowd.owed(antic.member, owed.saturating_sub(unsent));
    }

    /// Has a slow writer send the next bytes of its request, or think of another when it has its reply.
    fn write_drop(
        &mut self,
        core: &mut Core<'_>,
        id: ConnId,
        session: &mut Session,
        antic: &mut Antic,
        now: u64,
    ) {
        if antic.sent == antic.drops.len() {
            if session.talk.unanswered() > 0 {
                return;
            }
            antic.drops.clear();
            antic.sent = 0;
            self.wire.ask(&mut session.talk, (now, now), Purpose::Load, |parts| {
                parts.iter().for_each(|part| antic.drops.extend_from_slice(part));
                true
            });
        }
        let left = &antic.drops[antic.sent..];
        let drop = left.len().min(antic.drops.len().div_ceil(DROPS));
        if core.write(id, &left[..drop]).is_taken() {
            antic.sent += drop;
            self.crowd.acted(antic.member);
        }
    }

    /// Takes in what came to one of the crowd. Those who ask properly must get proper replies.
    pub(super) fn crowd_heard(
        &mut self,
        conn: &mut Conn<'_>,
        session: &mut Session,
        input: &mut Input<'_>,
        now: u64,
    ) -> Flow {
        let silent = (Mischief::Silent, u32::MAX);
        let (kind, member) = session.antic.as_ref().map_or(silent, |antic| (antic.kind, antic.member));
        if !matches!(kind, Mischief::SlowReader | Mischief::SlowWriter) {
            input.take_all();
            return Flow::Continue;
        }
        let all = input.peek();
        let mut rest = all;
        let mut replies = 0;
        loop {
            match self.wire.hear(&mut session.talk, &mut rest, now) {
                Ok(None) => break,
                Ok(Some(_)) => {
                    replies += 1;
                    self.crowd.answered(member);
                }
                Err(wrong) => {
                    self.fail_with(
                        Status::WrongData,
                        format!("connection {} ({kind:?}): {wrong}", conn.id()),
                    );
                    return Flow::Abort;
                }
            }
        }
        let taken = all.len() - rest.len();
        if let Some(antic) = &mut session.antic {
            antic.heard = (antic.heard.0 + taken as u64, antic.heard.1 + replies);
        }
        input.consume(taken);
        if kind == Mischief::SlowReader {
            conn.pause();
        }
        Flow::Continue
    }

    /// Bytes that are no request of any protocol.
    fn garbage(&mut self) -> [u8; GARBAGE] {
        let mut bytes = [0; GARBAGE];
        self.rng.fill(&mut bytes);
        bytes
    }

    pub(super) fn crowd_closed(&mut self, id: ConnId, session: &Session) {
        if let Some(antic) = &session.antic {
            self.crowd.closed(id, antic.member, !session.is_ending);
        }
    }
}
