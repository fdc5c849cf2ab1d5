//! redis-server, keeping nothing on disk.

use std::ffi::{OsStr, OsString};

use corelane_peers::external::External;

fn main() -> ! {
    let about = "redis-server without persistence; --threads counts its I/O threads";
    let server = External::prepare(env!("CARGO_BIN_NAME"), about);
    let option = |name: &str, value: &OsStr| [OsString::from(format!("--{name}")), value.to_owned()];
    let text = |name: &str, value: &str| option(name, OsStr::new(value));
    let arguments = [
        text("bind", &server.addr().ip().to_string()),
        text("port", &server.addr().port().to_string()),
        text("io-threads", &server.threads().to_string()),
        option("dir", server.directory().as_os_str()),
        text("save", ""),
        text("appendonly", "no"),
        text("daemonize", "no"),
        text("protected-mode", "no"),
        text("tcp-backlog", "4096"),
    ]
    .concat();
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    server.run("redis-server", "redis-server", &arguments)
}
