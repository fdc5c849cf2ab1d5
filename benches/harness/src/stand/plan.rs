//! What a run will do: spread over which processes, on which CPUs, and which limits were in the way.

use anyhow::Result;
use serde::Serialize;

use super::args::{Args, InFlight};
use crate::cpu::CpuList;
use crate::outcome::{self, Status};
use crate::output::format::count;
use crate::preflight::{self, Asked, Host, Layout, Limit, Need, Role, Verdict};

/// The decisions of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plan {
    pub(super) layout: Layout,
    /// In each server process.
    pub(super) server_reactors: usize,
    pub(super) client_reactors: usize,
    pub(super) server_cpus: CpuList,
    pub(super) client_cpus: CpuList,
    /// Messages in flight at a time on all connections together; null: one on each.
    pub(super) in_flight: Option<u64>,
    /// Limits that are not met, whether there was a way around or not.
    pub(super) limits: Vec<Limit>,
}

impl Plan {
    pub(super) fn new(args: &Args) -> Result<Self> {
        let (server_cpus, client_cpus) = cpus(args, CpuList::allowed()?);
        Self::on(&Host::read()?, args, server_cpus, client_cpus)
    }

    fn on(host: &Host, args: &Args, server_cpus: CpuList, client_cpus: CpuList) -> Result<Self> {
        let layout = |server_reactors: usize, client_reactors: usize| {
            let asked = Asked {
                connections: args.connections as u64,
                server_processes: args.server_processes,
                client_processes: args.client_processes,
                server_reactors: args.reactors.unwrap_or(server_reactors) as u64,
                client_reactors: args.client_reactors.unwrap_or(client_reactors) as u64,
            };
            Layout::new(&asked, host)
        };
        // One process uses all its CPUs; of several, each has one reactor.
        let mut reactors = (server_cpus.len(), client_cpus.len());
        let mut spread = layout(reactors.0, reactors.1);
        if spread.server_processes > 1 || spread.client_processes > 1 {
            reactors = (1, 1);
            spread = layout(1, 1);
        }
        let server_reactors = args.reactors.unwrap_or(reactors.0);
        let client_reactors = args.client_reactors.unwrap_or(reactors.1);
        let in_flight = in_flight(args.in_flight, host, spread.client_processes * client_reactors as u64)?;
        let need =
            Need { role: Role::Both, connections: args.connections as u64, layout: &spread, in_flight };
        let mut limits = preflight::judge(host, &need);
        limits.retain(|limit| limit.verdict != Verdict::Fits);
        let plan = Self {
            server_reactors,
            client_reactors,
            layout: spread,
            server_cpus,
            client_cpus,
            in_flight,
            limits,
        };
        plan.ensure_possible(host)?;
        Ok(plan)
    }

    /// Too few descriptors make it a smaller run; anything else that lacks ends it before it begins.
    fn ensure_possible(&self, host: &Host) -> Result<()> {
        if self.layout.connections == 0 {
            let why = format!(
                "RLIMIT_NOFILE is {}: not one connection fits; {}",
                host.files.1,
                self.limits.iter().find_map(|limit| limit.advice.clone()).unwrap_or_default()
            );
            return Err(outcome::ends(Status::HostLimits, why));
        }
        let lacks = |limit: &&Limit| limit.verdict == Verdict::Lacking && !limit.is_of_descriptors();
        match self.limits.iter().find(lacks) {
            None => Ok(()),
            Some(limit) => {
                let line = preflight::line(limit);
                Err(outcome::ends(Status::HostLimits, format!("this host does not allow it: {line}")))
            }
        }
    }

    /// Messages that one reactor of the clients may have in flight.
    pub(super) fn wave(&self) -> u64 {
        let reactors = self.layout.client_processes * self.client_reactors as u64;
        self.in_flight.map_or(u64::MAX, |most| (most / reactors.max(1)).max(1))
    }

    /// What will be done, in a line.
    pub(super) fn title(&self) -> String {
        let Layout { connections, server_processes, client_processes, .. } = self.layout;
        format!(
            "{} connections to {server_processes} server processes ({} reactors each, CPUs {}) \
             from {client_processes} client processes ({} reactors each, CPUs {})",
            count(connections),
            self.server_reactors,
            self.server_cpus,
            self.client_reactors,
            self.client_cpus
        )
    }

    /// Why fewer connections are held than were asked for, if they are.
    pub(super) fn limited(&self, asked: usize) -> Option<String> {
        let Layout { connections, server_processes, client_processes, .. } = self.layout;
        (connections < asked as u64).then(|| {
            let limit = self.limits.iter().find(|limit| limit.is_of_descriptors());
            let current = limit.map(|limit| limit.current.to_string()).unwrap_or_default();
            format!(
                "RLIMIT_NOFILE is {current} in each of {server_processes} server and {client_processes} client \
                 processes: holding {} connections instead of {} (raise the hard limit, as with `ulimit -Hn` or \
                 LimitNOFILE=, or allow more processes)",
                count(connections),
                count(asked as u64)
            )
        })
    }
}

/// How many messages may be in flight over all reactors of the clients, each of which has the same part of them.
fn in_flight(asked: Option<InFlight>, host: &Host, reactors: u64) -> Result<Option<u64>> {
    let most = match asked {
        Some(InFlight::All) => None,
        Some(InFlight::Most(most)) if most < reactors => {
            let why =
                format!("--in-flight must be at least {reactors}: one for each of the client's reactors");
            return Err(outcome::ends(Status::Usage, why));
        }
        Some(InFlight::Most(most)) => Some(most),
        None => host.wave(),
    };
    Ok(most.map(|most| (most / reactors.max(1)).max(1) * reactors.max(1)))
}

/// Those of the servers and those of the clients.
fn cpus(args: &Args, allowed: CpuList) -> (CpuList, CpuList) {
    if args.no_pin {
        return (allowed.clone(), allowed);
    }
    let (lower, upper) = allowed.halves();
    let rest = |taken: &CpuList| allowed.without(taken).unwrap_or_else(|| allowed.clone());
    match (&args.server_cpus, &args.client_cpus) {
        (Some(server), Some(client)) => (server.clone(), client.clone()),
        (Some(server), None) => (server.clone(), rest(server)),
        (None, Some(client)) => (rest(client), client.clone()),
        (None, None) => (upper, lower),
    }
}
