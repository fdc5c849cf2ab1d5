//! Connections that carry one message each.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail, ensure};

use super::ring::{Completion, Plan, Ring};
use super::window::{Part, Window};
use super::{Share, connect};
use crate::pattern::Place;

const CONNECT: u64 = 0;
const SEND: u64 = 1;
const RECEIVE: u64 = 2;

/// Runs one thread's part of the connections for a slice.
pub(super) fn run(share: &Share<'_>, reset: bool) -> Result<Part> {
    Churn::new(share, reset)?.run(share.window()).inspect(|_| share.rest())
}

/// A connection under way.
#[derive(Debug)]
struct Slot {
    socket: OwnedFd,
    place: Place,
    since: u64,
}

struct Churn<'a> {
    share: &'a Share<'a>,
    reset: bool,
    ring: Ring,
    slots: Vec<Option<Slot>>,
    /// Connections opened so far.
    opened: usize,
    completions: Vec<Completion>,
}

impl<'a> Churn<'a> {
    fn new(share: &'a Share<'a>, reset: bool) -> Result<Self> {
        let load = share.shared.load;
        let plan = Plan {
            operations: share.connections * 4,
            own_buffers: share.connections,
            own_buffer_size: load.size,
            ..Plan::default()
        };
        Ok(Self {
            share,
            reset,
            ring: Ring::new(plan, share.shared.address.into())?,
            slots: (0..share.connections).map(|_| None).collect(),
            opened: 0,
            completions: Vec::new(),
        })
    }

    fn run(mut self, mut window: Window<'_>) -> Result<Part> {
        let clock = self.share.shared.clock;
        self.share.rendezvous(&mut window)?;
        for slot in 0..self.slots.len() {
            self.open(slot)?;
        }
        while !window.is_closed() {
            self.turn(&mut window)?;
        }
        let deadline = clock.now() + self.share.shared.plan.deadline.as_nanos() as u64;
        loop {
            let open = self.slots.iter().flatten().count();
            if open == 0 {
                return window.finish(clock.now());
            }
            if clock.now() >= deadline {
                bail!("the server stopped answering: {open} connections are waiting for it");
            }
            self.turn(&mut window)?;
        }
    }

    fn open(&mut self, slot: usize) -> Result<()> {
        let shared = self.share.shared;
        let since = shared.clock.now();
        let socket = connect::socket(shared.address, self.share.source(self.opened))?;
        if self.reset {
            connect::reset_on_close(&socket)?;
        }
        let socket = OwnedFd::from(socket);
        let place = Place::of_connection(self.opened);
        let bytes = shared.pattern.bytes(place, shared.load.size);
        let tags = [CONNECT, SEND, RECEIVE].map(|step| step << 32 | slot as u64);
        self.ring.exchange(&socket, bytes, slot, tags);
        self.slots[slot] = Some(Slot { socket, place, since });
        self.opened += 1;
        Ok(())
    }

    fn turn(&mut self, window: &mut Window<'_>) -> Result<()> {
        let shared = self.share.shared;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.turn(shared.wait(window.next_mark()), &mut completions)?;
        let now = shared.clock.now();
        window.advance(now)?;
        for completion in &completions {
            self.completed(completion, window, now)?;
        }
        self.completions = completions;
        shared.ensure_going()
    }

    fn completed(&mut self, completion: &Completion, window: &mut Window<'_>, now: u64) -> Result<()> {
        let shared = self.share.shared;
        let index = (completion.tag & u64::from(u32::MAX)) as usize;
        let length = match (completion.tag >> 32, completion.result()) {
            (CONNECT, Err(error)) => return Err(connect::explain(error, shared.address)),
            (_, result) => result.with_context(|| format!("a connection to {} was lost", shared.address))?,
        };
        let slot = self.slots[index].take().context("a completion of no connection")?;
        ensure!(
            length == shared.load.size,
            "a connection to {} was lost: {length} of {} bytes came back",
            shared.address,
            shared.load.size
        );
        shared
            .pattern
            .verify(slot.place, self.ring.own_bytes(index, length))
            .with_context(|| format!("a connection to {}", shared.address))?;
        window.count_reply(slot.since, length, now);
        drop(slot.socket);
        if !window.is_closed() {
            self.open(index)?;
        }
        Ok(())
    }
}
