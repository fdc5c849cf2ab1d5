//! The tables in `http1_conformance`: what is served and what is refused, and that it does not matter how the bytes
//! were cut on their way, or what came before and behind them.
#![cfg(all(feature = "http1", feature = "sim"))]

mod support;

use corelane::http1::{Config, Limits};
use corelane::sim::{Faults, Remote, Simulation};
use support::cases::{Case, Mirror, replies, table};

/// What comes behind every case, and is answered if the connection stays open.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: n\r\n\r\n";
const NEXT_REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nGET /next n";

/// Cuts of a case, at most.
const MOST_CUTS: usize = 600;

type Sim = Simulation<corelane::http1::Http<Mirror>>;

fn simulation(limits: Limits) -> Sim {
    let http = Config { limits, date: false, ..Config::default() }.build().unwrap();
    let server = http.server().listen("127.0.0.1:80");
    Simulation::new(1, server, Faults::none(), |_| http.handler(Mirror::default())).unwrap()
}

/// What comes back when the pieces come one after the other, and then the end.
fn run<'a>(sim: &mut Sim, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let remote: Remote = sim.connect();
    for piece in pieces {
        remote.send(piece);
        sim.run_until_quiet().unwrap();
    }
    let was_closed = remote.saw_end();
    remote.finish();
    sim.run_until(|_| remote.is_over()).unwrap();
    assert!(remote.saw_end() && !remote.saw_reset());
    (remote.received(), was_closed)
}

fn check(sim: &mut Sim, case: &Case, has_neighbour: bool) {
    let Case { name, statuses, closes, bytes, seen } = case;
    let stream = [bytes, NEXT].concat();
    let (whole, was_closed) = run(sim, [&stream[..]]);
    let answers = replies(&whole);
    let got: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    let expected: Vec<u16> = statuses.iter().copied().chain((!closes).then_some(200)).collect();
    assert_eq!(got, expected, "{name}: {}", whole.escape_ascii());
    assert_eq!(was_closed, *closes, "{name}: {}", whole.escape_ascii());
    assert_eq!(whole.ends_with(NEXT_REPLY), !closes, "{name}: {}", whole.escape_ascii());
    if let Some(seen) = seen.as_ref().filter(|seen| !seen.is_empty()) {
        assert_eq!(answers[0].1.escape_ascii().to_string(), seen.escape_ascii().to_string(), "{name}");
    }

    let stride = bytes.len().div_ceil(MOST_CUTS);
    for cut in (1..=bytes.len()).step_by(stride) {
        let (first, second) = stream.split_at(cut);
        let (got, _) = run(sim, [first, second]);
        assert_eq!(got.escape_ascii().to_string(), whole.escape_ascii().to_string(), "{name}: cut at {cut}");
    }
    let (got, _) = run(sim, stream.chunks(stride));
    assert_eq!(got.escape_ascii().to_string(), whole.escape_ascii().to_string(), "{name}: byte by byte");
    if has_neighbour {
        let (got, _) = run(sim, [&[NEXT, &stream].concat()[..]]);
        let expected = [NEXT_REPLY, &whole].concat();
        assert_eq!(
            got.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{name}: behind another"
        );
    }
}

fn check_all(limits: Limits, cases: &[Case], has_neighbour: bool) {
    let mut sim = simulation(limits);
    for case in cases {
        check(&mut sim, case, has_neighbour);
    }
    sim.shut_down();
    sim.run_to_the_end().unwrap();
    assert_eq!(sim.panics().collect::<Vec<_>>(), []);
}

#[test]
fn heads() {
    check_all(Limits::default(), &table(include_str!("http1_conformance/heads.txt"), ""), true);
}

#[test]
fn targets() {
    check_all(Limits::default(), &table(include_str!("http1_conformance/targets.txt"), ""), true);
}

#[test]
fn framing() {
    check_all(Limits::default(), &table(include_str!("http1_conformance/framing.txt"), ""), true);
}

#[test]
fn chunks() {
    let head = r"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_all(Limits::default(), &table(include_str!("http1_conformance/chunks.txt"), head), true);
}

#[test]
fn connections() {
    check_all(Limits::default(), &table(include_str!("http1_conformance/connections.txt"), ""), true);
}

#[test]
fn limits() {
    let limits =
        Limits { head: 256, headers: 4, target: 32, body: 16, chunk_extension: 8, ..Limits::default() };
    check_all(limits, &table(include_str!("http1_conformance/limits.txt"), ""), true);
}

#[test]
fn requests_of_a_connection() {
    let limits = Limits { requests: 3, ..Limits::default() };
    check_all(limits, &table(include_str!("http1_conformance/requests.txt"), ""), false);
}
