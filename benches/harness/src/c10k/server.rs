//! The server: this program again, in a process of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::memory;
use crate::cpu::CpuClock;
use crate::echo_server::Status;
use crate::limits::Descriptors;
use crate::process::{Lines, Server};

/// How long the server may take to tell its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may take to end in good order.
const END_TIMEOUT: Duration = Duration::from_secs(40);

/// corelane's echo server as a child process.
#[derive(Debug)]
pub(super) struct EchoServer {
    process: Server,
    lines: Lines,
    questions: ChildStdin,
}

impl EchoServer {
    /// Starts it with as many reactors, or one for every CPU.
    ///
    /// To be called on a thread that outlives the server.
    pub(super) fn start(reactors: Option<usize>) -> Result<Self> {
        // Not the path of the program: that may have been replaced since by another build.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("corelane-bench").arg("echo-server").stdin(Stdio::piped());
        if let Some(reactors) = reactors {
            command.args(["--reactors", &reactors.to_string()]);
        }
        let (mut process, lines) = Server::spawn(command, "corelane-bench echo-server")?;
        let questions = process.take_stdin().context("stdin is not piped")?;
        Ok(Self { process, lines, questions })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub(super) fn clock(&self) -> CpuClock {
        self.process.clock()
    }

    pub(super) fn resident(&self) -> Result<u64> {
        memory::resident(self.pid())
    }

    pub(super) fn descriptors(&self) -> Result<Descriptors> {
        Descriptors::of(self.pid())
    }

    /// What the server says of itself.
    pub(super) fn status(&mut self) -> Result<Status> {
        self.questions.write_all(b"\n").context("cannot ask the server")?;
        let answer =
            self.lines.recv_timeout(STATUS_TIMEOUT).context("the server does not tell its status")?;
        serde_json::from_str(&answer).with_context(|| format!("cannot understand the server: `{answer}`"))
    }

    /// How the server ended, if it did within the `patience`.
    pub(super) fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.process.ended(patience)
    }

    /// Asks the server to end in good order, and returns what it then says, on one line.
    pub(super) fn end(&mut self) -> Result<String> {
        self.process.ask_to_end();
        let Some(status) = self.process.ended(END_TIMEOUT) else {
            bail!("the server did not end within {END_TIMEOUT:?} of SIGTERM");
        };
        // All of it is there: the pipe ends with the process.
        let report = self.lines.iter().collect::<Vec<_>>().join("; ");
        ensure!(status.success(), "the server did not end well ({status}): {report}");
        Ok(report)
    }
}
