//! What every example promises: the same flags, addresses of every kind, deadlines, caps, a clean end.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use corelane::Address;
use nix::sys::signal::Signal::SIGTERM;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use support::{Client, Example, TempDir, eventually};

const EXAMPLES: [&str; 6] = ["echo", "chat", "frames", "redis", "proxy", "broadcast"];

/// For each example, with what it needs to be started at all.
fn for_each(test: impl Fn(&str, &[&str])) {
    // Nobody accepts there, which the kernel does not tell the proxy.
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = upstream.local_addr().unwrap().to_string();
    for name in EXAMPLES {
        let needed: &[&str] = match name {
            "proxy" => &["--upstream", &upstream],
            "broadcast" => &["--publish", "127.0.0.1:0"],
            _ => &[],
        };
        eprintln!("{name}");
        test(name, needed);
    }
}

/// Starts an example with one reactor; where it listens.
fn serve(name: &str, needed: &[&str], flags: &[&str]) -> (Example, Address) {
    let (example, address) = Example::serve(name, &[needed, &["--reactors", "1"], flags].concat());
    (example, Address::Tcp(address))
}

#[test]
fn the_flags_are_explained() {
    for name in EXAMPLES {
        let (status, help) = Example::start(name, &["--help"]).wait();
        assert!(status.success(), "{name}: {status}");
        for flag in [
            "--listen <ADDR>",
            "--reactors <N>",
            "--idle <SECONDS>",
            "--stall <SECONDS>",
            "--max-connections <N>",
            "--max-connections-per-source <N>",
            "--spin <MICROSECONDS>",
        ] {
            assert!(help.iter().any(|line| line.contains(flag)), "{name} does not explain {flag}: {help:#?}");
        }
    }
}

#[test]
fn the_guide_leads_to_every_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = ["guide.rs", "guide/framing.md", "guide/http.md"];
    let guide = pages.map(|page| fs::read_to_string(root.join("src").join(page)).unwrap()).concat();
    for name in EXAMPLES.into_iter().chain(["netapp"]) {
        // From the page that `cargo doc` makes in `target/doc/corelane/guide`.
        let definition = format!("[`{name}`]: ../../../../");
        let (_, rest) = guide.split_once(&definition).unwrap_or_else(|| panic!("{name} has no link"));
        let path = root.join(rest.lines().next().unwrap());
        assert!(path.is_file(), "{}", path.display());
        let uses = guide.matches(&format!("[`{name}`]")).count();
        assert!(uses > 1, "nothing in the guide leads to {name}");
        assert!(!guide.contains(&format!("example `{name}`")), "{name} is named without a link");
    }
}

#[test]
fn addresses_of_every_kind_are_listened_on() {
    let folder = TempDir::new();
    for_each(|name, needed| {
        let path = folder.join(name);
        let unix = format!("unix:{}", path.display());
        let (mut example, _) = serve(name, needed, &["--listen", "[::1]:0", "--listen", &unix]);
        let sixth = example.hear("listening on ");
        assert!(sixth.starts_with("[::1]:") && !sixth.ends_with(":0"), "{name} listens on {sixth}");
        assert_eq!(example.hear("listening on "), unix);
        Client::connect(&sixth.parse().unwrap());
        Client::connect(&unix.parse().unwrap());
        example.stop();
        assert!(!path.exists(), "{name} left its socket file behind");
    });
}

#[test]
fn whoever_is_silent_is_closed_at_the_deadline() {
    for_each(|name, needed| {
        let (mut example, mut address) = serve(name, needed, &["--idle", "1"]);
        if name == "broadcast" {
            // Its subscribers may be silent for ever.
            address = example.hear("publish on ").parse().unwrap();
        }
        Client::connect(&address).receive_rest();
        example.stop();
    });
}

#[test]
fn connections_beyond_a_cap_are_closed_at_once() {
    for cap in ["--max-connections", "--max-connections-per-source"] {
        for_each(|name, needed| {
            let (example, address) = serve(name, needed, &[cap, "1"]);
            let _kept = Client::connect(&address);
            assert_eq!(Client::connect(&address).receive_rest().0, b"", "{name} {cap}");
            drop(example);
        });
    }
}

#[test]
fn one_that_spins_serves_and_ends_as_others_do() {
    for_each(|name, needed| {
        let (example, address) = serve(name, needed, &["--spin", "100", "--max-connections", "1"]);
        let kept = Client::connect(&address);
        assert_eq!(Client::connect(&address).receive_rest().0, b"", "{name}");
        drop(kept);
        example.stop();
    });
}

/// One whose output goes to pipes that the caller holds.
struct Unheard(Child);

impl Unheard {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().unwrap().with_file_name("examples").join(name);
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Its status after SIGTERM.
    fn stop(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.0.id() as i32), SIGTERM).unwrap();
        let mut status = None;
        eventually("the end of an example", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_that_nobody_listens_to_serves_and_ends_as_others_do() {
    let folder = TempDir::new();
    for_each(|name, needed| {
        let path = folder.join(name);
        let unix = format!("unix:{}", path.display());
        let flags = [needed, &["--reactors", "1", "--listen", &unix]].concat();
        for lines in [0, 1] {
            // It listens before it is told of signals: one that comes between kills it, and is not lost.
            let mut status = None;
            eventually("an example to end by itself", || {
                let mut unheard = Unheard::start(name, &flags);
                let mut output = BufReader::new(unheard.0.stdout.take().unwrap());
                drop(unheard.0.stderr.take());
                for _ in 0..lines {
                    output.read_line(&mut String::new()).unwrap();
                }
                drop(output);
                eventually("an example to listen", || Client::try_connect(&unix.parse().unwrap()).is_ok());
                status = unheard.stop();
                status.is_some()
            });
            assert_eq!(status, Some(0), "{name}, which said {lines} lines");
        }
        // Nor does it panic about what it cannot do.
        let mut unheard = Unheard::start(name, &[needed, &["--listen", "unix:/nowhere/at/all"]].concat());
        drop((unheard.0.stdout.take(), unheard.0.stderr.take()));
        assert_eq!(unheard.0.wait().unwrap().code(), Some(1), "{name}");
    });
}
