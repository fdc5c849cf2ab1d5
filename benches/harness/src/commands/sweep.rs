//! `sweep`: a grid of settings, each measured by a run of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::run::settings;
use super::session::Session;
use crate::outcome::{Status, WithStatus, ends};
use crate::output;
use crate::plan::{Refusal, Settings, Span};
use crate::result::{Kind, MemoryPoint, MemorySeries, RunResult, Target};

/// The most places in a grid.
const MOST_PLACES: usize = 1_000;

/// Measure a grid: numbers of connections, sizes, depths and reactors of the server, each with each.
///
/// Lists are separated by commas: `--connections-list 1,64,1000 --size-list 64,16k`. What has no list is as of `run`.
/// With a list of reactors the server is started anew for each, which takes --server.
#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Scenario file, as of `run`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Numbers of connections.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    connections_list: Vec<usize>,
    /// Bytes of a message.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    size_list: Vec<String>,
    /// Messages in flight on each connection.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    depth_list: Vec<usize>,
    /// Reactors or threads of the server.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    server_reactors_list: Vec<usize>,
    #[command(flatten)]
    output: output::Args,
}

/// The values of a list, or the one that there is without it.
fn values<T: Clone>(list: &[T], single: Option<T>) -> Vec<Option<T>> {
    if list.is_empty() { vec![single] } else { list.iter().cloned().map(Some).collect() }
}

/// Every place of the grid, those of one server together.
fn grid(args: &Args, base: &Settings) -> Vec<Settings> {
    let mut places = Vec::new();
    for server_reactors in values(&args.server_reactors_list, base.server_reactors) {
        for connections in values(&args.connections_list, base.connections) {
            for size in values(&args.size_list, base.size.clone()) {
                for depth in values(&args.depth_list, base.depth) {
                    let size = size.clone();
                    places.push(Settings { server_reactors, connections, size, depth, ..base.clone() });
                }
            }
        }
    }
    places
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut base = settings(&args.settings, args.file.as_ref())?;
    base.duration.get_or_insert(Span(std::time::Duration::from_secs(3)));
    base.warmup.get_or_insert(Span(std::time::Duration::from_millis(500)));
    let places = grid(args, &base);
    if places.len() > MOST_PLACES {
        let text = format!("the grid has {} places, of which there may be {MOST_PLACES}", places.len());
        return Err(ends(Status::Usage, text));
    }
    if !args.server_reactors_list.is_empty() && base.server.is_none() {
        let refusal =
            Refusal::new("server-reactors-list", "needs --server: only what is started here has them");
        return Err(refusal).status(Status::Usage);
    }
    let output = args.output.open()?;
    let mut result = RunResult::begin(Kind::Sweep, "sweep", &json!({ "places": places.len() }))?;
    result.title = title(args, &places);
    let outcome = measure_all(&places, &mut result);
    output.deliver(result, outcome)
}

/// What is swept, and over how many places.
fn title(args: &Args, places: &[Settings]) -> String {
    let list = |name: &str, values: Vec<String>| {
        (!values.is_empty()).then(|| format!("{name} {}", values.join(", ")))
    };
    let numbers = |values: &[usize]| values.iter().map(usize::to_string).collect();
    let swept = [
        list("connections", numbers(&args.connections_list)),
        list("size", args.size_list.clone()),
        list("depth", numbers(&args.depth_list)),
        list("reactors", numbers(&args.server_reactors_list)),
    ];
    let swept: Vec<String> = swept.into_iter().flatten().collect();
    let places = places.len();
    format!("{places} place{}: {}", if places == 1 { "" } else { "s" }, swept.join(" x "))
}

fn measure_all(places: &[Settings], result: &mut RunResult) -> Result<()> {
    let mut session: Option<Session> = None;
    let mut plans = Vec::new();
    let mut late = Vec::new();
    for (index, place) in places.iter().enumerate() {
        // A server lasts as long as the number of its reactors.
        let is_new = index == 0 || places[index - 1].server_reactors != place.server_reactors;
        let session = match session.take().filter(|_| !is_new) {
            Some(same) => session.insert(same.with(place.clone())?),
            None => session.insert(Session::start(place.clone())?),
        };
        let plan = session.plan();
        plans.push(serde_json::to_value(plan)?);
        let label = label(place, plan.connections, plan.largest());
        let measured = session.measure(plan, &label)?;
        let partial = measured.tally.partial;
        late.extend(measured.broken_schedule.map(|why| format!("{label}: {why}")));
        let mut target = measured.target;
        target.checks.extend(measured.schedule);
        if let Some(reactors) = place.server_reactors {
            target.settings.insert("reactors".to_owned(), json!(reactors));
        }
        result.targets.push(target);
        result.plan = json!({ "places": plans });
        if partial {
            result.partial = true;
            return Err(ends(Status::Interrupted, "interrupted: the result is partial"));
        }
    }
    fit_memory(places, result);
    match late.first() {
        Some(first) => {
            let text =
                format!("{} of {} places did not keep their schedule; {first}", late.len(), places.len());
            Err(ends(Status::GeneratorBehind, text))
        }
        None => Ok(()),
    }
}

/// Fits a line to the memory of each server over the numbers of connections that it was measured with.
fn fit_memory(places: &[Settings], result: &mut RunResult) {
    let mut from = 0;
    while let Some(first) = places.get(from) {
        let same = |place: &&Settings| place.server_reactors == first.server_reactors;
        let until = from + places[from..].iter().take_while(same).count();
        let of_one = &mut result.targets[from..until];
        let series = fit(of_one);
        if let Some(last) = of_one.last_mut() {
            last.memory.extend(series);
        }
        from = until;
    }
}

/// What a server that has served one place keeps of it is in the next, so the fewest bytes of each number count.
fn fit(targets: &[Target]) -> Option<MemorySeries> {
    let mut least: BTreeMap<u64, MemoryPoint> = BTreeMap::new();
    let open = targets.iter().filter_map(|target| target.memory.first()?.points.last());
    for point in open.filter(|point| point.connections > 0) {
        let known = least.entry(point.connections).or_insert_with(|| point.clone());
        if point.user_bytes < known.user_bytes {
            *known = point.clone();
        }
    }
    (least.len() >= 3).then(|| MemorySeries::fit("open, over the sweep", least.into_values().collect()))
}

/// What a place is called: where it differs from the others.
fn label(place: &Settings, connections: usize, size: usize) -> String {
    let mut label = format!("c{connections} {size}B");
    if let Some(depth) = place.depth {
        label.push_str(&format!(" d{depth}"));
    }
    if let Some(reactors) = place.server_reactors {
        label.push_str(&format!(" r{reactors}"));
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_every_combination() {
        let args = Args {
            settings: Settings::default(),
            file: None,
            connections_list: vec![1, 10],
            size_list: vec!["64".to_owned(), "1k".to_owned(), "16k".to_owned()],
            depth_list: Vec::new(),
            server_reactors_list: vec![1, 2],
            output: output::Args::default(),
        };
        let base = Settings { depth: Some(3), ..Settings::default() };
        let places = grid(&args, &base);
        assert_eq!(places.len(), 12);
        assert!(places.iter().all(|place| place.depth == Some(3)));
        let starts = places.windows(2).filter(|pair| pair[0].server_reactors != pair[1].server_reactors);
        assert_eq!(starts.count(), 1, "servers are not started more often than they must be");
        let labels: Vec<String> = places.iter().map(|place| label(place, 1, 1)).collect();
        assert_eq!(labels[0], "c1 1B d3 r1");
    }
}
