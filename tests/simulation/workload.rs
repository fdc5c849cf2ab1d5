//! What the world does to the checked handler, and what must have come of it in the end.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use corelane::sim::{Call, Calls, DialAnswer, Faults, Reading, Remote, Simulation};
use corelane::*;

use crate::checked::{Asked, Checked, DELIBERATE, Life, Message, Receipts, Track, receipt};
use crate::rng::Rng;
use crate::wire::{Source, frame, parse, stream};

/// Steps of the world in one run.
const STEPS: usize = 120;

struct Sender {
    remote: Remote,
    tag: u64,
    sent: u64,
    has_finished: bool,
}

struct Workload {
    seed: u64,
    rng: Rng,
    sim: Simulation<Checked>,
    remotes: Vec<Sender>,
    receipts: Receipts,
    /// The next sequence number of each connection's writes by other threads.
    sequences: Rc<RefCell<HashMap<u32, u32>>>,
    /// Closed by other threads: where it was a dial, no callback says so.
    given_up: HashSet<ConnId>,
}

/// One run; what it did, to be compared with another run of the same seed.
pub(crate) fn run(seed: u64) -> (Calls, Duration, Snapshot) {
    let mut rng = Rng::new(seed);
    let faults = faults(&mut rng);
    let high = {
        let size = rng.size();
        rng.pick(&[100 + size, 4_000, 65_536])
    };
    let server = server(&mut rng, high);
    let mut sim = Simulation::new(seed, server, faults, |_| Checked::new(seed, high)).unwrap();
    let mut answers = Rng::new(seed ^ 0xd1a1);
    sim.answer_dials(move |_| match answers.below(8) {
        0 => DialAnswer::Silence,
        1 => DialAnswer::Refuse,
        2 => DialAnswer::Fail(11),
        _ => DialAnswer::Accept,
    });
    let receipts = Receipts::clone(&sim.handler().receipts);
    let mut workload = Workload {
        seed,
        rng,
        sim,
        remotes: Vec::new(),
        receipts,
        sequences: Rc::default(),
        given_up: HashSet::new(),
    };
    for _ in 0..STEPS {
        workload.step();
    }
    workload.end();
    workload.verify();
    (workload.sim.calls(), workload.sim.now(), workload.sim.counters())
}

fn faults(rng: &mut Rng) -> Faults {
    match rng.below(8) {
        0 => Faults::none(),
        1 => Faults::lossless(),
        2 => Faults { resets: 0.03, ..Faults::default() },
        3 => Faults { short_reads: 0.9, short_writes: 0.9, split_segments: 0.9, ..Faults::default() },
        4 => Faults { blocked_reads: 0.5, blocked_writes: 0.5, withheld_events: 1.0, ..Faults::default() },
        5 => Faults { accept_errors: 0.5, install_errors: 0.2, dial_errors: 0.3, ..Faults::default() },
        _ => Faults::default(),
    }
}

fn server(rng: &mut Rng, high: usize) -> Server {
    let size = rng.size();
    let cap = high * rng.pick(&[1, 2, 8, 64]);
    let maybe = |rng: &mut Rng, most: usize| {
        let time = Duration::from_millis(10 + rng.below(most) as u64);
        rng.one_in(4).then_some(time)
    };
    let mut server = Server::new()
        .listen("127.0.0.1:7000")
        .listen("unix:/simulated")
        .backlog(1 + rng.below(8) as u32)
        .watermarks(Watermarks { high, low: rng.below(high + 1), cap })
        .input_cap(rng.pick(&[1 + size, 4_000, 1 << 20]))
        .read_buffer(rng.pick(&[512, 4096, 65_536]))
        .byte_budget(1 + rng.size() * 4)
        .mailbox(1 + rng.below(40), rng.pick(&[1 + size, 1 << 20]))
        .drain_deadline(Duration::from_millis(rng.below(3_000) as u64))
        .socket_options(SocketOptions {
            receive_buffer: rng.pick(&[Some(1 + size), Some(2_000), None]),
            send_buffer: rng.pick(&[Some(1 + size), Some(2_000), None]),
            ..SocketOptions::default()
        });
    let deadlines = Deadlines {
        first_byte: maybe(rng, 300),
        idle: maybe(rng, 500),
        write_stall: maybe(rng, 300),
        linger: Duration::from_millis(rng.pick(&[0, 10, 5_000])),
        minimum_rate: rng
            .one_in(4)
            .then(|| MinimumRate { bytes_per_second: 1000, grace: Duration::from_millis(50) }),
    };
    server = server.deadlines(deadlines);
    if rng.one_in(4) {
        server = server.max_connections(1 + rng.below(8)).max_connections_per_source(1 + rng.below(2));
    }
    if rng.one_in(3) {
        server = server.slow_consumer(SlowConsumer::RefuseWrites);
    }
    if rng.one_in(3) {
        server = server.backpressure(Backpressure::Manual);
    }
    if rng.one_in(4) {
        server = server.tick(Duration::from_millis(1 + rng.below(50) as u64));
    }
    if rng.one_in(4) {
        server = server.polling(Polling::Spin(Duration::from_micros(20)));
    }
    server
}

impl Workload {
    fn step(&mut self) {
        match self.rng.below(16) {
            0 | 1 if self.remotes.len() < 12 => self.connect(),
            0..5 => self.send(),
            5 => self.disturb(),
            6 => self.command(),
            7 => {
                let handle = self.sim.handle();
                if let Some(id) = self.random_id() {
                    let message = self.message(id);
                    self.sim.while_polling(move || drop(handle.send(0, message)));
                }
            }
            8 => self.write_by_handle(),
            9 => {
                let most = self.rng.pick(&[100, 20_000, 300_000]);
                let time = Duration::from_micros(self.rng.below(most) as u64);
                let _ = self.sim.run_for(time);
            }
            10 => {
                for remote in self.sim.dialed().into_iter().skip(self.dialed_known()) {
                    self.adopt(remote);
                }
            }
            _ => {
                for _ in 0..self.rng.below(12) {
                    self.sim.turn();
                }
            }
        }
    }

    fn connect(&mut self) {
        let to = usize::from(self.rng.one_in(6));
        let remote = match self.rng.one_in(3) {
            // Several from one source.
            true => self.sim.connect_to(to, ([10, 9, 9, 9], 1000 + self.remotes.len() as u16).into()),
            false if to == 0 => self.sim.connect(),
            false => self.sim.connect_to(to, ([10, 9, 9, 8], 1).into()),
        };
        self.adopt(remote);
    }

    fn adopt(&mut self, remote: Remote) {
        // Eight bytes that no other stream begins with, and none of them the same for long.
        let tag = (self.seed << 16 | self.remotes.len() as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
        if self.rng.one_in(5) {
            let bytes = 1 + self.rng.below(500);
            remote.set_reading(Reading::Slowly { bytes, every: Duration::from_micros(300) });
        }
        self.remotes.push(Sender { remote, tag, sent: 0, has_finished: false });
    }

    fn dialed_known(&self) -> usize {
        self.remotes.iter().filter(|sender| sender.remote.dialed().is_some()).count()
    }

    fn send(&mut self) {
        if self.remotes.is_empty() {
            return;
        }
        let length = self.rng.size();
        let index = self.rng.below(self.remotes.len());
        let sender = &mut self.remotes[index];
        if !sender.has_finished {
            sender.remote.send(&stream(sender.tag, sender.sent, length));
            sender.sent += length as u64;
        }
    }

    fn disturb(&mut self) {
        if self.remotes.is_empty() {
            return;
        }
        let index = self.rng.below(self.remotes.len());
        let draw = self.rng.below(12);
        let sender = &mut self.remotes[index];
        match draw {
            0 => sender.remote.reset(),
            1 => sender.remote.close(),
            2..5 => sender.remote.finish(),
            5..8 => sender.remote.set_reading(Reading::Not),
            _ => sender.remote.set_reading(Reading::Promptly),
        }
        sender.has_finished |= draw < 5;
    }

    fn random_id(&mut self) -> Option<ConnId> {
        let ids: Vec<ConnId> = self.sim.handler().ids().map(|(_, id)| id).collect();
        (!ids.is_empty()).then(|| self.rng.pick(&ids[ids.len().saturating_sub(12)..]))
    }

    fn message(&mut self, id: ConnId) -> Message {
        let length = self.rng.size();
        let after = Duration::from_micros(self.rng.below(40_000) as u64);
        match self.rng.below(14) {
            0 => Message::Close(id),
            1 => Message::Abort(id),
            2 => Message::Finish(id),
            3 => Message::Pause(id),
            4 => Message::Resume(id),
            5 | 6 => Message::Dial,
            7 => Message::Timer(after),
            8..11 => Message::Broadcast(length),
            _ => Message::Write(id, length),
        }
    }

    /// What another thread might do.
    fn command(&mut self) {
        let Some(id) = self.random_id() else { return };
        let handle = self.sim.handle();
        match self.rng.below(20) {
            draw @ 0..2 => {
                let told = if draw == 0 { handle.close(id) } else { handle.abort(id) };
                if told.is_ok() {
                    self.given_up.insert(id);
                }
            }
            _ => {
                let message = self.message(id);
                drop(handle.send(0, message));
            }
        }
    }

    fn write_by_handle(&mut self) {
        let Some(id) = self.random_id() else { return };
        let Some((label, _)) = self.sim.handler().ids().find(|(_, other)| *other == id) else { return };
        // It can raise the output above the high watermark, and no callback is told.
        self.sim.handler_mut().tracks[label as usize].was_high = true;
        let (handle, length) = (self.sim.handle(), self.rng.size());
        let (receipts, sequences) = (Receipts::clone(&self.receipts), Rc::clone(&self.sequences));
        let write = move || {
            let mut sequences = sequences.borrow_mut();
            let sequence = sequences.entry(label).or_insert(0);
            let bytes = frame(label, Source::Handle, *sequence, length);
            let receipt = receipt(&receipts, label, Source::Handle, *sequence, bytes.len());
            *sequence += 1;
            drop(handle.write_with_receipt(id, bytes, receipt));
        };
        if self.rng.one_in(2) { write() } else { self.sim.while_polling(write) }
    }

    fn end(&mut self) {
        if self.rng.one_in(2) {
            for sender in &self.remotes {
                sender.remote.set_reading(Reading::Promptly);
                if self.rng.one_in(2) {
                    sender.remote.finish();
                }
            }
            for sender in &mut self.remotes {
                sender.has_finished = true;
            }
            let _ = self.sim.run_for(Duration::from_millis(200));
        }
        if self.rng.one_in(5) {
            self.sim.stop_now();
        } else {
            self.sim.shut_down();
        }
        for _ in 0..self.rng.below(5) {
            self.command();
            self.sim.turn();
            self.connect();
        }
        let ended = self.sim.run_to_the_end();
        assert!(ended.is_ok(), "the shutdown is stuck: {ended:?}");
        assert!(self.sim.handle().send(0, Message::Dial).is_err(), "the mailbox is open after the end");
    }

    fn verify(&mut self) {
        let problems: Vec<String> = self.sim.handler().problems.clone();
        assert!(problems.is_empty(), "{}", problems.join("; "));
        let undeliberate: Vec<_> = self.sim.panics().filter(|(_, text)| *text != DELIBERATE).collect();
        assert!(undeliberate.is_empty(), "panics: {undeliberate:?}");
        self.verify_counters();
        self.verify_receipts();
        for sender in &self.remotes {
            self.verify_remote(sender);
        }
    }

    fn verify_counters(&mut self) {
        let counters = self.sim.counters();
        let handler = self.sim.handler();
        let count =
            |life: fn(&Life) -> bool| handler.tracks.iter().filter(|track| life(&track.life)).count() as u64;
        let closed = count(|life| matches!(life, Life::Closed(_)));
        assert_eq!(counters.closed_in_all(), closed, "on_close and the counters of ends");
        let is_left = |track: &&Track| match track.life {
            Life::Open => true,
            Life::Dialing => !self.given_up.contains(&track.id),
            _ => false,
        };
        let left: Vec<_> = handler.tracks.iter().filter(is_left).collect();
        assert!(left.is_empty(), "connections that never ended: {left:?}");
        assert_eq!(counters.refused, count(|life| *life == Life::Refused), "refused");
        assert_eq!(counters.panics, handler.deliberate_panics, "panics");
        assert_eq!(counters.accepted, counters.accepted_ended, "accepted and ended");
        assert_eq!(counters.active, 0, "active");
        assert_eq!(counters.polls, self.sim.calls().of(Call::Poll), "polls");
        assert_eq!(counters.reads, self.sim.calls().of(Call::Receive), "reads");
        let calls = self.sim.calls();
        assert_eq!(counters.writes, calls.of(Call::Send) + calls.of(Call::SendFile), "writes");
        let taken_or_not = self.sim.calls().of(Call::Accept);
        assert!(counters.accepted <= taken_or_not, "{} of {taken_or_not} accepts", counters.accepted);
    }

    fn verify_receipts(&self) {
        for asked in &*self.receipts.lock().unwrap() {
            assert_eq!(asked.answers.len(), 1, "a receipt was not answered once: {asked:?}");
            if let Delivery::Failed { sent } = asked.answers[0] {
                assert!(sent < asked.length, "all was sent and yet it failed: {asked:?}");
            }
        }
    }

    fn verify_remote(&self, sender: &Sender) {
        let received = sender.remote.received();
        let what = format!("{:?}", sender.remote);
        let (frames, rest) = parse(&received).unwrap_or_else(|problem| panic!("{what}: {problem}"));
        let labels: HashSet<u32> = frames.iter().map(|frame| frame.label).collect();
        assert!(labels.len() <= 1, "{what} got frames of several connections: {labels:?}");
        for source in [Source::Own, Source::Other, Source::Handle] {
            let mut of_source =
                frames.iter().filter(|frame| frame.source == source).map(|frame| frame.sequence);
            if source == Source::Handle {
                let sequences: Vec<u32> = of_source.collect();
                assert!(sequences.is_sorted_by(|one, next| one < next), "{what}: {sequences:?}");
            } else {
                let mut expected = 0..;
                assert!(of_source.all(|sequence| Some(sequence) == expected.next()), "{what}: {frames:?}");
            }
        }
        let Some(track) = self.track_of(sender, labels.into_iter().next()) else { return };
        self.verify_track(sender, track, &what);
        let by_handle = frames.iter().filter(|frame| frame.source == Source::Handle);
        let by_handle: usize = by_handle.map(|frame| frame.length + crate::wire::HEADER).sum();
        if sender.remote.saw_end() && !sender.remote.saw_reset() && !sender.remote.has_reset() {
            let complete = track.taken + by_handle as u64;
            assert_eq!(rest, 0, "{what}: its stream ended in the middle of a frame, {:?}", track.life);
            assert_eq!(received.len() as u64, complete, "{what}: its stream ended early, {:?}", track.life);
            self.verify_deliveries(
                track,
                &frames.iter().map(|frame| (frame.source as u8, frame.sequence)).collect(),
            );
        }
    }

    /// Whose receipt says that the kernel has it all, and that has ended in good order, has arrived.
    fn verify_deliveries(&self, track: &Track, arrived: &HashSet<(u8, u32)>) {
        let label = self.sim.handler().ids().find(|(_, id)| *id == track.id).map(|(label, _)| label);
        let of_track = |asked: &&Asked| Some(asked.label) == label && asked.answers == [Delivery::Sent];
        for asked in self.receipts.lock().unwrap().iter().filter(of_track) {
            assert!(arrived.contains(&(asked.source as u8, asked.sequence)), "sent and lost: {asked:?}");
        }
    }

    fn verify_track(&self, sender: &Sender, track: &Track, what: &str) {
        assert!(track.shown <= sender.sent, "{what}: {} shown of {} sent", track.shown, sender.sent);
        if track.consumed > 0 {
            assert_eq!(track.tag, sender.tag, "{what}: another stream was delivered");
        }
        if track.has_ended {
            assert_eq!(track.shown, sender.sent, "{what}: the end came before all was delivered");
            assert!(sender.has_finished, "{what}: the end came and it had not finished");
        }
    }

    /// The handler's record of a remote's connection.
    fn track_of(&self, sender: &Sender, label: Option<u32>) -> Option<&Track> {
        let tracks = &self.sim.handler().tracks;
        if let Some(label) = label {
            return Some(&tracks[label as usize]);
        }
        let peer = sender.remote.peer();
        peer.tcp()?;
        tracks.iter().find(|track| track.peer == Some(peer))
    }
}
