//! Runs `report` and `merge` on saved results, on results of others, and on files that are none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A result of schema 1 as it was once written: it must remain readable.
const SAVED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/run-1.json");

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corelane-bench")).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it prints where it succeeds.
fn succeeds(words: &[&str]) -> String {
    let Output { status, stdout, stderr } = bench(words);
    assert!(status.success(), "{words:?}: {status}: {}", text(&stderr));
    assert!(stderr.is_empty(), "{}", text(&stderr));
    text(&stdout)
}

/// The one line that it says where it fails.
fn fails(words: &[&str], status: i32) -> String {
    let output = bench(words);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
    let line = said.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n') && line.starts_with("corelane-bench: "), "{said}");
    line.to_owned()
}

/// A new folder for a test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn saved() -> Value {
    serde_json::from_str(&fs::read_to_string(SAVED).unwrap()).unwrap()
}

fn read(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn write(path: &str, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn a_saved_result_is_shown_again() {
    let report = succeeds(&["report", SAVED]);
    for fact in
        ["1,000/s over 64 connections", "corelane", "3 sent late", "held    nothing lost", "RLIMIT_NOFILE"]
    {
        assert!(report.contains(fact), "no `{fact}` in:\n{report}");
    }
}

#[test]
fn every_format_is_written_and_read_again() {
    let folder = folder("formats");
    let [json, csv, series, log, page] =
        ["a.json", "a.csv", "a-series.csv", "a.hlog", "a.html"].map(|name| path(&folder, name));
    let first = succeeds(&["report", SAVED, "--json", &json, "--csv", &csv, "--hlog", &log, "--html", &page]);
    assert_eq!(read(&json), saved());
    assert_eq!(succeeds(&["report", &json]), first);
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), 5);
    assert_eq!(fs::read_to_string(&series).unwrap().lines().count(), 4);
    assert!(fs::read_to_string(&page).unwrap().contains("Latency by percentile"));
    let from_log = succeeds(&["report", &log]);
    assert!(from_log.contains("corelane") && from_log.contains("990 us"), "{from_log}");
}

#[test]
fn several_results_make_one_page() {
    let page = path(&folder("page"), "all.html");
    succeeds(&["report", SAVED, SAVED, "--html", &page]);
    assert_eq!(fs::read_to_string(&page).unwrap().matches("<article>").count(), 2);
    assert!(fails(&["report", SAVED, SAVED, "--json", "x.json"], 2).contains("make one of them by `merge`"));
}

#[test]
fn results_of_two_machines_are_merged() {
    let folder = folder("merge");
    let [other, whole] = ["other.json", "whole.json"].map(|name| path(&folder, name));
    let mut result = saved();
    result["environments"][0]["host"] = json!("another");
    result["started_unix_ms"] = json!(result["started_unix_ms"].as_u64().unwrap() + 1_000);
    result["targets"][0]["started_unix_ms"] =
        json!(saved()["targets"][0]["started_unix_ms"].as_u64().unwrap() + 1_000);
    write(&other, &result);
    let report = succeeds(&["merge", SAVED, &other, "--json", &whole]);
    assert!(report.contains("6,000 sent") && report.contains("merged from"), "{report}");
    let merged = read(&whole);
    let target = &merged["targets"][0];
    assert_eq!(target["counts"]["received"], 6_000);
    assert_eq!(target["phases"]["reply"]["corrected"]["count"], 6_000);
    assert_eq!(target["series"].as_array().unwrap().len(), 4);
    let hosts: Vec<&Value> = merged["environments"].as_array().unwrap().iter().map(|e| &e["host"]).collect();
    assert_eq!(hosts, ["sample", "another"]);
    assert_eq!(merged["sources"].as_array().unwrap().len(), 2);
}

#[test]
fn logs_are_merged_with_logs_and_with_results() {
    let folder = folder("logs");
    let [log, both, mixed] = ["a.hlog", "both.hlog", "mixed.json"].map(|name| path(&folder, name));
    let [later, later_log] = ["later.json", "later.hlog"].map(|name| path(&folder, name));
    let second = |ms: u64| {
        let mut result = saved();
        let begun = result["targets"][0]["started_unix_ms"].as_u64().unwrap();
        result["targets"][0]["started_unix_ms"] = json!(begun + ms);
        result
    };
    write(&later, &second(1_000));
    succeeds(&["report", SAVED, "--hlog", &log]);
    succeeds(&["report", &later, "--hlog", &later_log]);
    // One measurement does not count twice, whatever it is kept in.
    for other in [SAVED, &log] {
        let why = fails(&["merge", SAVED, &later, other], 2);
        assert!(why.contains("tell of the same measurement, which would count twice"), "{why}");
    }
    succeeds(&["merge", &log, &later_log, "--hlog", &both]);
    assert!(succeeds(&["report", &both]).contains("6000"));
    succeeds(&["merge", SAVED, &both, "--json", &mixed]);
    assert_eq!(read(&mixed)["targets"][0]["phases"]["reply"]["corrected"]["count"], 9_000);
}

#[test]
fn results_of_different_plans_are_not_merged() {
    let other = path(&folder("plans"), "other.json");
    let mut result = saved();
    result["plan"]["load"]["rate"] = json!(2_000);
    write(&other, &result);
    let why = fails(&["merge", SAVED, &other], 2);
    assert!(why.contains("different plans: `load.rate` is 1000 in one, 2000 in the other"), "{why}");
}

#[test]
fn the_gate_decides_the_exit_status() {
    succeeds(&["report", SAVED, "--fail-if", "p99>1ms", "--fail-if", "rate<900"]);
    let why = fails(
        &["report", SAVED, "--fail-if", "p99>1ms", "--fail-if", "p50>400us", "--fail-if", "errors>0"],
        1,
    );
    assert!(
        why.contains("`p50>400us` holds: corelane is 500 us") && why.contains("`errors>0` holds"),
        "{why}"
    );
    assert!(!why.contains("p99"), "{why}");
    let output = bench(&["report", SAVED, "--fail-if", "p99>2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("needs a unit"), "{}", text(&output.stderr));
}

#[test]
fn a_baseline_may_be_replaced_by_what_is_compared_with_it() {
    let baseline = path(&folder("baseline"), "baseline.json");
    fs::copy(SAVED, &baseline).unwrap();
    let gate = format!("p99>+5% vs {baseline}");
    succeeds(&["report", SAVED, "--json", &baseline, "--fail-if", &gate]);
    let gate = format!("p99>-5% vs {baseline}");
    assert!(fails(&["report", SAVED, "--fail-if", &gate], 1).contains("in the baseline 990 us"));
    assert!(fails(&["report", SAVED, "--fail-if", "p99>+5% vs /no/such.json"], 2).contains("/no/such.json"));
}

#[test]
fn a_check_that_did_not_hold_is_a_failure() {
    let failed = path(&folder("check"), "failed.json");
    let mut result = saved();
    result["targets"][0]["checks"][0]["held"] = json!(false);
    write(&failed, &result);
    let why = fails(&["report", &failed], 1);
    assert!(why.contains("the check `nothing lost` of corelane failed"), "{why}");
}

#[test]
fn coordinated_omission_is_corrected_on_demand() {
    let folder = folder("correct");
    let [raw, corrected] = ["raw.json", "corrected.json"].map(|name| path(&folder, name));
    let without = {
        let mut result = saved();
        result["targets"][0]["phases"]["reply"].as_object_mut().unwrap().remove("corrected");
        result
    };
    // As a closed loop is kept: with an estimate, which another takes the place of.
    let mut estimated = saved();
    estimated["targets"][0]["phases"]["reply"]["filled_every_us"] = json!(7.0);
    let old = "closed loop: nothing is due at a time of its own. Raw is what was measured";
    estimated["targets"][0]["notes"] = json!([old]);
    for result in [without, estimated] {
        write(&raw, &result);
        let report = succeeds(&["report", &raw, "--correct", "500us", "--json", &corrected]);
        assert!(report.contains("every 500us") && !report.contains(old), "{report}");
        // 2,000 raw ones of 1 us to 2 ms: those from 1 ms held up one other each, those from 1.5 ms two.
        let reply = &read(&corrected)["targets"][0]["phases"]["reply"];
        let count = reply["corrected"]["count"].as_u64().unwrap();
        assert!((3_490..=3_515).contains(&count), "{count}");
        assert_eq!((&reply["filled_every_us"], &reply["raw"]["count"]), (&json!(500.0), &json!(2_000)));
    }
    // What counts from the intended start is not estimated anew.
    succeeds(&["report", SAVED, "--correct", "500us", "--json", &corrected]);
    assert_eq!(read(&corrected)["targets"][0]["phases"]["reply"], saved()["targets"][0]["phases"]["reply"]);
    assert!(fails(&["report", &raw, "--correct", "0s"], 2).contains("--correct must be at least 1us"));
}

#[test]
fn results_of_other_schemas_are_told_apart() {
    let file = path(&folder("schema"), "other.json");
    for (schema, why) in
        [(json!(2), "or a newer one"), (json!(0), "measure again"), (json!(null), "its schema is null")]
    {
        let mut result = saved();
        result["schema"] = schema;
        write(&file, &result);
        let said = fails(&["report", &file], 2);
        assert!(said.contains(why) && said.contains("other.json"), "{said}");
    }
}

#[test]
fn what_is_no_result_gets_one_clear_line() {
    let folder = folder("garbage");
    let file = path(&folder, "garbage");
    let mut wrong_field = saved();
    wrong_field["targets"] = json!("many");
    let mut wrong_histogram = saved();
    wrong_histogram["targets"][0]["phases"]["reply"]["raw"]["hdr_v2_ns"] = json!("AAAA");
    let cut = fs::read_to_string(SAVED).unwrap();
    for garbage in [
        Vec::new(),
        b"\n".to_vec(),
        vec![0, 159, 146, 150],
        b"{}".to_vec(),
        b"[1, 2]".to_vec(),
        b"{\"schema\": 1}".to_vec(),
        b"some\ntext\n".to_vec(),
        cut.as_bytes()[..cut.len() / 2].to_vec(),
        wrong_field.to_string().into_bytes(),
        wrong_histogram.to_string().into_bytes(),
        b"#[Histogram log format version 1.3]\n".to_vec(),
    ] {
        fs::write(&file, &garbage).unwrap();
        let said = fails(&["report", &file], 2);
        assert!(said.contains("cannot read") && said.contains("garbage"), "{said}");
        fails(&["merge", SAVED, &file], 2);
    }
    assert!(fails(&["report", "/no/such/file"], 2).contains("/no/such/file"));
    assert!(fails(&["report", SAVED, "--html", "/no/such/folder/a.html"], 2).contains("cannot create"));
}
