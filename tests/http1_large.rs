//! Replies that are larger than what a server keeps for a peer: they leave as the peer takes them.
#![cfg(all(feature = "http1", feature = "sim"))]

mod support;

use std::time::Duration;

use corelane::http1::*;
use corelane::sim::{Faults, Reading, Remote, Simulation};
use corelane::{Shared, Written};
use support::cases::replies;

/// More than the output cap of 4 MiB.
const LARGE: usize = 5_000_000;

/// `/now/N` is answered at once with N bytes, `/shared/N` with as many that are shared, `/streamed/N` with as many of which
/// ten are written when the others have left; `/later/N` when it is told, the last one first.
#[derive(Default)]
struct Sizes {
    waiting: Vec<(Responder, usize)>,
}

fn body(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n * 7 + n / 251) as u8).collect()
}

impl Service for Sizes {
    type State = Vec<u8>;
    type Message = ();

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, Vec<u8>>) {
        let (way, length) = request.path()[1..].split_once('/').unwrap();
        let length = length.parse().unwrap();
        match way {
            "now" => exchange.reply(StatusCode::OK).send(&body(length)).unwrap(),
            "shared" => exchange.reply(StatusCode::OK).send_shared(&Shared::from(body(length))).unwrap(),
            "streamed" => {
                exchange.reply(StatusCode::OK).stream(Length::Known(length as u64)).unwrap();
                let body = body(length);
                let (first, second) = body.split_at(length - 10);
                assert_eq!(exchange.write(first).unwrap(), Written::High);
                *exchange.state().unwrap() = second.to_vec();
            }
            _ => self.waiting.push((exchange.responder(), length)),
        }
    }

    fn on_drained(&mut self, exchange: &mut Exchange<'_, Vec<u8>>) {
        let rest = std::mem::take(exchange.state().unwrap());
        assert_eq!(exchange.write(&rest).unwrap(), Written::Accepted);
        exchange.end().unwrap();
    }

    fn on_message(&mut self, (): (), context: &mut Context<'_, Vec<u8>>) {
        for (responder, length) in self.waiting.drain(..).rev() {
            context.exchange(responder).unwrap().reply(StatusCode::OK).send(&body(length)).unwrap();
        }
    }
}

type Sim = Simulation<Http<Sizes>>;

fn simulation(seed: u64) -> (Sim, Protocol) {
    let http = Config { date: false, ..Config::default() }.build().unwrap();
    let server = http.server().listen("127.0.0.1:80");
    (Simulation::new(seed, server, Faults::lossless(), |_| http.handler(Sizes::default())).unwrap(), http)
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn slow(sim: &mut Sim) -> Remote {
    let remote = sim.connect();
    remote.set_reading(Reading::Slowly { bytes: 100_000, every: Duration::from_millis(10) });
    remote
}

fn expect(remote: &Remote, lengths: &[usize]) {
    let replies = replies(&remote.received());
    assert_eq!(
        replies.iter().map(|(status, body)| (*status, body.len())).collect::<Vec<_>>(),
        lengths.iter().map(|&length| (200, length)).collect::<Vec<_>>()
    );
    assert!(replies.iter().zip(lengths).all(|((_, got), &length)| *got == body(length)));
}

#[test]
fn a_reply_may_be_larger_than_the_output_cap() {
    for way in ["now", "shared", "streamed"] {
        for seed in 0..4 {
            let (mut sim, http) = simulation(seed);
            let remote = slow(&mut sim);
            remote.send(&[get(&format!("/{way}/{LARGE}")), get("/now/3")].concat());
            sim.run_until(|_| replies_are(&remote, LARGE + 3)).unwrap();
            sim.run_until_quiet().unwrap();
            expect(&remote, &[LARGE, 3]);
            let total = http.total();
            assert_eq!((total.statuses[1], total.body_out, total.aborted), (2, LARGE as u64 + 3, 0), "{way}");
        }
    }
}

/// What is held of the reply has no head in front, and nothing is put into it.
#[test]
fn a_shutdown_in_the_middle_changes_no_byte() {
    for received in [1, LARGE / 20, LARGE / 2] {
        let (mut sim, _) = simulation(1);
        let remote = slow(&mut sim);
        remote.send(&get(&format!("/now/{LARGE}")));
        sim.run_until(|_| remote.received_count() >= received).unwrap();
        sim.shut_down();
        sim.run_until(|_| remote.saw_end()).unwrap();
        expect(&remote, &[LARGE]);
    }
}

/// Whether so many bytes of bodies have come, or nothing more will.
fn replies_are(remote: &Remote, bytes: usize) -> bool {
    remote.received_count() > bytes || remote.is_over()
}

#[test]
fn replies_that_waited_for_their_turn_may_be_more_than_the_output_cap_together() {
    for seed in 0..4 {
        let (mut sim, _) = simulation(seed);
        let remote = slow(&mut sim);
        let lengths: Vec<usize> = (0..16).map(|n| 300_000 + n).collect();
        remote.send(&lengths.iter().flat_map(|length| get(&format!("/later/{length}"))).collect::<Vec<u8>>());
        sim.run_until(|sim| sim.handler().service().waiting.len() == 16).unwrap();
        sim.handle().send(0, ()).unwrap();
        sim.run_until(|_| replies_are(&remote, lengths.iter().sum())).unwrap();
        sim.run_until_quiet().unwrap();
        expect(&remote, &lengths);
    }
}

#[test]
fn of_a_client_that_goes_away_a_large_reply_is_not_counted_as_complete() {
    let (mut sim, http) = simulation(1);
    let remote = sim.connect();
    remote.set_reading(Reading::Not);
    remote.send(&get(&format!("/now/{LARGE}")));
    sim.run_until_quiet().unwrap();
    remote.reset();
    sim.run_until_quiet().unwrap();
    let total = http.total();
    assert_eq!((total.requests, total.statuses, total.body_out, total.aborted), (1, [0; 5], 0, 1));
}
