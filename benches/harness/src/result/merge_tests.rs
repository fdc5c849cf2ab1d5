//! What is merged is the sum of its parts.

use proptest::prelude::*;
use serde_json::json;

use super::super::{MemoryPoint, MemorySeries, Phase, sample};
use super::*;
use crate::latency::Latencies;
use crate::result::Kind;

fn merged(parts: &[RunResult]) -> RunResult {
    let name = |index: usize| format!("{index}.json");
    merge(parts.iter().enumerate().map(|(index, part)| (name(index), part.clone())).collect()).unwrap()
}

fn refusal(one: RunResult, other: RunResult) -> String {
    format!("{:#}", merge(vec![("1.json".to_owned(), one), ("2.json".to_owned(), other)]).unwrap_err())
}

/// A sample that begins a moment later: another measurement than [`sample::run`].
fn another() -> RunResult {
    later(5)
}

/// A sample that begins so much later.
fn later(ms: u64) -> RunResult {
    let mut result = sample::run();
    result.started_unix_ms += ms;
    result.targets[0].started_unix_ms += ms;
    result
}

/// A sample of another machine, with a server of its own.
fn on(host: &str) -> RunResult {
    let mut result = sample::run();
    result.environments[0].host = host.to_owned();
    result
}

#[test]
fn counts_rates_and_histograms_add_up() {
    let whole = merged(&[on("one"), on("two"), on("three")]);
    let (one, target) = (&sample::run().targets[0], &whole.targets[0]);
    assert_eq!(whole.targets.len(), 1);
    assert_eq!((target.counts.sent, target.counts.never_sent, target.counts.late), (9_000, 6, 9));
    assert_eq!(target.counts.errors["reset"], 3);
    assert_eq!(target.messages_per_second, 3_000.0);
    let (many, single) = (target.phases.reply.corrected.as_ref(), one.phases.reply.corrected.as_ref());
    let (many, single) = (many.unwrap(), single.unwrap());
    assert_eq!(many.count(), 3 * single.count());
    assert_eq!(many.quantile_ns(0.99), single.quantile_ns(0.99));
    assert_eq!(target.skew.as_ref().unwrap().connections, [30, 34, 30, 34, 30, 34]);
    assert_eq!(target.kernel[0].after - target.kernel[0].before, 6);
    let cost = target.client_cost.as_ref().unwrap();
    assert!((cost.cpu_s - 0.18).abs() < 1e-9, "{cost:?}");
    assert!((cost.cpu_us_per_message.unwrap() - 20.0).abs() < 1e-9, "{cost:?}");
    assert_eq!(cost.system_calls["sendto"], 9_000);
    assert_eq!((whole.environments.len(), whole.sources.len()), (3, 3));
    assert_eq!(target.server.reactors, Some(6));
    let cost = target.server_cost.as_ref().unwrap();
    assert!((cost.cpu_s - 0.09).abs() < 1e-9 && (cost.cpu_us_per_message.unwrap() - 10.0).abs() < 1e-9);
    assert_eq!(whole.notes, sample::run().notes);
}

/// One server was measured twice: all that it took was for the messages of both.
#[test]
fn a_server_that_several_loaded_is_counted_once() {
    let mut far = [on("one"), on("two")];
    far.iter_mut()
        .for_each(|result| result.targets[0].server.address = Some("tcp://10.0.0.1:7000".to_owned()));
    for parts in [far, [sample::run(), another()]] {
        let whole = merged(&parts);
        let target = &whole.targets[0];
        assert_eq!((target.server.reactors, target.counts.received), (Some(2), 6_000));
        let cost = target.server_cost.as_ref().unwrap();
        assert!((cost.cpu_s - 0.03).abs() < 1e-9, "{cost:?}");
        assert!((cost.cpu_us_per_message.unwrap() - 5.0).abs() < 1e-9, "{cost:?}");
        assert!((cost.switches_per_message.unwrap() - 0.105).abs() < 1e-9, "{cost:?}");
        assert_eq!(target.skew.as_ref().unwrap().connections, [30, 34]);
        let client = target.client_cost.as_ref().unwrap();
        assert!((client.cpu_s - 0.12).abs() < 1e-9, "{client:?}");
    }
    let on_one_host = merged(&[sample::run(), another()]);
    assert_eq!((on_one_host.targets[0].kernel[0].before, on_one_host.targets[0].kernel[0].after), (10, 12));
}

#[test]
fn seconds_meet_by_wall_time() {
    let whole = merged(&[later(1_600), later(0)]);
    let target = &whole.targets[0];
    assert_eq!((target.started_unix_ms, whole.started_unix_ms), (sample::BEGAN, sample::BEGAN - 1_000));
    let received: Vec<(u32, u64)> =
        target.series.iter().map(|second| (second.second, second.received)).collect();
    assert_eq!(received, [(0, 1_000), (1, 1_000), (2, 2_000), (3, 1_000), (4, 1_000)]);
    assert_eq!(target.series[2].latency.as_ref().unwrap().count(), 2_000);
    assert_eq!(target.series[2].connections, Some(128));
    assert!((target.seconds - 4.6).abs() < 1e-3 && (whole.duration_s - 6.1).abs() < 1e-3);
    let note = whole.notes.iter().find(|note| note.contains("not reached at once"));
    assert!(note.unwrap().contains("corelane was measured by 2 machines"), "{:?}", whole.notes);
}

#[test]
fn a_part_that_is_partial_or_bound_makes_the_whole_so() {
    let mut bad = another();
    (bad.partial, bad.failure) = (true, Some("interrupted".to_owned()));
    let generator = bad.targets[0].generator.as_mut().unwrap();
    (generator.generator_bound, generator.reason) = (true, Some("98% busy".to_owned()));
    bad.targets[0].checks[0].held = false;
    let whole = merged(&[later(0), bad]);
    assert!(whole.partial && whole.failure.as_deref() == Some("1.json: interrupted"), "{whole:?}");
    let generator = whole.targets[0].generator.as_ref().unwrap();
    assert!(generator.generator_bound && generator.reason.as_deref() == Some("1.json: 98% busy"));
    let held: Vec<(&str, bool)> =
        whole.all_checks().map(|(_, check)| (check.name.as_str(), check.held)).collect();
    assert_eq!(held, [("nothing lost", true), ("nothing lost (1.json)", false)]);
}

#[test]
fn plans_must_be_the_same_but_for_each_machines_own() {
    let with = |plan: serde_json::Value| RunResult { plan, ..another() };
    let same = with(json!({"load": {"rate": 1_000}, "seed": 8, "sources": ["127.0.0.2"]}));
    assert_eq!(merged(&[sample::run(), same]).environments.len(), 2);
    let why = refusal(sample::run(), with(json!({"load": {"rate": 999}, "seed": 7})));
    assert!(
        why.contains("1.json and 2.json had different plans: `load.rate` is 1000 in one, 999 in the other"),
        "{why}"
    );
    let why = refusal(sample::run(), with(json!({"load": {"depth": 1}, "seed": 7})));
    assert!(why.contains("`load` is {\"rate\":1000} in one, {\"depth\":1} in the other"), "{why}");
    let why = refusal(sample::run(), with(json!(7)));
    assert!(why.contains("the plan is"), "{why}");
}

#[test]
fn what_differs_in_kind_or_setting_is_refused() {
    let why =
        refusal(sample::run(), RunResult { kind: Kind::Sweep, command: "sweep".to_owned(), ..sample::run() });
    assert!(why.contains("one is of `run`, the other of `sweep`"), "{why}");
    let mut other = another();
    other.targets[0].settings.insert("connections".to_owned(), json!(65));
    let why = refusal(sample::run(), other);
    assert!(why.contains("the settings of corelane differ: `connections` is 64"), "{why}");
    assert!(merge(Vec::new()).is_err());
}

#[test]
fn one_measurement_is_not_counted_twice() {
    let why = refusal(sample::run(), sample::run());
    assert!(why.contains("1.json and 2.json tell of the same measurement"), "{why}");
    // A log knows no host, no plan, and its times to a millisecond.
    let mut log = later(1);
    log.environments.clear();
    log.plan = serde_json::Value::Null;
    log.targets[0].phases.connect = Phase::default();
    assert!(refusal(log, sample::run()).contains("the same measurement"));
    // That two begin in one millisecond happens.
    let mut slower = sample::run();
    let mut latencies = slower.targets[0].phases.reply.corrected.take().unwrap();
    latencies.record(1_000_000);
    slower.targets[0].phases.reply.corrected = Some(latencies);
    assert_eq!(merged(&[sample::run(), slower]).sources.len(), 2);
    assert_eq!(merged(&[sample::run(), on("two")]).sources.len(), 2);
    // Nor among several.
    let three = [sample::run(), another(), sample::run()];
    let named = three.into_iter().zip(["1.json", "2.json", "3.json"]);
    let why = merge(named.map(|(part, name)| (name.to_owned(), part)).collect()).unwrap_err().to_string();
    assert!(why.contains("1.json and 3.json"), "{why}");
    let mut held = sample::run();
    held.targets[0].phases = super::super::Phases::default();
    assert!(refusal(held.clone(), held).contains("the same measurement"));
}

#[test]
fn a_log_without_a_plan_goes_with_any() {
    let mut log = another();
    log.plan = serde_json::Value::Null;
    for parts in [[log.clone(), later(0)], [later(0), log]] {
        let whole = merged(&parts);
        assert_eq!((whole.plan["load"]["rate"].as_u64(), whole.targets[0].counts.sent), (Some(1_000), 6_000));
    }
}

#[test]
fn rounds_of_comparisons_are_put_one_after_the_other() {
    let mut second = sample::compare();
    second.targets.iter_mut().for_each(|target| target.started_unix_ms += 5);
    let whole = merged(&[sample::compare(), second]);
    let rounds: Vec<usize> = whole.targets[0].slices.iter().map(|slice| slice.round).collect();
    assert_eq!(rounds, (0..16).collect::<Vec<_>>());
    assert_eq!(whole.comparisons.len(), 10);
    assert!(whole.comparisons.iter().all(|comparison| comparison.rounds == 16), "{:?}", whole.comparisons);
}

#[test]
fn memory_of_several_machines_is_kept_apart() {
    let mut other = another();
    let point = |n| MemoryPoint { connections: n, user_bytes: 10 * n, ..MemoryPoint::default() };
    other.targets[0].memory = vec![MemorySeries::fit("idle", vec![point(1), point(2)])];
    let whole = merged(&[later(0), other]);
    let states: Vec<&str> = whole.targets[0].memory.iter().map(|series| series.state.as_str()).collect();
    assert_eq!(states, ["idle", "idle (1.json)"]);
    assert!((whole.targets[0].memory[1].user.unwrap().slope - 10.0).abs() < 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However the messages are spread over machines, the whole is what one machine would have seen.
    #[test]
    fn parts_make_the_whole(
        parts in proptest::collection::vec(proptest::collection::vec(1_u64..10_000_000_000, 0..60), 1..6),
        rotate in 0_usize..6,
    ) {
        let of = |values: &[u64]| {
            let mut latencies = Latencies::new();
            values.iter().for_each(|ns| latencies.record(*ns));
            let mut result = sample::run();
            let target = &mut result.targets[0];
            target.counts.received = values.len() as u64;
            target.phases.reply = Phase { corrected: Some(latencies), raw: None, ..Phase::default() };
            result
        };
        let mut results: Vec<RunResult> = parts.iter().map(|values| of(values)).collect();
        for (index, result) in results.iter_mut().enumerate() {
            result.targets[0].started_unix_ms += 5 * index as u64;
        }
        let all = of(&parts.concat());
        let length = results.len();
        results.rotate_left(rotate % length);
        let whole = merged(&results);
        prop_assert_eq!(&whole.targets[0].phases.reply, &all.targets[0].phases.reply);
        prop_assert_eq!(whole.targets[0].counts.received, all.targets[0].counts.received);
        prop_assert_eq!(whole.targets[0].counts.sent, 3_000 * length as u64);
    }
}
