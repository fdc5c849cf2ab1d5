//! A seeded imitation of the kernel: sockets with buffers of limited size, a network that delays and
//! splits, a clock of its own, and faults. Everything it does follows from the seed and from what it is
//! asked to do, so a schedule that breaks something can be run again.
//!
//! It also keeps watch over the reactor: what no kernel would put up with (using a closed socket, writing
//! after the end of the stream, keeping a lease) is noted as a breach.

mod faults;
mod kernel;
mod link;
mod poll;
mod remote;
mod rng;
mod world;

pub use faults::{Call, Calls, Faults};
pub use link::Reading;
pub(crate) use remote::Progress;
pub use world::DialAnswer;
pub(crate) use world::{Horizon, World, remote_address};

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Driver, Ending, Event, Port, Received, Sent, Wait};
use crate::buffer::FileSlice;
use crate::connection::{Key, Peer};
use crate::driver::Wake;
use crate::net::{Address, Dial, DialFailure, SocketOptions, Stream};
use crate::time::Nanos;

/// What the kernel's buffers hold where the socket options say nothing else.
const DEFAULT_BUFFER: usize = 128 * 1024;
/// What is read of a file at once.
const FILE_BLOCK: usize = 64 * 1024;
/// What one call to the driver takes at most, so that whoever only looks for events gets older too.
const STEP: Nanos = 1_000;

/// One reactor's imitation of the kernel.
pub(crate) struct SimDriver {
    world: Rc<RefCell<World>>,
    woken: Waker,
    /// Real time; simulated time is counted from it.
    epoch: Instant,
    buffer_size: usize,
    /// Memory of the last lease, for the next.
    spare: Vec<u8>,
}

/// Wakes the imitation from its wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waker(Arc<AtomicBool>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// An accepted socket, which is closed where nobody installs it.
pub(crate) struct SimSocket {
    world: Rc<RefCell<World>>,
    link: Option<usize>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.world.borrow_mut().close(link, false);
        }
    }
}

/// Bytes that were received.
#[derive(Debug)]
pub(crate) struct Lease(Vec<u8>);

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SimDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDriver").finish_non_exhaustive()
    }
}

/// The sizes of a socket's receive and send buffers.
pub(crate) fn limits(options: &SocketOptions) -> (usize, usize) {
    (options.receive_buffer.unwrap_or(DEFAULT_BUFFER), options.send_buffer.unwrap_or(DEFAULT_BUFFER))
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl SimDriver {
    pub(crate) fn new(world: Rc<RefCell<World>>, woken: Waker, buffer_size: usize) -> Self {
        Self { world, woken, epoch: Instant::now(), buffer_size, spare: Vec::new() }
    }
}

impl Port for SimDriver {
    fn send(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        self.world.borrow_mut().send(Call::Send, slot, slices)
    }

    fn send_ahead(&mut self, slot: u32, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        self.world.borrow_mut().send(Call::Send, slot, slices)
    }

    /// As a system does it whose kernel does not send files.
    fn send_file(&mut self, slot: u32, file: &FileSlice, most: usize) -> io::Result<Sent> {
        let mut block = vec![0; most.min(FILE_BLOCK)];
        let length = file.read(&mut block)?;
        self.world.borrow_mut().send(Call::SendFile, slot, &[IoSlice::new(&block[..length])])
    }

    fn shut_down(&mut self, slot: u32) {
        self.world.borrow_mut().shut_down(slot);
    }

    fn dial(&mut self, key: Key, dial: &Dial) -> Result<(), DialFailure> {
        // Whoever answers may look at the world.
        let answerer = self.world.borrow_mut().answerer.take();
        let answer = match answerer {
            None => DialAnswer::Accept,
            Some(mut answerer) => {
                let answer = answerer(&dial.to);
                self.world.borrow_mut().answerer.get_or_insert(answerer);
                answer
            }
        };
        Ok(self.world.borrow_mut().dial(key, dial, answer)?)
    }

    fn set_options(&mut self, slot: u32, options: &SocketOptions) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let failure = world.called(Call::SetOptions);
        let Some(index) = world.at(slot, Call::SetOptions) else { return Err(error(libc::EBADF)) };
        if let Some(errno) = failure {
            return Err(error(errno));
        }
        let near = &mut world.links[index].near;
        near.receive_limit = options.receive_buffer.unwrap_or(near.receive_limit);
        near.send_limit = options.send_buffer.unwrap_or(near.send_limit);
        Ok(())
    }

    fn local_address(&self, slot: u32) -> io::Result<Address> {
        let mut world = self.world.borrow_mut();
        let failure = world.called(Call::LocalAddress);
        let index = world.at(slot, Call::LocalAddress).ok_or_else(|| error(libc::EBADF))?;
        match failure {
            Some(errno) => Err(error(errno)),
            None => Ok(Address::Tcp(([10, 255, 255, 255], 1024 + (index % 60_000) as u16).into())),
        }
    }
}

impl Driver for SimDriver {
    type Socket = SimSocket;
    type Lease = Lease;

    fn epoch(&self) -> Instant {
        self.epoch
    }

    fn now(&mut self) -> Nanos {
        self.world.borrow().clock
    }

    fn poll(&mut self, wait: Wait, events: &mut Vec<Event>) -> io::Result<()> {
        let others = std::mem::take(&mut self.world.borrow_mut().while_polling);
        others.into_iter().for_each(|act| act());
        let world = &mut *self.world.borrow_mut();
        world.is_idle = false;
        world.clock += STEP;
        if world.leases > 0 {
            world.breach(format!("{} leases are out during a poll", world.leases));
        }
        match world.called(Call::Poll) {
            None => {}
            Some(libc::EINTR) => return Ok(()),
            Some(errno) => return Err(error(errno)),
        }
        if wait != Wait::No && world.rng.chance(world.faults.interrupted_polls) {
            return Ok(());
        }
        let is_woken = self.woken.0.swap(false, Ordering::Acquire);
        world.pass(if is_woken { Wait::No } else { wait });
        world.report(events);
        if is_woken {
            events.push(Event::Woken);
        }
        Ok(())
    }

    fn has_more_events(&self) -> bool {
        self.world.borrow().has_more()
    }

    fn accept(&mut self, listener: u16) -> io::Result<(SimSocket, Peer)> {
        let mut world = self.world.borrow_mut();
        let link = world.accept(listener)?;
        let peer = world.links[link].peer;
        Ok((SimSocket { world: Rc::clone(&self.world), link: Some(link) }, peer))
    }

    fn close_listener(&mut self, listener: u16) {
        let mut world = self.world.borrow_mut();
        let closed = world.listeners.get_mut(listener as usize).and_then(Option::take);
        for queued in closed.into_iter().flat_map(|listener| listener.queue) {
            world.close(queued, true);
        }
    }

    fn install(&mut self, key: Key, mut socket: SimSocket) -> io::Result<()> {
        let Some(link) = socket.link.take() else { return Err(error(libc::EBADF)) };
        let installed = self.world.borrow_mut().install(key, link);
        if installed.is_err() {
            // Dropping it closes it.
            socket.link = Some(link);
        }
        installed
    }

    fn receive(&mut self, slot: u32, to_the_end: bool) -> Received<Lease> {
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        let mut world = self.world.borrow_mut();
        let nothing = match world.receive(slot, to_the_end, self.buffer_size, &mut buffer) {
            Received::Data { more, .. } => {
                world.leases += 1;
                return Received::Data { lease: Lease(buffer), more };
            }
            Received::End => Received::End,
            Received::Empty => Received::Empty,
            Received::Failed(error) => Received::Failed(error),
        };
        self.spare = buffer;
        nothing
    }

    fn release(&mut self, lease: Lease) {
        self.world.borrow_mut().leases -= 1;
        self.spare = lease.0;
    }

    fn is_connected(&mut self, slot: u32) -> io::Result<bool> {
        self.world.borrow_mut().is_connected(slot)
    }

    fn close(&mut self, slot: u32, ending: Ending) {
        self.world.borrow_mut().close_slot(slot, ending);
    }

    fn export(&mut self, socket: SimSocket) -> Result<Stream, SimSocket> {
        Err(socket)
    }

    fn import(&mut self, _: Stream) -> Option<SimSocket> {
        None
    }
}
