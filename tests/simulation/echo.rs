//! Where nothing ends a connection, every byte must come back, however reads, writes and events are
//! disturbed and however the handler dawdles: nobody may wait for an event or a callback that never comes.

use std::time::Duration;

use corelane::sim::{Faults, Reading, Remote, Simulation};
use corelane::*;

use crate::rng::Rng;
use crate::wire::stream;

/// Connections that the handler opens itself.
const DIALS: u16 = 3;

/// Echoes, now in small pieces and now in large ones, pauses, and leaves input for after the pause.
struct Dawdler {
    rng: Rng,
}

#[derive(Default)]
struct Session {
    /// `on_drained` is owed.
    is_high: bool,
    /// What the next timer echoes, from outside of the connection's own callbacks.
    later: Vec<u8>,
}

impl Dawdler {
    fn echo(&mut self, conn: &mut Conn<'_>, session: &mut Session, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = if self.rng.one_in(2) { bytes.len() } else { 1 + self.rng.below(bytes.len()) };
            let (now, later) = bytes.split_at(length);
            let written = match self.rng.below(4) {
                0 => conn.write_shared(&Shared::from(now)),
                1 => {
                    let id = conn.id();
                    conn.core().write(id, now)
                }
                _ => conn.write(now),
            };
            assert!(written.is_taken(), "{written:?}");
            session.is_high |= written == Written::High;
            bytes = later;
        }
    }

    fn pause(&mut self, conn: &mut Conn<'_>) {
        conn.pause();
        self.set_timer(conn.core());
    }

    fn set_timer(&mut self, core: &mut Core<'_>) {
        let number = self.rng.next();
        core.set_timer(Duration::from_micros(number % 3_000), number);
    }
}

impl Handler for Dawdler {
    type Session = Session;
    type Message = ();

    fn on_start(&mut self, core: &mut Core<'_>) {
        for port in 1..=DIALS {
            core.connect(&Dial::to(Address::Tcp(([192, 0, 2, 1], port).into())));
        }
    }

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<Session> {
        if self.rng.one_in(4) {
            self.pause(conn);
        }
        Open::Accept(Session::default())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let count = if self.rng.one_in(3) { self.rng.below(input.len() + 1) } else { input.len() };
        let bytes = input.take(count);
        if !session.later.is_empty() || self.rng.one_in(5) {
            session.later.extend(bytes);
            self.set_timer(conn.core());
        } else {
            self.echo(conn, session, bytes);
        }
        // What is left comes again after the pause, even if nothing new comes.
        if !input.is_empty() || self.rng.one_in(6) {
            self.pause(conn);
        }
        Flow::Continue
    }

    fn on_drained(&mut self, _: &mut Conn<'_>, session: &mut Session) -> Flow {
        assert!(session.is_high, "on_drained and the output was not high");
        session.is_high = false;
        Flow::Continue
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, session: &mut Session, input: &mut Input<'_>) -> Flow {
        let later = std::mem::take(&mut session.later);
        self.echo(conn, session, &later);
        // It has always paused for what it left, and is shown that again before it is told of the end.
        assert!(input.is_empty(), "on_eof with what on_data was still to be shown");
        Flow::Close
    }

    /// Whichever connections are paused go on; others are not disturbed by that.
    fn on_timer(&mut self, _: TimerId, _: u64, sessions: &mut Sessions<Session>, core: &mut Core<'_>) {
        for (id, session) in sessions.iter_mut() {
            core.resume(id);
            let later = std::mem::take(&mut session.later);
            let written = core.write(id, &later);
            // A connection that is closing has echoed everything.
            assert!(written.is_taken() || later.is_empty(), "{written:?}");
            session.is_high |= written == Written::High;
        }
    }
}

fn server(rng: &mut Rng) -> Server {
    let buffer = |rng: &mut Rng| rng.pick(&[Some(16), Some(300), Some(5_000), None]);
    let high = rng.pick(&[1, 300, 5_000, 65_536]);
    let manual = rng.one_in(3);
    Server::new()
        .listen("127.0.0.1:7000")
        .backpressure(if manual { Backpressure::Manual } else { Backpressure::Automatic })
        .watermarks(Watermarks { high, low: rng.below(high + 1), cap: 1 << 30 })
        .read_buffer(rng.pick(&[512, 65_536]))
        .byte_budget(rng.pick(&[10, 1_000, 1 << 20]))
        .input_cap(1 << 30)
        // Whoever runs into this deadline is found out by the time it takes.
        .deadlines(Deadlines { linger: Duration::from_secs(3_600), ..Deadlines::default() })
        .socket_options(SocketOptions {
            receive_buffer: buffer(rng),
            send_buffer: buffer(rng),
            ..SocketOptions::default()
        })
}

fn faults(rng: &mut Rng) -> Faults {
    match rng.below(5) {
        0 => Faults::none(),
        1 => Faults { blocked_reads: 0.6, blocked_writes: 0.6, withheld_events: 1.0, ..Faults::lossless() },
        2 => Faults { short_reads: 0.9, short_writes: 0.9, late_arrivals: 0.5, ..Faults::lossless() },
        _ => Faults::lossless(),
    }
}

pub(crate) fn run(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xec40);
    let faults = faults(&mut rng);
    let server = server(&mut rng);
    let mut sim = Simulation::new(seed, server, faults, |_| Dawdler { rng: Rng::new(seed) }).unwrap();
    let mut remotes: Vec<(Remote, u64)> = sim.dialed().into_iter().map(|remote| (remote, 0)).collect();
    for _ in 0..40 {
        step(&mut rng, &mut sim, &mut remotes);
    }
    for (remote, _) in &remotes {
        remote.set_reading(Reading::Promptly);
    }
    verify_echo(&mut sim, &remotes);
    verify_end(&mut sim, &remotes);
}

fn step(rng: &mut Rng, sim: &mut Simulation<Dawdler>, remotes: &mut Vec<(Remote, u64)>) {
    let which = rng.below(remotes.len());
    match rng.below(6) {
        0 if remotes.len() < 8 => remotes.push((sim.connect(), 0)),
        1 => (0..rng.below(20)).for_each(|_| _ = sim.turn()),
        2 => {
            let reading = match rng.below(3) {
                0 => Reading::Not,
                1 => Reading::Slowly { bytes: 20 + rng.below(500), every: Duration::from_micros(200) },
                _ => Reading::Promptly,
            };
            remotes[which].0.set_reading(reading);
        }
        _ => {
            let length = rng.size() / 8;
            let (remote, sent) = &mut remotes[which];
            remote.send(&stream(which as u64, *sent, length));
            *sent += length as u64;
        }
    }
}

fn rest(sim: &mut Simulation<Dawdler>) {
    let rested = sim.run_for(Duration::from_secs(60));
    assert!(rested.is_ok(), "{rested:?}");
    let panics: Vec<_> = sim.panics().collect();
    assert!(panics.is_empty(), "{panics:?}");
}

fn verify_echo(sim: &mut Simulation<Dawdler>, remotes: &[(Remote, u64)]) {
    rest(sim);
    for (tag, (remote, sent)) in remotes.iter().enumerate() {
        let (received, expected) = (remote.received(), stream(tag as u64, 0, *sent as usize));
        assert_eq!(received.len(), expected.len(), "{remote:?} misses bytes");
        assert!(received == expected, "{remote:?} got other bytes than it sent");
    }
    assert!(sim.sessions().iter().all(|(_, session)| !session.is_high), "an on_drained is missing");
}

fn verify_end(sim: &mut Simulation<Dawdler>, remotes: &[(Remote, u64)]) {
    for (which, (remote, sent)) in remotes.iter().enumerate() {
        remote.send(&stream(which as u64, *sent, which * 700));
        remote.finish();
    }
    rest(sim);
    for (which, (remote, sent)) in remotes.iter().enumerate() {
        assert!(remote.saw_end() && !remote.saw_reset(), "{remote:?} did not end in good order");
        assert_eq!(remote.received_count() as u64, sent + which as u64 * 700, "{remote:?} misses bytes");
    }
    let counters = sim.counters();
    assert_eq!(counters.closed_by(CloseReason::PeerClosed), remotes.len() as u64);
    assert_eq!(counters.active, 0, "nobody is left");
    sim.shut_down();
    let ended = sim.run_to_the_end();
    assert!(ended.is_ok(), "the shutdown is stuck: {ended:?}");
}
