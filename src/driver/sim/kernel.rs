//! What the kernel answers to the calls of a reactor about its sockets.

use std::io::{self, IoSlice};

use super::faults::Call;
use super::link::{Link, Stage};
use super::world::{DialAnswer, World};
use super::{error, limits};
use crate::connection::{Key, Peer};
use crate::driver::{Ending, Received, Sent};
use crate::net::{Address, Dial};

/// Slices that a gathered write takes at most (`IOV_MAX`).
const MOST_SLICES: usize = 1024;

impl World {
    /// The connection in `slot`, which the reactor must not use unless it is there.
    pub(super) fn at(&mut self, slot: u32, call: Call) -> Option<usize> {
        let index = self.slots.get(slot as usize).copied().flatten();
        if index.is_none() {
            self.breach(format!("{call:?} on slot {slot}, where no socket is"));
        }
        index
    }

    fn watch(&mut self, key: Key, index: usize) {
        let slot = key.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        if self.slots[slot].replace(index).is_some() {
            self.breach(format!("a second socket is installed in slot {slot}"));
        }
        self.links[index].near.key = Some(key);
        self.edge(index);
    }

    pub(super) fn accept(&mut self, listener: u16) -> io::Result<usize> {
        let mut failure = self.called(Call::Accept);
        let Some(Some(open)) = self.listeners.get_mut(listener as usize) else {
            return Err(error(libc::EAGAIN));
        };
        if failure.is_none() && !open.queue.is_empty() && self.rng.chance(self.faults.accept_errors) {
            let errnos =
                [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ECONNABORTED, libc::EPROTO];
            failure = Some(self.rng.pick(&errnos));
        }
        match failure {
            Some(errno @ (libc::ECONNABORTED | libc::EPROTO)) => {
                if let Some(aborted) = open.queue.pop_front() {
                    self.close(aborted, true);
                }
                Err(error(errno))
            }
            Some(errno) => {
                // "Nobody is waiting" is taken at its word, so somebody who is must be announced again.
                open.has_edge |= errno == libc::EAGAIN;
                Err(error(errno))
            }
            None => open.queue.pop_front().ok_or_else(|| error(libc::EAGAIN)),
        }
    }

    pub(super) fn install(&mut self, key: Key, index: usize) -> io::Result<()> {
        let mut failure = self.called(Call::Install);
        if failure.is_none() && self.rng.chance(self.faults.install_errors) {
            failure = Some(self.rng.pick(&[libc::ENOMEM, libc::ENOSPC]));
        }
        match failure {
            Some(errno) => Err(error(errno)),
            None => {
                self.watch(key, index);
                Ok(())
            }
        }
    }

    /// Fills `buffer` with up to `size` bytes; the outcome, without a lease on them.
    pub(super) fn receive(
        &mut self,
        slot: u32,
        to_the_end: bool,
        size: usize,
        buffer: &mut Vec<u8>,
    ) -> Received<()> {
        let failure = self.called(Call::Receive);
        let Some(index) = self.at(slot, Call::Receive) else { return Received::Failed(error(libc::EBADF)) };
        if self.links[index].stage != Stage::Established {
            self.breach(format!("a read on slot {slot}, which is not connected"));
            return Received::Failed(error(libc::ENOTCONN));
        }
        if self.rng.chance(self.faults.late_arrivals) {
            self.arrive(index);
            self.go_on(index);
        }
        match failure {
            None => {}
            Some(libc::EAGAIN) => return self.nothing_there(index),
            Some(errno) => {
                self.links[index].near.break_off();
                self.links[index].near.error = None;
                return Received::Failed(error(errno));
            }
        }
        if self.rng.chance(self.faults.blocked_reads) {
            return self.nothing_there(index);
        }
        self.take(index, to_the_end, size, buffer)
    }

    fn nothing_there(&mut self, index: usize) -> Received<()> {
        self.links[index].near.is_announced = false;
        if self.links[index].near.is_readable() {
            self.edge_later(index);
        }
        Received::Empty
    }

    fn take(&mut self, index: usize, to_the_end: bool, size: usize, buffer: &mut Vec<u8>) -> Received<()> {
        let near = &mut self.links[index].near;
        if near.received.is_empty() {
            if let Some(errno) = near.take_error() {
                return Received::Failed(error(errno));
            }
            if near.is_readable() {
                return Received::End;
            }
            return self.nothing_there(index);
        }
        let there = near.received.len().min(size);
        let is_short = self.rng.chance(self.faults.short_reads);
        let length = if is_short { self.rng.part_of(there) } else { there };
        let near = &mut self.links[index].near;
        buffer.extend(near.received.drain(..length));
        self.moved_in += length as u64;
        // The end is not announced again: whoever was told of it reads up to it.
        let is_left = near.is_readable() && (!near.received.is_empty() || !near.is_end_told);
        let mut more = length == size || to_the_end || self.rng.chance(self.faults.needless_reads);
        if is_left && !more && is_short {
            more = self.rng.chance(0.5);
        }
        self.links[index].near.is_announced = more;
        if is_left && !more {
            // Whatever is left came after this read, and an edge comes with it.
            if is_short { self.edge_later(index) } else { self.edge(index) }
        }
        self.go_on(index);
        Received::Data { lease: (), more }
    }

    pub(super) fn send(&mut self, call: Call, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let failure = self.called(call);
        let Some(index) = self.at(slot, call) else { return Err(error(libc::EBADF)) };
        let asked: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.links[index].near.is_shut || self.links[index].stage != Stage::Established {
            self.breach(format!("a write on slot {slot}, which is shut or not connected"));
            return Err(error(libc::EPIPE));
        }
        if asked == 0 || slices.len() > MOST_SLICES || slices.iter().any(|slice| slice.is_empty()) {
            self.breach(format!("a write of {asked} bytes in {} slices", slices.len()));
        }
        let near = &mut self.links[index].near;
        if near.is_broken {
            return Err(error(near.take_error().unwrap_or(libc::EPIPE)));
        }
        match failure {
            None => {}
            Some(libc::EAGAIN) => return self.no_room(index),
            Some(errno) => {
                near.break_off();
                near.error = None;
                return Err(error(errno));
            }
        }
        if near.room() == 0 || self.rng.chance(self.faults.blocked_writes) {
            return self.no_room(index);
        }
        Ok(self.put(index, slices, asked))
    }

    fn no_room(&mut self, index: usize) -> io::Result<Sent> {
        self.links[index].near.wants_room = true;
        if self.links[index].near.room() > 0 {
            self.edge_later(index);
        }
        Err(error(libc::EAGAIN))
    }

    fn put(&mut self, index: usize, slices: &[IoSlice<'_>], asked: usize) -> Sent {
        let fits = asked.min(self.links[index].near.room());
        let is_short = self.rng.chance(self.faults.short_writes);
        let bytes = if is_short { self.rng.part_of(fits) } else { fits };
        let near = &mut self.links[index].near;
        let mut left = bytes;
        for slice in slices {
            let now = left.min(slice.len());
            near.unsent.extend(&slice[..now]);
            left -= now;
        }
        self.moved_out += bytes as u64;
        let mut room = bytes == asked;
        if is_short && near.room() > 0 {
            room = self.rng.chance(0.5);
        }
        if !room {
            self.links[index].near.wants_room = true;
            if self.links[index].near.room() > 0 {
                self.edge_later(index);
            }
        }
        self.go_on(index);
        Sent { bytes, room }
    }

    pub(super) fn shut_down(&mut self, slot: u32) {
        let failure = self.called(Call::ShutDown);
        let Some(index) = self.at(slot, Call::ShutDown) else { return };
        let near = &mut self.links[index].near;
        if near.is_shut {
            self.breach(format!("the sending side of slot {slot} is shut down twice"));
        } else if failure.is_some() {
            // It fails on a connection that is broken, and on no other.
            self.break_off(index);
        } else {
            near.is_shut = true;
            self.go_on(index);
        }
    }

    pub(super) fn dial(&mut self, key: Key, dial: &Dial, answer: DialAnswer) -> io::Result<()> {
        let mut failure = self.called(Call::Dial);
        if failure.is_none() && self.rng.chance(self.faults.dial_errors) {
            failure = Some(self.rng.pick(&[libc::EMFILE, libc::EADDRNOTAVAIL, libc::ENETUNREACH]));
        }
        if let DialAnswer::Fail(errno) = answer {
            failure = failure.or(Some(errno));
        }
        let is_tcp = matches!(dial.to, Address::Tcp(_));
        if !is_tcp && answer == DialAnswer::Refuse {
            // A Unix socket knows at once.
            failure = failure.or(Some(libc::ECONNREFUSED));
        }
        if let Some(errno) = failure {
            return Err(error(errno));
        }
        let peer = match dial.to {
            Address::Tcp(address) => Peer::Tcp(address),
            _ => Peer::Unix,
        };
        let (receive_limit, send_limit) = limits(&dial.options);
        let index = self.add(Link::new(peer, Some(dial.to.clone()), receive_limit, send_limit));
        self.watch(key, index);
        match answer {
            DialAnswer::Accept if is_tcp => self.answer_dial(index, 0),
            DialAnswer::Accept => self.links[index].stage = Stage::Established,
            DialAnswer::Refuse => self.answer_dial(index, libc::ECONNREFUSED),
            DialAnswer::Silence | DialAnswer::Fail(_) => {}
        }
        Ok(())
    }

    pub(super) fn is_connected(&mut self, slot: u32) -> io::Result<bool> {
        let failure = self.called(Call::IsConnected);
        let Some(index) = self.at(slot, Call::IsConnected) else { return Err(error(libc::EBADF)) };
        let link = &mut self.links[index];
        match (failure, link.stage) {
            (Some(errno), _) => {
                link.near.break_off();
                Err(error(errno))
            }
            (None, Stage::Refused(errno)) => Err(error(errno)),
            (None, Stage::Asked) => Ok(false),
            (None, Stage::Established) => link.near.take_error().map_or(Ok(true), |errno| Err(error(errno))),
        }
    }

    pub(super) fn close_slot(&mut self, slot: u32, ending: Ending) {
        self.called(Call::Close);
        // A dial that failed at once has no socket.
        if let Some(index) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.close(index, ending == Ending::Reset);
        }
    }
}
