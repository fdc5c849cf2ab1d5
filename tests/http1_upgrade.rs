//! A connection goes over to another protocol, with what the client has sent behind its request.
#![cfg(all(feature = "http1", feature = "sim"))]

use std::time::Duration;

use corelane::http1::*;
use corelane::sim::{Faults, Remote, Simulation};
use corelane::*;

/// Speaks lines behind an upgrade: each comes back with its number. `/later` upgrades in another turn; `/x` is answered
/// when the timer fires.
#[derive(Default)]
struct Lines {
    waiting: Vec<(Responder, bool)>,
    upgraded: Vec<Responder>,
    closed: Vec<(u32, CloseReason)>,
    said_goodbye: bool,
}

impl Lines {
    fn answer(exchange: &mut Exchange<'_, u32>, upgrades: bool) -> Result<(), ReplyError> {
        match upgrades {
            true => exchange.reply(StatusCode::SWITCHING_PROTOCOLS).header("upgrade", "lines").upgrade(),
            false => exchange.reply(StatusCode::OK).send(b"plain"),
        }
    }
}

impl Service for Lines {
    type State = u32;
    type Message = String;

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, u32>) {
        if request.path() != "/" {
            self.waiting.push((exchange.responder(), request.is_upgrade()));
            exchange.core().set_timer(Duration::from_millis(5), 0);
            return;
        }
        let result = Self::answer(exchange, request.is_upgrade());
        let may = request.version() == Version::Http11 && !request.has_body() || !request.is_upgrade();
        assert_eq!(result.is_ok(), may);
    }

    fn on_timer(&mut self, _: TimerId, _: u64, context: &mut Context<'_, u32>) {
        for (responder, upgrades) in std::mem::take(&mut self.waiting) {
            if let Some(mut exchange) = context.exchange(responder) {
                Self::answer(&mut exchange, upgrades).unwrap();
            }
        }
    }

    fn on_upgraded(&mut self, upgraded: &mut Upgraded<'_, u32>) {
        self.upgraded.push(upgraded.responder());
        upgraded.write(b"welcome\n");
    }

    fn on_upgraded_data(&mut self, upgraded: &mut Upgraded<'_, u32>, input: &mut Input<'_>) -> Flow {
        while let Some(end) = input.peek().iter().position(|&byte| byte == b'\n') {
            let line = input.take(end + 1);
            *upgraded.state() += 1;
            let number = format!("{} ", upgraded.state());
            upgraded.write_slices(&[number.as_bytes(), line]);
            if line == b"bye\n" {
                return Flow::Close;
            }
        }
        Flow::Continue
    }

    fn on_upgraded_eof(&mut self, upgraded: &mut Upgraded<'_, u32>, input: &mut Input<'_>) -> Flow {
        upgraded.write(input.take_all());
        Flow::Close
    }

    fn on_upgraded_drain(&mut self, upgraded: &mut Upgraded<'_, u32>) -> Flow {
        self.said_goodbye = true;
        upgraded.write(b"goodbye\n");
        Flow::Close
    }

    fn on_upgraded_close(&mut self, _: Responder, lines: u32, reason: CloseReason, _: &mut Context<'_, u32>) {
        self.closed.push((lines, reason));
    }

    fn on_message(&mut self, text: String, context: &mut Context<'_, u32>) {
        for responder in &self.upgraded {
            assert!(context.exchange(*responder).is_none(), "its exchange is over");
            if let Some(mut upgraded) = context.upgraded(*responder) {
                upgraded.write(text.as_bytes());
            }
        }
    }
}

type Sim = Simulation<Http<Lines>>;

fn simulation(seed: u64) -> (Sim, Protocol) {
    let http = Config { date: false, ..Config::default() }.build().unwrap();
    let server = http.server().listen("127.0.0.1:80");
    let faults = Faults::lossless();
    (Simulation::new(seed, server, faults, |_| http.handler(Lines::default())).unwrap(), http)
}

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: lines\r\nconnection: upgrade\r\n\r\nwelcome\n";
const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain";

fn upgrade(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
}

fn received(remote: &Remote) -> String {
    String::from_utf8(remote.received()).unwrap()
}

#[test]
fn what_is_behind_the_request_goes_to_the_service_however_it_is_cut() {
    for path in ["/", "/later"] {
        for seed in 0..40 {
            let (mut sim, http) = simulation(seed);
            let remote = sim.connect();
            let before = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
            let bytes = [before, &upgrade(path), "one\ntwo\nGET / HTTP/1.1\r\n\r\nthr"].concat();
            let cut = bytes.len() * seed as usize / 40;
            remote.send(&bytes.as_bytes()[..cut]);
            sim.run_until_quiet().unwrap();
            remote.send(&bytes.as_bytes()[cut..]);
            remote.send(b"ee\nfour");
            remote.finish();
            sim.run_until(|_| remote.is_over()).unwrap();
            let lines = "1 one\n2 two\n3 GET / HTTP/1.1\r\n4 \r\n5 three\nfour";
            assert_eq!(received(&remote), [PLAIN, SWITCH, lines].concat(), "{path}, seed {seed}");
            sim.run_until_quiet().unwrap();
            assert_eq!(sim.handler().service().closed, [(5, CloseReason::PeerClosed)]);
            let total = http.total();
            assert_eq!((total.upgrades, total.aborted, total.statuses), (1, 0, [1, 1, 0, 0, 0]));
        }
    }
}

#[test]
fn an_upgraded_connection_is_the_services_own() {
    let (mut sim, _) = simulation(1);
    let (remote, closing) = (sim.connect(), sim.connect());
    remote.send(upgrade("/").as_bytes());
    closing.send(upgrade("/").as_bytes());
    sim.run_until_quiet().unwrap();
    // No deadline of HTTP ends it.
    sim.run_for(Duration::from_secs(1000)).unwrap();
    assert!(!remote.is_over());
    sim.handle().send(0, "news\n".to_owned()).unwrap();
    closing.send(b"bye\n");
    sim.run_until_quiet().unwrap();
    assert_eq!(received(&remote), [SWITCH, "news\n"].concat());
    assert_eq!(received(&closing), [SWITCH, "news\n1 bye\n"].concat());
    assert!(closing.saw_end() && !remote.is_over());
    sim.shut_down();
    sim.run_until(|_| remote.is_over()).unwrap();
    assert!(received(&remote).ends_with("goodbye\n") && sim.handler().service().said_goodbye);
    [remote, closing].iter().for_each(Remote::finish);
    sim.run_to_the_end().unwrap();
    let closed = &sim.handler().service().closed;
    assert!(closed.contains(&(1, CloseReason::Local)) && closed.contains(&(0, CloseReason::Shutdown)));
}

#[test]
fn an_upgrade_that_cannot_be_is_answered_with_500() {
    let (mut sim, _) = simulation(1);
    let (old, full) = (sim.connect(), sim.connect());
    old.send(upgrade("/").replace("HTTP/1.1", "HTTP/1.0").as_bytes());
    full.send(upgrade("/").replace("Host: a", "Host: a\r\nContent-Length: 2").as_bytes());
    full.send(b"ab");
    sim.run_until_quiet().unwrap();
    // To a client of version 1.0 the header says nothing, and there is nothing to refuse.
    assert_eq!(received(&old), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nplain");
    assert_eq!(received(&full), "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
    assert!(!full.is_over(), "and served on");
}

/// Answers in ways that not every request allows. What was upgraded may be idle for five seconds.
struct Bold;

impl Service for Bold {
    type State = ();
    type Message = ();

    fn on_request(&mut self, request: &Request<'_>, exchange: &mut Exchange<'_, ()>) {
        let reply = |exchange: &mut Exchange<'_, ()>, status| {
            exchange.reply(status).header("upgrade", "lines").send(b"")
        };
        let result = match request.target() {
            "/switch" => exchange.reply(StatusCode::SWITCHING_PROTOCOLS).header("upgrade", "lines").upgrade(),
            "/required" => reply(exchange, StatusCode::UPGRADE_REQUIRED),
            "/required-once" => {
                exchange.reply(StatusCode::UPGRADE_REQUIRED).header("upgrade", "lines").close().send(b"")
            }
            _ => exchange.reply(StatusCode::OK).send(b"is no tunnel"),
        };
        let is_allowed = request.is_upgrade() || request.target().starts_with("/required");
        assert_eq!(result, if is_allowed { Ok(()) } else { Err(ReplyError::Upgrade) });
    }

    fn on_upgraded(&mut self, upgraded: &mut Upgraded<'_, ()>) {
        let id = upgraded.id();
        assert!(upgraded.core().set_idle_deadline(id, Some(Duration::from_secs(5))));
    }

    fn on_upgraded_data(&mut self, _: &mut Upgraded<'_, ()>, input: &mut Input<'_>) -> Flow {
        input.take_all();
        Flow::Continue
    }
}

fn bold(requests: &str) -> (Simulation<Http<Bold>>, Remote) {
    let http = Config { date: false, ..Config::default() }.build().unwrap();
    let server = http.server().listen("127.0.0.1:80");
    let mut sim = Simulation::new(1, server, Faults::none(), |_| http.handler(Bold)).unwrap();
    let remote = sim.connect();
    remote.send(requests.as_bytes());
    sim.run_until_quiet().unwrap();
    (sim, remote)
}

#[test]
fn who_asks_for_no_upgrade_gets_none() {
    let failed = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    // Nor is a CONNECT answered as if what follows were HTTP.
    for request in ["GET /switch HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"] {
        let (_sim, remote) = bold(&request.repeat(2));
        assert_eq!(received(&remote), failed.repeat(2));
    }
}

#[test]
fn an_upgrade_that_is_offered_is_named_as_of_this_connection() {
    let (_sim, remote) =
        bold("GET /required HTTP/1.1\r\nHost: a\r\n\r\nGET /required-once HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = "HTTP/1.1 426 Upgrade Required\r\nupgrade: lines\r\ncontent-length: 0\r\n";
    assert_eq!(
        received(&remote),
        format!("{head}connection: upgrade\r\n\r\n{head}connection: close, upgrade\r\n\r\n")
    );
}

#[test]
fn the_services_own_idle_deadline_holds_from_the_upgrade_on() {
    let (mut sim, remote) = bold(&upgrade("/switch"));
    sim.run_for(Duration::from_millis(4_900)).unwrap();
    remote.send(b"x");
    sim.run_for(Duration::from_millis(4_900)).unwrap();
    assert!(!remote.is_over());
    sim.run_for(Duration::from_millis(200)).unwrap();
    assert!(remote.is_over());
}
