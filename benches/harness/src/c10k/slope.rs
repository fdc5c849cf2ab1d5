//! The server's memory per connection, as the slope over several numbers of connections: what it
//! takes without any is then left out, whatever it is.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::args::Args;
use super::run::Run;
use crate::output::format::count;
use crate::stats::Line;

/// Numbers of connections at which the memory is measured.
const STEPS: usize = 5;

/// Bytes of the one message that connections echo.
const SIZE: usize = 1_024;

/// Memory over connections of one kind.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Series {
    /// Connections, and the server's memory in bytes.
    points: Vec<(usize, u64)>,
    line: Line,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slopes {
    server_reactors: usize,
    /// Why there were fewer connections than were asked for.
    pub(super) limited: Option<String>,
    /// Connections that have not been used.
    idle: Series,
    /// Connections that have each echoed a message since the last measurement.
    after_echo: Series,
}

/// Measures both kinds of connections, each on a server of its own.
pub(super) fn measure(args: &Args, stop: &AtomicBool) -> Result<Slopes> {
    let (server_reactors, limited, idle) = series(args, stop, false)?;
    let (_, _, after_echo) = series(args, stop, true)?;
    Ok(Slopes { server_reactors, limited, idle, after_echo })
}

fn series(args: &Args, stop: &AtomicBool, echo: bool) -> Result<(usize, Option<String>, Series)> {
    let mut run = Run::start(args, stop, SIZE)?;
    let (most, limited) = run.room()?;
    let mut points = Vec::new();
    for connections in steps(most) {
        run.open(connections)?;
        if echo {
            run.talk(SIZE, 1, Duration::ZERO)?;
        }
        run.hold(args.hold)?;
        points.push((connections, run.resident()?));
    }
    let reactors = run.server_reactors;
    run.end()?;
    let as_floats: Vec<_> = points.iter().map(|&(x, y)| (x as f64, y as f64)).collect();
    let line = Line::through(&as_floats).context("a slope needs more than one connection")?;
    Ok((reactors, limited, Series { points, line }))
}

/// Evenly spaced numbers of connections up to the `most`.
fn steps(most: usize) -> Vec<usize> {
    let mut steps: Vec<_> = (1..=STEPS).map(|step| (most * step / STEPS).max(1)).collect();
    steps.dedup();
    steps
}

impl Slopes {
    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "memory of the server (PSS, {} reactors) over connections\n\n{:>12} {:>16} {:>16}\n",
            self.server_reactors, "connections", "idle", "after 1 KiB echo"
        );
        for ((connections, idle), (_, after)) in self.idle.points.iter().zip(&self.after_echo.points) {
            let connections = count(*connections as u64);
            let _ = writeln!(text, "{connections:>12} {:>14} B {:>14} B", count(*idle), count(*after));
        }
        let lines = [self.idle.line, self.after_echo.line];
        let slopes = lines.map(|line| format!("{:.1} B", line.slope));
        let fits = lines.map(|line| format!("{:.5}", line.r_squared));
        let _ = writeln!(text, "{:>12} {:>16} {:>16}", "each", slopes[0], slopes[1]);
        let _ = writeln!(text, "{:>12} {:>16} {:>16}", "R²", fits[0], fits[1]);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_even_and_end_with_the_most() {
        assert_eq!(steps(10_000), [2_000, 4_000, 6_000, 8_000, 10_000]);
        assert_eq!(steps(7), [1, 2, 4, 5, 7]);
        assert_eq!(steps(1), [1]);
    }

    #[test]
    fn the_slope_is_printed() {
        let series = |each: u64| {
            let points: Vec<_> = steps(1_000).into_iter().map(|n| (n, 50_000 + each * n as u64)).collect();
            let floats: Vec<_> = points.iter().map(|&(x, y)| (x as f64, y as f64)).collect();
            Series { points, line: Line::through(&floats).unwrap() }
        };
        let slopes = Slopes { server_reactors: 2, limited: None, idle: series(200), after_echo: series(300) };
        let text = slopes.text();
        assert!(text.contains("1,000        250,000 B        350,000 B"), "{text}");
        assert!(text.contains("each          200.0 B          300.0 B"), "{text}");
        assert!(text.contains("R²          1.00000"), "{text}");
    }
}
