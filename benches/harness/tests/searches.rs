//! The commands that run again and again: `find-max`, `sweep`, `self-test`.

mod support;

use serde_json::Value;
use support::{ended_with_result, result};

fn labels(result: &Value) -> Vec<&str> {
    let targets = result["targets"].as_array().unwrap();
    targets.iter().map(|target| target["label"].as_str().unwrap()).collect()
}

/// With a limit that nothing exceeds the search ends at the highest rate that is to be tried.
#[test]
fn a_search_ends_at_the_highest_rate() {
    let arguments = "find-max --server builtin --rate 100 --highest 400 --limit 1h --duration 200ms --warmup 0s \
                     --tolerance 100 -c 4";
    let result = result("find-max", arguments);
    assert_eq!(labels(&result), ["100/s", "200/s", "400/s", "confirm 400/s"]);
    let check = &result["checks"][0];
    assert_eq!(check["held"], true);
    assert!(check["detail"].as_str().unwrap().contains("400/s, the highest"), "{check}");
    assert!(result["notes"][0].as_str().unwrap().contains("search: from 100/s"), "{}", result["notes"]);
    assert!(
        result["title"].as_str().unwrap().starts_with("the highest rate with a p99 of at most 1h, 4 conn")
    );
    let notes = result["targets"][0]["notes"].to_string();
    assert!(notes.contains("passed: ") && notes.contains("verified: "), "{notes}");
}

#[test]
fn a_limit_that_nothing_meets_is_a_failure() {
    let arguments =
        "find-max --server builtin --rate 40 --limit 1ns --duration 200ms --warmup 0s --tolerance 100 -c 4";
    let (ended, result) = ended_with_result("find-max-none", arguments);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("no rate passed"), "{}", ended.stderr);
    assert_eq!(labels(&result), ["40/s", "20/s", "10/s", "5/s", "2/s", "1/s"]);
}

#[test]
fn a_grid_is_measured_place_by_place() {
    let arguments = "sweep --server builtin --connections-list 1,4 --size-list 64,1k --server-reactors-list 1,2 \
                     --duration 600ms --warmup 0s";
    let result = result("sweep", arguments);
    let labels = labels(&result);
    assert_eq!(labels.len(), 8);
    assert_eq!((labels[0], labels[7]), ("c1 64B r1", "c4 1024B r2"));
    for target in result["targets"].as_array().unwrap() {
        assert!(target["messages_per_second"].as_f64().unwrap() > 0.0, "{target}");
    }
}

#[test]
fn a_sweep_fits_a_line_to_the_memory() {
    let arguments = "sweep --server builtin --connections-list 10,200,400 --duration 100ms --warmup 0s";
    let result = result("sweep-memory", arguments);
    assert_eq!(result["title"], "3 places: connections 10, 200, 400");
    let memory = result["targets"][2]["memory"].as_array().unwrap();
    let fitted = memory.last().unwrap();
    let counts: Vec<&Value> =
        fitted["points"].as_array().unwrap().iter().map(|point| &point["connections"]).collect();
    assert_eq!(counts, [10, 200, 400]);
    assert!(fitted["user"]["slope"].is_f64() && fitted["user"]["r_squared"].is_f64(), "{fitted}");
}

/// Every place is measured, and those whose schedule was not kept fail the sweep.
#[test]
fn a_sweep_fails_if_a_schedule_was_not_kept() {
    let arguments = "sweep --server builtin --connections-list 1,2 --rate 500 --duration 200ms --warmup 0s \
                     --late-after 1ns";
    let (ended, result) = ended_with_result("sweep-late", arguments);
    assert_eq!((ended.status, labels(&result).len()), (6, 2), "{}", ended.stderr);
    assert!(ended.stderr.contains("2 of 2 places did not keep their schedule; c1 64B: "), "{}", ended.stderr);
    assert_eq!(result["partial"], false);
}

/// A generator that did not count from when a message was due would be some 200 ms off.
#[test]
fn the_self_test_compares_with_arithmetic() {
    let arguments = "self-test --duration 1200ms --pause 300ms --every 600ms --attempts 5 --rate 200 \
                     --allow 150ms";
    let (ended, result) = ended_with_result("self-test", arguments);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let checks = result["targets"][0]["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert!(["every message", "p75", "p90", "p99", "p99.9", "p100"].iter().all(|name| names.contains(name)));
}
