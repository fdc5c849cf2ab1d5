//! The peers in Go are held to what the others are, where there is a Go toolchain; where there is none, the test says so.

use std::env;
use std::path::Path;
use std::process::Command;

mod support;

use support::{Server, http};

/// Builds them; `None` without a toolchain.
fn built() -> Option<&'static Path> {
    let go = env::var_os("GO").unwrap_or_else(|| "go".into());
    if Command::new(&go).arg("version").output().is_err() {
        eprintln!("not tested: there is no Go toolchain");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("go/build.sh");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let status = Command::new(script).arg(directory).env("GO", &go).status().unwrap();
    assert!(status.success(), "{status}");
    Some(directory)
}

#[test]
fn go_echoes_and_answers() {
    let Some(directory) = built() else { return };
    let program = |name: &str| directory.join(name).into_os_string().into_string().unwrap();
    support::echoes(&program("peer-go"));
    let server = Server::start_as(Command::new(program("peer-go")).args(["-bufio", "-threads", "2"]));
    support::stands(&server);
    server.stop();
    http::answers(&program("peer-go-http"));
    let output = Command::new(program("peer-go")).args(["--threads", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
