//! What a plan does, in one line, for headlines.

use super::{Arrivals, End, Load, Plan, Profile, Span};
use crate::output::format::count;
use crate::scenario::Scenario;

impl Plan {
    /// The scenario, the load, over what, and for how long.
    pub(crate) fn title(&self) -> String {
        let mut title = match self.scenario {
            Scenario::Load => String::new(),
            scenario => format!("{}: ", scenario.name()),
        };
        title.push_str(&model(&self.load));
        title.push_str(&format!(", {}", self.over()));
        if self.crowd.count > 0 {
            title.push_str(&format!(" beside {} that behave badly", count(self.crowd.count as u64)));
        }
        title.push_str(&format!(", {}", Span(self.duration)));
        title
    }

    /// What the load goes over: connections, sizes, client processes, the target.
    pub(crate) fn over(&self) -> String {
        let sizes = || self.mix.iter().map(|entry| entry.size);
        let (least, most) = (sizes().min().unwrap_or(0), self.largest());
        let size = match (least, most) {
            // Requests of HTTP have none.
            (_, 0) => String::new(),
            (least, most) if least == most => format!(", {} B", count(most as u64)),
            (least, most) => format!(", {} to {} B", count(least as u64), count(most as u64)),
        };
        let plural = if self.connections == 1 { "" } else { "s" };
        let mut over = format!("{} connection{plural}{size}", count(self.connections as u64));
        if self.workers > 1 {
            over.push_str(&format!(", {} client processes", self.workers));
        }
        format!("{over}, {}", self.target)
    }
}

fn model(load: &Load) -> String {
    match load {
        Load::Closed { depth, think: None } => format!("closed loop, depth {depth}"),
        Load::Closed { depth, think: Some(think) } => {
            format!("closed loop, depth {depth}, thinking {}", Span(think.mean))
        }
        Load::Open { profile, arrivals, .. } => match arrivals {
            Arrivals::Even => rate(profile),
            Arrivals::Poisson => format!("Poisson arrivals at {}", rate(profile)),
            Arrivals::Bursts { size } => format!("bursts of {} at {}", count((*size).into()), rate(profile)),
        },
        Load::Idle => "nothing sent".to_owned(),
        Load::Churn { requests, end } => {
            let plural = if *requests == 1 { "" } else { "s" };
            format!("{requests} request{plural} a connection, ended by {}", ending(*end))
        }
        Load::Storm { every, end, .. } => {
            format!("all connections ended by {} every {}", ending(*end), Span(*every))
        }
        Load::Broadcast { per_second } => format!("{} lines/s to all", count(*per_second as u64)),
    }
}

fn ending(end: End) -> &'static str {
    match end {
        End::Fin => "FIN",
        End::Rst => "RST",
        End::Half => "half-close",
    }
}

fn rate(profile: &Profile) -> String {
    let number = |rate: f64| if rate < 10.0 { format!("{rate}") } else { count(rate as u64) };
    let part = |from: f64, to: f64| {
        if from == to { number(from) } else { format!("{} to {}", number(from), number(to)) }
    };
    let parts: Vec<String> = profile.0.iter().map(|segment| part(segment.from, segment.to)).collect();
    format!("{}/s", parts.join(", then "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Settings;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn plans_are_told_in_a_line() {
        for (flags, title) in [
            ("", "closed loop, depth 1, 64 connections, 64 B, tcp://127.0.0.1:7, 10s"),
            (
                "-d 4 --think 5ms -c 1",
                "closed loop, depth 4, thinking 5ms, 1 connection, 64 B, tcp://127.0.0.1:7, 10s",
            ),
            (
                "--rate 25000 --mix 1:64,1:2k --workers 2",
                "25,000/s, 64 connections, 64 to 2,048 B, 2 client processes, tcp://127.0.0.1:7, 10s",
            ),
            ("--steps 5x1s,20x1s", "5, then 20/s, 64 connections, 64 B, tcp://127.0.0.1:7, 2s"),
            ("--ramp 0..50", "0 to 50/s, 64 connections, 64 B, tcp://127.0.0.1:7, 10s"),
            (
                "--scenario slowloris --hostile 50",
                "slowloris: 640/s, 64 connections, 64 B, tcp://127.0.0.1:7 beside 32 that behave badly, 10s",
            ),
            (
                "--scenario reset-storm",
                "reset-storm: all connections ended by RST every 1s, 64 connections, 64 B, tcp://127.0.0.1:7, 10s",
            ),
        ] {
            let words = ["run", "tcp://127.0.0.1:7"].into_iter().chain(flags.split_whitespace());
            let settings = Cli::try_parse_from(words).unwrap().settings;
            assert_eq!(settings.plan(settings.target(None).unwrap()).unwrap().title(), title);
        }
    }
}
