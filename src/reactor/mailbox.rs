//! How other threads reach a reactor: a bounded queue and a wake-up that is made only for a reactor that
//! sleeps. Checked by loom (`RUSTFLAGS="--cfg loom" cargo test --release --lib loom`).

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};

use crate::driver::Wake;

#[cfg(not(loom))]
type Queue<T> = crossbeam::queue::ArrayQueue<T>;
#[cfg(loom)]
type Queue<T> = model::LockedQueue<T>;

/// The reactor runs and will look into the queue before it sleeps.
const AWAKE: u8 = 0;
/// The reactor sleeps, or is about to, and must be woken.
const ASLEEP: u8 = 1;
/// Somebody is waking it: once is enough.
const WAKING: u8 = 2;

/// A queue of commands to one reactor.
pub(crate) struct Mailbox<T> {
    queue: Queue<Weighed<T>>,
    /// Bytes of payload in the queue, and how many there may be.
    bytes: AtomicUsize,
    byte_limit: usize,
    state: AtomicU8,
    closed: AtomicBool,
    waker: Box<dyn Wake>,
}

struct Weighed<T> {
    value: T,
    bytes: usize,
}

/// Why a command was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected<T> {
    Full(T),
    Closed(T),
}

impl<T> Mailbox<T> {
    pub(crate) fn new(capacity: usize, byte_limit: usize, waker: Box<dyn Wake>) -> Self {
        Self {
            queue: Queue::new(capacity),
            bytes: AtomicUsize::new(0),
            byte_limit,
            state: AtomicU8::new(AWAKE),
            closed: AtomicBool::new(false),
            waker,
        }
    }

    /// Puts a command with a payload of so many bytes into the queue. Payloads count against the byte
    /// limit, but one is always taken by an empty queue, however large.
    pub(crate) fn push(&self, value: T, bytes: usize) -> Result<(), Rejected<T>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Rejected::Closed(value));
        }
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > 0 && before > 0 && before.saturating_add(bytes) > self.byte_limit {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Rejected::Full(value));
        }
        if let Err(weighed) = self.queue.push(Weighed { value, bytes }) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Rejected::Full(weighed.value));
        }
        self.wake();
        // The reactor may have closed the mailbox and emptied it for the last time between the check above
        // and the push: then nobody but us will ever drop what is in there.
        if self.closed.load(Ordering::Acquire) {
            self.empty();
        }
        Ok(())
    }

    /// Wakes the reactor if it sleeps, for a command or for a word left elsewhere.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `prepare_sleep`: either we see ASLEEP here, or the reactor sees there
        // what we have pushed before.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == ASLEEP
            && self.state.compare_exchange(ASLEEP, WAKING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            self.waker.wake();
        }
    }

    /// Called by the reactor before it sleeps; `false` where it must not, because there is a command.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.state.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.state.store(AWAKE, Ordering::Relaxed);
        false
    }

    /// Called by the reactor when it has slept.
    pub(crate) fn slept(&self) {
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let weighed = self.queue.pop()?;
        self.bytes.fetch_sub(weighed.bytes, Ordering::Relaxed);
        Some(weighed.value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Refuses what comes from now on and drops what is in the queue.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Pairs with the fence of a pusher's `wake`: it sees `closed`, or we see its command.
        fence(Ordering::SeqCst);
        self.empty();
    }

    fn empty(&self) {
        while self.pop().is_some() {}
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// The queue as loom can follow it: crossbeam's own correctness is crossbeam's to show.
#[cfg(loom)]
mod model {
    use std::collections::VecDeque;

    pub(super) struct LockedQueue<T> {
        queue: loom::sync::Mutex<VecDeque<T>>,
        capacity: usize,
    }

    impl<T> LockedQueue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            Self { queue: loom::sync::Mutex::new(VecDeque::new()), capacity }
        }

        pub(super) fn push(&self, value: T) -> Result<(), T> {
            let mut queue = self.queue.lock().unwrap();
            if queue.len() == self.capacity {
                return Err(value);
            }
            queue.push_back(value);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.queue.lock().unwrap().pop_front()
        }

        pub(super) fn is_empty(&self) -> bool {
            self.queue.lock().unwrap().is_empty()
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize as Count;

    #[derive(Clone, Default)]
    struct CountWakes(Arc<Count>);

    impl Wake for CountWakes {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn mailbox(capacity: usize, byte_limit: usize) -> (Mailbox<u32>, CountWakes) {
        let wakes = CountWakes::default();
        (Mailbox::new(capacity, byte_limit, Box::new(wakes.clone())), wakes)
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back() {
        let (mailbox, _) = mailbox(2, usize::MAX);
        assert_eq!(mailbox.push(1, 0), Ok(()));
        assert_eq!(mailbox.push(2, 0), Ok(()));
        assert_eq!(mailbox.push(3, 0), Err(Rejected::Full(3)));
        assert_eq!(mailbox.pop(), Some(1));
        assert_eq!(mailbox.push(4, 0), Ok(()));
    }

    #[test]
    fn payloads_are_bounded_in_bytes() {
        let (mailbox, _) = mailbox(100, 10);
        assert_eq!(mailbox.push(1, 50), Ok(()), "an empty queue takes one, however large");
        assert_eq!(mailbox.push(2, 1), Err(Rejected::Full(2)));
        assert_eq!(mailbox.push(2, 0), Ok(()), "what has no payload is bounded by number alone");
        mailbox.pop();
        mailbox.pop();
        assert_eq!(mailbox.push(3, 6), Ok(()));
        assert_eq!(mailbox.push(4, 4), Ok(()));
        assert_eq!(mailbox.push(5, 1), Err(Rejected::Full(5)));
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let (mailbox, wakes) = mailbox(100, usize::MAX);
        let woken = || wakes.0.load(Ordering::Relaxed);
        mailbox.push(1, 0).unwrap();
        assert_eq!(woken(), 0, "it is awake");
        assert!(!mailbox.prepare_sleep(), "there is a command");
        mailbox.pop();
        assert!(mailbox.prepare_sleep());
        for command in 0..10 {
            mailbox.push(command, 0).unwrap();
        }
        assert_eq!(woken(), 1);
        mailbox.slept();
        mailbox.push(11, 0).unwrap();
        assert_eq!(woken(), 1);
    }

    #[test]
    fn a_closed_mailbox_is_empty_and_takes_nothing() {
        let (mailbox, _) = mailbox(4, usize::MAX);
        mailbox.push(1, 0).unwrap();
        mailbox.close();
        assert_eq!(mailbox.pop(), None);
        assert_eq!(mailbox.push(2, 0), Err(Rejected::Closed(2)));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    /// An event that stays set until it is waited for, like an eventfd.
    #[derive(Clone)]
    struct Latch(Arc<(Mutex<bool>, Condvar)>);

    impl Latch {
        fn new() -> Self {
            Self(Arc::new((Mutex::new(false), Condvar::new())))
        }

        fn wait(&self) {
            let mut set = self.0.0.lock().unwrap();
            while !*set {
                set = self.0.1.wait(set).unwrap();
            }
            *set = false;
        }
    }

    impl Wake for Latch {
        fn wake(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }

    /// loom reports a deadlock where a wake-up is lost.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let latch = Latch::new();
            let mailbox = Arc::new(Mailbox::new(4, usize::MAX, Box::new(latch.clone())));
            let senders: Vec<_> = (0..2)
                .map(|n| {
                    let mailbox = Arc::clone(&mailbox);
                    thread::spawn(move || mailbox.push(n, 1).unwrap())
                })
                .collect();
            let mut received = 0;
            while received < 2 {
                if mailbox.pop().is_some() {
                    received += 1;
                } else if mailbox.prepare_sleep() {
                    latch.wait();
                    mailbox.slept();
                }
            }
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }

    /// Whatever was taken is dropped when both sides are done, so that its receipt is answered.
    #[test]
    fn loom_nothing_stays_in_a_closed_mailbox() {
        loom::model(|| {
            let mailbox = Arc::new(Mailbox::new(4, usize::MAX, Box::new(Latch::new())));
            let sender = {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || drop(mailbox.push(1, 1)))
            };
            mailbox.close();
            sender.join().unwrap();
            assert!(mailbox.is_empty());
        });
    }
}
