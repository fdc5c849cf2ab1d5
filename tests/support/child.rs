use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::{DEADLINE, eventually};

const VARIABLE: &str = "CORELANE_TEST_CHILD";
/// What the child says to its parent begins with this; the rest is the test harness's.
const MARK: &str = "@@ ";
const DONE: &str = "done";

/// Whether this process was started to be the child of `test`.
pub(crate) fn is_child(test: &str) -> bool {
    env::var(VARIABLE).is_ok_and(|name| name == test)
}

/// Runs `body` in a process that has nothing else in it: this test binary again, with this one test.
#[track_caller]
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_child(test) {
        body();
        say(DONE);
        return;
    }
    let (status, output) = run_child(test);
    assert!(status.success() && output.iter().any(|line| line == DONE), "{status}: {output:#?}");
}

fn say(line: &str) {
    // The harness may have left a line of its own unfinished.
    println!("\n{MARK}{line}");
}

/// Runs the child of `test` to its end; how it ended, and everything it printed.
pub(crate) fn run_child(test: &str) -> (ExitStatus, Vec<String>) {
    let mut child = Child::start(test);
    drop(child.input.take());
    let status = child.wait();
    (status, child.rest())
}

/// Answers the parent's questions, until it asks no more.
pub(crate) fn answer_questions(mut answer: impl FnMut(&str) -> String) {
    for line in std::io::stdin().lines() {
        say(&answer(&line.unwrap()));
    }
}

/// A child process, and a way to talk to it.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    input: Option<ChildStdin>,
    output: Receiver<String>,
}

impl Child {
    pub(crate) fn start(test: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
            .env(VARIABLE, test);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (line, output) = mpsc::channel();
        let (stdout, stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        let lines = line.clone();
        thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send(text.strip_prefix(MARK).unwrap_or(&text).to_owned());
            }
        });
        thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = line.send(text);
            }
        });
        let input = process.stdin.take();
        Self { process, input, output }
    }

    pub(crate) fn id(&self) -> i32 {
        self.process.id() as i32
    }

    /// The rest of the next line that begins with `prefix`.
    #[track_caller]
    pub(crate) fn hear(&mut self, prefix: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let Ok(line) = self.output.recv_timeout(DEADLINE) else {
                panic!("the child did not say {prefix:?} but {heard:#?}");
            };
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
            heard.push(line);
        }
    }

    /// Sends a line and returns the answer to it, which must begin with `prefix`.
    #[track_caller]
    pub(crate) fn ask(&mut self, question: &str, prefix: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{question}").unwrap();
        self.hear(prefix)
    }

    /// Asks no more, and waits for the child's end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (ExitStatus, Vec<String>) {
        drop(self.input.take());
        (self.wait(), self.rest())
    }

    /// What an ended child has printed and nobody heard yet.
    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.output.recv_timeout(DEADLINE).ok()).collect()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the end of a child process", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
