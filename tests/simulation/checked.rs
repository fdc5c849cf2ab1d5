//! A handler that does everything a handler may do, at random, and checks the contract while it is called.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corelane::*;

use crate::rng::Rng;
use crate::wire::{Source, frame, stream_byte};

pub(crate) const DELIBERATE: &str = "deliberate";

/// What became of each receipt, by number.
pub(crate) type Receipts = Arc<Mutex<Vec<Asked>>>;

#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) label: u32,
    pub(crate) length: usize,
    pub(crate) source: Source,
    pub(crate) sequence: u32,
    pub(crate) answers: Vec<Delivery>,
}

/// A receipt that notes its answers.
pub(crate) fn receipt(
    receipts: &Receipts,
    label: u32,
    source: Source,
    sequence: u32,
    length: usize,
) -> Receipt {
    let mut list = receipts.lock().unwrap();
    let number = list.len();
    list.push(Asked { label, length, source, sequence, answers: Vec::new() });
    let receipts = Arc::clone(receipts);
    Receipt::new(move |delivery| receipts.lock().unwrap()[number].answers.push(delivery))
}

/// A file that nobody else can open.
fn unnamed_file() -> File {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("corelane-simulation-{}-{count}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(path).unwrap();
    file
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Dialing,
    DialFailed,
    Open,
    Refused,
    /// `on_open` panicked.
    Stillborn,
    Closed(CloseReason),
}

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) id: ConnId,
    pub(crate) peer: Option<Peer>,
    pub(crate) life: Life,
    pub(crate) tag: u64,
    pub(crate) consumed: u64,
    /// How far into the stream the handler has been shown.
    pub(crate) shown: u64,
    pub(crate) has_ended: bool,
    /// Bytes of writes that were taken.
    pub(crate) taken: u64,
    sequences: [u32; 2],
    pub(crate) was_high: bool,
    may_show_again: bool,
    was_drained: bool,
    has_finished: bool,
    /// A file was written to it, so that what waits is not what counts.
    had_files: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    label: u32,
}

#[derive(Debug)]
pub(crate) enum Message {
    Broadcast(usize),
    Write(ConnId, usize),
    Close(ConnId),
    Abort(ConnId),
    Finish(ConnId),
    Pause(ConnId),
    Resume(ConnId),
    Dial,
    Timer(Duration),
}

#[derive(Debug)]
pub(crate) struct Checked {
    rng: Rng,
    pub(crate) tracks: Vec<Track>,
    labels: HashMap<ConnId, u32>,
    pub(crate) receipts: Receipts,
    pub(crate) problems: Vec<String>,
    pub(crate) deliberate_panics: u64,
    timers: HashMap<u64, (TimerId, Instant, Option<ConnId>)>,
    next_timer: u64,
    next_port: u16,
    shutdowns: usize,
    /// The server's high watermark.
    high: usize,
    /// What was written as files, and how much that is.
    files: Option<(Arc<File>, u64)>,
}

impl Checked {
    pub(crate) fn new(seed: u64, high: usize) -> Self {
        Self {
            rng: Rng::new(seed ^ 0xc4ec),
            tracks: Vec::new(),
            labels: HashMap::new(),
            receipts: Receipts::default(),
            problems: Vec::new(),
            deliberate_panics: 0,
            timers: HashMap::new(),
            next_timer: 0,
            next_port: 1,
            shutdowns: 0,
            high,
            files: None,
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = (u32, ConnId)> {
        self.tracks.iter().enumerate().map(|(label, track)| (label as u32, track.id))
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(what());
        }
    }

    fn begin(&mut self, id: ConnId, life: Life) -> u32 {
        let label = self.tracks.len() as u32;
        let known = self.labels.insert(id, label);
        self.require(known.is_none(), || format!("{id} was given twice"));
        self.tracks.push(Track {
            id,
            peer: None,
            life,
            tag: 0,
            consumed: 0,
            shown: 0,
            has_ended: false,
            taken: 0,
            sequences: [0; 2],
            was_high: false,
            may_show_again: false,
            was_drained: false,
            has_finished: false,
            had_files: false,
        });
        label
    }

    /// Every callback of an open connection begins here.
    fn called(&mut self, name: &str, conn: &Conn<'_>, session: &Session) -> u32 {
        let label = session.label;
        let Track { id, life, .. } = self.tracks[label as usize];
        self.require(life == Life::Open, || format!("{name} of {id}, which is {life:?}"));
        self.require(conn.id() == id, || format!("{name} of {} got the session of {id}", conn.id()));
        label
    }

    fn maybe_panic(&mut self) {
        if self.rng.one_in(1000) {
            self.deliberate_panics += 1;
            std::panic::resume_unwind(Box::new(DELIBERATE));
        }
    }

    fn random_id(&mut self) -> Option<ConnId> {
        let recent = self.tracks.len().min(12);
        (recent > 0).then(|| self.tracks[self.tracks.len() - 1 - self.rng.below(recent)].id)
    }

    /// `bytes` as a range of a file.
    fn file_of(&mut self, bytes: &[u8]) -> FileSlice {
        let (file, end) = self.files.get_or_insert_with(|| (Arc::new(unnamed_file()), 0));
        file.write_all_at(bytes, *end).unwrap();
        let offset = *end;
        *end += bytes.len() as u64;
        FileSlice::new(Arc::clone(file), offset, bytes.len() as u64).unwrap()
    }

    /// Writes to the connection whose callback this is.
    fn write_own(&mut self, conn: &mut Conn<'_>, label: u32) {
        let length = self.rng.size();
        let sequence = self.tracks[label as usize].sequences[0];
        let bytes = frame(label, Source::Own, sequence, length);
        let written = match self.rng.below(7) {
            6 => {
                self.tracks[label as usize].had_files = true;
                let file = self.file_of(&bytes);
                let receipt = receipt(&self.receipts, label, Source::Own, sequence, bytes.len());
                conn.write_file_with_receipt(file, receipt)
            }
            0 => {
                let receipt = receipt(&self.receipts, label, Source::Own, sequence, bytes.len());
                conn.write_with_receipt(&bytes, receipt)
            }
            1 => conn.write_shared(&Shared::from(bytes.clone())),
            2 => {
                let (first, second) = bytes.split_at(self.rng.below(bytes.len()));
                conn.write_slices(&[first, &[], second])
            }
            _ => conn.write(&bytes),
        };
        self.check_level(label, conn.pending_output(), written);
        self.note(label, 0, bytes.len(), written);
    }

    fn write_other(&mut self, core: &mut Core<'_>, id: ConnId, length: usize) {
        let Some(&label) = self.labels.get(&id) else { return };
        let sequence = self.tracks[label as usize].sequences[1];
        let bytes = frame(label, Source::Other, sequence, length);
        let was_open = core.is_open(id);
        let written = match self.rng.below(4) {
            3 => {
                self.tracks[label as usize].had_files = true;
                core.write_file(id, self.file_of(&bytes))
            }
            0 => {
                let receipt = receipt(&self.receipts, label, Source::Other, sequence, bytes.len());
                core.write_with_receipt(id, &Shared::from(bytes.clone()), receipt)
            }
            1 => core.write_shared(id, &Shared::from(bytes.clone())),
            _ => core.write(id, &bytes),
        };
        let life = self.tracks[label as usize].life;
        let lives = matches!(life, Life::Open | Life::Dialing | Life::Refused | Life::Stillborn);
        self.require(lives || !was_open, || format!("{id} is open, but {life:?}"));
        self.require(was_open || written == Written::Closed, || format!("{written:?} to {id}, not open"));
        if let Some(pending) = core.pending_output(id) {
            self.check_level(label, pending, written);
        }
        self.note(label, 1, bytes.len(), written);
    }

    fn check_level(&mut self, label: u32, pending: usize, written: Written) {
        if self.tracks[label as usize].had_files {
            return;
        }
        let is_high = pending > self.high;
        let holds = !written.is_taken() || is_high == (written == Written::High);
        self.require(holds, || format!("{written:?}, and {pending} bytes wait"));
    }

    fn note(&mut self, label: u32, source: usize, length: usize, written: Written) {
        let has_finished = self.tracks[label as usize].has_finished;
        self.require(!has_finished || written == Written::Closed, || {
            format!("{written:?} to {label}, finished")
        });
        let track = &mut self.tracks[label as usize];
        if written.is_taken() {
            track.taken += length as u64;
            track.sequences[source] += 1;
        }
        let is_full = matches!(written, Written::High | Written::Refused);
        track.was_high |= is_full;
        track.may_show_again |= is_full;
    }

    fn dial(&mut self, core: &mut Core<'_>) {
        let port = self.next_port;
        self.next_port += 1;
        let to: Address = match self.rng.below(4) {
            0 => format!("unix:/remote/{port}").parse().unwrap(),
            _ => Address::Tcp(([192, 0, 2, 1], port).into()),
        };
        let timeout = Duration::from_millis(self.rng.pick(&[0, 1, 30, 5000]));
        let options = SocketOptions {
            send_buffer: Some(1 + self.rng.size()),
            receive_buffer: Some(1 + self.rng.size()),
            ..SocketOptions::default()
        };
        let id = core.connect(&Dial::to(to).timeout(timeout).options(options));
        self.begin(id, Life::Dialing);
        while self.rng.one_in(2) {
            let length = self.rng.size();
            self.write_other(core, id, length);
        }
        if self.rng.one_in(10) {
            self.finish(core, id);
        }
        if self.rng.one_in(20) {
            self.close(core, id);
        }
    }

    fn close(&mut self, core: &mut Core<'_>, id: ConnId) {
        let is_dial =
            self.labels.get(&id).map(|&label| self.tracks[label as usize].life) == Some(Life::Dialing);
        let lived = if self.rng.one_in(3) { core.abort(id) } else { core.close(id) };
        if lived && is_dial {
            // Nobody is told of the end of what never was.
            let label = self.labels[&id];
            self.tracks[label as usize].life = Life::DialFailed;
        }
    }

    fn set_timer(&mut self, core: &mut Core<'_>, after: Duration, about: Option<ConnId>) {
        self.next_timer += 1;
        let timer = core.set_timer(after, self.next_timer);
        self.timers.insert(self.next_timer, (timer, core.now() + after, about));
        if self.rng.one_in(10)
            && let Some((&key, &(timer, ..))) = self.timers.iter().min_by_key(|(key, _)| **key)
            && about.is_none()
        {
            let was_set = core.cancel_timer(timer);
            self.require(was_set, || format!("timer {key} had gone before it fired"));
            self.require(!core.cancel_timer(timer), || format!("timer {key} was cancelled twice"));
            let (_, _, about) = self.timers.remove(&key).unwrap();
            if let Some(about) = about {
                self.resume(core, about);
            }
        }
    }

    fn pause(&mut self, core: &mut Core<'_>, id: ConnId) {
        if core.pause(id) {
            let after = Duration::from_micros(self.rng.below(30_000) as u64);
            self.set_timer(core, after, Some(id));
        }
    }

    fn resume(&mut self, core: &mut Core<'_>, id: ConnId) {
        if core.resume(id)
            && let Some(&label) = self.labels.get(&id)
        {
            self.tracks[label as usize].may_show_again = true;
        }
    }

    /// Anything that may be done to any connection.
    fn meddle(&mut self, core: &mut Core<'_>) {
        let Some(id) = self.random_id() else { return };
        match self.rng.below(12) {
            0 => self.close(core, id),
            1 => self.pause(core, id),
            2 => self.resume(core, id),
            3 => self.finish(core, id),
            4 => self.dial(core),
            5 => {
                let after = Duration::from_micros(self.rng.below(50_000) as u64);
                self.set_timer(core, after, None);
            }
            _ => {
                let length = self.rng.size();
                self.write_other(core, id, length);
            }
        }
    }

    fn finish(&mut self, core: &mut Core<'_>, id: ConnId) {
        if core.finish(id)
            && let Some(&label) = self.labels.get(&id)
        {
            self.tracks[label as usize].has_finished = true;
        }
    }

    fn flow(&mut self) -> Flow {
        match self.rng.below(60) {
            0 => Flow::Abort,
            1 => Flow::Close,
            _ => Flow::Continue,
        }
    }

    /// Looks at input byte by byte and consumes some of it.
    fn look(&mut self, label: u32, input: &mut Input<'_>) {
        let track = &mut self.tracks[label as usize];
        let bytes = input.peek();
        if track.consumed == 0 && bytes.len() >= 8 {
            track.tag = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        }
        let (tag, from) = (track.tag, track.consumed);
        let end = from + bytes.len() as u64;
        let knows_tag = from > 0 || bytes.len() >= 8;
        let wrong = (from..end).zip(bytes).find(|&(position, &byte)| byte != stream_byte(tag, position));
        if knows_tag && let Some((position, byte)) = wrong {
            self.problems.push(format!("connection {label}: {byte} at {position} of stream {tag:x}"));
        }
        let track = &mut self.tracks[label as usize];
        if end < track.shown {
            self.problems.push(format!("connection {label} was shown {} and now only {end}", track.shown));
        }
        track.shown = track.shown.max(end);
        if !knows_tag {
            return;
        }
        let count = match self.rng.below(4) {
            0 => self.rng.below(bytes.len() + 1),
            _ => bytes.len(),
        };
        // The tag comes whole or not at all.
        let count = if from == 0 && count < 8 { 0 } else { count };
        input.consume(count);
        self.tracks[label as usize].consumed += count as u64;
    }

    fn answered(&self, label: u32) -> bool {
        let receipts = self.receipts.lock().unwrap();
        let of_ours = |asked: &&Asked| asked.label == label && asked.source != Source::Handle;
        receipts.iter().filter(of_ours).all(|asked| asked.answers.len() == 1)
    }
}

impl Handler for Checked {
    type Session = Session;
    type Message = Message;

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        let id = conn.id();
        let label = match conn.origin() {
            Origin::Accepted(_) => self.begin(id, Life::Open),
            Origin::Dialed => {
                let label = self.labels[&id];
                let life = self.tracks[label as usize].life;
                self.require(life == Life::Dialing, || format!("on_open of {id}, which is {life:?}"));
                label
            }
        };
        self.tracks[label as usize].life = Life::Stillborn;
        self.tracks[label as usize].peer = Some(conn.peer());
        self.maybe_panic();
        self.tracks[label as usize].life = Life::Open;
        if self.rng.one_in(4) {
            self.write_own(conn, label);
        }
        if self.rng.one_in(10) {
            conn.set_idle_deadline(Some(Duration::from_millis(10 + self.rng.below(500) as u64)));
        }
        if self.rng.one_in(30) {
            self.tracks[label as usize].life = Life::Refused;
            return Open::Refuse;
        }
        Open::Accept(Session { label })
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let label = self.called("on_data", conn, session);
        self.require(!input.is_empty(), || format!("on_data of {label} without data"));
        let before = self.tracks[label as usize].shown;
        self.look(label, input);
        self.maybe_panic();
        let track = &mut self.tracks[label as usize];
        let is_new = track.shown > before;
        let (has_ended, may_show_again) = (track.has_ended, std::mem::take(&mut track.may_show_again));
        self.require(is_new || may_show_again, || format!("on_data of {label} without anything new"));
        self.require(!(is_new && has_ended), || format!("on_data of {label} with new data after its end"));
        if conn.is_paused() {
            self.problems.push(format!("on_data of {label}, which is paused"));
        }
        while self.rng.one_in(2) {
            self.write_own(conn, label);
        }
        if self.rng.one_in(10) {
            self.meddle(conn.core());
        }
        if self.rng.one_in(20) {
            let id = conn.id();
            self.pause(conn.core(), id);
        }
        if self.rng.one_in(60) {
            conn.finish();
            self.tracks[label as usize].has_finished = true;
        }
        self.flow()
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        let label = self.called("on_drained", conn, session);
        let was_high = self.tracks[label as usize].was_high;
        self.tracks[label as usize].may_show_again = true;
        self.require(was_high, || format!("on_drained of {label}, whose output was not high"));
        self.maybe_panic();
        if self.rng.one_in(3) {
            self.write_own(conn, label);
        }
        self.flow()
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let label = self.called("on_eof", conn, session);
        let before = self.tracks[label as usize].shown;
        self.look(label, input);
        let track = &mut self.tracks[label as usize];
        let (shown, was_ended) = (track.shown, std::mem::replace(&mut track.has_ended, true));
        self.require(!was_ended, || format!("on_eof of {label} twice"));
        self.require(input.is_empty() || shown == before, || format!("on_eof of {label} with new data"));
        self.maybe_panic();
        if self.rng.one_in(3) {
            self.write_own(conn, label);
        }
        if self.rng.one_in(10) {
            self.meddle(conn.core());
        }
        if self.rng.one_in(3) { Flow::Continue } else { Flow::Close }
    }

    fn on_close(&mut self, id: ConnId, session: Session, reason: CloseReason, core: &mut Core<'_>) {
        let label = session.label;
        let Track { id: known, life, .. } = self.tracks[label as usize];
        self.require(life == Life::Open, || format!("on_close of {id}, which is {life:?}"));
        self.require(known == id, || format!("on_close of {id} got the session of {known}"));
        self.require(!core.is_open(id), || format!("{id} is open in its on_close"));
        let answered = self.answered(label);
        self.require(answered, || format!("a receipt of {label} is not answered at its on_close"));
        self.tracks[label as usize].life = Life::Closed(reason);
        self.maybe_panic();
        if self.rng.one_in(5) {
            self.meddle(core);
        }
    }

    fn on_message(&mut self, message: Message, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        match message {
            Message::Broadcast(length) => {
                let ids: Vec<ConnId> = sessions.iter().map(|(id, _)| id).collect();
                ids.into_iter().for_each(|id| self.write_other(core, id, length));
            }
            Message::Write(id, length) => self.write_other(core, id, length),
            Message::Close(id) => self.close(core, id),
            Message::Abort(id) => self.close(core, id),
            Message::Finish(id) => self.finish(core, id),
            Message::Pause(id) => self.pause(core, id),
            Message::Resume(id) => self.resume(core, id),
            Message::Dial => self.dial(core),
            Message::Timer(after) => self.set_timer(core, after, None),
        }
        self.maybe_panic();
    }

    fn on_timer(&mut self, timer: TimerId, key: u64, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        let open: HashSet<ConnId> =
            self.tracks.iter().filter(|track| track.life == Life::Open).map(|track| track.id).collect();
        let there: HashSet<ConnId> = sessions.iter().map(|(id, _)| id).collect();
        self.require(open == there, || format!("open: {open:?}, with a session: {there:?}"));
        let Some((id, due, about)) = self.timers.remove(&key) else {
            self.problems.push(format!("timer {key} fired twice or though it was cancelled"));
            return;
        };
        self.require(id == timer, || format!("timer {key} came as another"));
        let early = due.saturating_duration_since(core.now());
        self.require(early.is_zero(), || format!("timer {key} fired {early:?} early"));
        match about {
            Some(about) => self.resume(core, about),
            None => self.meddle(core),
        }
        self.maybe_panic();
    }

    fn on_tick(&mut self, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        if self.rng.one_in(10) {
            self.meddle(core);
        }
    }

    fn on_shutdown(&mut self, _: &mut Sessions<Session>, core: &mut Core<'_>) {
        self.shutdowns += 1;
        let once = self.shutdowns == 1;
        self.require(once, || "on_shutdown twice".to_owned());
        if self.rng.one_in(2) {
            self.meddle(core);
        }
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>, session: &mut Session) -> Flow {
        let label = self.called("on_drain", conn, session);
        let was_drained = std::mem::replace(&mut self.tracks[label as usize].was_drained, true);
        let shutdowns = self.shutdowns;
        self.require(!was_drained, || format!("on_drain of {label} twice"));
        self.require(shutdowns == 1, || format!("on_drain of {label} before on_shutdown"));
        if self.rng.one_in(3) {
            self.write_own(conn, label);
        }
        if self.rng.one_in(4) { Flow::Continue } else { Flow::Close }
    }

    fn on_connect_error(&mut self, id: ConnId, _: ConnectError, core: &mut Core<'_>) {
        let label = self.labels[&id];
        let life = self.tracks[label as usize].life;
        self.require(life == Life::Dialing, || format!("on_connect_error of {id}, which is {life:?}"));
        self.require(!core.is_open(id), || format!("{id} is open in its on_connect_error"));
        self.tracks[label as usize].life = Life::DialFailed;
        if self.rng.one_in(4) {
            self.meddle(core);
        }
    }
}
