//! Deadlines of heads and bodies where much else happens, on the simulator's clock.
#![cfg(all(feature = "http1", feature = "sim"))]

use std::time::Duration;

use corelane::http1::*;
use corelane::sim::{Faults, Remote, Simulation};

const SECOND: Duration = Duration::from_secs(1);

/// Answers when the body is whole.
struct Plain;

impl Service for Plain {
    type State = ();
    type Message = ();

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, ()>) {
        if !request.has_body() {
            exchange.reply(StatusCode::OK).send(b"ok").unwrap();
        }
    }

    fn on_body_end(&mut self, exchange: &mut Exchange<'_, ()>, _: &Headers<'_>) {
        exchange.reply(StatusCode::OK).send(b"ok").unwrap();
    }
}

type Sim = Simulation<Http<Plain>>;

fn simulation(timeouts: Timeouts) -> (Sim, Protocol) {
    let limits = Limits { body: 1 << 30, ..Limits::default() };
    let http = Config { limits, timeouts, date: false, ..Config::default() }.build().unwrap();
    let server = http.server().listen("127.0.0.1:80");
    (Simulation::new(1, server, Faults::none(), |_| http.handler(Plain)).unwrap(), http)
}

fn connect(sim: &mut Sim, count: usize) -> Vec<Remote> {
    (0..count).map(|_| sim.connect()).collect()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";

/// Far more run out at once than are served in one turn, and somebody else is served all the time.
#[test]
fn traffic_does_not_keep_the_slow_alive() {
    let (mut sim, http) = simulation(Timeouts { head: 2 * SECOND, ..Timeouts::default() });
    let honest = sim.connect();
    let slow = connect(&mut sim, 2_000);
    slow.iter().for_each(|remote| remote.send(b"GET / HT"));
    for millisecond in (0..2_200).step_by(3) {
        honest.send(GET);
        sim.run_for(Duration::from_millis(3)).unwrap();
        assert!(millisecond > 1_900 || !slow.iter().any(Remote::is_over), "at {millisecond} ms");
    }
    assert_eq!(slow.iter().filter(|remote| !remote.is_over()).count(), 0);
    assert_eq!(http.total().problems[Problem::HeadTimeout.index()], 2_000);
    assert!(!honest.is_over());
}

/// Deadlines of connections that are gone take no place from those of others.
#[test]
fn who_comes_and_goes_does_not_keep_the_slow_alive() {
    let (mut sim, _) = simulation(Timeouts { head: 2 * SECOND, ..Timeouts::default() });
    let mut slow = Vec::new();
    for round in 0..320 {
        if round == 100 {
            slow = connect(&mut sim, 1);
            slow[0].send(b"G");
        }
        let others = connect(&mut sim, 300);
        others.iter().for_each(|remote| remote.send(b"G"));
        sim.run_for(Duration::from_millis(5)).unwrap();
        others.iter().for_each(Remote::reset);
        sim.run_for(Duration::from_millis(5)).unwrap();
    }
    assert!(slow[0].is_over(), "its two seconds are over");
}

#[test]
fn a_body_that_stops_is_cut_off_however_fast_it_began() {
    let (mut sim, http) = simulation(Timeouts::default());
    let remote = sim.connect();
    remote.send(POST);
    remote.send(&vec![b'x'; 4 << 20]);
    sim.run_for(29 * SECOND).unwrap();
    assert!(!remote.is_over());
    sim.run_for(2 * SECOND).unwrap();
    assert!(remote.is_over());
    assert_eq!(http.total().problems[Problem::BodyRate.index()], 1);
}

/// One that comes in bursts is slow only if it is slow on average.
#[test]
fn a_body_may_come_in_bursts() {
    let (mut sim, _) = simulation(Timeouts::default());
    let remote = sim.connect();
    remote.send(POST);
    for _ in 0..50 {
        remote.send(&[b'x'; 10_000]);
        sim.run_for(25 * SECOND).unwrap();
        assert!(!remote.is_over());
    }
}

/// The head was looked for until later than the body may take.
#[test]
fn the_sooner_deadline_holds() {
    let body = corelane::MinimumRate { bytes_per_second: 240, grace: 5 * SECOND };
    let (mut sim, _) = simulation(Timeouts { head: 100 * SECOND, body, ..Timeouts::default() });
    let remote = sim.connect();
    remote.send(&POST[..20]);
    sim.run_for(SECOND).unwrap();
    remote.send(&POST[20..]);
    sim.run_for(4 * SECOND).unwrap();
    assert!(!remote.is_over());
    sim.run_for(2 * SECOND).unwrap();
    assert!(remote.is_over());
}
