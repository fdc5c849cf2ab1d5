//! Moments that are hard to meet on a real kernel, made to happen on the simulator.
#![cfg(feature = "sim")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use corelane::sim::{Call, DialAnswer, Faults, Reading, Remote, Simulation};
use corelane::*;

/// What a handler was told, in order.
type Told = Rc<RefCell<Vec<String>>>;

/// A handler made of the closures that a case needs.
struct Scripted {
    told: Told,
    on_start: fn(&mut Core<'_>),
    on_open: fn(&mut Conn<'_>),
    on_connect_error: fn(&mut Core<'_>),
}

impl Handler for Scripted {
    type Session = ();
    type Message = &'static str;

    fn on_start(&mut self, core: &mut Core<'_>) {
        (self.on_start)(core);
    }

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<()> {
        self.told.borrow_mut().push("open".to_owned());
        (self.on_open)(conn);
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
        conn.write(input.take_all());
        Flow::Continue
    }

    fn on_close(&mut self, _: ConnId, (): (), reason: CloseReason, _: &mut Core<'_>) {
        self.told.borrow_mut().push(format!("close {reason:?}"));
    }

    fn on_message(&mut self, message: &'static str, _: &mut Sessions<()>, _: &mut Core<'_>) {
        self.told.borrow_mut().push(message.to_owned());
    }

    fn on_connect_error(&mut self, _: ConnId, error: ConnectError, core: &mut Core<'_>) {
        self.told.borrow_mut().push(format!("no connection: {:?}", error.problem));
        (self.on_connect_error)(core);
    }
}

impl Scripted {
    fn new(told: &Told) -> Self {
        Self { told: Rc::clone(told), on_start: |_| {}, on_open: |_| {}, on_connect_error: |_| {} }
    }
}

fn server() -> Server {
    Server::new().listen("127.0.0.1:7000")
}

fn start(server: Server, faults: Faults, handler: Scripted) -> Simulation<Scripted> {
    Simulation::new(1, server, faults, |_| handler).unwrap()
}

fn dial(core: &mut Core<'_>) -> ConnId {
    core.connect(&Dial::to("unix:/nobody".parse::<Address>().unwrap()))
}

fn dial_tcp(core: &mut Core<'_>) -> ConnId {
    core.connect(&Dial::to(Address::Tcp(([192, 0, 2, 1], 7).into())))
}

#[test]
fn a_reset_is_found_out_though_nobody_reads() {
    let told = Told::default();
    let handler = Scripted { on_open: |conn| conn.pause(), ..Scripted::new(&told) };
    let mut sim = start(server(), Faults::none(), handler);
    let remote = sim.connect();
    remote.send(b"never read");
    sim.run_until_quiet().unwrap();
    remote.reset();
    sim.run_until_quiet().unwrap();
    assert_eq!(*told.borrow(), ["open", "close Reset"]);
}

#[test]
fn a_handler_that_dials_again_and_again_neither_holds_the_loop_nor_the_shutdown() {
    let told = Told::default();
    let handler = Scripted {
        on_open: |conn| _ = dial(conn.core()),
        on_connect_error: |core| _ = dial(core),
        ..Scripted::new(&told)
    };
    let mut sim = start(server(), Faults::none(), handler);
    sim.answer_dials(|_| DialAnswer::Fail(libc::ENOENT));
    let remote = sim.connect();
    remote.send(b"served meanwhile");
    sim.run_until(|_| remote.received() == b"served meanwhile").unwrap();
    sim.shut_down();
    remote.finish();
    sim.run_to_the_end().unwrap();
    assert!(sim.now() < Duration::from_secs(1), "the drain deadline was not needed: {:?}", sim.now());
}

#[test]
fn a_handler_that_dials_again_in_every_failure_can_be_stopped() {
    let told = Told::default();
    let handler = Scripted {
        on_start: |core| _ = dial_tcp(core),
        on_connect_error: |core| _ = dial_tcp(core),
        ..Scripted::new(&told)
    };
    let mut sim = start(server(), Faults::none(), handler);
    sim.answer_dials(|_| DialAnswer::Refuse);
    (0..20).for_each(|_| _ = sim.turn());
    sim.stop_now();
    sim.run_to_the_end().unwrap();
}

#[test]
fn a_dial_that_is_written_to_beyond_the_cap_is_told_of() {
    let told = Told::default();
    let handler = Scripted {
        on_start: |core| {
            let id = dial_tcp(core);
            assert_eq!(core.write(id, &[0; 2000]), Written::Refused);
            assert!(!core.is_open(id));
        },
        ..Scripted::new(&told)
    };
    let watermarks = Watermarks { high: 1000, low: 0, cap: 1000 };
    let mut sim = start(server().watermarks(watermarks), Faults::none(), handler);
    sim.run_until_quiet().unwrap();
    assert_eq!(*told.borrow(), ["no connection: OutputOverflow"]);
}

#[test]
fn a_dial_can_be_finished_before_it_stands() {
    let told = Told::default();
    let handler = Scripted {
        on_start: |core| {
            let id = dial_tcp(core);
            core.write(id, b"all there is");
            assert!(core.finish(id));
            assert_eq!(core.write(id, b"more"), Written::Closed);
        },
        ..Scripted::new(&told)
    };
    let mut sim = start(server(), Faults::none(), handler);
    sim.run_until_quiet().unwrap();
    let remote = &sim.dialed()[0];
    assert_eq!(remote.received(), b"all there is");
    assert!(remote.saw_end());
}

/// What comes with the edge that tells of the connection has no edge of its own.
#[test]
fn a_dialed_connection_is_read_from_its_first_edge_on() {
    let told = Told::default();
    let handler = Scripted { on_start: |core| _ = dial_tcp(core), ..Scripted::new(&told) };
    let mut sim = start(server(), Faults::none(), handler);
    let remote = sim.dialed().remove(0);
    // Interrupted again and again, the reactor looks only when all of it is there.
    (1..=200).for_each(|nth| sim.fail_call(Call::Poll, nth, libc::EINTR));
    remote.send(b"first");
    remote.finish();
    sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(remote.received(), b"first");
    assert!(remote.saw_end());
}

#[test]
fn a_connection_that_ends_lets_the_next_one_in_at_once() {
    let told = Told::default();
    let mut sim = start(server(), Faults::none(), Scripted::new(&told));
    let first = sim.connect();
    sim.run_until_quiet().unwrap();
    // The pause doubles with each failure: the eighth would last a second.
    (1..=8).for_each(|nth| sim.fail_call(Call::Accept, nth, libc::EMFILE));
    let second = sim.connect();
    sim.run_until(|sim| sim.counters().accept_pauses == 8).unwrap();
    let paused = sim.now();
    second.send(b"hello");
    first.finish();
    sim.run_until(|_| second.received() == b"hello").unwrap();
    assert!(sim.now() - paused < Duration::from_millis(2), "it took {:?}", sim.now() - paused);
}

#[test]
fn whoever_finds_the_reactor_asleep_wakes_it() {
    let told = Told::default();
    let mut sim = start(server().tick(Duration::from_secs(1)), Faults::none(), Scripted::new(&told));
    sim.run_until_quiet().unwrap();
    let before = sim.now();
    let handle = sim.handle();
    sim.while_polling(move || {
        handle.send(0, "one").unwrap();
        handle.send(0, "two").unwrap();
    });
    sim.run_until(|_| told.borrow().len() == 2).unwrap();
    assert!(sim.now() - before < Duration::from_millis(1), "it slept for {:?}", sim.now() - before);
    assert_eq!(sim.counters().wakeups, 1, "one wake-up is enough");
}

#[test]
fn requests_that_are_in_the_kernel_at_a_shutdown_are_answered() {
    let told = Told::default();
    // At most three events a poll: most requests wait in the kernel when the shutdown comes.
    let faults = Faults { small_batches: 1.0, ..Faults::none() };
    let mut sim = start(server(), faults, Scripted::new(&told));
    let remotes: Vec<Remote> = (0..60).map(|_| sim.connect()).collect();
    sim.run_until_quiet().unwrap();
    remotes.iter().for_each(|remote| remote.send(b"request"));
    sim.run_until(|_| remotes.iter().all(|remote| remote.unsent() == 0)).unwrap();
    let answered = || remotes.iter().filter(|remote| remote.received() == b"request").count();
    assert!(answered() < 10, "{} of them are answered already", answered());
    sim.shut_down();
    sim.run_to_the_end().unwrap();
    assert_eq!(answered(), 60);
    assert!(remotes.iter().all(Remote::saw_end));
}

/// A connection in its grace, with input waiting that nobody wants, ends when its peer does.
#[test]
fn a_lingering_connection_reads_what_it_had_left() {
    let told = Told::default();
    let handler = Scripted { on_open: |conn| conn.pause(), ..Scripted::new(&told) };
    let deadlines = Deadlines { linger: Duration::from_secs(3600), ..Deadlines::default() };
    let mut sim = start(server().deadlines(deadlines), Faults::none(), handler);
    let remote = sim.connect();
    remote.send(b"unwanted");
    remote.finish();
    sim.run_until_quiet().unwrap();
    let id = sim.sessions().iter().next().map(|(id, _)| id).unwrap();
    sim.handle().close(id).unwrap();
    sim.run_until_quiet().unwrap();
    assert_eq!(*told.borrow(), ["open", "close Local"]);
    assert!(remote.saw_end() && !remote.saw_reset());
}

/// Deadlines are kept to 20 ms, and never early.
#[test]
fn deadlines_are_kept() {
    for milliseconds in (10..3_000).step_by(37) {
        let time = Duration::from_millis(milliseconds);
        let idle = Deadlines { idle: Some(time), ..Deadlines::default() };
        let first_byte = Deadlines { first_byte: Some(time), ..Deadlines::default() };
        for (deadlines, reason) in [(idle, "close Idle"), (first_byte, "close FirstByte")] {
            let told = Told::default();
            let mut sim = start(server().deadlines(deadlines), Faults::none(), Scripted::new(&told));
            sim.run_for(Duration::from_millis(milliseconds * 7 % 1_000)).unwrap();
            let _remote = sim.connect();
            sim.run_until(|_| told.borrow().len() == 1).unwrap();
            let opened = sim.now();
            sim.run_until(|_| told.borrow().len() == 2).unwrap();
            assert_eq!(told.borrow()[1], reason);
            let took = sim.now() - opened;
            assert!(took >= time && took <= time + Duration::from_millis(20), "{took:?} instead of {time:?}");
        }
    }
}

/// A layer turns the deadline off while its service is at work, and on again when that has written its answer.
#[test]
fn an_idle_deadline_that_is_turned_on_counts_from_then() {
    struct Toggle;
    impl Handler for Toggle {
        type Session = ();
        type Message = ConnId;
        fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<()> {
            conn.set_idle_deadline(None);
            Open::Accept(())
        }
        fn on_data(&mut self, _: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
            input.take_all();
            Flow::Continue
        }
        fn on_message(&mut self, id: ConnId, _: &mut Sessions<()>, core: &mut Core<'_>) {
            core.write(id, b"done");
            assert!(core.set_idle_deadline(id, Some(Duration::from_secs(30))));
        }
    }
    let server = Server::new().listen("127.0.0.1:7000");
    let mut sim = Simulation::new(1, server, Faults::none(), |_| Toggle).unwrap();
    let remote = sim.connect();
    remote.send(b"x");
    sim.run_for(Duration::from_secs(300)).unwrap();
    let id = sim.sessions().iter().next().unwrap().0;
    sim.handle().send(0, id).unwrap();
    sim.run_for(Duration::from_secs(29)).unwrap();
    assert_eq!((remote.received(), remote.is_over()), (b"done".to_vec(), false));
    sim.run_for(Duration::from_secs(2)).unwrap();
    assert!(remote.is_over());
}

/// A proxy that is held up by one side has the other wait: nothing of what that one still sends is to be lost.
#[test]
fn who_is_paused_is_not_idle() {
    let handler = LineByLine { told: Told::default(), resumes_at_once: false };
    let idle = Deadlines { idle: Some(Duration::from_secs(1)), ..Deadlines::default() };
    let mut sim = Simulation::new(1, server().deadlines(idle), Faults::none(), |_| handler).unwrap();
    let remote = sim.connect();
    remote.send(b"one\n");
    sim.run_for(Duration::from_secs(60)).unwrap();
    assert!(!remote.is_over());
    let id = sim.sessions().iter().next().unwrap().0;
    sim.handle().send(0, id).unwrap();
    sim.run_for(Duration::from_millis(900)).unwrap();
    assert!(!remote.is_over(), "it counts from the end of the pause");
    sim.run_for(Duration::from_millis(200)).unwrap();
    assert!(remote.is_over());
}

#[test]
fn output_that_waits_has_the_deadline_of_a_write_stall_if_there_is_one() {
    let seconds = Duration::from_secs;
    for (write_stall, closed_after, reason) in
        [(Some(seconds(5)), 5, "close WriteStall"), (None, 1, "close Idle")]
    {
        let told = Told::default();
        let handler = Scripted {
            on_open: |conn| assert!(conn.write(&[0; 1_000_000]).is_taken()),
            ..Scripted::new(&told)
        };
        let deadlines = Deadlines { idle: Some(seconds(1)), write_stall, ..Deadlines::default() };
        let mut sim = start(server().deadlines(deadlines), Faults::none(), handler);
        let remote = sim.connect();
        remote.set_reading(Reading::Not);
        sim.run_for(seconds(closed_after) - Duration::from_millis(100)).unwrap();
        assert_eq!(*told.borrow(), ["open"]);
        sim.run_for(Duration::from_millis(200)).unwrap();
        assert_eq!(*told.borrow(), ["open", reason]);
    }
}

/// Nobody minded that it took nothing before: only the close asks it to.
#[test]
fn a_close_gives_a_peer_that_took_nothing_its_time() {
    let told = Told::default();
    let handler =
        Scripted { on_open: |conn| assert!(conn.write(&[7; 1_000_000]).is_taken()), ..Scripted::new(&told) };
    let mut sim = start(server(), Faults::none(), handler);
    let remote = sim.connect();
    remote.set_reading(Reading::Not);
    sim.run_for(Duration::from_secs(60)).unwrap();
    let id = sim.sessions().iter().next().unwrap().0;
    sim.handle().close(id).unwrap();
    sim.run_for(Duration::from_secs(4)).unwrap();
    remote.set_reading(Reading::Promptly);
    sim.run_until_quiet().unwrap();
    assert_eq!(remote.received_count(), 1_000_000);
    assert!(remote.saw_end() && !remote.saw_reset());
}

/// What was blocked has no write stall to come any more, and is looked at when it would be idle.
#[test]
fn idleness_counts_from_the_last_byte_also_where_output_had_waited() {
    let told = Told::default();
    let handler =
        Scripted { on_open: |conn| assert!(conn.write(&[7; 160_000]).is_taken()), ..Scripted::new(&told) };
    let (idle, write_stall) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(100)));
    let deadlines = Deadlines { idle, write_stall, ..Deadlines::default() };
    let marks = Watermarks { high: 64 << 10, low: 16 << 10, cap: 1 << 20 };
    let mut sim = start(server().deadlines(deadlines).watermarks(marks), Faults::none(), handler);
    let remote = sim.connect();
    remote.set_reading(Reading::Not);
    sim.run_for(Duration::from_secs(10)).unwrap();
    assert!(!remote.is_over() && remote.received_count() == 0);
    remote.set_reading(Reading::Promptly);
    sim.run_for(Duration::from_millis(1_900)).unwrap();
    assert_eq!((remote.received_count(), remote.is_over()), (160_000, false));
    sim.run_for(Duration::from_millis(200)).unwrap();
    assert!(remote.is_over());
}

/// Takes a line at a time and pauses behind each; `resumes_at_once`, or when it is told to.
struct LineByLine {
    told: Told,
    resumes_at_once: bool,
}

impl Handler for LineByLine {
    type Session = ();
    type Message = ConnId;

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
        let end = input.peek().iter().position(|&byte| byte == b'\n').unwrap() + 1;
        self.told.borrow_mut().push(String::from_utf8_lossy(input.take(end)).into_owned());
        conn.pause();
        if self.resumes_at_once {
            conn.resume();
        }
        Flow::Continue
    }

    fn on_eof(&mut self, _: &mut Conn<'_>, (): &mut (), input: &mut Input<'_>) -> Flow {
        self.told.borrow_mut().push(format!("end with {} bytes left", input.len()));
        Flow::Close
    }

    fn on_message(&mut self, id: ConnId, _: &mut Sessions<()>, core: &mut Core<'_>) {
        assert!(core.resume(id));
    }
}

#[test]
fn what_was_held_back_comes_before_the_end() {
    // In one of these the end arrives right behind the word to go on.
    for micros in (0..500).step_by(5) {
        let told = Told::default();
        let handler = LineByLine { told: Rc::clone(&told), resumes_at_once: false };
        let mut sim = Simulation::new(1, server(), Faults::none(), |_| handler).unwrap();
        let remote = sim.connect();
        remote.send(b"one\ntwo\nthree\n");
        sim.run_until_quiet().unwrap();
        let id = sim.sessions().iter().next().unwrap().0;
        remote.finish();
        sim.run_for(Duration::from_micros(micros)).unwrap();
        for _ in 0..3 {
            sim.handle().send(0, id).unwrap();
            sim.run_until_quiet().unwrap();
        }
        assert_eq!(*told.borrow(), ["one\n", "two\n", "three\n", "end with 0 bytes left"], "{micros} us");
        assert!(remote.is_over());
    }
}

#[test]
fn what_is_left_by_a_callback_that_pauses_and_resumes_is_shown_again() {
    let told = Told::default();
    let handler = LineByLine { told: Rc::clone(&told), resumes_at_once: true };
    let mut sim = Simulation::new(1, server(), Faults::none(), |_| handler).unwrap();
    let remote = sim.connect();
    remote.send(b"one\ntwo\nthree\n");
    sim.run_until_quiet().unwrap();
    assert_eq!(*told.borrow(), ["one\n", "two\n", "three\n"]);
}
