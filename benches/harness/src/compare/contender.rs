//! The servers that take turns: started for the comparison, or running already.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, bail};
use corelane::Address;

use super::args::{Contestant, Plan};
use crate::cpu::CpuClock;
use crate::load::{self, Conversation};
use crate::measure::with_descendants;
use crate::outcome::{Status, WithStatus};
use crate::process::Server;
use crate::{limits, listener, plan};

/// A server, and what is said to it.
#[derive(Debug)]
pub(super) struct Contender {
    process: Process,
    pub(super) address: SocketAddr,
    conversation: Conversation,
}

/// Whose server it is.
#[derive(Debug)]
enum Process {
    Started(Server),
    /// With its CPU time, if it is on this machine.
    Running {
        pids: Vec<u32>,
        clock: Option<CpuClock>,
    },
}

impl Contender {
    /// Starts a server, or finds one that runs, and has it ready to be loaded.
    pub(super) fn new(plan: &Plan, contestant: &Contestant, stop: &AtomicBool) -> Result<Self> {
        let target = match contestant.running() {
            Some(text) => plan::Target::parse(text).status(Status::Usage)?,
            None => return Self::start(plan, contestant, stop),
        };
        let Address::Tcp(address) = target.address() else { bail!("{target} is not TCP") };
        let pids = contestant.pid.map_or_else(|| listener::processes(&target.address()), |pid| vec![pid]);
        let clock = || CpuClock::of_processes(&with_descendants(&pids));
        let clock = (!pids.is_empty()).then(clock).transpose()?;
        let conversation = plan.conversation(target)?;
        Self { process: Process::Running { pids, clock }, address, conversation }.checked(plan)
    }

    fn start(plan: &Plan, contestant: &Contestant, stop: &AtomicBool) -> Result<Self> {
        let start = if plan.broadcasts() { Server::start_feed } else { Server::start };
        let server = start(&contestant.server, &plan.server_cpus, stop)?;
        let address = server.address();
        let mut target = plan::Target::new(plan.dialect, &address.into());
        target.path.clone_from(&plan.path);
        let conversation = plan.conversation(target)?;
        Self { process: Process::Started(server), address, conversation }.checked(plan)
    }

    fn checked(self, plan: &Plan) -> Result<Self> {
        limits::ensure_sources_reach(&plan.load.sources, self.address)?;
        Ok(self)
    }

    /// Its CPU time; `None` if it is not known.
    pub(super) fn clock(&self) -> Option<CpuClock> {
        match &self.process {
            Process::Started(server) => Some(server.clock()),
            Process::Running { clock, .. } => *clock,
        }
    }

    /// Its processes, but for their children; none if they are not known.
    pub(super) fn pids(&self) -> Vec<u32> {
        match &self.process {
            Process::Started(server) => vec![server.pid()],
            Process::Running { pids, .. } => pids.clone(),
        }
    }

    pub(super) fn target(&self) -> load::Target<'_> {
        let publish = match &self.process {
            Process::Started(server) => server.publish(),
            Process::Running { .. } => None,
        };
        load::Target { address: self.address, publish, clock: self.clock(), conversation: &self.conversation }
    }

    /// How it ended, if it did within the `patience`.
    pub(super) fn ended(&mut self, patience: Duration) -> Option<String> {
        match &mut self.process {
            Process::Started(server) => server.ended(patience).map(|status| status.to_string()),
            Process::Running { clock: Some(clock), .. } if clock.read().is_err() => {
                Some("its process is gone".to_owned())
            }
            Process::Running { .. } => None,
        }
    }
}
