//! One publisher and many subscribers: each line that is published must reach all of them.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use socket2::Socket;

use super::ring::{Completion, Plan, Ring};
use super::window::{Part, Window};
use super::{Share, connect};
use crate::outcome::{Status, ends};
use crate::pattern::{Pattern, Place};

/// How long a subscriber may take to get a mark before another is sent.
const MARK_PATIENCE: Duration = Duration::from_millis(200);

/// Lines after which the text repeats.
const PERIOD: usize = 1_009;

/// Symbols that the lines are about.
const SYMBOLS: usize = 16;

/// The most that a receive brings.
const LARGEST_RECEIVE: usize = 64 * 1024;

/// The bytes of a symbol, a number, and what parts them from the rest and the next line.
pub(crate) const SMALLEST_LINE: usize = "S00 0000 \n".len();

const RECEIVE: u64 = 0;
const SEND: u64 = 1;

/// What is published, again and again, in lines of one size.
#[derive(Debug)]
pub(super) struct Text {
    bytes: Vec<u8>,
    size: usize,
}

impl Text {
    /// Lives as long as the process, as the kernel may read it whenever it likes.
    pub(super) fn leak(size: usize, depth: usize) -> &'static Self {
        let filler = Pattern::leak(size);
        let mut bytes = Vec::new();
        for line in 0..PERIOD {
            bytes.extend(format!("S{:02} {line:04} ", line % SYMBOLS).bytes());
            let filler = filler.bytes(Place::of_connection(line), size - SMALLEST_LINE);
            bytes.extend(filler.iter().map(|byte| b'a' + byte % 26));
            bytes.push(b'\n');
        }
        let length = bytes.len() + LARGEST_RECEIVE.max(depth * size) + size;
        while bytes.len() < length {
            bytes.extend_from_within(..(length - bytes.len()).min(PERIOD * size));
        }
        Box::leak(Box::new(Self { bytes, size }))
    }

    /// The bytes from a place within line `line` on.
    fn from(&self, line: u64, offset: usize, length: usize) -> &[u8] {
        let start = (line % PERIOD as u64) as usize * self.size + offset;
        &self.bytes[start..start + length]
    }
}

/// Runs the subscribers and the publisher for a slice.
pub(super) fn run(share: &Share<'_>, text: &'static Text, depth: usize) -> Result<Part> {
    let mut window = share.window();
    let mut sockets = connect::connect_all(share, &mut window)?;
    let target = share.shared.publish.context("the server has told no address for publishers")?;
    let publisher = connect::socket(target, share.source(0))?;
    publisher
        .connect_timeout(&target.into(), share.shared.plan.connect_timeout)
        .map_err(|error| connect::explain(error, target))?;
    let outcome = mark(share, &mut sockets, &publisher).and_then(|()| {
        sockets.push(publisher);
        Broadcast::new(share, &sockets, text, depth)?.run(window).inspect(|_| share.rest())
    });
    sockets.iter().for_each(connect::reset);
    outcome
}

/// Publishes marks until there is one that has reached everybody; what came before it is of no account, as a
/// server may tell a new subscriber of what others had published.
fn mark(share: &Share<'_>, subscribers: &mut [Socket], mut publisher: &Socket) -> Result<()> {
    let clock = share.shared.clock;
    let deadline = clock.now() + share.shared.plan.connect_timeout.as_nanos() as u64;
    subscribers.iter().try_for_each(|subscriber| subscriber.set_read_timeout(Some(MARK_PATIENCE)))?;
    loop {
        share.shared.ensure_going()?;
        ensure!(clock.now() < deadline, "the server did not bring every subscriber what was published");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mark = format!("MARK {now}\n");
        publisher.write_all(mark.as_bytes()).context("lost the publisher")?;
        let mut all = true;
        for subscriber in &mut *subscribers {
            all = all && reads_up_to(subscriber, mark.as_bytes())?;
        }
        if all {
            break;
        }
    }
    subscribers.iter().try_for_each(|subscriber| subscriber.set_read_timeout(None))?;
    Ok(())
}

/// Whether the mark is the last that comes.
fn reads_up_to(subscriber: &mut Socket, mark: &[u8]) -> Result<bool> {
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    while !received.ends_with(mark) {
        match subscriber.read(&mut buffer) {
            Ok(0) => bail!("lost: the server closed a subscriber"),
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("a subscriber was lost"),
        }
    }
    Ok(true)
}

/// A line that has not reached everybody.
struct Line {
    since: u64,
    /// Subscribers that lack it.
    missing: usize,
}

/// How much a subscriber has: whole lines, and bytes of the next.
#[derive(Clone, Copy, Default)]
struct Received {
    lines: u64,
    partial: usize,
}

struct Broadcast<'a> {
    share: &'a Share<'a>,
    text: &'static Text,
    depth: usize,
    ring: Ring,
    subscribers: Vec<Received>,
    /// Lines published and not everywhere yet; the first is number `arrived`.
    under_way: VecDeque<Line>,
    arrived: u64,
    /// Bytes that the kernel is still sending.
    sending: usize,
    completions: Vec<Completion>,
}

impl<'a> Broadcast<'a> {
    fn new(share: &'a Share<'a>, sockets: &[Socket], text: &'static Text, depth: usize) -> Result<Self> {
        let buffer = (depth * text.size).next_power_of_two().clamp(256, LARGEST_RECEIVE);
        let plan = Plan {
            operations: sockets.len() * 2,
            shared_buffers: (sockets.len() * 2).next_power_of_two().clamp(64, 4_096),
            shared_buffer_size: buffer,
            ..Plan::default()
        };
        let ring = Ring::new(plan, share.shared.address.into())?;
        let files: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.use_files(&files)?;
        Ok(Self {
            share,
            text,
            depth,
            ring,
            subscribers: vec![Received::default(); share.connections],
            under_way: VecDeque::new(),
            arrived: 0,
            sending: 0,
            completions: Vec::new(),
        })
    }

    fn run(mut self, mut window: Window<'_>) -> Result<Part> {
        let clock = self.share.shared.clock;
        for subscriber in 0..self.subscribers.len() {
            self.receive(subscriber);
        }
        self.share.rendezvous(&mut window)?;
        while !window.is_closed() {
            self.publish();
            self.turn(&mut window)?;
        }
        let deadline = clock.now() + self.share.shared.plan.deadline.as_nanos() as u64;
        while !self.under_way.is_empty() {
            self.turn(&mut window)?;
            let lines = self.under_way.len();
            ensure!(clock.now() < deadline, "the server stopped answering: {lines} lines are under way");
        }
        window.finish(clock.now())
    }

    fn receive(&mut self, subscriber: usize) {
        self.ring.receive_again_and_again(subscriber as u32, RECEIVE << 32 | subscriber as u64);
    }

    /// Publishes as many lines as there may be under way, together.
    fn publish(&mut self) {
        let lines = self.depth - self.under_way.len();
        if lines == 0 || self.sending > 0 {
            return;
        }
        let since = self.share.shared.clock.now();
        let next = self.arrived + self.under_way.len() as u64;
        let missing = self.subscribers.len();
        self.under_way.extend((0..lines).map(|_| Line { since, missing }));
        self.sending = lines * self.text.size;
        let bytes = self.text.from(next, 0, self.sending);
        self.ring.send(self.subscribers.len() as u32, bytes, SEND << 32);
    }

    fn turn(&mut self, window: &mut Window<'_>) -> Result<()> {
        let shared = self.share.shared;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.turn(shared.wait(window.next_mark()), &mut completions)?;
        let now = shared.clock.now();
        window.advance(now)?;
        for completion in &completions {
            if completion.tag >> 32 == SEND {
                let length = completion.result().context("lost while publishing")?;
                ensure!(length == self.sending, "{length} of {} bytes were sent", self.sending);
                self.sending = 0;
            } else {
                let subscriber = (completion.tag & u64::from(u32::MAX)) as usize;
                self.received(subscriber, completion, window, now)
                    .with_context(|| format!("subscriber {subscriber} of {}", shared.address))?;
            }
        }
        self.completions = completions;
        shared.ensure_going()
    }

    fn received(
        &mut self,
        subscriber: usize,
        completion: &Completion,
        window: &mut Window<'_>,
        now: u64,
    ) -> Result<()> {
        match completion.result() {
            Ok(0) => bail!("lost: the server closed it"),
            Ok(length) => {
                let buffer = completion.buffer().context("a receive without a buffer")?;
                let mut at = self.subscribers[subscriber];
                let expected = self.text.from(at.lines, at.partial, length);
                let right = self.ring.shared_bytes(buffer, length) == expected;
                ensure!(right, ends(Status::WrongData, "wrong bytes came"));
                self.ring.recycle(buffer);
                at.partial += length;
                while at.partial >= self.text.size {
                    let line = self.under_way.get_mut((at.lines - self.arrived) as usize);
                    let line = line.context("more came than was published")?;
                    line.missing -= 1;
                    window.count_reply(line.since, self.text.size, now);
                    at.partial -= self.text.size;
                    at.lines += 1;
                }
                self.subscribers[subscriber] = at;
                while self.under_way.front().is_some_and(|line| line.missing == 0) {
                    self.under_way.pop_front();
                    self.arrived += 1;
                }
            }
            // The buffers will do again after this turn.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("lost"),
        }
        if !completion.more() {
            self.receive(subscriber);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_lines_of_one_size_that_repeat() {
        let text = Text::leak(100, 16);
        let some = text.from(PERIOD as u64 - 1, 0, 300);
        assert!(some.starts_with(b"S00 1008 ") && some[100..].starts_with(b"S00 0000 "));
        assert!(some[200..].starts_with(b"S01 0001 "));
        assert!(some.chunks(100).all(|line| line.iter().position(|&byte| byte == b'\n') == Some(99)));
        assert_eq!(text.from(5 * PERIOD as u64 + 3, 40, LARGEST_RECEIVE), text.from(3, 40, LARGEST_RECEIVE));
        assert_eq!(Text::leak(SMALLEST_LINE, 1).from(2, 0, SMALLEST_LINE), b"S02 0002 \n");
    }
}
