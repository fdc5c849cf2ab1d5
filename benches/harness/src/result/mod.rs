//! What a command measured, as it is kept in a file: one versioned model for every command.
//!
//! Commands fill a [`RunResult`]; `output` alone writes, reads and renders it. Units stand in the names
//! of the fields (`_us`, `_s`, `_bytes`, `_per_second`), and shares go from 0 to 1. What was not
//! measured is absent, never zero. The same in JSON is described by `schema/result-1.json`.

mod comparison;
mod duplicate;
mod environment;
mod merge;
#[cfg(test)]
pub(crate) mod sample;
mod target;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use comparison::{Comparison, Verdict, against};
pub(crate) use environment::Environment;
pub(crate) use merge::{merge, merge_phases};
pub(crate) use target::{
    Check, Cost, Counter, Counts, Generator, MemoryPoint, MemorySeries, Phase, Phases, Second, ServerInfo,
    Skew, Slice, Target,
};

/// The version of the schema. A change that old readers would misread makes it another one.
pub(crate) const SCHEMA: u32 = 1;

/// The kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// One target under one load.
    Run,
    /// Several servers under the same load, by turns.
    Compare,
    /// A great number of connections to our own server, held and used.
    Stand,
    /// The highest rate within a limit of latency; each trial is a target.
    FindMax,
    /// A grid of settings; each place in it is a target.
    Sweep,
    /// The generator against arithmetic.
    SelfTest,
}

/// Everything that one invocation of a command measured, or several on several machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    pub(crate) kind: Kind,
    /// What the command is called, as in `c100k`.
    pub(crate) command: String,
    /// What was done, in one line, as in `closed loop, 64 connections, depth 1, 64 B`.
    #[serde(default)]
    pub(crate) title: String,
    /// When it began, in UTC as of RFC 3339.
    pub(crate) started: String,
    /// The same in milliseconds since the epoch.
    pub(crate) started_unix_ms: u64,
    pub(crate) duration_s: f64,
    /// The run ended before its time: what is here is right, but not all.
    pub(crate) partial: bool,
    /// Why it failed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// One for each machine.
    pub(crate) environments: Vec<Environment>,
    /// What was to be done, as the command understood it.
    pub(crate) plan: Value,
    pub(crate) targets: Vec<Target>,
    #[serde(default)]
    pub(crate) comparisons: Vec<Comparison>,
    /// What of the whole was asserted; each target has its own besides.
    #[serde(default)]
    pub(crate) checks: Vec<Check>,
    /// What a reader of the numbers must know.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// Limits of the host that were in the way, and the way round that was taken.
    #[serde(default)]
    pub(crate) limits: Vec<String>,
    /// The files this was merged from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<String>,
    #[serde(skip)]
    clock: Option<Instant>,
}

impl RunResult {
    /// A result without targets that begins now, on this machine.
    pub(crate) fn begin(kind: Kind, command: &str, plan: &impl Serialize) -> Result<Self> {
        let mut result = Self {
            schema: SCHEMA,
            kind,
            command: command.to_owned(),
            title: String::new(),
            started: String::new(),
            started_unix_ms: 0,
            duration_s: 0.0,
            partial: false,
            failure: None,
            environments: vec![Environment::capture()],
            plan: serde_json::to_value(plan).context("cannot write the plan down")?,
            targets: Vec::new(),
            comparisons: Vec::new(),
            checks: Vec::new(),
            notes: Vec::new(),
            limits: Vec::new(),
            sources: Vec::new(),
            clock: Some(Instant::now()),
        };
        result.began(SystemTime::now());
        Ok(result)
    }

    /// Sets when it began.
    pub(crate) fn began(&mut self, time: SystemTime) {
        self.started = humantime::format_rfc3339_millis(time).to_string();
        self.started_unix_ms = unix_ms(time);
    }

    /// Takes the time that has passed since [`RunResult::begin`].
    pub(crate) fn end(&mut self) {
        if let Some(begun) = self.clock {
            self.duration_s = begun.elapsed().as_secs_f64();
        }
    }

    /// Every check, with the label of the target that it belongs to.
    pub(crate) fn all_checks(&self) -> impl Iterator<Item = (Option<&str>, &Check)> {
        let of_targets = self
            .targets
            .iter()
            .flat_map(|target| target.checks.iter().map(|check| (Some(target.label.as_str()), check)));
        self.checks.iter().map(|check| (None, check)).chain(of_targets)
    }

    /// The notes of the whole, with those that all targets have, where there are several.
    pub(crate) fn common_notes(&self) -> Vec<&str> {
        let of_all = |note: &&String| self.targets.iter().all(|target| target.notes.contains(note));
        let first = self.targets.first().filter(|_| self.targets.len() > 1);
        let shared = first.into_iter().flat_map(|target| target.notes.iter().filter(of_all));
        self.notes.iter().chain(shared).map(String::as_str).collect()
    }

    /// The notes of a target that not all have.
    pub(crate) fn own_notes<'a>(&self, target: &'a Target) -> Vec<&'a str> {
        let common = self.common_notes();
        target.notes.iter().map(String::as_str).filter(|note| !common.contains(note)).collect()
    }

    /// The target of this label.
    pub(crate) fn target(&self, label: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.label == label)
    }
}

/// Milliseconds since the epoch; 0 for a time before it.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}
