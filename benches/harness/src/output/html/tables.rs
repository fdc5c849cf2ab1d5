//! The tables of a result.

use std::fmt::Write as _;

use super::escape;
use crate::latency::format_ns;
use crate::output::format::{bytes, count, moved};
use crate::output::text::{self, Row};
use crate::result::{RunResult, Skew, Target};

/// The percentiles in the table.
const PERCENTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Bytes of a cell from which on it is broken into lines.
const LONG: usize = 40;

/// A table with a heading; the first cell of each row names it.
fn table(heading: &str, caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heading = if heading.is_empty() { String::new() } else { format!("<h2>{}</h2>\n", escape(heading)) };
    let mut html = format!("{heading}<div class=\"scroll\"><table>\n");
    if !caption.is_empty() {
        let _ = writeln!(html, "<caption>{}</caption>", escape(caption));
    }
    // Words read better from the left.
    let wordy = |cell: &String| cell.chars().filter(|c| c.is_alphabetic()).count() > 8;
    let is_text = |index: usize| {
        let words = rows.iter().filter_map(|row| row.get(index)).filter(|cell| wordy(cell)).count();
        index == 0 || words * 2 > rows.len()
    };
    html.push_str("<thead><tr>");
    for (index, name) in head.iter().enumerate() {
        let class = if is_text(index) { " class=\"text\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{class}>{}</th>", escape(name));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = match index {
                0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                _ if is_text(index) || cell.len() > LONG => write!(html, "<td class=\"text\">{cell}</td>"),
                _ => write!(html, "<td>{cell}</td>"),
            };
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

fn us(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |us| format_ns(us * 1e3))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

/// The main numbers.
pub(super) fn targets(result: &RunResult) -> String {
    let turns = result.targets.iter().any(|target| !target.slices.is_empty());
    let caption = if turns { "Medians over the turns of each server." } else { "" };
    let head =
        ["target", "messages/s", "CPU/message", "p50", "p99", "p99.9", "max", "server busy", "client busy"];
    let rows: Vec<Vec<String>> = result
        .targets
        .iter()
        .map(|target| {
            let row = Row::of(target);
            vec![
                target.label.clone(),
                count(row.rate as u64),
                us(row.cpu_us),
                us(row.p50_us),
                us(row.p99_us),
                us(row.p99_9_us),
                us(row.max_us),
                percent(row.server),
                percent(row.client),
            ]
        })
        .collect();
    table("Summary", caption, &head, &rows)
}

pub(super) fn checks(result: &RunResult) -> String {
    let rows: Vec<Vec<String>> = result
        .all_checks()
        .map(|(label, check)| {
            vec![
                check.name.clone(),
                if check.held { "held" } else { "FAILED" }.to_owned(),
                label.unwrap_or_default().to_owned(),
                check.asserted.clone(),
                check.detail.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table("Checks", "", &["check", "", "target", "asserted", "seen"], &rows)
}

pub(super) fn comparisons(result: &RunResult) -> String {
    let rows: Vec<Vec<String>> = result
        .comparisons
        .iter()
        .map(|comparison| {
            vec![
                comparison.metric.clone(),
                format!("{} / {}", comparison.a, comparison.b),
                text::interval(comparison.ratio),
                comparison.rounds.to_string(),
                if comparison.control { "control".to_owned() } else { text::verdict(comparison) },
            ]
        })
        .collect();
    let caption = "Better or worse only where the interval lies beside 1 and beside the control's.";
    table("Comparison", caption, &["number", "of", "ratio [95%]", "rounds", "verdict"], &rows)
}

pub(super) fn percentiles(result: &RunResult) -> String {
    let mut rows = Vec::new();
    for target in &result.targets {
        for (phase, histograms) in target.phases.named() {
            let corrected =
                if histograms.filled_every_us.is_some() { "corrected (filled in)" } else { "from when due" };
            for (kind, latencies) in
                [(corrected, &histograms.corrected), ("from when begun", &histograms.raw)]
            {
                let Some(latencies) = latencies else { continue };
                let mut row = vec![format!("{}, {phase} {kind}", target.label)];
                row.extend(PERCENTILES.map(|(_, quantile)| us(latencies.quantile_us(quantile))));
                row.push(us(latencies.mean_us()));
                row.push(count(latencies.count()));
                rows.push(row);
            }
        }
    }
    let mut head = vec!["histogram"];
    head.extend(PERCENTILES.map(|(name, _)| name));
    head.extend(["mean", "samples"]);
    table("Percentiles", "", &head, &rows)
}

/// What a row tells of a target, if that was measured.
type Cell<'a> = &'a dyn Fn(&Target) -> Option<String>;

/// What was counted, a column for each target.
pub(super) fn counts(result: &RunResult) -> String {
    let number =
        |of: fn(&Target) -> u64| move |target: &Target| Some(of(target)).filter(|n| *n > 0).map(count);
    let rows: [(&str, Cell<'_>); 28] = [
        ("measured time", &|target| Some(format!("{:.2} s", target.seconds))),
        ("connections asked for", &number(|target| target.counts.connections_asked)),
        ("connections opened", &number(|target| target.counts.connections_opened)),
        ("connections lost", &|target| Some(count(target.counts.connections_lost))),
        ("messages sent", &number(|target| target.counts.sent)),
        ("replies in the measured time", &number(|target| target.counts.received)),
        ("of them to messages sent before", &number(|target| target.counts.carried_in)),
        ("outstanding at its end, answered later", &number(|target| target.counts.outstanding)),
        ("never answered", &number(|target| target.counts.unanswered)),
        ("bytes received in the whole run", &|target| Some(bytes(target.counts.received_bytes))),
        ("bytes verified", &|target| Some(bytes(target.counts.verified_bytes))),
        ("sent late", &|target| Some(count(target.counts.late))),
        ("never sent", &|target| Some(count(target.counts.never_sent))),
        ("errors", &|target| Some(errors(target))),
        ("connections by event loop", &|target| {
            target.skew.as_ref().and_then(|skew| even(&skew.connections))
        }),
        ("messages by event loop", &|target| target.skew.as_ref().and_then(|skew| even(&skew.messages))),
        ("client's busiest reactor", &|target| Some(share(target.generator.as_ref()?.busiest?))),
        ("server's busiest thread", &|target| Some(share(target.generator.as_ref()?.server_busiest?))),
        ("generator-bound", &|target| {
            let generator = target.generator.as_ref()?;
            let answer = match (generator.generator_bound, generator.limit_unknown) {
                (true, _) => "yes",
                (false, true) => "not known",
                (false, false) => "no",
            };
            Some(answer.to_owned())
        }),
        ("CPU of the server", &|target| {
            target.server_cost.as_ref().map(|cost| format!("{:.2} s", cost.cpu_s))
        }),
        ("CPU of the client", &|target| {
            target.client_cost.as_ref().map(|cost| format!("{:.2} s", cost.cpu_s))
        }),
        ("server CPU/message", &|target| {
            target.server_cost.as_ref()?.cpu_us_per_message.map(|us| format_ns(us * 1e3))
        }),
        ("client CPU/message", &|target| {
            target.client_cost.as_ref()?.cpu_us_per_message.map(|us| format_ns(us * 1e3))
        }),
        ("server context switches/message", &|target| {
            target.server_cost.as_ref()?.switches_per_message.map(|n| format!("{n:.3}"))
        }),
        ("client context switches/message", &|target| {
            target.client_cost.as_ref()?.switches_per_message.map(|n| format!("{n:.3}"))
        }),
        ("server system calls/message", &|target| {
            target.server_cost.as_ref()?.system_calls_per_message.map(|n| format!("{n:.3}"))
        }),
        ("client system calls/message", &|target| {
            target.client_cost.as_ref()?.system_calls_per_message.map(|n| format!("{n:.3}"))
        }),
        ("the kernel's counters", &|target| Some(moved(&target.kernel)).filter(|text| !text.is_empty())),
    ];
    let mut head = vec![""];
    head.extend(result.targets.iter().map(|target| target.label.as_str()));
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .filter_map(|(name, cell)| {
            let cells: Vec<Option<String>> = result.targets.iter().map(cell).collect();
            cells.iter().any(Option::is_some).then(|| {
                let cells = cells.into_iter().map(Option::unwrap_or_default);
                std::iter::once(name.to_owned()).chain(cells).collect()
            })
        })
        .collect();
    table("Counts and costs", "", &head, &rows)
}

fn share(share: f64) -> String {
    percent(Some(share))
}

/// Each event loop's number, and how far the largest is above the mean.
fn even(numbers: &[u64]) -> Option<String> {
    let each: Vec<String> = numbers.iter().map(|number| count(*number)).collect();
    Some(format!("{}: most to mean {:.2}", each.join(", "), Skew::most_to_mean(numbers)?))
}

fn errors(target: &Target) -> String {
    if target.counts.errors.is_empty() {
        return "0".to_owned();
    }
    let each: Vec<String> =
        target.counts.errors.iter().map(|(kind, n)| format!("{} {kind}", count(*n))).collect();
    each.join(", ")
}

pub(super) fn memory(result: &RunResult) -> String {
    let mut rows = Vec::new();
    let size = |size: Option<u64>| size.map_or_else(|| "n/a".to_owned(), bytes);
    for target in &result.targets {
        for series in &target.memory {
            for point in &series.points {
                rows.push(vec![
                    format!("{}, {}", target.label, series.state),
                    count(point.connections),
                    bytes(point.user_bytes),
                    size(point.kernel_bytes),
                    size(point.resident_bytes),
                    size(point.buffer_bytes),
                ]);
            }
            for (side, line) in [("user", series.user), ("kernel", series.kernel)] {
                if let Some(line) = line {
                    rows.push(vec![
                        format!("{}, {}: line of {side} memory", target.label, series.state),
                        format!("{:.1} B each", line.slope),
                        format!("{} besides", bytes(line.intercept.max(0.0) as u64)),
                        format!("R² {:.5}", line.r_squared),
                        String::new(),
                        String::new(),
                    ]);
                }
            }
        }
    }
    let head = ["state", "connections", "user (PSS)", "kernel (Slab)", "resident (RSS)", "TCP buffers"];
    table("Memory of the server", "", &head, &rows)
}

/// Notes and limits.
pub(super) fn remarks(result: &RunResult) -> String {
    let of_targets = result.targets.iter().flat_map(|target| {
        result.own_notes(target).into_iter().map(|note| format!("{}: {note}", target.label))
    });
    let limits = result.limits.iter().map(|limit| format!("Limit: {limit}"));
    let sources = result.sources.iter().map(|source| format!("Merged from {source}"));
    let all: Vec<String> = result
        .common_notes()
        .into_iter()
        .map(str::to_owned)
        .chain(of_targets)
        .chain(limits)
        .chain(sources)
        .collect();
    if all.is_empty() {
        return String::new();
    }
    let items: Vec<String> = all.iter().map(|text| format!("<li>{}</li>\n", escape(text))).collect();
    format!("<h2>Notes</h2>\n<ul>\n{}</ul>\n", items.concat())
}

/// Where and how it was measured.
pub(super) fn environment(result: &RunResult) -> String {
    let mut html = String::new();
    for environment in &result.environments {
        let or_not = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known".to_owned());
        let number =
            |number: Option<usize>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let list = |pairs: Vec<String>| pairs.join(", ");
        let cpus = format!(
            "{} of {} CPUs, {}, governor {}",
            number(environment.cpus_allowed),
            number(environment.cpus),
            or_not(&environment.cpu_model),
            or_not(&environment.cpu_governor)
        );
        let limits =
            environment.limits.iter().map(|(name, [soft, hard])| format!("{name} {soft} (hard {hard})"));
        let versions = environment.versions.iter().map(|(name, version)| format!("{name} {version}"));
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let rows = vec![
            row("command line", environment.command_line.join(" ")),
            row("kernel", environment.kernel.clone()),
            row("CPUs", cpus),
            row("memory", environment.memory_bytes.map_or_else(|| "not known".to_owned(), bytes)),
            row(
                "load before",
                environment.load_average.map_or_else(|| "not known".to_owned(), |n| format!("{n:.2}")),
            ),
            row(
                "commit",
                format!("{} ({} build)", or_not(&environment.commit), or_not(&environment.build_profile)),
            ),
            row("limits", list(limits.collect())),
            row("versions", list(versions.collect())),
        ];
        html.push_str(&table("", &environment.host, &["what", "value"], &rows));
        let sysctls: Vec<String> =
            environment.sysctls.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let _ = writeln!(
            html,
            "<details open=\"open\"><summary>Settings of the kernel</summary><pre>{}</pre></details>",
            escape(&sysctls.join("\n"))
        );
    }
    let plan = serde_json::to_string_pretty(&result.plan).unwrap_or_default();
    let _ = writeln!(
        html,
        "<details open=\"open\"><summary>Plan</summary><pre>{}</pre></details>",
        escape(&plan)
    );
    format!("<h2>Environment</h2>\n{html}")
}
