//! Running the program, and targets for it that need no other package.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

/// The program with these arguments, split at spaces.
pub(crate) fn bench(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-bench"));
    command.args(arguments.split_whitespace());
    command
}

/// A file of this test run.
pub(crate) fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Ended {
    command.output().unwrap().into()
}

/// Runs a command that is to succeed, and returns the result that it wrote to a file of this name.
pub(crate) fn result(name: &str, arguments: &str) -> Value {
    let (ended, result) = ended_with_result(name, arguments);
    assert_eq!(ended.status, 0, "{}\n{}", ended.stdout, ended.stderr);
    result
}

/// How a command ended, and the result that it wrote.
pub(crate) fn ended_with_result(name: &str, arguments: &str) -> (Ended, Value) {
    let file = scratch(&format!("{name}.json"));
    let mut command = bench(arguments);
    command.arg("--json").arg(&file);
    let ended = run(command);
    let written = std::fs::read(&file).unwrap_or_default();
    let result = serde_json::from_slice(&written)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", ended.stdout, ended.stderr));
    (ended, result)
}

/// The checks of a result's only target, by name.
pub(crate) fn checks(result: &Value) -> Vec<(&str, bool)> {
    let checks = result["targets"][0]["checks"].as_array().unwrap();
    checks.iter().map(|check| (check["name"].as_str().unwrap(), check["held"].as_bool().unwrap())).collect()
}

/// A target that treats each connection by a thread; it lasts as long as the test.
pub(crate) fn target(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A web server that knows `/` and `/chunks`.
pub(crate) fn web(mut stream: TcpStream) {
    let (mut requests, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        requests.extend_from_slice(&buffer[..length]);
        let mut replies = Vec::new();
        while let Some(end) = requests.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let request: Vec<u8> = requests.drain(..end + 4).collect();
            if request.starts_with(b"GET /chunks ") {
                replies.extend_from_slice(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                replies.extend_from_slice(b"6\r\nhello,\r\n6\r\n world\r\n0\r\n\r\n");
            } else if request.starts_with(b"GET / ") {
                replies.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!");
            } else {
                replies.extend_from_slice(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            }
        }
        if stream.write_all(&replies).is_err() {
            return;
        }
    }
}
