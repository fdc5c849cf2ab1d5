//! The servers of others start, serve, end on SIGTERM, and leave nothing behind.
//!
//! One that is not installed is passed over, which its test says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

mod support;

use support::Server;

const ALL: &[support::Peer] = &[
    support::Peer { program: env!("CARGO_BIN_EXE_peer-nginx"), listens: support::Listens::Once },
    support::Peer { program: env!("CARGO_BIN_EXE_peer-redis"), listens: support::Listens::Once },
];

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("-v").output().is_ok();
    if !found {
        eprintln!("not tested: {program} is not installed");
    }
    found
}

/// A directory for temporary files.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn start(&self, program: &str, threads: &str) -> Server {
        Server::start_as(Command::new(program).args(["--threads", threads]).env("TMPDIR", &self.0))
    }

    /// The server cleans up when it has ended, in its own time.
    fn expect_empty(self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read_dir(&self.0).unwrap().count() > 0 {
            assert!(Instant::now() < deadline, "files are left in {}", self.0.display());
            thread::yield_now();
        }
        fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn nginx_answers() {
    if installed("nginx") {
        support::http::answers(ALL[0].program);
        let scratch = Scratch::new("nginx");
        // One worker is another way to run it.
        let server = scratch.start(ALL[0].program, "1");
        drop(server.connect());
        assert_ne!(fs::read_dir(&scratch.0).unwrap().count(), 0);
        server.stop();
        // A process that is killed cannot clean up itself, nor end its workers.
        let server = scratch.start(ALL[0].program, "2");
        let addr = server.addr;
        drop(server);
        scratch.expect_empty();
        assert!(TcpStream::connect(addr).is_err(), "a worker is left");
    }
}

#[test]
fn redis_answers() {
    if installed("redis-server") {
        let scratch = Scratch::new("redis");
        let server = scratch.start(ALL[1].program, "1");
        let mut stream = server.connect();
        stream.write_all(b"SET key value\r\nGET key\r\n").unwrap();
        let mut replies = [0; 16];
        stream.read_exact(&mut replies).unwrap();
        assert_eq!(&replies, b"+OK\r\n$5\r\nvalue\r\n");
        drop(server);
        scratch.expect_empty();
    }
}

#[test]
fn bad_flags_are_refused() {
    support::bad_flags_are_refused(ALL);
}
