use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{DEADLINE, eventually};

/// An example that runs as a process of its own, as somebody would run it.
#[derive(Debug)]
pub(crate) struct Example {
    name: String,
    process: Child,
    output: Receiver<String>,
}

impl Example {
    /// Starts `target/PROFILE/examples/NAME`, which `cargo test` has built.
    #[track_caller]
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(path(name));
        process.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = process.spawn().unwrap();
        let (lines, output) = mpsc::channel();
        let (stdout, stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        let errors = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = errors.send(line);
            }
        });
        Self { name: name.into(), process, output }
    }

    /// Starts it on a free port of 127.0.0.1, with these arguments besides; it and where it listens.
    #[track_caller]
    pub(crate) fn serve(name: &str, arguments: &[&str]) -> (Self, SocketAddr) {
        let mut example = Self::start(name, &[&["--listen", "127.0.0.1:0"], arguments].concat());
        let address = example.hear("listening on ").parse().unwrap();
        (example, address)
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    /// The rest of the next line, of either output, that begins with `prefix`.
    #[track_caller]
    pub(crate) fn hear(&mut self, prefix: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let Ok(line) = self.output.recv_timeout(DEADLINE) else {
                panic!("{} did not say {prefix:?} but {heard:#?}", self.name);
            };
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
            heard.push(line);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.id(), signal).unwrap();
    }

    /// Waits for its end; how it ended, and what it printed that nobody has heard.
    #[track_caller]
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let mut status = None;
        eventually("the end of an example", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), std::iter::from_fn(|| self.output.recv_timeout(DEADLINE).ok()).collect())
    }

    /// Ends it with SIGTERM, which must be a clean end with the report printed.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<String> {
        self.signal(Signal::SIGTERM);
        let (status, output) = self.wait();
        assert!(status.success(), "{status}: {output:#?}");
        assert!(output.iter().any(|line| line.contains("connections")), "no report: {output:#?}");
        output
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Test programs are in `deps`, examples in `examples` beside it.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("examples").join(name);
    assert!(path.exists(), "{} is not built: `cargo build --examples`", path.display());
    path
}
