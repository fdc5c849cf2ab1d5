//! Results for people, as aligned text.

use std::fmt::Write as _;

use super::format::{bytes, count, moved};
use crate::latency::{format_distributions, format_ns};
use crate::result::{Check, Comparison, Cost, Counts, Generator, Kind, RunResult, Skew, Target, Verdict};
use crate::stats::{self, Estimate};

/// The report.
pub(super) fn render(result: &RunResult) -> String {
    let mut text = headline(result);
    text.push_str("\n\n");
    if !result.targets.is_empty() {
        text.push_str(&target_table(result));
    }
    text.push_str(&comparison_table(&result.comparisons));
    if !is_search(result) {
        text.push_str(&distributions(result));
    }
    for target in &result.targets {
        // Of many trials the table tells enough.
        let details = if is_search(result) { trial_details(target) } else { details(target) };
        let details = details + &lines_of(&own_notes(result, target));
        if !details.is_empty() {
            let title =
                if result.targets.len() > 1 { format!("\n{}\n", target.label) } else { "\n".to_owned() };
            text.push_str(&title);
            text.push_str(&details);
        }
    }
    text.push_str(&checks(result));
    text.push_str(&remarks(result));
    text
}

fn headline(result: &RunResult) -> String {
    let title = if result.title.is_empty() { result.command.clone() } else { result.title.clone() };
    let partial = if result.partial { "PARTIAL: " } else { "" };
    format!("{partial}{title}")
}

/// A line for each target, with medians over the turns where servers took turns.
fn target_table(result: &RunResult) -> String {
    let turns = result.targets.iter().any(|target| !target.slices.is_empty());
    let width = result.targets.iter().map(|target| target.label.chars().count()).max().unwrap_or(0).max(8);
    let mut table = format!(
        "{:width$} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7} {:>7}\n",
        if turns { "medians" } else { "target" },
        "messages/s",
        "CPU/msg",
        "p50",
        "p99",
        "p99.9",
        "max",
        "server",
        "client"
    );
    for target in &result.targets {
        let row = Row::of(target);
        let us = |value: Option<f64>| value.map_or_else(|| "n/a".to_owned(), |us| format_ns(us * 1e3));
        let percent = |value: Option<f64>| {
            value.map_or_else(|| "n/a".to_owned(), |share| format!("{:.0}%", share * 100.0))
        };
        let _ = writeln!(
            table,
            "{:width$} {:>11.0} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7} {:>7}",
            target.label,
            row.rate,
            us(row.cpu_us),
            us(row.p50_us),
            us(row.p99_us),
            us(row.p99_9_us),
            us(row.max_us),
            percent(row.server),
            percent(row.client),
        );
    }
    table
}

/// The main numbers of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) rate: f64,
    pub(super) cpu_us: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p99_9_us: Option<f64>,
    pub(super) max_us: Option<f64>,
    pub(super) server: Option<f64>,
    pub(super) client: Option<f64>,
}

impl Row {
    /// Medians over the turns where there were turns, else of the whole time.
    pub(super) fn of(target: &Target) -> Self {
        if target.slices.is_empty() {
            let at = |quantile| target.phases.reply.best().and_then(|reply| reply.quantile_us(quantile));
            let busy = |cost: &Option<Cost>| cost.as_ref().and_then(|cost| cost.utilisation);
            return Self {
                rate: target.messages_per_second,
                cpu_us: target.server_cost.as_ref().and_then(|cost| cost.cpu_us_per_message),
                p50_us: at(0.5),
                p99_us: at(0.99),
                p99_9_us: at(0.999),
                max_us: at(1.0),
                server: busy(&target.server_cost),
                client: busy(&target.client_cost),
            };
        }
        let median = |value: fn(&crate::result::Slice) -> f64| {
            stats::median(&target.slices.iter().map(value).collect::<Vec<f64>>())
        };
        Self {
            rate: median(|slice| slice.messages_per_second).unwrap_or_default(),
            cpu_us: median(|slice| slice.server_cpu_us_per_message),
            p50_us: median(|slice| slice.p50_us),
            p99_us: median(|slice| slice.p99_us),
            p99_9_us: median(|slice| slice.p99_9_us),
            max_us: median(|slice| slice.max_us),
            server: median(|slice| slice.server_utilisation),
            client: median(|slice| slice.client_utilisation),
        }
    }
}

/// A ratio and its interval.
pub(super) fn interval(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(
        || "n/a".to_owned(),
        |Estimate { median, low, high }| format!("{median:.3} [{low:.3}, {high:.3}]"),
    )
}

/// What may be said of a pair.
pub(super) fn verdict(comparison: &Comparison) -> String {
    let word = match comparison.verdict {
        _ if comparison.control => return String::new(),
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Undecided => "undecided",
    };
    comparison.reason.as_ref().map_or_else(|| word.to_owned(), |reason| format!("{word}: {reason}"))
}

/// A line for each number compared, a column for each pair.
fn comparison_table(comparisons: &[Comparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut metrics: Vec<&str> = Vec::new();
    for comparison in comparisons {
        let pair = (comparison.a.as_str(), comparison.b.as_str());
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
        if !metrics.contains(&comparison.metric.as_str()) {
            metrics.push(&comparison.metric);
        }
    }
    let mut table = format!("\n{:<15}", "ratio [95%]");
    for (a, b) in &pairs {
        let _ = write!(table, " {:>24}", format!("{a} / {b}"));
    }
    table.push_str("  verdict\n");
    let several =
        comparisons.iter().any(|comparison| !comparison.control && comparison.a != comparisons[0].a);
    for metric in metrics {
        let _ = write!(table, "{metric:<15}");
        let mut verdicts = Vec::new();
        for (a, b) in &pairs {
            let found = comparisons.iter().find(|c| c.metric == metric && c.a == *a && c.b == *b);
            let _ = write!(table, " {:>24}", interval(found.and_then(|found| found.ratio)));
            let said = found.map(verdict).filter(|verdict| !verdict.is_empty());
            verdicts.extend(said.map(|said| if several { format!("{a} {said}") } else { said }));
        }
        let _ = writeln!(table, "  {}", verdicts.join(", "));
    }
    table
}

/// The percentiles of every histogram, side by side.
fn distributions(result: &RunResult) -> String {
    let single = result.targets.len() == 1;
    let turns = result.targets.iter().any(|target| !target.slices.is_empty());
    let mut columns = Vec::new();
    for target in &result.targets {
        // Where servers take turns it is their replies that are compared, side by side.
        for (phase, histograms) in
            target.phases.named().into_iter().filter(|(phase, _)| !turns || *phase == "reply")
        {
            let both = histograms.corrected.is_some() && histograms.raw.is_some();
            let [corrected_name, raw_name] = if both { [" corrected", " raw"] } else { ["", ""] };
            let corrected = histograms.corrected.as_ref().map(|latencies| (corrected_name, latencies));
            let raw = histograms.raw.as_ref().map(|latencies| (raw_name, latencies));
            for (kind, latencies) in corrected.into_iter().chain(raw) {
                let name = match (single, phase) {
                    (true, _) => format!("{phase}{kind}"),
                    (false, "reply") => format!("{}{kind}", target.label),
                    (false, _) => format!("{} {phase}{kind}", target.label),
                };
                columns.push((name, latencies.histogram()));
            }
        }
    }
    if columns.is_empty() {
        return String::new();
    }
    let title = if turns { "all rounds together" } else { "latency" };
    let columns: Vec<_> = columns.iter().map(|(name, histogram)| (name.as_str(), *histogram)).collect();
    format!("\n{title}\n{}", format_distributions(&columns))
}

/// Whether each target is one trial of many.
pub(super) fn is_search(result: &RunResult) -> bool {
    matches!(result.kind, Kind::Sweep | Kind::FindMax)
}

/// What a trial has to tell beside its numbers.
fn trial_details(target: &Target) -> String {
    let is_doubtful = |generator: &Generator| generator.generator_bound || generator.limit_unknown;
    let generator =
        if target.generator.as_ref().is_some_and(is_doubtful) { generator(target) } else { String::new() };
    lines_of(&[("errors", errors(&target.counts)), ("generator", generator)])
}

fn own_notes(result: &RunResult, target: &Target) -> Vec<(&'static str, String)> {
    result.own_notes(target).into_iter().map(|note| ("note", note.to_owned())).collect()
}

/// What else is known of a target, a line for each kind.
fn details(target: &Target) -> String {
    lines_of(&run_details(target))
}

/// Lines with their names before them; a name stands once, and lines of nothing are left out.
fn lines_of(lines: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, values) in lines {
        let mut name = *name;
        for line in values.lines() {
            let _ = writeln!(text, "{name:<15} {line}");
            name = "";
        }
    }
    text
}

fn run_details(target: &Target) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("messages", messages(target)),
        ("connections", connections(&target.counts)),
        ("schedule", schedule(&target.counts)),
        ("errors", errors(&target.counts)),
    ];
    lines.push(("server", target.server_cost.as_ref().map_or_else(String::new, cost)));
    lines.push(("client", target.client_cost.as_ref().map_or_else(String::new, cost)));
    lines.push(("generator", generator(target)));
    lines.push(("memory", memory(target)));
    lines.push(("reactors", target.skew.as_ref().map_or_else(String::new, skew)));
    lines.push(("kernel", moved(&target.kernel)));
    lines
}

fn messages(target: &Target) -> String {
    let counts = &target.counts;
    if counts.sent == 0 && counts.received == 0 {
        return String::new();
    }
    let verified = match counts.verified_bytes {
        0 => "no byte verified".to_owned(),
        verified if verified >= counts.received_bytes => "every byte verified".to_owned(),
        verified => format!("{} of {} verified", bytes(verified), bytes(counts.received_bytes)),
    };
    let mut parts = Vec::new();
    match target.settings.get("scenario").and_then(|scenario| scenario.as_str()) {
        Some("broadcast") => {
            let seconds = target.seconds;
            parts.push(format!("{} lines published in {seconds:.1} s", count(counts.sent)));
            parts.push(format!(
                "{} deliveries within it, {} after it",
                count(counts.received),
                count(counts.outstanding)
            ));
        }
        _ => {
            parts.push(answers(counts, target.seconds));
            if counts.carried_in > 0 {
                let (all, before) = (count(counts.received), count(counts.carried_in));
                parts.push(format!("the rate is of {all} replies, {before} of them to messages sent before"));
            }
        }
    }
    parts.push(format!("{} received in the whole run, {verified}", bytes(counts.received_bytes)));
    parts.join("\n")
}

/// What became of the messages of the measured time; the parts add up to what was sent.
fn answers(counts: &Counts, seconds: f64) -> String {
    let (sent, answered) = (count(counts.sent), count(counts.answered_in_time()));
    let mut text = format!("{sent} sent, {answered} answered in {seconds:.1} s");
    if counts.outstanding > 0 {
        let _ = write!(text, ", {} outstanding at its end and answered later", count(counts.outstanding));
    }
    if counts.unanswered > 0 {
        let _ = write!(text, ", {} never answered", count(counts.unanswered));
    }
    text
}

fn connections(counts: &Counts) -> String {
    if counts.connections_asked == 0 && counts.connections_opened == 0 {
        return String::new();
    }
    format!(
        "{} asked for, {} opened, {} lost",
        count(counts.connections_asked),
        count(counts.connections_opened),
        count(counts.connections_lost)
    )
}

fn schedule(counts: &Counts) -> String {
    if counts.late == 0 && counts.never_sent == 0 {
        return String::new();
    }
    let share = |part: u64| part as f64 / counts.due().max(1) as f64 * 100.0;
    format!(
        "{} sent late ({:.2}%), {} never sent ({:.2}%)",
        count(counts.late),
        share(counts.late),
        count(counts.never_sent),
        share(counts.never_sent)
    )
}

fn errors(counts: &Counts) -> String {
    let each: Vec<String> = counts.errors.iter().map(|(kind, n)| format!("{} {kind}", count(*n))).collect();
    each.join(", ")
}

fn cost(cost: &Cost) -> String {
    let mut parts = vec![format!("{:.2} s of CPU", cost.cpu_s)];
    parts.extend(cost.cpu_us_per_message.map(|us| format!("{} per message", format_ns(us * 1e3))));
    parts.extend(cost.utilisation.map(|share| format!("{:.0}% of its CPUs", share * 100.0)));
    parts.extend(cost.switches_per_message.map(|n| format!("{n:.3} context switches per message")));
    parts.extend(cost.system_calls_per_message.map(|n| format!("{n:.3} system calls per message")));
    parts.join(", ")
}

fn generator(target: &Target) -> String {
    let Some(generator) = &target.generator else {
        return String::new();
    };
    let because = |unsaid: &str| generator.reason.clone().unwrap_or_else(|| unsaid.to_owned());
    let bound = match (generator.generator_bound, generator.limit_unknown) {
        (true, _) => {
            format!("GENERATOR-BOUND: {}", because("the rate is the generator's, not the server's"))
        }
        (false, true) => format!("LIMIT NOT KNOWN: {}", because("the server could not be watched")),
        (false, false) => "not the limit".to_owned(),
    };
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    let busiest = |who: &str, share: Option<f64>| share.map(|share| format!(", {who} {}", percent(share)));
    let own = busiest("its busiest reactor", generator.busiest).unwrap_or_default();
    let server = busiest("the server's busiest thread", generator.server_busiest).unwrap_or_default();
    format!("{} busy{own}{server}; {bound}", percent(generator.utilisation))
}

fn memory(target: &Target) -> String {
    let mut text = String::new();
    for series in &target.memory {
        let slope = |name: &str, line: Option<stats::Line>| {
            line.map(|line| {
                let (slope, fit, base) = (line.slope, line.r_squared, bytes(line.intercept.max(0.0) as u64));
                format!("{name} {slope:.1} B a connection and {base} besides (R² {fit:.5})")
            })
        };
        let lines: Vec<String> =
            [slope("user", series.user), slope("kernel", series.kernel)].into_iter().flatten().collect();
        let colon = if lines.is_empty() { "" } else { ": " };
        let _ = writeln!(text, "{}{colon}{}", series.state, lines.join("; "));
        for point in &series.points {
            let besides = [
                ("resident", point.resident_bytes),
                ("kernel", point.kernel_bytes),
                ("TCP buffers", point.buffer_bytes),
            ];
            let besides: String = besides
                .into_iter()
                .filter_map(|(name, size)| Some(format!(", {name} {}", bytes(size?))))
                .collect();
            let _ = writeln!(
                text,
                "  {:>11} connections: user {}{besides}",
                count(point.connections),
                bytes(point.user_bytes)
            );
        }
    }
    text
}

fn skew(skew: &Skew) -> String {
    let side = |name: &str, values: &[u64]| {
        let (least, most) = (values.iter().min()?, values.iter().max()?);
        let ratio = Skew::most_to_mean(values)?;
        Some(format!("{name} {} to {} each, most to mean {ratio:.2}", count(*least), count(*most)))
    };
    let sides = [side("connections", &skew.connections), side("messages", &skew.messages)];
    sides.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn checks(result: &RunResult) -> String {
    let mut text = String::new();
    let several = result.targets.len() > 1;
    for (label, Check { name, asserted, held, detail }) in result.all_checks() {
        let word = if *held { "held" } else { "FAILED" };
        let of = label.filter(|_| several).map_or_else(String::new, |label| format!("{label}: "));
        let detail = detail.as_ref().map_or_else(String::new, |detail| format!(" ({detail})"));
        let _ = writeln!(text, "{word:<7} {of}{name}: {asserted}{detail}");
    }
    if text.is_empty() { text } else { format!("\nchecks\n{text}") }
}

fn remarks(result: &RunResult) -> String {
    let mut text = String::new();
    for limit in &result.limits {
        let _ = writeln!(text, "\nlimit: {limit}");
    }
    for note in result.common_notes() {
        let _ = writeln!(text, "\nnote: {note}");
    }
    if let Some(failure) = &result.failure {
        let _ = writeln!(text, "\nfailed: {failure}");
    }
    if !result.sources.is_empty() {
        let _ = writeln!(text, "\nmerged from {}", result.sources.join(", "));
    }
    text
}
