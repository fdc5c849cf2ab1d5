//! What is written can be read again, and is what it says it is.

use serde_json::{Value, json};

use super::{csv, hlog, html, json, text};
use crate::result::{RunResult, sample};

/// The schema that is published.
const SCHEMA: &str = include_str!("../../schema/result-1.json");

fn written(result: &RunResult) -> String {
    let mut file = Vec::new();
    json::write(&mut file, result).unwrap();
    String::from_utf8(file).unwrap()
}

fn log_of(result: &RunResult) -> String {
    let mut file = Vec::new();
    hlog::write(&mut file, result).unwrap();
    String::from_utf8(file).unwrap()
}

/// The sample that `tests/report.rs` reads: a result as this version writes it.
#[test]
#[ignore = "writes a file of the source tree"]
fn write_the_sample() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/run-1.json");
    std::fs::write(path, written(&sample::run())).unwrap();
}

/// A result as it is after it was in a file: without its clock, and with numbers as JSON has them.
fn settled(result: &RunResult) -> RunResult {
    json::read(&written(result)).unwrap()
}

#[test]
fn json_is_read_back_as_it_was() {
    for result in [sample::run(), sample::compare()] {
        let read = settled(&result);
        assert!(read.targets == result.targets && read.comparisons == result.comparisons);
        assert_eq!(read.environments, result.environments);
        assert!(written(&read) == written(&result));
    }
}

#[test]
fn json_follows_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut partial = sample::run();
    (partial.partial, partial.failure) = (true, Some("interrupted".to_owned()));
    partial.sources = vec!["a.json".to_owned()];
    let bare = RunResult::begin(crate::result::Kind::Stand, "c10k", &()).unwrap();
    for result in [sample::run(), sample::compare(), partial, bare] {
        let value: Value = serde_json::from_str(&written(&result)).unwrap();
        assert_eq!(violations(&schema, &schema, &value, "result"), [""; 0]);
    }
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let right: Value = serde_json::from_str(&written(&sample::run())).unwrap();
    for (pointer, wrong) in [
        ("/schema", json!(2)),
        ("/kind", json!("walk")),
        ("/targets", json!({})),
        ("/targets/0/label", json!(1)),
        ("/targets/0/seconds", json!(-1)),
        ("/targets/0/counts/sent", json!(1.5)),
        ("/targets/0/counts", json!({})),
        ("/targets/0/phases/reply/raw", json!({"p50": 1})),
        ("/targets/0/series/0/second", json!("first")),
        ("/environments/0/limits/open files", json!(["1"])),
    ] {
        let mut value = right.clone();
        *value.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = wrong;
        assert!(!violations(&schema, &schema, &value, "result").is_empty(), "{pointer}");
    }
}

/// Where a value does not follow a schema. Only the words of JSON Schema that ours uses are known; others
/// fail the test.
fn violations(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, rule) in schema.as_object().expect("a schema is an object") {
        let wrong = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" | "contentEncoding" => false,
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                let definition = root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
                found.extend(violations(root, definition, value, at));
                false
            }
            "type" => !match rule {
                Value::Array(types) => types.iter().any(|rule| has_type(value, rule)),
                rule => has_type(value, rule),
            },
            "const" => value != rule,
            "enum" => !rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_some_and(|number| number < rule.as_f64().unwrap()),
            "minItems" => value.as_array().is_some_and(|items| (items.len() as u64) < rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_some_and(|items| items.len() as u64 > rule.as_u64().unwrap()),
            "required" => {
                let missing = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
                rule.as_array().unwrap().iter().any(|name| missing(&name))
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = rule.get(name) {
                        found.extend(violations(root, schema, value, &format!("{at}.{name}")));
                    }
                }
                false
            }
            "additionalProperties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    if schema.get("properties").is_some_and(|known| known.get(name).is_some()) {
                        continue;
                    }
                    match rule {
                        Value::Bool(false) => found.push(format!("{at}.{name} is not known")),
                        rule => found.extend(violations(root, rule, value, &format!("{at}.{name}"))),
                    }
                }
                false
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(violations(root, rule, value, &format!("{at}[{index}]")));
                }
                false
            }
            other => panic!("`{other}` is not checked"),
        };
        if wrong {
            found.push(format!("{at}: {word} {rule}"));
        }
    }
    found
}

fn has_type(value: &Value, rule: &Value) -> bool {
    match rule.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("no type is called {other}"),
    }
}

#[test]
fn other_schemas_are_told_apart() {
    let change = |schema: Value| {
        let mut value: Value = serde_json::from_str(&written(&sample::run())).unwrap();
        value["schema"] = schema;
        format!("{:#}", json::read(&value.to_string()).unwrap_err())
    };
    assert!(change(json!(2)).contains("its schema is 2, but this corelane-bench reads 1"));
    assert!(change(json!(2)).contains("or a newer one"));
    assert!(change(json!(0)).contains("its schema is 0") && change(json!(0)).contains("measure again"));
    assert!(change(json!("new")).contains("its schema is \"new\""));
}

#[test]
fn a_histogram_that_is_none_is_told() {
    for (wrong, why) in
        [("???", "not base64"), ("AAAA", "not an HDR histogram"), ("", "not an HDR histogram")]
    {
        let mut value: Value = serde_json::from_str(&written(&sample::run())).unwrap();
        value["targets"][0]["phases"]["reply"]["raw"]["hdr_v2_ns"] = json!(wrong);
        let error = format!("{:#}", json::read(&value.to_string()).unwrap_err());
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn a_log_is_read_back_with_its_latencies_and_seconds() {
    let result = sample::run();
    let log = log_of(&result);
    assert!(log.contains("#[Histogram log format version 1.3]\n"), "{log}");
    let read = hlog::read(&log).unwrap();
    let (ours, theirs) = (&result.targets[0], &read.targets[0]);
    assert_eq!(read.targets.len(), 1);
    assert_eq!((&theirs.label, theirs.started_unix_ms, theirs.seconds), (&ours.label, sample::BEGAN, 3.0));
    assert_eq!(theirs.phases.reply.corrected, ours.phases.reply.corrected);
    assert_eq!(theirs.phases.reply.raw, ours.phases.reply.raw);
    assert_eq!(theirs.phases.connect, ours.phases.connect);
    assert_eq!(theirs.phases.first_byte, ours.phases.first_byte);
    assert_eq!(theirs.series.len(), 3);
    assert!(theirs.series.iter().all(|second| second.received == 1_000), "{theirs:?}");
    assert_eq!(theirs.messages_per_second, 1_000.0);
}

#[test]
fn a_log_of_several_targets_keeps_them_apart() {
    let mut result = sample::compare();
    result.targets[0].label = "a server, of ours".to_owned();
    let read = hlog::read(&log_of(&result)).unwrap();
    let labels: Vec<&str> = read.targets.iter().map(|target| target.label.as_str()).collect();
    assert_eq!(labels, ["B", "B'", "a_server__of_ours"]);
    for target in &read.targets {
        assert_eq!(target.phases.reply, result.targets[0].phases.reply, "{}", target.label);
        assert_eq!(target.phases.connect, result.targets[0].phases.connect);
    }
}

#[test]
fn a_log_of_another_program_is_read() {
    let histogram = sample::latencies(100, 1).encode().unwrap();
    let log = format!(
        "#[Logged by another program]\n#[Histogram log format version 1.2]\n\
         #[StartTime: 1441812279.474 (seconds since epoch), Wed Sep 09 08:24:39 PDT 2015]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
         0.127,1.007,0.1,{histogram}\n1.134,0.999,0.1,{histogram}\nTag=reads,1.134,0.999,0.1,{histogram}"
    );
    let read = hlog::read(&log).unwrap();
    assert_eq!(read.targets.len(), 2);
    let replies = read.target("log").unwrap();
    assert_eq!(replies.started_unix_ms, 1_441_812_279_601);
    assert_eq!(replies.phases.reply.raw.as_ref().unwrap().count(), 200);
    assert_eq!(read.target("reads").unwrap().counts.received, 100);
}

#[test]
fn a_log_that_is_none_is_told() {
    let histogram = sample::latencies(1, 1).encode().unwrap();
    for wrong in [
        String::new(),
        "#[StartTime: 1.0 (seconds since epoch), now]\n".to_owned(),
        "text".to_owned(),
        format!("0.1,1.0,{histogram}\n"),
        "0.1,1.0,2.0,notahistogram\n".to_owned(),
        format!("99999999999999999,1.0,2.0,{histogram}\n"),
    ] {
        assert!(hlog::read(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn csv_has_a_row_for_each_histogram_and_each_second() {
    let result = sample::run();
    let (mut percentiles, mut series) = (Vec::new(), Vec::new());
    csv::write_percentiles(&mut percentiles, &result).unwrap();
    csv::write_series(&mut series, &result).unwrap();
    let rows = |table: Vec<u8>| -> Vec<Vec<String>> {
        let text = String::from_utf8(table).unwrap();
        text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
    };
    let (percentiles, series) = (rows(percentiles), rows(series));
    assert_eq!((percentiles.len(), series.len()), (5, 4));
    for table in [&percentiles, &series] {
        assert!(table.iter().all(|row| row.len() == table[0].len()), "{table:?}");
    }
    let place = |name: &str| percentiles[0].iter().position(|column| column == name).unwrap();
    let corrected = percentiles.iter().find(|row| row[1] == "reply" && row[2] == "corrected").unwrap();
    assert_eq!(
        (corrected[place("count")].as_str(), corrected[place("p50_us")].as_str()),
        ("3000", "500.223")
    );
    assert_eq!(series[3][..3], ["corelane", "2", "1795275336198"]);
}

#[test]
fn csv_has_a_row_for_every_other_figure() {
    let mut result = sample::compare();
    let of_whole = crate::result::Check { name: "all by turns".to_owned(), ..Default::default() };
    result.checks = vec![of_whole];
    let mut second = result.environments[0].clone();
    second.host = "second".to_owned();
    result.environments.push(second);
    let mut table = Vec::new();
    csv::write_figures(&mut table, &result).unwrap();
    let table = String::from_utf8(table).unwrap();
    for row in [
        "target,figure,value",
        ",command,compare",
        ",comparisons.rate of A / B.verdict,better",
        ",comparisons.rate of A / B.rounds,8",
        ",comparisons.p99 of B' / B.control,true",
        ",comparisons.p99 of B' / B.ratio.median,1.0",
        ",checks.all by turns.held,false",
        ",environments.sample.kernel,Linux 6.1.0 #1 SMP",
        ",environments.second.sysctls.net.core.somaxconn,4096",
        ",environments.sample.limits.open files.0,20000",
        ",notes.0,a note of the whole",
        ",plan.seed,7",
        "A,checks.nothing lost.held,true",
        "A,checks.nothing lost.detail,one was opened anew",
        "B',kernel.TcpExt.ListenOverflows.after,12",
        "B,server_cost.system_calls_per_message,2.003",
    ] {
        assert!(table.lines().any(|line| line == row), "no `{row}` in:\n{table}");
    }
    for (metric, low) in
        result.comparisons.iter().filter(|c| !c.control).map(|c| (&c.metric, c.ratio.unwrap().low))
    {
        let row = format!(",comparisons.{metric} of A / B.ratio.low,{low}");
        assert!(table.lines().any(|line| line.starts_with(&row)), "no `{row}` in:\n{table}");
    }
    let mut figures = std::collections::HashSet::new();
    assert!(table.lines().all(|line| figures.insert(line.rsplit_once(',').unwrap().0)), "a figure twice");
}

#[test]
fn the_text_tells_what_matters() {
    let mut result = sample::run();
    result.targets[0].generator.as_mut().unwrap().generator_bound = true;
    result.targets[0].checks[0].held = false;
    result.failure = Some("interrupted".to_owned());
    result.partial = true;
    let text = text::render(&result);
    for fact in [
        "PARTIAL: 1,000/s over 64 connections",
        "every byte verified",
        "3 sent late (0.10%), 2 never sent (0.07%)",
        "1 reset",
        "GENERATOR-BOUND",
        "user 112.0 B a connection",
        "TcpExt.ListenOverflows +2",
        "FAILED  nothing lost",
        "limit: RLIMIT_NOFILE",
        "note: a note of the whole",
        "a note of the target",
        "failed: interrupted",
        "reply raw",
    ] {
        assert!(text.contains(fact), "no `{fact}` in:\n{text}");
    }
    let compared = text::render(&sample::compare());
    assert!(
        compared.contains("A / B") && compared.contains("B' / B") && compared.contains("better"),
        "{compared}"
    );
}

#[test]
fn a_limit_that_is_not_known_is_not_denied() {
    let mut result = sample::run();
    result.targets[0].generator.as_mut().unwrap().limit_unknown = true;
    let text = text::render(&result);
    assert!(text.contains("LIMIT NOT KNOWN: ") && !text.contains("not the limit"), "{text}");
    let page = html::page(&[&result]);
    assert!(page.contains("is not known") && page.contains("<td>not known</td>"), "{page}");
}

#[test]
fn what_all_targets_note_is_told_once() {
    let mut result = sample::run();
    result.targets.push(sample::target("another"));
    result.targets[1].notes.push("its own".to_owned());
    let text = text::render(&result);
    assert_eq!(text.matches("a note of the target").count(), 1, "{text}");
    assert_eq!(text.matches("its own").count(), 1, "{text}");
    let page = html::page(&[&result]);
    assert_eq!(
        (page.matches("a note of the target").count(), page.matches("another: its own").count()),
        (1, 1)
    );
}

#[test]
fn of_many_trials_the_table_is_told() {
    let mut result = sample::run();
    result.kind = crate::result::Kind::FindMax;
    result.targets = (1..=9).map(|n| sample::target(&format!("{n}/s"))).collect();
    result.targets[0].generator.as_mut().unwrap().generator_bound = true;
    let text = text::render(&result);
    assert!(
        text.contains("\n9/s ") && text.contains("GENERATOR-BOUND") && !text.contains("percentile"),
        "{text}"
    );
    let page = html::page(&[&result]);
    assert!(page.contains("Latency against rate") && !page.contains("Latency over time"), "too many charts");
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let (mut nasty, bare) = (sample::run(), RunResult::begin(crate::result::Kind::Run, "run", &()).unwrap());
    nasty.targets[0].label = "<script src='http://example.org/x.js'>&\"\u{7}".to_owned();
    nasty.notes.push("]]> <!-- </main>".to_owned());
    let mut found = sample::run();
    found.kind = crate::result::Kind::FindMax;
    for results in [
        vec![&sample::run()],
        vec![&sample::compare(), &sample::run()],
        vec![&nasty],
        vec![&bare],
        vec![&found],
    ] {
        let page = html::page(&results);
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
        let mut ids = std::collections::HashSet::new();
        for node in document.descendants().filter(roxmltree::Node::is_element) {
            let name = node.tag_name().name();
            assert!(
                !["script", "link", "img", "image", "iframe", "object", "use", "a"].contains(&name),
                "{name}"
            );
            for attribute in node.attributes() {
                assert!(
                    !["src", "href", "srcset", "data", "style"].contains(&attribute.name()),
                    "{attribute:?}"
                );
            }
            assert!(node.attribute("id").is_none_or(|id| ids.insert(id.to_owned())), "an id twice");
        }
        let style = document.descendants().find(|node| node.has_tag_name("style")).unwrap();
        let style = style.text().unwrap();
        assert!(!style.contains("url(") && !style.contains("@import"), "the style refers to something");
        for scheme in ["prefers-color-scheme: dark", "@media print"] {
            assert!(style.contains(scheme), "{scheme}");
        }
    }
}

#[test]
fn the_percentiles_of_eight_servers_are_told_apart() {
    let mut result = sample::compare();
    result.targets = (0..8).map(|n| sample::target(&format!("server {n}"))).collect();
    for target in &mut result.targets {
        (target.phases.connect, target.phases.first_byte) = Default::default();
    }
    let page = html::page(&[&result]);
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let is_chart = |node: &roxmltree::Node<'_, '_>| {
        node.attribute("class") == Some("chart")
            && node.children().any(|child| child.text().is_some_and(|text| text.starts_with("Latency by")))
    };
    let chart = document.descendants().find(is_chart).expect("no chart of percentiles");
    let lines = chart.descendants().filter(|node| node.has_tag_name("polyline"));
    let looks: Vec<&str> = lines.map(|line| line.attribute("class").unwrap()).collect();
    assert_eq!(looks.len(), 16, "from when due, and thinner from when sent");
    assert_eq!(looks.iter().collect::<std::collections::HashSet<_>>().len(), 16, "{looks:?}");
    assert_eq!(looks.iter().filter(|look| look.ends_with(" thin")).count(), 8);
}

#[test]
fn nothing_is_folded_away_on_paper() {
    let page = html::page(&[&sample::run()]);
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let details: Vec<_> = document.descendants().filter(|node| node.has_tag_name("details")).collect();
    assert_eq!(details.len(), 2, "the kernel's settings and the plan");
    assert!(details.iter().all(|node| node.attribute("open").is_some()));
    // Nor what a reader has closed.
    assert!(page.split_once("@media print").unwrap().1.contains("details::details-content"));
}

#[test]
fn every_chart_is_named_and_within_its_frame() {
    let mut result = sample::compare();
    result.targets.push(sample::target("corelane"));
    let page = html::page(&[&result]);
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let charts: Vec<_> =
        document.descendants().filter(|node| node.attribute("class") == Some("chart")).collect();
    let titles: Vec<&str> = charts
        .iter()
        .map(|chart| chart.children().find(|node| node.has_tag_name("title")).unwrap().text().unwrap())
        .collect();
    for wanted in
        ["Ratios", "Latency by percentile", "Rate over time", "Latency over time", "Memory", "Rate by round"]
    {
        assert!(titles.iter().any(|title| title.starts_with(wanted)), "no {wanted} in {titles:?}");
    }
    for chart in charts {
        assert_eq!(chart.attribute("role"), Some("img"));
        let frame: Vec<f64> =
            chart.attribute("viewBox").unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
        for line in chart.descendants().filter(|node| node.has_tag_name("polyline")) {
            for point in line.attribute("points").unwrap().split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((0.0..=frame[2]).contains(&x) && (0.0..=frame[3]).contains(&y), "{point}");
            }
        }
    }
}

#[test]
fn a_failed_run_is_written_and_keeps_its_status() {
    use crate::outcome::{Status, ends, line};
    let path = std::env::temp_dir().join(format!("corelane-bench-output-{}.json", std::process::id()));
    let arguments = super::Args { json: Some(path.clone()), ..super::Args::default() };
    let mut result = sample::run();
    // What was asserted of a whole run says nothing of a part of it.
    result.targets[0].checks[0].held = false;
    let failure = ends(Status::Interrupted, "interrupted");
    let mut output = arguments.open().unwrap();
    output.text = Box::new(std::io::sink());
    let error = output.deliver(result, Err(failure)).unwrap_err();
    assert_eq!((Status::of(&error), line(&error).as_str()), (Status::Interrupted, "interrupted"));
    let read = super::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(read.partial && read.failure.as_deref() == Some("interrupted"), "{read:?}");
}

/// An estimate is not what was measured: a log holds the raw latencies of a closed loop, and says so.
#[test]
fn a_log_of_a_closed_loop_holds_what_was_measured() {
    let mut result = sample::run();
    let reply = &mut result.targets[0].phases.reply;
    reply.fill_in(50_000);
    let raw = reply.raw.clone();
    assert!(reply.corrected.as_ref().unwrap().count() > raw.as_ref().unwrap().count());
    // The seconds of the sample are of other latencies.
    result.targets[0].series.clear();
    let log = log_of(&result);
    assert!(!log.contains("corrected"), "{log}");
    let read = hlog::read(&log).unwrap();
    let reply = &read.targets[0].phases.reply;
    assert!(reply.corrected.is_none() && reply.raw == raw, "{reply:?}");
}
