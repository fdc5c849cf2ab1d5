//! Random schedules on the simulator, thousands of them: handlers that do everything a handler may do,
//! remotes that do everything remotes do, and faults; the contract is checked at every step and at the end.
//!
//! `CORELANE_SEEDS=200000` runs so many instead of the usual number, `CORELANE_SEED=n` one alone.
#![cfg(feature = "sim")]

mod checked;
mod echo;
mod rng;
mod wire;
mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS: u64 = 3_000;

/// Failing seeds after which no more are looked for.
const ENOUGH: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs every seed; panics with those that fail.
fn run_seeds(run: impl Fn(u64)) {
    let seeds = match number("CORELANE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CORELANE_SEEDS").unwrap_or(SEEDS),
    };
    let failures = seeds.filter_map(|seed| {
        let panic = catch_unwind(AssertUnwindSafe(|| run(seed))).err()?;
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(not a text)");
        Some(format!("CORELANE_SEED={seed}: {text}"))
    });
    let failed: Vec<String> = failures.take(ENOUGH).collect();
    assert!(failed.is_empty(), "these seeds failed:\n{}", failed.join("\n"));
}

#[test]
fn the_contract_holds_in_every_schedule() {
    run_seeds(|seed| drop(workload::run(seed)));
}

#[test]
fn every_byte_comes_back_in_every_schedule() {
    run_seeds(echo::run);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        assert_eq!(workload::run(seed), workload::run(seed), "seed {seed}");
    }
}
