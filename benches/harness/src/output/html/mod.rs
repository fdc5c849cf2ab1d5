//! Results as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! It is XML as well, so that it can be checked.

mod charts;
mod svg;
mod tables;

use std::fmt::Write as _;

use crate::result::RunResult;

const STYLE: &str = include_str!("style.css");

/// The page of one result or several.
pub(super) fn page(results: &[&RunResult]) -> String {
    let titles: Vec<String> = results.iter().map(|result| title(result)).collect();
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&titles.join(" | "))
    );
    for (index, result) in results.iter().enumerate() {
        page.push_str(&section(result, &format!("r{index}")));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn title(result: &RunResult) -> String {
    // Some titles begin with the command.
    let rest = result.title.strip_prefix(&result.command).unwrap_or(&result.title);
    let rest = rest.trim_start_matches([':', ' ']);
    let colon = if rest.is_empty() { "" } else { ": " };
    format!("corelane-bench {}{colon}{rest}", result.command)
}

fn section(result: &RunResult, prefix: &str) -> String {
    let hosts: Vec<&str> = result.environments.iter().map(|environment| environment.host.as_str()).collect();
    let on = if hosts.is_empty() { String::new() } else { format!(" on {}", hosts.join(", ")) };
    let mut html = format!(
        "<article>\n<h1>{}</h1>\n<p class=\"soft\">{}{}, {:.1} s</p>\n",
        escape(&title(result)),
        escape(&result.started),
        escape(&on),
        result.duration_s
    );
    html.push_str(&alarms(result));
    html.push_str(&tables::targets(result));
    html.push_str(&tables::checks(result));
    html.push_str(&tables::comparisons(result));
    let charts = charts::all(result, prefix);
    if !charts.is_empty() {
        let _ = write!(html, "<h2>Charts</h2>\n{charts}");
    }
    html.push_str(&tables::percentiles(result));
    html.push_str(&tables::counts(result));
    html.push_str(&tables::memory(result));
    html.push_str(&tables::remarks(result));
    html.push_str(&tables::environment(result));
    html.push_str("</article>\n");
    html
}

/// What puts the numbers in doubt, before any of them.
fn alarms(result: &RunResult) -> String {
    let mut alarms = Vec::new();
    if result.partial {
        alarms.push("This result is partial: the run ended before its time.".to_owned());
    }
    alarms.extend(result.failure.iter().map(|failure| format!("The run failed: {failure}")));
    for (label, check) in result.all_checks().filter(|(_, check)| !check.held) {
        let of = label.map_or_else(String::new, |label| format!(" of {label}"));
        alarms.push(format!("Did not hold: {}{of}: {}", check.name, check.asserted));
    }
    for target in &result.targets {
        let Some(generator) = &target.generator else { continue };
        let reason = generator.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        if generator.generator_bound {
            alarms.push(format!("{} is generator-bound: its rate is the generator's{reason}.", target.label));
        } else if generator.limit_unknown {
            alarms.push(format!("Whose the rate of {} is, is not known{reason}.", target.label));
        }
    }
    alarms.iter().fold(String::new(), |mut html, alarm| {
        let _ = writeln!(html, "<p class=\"alarm\">{}</p>", escape(alarm));
        html
    })
}

/// A text as it may stand in HTML, in an attribute too.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML knows no others.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_become_markup() {
        let escaped = escape("<script src=\"x\">'&\u{1}");
        assert_eq!(escaped, "&lt;script src=&quot;x&quot;&gt;&#39;&amp;\u{fffd}");
    }
}
