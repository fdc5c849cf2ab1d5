//! The flags of a command and the keys of a scenario file, which are the same, and the plan they make.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::bounds::{messages_per_second, percent, time, within};
use super::{
    Arrivals, Crowd, Dialect, End, Load, Mischief, Plan, Profile, Refusal, Segment, Span, Spread, Target,
    Think, Waves, mix,
};
use crate::cpu::CpuList;
use crate::scenario::Scenario;

/// The most connections that can be asked for.
const MOST_CONNECTIONS: usize = 10_000_000;

/// The most reactors that corelane starts.
const MOST_REACTORS: usize = 1_024;

/// The most client processes.
const MOST_WORKERS: usize = 1_024;

/// The most messages that a connection may have in flight.
const DEEPEST: usize = 65_536;

/// Messages per second and connection, where the measured ones stand beside others that behave badly.
const HONEST_RATE: f64 = 10.0;

/// Which client runs a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Engine {
    Corelane,
    Uring,
}

/// Declares the settings once: as flags, as keys, and how flags go before keys.
macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// What is to be run, as far as it was said.
        #[derive(Clone, Debug, Default, clap::Args, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub(crate) struct Settings {
            $($(#[$meta])* pub(crate) $name: Option<$type>,)*
        }

        impl Settings {
            /// What is not said here is taken from `other`.
            pub(crate) fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

settings! {
    /// Whom to load: tcp://IP:PORT (bytes that are echoed), unix:/PATH or unix:@NAME (the same), http://HOST/PATH,
    /// redis://HOST, frames://HOST:PORT (requests with their length in front).
    #[arg(value_name = "TARGET")]
    target: String,
    /// Start a server and load that: builtin; echo, frames, redis, broadcast or netapp of corelane's examples;
    /// peer-NAME of benches/peers; or a command line that prints `listening on ADDRESS`.
    #[arg(long, value_name = "NAME")]
    server: String,
    /// What is said to the target, where its address does not tell [default: echo].
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    protocol: Dialect,
    /// Where what is broadcast is published, IP:PORT; a server that is started tells.
    #[arg(long, value_name = "ADDRESS")]
    publish: String,
    /// What connections go through; `--scenario help` lists them [default: load].
    #[arg(long, value_name = "NAME")]
    scenario: String,
    /// Connections that are measured, 1 to 10000000 [default: 64].
    #[arg(long, short = 'c', value_name = "N")]
    connections: usize,
    /// Bytes of a message, with k and m for KiB and MiB [default: 64].
    #[arg(long, value_name = "BYTES")]
    size: String,
    /// Requests by weight: `80:64,20:16k` (sizes), `80:/a,20:/b` (HTTP), `90:get:64,9:set:64,1:ping` (redis).
    #[arg(long, value_name = "LIST")]
    mix: String,
    /// Messages that each connection keeps in flight in a closed loop [default: 1]; otherwise the most it may have
    /// in flight, beyond which what is due waits [default: 1 for HTTP, else 1024].
    #[arg(long, short = 'd', value_name = "N")]
    depth: usize,
    /// Load model: closed, rate, poisson, steps, ramp, burst or idle [default: steps, ramp or burst if such a flag is
    /// given, else rate if --rate is, else closed]. What the load does not use is refused.
    #[arg(long, value_name = "MODEL")]
    load: String,
    /// Messages per second over all connections (rate, poisson, burst; lines per second of broadcast).
    #[arg(long, short = 'r', value_name = "N")]
    rate: f64,
    /// Messages per second and how long, one after the other: `1000x5s,2000x5s` (steps).
    #[arg(long, value_name = "LIST")]
    steps: String,
    /// Messages per second at the beginning and at the end: `0..20000` (ramp).
    #[arg(long, value_name = "FROM..TO")]
    ramp: String,
    /// Messages that are due at once (burst) [default: as many as connections].
    #[arg(long, value_name = "N")]
    burst: u32,
    /// Pause between a reply and the next request (closed) [default: none].
    #[arg(long, value_name = "TIME")]
    think: Span,
    /// How these pauses differ: constant or exponential around the mean [default: constant].
    #[arg(long, value_enum, value_name = "HOW")]
    think_spread: Spread,
    /// Open the connections evenly over this time, and load each as soon as it stands [default: all before].
    #[arg(long, value_name = "TIME")]
    ramp_up: Span,
    /// Share of the connections that carry the load, in percent [default: 100; partly-active: 10].
    #[arg(long, value_name = "PERCENT")]
    active: f64,
    /// Connections that behave badly beside the measured ones, in percent of those [default: 10].
    #[arg(long, value_name = "PERCENT")]
    hostile: f64,
    /// How connections end (churn, reset-storm, reconnect-storm): fin or rst.
    #[arg(long, value_enum, value_name = "HOW")]
    end: End,
    /// Requests on each connection before it ends (churn, half-close) [default: 1].
    #[arg(long, value_name = "N")]
    requests: u32,
    /// Time between two storms [default: 1s].
    #[arg(long, value_name = "TIME")]
    every: Span,
    /// Connections under way at a time while they are opened [default: 256; connect-storm: all].
    #[arg(long, value_name = "N")]
    connect_window: usize,
    /// How long is measured [default: 10s].
    #[arg(long, value_name = "TIME")]
    duration: Span,
    /// How long before that the load runs unmeasured [default: 1s; 0s where nothing runs all the time].
    #[arg(long, value_name = "TIME")]
    warmup: Span,
    /// How long a reply may take before the run fails, and how long after the measured time what was due in it is still
    /// sent [default: 10s].
    #[arg(long, value_name = "TIME")]
    deadline: Span,
    /// How long connecting may take [default: 10s].
    #[arg(long, value_name = "TIME")]
    connect_timeout: Span,
    /// A send so long after its time is late [default: 1ms].
    #[arg(long, value_name = "TIME")]
    late_after: Span,
    /// Percentage of sends that may be late before the run fails [default: 1].
    #[arg(long, value_name = "PERCENT")]
    tolerance: f64,
    /// Reactors, and so threads, of the client [default: the CPUs available].
    #[arg(long, value_name = "N")]
    reactors: usize,
    /// Client processes that share the connections and the rate, each with reactors of its own, 1 to 1024: more
    /// connections than one process may have descriptors for need several [default: 1].
    #[arg(long, value_name = "N")]
    workers: usize,
    /// Reactors or threads of a server that is started [default: its own].
    #[arg(long, value_name = "N")]
    server_reactors: usize,
    /// Which client: corelane (anything), or uring (any protocol over TCP, in a closed loop or by a schedule, on
    /// connections that stay; the faster one, which takes the CPUs of --client-cpus for itself) [default: corelane].
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Engine,
    /// CPUs of the client, as in `1` or `2-3` [default: all].
    #[arg(long, value_name = "CPUS")]
    client_cpus: CpuList,
    /// CPUs of a server that is started [default: all].
    #[arg(long, value_name = "CPUS")]
    server_cpus: CpuList,
    /// Process of a server that was not started here, to measure its CPU and memory [default: whoever listens at
    /// the target, if that is on this machine].
    #[arg(long, value_name = "PID")]
    server_pid: u32,
    /// Have the client look for events so long before it sleeps: sends are then on time to some microseconds, for a
    /// CPU of each reactor [default: 0us].
    #[arg(long, value_name = "TIME")]
    spin: Span,
    /// Keys that redis requests are spread over [default: 1000].
    #[arg(long, value_name = "N")]
    keys: u32,
    /// Whether SET and GET of redis are sent as RESP arrays, as its clients do, instead of inline: true or false
    /// [default: false].
    #[arg(long, value_name = "BOOL")]
    resp: bool,
    /// Whether bodies of HTTP replies are compared with the first of their path: true or false [default: true].
    #[arg(long, value_name = "BOOL")]
    verify: bool,
    /// Seed of everything random [default: 1].
    #[arg(long, value_name = "N")]
    seed: u64,
}

impl Settings {
    /// Reads a scenario file.
    pub(crate) fn read(path: &Path) -> Result<Self, Refusal> {
        let refuse = |problem: String| Refusal::new("file", format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            // Of a key that is not known all others would be listed.
            let message = error.message().split(", expected one of").next().unwrap_or_default();
            refuse(format!("line {line}: {}", message.replace('\n', " ")))
        })
    }

    /// The scenario that was asked for.
    pub(crate) fn scenario(&self) -> Result<Scenario, Refusal> {
        self.scenario.as_deref().map_or(Ok(Scenario::Load), Scenario::parse)
    }

    /// What the target is called, and what is said to it, as far as the settings tell.
    ///
    /// `started` is a server that was started for the run.
    pub(crate) fn target(&self, started: Option<Target>) -> Result<Target, Refusal> {
        let mut target = match (&self.target, started) {
            (Some(_), Some(_)) => {
                return Err(Refusal::new("server", "starts its own target: leave out TARGET"));
            }
            (Some(text), None) => Target::parse(text)?,
            (None, Some(started)) => started,
            (None, None) => {
                return Err(Refusal::new("target", "none: say tcp://IP:PORT or the like, or --server NAME"));
            }
        };
        if let Some(dialect) = self.protocol {
            target.dialect = dialect;
        }
        Ok(target)
    }

    /// The plan, or what in the settings makes no sense.
    pub(crate) fn plan(&self, target: Target) -> Result<Plan, Refusal> {
        let scenario = self.scenario()?;
        let connections = within("connections", self.connections, 64, 1, MOST_CONNECTIONS)?;
        let size = match self.size.as_deref() {
            Some(text) => mix::bytes(text)
                .ok_or_else(|| Refusal::new("size", format!("`{text}` is not a number of bytes")))?,
            None => 64,
        };
        let mix = mix::parse(self.mix.as_deref(), target.dialect, size, &target.path)?;
        let duration = time("duration", self.duration, 10_000, Duration::from_millis(1))?;
        let load = self.load(scenario, &target, connections, duration)?;
        self.ensure_used(scenario, &load)?;
        let duration = match &load {
            Load::Open { profile, .. } => Duration::from_secs_f64(profile.seconds()),
            _ => duration,
        };
        let goes_on = matches!(load, Load::Closed { .. } | Load::Open { .. } | Load::Churn { .. });
        let ramp_up = self.ramp_up.map(|span| span.0).filter(|time| !time.is_zero());
        let warmup = if goes_on && ramp_up.is_none() { 1_000 } else { 0 };
        if ramp_up.is_some() && !matches!(load, Load::Closed { .. }) {
            return Err(Refusal::new("ramp-up", "goes with a closed loop: --ramp is that of a rate"));
        }
        if scenario == Scenario::Broadcast && target.dialect != Dialect::Echo {
            return Err(Refusal::new("scenario", "broadcast is lines over tcp:// or unix:"));
        }
        let stays = !matches!(load, Load::Churn { .. } | Load::Broadcast { .. });
        let window = if scenario == Scenario::ConnectStorm { connections } else { 256 };
        Ok(Plan {
            publish: self.publish.clone(),
            waves: self.waves(scenario, duration)?,
            crowd: self.crowd(scenario, connections)?,
            prove: stays && ramp_up.is_none(),
            connect_window: within("connect-window", self.connect_window, window, 1, MOST_CONNECTIONS)?,
            ramp_up,
            active: percent("active", self.active, scenario.default_active())?,
            warmup: time("warmup", self.warmup, warmup, Duration::ZERO)?,
            duration,
            deadline: time("deadline", self.deadline, 10_000, Duration::from_millis(1))?,
            connect_timeout: time("connect-timeout", self.connect_timeout, 10_000, Duration::from_millis(1))?,
            late_after: time("late-after", self.late_after, 1, Duration::from_nanos(1))?,
            tolerance: percent("tolerance", self.tolerance, 1.0)?,
            reactors: self.reactors.map(|n| within("reactors", Some(n), 1, 1, MOST_REACTORS)).transpose()?,
            workers: within("workers", self.workers, 1, 1, MOST_WORKERS.min(connections))?,
            spin: self.spin()?,
            keys: within("keys", self.keys.map(|n| n as usize), 1_000, 1, 1_000_000)? as u32,
            resp: self.resp.unwrap_or(false),
            verify: self.verify.unwrap_or(true),
            seed: self.seed.unwrap_or(1),
            target,
            scenario,
            mix,
            load,
            connections,
        })
    }

    fn spin(&self) -> Result<Duration, Refusal> {
        let spin = self.spin.map_or(Duration::ZERO, |span| span.0);
        if spin > Duration::from_secs(1) {
            return Err(Refusal::new("spin", "must be at most 1s"));
        }
        Ok(spin)
    }

    fn load(
        &self,
        scenario: Scenario,
        target: &Target,
        connections: usize,
        duration: Duration,
    ) -> Result<Load, Refusal> {
        let every = time("every", self.every, 1_000, Duration::from_millis(10))?;
        let rounds = (duration.as_secs_f64() / every.as_secs_f64()).ceil().max(1.0) as u32;
        let requests = within("requests", self.requests.map(|n| n as usize), 1, 1, 1_000_000)? as u32;
        let prescribed = match scenario {
            Scenario::IdleHold | Scenario::ConnectStorm | Scenario::WakeStorm => Load::Idle,
            Scenario::Churn => Load::Churn { requests, end: self.end(End::Fin)? },
            Scenario::HalfClose => Load::Churn { requests, end: End::Half },
            Scenario::ResetStorm => Load::Storm { every, rounds, end: self.end(End::Rst)?, in_flight: true },
            Scenario::ReconnectStorm => {
                Load::Storm { every, rounds, end: self.end(End::Fin)?, in_flight: false }
            }
            Scenario::Broadcast => Load::Broadcast { per_second: self.rate(Some(100.0))? },
            Scenario::Pipelined => {
                Load::Closed { depth: within("depth", self.depth, 16, 2, DEEPEST)?, think: None }
            }
            Scenario::PingPong => Load::Closed { depth: 1, think: self.think() },
            _ => return self.chosen_load(scenario, target, connections, duration),
        };
        if let Some(model) = &self.load {
            return Err(Refusal::new(
                "load",
                format!("`{model}`: the scenario {} has its own", scenario.name()),
            ));
        }
        Ok(prescribed)
    }

    fn chosen_load(
        &self,
        scenario: Scenario,
        target: &Target,
        connections: usize,
        duration: Duration,
    ) -> Result<Load, Refusal> {
        let honest = scenario.has_crowd().then_some(HONEST_RATE * connections as f64);
        let seconds = duration.as_secs_f64();
        let (profile, arrivals) = match self.model(scenario) {
            "closed" => {
                if self.rate.is_some() {
                    return Err(Refusal::new("rate", "a closed loop has none: --load rate or poisson does"));
                }
                let depth = within("depth", self.depth, 1, 1, DEEPEST)?;
                return Ok(Load::Closed { depth, think: self.think() });
            }
            "idle" => return Ok(Load::Idle),
            "rate" => (Profile::constant(self.rate(honest)?, seconds), Arrivals::Even),
            "poisson" => (Profile::constant(self.rate(honest)?, seconds), Arrivals::Poisson),
            "steps" => (self.steps()?, Arrivals::Even),
            "ramp" => (self.ramp(seconds)?, Arrivals::Even),
            "burst" => {
                let size = self.burst.unwrap_or(u32::try_from(connections).unwrap_or(u32::MAX));
                if size == 0 {
                    return Err(Refusal::new("burst", "must be at least 1 message"));
                }
                (Profile::constant(self.rate(Some(f64::from(size)))?, seconds), Arrivals::Bursts { size })
            }
            model => {
                let known = "closed, rate, poisson, steps, ramp, burst or idle";
                return Err(Refusal::new("load", format!("`{model}` is not {known}")));
            }
        };
        let depth = if target.dialect == Dialect::Http { 1 } else { 1_024 };
        Ok(Load::Open { profile, arrivals, depth: within("depth", self.depth, depth, 1, DEEPEST)? })
    }

    fn think(&self) -> Option<Think> {
        let mean = self.think?.0;
        (!mean.is_zero()).then(|| Think { mean, spread: self.think_spread.unwrap_or(Spread::Constant) })
    }

    fn end(&self, default: End) -> Result<End, Refusal> {
        match self.end.unwrap_or(default) {
            End::Half => Err(Refusal::new("end", "half is what the scenario half-close does")),
            end => Ok(end),
        }
    }

    fn rate(&self, default: Option<f64>) -> Result<f64, Refusal> {
        match self.rate.or(default) {
            Some(rate) => messages_per_second("rate", rate),
            None => Err(Refusal::new("rate", "how many messages per second? The load model needs it")),
        }
    }

    fn steps(&self) -> Result<Profile, Refusal> {
        let Some(text) = &self.steps else {
            return Err(Refusal::new("steps", "which ones? As in `1000x5s,2000x5s`"));
        };
        let step = |part: &str| {
            let refuse = || Refusal::new("steps", format!("`{part}` is not RATExTIME, as in `1000x5s`"));
            let (rate, time) = part.trim().split_once('x').ok_or_else(refuse)?;
            let rate = messages_per_second("steps", rate.parse().map_err(|_| refuse())?)?;
            let time = time.parse::<Span>().map_err(|_| refuse())?.0;
            if time.is_zero() {
                return Err(refuse());
            }
            Ok(Segment { seconds: time.as_secs_f64(), from: rate, to: rate })
        };
        text.split(',').map(step).collect::<Result<_, _>>().map(Profile)
    }

    fn ramp(&self, seconds: f64) -> Result<Profile, Refusal> {
        let text = self.ramp.as_deref().unwrap_or_default();
        let refuse =
            || Refusal::new("ramp", format!("`{text}` is not FROM..TO messages/s, as in `0..20000`"));
        let (from, to) = text.split_once("..").ok_or_else(refuse)?;
        let (from, to): (f64, f64) =
            (from.trim().parse().map_err(|_| refuse())?, to.trim().parse().map_err(|_| refuse())?);
        if from < 0.0 || to < 0.0 || from.is_nan() || to.is_nan() {
            return Err(refuse());
        }
        messages_per_second("ramp", from.max(to))?;
        Ok(Profile(vec![Segment { seconds, from, to }]))
    }

    fn waves(&self, scenario: Scenario, duration: Duration) -> Result<Option<Waves>, Refusal> {
        let every = time("every", self.every, 1_000, Duration::from_millis(10))?;
        let at_the_end = Waves { first: duration, every, rounds: 1 };
        Ok(match scenario {
            Scenario::IdleHold | Scenario::PartlyActive => Some(at_the_end),
            Scenario::ConnectStorm => Some(Waves { first: Duration::ZERO, every, rounds: 1 }),
            Scenario::WakeStorm => {
                let rounds = (duration.as_secs_f64() / every.as_secs_f64()).ceil().max(1.0);
                Some(Waves { first: Duration::ZERO, every, rounds: rounds as u32 })
            }
            _ => None,
        })
    }

    /// Connections that the target has at a time, those that behave badly among them.
    pub(crate) fn connections_at_a_time(&self) -> Result<usize, Refusal> {
        let scenario = self.scenario()?;
        let connections = within("connections", self.connections, 64, 1, MOST_CONNECTIONS)?;
        let crowd = self.crowd(scenario, connections)?.count;
        // Of peers that vanish the target has the connections still.
        let vanished = if scenario == Scenario::HalfOpen { crowd } else { 0 };
        Ok(connections + crowd + vanished)
    }

    fn crowd(&self, scenario: Scenario, connections: usize) -> Result<Crowd, Refusal> {
        let kinds: &[Mischief] = scenario.mischief();
        if kinds.is_empty() {
            return match self.hostile {
                Some(_) => Err(Refusal::new("hostile", "goes with a scenario that has such connections")),
                None => Ok(Crowd::default()),
            };
        }
        let hostile = self.hostile.unwrap_or(10.0);
        if !(0.0..=10_000.0).contains(&hostile) {
            return Err(Refusal::new("hostile", "must be 0 to 10000 percent"));
        }
        let count = (connections as f64 * hostile / 100.0).ceil() as usize;
        Ok(Crowd { count, kinds: kinds.to_vec() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    /// The plan that these flags of `run` make.
    pub(crate) fn plan(flags: &str) -> Result<Plan, Refusal> {
        let words = ["run", "tcp://127.0.0.1:7"].into_iter().chain(flags.split_whitespace());
        let settings = Cli::try_parse_from(words).unwrap().settings;
        settings.plan(settings.target(None)?)
    }

    #[test]
    fn without_flags_it_is_a_ping_pong_of_ten_seconds() {
        let plan = plan("").unwrap();
        assert_eq!(plan.load, Load::Closed { depth: 1, think: None });
        assert_eq!((plan.connections, plan.largest(), plan.duration.as_secs()), (64, 64, 10));
        assert!(plan.prove && plan.crowd.count == 0 && plan.waves.is_none());
    }

    #[test]
    fn a_rate_makes_an_open_loop() {
        let Load::Open { profile, arrivals, depth } = plan("--rate 500 --duration 2s").unwrap().load else {
            panic!("not open");
        };
        assert_eq!((profile, arrivals, depth), (Profile::constant(500.0, 2.0), Arrivals::Even, 1_024));
        let steps = plan("--steps 10x1s,20x3s").unwrap();
        assert_eq!(steps.duration, Duration::from_secs(4));
        assert!(matches!(
            plan("--load burst --rate 640").unwrap().load,
            Load::Open { arrivals: Arrivals::Bursts { size: 64 }, .. }
        ));
    }

    #[test]
    fn scenarios_bring_their_own() {
        let wake = plan("--scenario wake-storm --duration 3s --every 500ms").unwrap();
        assert_eq!((wake.load.clone(), wake.waves.unwrap().rounds), (Load::Idle, 6));
        let hostile = plan("--scenario hostile -c 200 --hostile 25").unwrap();
        assert_eq!(hostile.crowd.count, 50);
        assert!(hostile.load.is_open());
        assert_eq!(plan("--scenario partly-active -c 40").unwrap().active_in_all(), 4);
        assert_eq!(plan("--scenario connect-storm -c 4000").unwrap().connect_window, 4_000);
    }

    #[test]
    fn nonsense_names_its_field() {
        for (flags, field) in [
            ("--rate 0", "--rate"),
            ("--rate=-5", "--rate"),
            ("--rate NaN", "--rate"),
            ("--load poisson", "--rate"),
            ("--load closed --rate 5", "--rate"),
            ("--load fast", "--load"),
            ("--steps 5", "--steps"),
            ("--ramp 5", "--ramp"),
            ("--ramp 0..0", "--ramp"),
            ("--connections 0", "--connections"),
            ("--connections 99999999", "--connections"),
            ("--size 0", "--size"),
            ("--size 1g", "--size"),
            ("--mix 0:1", "--mix"),
            ("--depth 0", "--depth"),
            ("--duration 0s", "--duration"),
            ("--deadline 0s", "--deadline"),
            ("--scenario earthquake", "--scenario"),
            ("--scenario idle-hold --load closed", "--load"),
            ("--active 101", "--active"),
            ("--hostile 5", "--hostile"),
            ("--reactors 0", "--reactors"),
            ("--workers 0", "--workers"),
            ("--connections 2 --workers 3", "--workers"),
            ("--spin 2s", "--spin"),
            ("--burst 0", "--burst"),
            ("--rate 5 --ramp-up 1s", "--ramp-up"),
        ] {
            let refusal = plan(flags).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("{field}: ")), "{flags}: {refusal}");
            assert!(!refusal.contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn files_say_what_flags_do_not() {
        let file: Settings = toml::from_str("rate = 100.0\nsize = \"1k\"\nwarmup = \"5ms\"").unwrap();
        let flags = Settings { rate: Some(7.0), ..Settings::default() };
        let both = flags.or(file);
        assert_eq!((both.rate, both.size.as_deref()), (Some(7.0), Some("1k")));
        assert_eq!(both.warmup, Some(Span(Duration::from_millis(5))));
        assert!(toml::from_str::<Settings>("speed = 5").is_err());
    }

    #[test]
    fn the_scenario_files_make_plans() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let mut files = 0;
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let settings = Settings::read(&file).unwrap();
            assert!(settings.server.is_some(), "{} starts its own server", file.display());
            let dialect = match settings.server.as_deref() {
                Some("redis") => Dialect::Redis,
                Some("frames") => Dialect::Frames,
                _ => Dialect::Echo,
            };
            let address = "127.0.0.1:7".parse().unwrap();
            let target = settings.target(Some(Target::new(dialect, &address))).unwrap();
            settings.plan(target).unwrap_or_else(|refusal| panic!("{}: {refusal}", file.display()));
            files += 1;
        }
        assert!(files >= 10, "{files}");
    }

    #[test]
    fn a_plan_goes_through_json() {
        for flags in ["--rate 10 --mix 80:64,20:1k", "--scenario reset-storm", "--think 5ms", "--ramp-up 2s"]
        {
            let plan = plan(flags).unwrap();
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        }
    }
}
