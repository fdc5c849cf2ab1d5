use std::io::{self, ErrorKind};

/// The programs of others that CI installs (`needed` in `.ci/run`) and tests drive.
const OF_CI: [&str; 10] = [
    "ab",
    "curl",
    "h2load",
    "haproxy",
    "hey",
    "nginx",
    "redis-benchmark",
    "redis-cli",
    "redis-server",
    "wrk",
];

/// What came of starting a program of others; `None`, and a word about it, where it is not installed: then its test is
/// left out. Under CI (the environment has `CI`) that is a failure for those that CI installs.
#[track_caller]
pub(crate) fn installed<T>(program: &str, started: io::Result<T>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_due = std::env::var_os("CI").is_some() && OF_CI.contains(&program);
            assert!(!is_due, "{program} is not installed, which CI does");
            eprintln!("SKIPPED: {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}
