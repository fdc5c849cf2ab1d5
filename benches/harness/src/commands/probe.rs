//! What is seen of a server on this machine from outside while it is loaded: CPU time, context switches and system
//! calls of all its processes, its memory, and how it spreads connections over its event loops.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::verdict::{ServerUse, Threads, threads_of};
use crate::engine::Tally;
use crate::measure::{self, Meter, Reactors, Used, memory};
use crate::output::format::count;
use crate::plan::{Load, Plan};
use crate::result::{Cost, MemoryPoint, MemorySeries, Skew};

/// The states in which memory is measured.
const OPEN: &str = "open, each used by one message";
const AFTER: &str = "after the load";

/// A server, and what was seen of it so far. What cannot be seen is a problem that is told, and no error.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// Processes that are known to be the server's; their children are too.
    roots: Vec<u32>,
    /// All its processes, as of the last look around.
    processes: Vec<u32>,
    port: Option<u16>,
    meter: Option<Meter>,
    /// When the measured time began, and what had been used until then.
    begun: Option<(Instant, Used, Threads)>,
    used: Option<(Duration, Used, ServerUse)>,
    system_calls: Option<u64>,
    before: Option<MemoryPoint>,
    open: Option<MemoryPoint>,
    after: Option<MemoryPoint>,
    reactors: [Option<Reactors>; 2],
    problems: RefCell<Vec<String>>,
}

impl Probe {
    /// For these processes, before their first connection.
    pub(crate) fn new(roots: &[u32], port: Option<u16>) -> Self {
        let mut probe = Self { roots: roots.to_vec(), port, ..Self::default() };
        if roots.is_empty() {
            probe.problem(
                "the server's process is not known: nothing is told of its CPU, memory and system calls",
            );
        }
        probe.look_around();
        probe.before = probe.memory(0);
        probe
    }

    fn problem(&self, text: impl Into<String>) {
        self.problems.borrow_mut().push(text.into());
    }

    fn or_problem<T>(&self, what: &str, found: Result<T>) -> Option<T> {
        found.map_err(|error| self.problem(format!("{what} is not known: {error:#}"))).ok()
    }

    fn look_around(&mut self) {
        self.processes = match self.roots.as_slice() {
            [] => Vec::new(),
            roots => measure::with_descendants(roots),
        };
    }

    fn memory(&self, connections: u64) -> Option<MemoryPoint> {
        if self.processes.is_empty() {
            return None;
        }
        let point = memory::point(self.processes.iter().copied(), connections);
        self.or_problem("the server's memory", point)
    }

    fn look_at_reactors(&self) -> Option<Reactors> {
        Reactors::of(&self.processes, self.port?)
    }

    /// Every connection of the plan stands that is opened before the load. System calls are counted from now on.
    pub(crate) fn opened(&mut self, plan: &Plan) {
        self.look_around();
        if plan.prove || matches!(plan.load, Load::Broadcast { .. }) {
            self.open = self.memory((plan.connections + plan.crowd.count) as u64);
        }
        self.reactors[0] = self.look_at_reactors();
        self.start_meter();
    }

    fn start_meter(&mut self) {
        if !self.processes.is_empty() {
            self.meter =
                self.or_problem("the server's CPU time", Meter::new(self.roots.clone(), &self.processes));
        }
        let uncounted = self.meter.as_ref().and_then(|meter| meter.uncounted().map(str::to_owned));
        uncounted.into_iter().for_each(|why| self.problem(format!("of the server {why}")));
    }

    /// The measured time begins.
    pub(crate) fn begun(&mut self, plan: &Plan) {
        // Processes may have been started since, as of a server that forks for each connection.
        self.look_around();
        if self.meter.is_none() && self.begun.is_none() {
            self.start_meter();
        }
        let Some(meter) = &mut self.meter else { return };
        if !plan.warmup.is_zero() {
            self.system_calls = meter.stop_counting();
        }
        let (now, used) = (Instant::now(), meter.read_with(&self.processes));
        let used = self.or_problem("the server's CPU time", used);
        self.begun = used.map(|used| (now, used, threads_of(&self.processes)));
    }

    /// The measured time ends.
    pub(crate) fn ended(&mut self, plan: &Plan) {
        self.look_around();
        if let (Some((at, before, threads)), Some(meter)) = (self.begun.take(), &mut self.meter) {
            let (time, used) = (at.elapsed(), meter.read_with(&self.processes));
            if plan.warmup.is_zero() {
                self.system_calls = meter.stop_counting();
            }
            self.used = self.or_problem("what the server used", used).map(|used| {
                let used = used.since(before);
                let threads = ServerUse::between(&threads, &threads_of(&self.processes), time.as_secs_f64());
                (time, used, threads)
            });
        }
        self.after = self.memory((plan.connections + plan.crowd.count) as u64);
        self.reactors[1] = self.look_at_reactors();
    }

    /// What its threads were doing in the measured time.
    pub(super) fn server_use(&self) -> Option<&ServerUse> {
        self.used.as_ref().map(|(_, _, used)| used)
    }

    /// How many processes it has.
    pub(super) fn processes(&self) -> Option<u32> {
        u32::try_from(self.processes.len()).ok().filter(|processes| *processes > 0)
    }

    /// What it took in the measured time, of so many CPUs.
    pub(super) fn cost(&self, tally: &Tally, cpus: usize) -> Option<Cost> {
        let (time, used, _) = self.used.as_ref()?;
        let counted = Used { system_calls: None, ..*used };
        let mut cost = counted.cost(tally.counts.received, *time, cpus);
        tell_calls(&mut cost, self.system_calls, tally);
        Some(cost)
    }

    /// How many system calls were counted.
    pub(crate) fn system_calls(&self) -> Option<u64> {
        self.system_calls
    }

    pub(crate) fn memory_series(&self) -> Vec<MemorySeries> {
        let series = |state: &str, points: [Option<MemoryPoint>; 2]| {
            let points: Vec<_> = points.into_iter().flatten().collect();
            // Two points are no fit.
            (!points.is_empty()).then(|| MemorySeries {
                state: state.to_owned(),
                points,
                user: None,
                kernel: None,
            })
        };
        let before = self.before.clone().filter(|_| self.open.is_some());
        [series(OPEN, [before, self.open.clone()]), series(AFTER, [None, self.after.clone()])]
            .into_iter()
            .flatten()
            .collect()
    }

    /// How evenly its event loops were used, if it has several that can be seen.
    pub(crate) fn skew(&self, plan: &Plan, tally: &Tally) -> Option<Skew> {
        let [before, after] = &self.reactors;
        let counts = &tally.counts;
        // What connections received that have ended is not known any more.
        let stays = !matches!(plan.load, Load::Churn { .. } | Load::Storm { .. } | Load::Broadcast { .. });
        let bytes = (stays && counts.sent > 0).then(|| counts.sent_bytes as f64 / counts.sent as f64);
        after.as_ref()?.skew_since(before.as_ref()?, bytes)
    }

    pub(crate) fn notes(&self, plan: &Plan, tally: &Tally) -> Vec<String> {
        let mut notes = Vec::new();
        if self.open.is_some() {
            notes.push(
                "memory: one number of connections tells no slope; c10k fits one, and so does sweep over three or more. \
                 PSS shares what other processes have too among them, the client if the server is built in; the \
                 kernel's caches (Slab) are those of both ends and of whoever else"
                    .to_owned(),
            );
        }
        if self.system_calls.is_some() && !plan.warmup.is_zero() && tally.counted > 0 {
            notes.push(format!(
                "system calls were counted in the warm-up, over {} replies: counting slows every call",
                count(tally.counted)
            ));
        }
        notes.extend(self.problems.borrow().iter().cloned());
        notes.dedup();
        notes
    }
}

/// Puts down system calls that were counted beside the measured time.
pub(crate) fn tell_calls(cost: &mut Cost, system_calls: Option<u64>, tally: &Tally) {
    cost.system_calls = system_calls.map(|calls| ("all".to_owned(), calls)).into_iter().collect();
    let counted = tally.counted;
    cost.system_calls_per_message =
        system_calls.filter(|_| counted > 0).map(|calls| calls as f64 / counted as f64);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::cpu::CpuClock;
    use crate::plan::tests::plan;

    /// As of a server that forks for each connection: one child comes and goes in the measured time, another stays.
    #[test]
    fn children_that_are_started_under_load_count() {
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let script = format!("read go; sh -c '{work}'; sh -c '{work}; echo $$; read end'; :");
        let mut command = Command::new("sh");
        let mut shell =
            command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let plan = plan("--warmup 0s").unwrap();
        let mut probe = Probe::new(&[shell.id()], None);
        probe.opened(&plan);
        probe.begun(&plan);
        shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut child = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut child).unwrap();
        let of_child = CpuClock::of_processes(&[child.trim().parse().unwrap()]).unwrap().read().unwrap();
        probe.ended(&plan);
        shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
        let cost = probe.cost(&Tally::default(), 1).unwrap();
        // The other did the same, and is told in ticks.
        let least = of_child.as_secs_f64() + 0.01;
        assert!(of_child > Duration::ZERO && cost.cpu_s >= least, "{cost:?}, {of_child:?} of the second");
        assert!(probe.server_use().unwrap().demand() > 0.0);
        assert_eq!(probe.processes(), Some(2));
    }
}
