//! HTTP/1.1 on the simulator's clock and network: deadlines, pipelining, backpressure, shutdown, panics.
#![cfg(all(feature = "http1", feature = "sim"))]

mod support;

use std::time::Duration;

use corelane::http1::*;
use corelane::sim::{Faults, Reading, Remote, Simulation};
use corelane::*;
use support::cases::replies;

const SECOND: Duration = Duration::from_secs(1);

/// What a service was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Request(String),
    Body(Vec<u8>),
    End(usize),
    Drained(usize),
    Abort(usize),
}

/// Notes down what it is told, and does what the test says.
#[derive(Debug, Default)]
struct Notes {
    told: Vec<Told>,
    responders: Vec<Responder>,
    /// What is streamed in parts until it is refused or waits: of the exchange with this number.
    streaming: Vec<(Responder, usize)>,
    access: Vec<String>,
}

/// Orders of the test.
enum Order {
    /// Answer the exchange of this number with its number.
    Answer(usize),
    Stream(usize, usize),
    Resume(usize),
}

const PART: &[u8] = &[b'x'; 4096];

impl Notes {
    fn number(&self, responder: Responder) -> usize {
        self.responders.iter().position(|other| *other == responder).unwrap()
    }

    /// Writes parts until it is told to wait or has written all.
    fn stream(exchange: &mut Exchange<'_, ()>, left: &mut usize) {
        while *left > 0 {
            *left -= 1;
            match exchange.write(PART).unwrap() {
                Written::Accepted => {}
                Written::High => return,
                other => panic!("{other:?}"),
            }
        }
        exchange.end().unwrap();
    }
}

impl Service for Notes {
    type State = ();
    type Message = Order;

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, ()>) {
        self.told.push(Told::Request(request.target().to_owned()));
        self.responders.push(exchange.responder());
        match request.path() {
            "/now" => exchange.reply(StatusCode::OK).send(b"now").unwrap(),
            "/big" => exchange.reply(StatusCode::OK).send(&[b'b'; 300_000]).unwrap(),
            "/small" => exchange.reply(StatusCode::OK).send(&[b's'; 5_000]).unwrap(),
            "/paused" => exchange.pause_body(),
            "/panic" => panic!("as asked"),
            "/echo" => exchange.reply(StatusCode::OK).stream(Length::Unknown).unwrap(),
            _ => {}
        }
    }

    fn on_body(&mut self, exchange: &mut Exchange<'_, ()>, data: &[u8]) {
        self.told.push(Told::Body(data.to_vec()));
        if exchange.is_turn() && matches!(self.told.first(), Some(Told::Request(target)) if target == "/echo")
        {
            exchange.write(data).unwrap();
        }
    }

    fn on_body_end(&mut self, exchange: &mut Exchange<'_, ()>, _: &Headers<'_>) {
        self.told.push(Told::End(self.number(exchange.responder())));
        if matches!(self.told.first(), Some(Told::Request(target)) if target == "/echo") {
            exchange.end().unwrap();
        }
    }

    fn on_drained(&mut self, exchange: &mut Exchange<'_, ()>) {
        let responder = exchange.responder();
        self.told.push(Told::Drained(self.number(responder)));
        if let Some((_, left)) = self.streaming.iter_mut().find(|(other, _)| *other == responder) {
            Self::stream(exchange, left);
        }
    }

    fn on_abort(&mut self, responder: Responder, (): (), context: &mut Context<'_, ()>) {
        assert!(context.exchange(responder).is_none(), "stale");
        self.told.push(Told::Abort(self.number(responder)));
    }

    fn on_access(&mut self, access: &Access<'_>) {
        let Access { method, target, status, bytes, duration, .. } = access;
        self.access.push(format!("{method} {target} {status} {bytes} {}", duration.as_millis()));
    }

    fn on_message(&mut self, order: Order, context: &mut Context<'_, ()>) {
        let number = match order {
            Order::Answer(number) | Order::Stream(number, _) | Order::Resume(number) => number,
        };
        let Some(mut exchange) = context.exchange(self.responders[number]) else { return };
        match order {
            Order::Answer(number) => {
                exchange.reply(StatusCode::OK).send(number.to_string().as_bytes()).unwrap()
            }
            Order::Stream(number, parts) => {
                let mut left = parts;
                exchange.reply(StatusCode::OK).stream(Length::Known((parts * PART.len()) as u64)).unwrap();
                Self::stream(&mut exchange, &mut left);
                self.streaming.push((self.responders[number], left));
            }
            Order::Resume(_) => exchange.resume_body(),
        }
    }
}

type Sim = Simulation<Http<Notes>>;

fn simulation_of(config: Config, seed: u64, faults: Faults) -> (Sim, Protocol) {
    let http = config.build().unwrap();
    let server = http.server().listen("127.0.0.1:80").drain_deadline(60 * SECOND);
    (Simulation::new(seed, server, faults, |_| http.handler(Notes::default())).unwrap(), http)
}

fn simulation() -> (Sim, Protocol) {
    simulation_of(Config { date: false, ..Config::default() }, 1, Faults::none())
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn told(sim: &Sim) -> &[Told] {
    &sim.handler().service().told
}

fn order(sim: &mut Sim, order: Order) {
    assert!(sim.handle().send(0, order).is_ok());
    sim.run_until_quiet().unwrap();
}

fn statuses(remote: &Remote) -> Vec<u16> {
    replies(&remote.received()).iter().map(|(status, _)| *status).collect()
}

/// Sends `part` every second until the server ends the connection; how many seconds that took.
fn drip(sim: &mut Sim, remote: &Remote, part: &[u8]) -> u32 {
    for second in 0..200 {
        remote.send(part);
        sim.run_for(SECOND).unwrap();
        if remote.is_over() {
            return second;
        }
    }
    panic!("still there");
}

#[test]
fn a_head_that_drips_is_cut_off_with_408() {
    let (mut sim, http) = simulation();
    let remote = sim.connect();
    remote.send(b"GET / HTTP/1.1\r\nX: ");
    let seconds = drip(&mut sim, &remote, b"a");
    assert!((28..=31).contains(&seconds), "{seconds} s");
    assert_eq!(
        remote.received(),
        b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(http.total().problems[Problem::HeadTimeout.index()], 1);
    assert_eq!(told(&sim), []);
}

#[test]
fn a_head_that_drips_behind_a_request_is_cut_off_too() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.send(&get("/now"));
    sim.run_for(20 * SECOND).unwrap();
    let seconds = drip(&mut sim, &remote, b"a");
    assert!((28..=31).contains(&seconds), "{seconds} s");
    assert_eq!(statuses(&remote), [200, 408]);
}

#[test]
fn a_body_that_drips_is_cut_off_with_408_and_one_that_keeps_the_rate_is_not() {
    let (mut sim, http) = simulation();
    let (slow, fast) = (sim.connect(), sim.connect());
    let head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    slow.send(head);
    fast.send(head);
    for second in 0..100 {
        slow.send(&[b'x'; 100]);
        fast.send(&[b'x'; 300]);
        sim.run_for(SECOND).unwrap();
        assert_eq!(slow.is_over(), second >= 30, "{second} s");
    }
    assert_eq!(statuses(&slow), [408]);
    assert!(!fast.is_over());
    let total = http.total();
    assert_eq!(total.problems[Problem::BodyRate.index()], 1);
    // The layer's own reply has a status, and no place among the service's times.
    assert_eq!((total.statuses, total.latency.iter().sum::<u64>(), total.aborted), ([0, 0, 0, 1, 0], 0, 1));
    assert!(told(&sim).contains(&Told::Abort(0)) && !told(&sim).contains(&Told::Abort(1)));
}

#[test]
fn a_body_that_the_service_does_not_want_yet_may_take_its_time() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.send(b"POST /paused HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    sim.run_for(100 * SECOND).unwrap();
    assert!(!remote.is_over());
    assert_eq!(told(&sim), [Told::Request("/paused".into())]);
    order(&mut sim, Order::Resume(0));
    assert_eq!(told(&sim)[1..], [Told::Body(b"ab".to_vec())]);
    sim.run_for(20 * SECOND).unwrap();
    remote.send(b"cde");
    sim.run_until_quiet().unwrap();
    assert_eq!(told(&sim)[2..], [Told::Body(b"cde".to_vec()), Told::End(0)]);
    order(&mut sim, Order::Answer(0));
    assert_eq!(statuses(&remote), [200]);
}

#[test]
fn a_client_that_waits_to_be_asked_is_asked_when_the_body_is_wanted() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    let head = b"POST /paused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    remote.send(&[&get("/wait")[..], head].concat());
    sim.run_for(5 * SECOND).unwrap();
    assert!(remote.received().is_empty());
    order(&mut sim, Order::Resume(1));
    assert!(remote.received().is_empty(), "behind the reply that is owed");
    order(&mut sim, Order::Answer(0));
    assert_eq!(statuses(&remote), [200, 100]);
    remote.send(b"ab");
    sim.run_until_quiet().unwrap();
    order(&mut sim, Order::Answer(1));
    assert_eq!(statuses(&remote), [200, 100, 200]);
    assert!(!remote.is_over());
}

#[test]
fn quiet_connections_are_closed_without_a_word() {
    let (mut sim, _) = simulation();
    let (never, once) = (sim.connect(), sim.connect());
    sim.run_for(20 * SECOND).unwrap();
    once.send(&get("/now"));
    sim.run_for(15 * SECOND).unwrap();
    assert!(never.is_over() && never.received().is_empty());
    assert!(!once.is_over());
    sim.run_for(16 * SECOND).unwrap();
    assert!(once.is_over() && statuses(&once) == [200]);
}

#[test]
fn a_service_may_take_its_time() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.send(&get("/slow"));
    sim.run_for(300 * SECOND).unwrap();
    assert!(!remote.is_over());
    order(&mut sim, Order::Answer(0));
    assert_eq!(replies(&remote.received()), [(200, b"0".to_vec())]);
    sim.run_for(29 * SECOND).unwrap();
    assert!(!remote.is_over(), "the idle time counts from the reply");
    sim.run_for(2 * SECOND).unwrap();
    assert!(remote.is_over());
}

#[test]
fn a_peer_that_takes_no_output_is_reset() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.set_reading(Reading::Not);
    remote.send(&get("/slow"));
    sim.run_until_quiet().unwrap();
    order(&mut sim, Order::Stream(0, 1000));
    sim.run_for(29 * SECOND).unwrap();
    assert!(!remote.is_over());
    sim.run_for(3 * SECOND).unwrap();
    assert!(remote.saw_reset());
    assert_eq!(told(&sim).last(), Some(&Told::Abort(0)));
}

#[test]
fn slowloris_is_cut_off_while_others_are_served() {
    let (mut sim, http) = simulation();
    let attackers: Vec<Remote> = (0..500).map(|_| sim.connect()).collect();
    let honest = sim.connect();
    attackers.iter().for_each(|remote| remote.send(b"GET / HTTP/1.1\r\nHost: a\r\n"));
    for second in 0..40 {
        for (n, remote) in attackers.iter().enumerate() {
            if (n + second) % 5 == 0 {
                remote.send(b"X");
            }
        }
        let before = honest.received_count();
        honest.send(&get("/now"));
        sim.run_until_quiet().unwrap();
        assert!(honest.received_count() > before);
        sim.run_for(SECOND).unwrap();
    }
    assert!(attackers.iter().all(Remote::is_over));
    assert!(!honest.is_over());
    assert_eq!(http.total().problems[Problem::HeadTimeout.index()], 500);
}

#[test]
fn replies_keep_the_order_of_their_requests() {
    for seed in 0..30 {
        let config = Config { date: false, ..Config::default() };
        let (mut sim, _) = simulation_of(config, seed, Faults::lossless());
        let remote = sim.connect();
        remote.send(&(0..8).flat_map(|n| get(&format!("/{n}"))).collect::<Vec<u8>>());
        sim.run_until_quiet().unwrap();
        assert_eq!(told(&sim).len(), 8);
        for number in [3, 1, 7, 0, 2, 6, 5] {
            order(&mut sim, Order::Answer(number));
        }
        let so_far: Vec<_> = replies(&remote.received()).into_iter().map(|(_, body)| body).collect();
        assert_eq!(so_far, [b"0", b"1", b"2", b"3"], "seed {seed}");
        order(&mut sim, Order::Answer(4));
        assert_eq!(statuses(&remote).len(), 8);
        order(&mut sim, Order::Answer(4));
        assert_eq!(statuses(&remote).len(), 8, "a stale responder answers nothing");
    }
}

#[test]
fn no_more_requests_wait_than_the_depth_allows() {
    let limits = Limits { pipeline: 4, ..Limits::default() };
    let (mut sim, _) = simulation_of(Config { limits, date: false, ..Config::default() }, 1, Faults::none());
    let remote = sim.connect();
    remote.send(&get("/x").repeat(10));
    sim.run_until_quiet().unwrap();
    assert_eq!(told(&sim).len(), 4);
    order(&mut sim, Order::Answer(1));
    assert_eq!(told(&sim).len(), 4, "the first is not answered");
    order(&mut sim, Order::Answer(0));
    assert_eq!(told(&sim).len(), 6);
    remote.finish();
    for number in 2..10 {
        order(&mut sim, Order::Answer(number));
    }
    assert_eq!(statuses(&remote), [200; 10]);
    assert!(remote.saw_end());
}

#[test]
fn held_replies_are_bounded() {
    let limits = Limits { held: 10_000, ..Limits::default() };
    let (mut sim, _) = simulation_of(Config { limits, date: false, ..Config::default() }, 1, Faults::none());
    let remote = sim.connect();
    remote.send(&[get("/wait"), get("/small").repeat(10)].concat());
    sim.run_until_quiet().unwrap();
    assert_eq!(told(&sim).len(), 3, "two of them hold more than 10,000 bytes");
    order(&mut sim, Order::Answer(0));
    assert_eq!(statuses(&remote), [200; 11]);
}

#[test]
fn a_streamed_reply_waits_for_its_turn_and_for_its_reader() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.set_reading(Reading::Not);
    remote.send(&[get("/first"), get("/second")].concat());
    sim.run_until_quiet().unwrap();
    order(&mut sim, Order::Stream(1, 500));
    let left = |sim: &Sim| sim.handler().service().streaming[0].1;
    let held = left(&sim);
    assert!(held >= 490, "{held} parts left: what is held is bounded");
    order(&mut sim, Order::Answer(0));
    assert!(left(&sim) < held, "its turn has come");
    let stuck = left(&sim);
    assert!(stuck > 400, "{stuck} parts left: nobody reads");
    remote.set_reading(Reading::Promptly);
    sim.run_until_quiet().unwrap();
    let answers = replies(&remote.received());
    assert_eq!(answers[0], (200, b"0".to_vec()));
    assert!(answers[1].1 == PART.repeat(500));
    assert!(told(&sim).contains(&Told::Drained(1)));
}

#[test]
fn a_peer_that_does_not_read_cannot_go_on_asking() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.set_reading(Reading::Not);
    remote.send(&get("/big").repeat(50));
    sim.run_until_quiet().unwrap();
    assert!(told(&sim).len() < 5, "{} requests", told(&sim).len());
    remote.set_reading(Reading::Promptly);
    sim.run_until_quiet().unwrap();
    assert_eq!(statuses(&remote), [200; 50]);
}

#[test]
fn a_body_is_echoed_however_it_is_cut() {
    let body: Vec<u8> = (0..100_000u32).map(|n| (n * 7 + n / 251) as u8).collect();
    for seed in 0..20 {
        let (mut sim, _) =
            simulation_of(Config { date: false, ..Config::default() }, seed, Faults::lossless());
        let remote = sim.connect();
        remote.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for part in body.chunks(1 + 999 * (seed as usize + 1)) {
            remote.send(format!("{:x}\r\n", part.len()).as_bytes());
            remote.send(part);
            remote.send(b"\r\n");
        }
        remote.send(b"0\r\n\r\n");
        sim.run_until_quiet().unwrap();
        let received = remote.received();
        let start = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        assert!(dechunk(&received[start..]) == body, "seed {seed}");
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.iter().position(|&byte| byte == b'\n').unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end - 1]).unwrap(), 16).unwrap();
        body.extend_from_slice(&bytes[end + 1..][..size]);
        bytes = &bytes[end + 1 + size + 2..];
        if size == 0 {
            assert!(bytes.is_empty());
            return body;
        }
    }
}

#[test]
fn a_stream_that_ends_within_a_request_is_answered_as_far_as_it_goes() {
    let (mut sim, http) = simulation();
    for (bytes, expected) in [
        (&b"GET /now HTTP/1.1\r\nHost: a\r\n\r\nGET / HT"[..], &[200, 400][..]),
        (b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
        (b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n\r\n", &[200]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", &[400]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", &[400]),
        (b"GET / HTTP/2.", &[400]),
        (b"", &[]),
    ] {
        let remote = sim.connect();
        remote.send(bytes);
        remote.finish();
        sim.run_until(|_| remote.is_over()).unwrap();
        assert_eq!(statuses(&remote), expected, "{}", bytes.escape_ascii());
    }
    assert_eq!(http.total().problems[Problem::Truncated.index()], 4);
    assert_eq!(http.total().aborted, 2);
}

#[test]
fn a_reply_that_is_owed_is_sent_behind_the_end_of_the_stream() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.send(&[get("/x"), get("/y")].concat());
    remote.finish();
    sim.run_until_quiet().unwrap();
    assert!(!remote.is_over());
    order(&mut sim, Order::Answer(1));
    order(&mut sim, Order::Answer(0));
    assert_eq!(statuses(&remote), [200, 200]);
    assert!(remote.saw_end());
}

#[test]
fn a_shutdown_lets_exchanges_finish_and_says_so() {
    let (mut sim, _) = simulation();
    let (idle, fresh, busy, partial) = (sim.connect(), sim.connect(), sim.connect(), sim.connect());
    idle.send(&get("/now"));
    busy.send(&[get("/x"), get("/y")].concat());
    partial.send(b"GET /now HTTP/1.1\r\n");
    sim.run_until_quiet().unwrap();
    sim.shut_down();
    sim.run_until_quiet().unwrap();
    assert!(idle.saw_end() && fresh.saw_end(), "nothing is owed to them");
    assert!(!busy.is_over() && !partial.is_over());
    partial.send(b"Host: a\r\n\r\n");
    order(&mut sim, Order::Answer(2));
    order(&mut sim, Order::Answer(1));
    let first = &b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1"[..];
    let last = &b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n2"[..];
    assert_eq!(busy.received(), [first, last].concat());
    assert_eq!(partial.received(), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nnow");
    for remote in [idle, fresh, busy, partial] {
        assert!(remote.saw_end() && !remote.saw_reset());
        remote.finish();
    }
    sim.run_to_the_end().unwrap();
}

/// It was made before the shutdown and waits for the reply before it.
#[test]
fn a_reply_that_waits_at_a_shutdown_says_so_too() {
    let (mut sim, _) = simulation();
    let remote = sim.connect();
    remote.send(&[get("/x"), get("/now")].concat());
    sim.run_until_quiet().unwrap();
    sim.shut_down();
    sim.run_until_quiet().unwrap();
    order(&mut sim, Order::Answer(0));
    let first = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n0";
    let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nnow";
    assert_eq!(
        remote.received().escape_ascii().to_string(),
        [first, last].concat().escape_default().to_string()
    );
    assert!(remote.saw_end());
}

#[test]
fn what_has_arrived_at_a_shutdown_is_served_and_the_last_reply_says_close() {
    const REPLY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnow";
    const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nnow";
    let mut said = 0;
    for seed in 0..200 {
        let config = Config { date: false, ..Config::default() };
        let (mut sim, _) = simulation_of(config, seed, Faults::lossless());
        let remote = sim.connect();
        remote.send(&get("/now").repeat(3));
        for _ in 0..seed % 10 {
            sim.turn();
        }
        sim.shut_down();
        sim.run_until(|_| remote.is_over()).unwrap();
        let received = String::from_utf8(remote.received()).unwrap();
        let is_whole = (0..=3).any(|count| received == REPLY.repeat(count));
        let says_so = (0..3).any(|count| received == [&REPLY.repeat(count), LAST].concat());
        assert!(is_whole || says_so, "seed {seed}: {received}");
        said += u32::from(says_so && received.len() > 2 * REPLY.len());
        remote.finish();
        sim.run_to_the_end().unwrap();
    }
    assert!(said > 3, "three replies of which the last says so: {said} times");
}

#[test]
fn a_panic_costs_its_connection_and_no_other() {
    let (mut sim, http) = simulation();
    let (other, remote) = (sim.connect(), sim.connect());
    other.send(&get("/x"));
    remote.send(&[get("/y"), get("/panic")].concat());
    sim.run_until_quiet().unwrap();
    assert!(remote.saw_reset());
    order(&mut sim, Order::Answer(0));
    assert_eq!(statuses(&other), [200]);
    assert_eq!(http.total().aborted, 2, "the one that panicked and the one before it");
    assert_eq!(sim.panics().count(), 1);
}

#[test]
fn exchanges_are_told_of_their_connections_end() {
    let (mut sim, http) = simulation();
    let remote = sim.connect();
    remote.send(&[get("/x"), get("/y")].concat());
    sim.run_until_quiet().unwrap();
    remote.reset();
    sim.run_until_quiet().unwrap();
    assert_eq!(told(&sim)[2..], [Told::Abort(0), Told::Abort(1)]);
    assert_eq!(http.total().aborted, 2);
    order(&mut sim, Order::Answer(0));
}

#[test]
fn one_of_so_many_requests_is_logged() {
    let config = Config { date: false, log_every: 3, ..Config::default() };
    let (mut sim, http) = simulation_of(config, 1, Faults::none());
    let remote = sim.connect();
    remote.send(&[get("/now"), get("/now"), get("/now?3"), get("/now"), get("/now"), get("/x?6")].concat());
    sim.run_for(2 * SECOND).unwrap();
    order(&mut sim, Order::Answer(5));
    let access = &sim.handler().service().access;
    assert_eq!(access[0], "GET /now?3 200 3 0");
    let milliseconds = access[1].strip_prefix("GET /x?6 200 1 ").unwrap();
    assert!((1_990..2_010).contains(&milliseconds.parse::<u32>().unwrap()), "{access:?}");
    assert_eq!(access.len(), 2);
    let total = http.total();
    assert_eq!((total.requests, total.statuses, total.body_out), (6, [0, 6, 0, 0, 0], 16));
    assert_eq!(total.latency.iter().sum::<u64>(), 6);
    assert!(total.latency_sum >= Duration::from_millis(1_990) && total.latency[0] == 5);
}
