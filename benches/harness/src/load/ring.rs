//! A safe face for the few io_uring operations that the client needs.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use socket2::SockAddr;

use super::memory::Region;
use crate::outcome::{Status, WithStatus};

/// The group of the shared buffers.
const GROUP: u16 = 0;

/// The most entries a submission queue can have.
const MOST_ENTRIES: usize = 32_768;

/// The operations of the longest chain.
const LONGEST_CHAIN: usize = 3;

/// What a ring is to hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Operations that are queued at a time.
    pub(super) operations: usize,
    /// Buffers (a power of two of them) shared by the connections that receive again and again.
    pub(super) shared_buffers: usize,
    pub(super) shared_buffer_size: usize,
    /// Buffers each of which belongs to one connection.
    pub(super) own_buffers: usize,
    pub(super) own_buffer_size: usize,
    /// Buffers for what is sent, each of which belongs to one of the first connections.
    pub(super) outboxes: usize,
    pub(super) outbox_size: usize,
}

/// An operation that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) tag: u64,
    result: i32,
    flags: u32,
}

impl Completion {
    /// The bytes moved, or the error.
    pub(super) fn result(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }

    /// Whether the operation goes on and will complete again.
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The shared buffer that was filled.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// How to wait for completions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// Sleep until there is one, at most for the time given.
    Sleep(Duration),
    /// Do not sleep at all.
    Poll,
}

/// Buffers that the kernel picks from as bytes arrive.
#[derive(Debug)]
struct SharedBuffers {
    entries: Region,
    memory: Region,
    count: u16,
    size: usize,
    tail: u16,
}

impl SharedBuffers {
    fn new(count: usize, size: usize) -> Self {
        assert!(count.is_power_of_two() && count <= MOST_ENTRIES);
        Self {
            entries: Region::new(count * size_of::<BufRingEntry>()),
            memory: Region::new(count * size),
            count: count as u16,
            size,
            tail: 0,
        }
    }

    /// Adds a buffer to those the kernel may pick, once they are published.
    fn offer(&mut self, buffer: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let entry = self.entries.at(slot * size_of::<BufRingEntry>());
        // SAFETY: the slot is within the ring, is aligned, and the kernel reads it only on entry.
        let entry = unsafe { &mut *entry.cast::<BufRingEntry>() };
        entry.set_addr(self.memory.at(usize::from(buffer) * self.size) as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        let base = self.entries.at(0).cast::<BufRingEntry>().cast_const();
        // SAFETY: this is the first entry, and is initialised.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: the tail is aligned, and is shared with nobody but the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// A ring of one thread.
///
/// It is set up so that sockets are read and written nowhere but in [`Ring::turn`], on the thread
/// that calls it: the kernel defers all work to then, and cancels what is left when the ring goes.
/// So no buffer changes while it is borrowed from the ring, and none is touched after it is freed.
pub(super) struct Ring {
    // The first to be dropped, before the memory that it knows.
    uring: IoUring,
    shared: Option<SharedBuffers>,
    own: Region,
    own_size: usize,
    outboxes: Region,
    outbox_size: usize,
    target: Box<SockAddr>,
}

impl Ring {
    /// Makes a ring for connections to `target`.
    pub(super) fn new(plan: Plan, target: SockAddr) -> Result<Self> {
        let entries = plan.operations.next_power_of_two().clamp(64, MOST_ENTRIES) as u32;
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries * 2)
            .build(entries)
            .context("io_uring is not available")
            .status(Status::HostLimits)?;
        let mut ring = Self {
            uring,
            shared: None,
            own: Region::new(plan.own_buffers * plan.own_buffer_size),
            own_size: plan.own_buffer_size,
            outboxes: Region::new(plan.outboxes * plan.outbox_size),
            outbox_size: plan.outbox_size,
            target: Box::new(target),
        };
        if plan.shared_buffers > 0 {
            ring.share(SharedBuffers::new(plan.shared_buffers, plan.shared_buffer_size))?;
        }
        Ok(ring)
    }

    fn share(&mut self, mut buffers: SharedBuffers) -> Result<()> {
        let address = buffers.entries.at(0) as u64;
        let submitter = self.uring.submitter();
        // SAFETY: the memory is page aligned, large enough, and freed after the ring is closed.
        unsafe { submitter.register_buf_ring_with_flags(address, buffers.count, GROUP, 0) }
            .context("cannot register a ring of buffers")?;
        for buffer in 0..buffers.count {
            buffers.offer(buffer);
        }
        buffers.publish();
        self.shared = Some(buffers);
        Ok(())
    }

    /// Makes the sockets known to the ring: operations name them by their index.
    pub(super) fn use_files(&self, files: &[RawFd]) -> Result<()> {
        self.uring.submitter().register_files(files).context("cannot register the connections with the ring")
    }

    /// Sends all the bytes.
    pub(super) fn send(&mut self, file: u32, bytes: &'static [u8], tag: u64) {
        self.send_from(file, bytes.as_ptr(), bytes.len(), tag, Flags::empty());
    }

    /// Puts what a connection is to send into its outbox, from the place `at` on; how many bytes, or `None` if they do
    /// not fit. Nothing that was written may be on its way.
    #[inline]
    pub(super) fn write(&mut self, file: u32, at: usize, parts: &[&[u8]]) -> Option<usize> {
        let length = parts.iter().map(|part| part.len()).sum();
        if self.outbox_size - at < length {
            return None;
        }
        let mut offset = file as usize * self.outbox_size + at;
        for part in parts {
            self.outboxes.write(offset, part);
            offset += part.len();
        }
        Some(length)
    }

    /// Sends the first bytes of a connection's outbox; if `quiet` only a failure is told.
    pub(super) fn send_written(&mut self, file: u32, length: usize, tag: u64, quiet: bool) {
        debug_assert!(length <= self.outbox_size);
        let flags = if quiet { Flags::SKIP_SUCCESS } else { Flags::empty() };
        let start = self.outboxes.at(file as usize * self.outbox_size);
        self.send_from(file, start, length, tag, flags);
    }

    fn send_from(&mut self, file: u32, start: *const u8, length: usize, tag: u64, flags: Flags) {
        let send = opcode::Send::new(Fixed(file), start, length as u32).flags(libc::MSG_WAITALL);
        self.push(&[send.build().flags(flags).user_data(tag)]);
    }

    /// Receives into shared buffers until it is told that there will be no more.
    pub(super) fn receive_again_and_again(&mut self, file: u32, tag: u64) {
        let receive = opcode::RecvMulti::new(Fixed(file), GROUP).build();
        self.push(&[receive.user_data(tag)]);
    }

    /// Receives once into the connection's own buffer.
    pub(super) fn receive(&mut self, file: u32, own: usize, tag: u64) {
        let receive = opcode::Recv::new(Fixed(file), self.own.at(own * self.own_size), self.own_size as u32);
        self.push(&[receive.build().user_data(tag)]);
    }

    /// Connects a socket, sends the bytes and receives as many into its own buffer.
    ///
    /// Only the receive is told, or whichever step failed: there is a tag for each.
    pub(super) fn exchange(
        &mut self,
        socket: &OwnedFd,
        bytes: &'static [u8],
        own: usize,
        tags: [u64; LONGEST_CHAIN],
    ) {
        let fd = Fd(socket.as_raw_fd());
        let length = bytes.len() as u32;
        debug_assert!(bytes.len() <= self.own_size);
        let connect = opcode::Connect::new(fd, self.target.as_ptr().cast(), self.target.len());
        let send = opcode::Send::new(fd, bytes.as_ptr(), length).flags(libc::MSG_WAITALL);
        let receive =
            opcode::Recv::new(fd, self.own.at(own * self.own_size), length).flags(libc::MSG_WAITALL);
        let linked = Flags::IO_LINK | Flags::SKIP_SUCCESS;
        self.push(&[
            connect.build().flags(linked).user_data(tags[0]),
            send.build().flags(linked).user_data(tags[1]),
            receive.build().user_data(tags[2]),
        ]);
    }

    /// Queues operations, which the kernel takes as one batch.
    ///
    /// Private, as what they point to must be `'static` or belong to this ring.
    fn push(&mut self, entries: &[Entry]) {
        debug_assert!(entries.len() <= LONGEST_CHAIN);
        let queue = self.uring.submission();
        let room = queue.capacity() - queue.len();
        drop(queue);
        if room < entries.len() {
            // What fails here is tried again at the next turn.
            let _ = self.uring.submit();
        }
        let mut queue = self.uring.submission();
        // SAFETY: the buffers and the address live at least as long as the operations.
        unsafe { queue.push_multiple(entries) }.expect("the kernel took what was queued");
    }

    /// Hands over what is queued, waits, and collects what has completed.
    pub(super) fn turn(&mut self, wait: Wait, completions: &mut Vec<Completion>) -> Result<()> {
        completions.clear();
        if let Some(shared) = &self.shared {
            shared.publish();
        }
        let entered = match wait {
            Wait::Sleep(timeout) => {
                let timeout = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timeout);
                self.uring.submitter().submit_with_args(1, &arguments)
            }
            Wait::Poll => {
                let queue = self.uring.submission();
                let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
                drop(queue);
                if idle { Ok(0) } else { self.uring.submit() }
            }
        };
        match entered.map_err(|error| error.raw_os_error().ok_or(error)) {
            Ok(_) | Err(Ok(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(Ok(code)) => {
                return Err(io::Error::from_raw_os_error(code)).context("io_uring_enter failed");
            }
            Err(Err(error)) => return Err(error).context("io_uring_enter failed"),
        }
        completions.extend(self.uring.completion().map(|entry| Completion {
            tag: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        Ok(())
    }

    /// The bytes that came in a shared buffer, which is to be recycled then.
    pub(super) fn shared_bytes(&self, buffer: u16, length: usize) -> &[u8] {
        let shared = self.shared.as_ref().expect("the ring has shared buffers");
        // SAFETY: the kernel writes only in `turn`, which needs the ring for itself.
        unsafe { shared.memory.bytes(usize::from(buffer) * shared.size, length) }
    }

    /// Gives a shared buffer back.
    pub(super) fn recycle(&mut self, buffer: u16) {
        if let Some(shared) = &mut self.shared {
            shared.offer(buffer);
        }
    }

    /// The bytes that came into a connection's own buffer.
    pub(super) fn own_bytes(&self, own: usize, length: usize) -> &[u8] {
        // SAFETY: the kernel writes only in `turn`, which needs the ring for itself.
        unsafe { self.own.bytes(own * self.own_size, length) }
    }
}
