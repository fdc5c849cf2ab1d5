//! The charts of a result.

use super::svg::{Axis, Chart, Interval, Mark, Scale, Series, intervals};
use crate::latency::{Latencies, format_ns};
use crate::output::format::{bytes, count};
use crate::output::text;
use crate::result::{Comparison, MemoryPoint, MemorySeries, RunResult, Second, Slice, Target};
use crate::stats::Line;

/// Places on the percentile axis for each decade of 1/(1-q).
const PLACES_PER_DECADE: usize = 24;

/// The rarest percentile that is drawn: 99.99999%.
const MOST_DECADES: usize = 7;

/// Targets whose percentiles are drawn together: more lines would be a riddle.
const MOST_TARGETS: usize = 12;

/// The control's colour, among those of the charts.
const GREY: usize = 5;

/// From this ratio on, latencies are drawn on a logarithmic scale.
const WIDE: f64 = 8.0;

/// All charts of a result that there is something to draw in.
pub(super) fn all(result: &RunResult, prefix: &str) -> String {
    let made = [percentiles(result), tradeoff(result)];
    let mut charts: Vec<Chart> = made.into_iter().flatten().collect();
    charts.extend(over_rounds(result));
    // The seconds of many short trials tell nothing that their table does not.
    if !text::is_search(result) {
        charts.extend(result.targets.iter().flat_map(|target| over_time(target, result.targets.len() > 1)));
    }
    charts.extend(result.targets.iter().flat_map(|target| memory(target, result.targets.len() > 1)));
    let mut html = comparisons(&result.comparisons, &format!("{prefix}-ratios"));
    for (index, chart) in charts.iter().enumerate() {
        html.push_str(&chart.render(&format!("{prefix}-chart{index}")));
    }
    html
}

fn us(value: f64) -> String {
    format_ns(value * 1e3)
}

/// An axis of latencies in microseconds.
fn latency_axis(values: &[f64]) -> Axis {
    let positive = || values.iter().copied().filter(|value| *value > 0.0);
    let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
    if high > low * WIDE {
        Axis::over("latency (log scale)", Scale::Log, positive(), us)
    } else {
        Axis::over("latency", Scale::Linear, positive(), us)
    }
}

/// Latency over percentiles, of every histogram of replies.
fn percentiles(result: &RunResult) -> Option<Chart> {
    let single = result.targets.len() == 1;
    if result.targets.len() > MOST_TARGETS {
        return None;
    }
    let mut series = Vec::new();
    let mut most = 0;
    for (place, target) in result.targets.iter().enumerate() {
        let mut add = |name: String, mark: Mark, latencies: &Latencies| {
            if latencies.count() > 0 {
                most = most.max(latencies.count());
                // Of several targets each has a style, of one each of its lines.
                let style = if single { series.len() } else { place };
                series.push(Series { name, mark, style, points: curve(latencies) });
            }
        };
        let reply = &target.phases.reply;
        let label = &target.label;
        let is_filled = reply.filled_every_us.is_some();
        if let Some(corrected) = &reply.corrected {
            let name = match (single, is_filled) {
                (true, true) => "replies, corrected".to_owned(),
                (true, false) => "replies, from when due".to_owned(),
                (false, true) => format!("{label}, corrected"),
                (false, false) => label.clone(),
            };
            add(name, Mark::Line, corrected);
        }
        if let Some(raw) = &reply.raw {
            let beside = reply.corrected.is_some();
            let name = match (single, beside) {
                (true, true) => "replies, from when sent".to_owned(),
                (true, false) => "replies".to_owned(),
                (false, true) if is_filled => format!("{label}, as measured"),
                (false, true) => format!("{label}, from when sent"),
                (false, false) => label.clone(),
            };
            add(name, if beside { Mark::Thin } else { Mark::Line }, raw);
        }
        if single {
            for (name, phase) in
                [("connect", &target.phases.connect), ("first byte", &target.phases.first_byte)]
            {
                if let Some(latencies) = phase.best() {
                    add(name.to_owned(), Mark::Line, latencies);
                }
            }
        }
    }
    let values: Vec<f64> =
        series.iter().flat_map(|series| series.points.iter().map(|point| point.1)).collect();
    let ticks = ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%", "99.99999%"];
    let decades = decades(most);
    let ticks = ticks.into_iter().take(decades + 1).enumerate();
    let ticks = ticks.map(|(decade, text)| (10_f64.powi(decade as i32), text.to_owned())).collect();
    (!series.is_empty()).then(|| Chart {
        title: "Latency by percentile".to_owned(),
        description: describe(result),
        x: Axis::with_ticks(
            "percentile, on a logarithmic scale of 1/(1-q)",
            Scale::Log,
            10_f64.powi(decades as i32),
            ticks,
        ),
        y: latency_axis(&values),
        series,
    })
}

/// How many nines so many values can tell.
fn decades(values: u64) -> usize {
    ((values.max(1) as f64).log10().ceil() as usize).clamp(1, MOST_DECADES)
}

/// `(1/(1-q), latency in us)` up to the percentile that the number of values can tell.
fn curve(latencies: &Latencies) -> Vec<(f64, f64)> {
    let last = decades(latencies.count()) * PLACES_PER_DECADE;
    (0..=last)
        .filter_map(|place| {
            let x = 10_f64.powf(place as f64 / PLACES_PER_DECADE as f64);
            Some((x, latencies.quantile_us(1.0 - 1.0 / x)?))
        })
        .collect()
}

/// The percentiles in words.
fn describe(result: &RunResult) -> String {
    let of = |target: &Target| {
        let row = text::Row::of(target);
        let us = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), us);
        format!(
            "{}: p50 {}, p99 {}, p99.9 {}",
            target.label,
            us(row.p50_us),
            us(row.p99_us),
            us(row.p99_9_us)
        )
    };
    result.targets.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// Latency over the rate that was reached, where many were tried.
fn tradeoff(result: &RunResult) -> Option<Chart> {
    if !text::is_search(result) {
        return None;
    }
    let points = |quantile: f64| -> Vec<(f64, f64)> {
        let of = |target: &Target| {
            Some((target.messages_per_second, target.phases.reply.best()?.quantile_us(quantile)?))
        };
        let mut points: Vec<_> = result.targets.iter().filter_map(of).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    };
    let series: Vec<Series> = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)]
        .into_iter()
        .enumerate()
        .map(|(style, (name, q))| Series {
            name: name.to_owned(),
            mark: Mark::Points,
            style,
            points: points(q),
        })
        .collect();
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let values: Vec<f64> = all().map(|point| point.1).collect();
    if values.is_empty() {
        return None;
    }
    Some(Chart {
        title: "Latency against rate".to_owned(),
        description: describe(result),
        x: Axis::over("messages a second", Scale::Linear, all().map(|point| point.0), |n| count(n as u64)),
        y: latency_axis(&values),
        series,
    })
}

/// A chart of a number over the time or the rounds.
fn timeline(
    title: String,
    x_label: &str,
    y: impl FnOnce(&[f64]) -> Axis,
    series: Vec<Series>,
) -> Option<Chart> {
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let values: Vec<f64> = all().map(|point| point.1).collect();
    let (low, high) =
        values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
    if values.is_empty() {
        return None;
    }
    Some(Chart {
        description: format!("{} points, from {low:.0} to {high:.0}", values.len()),
        x: Axis::over(x_label, Scale::Linear, all().map(|point| point.0), |n| format!("{n}")),
        y: y(&values),
        title,
        series,
    })
}

fn rate_axis(values: &[f64]) -> Axis {
    Axis::over("messages a second", Scale::Linear, values.iter().copied(), |n| count(n as u64))
}

fn count_axis(values: &[f64]) -> Axis {
    Axis::over("in each second", Scale::Linear, values.iter().copied(), |n| count(n as u64))
}

/// Rate and latency second by second.
fn over_time(target: &Target, named: bool) -> Vec<Chart> {
    let of = if named { format!(" of {}", target.label) } else { String::new() };
    // One point is no line.
    if target.series.len() < 2 {
        return Vec::new();
    }
    let points = |value: &dyn Fn(&Second) -> Option<f64>| -> Vec<(f64, f64)> {
        target.series.iter().filter_map(|second| Some((f64::from(second.second), value(second)?))).collect()
    };
    let line = |name: &str, style: usize, value: &dyn Fn(&Second) -> Option<f64>| Series {
        name: name.to_owned(),
        mark: Mark::Line,
        style,
        points: points(value),
    };
    let mut rates = vec![line("answered", 0, &|second| Some(second.received as f64))];
    if target.series.iter().any(|second| second.sent != second.received && second.sent > 0) {
        rates.push(line("sent", 1, &|second| Some(second.sent as f64)));
    }
    let rare: Vec<Series> = [
        ("late", 2, (|second| second.late) as fn(&Second) -> u64),
        ("errors", 3, |second| second.errors),
        ("connections opened", 4, |second| second.opened),
    ]
    .into_iter()
    .filter(|(_, _, value)| target.series.iter().any(|second| value(second) > 0))
    .map(|(name, style, value)| line(name, style, &|second| Some(value(second) as f64)))
    .collect();
    let at = |quantile: f64| move |second: &Second| second.latency.as_ref()?.quantile_us(quantile);
    let latencies = vec![
        line("p50", 0, &at(0.5)),
        line("p99", 1, &at(0.99)),
        line("p99.9", 2, &at(0.999)),
        line("max", 3, &at(1.0)),
    ];
    let latencies =
        if latencies.iter().all(|series| series.points.is_empty()) { Vec::new() } else { latencies };
    let seconds = "seconds since the start of the measured time";
    [
        timeline(format!("Rate over time{of}"), seconds, rate_axis, rates),
        timeline(format!("Latency over time{of}"), seconds, latency_axis, latencies),
        timeline(format!("Opened, late and failed over time{of}"), seconds, count_axis, rare),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Rate and latency turn by turn, of all targets together.
fn over_rounds(result: &RunResult) -> Vec<Chart> {
    let lines = |value: fn(&Slice) -> f64| -> Vec<Series> {
        let with_turns = result.targets.iter().filter(|target| target.slices.len() > 1);
        with_turns
            .enumerate()
            .map(|(style, target)| Series {
                name: target.label.clone(),
                mark: Mark::Line,
                style,
                points: target.slices.iter().map(|slice| ((slice.round + 1) as f64, value(slice))).collect(),
            })
            .collect()
    };
    [
        timeline("Rate by round".to_owned(), "round", rate_axis, lines(|slice| slice.messages_per_second)),
        timeline("p99 by round".to_owned(), "round", latency_axis, lines(|slice| slice.p99_us)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Memory against connections with the fitted lines: the server's own, and the kernel's.
fn memory(target: &Target, named: bool) -> Vec<Chart> {
    let of = if named { format!(" of {}", target.label) } else { String::new() };
    let user = |point: &MemoryPoint| Some(point.user_bytes);
    [
        memory_of(target, format!("Memory of the server's processes against connections{of}"), user, |s| {
            s.user
        }),
        memory_of(
            target,
            format!("Memory of the kernel against connections{of}"),
            |p| p.kernel_bytes,
            |s| s.kernel,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn memory_of(
    target: &Target,
    title: String,
    bytes_of: fn(&MemoryPoint) -> Option<u64>,
    line_of: fn(&MemorySeries) -> Option<Line>,
) -> Option<Chart> {
    let mut series = Vec::new();
    let mut words = Vec::new();
    // A point or two are told by the table.
    target.memory.iter().find_map(line_of)?;
    for (style, state) in target.memory.iter().enumerate() {
        let place = |point: &MemoryPoint| Some((point.connections as f64, bytes_of(point)? as f64));
        let points: Vec<(f64, f64)> = state.points.iter().filter_map(place).collect();
        let Some(last) = points.last().map(|point| point.0) else { continue };
        let line = line_of(state);
        let slope = |line: Line| format!(": {:.1} B a connection, R² {:.5}", line.slope, line.r_squared);
        let name = format!("{}{}", state.state, line.map_or_else(String::new, slope));
        words.push(name.clone());
        series.push(Series { name, mark: Mark::Points, style, points });
        if let Some(line) = line {
            let points = vec![(0.0, line.intercept), (last, line.intercept + line.slope * last)];
            series.push(Series { name: format!("fit of {}", state.state), mark: Mark::Fit, style, points });
        }
    }
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    all().next()?;
    Some(Chart {
        title,
        description: words.join("; "),
        x: Axis::over("connections", Scale::Linear, all().map(|point| point.0), |n| count(n as u64)),
        y: Axis::around("memory (does not begin at 0)", all().map(|point| point.1.max(0.0)), |n| {
            bytes(n as u64)
        }),
        series,
    })
}

/// Ratios with their intervals.
fn comparisons(comparisons: &[Comparison], id: &str) -> String {
    let rows: Vec<Interval> = comparisons
        .iter()
        .filter_map(|comparison| {
            let ratio = comparison.ratio?;
            Some(Interval {
                name: format!("{}: {} / {}", comparison.metric, comparison.a, comparison.b),
                low: ratio.low,
                middle: ratio.median,
                high: ratio.high,
                style: if comparison.control { GREY } else { 0 },
                text: text::interval(Some(ratio)),
            })
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let words: Vec<String> = rows.iter().map(|row| format!("{} {}", row.name, row.text)).collect();
    intervals(id, "Ratios with their 95% intervals (grey: the control)", &words.join("; "), &rows)
}
