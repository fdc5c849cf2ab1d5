//! The coordinator's side: workers are started, told what to do, heard, and ended.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::sched_setaffinity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::words::{Order, Word};
use crate::cpu::CpuList;
use crate::process;

/// How long a process that has closed its channel may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What can be read of a channel at a time.
const READ: usize = 64 * 1024;

/// The workers of a run. All that still live when it is dropped are killed.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    members: Vec<Member>,
    /// What was heard and not asked for yet.
    heard: VecDeque<(usize, News)>,
}

#[derive(Debug)]
struct Member {
    name: String,
    child: Child,
    channel: UnixStream,
    /// The beginning of a line.
    inbox: Vec<u8>,
    ended: Option<ExitStatus>,
}

/// What comes from a worker.
#[derive(Debug)]
pub(crate) enum News {
    Word(Word),
    /// Its process has ended; the last news of it.
    Ended(Death),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) status: ExitStatus,
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pid, status } = self;
        write!(formatter, "{name} (process {pid}) ended: {status}")
    }
}

impl Crew {
    /// Starts this program again with these arguments, on these CPUs; `name` is for people. Returns the worker's
    /// index.
    ///
    /// To be called on a thread that outlives the worker: the kernel kills it with that.
    pub(crate) fn start(
        &mut self,
        name: String,
        arguments: &[String],
        cpus: Option<&CpuList>,
    ) -> Result<usize> {
        let (channel, theirs) = UnixStream::pair().context("cannot make a channel")?;
        channel.set_nonblocking(true).context("cannot make a channel")?;
        let input = OwnedFd::from(theirs);
        let output = input.try_clone().context("cannot make a channel")?;
        // Not the path of the program: that may have been replaced since by another build.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("corelane-bench").args(arguments).stdin(Stdio::from(input)).stdout(Stdio::from(output));
        if let Some(cpus) = cpus {
            let cpus = cpus.to_set()?;
            let confine = move || sched_setaffinity(Pid::from_raw(0), &cpus).map_err(Into::into);
            // SAFETY: `confine` only makes a system call: it neither allocates nor locks.
            unsafe { command.pre_exec(confine) };
        }
        process::end_with_this_one(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.members.push(Member { name, child, channel, inbox: Vec::new(), ended: None });
        Ok(self.members.len() - 1)
    }

    pub(crate) fn name(&self, who: usize) -> &str {
        &self.members[who].name
    }

    pub(crate) fn pid(&self, who: usize) -> u32 {
        self.members[who].child.id()
    }

    /// Tells one worker.
    pub(crate) fn tell(&mut self, who: usize, order: &Order) -> Result<()> {
        let member = &mut self.members[who];
        let mut line = serde_json::to_vec(order).context("an order cannot be written")?;
        line.push(b'\n');
        // A worker that reads has room for some thousand orders.
        let sent = member.channel.write_all(&line);
        match sent {
            // Its end will be heard, and says more than this.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            other => other.with_context(|| format!("{} takes no order", member.name)),
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&mut self, who: usize) {
        let member = &mut self.members[who];
        // Once it has been waited for, its number may belong to another process.
        if let (None, Ok(Some(pid))) = (
            member.ended,
            member.child.try_wait().map(|ended| match ended {
                None => i32::try_from(member.child.id()).ok(),
                Some(_) => None,
            }),
        ) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// The next that any worker has to tell, if it does so before `until` or before a signal comes.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<(usize, News)>> {
        loop {
            if let Some(news) = self.heard.pop_front() {
                return Ok(Some(news));
            }
            let left = until.saturating_duration_since(Instant::now());
            if !self.wait(left)? {
                return Ok(None);
            }
        }
    }

    /// Waits until some channel has something, and takes it in; `false` if none has.
    fn wait(&mut self, time: Duration) -> Result<bool> {
        let living: Vec<_> =
            (0..self.members.len()).filter(|&who| self.members[who].ended.is_none()).collect();
        let channels = living.iter().map(|&who| self.members[who].channel.as_fd());
        let mut watched: Vec<_> = channels.map(|channel| PollFd::new(channel, PollFlags::POLLIN)).collect();
        // Rounded up, not to spin through the last millisecond.
        let timeout = PollTimeout::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error).context("cannot wait for workers"),
        }
        let ready: Vec<_> = living
            .into_iter()
            .zip(watched.iter().map(|watched| watched.any() == Some(true)))
            .filter_map(|(who, is_ready)| is_ready.then_some(who))
            .collect();
        for who in ready {
            self.take_in(who)?;
        }
        Ok(true)
    }

    /// Reads a channel that has something.
    fn take_in(&mut self, who: usize) -> Result<()> {
        let member = &mut self.members[who];
        let mut buffer = [0; READ];
        let length = match member.channel.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error).with_context(|| format!("cannot hear {}", member.name)),
        };
        if length == 0 {
            let status = member.end()?;
            let death = Death { name: member.name.clone(), pid: member.child.id(), status };
            self.heard.push_back((who, News::Ended(death)));
            return Ok(());
        }
        member.inbox.extend_from_slice(&buffer[..length]);
        let Some(end) = member.inbox.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        let lines: Vec<u8> = member.inbox.drain(..=end).collect();
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let word = serde_json::from_slice(line).map_err(|error| {
                anyhow!("cannot understand {}: {error}: `{}`", member.name, String::from_utf8_lossy(line))
            })?;
            self.heard.push_back((who, News::Word(word)));
        }
        Ok(())
    }
}

impl Member {
    /// Waits for a process that has closed its channel.
    fn end(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?
            {
                self.ended = Some(status);
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} has closed its channel and does not end", self.name);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // All first, so that they end at the same time: the kernel may have a million sockets to close.
        for member in &mut self.members {
            if member.ended.is_none() {
                let _ = member.child.kill();
            }
        }
        for member in &mut self.members {
            let _: io::Result<_> = member.child.wait();
        }
    }
}
