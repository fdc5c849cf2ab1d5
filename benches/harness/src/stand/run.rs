//! The processes of a run, and what they are asked and told: everything that several phases need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow, bail};

use super::args::Args;
use super::plan::Plan;
use crate::limits;
use crate::measure::{Meter, memory};
use crate::outcome::{self, Status as Exit};
use crate::output::format::count;
use crate::output::live::Progress;
use crate::result::MemoryPoint;
use crate::worker::{Assignment, Crew, Death, Ended, Fault, Listening, News, Order, Status, Word};

/// How long the run may look away from a request to stop.
const NAP: Duration = Duration::from_millis(100);

/// How long workers may take to start. A hundred share few CPUs.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long workers may take to answer a question, beyond the deadline for a reply.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// How long a server's end may trail the loss of its connections.
const END_PATIENCE: Duration = Duration::from_millis(300);

/// How long workers may take to end beyond the deadline for their connections.
const END_MARGIN: Duration = Duration::from_secs(120);

/// Servers and clients connected to them.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) args: &'a Args,
    pub(super) plan: &'a Plan,
    stop: &'a AtomicBool,
    pub(super) crew: Crew,
    pub(super) servers: Vec<usize>,
    pub(super) clients: Vec<usize>,
    pub(super) listening: Listening,
    /// What the servers last told, in their order.
    pub(super) statuses: Vec<Status>,
    /// Connections that each client was told to dial.
    pub(super) dialed: Vec<u64>,
    pub(super) server_meter: Meter,
    pub(super) client_meter: Meter,
    pub(super) progress: Progress,
}

/// How the servers ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Drained {
    pub(super) ended: Ended,
    pub(super) took: Duration,
    /// One server began when the last had ended.
    pub(super) in_turn: bool,
}

impl<'a> Run<'a> {
    /// Starts all processes; messages will be of the `largest` size at most.
    pub(super) fn start(
        args: &'a Args,
        plan: &'a Plan,
        stop: &'a AtomicBool,
        largest: usize,
    ) -> Result<Self> {
        let mut starting = Starting { args, plan, stop, crew: Crew::default() };
        let (servers, listening) = starting.servers()?;
        let clients = starting.clients(listening, largest)?;
        let pids = |group: &[usize]| group.iter().map(|&who| starting.crew.pid(who)).collect();
        let server_meter = Meter::without_calls(pids(&servers))?;
        let client_meter = Meter::without_calls(pids(&clients))?;
        let mut run = Self {
            args,
            plan,
            stop,
            statuses: vec![Status::default(); servers.len()],
            dialed: vec![0; clients.len()],
            crew: starting.crew,
            servers,
            clients,
            listening,
            server_meter,
            client_meter,
            progress: Progress::new(),
        };
        let started = run.started();
        run.progress.finish(&started);
        Ok(run)
    }

    fn started(&self) -> String {
        let (server, client) = (self.crew.pid(self.servers[0]), self.crew.pid(self.clients[0]));
        let more = |group: &[usize]| match group.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "server: process {server}{}, {}, {} reactors each, CPUs {}; client: process {client}{}, {} reactors each, CPUs {}",
            more(&self.servers),
            self.listening.address,
            self.plan.server_reactors,
            self.plan.server_cpus,
            more(&self.clients),
            self.plan.client_reactors,
            self.plan.client_cpus
        )
    }

    /// The next word of any worker before `until`. Fails if one fails or ends, or if the run is to stop.
    pub(super) fn hear(&mut self, until: Instant) -> Result<Option<(usize, Word)>> {
        loop {
            ensure_not_stopped(self.stop)?;
            let now = Instant::now();
            match self.crew.next(until.min(now + NAP))? {
                None if Instant::now() >= until => return Ok(None),
                None => {}
                Some((who, News::Ended(death))) => return Err(self.died(who, &death)),
                Some((who, News::Word(Word::Failed(fault)))) => return Err(self.failed(who, &fault)),
                Some((who, News::Word(word))) => return Ok(Some((who, word))),
            }
        }
    }

    /// Waits and sees that all goes well.
    pub(super) fn watch(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        match self.hear(until)? {
            None => Ok(()),
            Some((who, word)) => bail!("{} says what it was not asked: {word:?}", self.crew.name(who)),
        }
    }

    /// Asks every server how things stand.
    pub(super) fn ask_servers(&mut self) -> Result<()> {
        let servers = self.servers.clone();
        self.ask(&servers, &Order::Status, "status", |run, who, word| match word {
            Word::Status(status) => {
                if let Some(index) = run.servers.iter().position(|&server| server == who) {
                    run.statuses[index] = status;
                }
                None
            }
            other => Some(other),
        })?;
        self.ensure_accepting()
    }

    /// Tells each of the workers, and takes in an answer of each; `take` gives back what is none.
    fn ask(
        &mut self,
        workers: &[usize],
        order: &Order,
        wanted: &str,
        mut take: impl FnMut(&mut Self, usize, Word) -> Option<Word>,
    ) -> Result<()> {
        for &who in workers {
            self.crew.tell(who, order)?;
        }
        let patience = self.args.deadline + ANSWER_MARGIN;
        let until = Instant::now() + patience;
        let mut silent = workers.to_vec();
        while let Some(&first) = silent.first() {
            let Some((who, word)) = self.hear(until)? else {
                let (name, pid) = (self.crew.name(first), self.crew.pid(first));
                let why = format!(
                    "{} of {} processes did not tell their {wanted} within {patience:?}: {name} (process {pid}) first",
                    silent.len(),
                    workers.len()
                );
                return Err(outcome::ends(Exit::Unreachable, why));
            };
            silent.retain(|&other| other != who);
            if let Some(other) = take(self, who, word) {
                return Err(self.unexpected(wanted, &(who, other)));
            }
        }
        Ok(())
    }

    /// Connections that the servers have accepted so far, as they last told.
    pub(super) fn accepted(&self) -> u64 {
        self.statuses.iter().map(|status| status.accepted).sum()
    }

    /// Connections that are open in the servers, as they last told.
    pub(super) fn open(&self) -> u64 {
        self.statuses.iter().map(Status::open).sum()
    }

    /// Fails if a server could not accept for want of something, and says of what.
    fn ensure_accepting(&self) -> Result<()> {
        let mut paused =
            self.statuses.iter().zip(&self.servers).filter(|(status, _)| status.accept_pauses > 0);
        let Some((status, &who)) = paused.next() else { return Ok(()) };
        let name = self.crew.name(who);
        let said = |errno: i32| status.errors.iter().any(|error| error.0 == errno);
        let why = if said(libc::EMFILE) {
            let limit = limits::descriptor_limit(self.crew.pid(who))?;
            format!("has run out of descriptors: RLIMIT_NOFILE is {limit} (allow more by --server-processes)")
        } else if said(libc::ENFILE) {
            "has run out of descriptors: the host's fs.file-max is met".to_owned()
        } else {
            format!("could not accept: {:?}", status.errors)
        };
        let why = format!(
            "{name} (process {}) {why}; it holds {} connections, and accepting paused {} times",
            self.crew.pid(who),
            count(status.open()),
            status.accept_pauses
        );
        Err(outcome::ends(Exit::HostLimits, why))
    }

    /// Connections that the clients have opened, and how many of them have ended.
    pub(super) fn ask_clients(&mut self) -> Result<(u64, u64)> {
        let clients = self.clients.clone();
        let mut sum = (0, 0);
        self.ask(&clients, &Order::Status, "number of connections", |_, _, word| match word {
            Word::Opened { opened, ended } => {
                sum = (sum.0 + opened, sum.1 + ended);
                None
            }
            other => Some(other),
        })?;
        Ok(sum)
    }

    /// The memory at this number of connections.
    pub(super) fn memory(&self, connections: u64) -> Result<MemoryPoint> {
        memory::point(self.servers.iter().map(|&who| self.crew.pid(who)), connections)
    }

    /// Ends the servers by SIGTERM while all their connections stand, then the clients.
    ///
    /// One server after the other, unless all may send at once. A client's kernel answers a FIN with a packet of its own
    /// where the client does not close within 40 ms, and sends all that are due in one turn of its timers: where many
    /// servers end at once and their clients are behind, those of a turn are more than a CPU's queue holds.
    pub(super) fn end(mut self) -> Result<Drained> {
        self.watch(Duration::ZERO)?;
        let clients = self.clients.clone();
        self.ask(&clients, &Order::Part, "consent to an end", |_, _, word| match word {
            Word::Parted => None,
            other => Some(other),
        })?;
        let begun = Instant::now();
        let in_turn = self.plan.in_flight.is_some() && self.servers.len() > 1;
        let at_a_time = if in_turn { 1 } else { self.servers.len() };
        let mut ended = Ended::default();
        for servers in self.servers.clone().chunks(at_a_time) {
            servers.iter().for_each(|&server| self.crew.terminate(server));
            ended.add(self.ended(servers.len())?);
        }
        let took = begun.elapsed();
        for index in 0..self.clients.len() {
            self.crew.tell(self.clients[index], &Order::End)?;
        }
        self.ended(self.clients.len())?;
        Ok(Drained { ended, took, in_turn })
    }

    /// Waits until so many workers have ended in good order.
    fn ended(&mut self, mut left: usize) -> Result<Ended> {
        let mut sum = Ended::default();
        let until = Instant::now() + self.args.drain_deadline + END_MARGIN;
        while left > 0 {
            ensure_not_stopped(self.stop)?;
            if Instant::now() >= until {
                bail!("{left} processes did not end within {:?}", self.args.drain_deadline + END_MARGIN);
            }
            match self.crew.next(until.min(Instant::now() + NAP))? {
                Some((_, News::Word(Word::Ended(ended)))) => {
                    sum.add(ended);
                }
                Some((_, News::Ended(death))) if death.status.success() => left -= 1,
                Some((who, News::Ended(death))) => return Err(self.died(who, &death)),
                Some((who, News::Word(Word::Failed(fault)))) => return Err(self.failed(who, &fault)),
                _ => {}
            }
        }
        Ok(sum)
    }

    /// What to say of a worker that has ended before its time, and of what it held.
    fn died(&self, who: usize, death: &Death) -> Error {
        let server = self.servers.iter().position(|&server| server == who);
        let client = self.clients.iter().position(|&client| client == who);
        let (held, status) = match (server, client) {
            (Some(index), _) => (self.statuses[index].open(), Exit::Unreachable),
            (_, Some(index)) => (self.dialed[index], Exit::Failed),
            _ => (0, Exit::Failed),
        };
        outcome::ends(status, format!("{death}; it held {} connections", count(held)))
    }

    /// What to say of a worker's failure. If a server has ended, that is why.
    fn failed(&mut self, who: usize, fault: &Fault) -> Error {
        let said = format!("{}: {}", self.crew.name(who), fault.problem);
        let (mut others, until) = (0, Instant::now() + END_PATIENCE);
        while let Ok(Some((who, news))) = self.crew.next(until) {
            match news {
                News::Ended(death) if self.servers.contains(&who) => {
                    let died = self.died(who, &death);
                    return outcome::ends(Exit::Unreachable, format!("{died}; {said}"));
                }
                News::Word(Word::Failed(_)) => others += 1,
                _ => {}
            }
        }
        let more = if others > 0 { format!(" ({others} more processes failed)") } else { String::new() };
        outcome::ends(fault.status(), format!("{said}{more}"))
    }

    pub(super) fn unexpected(&self, wanted: &str, (who, word): &(usize, Word)) -> Error {
        anyhow!("{} should tell its {wanted}, and says {word:?}", self.crew.name(*who))
    }
}

pub(super) fn ensure_not_stopped(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(outcome::ends(Exit::Interrupted, "interrupted"));
    }
    Ok(())
}

/// What is known before all processes are there.
struct Starting<'a> {
    args: &'a Args,
    plan: &'a Plan,
    stop: &'a AtomicBool,
    crew: Crew,
}

impl Starting<'_> {
    /// The first server takes a port, the others share it.
    fn servers(&mut self) -> Result<(Vec<usize>, Listening)> {
        let count = self.plan.layout.server_processes;
        let mut servers = vec![self.server(0, "127.0.0.1:0")?];
        let listening = self.listening()?;
        for index in 1..count {
            servers.push(self.server(index, &listening.address.to_string())?);
        }
        for _ in 1..count {
            self.listening()?;
        }
        Ok((servers, listening))
    }

    fn server(&mut self, index: u64, address: &str) -> Result<usize> {
        let processes = self.plan.layout.server_processes;
        let reactors = self.plan.server_reactors.to_string();
        let drain = humantime::format_duration(self.args.drain_deadline).to_string();
        let mut arguments: Vec<String> = [
            "echo-server",
            "--worker",
            "--listen",
            address,
            "--reactors",
            &reactors,
            "--drain-deadline",
            &drain,
        ]
        .map(str::to_owned)
        .into();
        if processes > 1 {
            arguments.push("--share-port".to_owned());
        }
        self.crew.start(name("server", index, processes), &arguments, Some(&self.plan.server_cpus))
    }

    fn listening(&mut self) -> Result<Listening> {
        match self.hear()? {
            (_, Word::Listening(listening)) => Ok(listening),
            (who, word) => bail!("{} says {word:?} at the start", self.crew.name(who)),
        }
    }

    fn clients(&mut self, listening: Listening, largest: usize) -> Result<Vec<usize>> {
        let layout = &self.plan.layout;
        let arguments = ["worker".to_owned()];
        let mut clients = Vec::new();
        let mut first = 0;
        for index in 0..layout.client_processes {
            let name = name("client", index, layout.client_processes);
            let who = self.crew.start(name, &arguments, Some(&self.plan.client_cpus))?;
            let assignment = Assignment {
                target: listening.address,
                sources: layout.sources(index),
                reactors: Some(self.plan.client_reactors),
                first,
                largest,
                dial_timeout: self.args.deadline,
                tick: (self.args.deadline / 10).clamp(Duration::from_millis(50), Duration::from_secs(1)),
            };
            first += layout.share(index) as usize;
            self.crew.tell(who, &Order::Connect(assignment))?;
            clients.push(who);
        }
        for _ in &clients {
            match self.hear()? {
                (_, Word::Ready { .. }) => {}
                (who, word) => bail!("{} says {word:?} at the start", self.crew.name(who)),
            }
        }
        Ok(clients)
    }

    fn hear(&mut self) -> Result<(usize, Word)> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            ensure_not_stopped(self.stop)?;
            match self.crew.next(until.min(Instant::now() + NAP))? {
                Some((who, News::Word(word))) => return Ok((who, word)),
                Some((_, News::Ended(death))) => bail!("{death}, before it had started"),
                None if Instant::now() >= until => {
                    bail!("a process did not start within {START_TIMEOUT:?}")
                }
                None => {}
            }
        }
    }
}

fn name(kind: &str, index: u64, of: u64) -> String {
    match of {
        1 => format!("the {kind}"),
        of => format!("{kind} {} of {of}", index + 1),
    }
}
