//! A safe face for the io_uring operations of `peer-io-uring`.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{BufRingEntry, Fd, Fixed, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use libc::c_void;

/// Entries of the submission queue. A full one is handed over early.
const ENTRIES: u32 = 4096;

/// Entries of the completion queue; the kernel keeps what does not fit.
const COMPLETIONS: u32 = 4 * ENTRIES;

/// Buffers that the kernel picks from as bytes arrive. A power of two.
pub const BUFFERS: u16 = 1024;

/// The bytes of one of them.
pub const BUFFER: usize = 16 * 1024;

/// The group of the buffers.
const GROUP: u16 = 0;

/// An operation that has ended, or goes on and has something to tell.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What the operation was given as its tag.
    pub tag: u64,
    result: i32,
    flags: u32,
}

impl Completion {
    /// The bytes moved, the slot of the connection accepted, or the error.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn result(&self) -> io::Result<u32> {
        u32::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }

    /// Whether the operation will complete again.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The buffer that was filled.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A ring of one thread, its table of connections, and its buffers.
///
/// The kernel touches buffers only while the thread is in [`Ring::turn`], and cancels what is left when the ring
/// goes.
pub struct Ring {
    // The first to be dropped, before the memory that it knows.
    uring: IoUring,
    entries: Pages,
    memory: Pages,
    tail: u16,
    retry: Box<Timespec>,
}

impl Ring {
    /// Makes a ring that can hold so many connections.
    ///
    /// # Errors
    ///
    /// What the kernel says: that it has no io_uring, or that there may be fewer connections.
    pub fn new(connections: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        // Spares a look-up of the ring's descriptor each time it is entered.
        uring.submitter().register_ring_fd()?;
        uring.submitter().register_files_sparse(connections)?;
        let entries = Pages::new(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let memory = Pages::new(usize::from(BUFFERS) * BUFFER)?;
        let ring = entries.start.as_ptr() as u64;
        // SAFETY: the memory is page aligned, large enough, and freed after the ring is closed.
        unsafe { uring.submitter().register_buf_ring_with_flags(ring, BUFFERS, GROUP, 0)? };
        let mut ring = Self { uring, entries, memory, tail: 0, retry: Box::new(Timespec::new()) };
        (0..BUFFERS).for_each(|buffer| ring.recycle(buffer));
        Ok(ring)
    }

    /// Accepts for as long as it goes well; each completion tells the slot of a connection.
    pub fn accept(&mut self, listener: &TcpListener, tag: u64) {
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
        self.push(accept.build().user_data(tag));
    }

    /// Completes after a while.
    pub fn wait(&mut self, time: Duration, tag: u64) {
        *self.retry = time.into();
        self.push(opcode::Timeout::new(&raw const *self.retry).build().user_data(tag));
    }

    /// Receives for as long as there are buffers and bytes.
    pub fn receive(&mut self, slot: u32, tag: u64) {
        self.push(opcode::RecvMulti::new(Fixed(slot), GROUP).build().user_data(tag));
    }

    /// Sends the first bytes of a buffer, all of them.
    pub fn send_buffer(&mut self, slot: u32, buffer: u16, length: usize, tag: u64) {
        let start = self.bytes(buffer, length).as_ptr();
        self.send(slot, start, length, tag);
    }

    /// Sends bytes that are not in a buffer, all of them.
    ///
    /// # Safety
    ///
    /// They stay where they are, and as they are, until the completion or the ring's end.
    pub unsafe fn send_bytes(&mut self, slot: u32, bytes: &[u8], tag: u64) {
        self.send(slot, bytes.as_ptr(), bytes.len(), tag);
    }

    fn send(&mut self, slot: u32, start: *const u8, length: usize, tag: u64) {
        let send = opcode::Send::new(Fixed(slot), start, length as u32);
        self.push(send.flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build().user_data(tag));
    }

    /// Ends the operation with the tag `target`.
    pub fn cancel(&mut self, target: u64, tag: u64) {
        self.push(opcode::AsyncCancel::new(target).build().user_data(tag));
    }

    /// Closes a connection, which frees its slot.
    pub fn close(&mut self, slot: u32, tag: u64) {
        self.push(opcode::Close::new(Fixed(slot)).build().user_data(tag));
    }

    /// What a completed receive has put in a buffer.
    pub fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(buffer < BUFFERS && length <= BUFFER);
        // SAFETY: the buffer is within the memory.
        let start = unsafe { self.memory.start.as_ptr().cast::<u8>().add(usize::from(buffer) * BUFFER) };
        // SAFETY: the memory is initialised, and the kernel writes to it only in `turn`, which needs the ring for
        // itself.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// Gives a buffer back to the kernel.
    pub fn recycle(&mut self, buffer: u16) {
        assert!(buffer < BUFFERS);
        let address = self.bytes(buffer, BUFFER).as_ptr() as u64;
        let slot = usize::from(self.tail & (BUFFERS - 1));
        let ring = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the slot is within the ring.
        let entry = unsafe { ring.add(slot) };
        // SAFETY: it is aligned and initialised, and the kernel does not read it before the tail has passed it.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `ring` is the first entry.
        let tail = unsafe { BufRingEntry::tail(ring.cast_const()) };
        // SAFETY: the tail is aligned, and is shared with nobody but the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Queues an operation. Private, as what it points to must outlive it.
    fn push(&mut self, entry: Entry) {
        // SAFETY: the callers see to it that what the entry points to lives as long as the operation.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            // What fails here is tried again at the next turn.
            let _ = self.uring.submit();
        }
    }

    /// Hands over what is queued, waits for a completion, and collects all there are.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn turn(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        completions.clear();
        if let Err(error) = self.uring.submit_and_wait(1)
            && !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
        {
            return Err(error);
        }
        completions.extend(self.uring.completion().map(|entry| Completion {
            tag: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        Ok(())
    }
}

/// Zeroed memory of its own pages.
struct Pages {
    start: NonNull<c_void>,
    length: usize,
}

impl Pages {
    fn new(length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a mapping that the kernel places touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        let result = unsafe { libc::munmap(self.start.as_ptr(), self.length) };
        debug_assert_eq!(result, 0);
    }
}
