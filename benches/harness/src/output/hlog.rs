//! HDR histogram logs (format 1.3), as the tools of HdrHistogram read and write them.
//!
//! The replies of a single target have no tag, which is what those tools show by default; other phases,
//! and several targets, are told apart by tags. Times are in nanoseconds, the column of the largest in
//! milliseconds.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::latency::Latencies;
use crate::result::{Kind, Phase, RunResult, Second, Target};

/// What a phase is called in a tag; the first is that of the replies, corrected where they are.
const TAGS: [&str; 6] = ["reply", "raw", "connect", "connect-raw", "first-byte", "first-byte-raw"];

/// Where our own words stand in a log.
const OUR_WORDS: &str = "#[corelane-bench ";

/// Says that the replies without a tag are corrected ones.
const CORRECTED: &str = "corrected";

/// Writes all histograms of a result.
pub(super) fn write(mut file: impl Write, result: &RunResult) -> Result<()> {
    let base = result.targets.iter().map(|target| target.started_unix_ms).min();
    let base = Duration::from_millis(base.unwrap_or(result.started_unix_ms));
    let (date, base) = (humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + base), base.as_secs_f64());
    let single = result.targets.len() == 1;
    write!(
        file,
        "#[{}]\n#[Histogram log format version 1.3]\n\
         #[StartTime: {base:.3} (seconds since epoch), {date}]\n\
         #[BaseTime: {base:.3} (seconds since epoch)]\n",
        one_line(&format!("{} {}", result.command, result.title))
    )?;
    for target in &result.targets {
        let kind = if target.phases.reply.is_from_intended_start() { CORRECTED } else { "raw" };
        writeln!(file, "{OUR_WORDS}{kind} {}]", tag_of(&target.label))?;
    }
    writeln!(
        file,
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
    )?;
    for target in &result.targets {
        let start = Duration::from_millis(target.started_unix_ms).as_secs_f64() - base;
        for (phase, latencies) in tagged(target) {
            let tag = match (single, phase == TAGS[0]) {
                (true, true) => String::new(),
                (true, false) => format!("Tag={phase},"),
                (false, true) => format!("Tag={},", tag_of(&target.label)),
                (false, false) => format!("Tag={}.{phase},", tag_of(&target.label)),
            };
            for (begin, length, latencies) in intervals(target, phase, latencies) {
                let max_ms = latencies.max_us().unwrap_or_default() / 1e3;
                let begin = start + begin;
                writeln!(file, "{tag}{begin:.3},{length:.3},{max_ms:.3},{}", latencies.encode()?)?;
            }
        }
    }
    Ok(())
}

/// The histograms of a target with the names that their phases have in tags.
fn tagged(target: &Target) -> Vec<(&'static str, &Latencies)> {
    let [reply, raw, connect, connect_raw, first_byte, first_byte_raw] = TAGS;
    let phases = &target.phases;
    let mut found = Vec::new();
    for (name, raw_name, phase) in [
        (reply, raw, &phases.reply),
        (connect, connect_raw, &phases.connect),
        (first_byte, first_byte_raw, &phases.first_byte),
    ] {
        found.extend(phase.best().map(|latencies| (name, latencies)));
        // Where nothing is corrected, the raw ones are the best already.
        let beside = phase.raw.as_ref().filter(|_| phase.is_from_intended_start());
        found.extend(beside.map(|raw| (raw_name, raw)));
    }
    found
}

/// The seconds of the replies if they hold all of them; else everything as one interval.
fn intervals<'a>(target: &'a Target, phase: &str, whole: &'a Latencies) -> Vec<(f64, f64, &'a Latencies)> {
    let seconds: Vec<_> = target
        .series
        .iter()
        .filter_map(|second| Some((f64::from(second.second), 1.0, second.latency.as_ref()?)))
        .collect();
    let in_seconds: u64 = seconds.iter().map(|(_, _, latencies)| latencies.count()).sum();
    if phase == TAGS[0] && in_seconds > 0 && in_seconds == whole.count() {
        seconds
    } else {
        vec![(0.0, target.seconds, whole)]
    }
}

/// A label as a tag may be: without commas, spaces and ends of lines.
fn tag_of(label: &str) -> String {
    label.chars().map(|c| if c.is_whitespace() || c == ',' || c == ']' { '_' } else { c }).collect()
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', ']'], " ").trim().to_owned()
}

/// Reads a log, of whatever program, as a result with a target for each label.
pub(super) fn read(text: &str) -> Result<RunResult> {
    let mut names = our_words(text);
    let mut base = Duration::ZERO;
    let mut start = Duration::ZERO;
    let mut read: BTreeMap<String, Found> = BTreeMap::new();
    // The parser wants the end of the last line.
    let text = format!("{}\n", text.trim_end());
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        match entry.map_err(|error| anyhow!("{error:?}"))? {
            LogEntry::StartTime(time) => start = time,
            LogEntry::BaseTime(time) => base = time,
            LogEntry::Interval(interval) => {
                let tag = interval.tag().map_or(String::new(), |tag| tag.as_str().to_owned());
                let (label, phase) = split_tag(&tag, &names);
                let begin = interval.start_timestamp();
                // A stamp that is no time since the epoch counts from the start that was told.
                let since = if base.is_zero() && begin < start / 2 { start } else { base };
                let latencies = Latencies::decode(interval.encoded_histogram())?;
                ensure!(
                    !interval.duration().is_zero() || latencies.count() == 0,
                    "an interval without a length"
                );
                let found = read.entry(label).or_default();
                found.add(phase, since + begin, interval.duration(), latencies)?;
            }
        }
    }
    ensure!(!read.is_empty(), "an HDR histogram log without histograms");
    names.retain(|label, _| read.contains_key(label));
    let targets: Vec<Target> =
        read.into_iter().map(|(label, found)| found.target(&names, label)).collect::<Result<_>>()?;
    let mut result = RunResult::begin(Kind::Run, "hlog", &serde_json::Value::Null)?;
    // Nothing of this machine has to do with it.
    result.environments.clear();
    let first = targets.iter().map(|target| target.started_unix_ms).min().unwrap_or_default();
    let last = targets.iter().map(|target| target.started_unix_ms + (target.seconds * 1e3) as u64).max();
    result.began(SystemTime::UNIX_EPOCH + Duration::from_millis(first));
    result.duration_s = Duration::from_millis(last.unwrap_or(first).saturating_sub(first)).as_secs_f64();
    result.title = "histograms of a log".to_owned();
    result.notes = vec!["a histogram log has latencies only: what else was measured is not in it".to_owned()];
    result.targets = targets;
    Ok(result)
}

/// The labels that we wrote into a log, and whether their replies are corrected.
fn our_words(text: &str) -> BTreeMap<String, bool> {
    text.lines()
        .filter_map(|line| line.strip_prefix(OUR_WORDS)?.strip_suffix(']')?.split_once(' '))
        .map(|(kind, label)| (label.to_owned(), kind == CORRECTED))
        .collect()
}

/// The label and the phase that a tag stands for.
fn split_tag(tag: &str, names: &BTreeMap<String, bool>) -> (String, &'static str) {
    let only =
        || names.keys().next().filter(|_| names.len() == 1).cloned().unwrap_or_else(|| "log".to_owned());
    let phase = |name: &str| TAGS.into_iter().find(|tag| *tag == name);
    if tag.is_empty() {
        return (only(), TAGS[0]);
    }
    if names.contains_key(tag) {
        return (tag.to_owned(), TAGS[0]);
    }
    match (phase(tag), tag.rsplit_once('.')) {
        (Some(phase), _) => (only(), phase),
        (None, Some((label, name))) if phase(name).is_some() => {
            (label.to_owned(), phase(name).unwrap_or(TAGS[0]))
        }
        _ => (tag.to_owned(), TAGS[0]),
    }
}

/// What a log has of one target.
#[derive(Debug, Default)]
struct Found {
    /// Each phase's intervals: when they began, how long they were.
    phases: BTreeMap<&'static str, Vec<(Duration, Duration, Latencies)>>,
}

impl Found {
    fn add(
        &mut self,
        phase: &'static str,
        begin: Duration,
        length: Duration,
        latencies: Latencies,
    ) -> Result<()> {
        ensure!(begin.as_secs() < 1 << 40 && length.as_secs() < 1 << 40, "a time out of all bounds");
        self.phases.entry(phase).or_default().push((begin, length, latencies));
        Ok(())
    }

    fn target(self, corrected: &BTreeMap<String, bool>, label: String) -> Result<Target> {
        let all = || self.phases.values().flatten();
        let start = all().map(|(begin, ..)| *begin).min().context("a target without intervals")?;
        let end = all().map(|(begin, length, _)| *begin + *length).max().unwrap_or(start);
        let sum = |phase: &str| -> Result<Option<Latencies>> {
            let Some(intervals) = self.phases.get(phase) else {
                return Ok(None);
            };
            let mut sum = Latencies::new();
            for (_, _, latencies) in intervals {
                sum.merge(latencies)?;
            }
            Ok(Some(sum))
        };
        let pair = |best: &str, raw: &str, corrected: bool| -> Result<Phase> {
            let (best, raw) = (sum(best)?, sum(raw)?);
            Ok(if corrected {
                Phase { corrected: best, raw, ..Phase::default() }
            } else {
                Phase { corrected: None, raw: best.or(raw), ..Phase::default() }
            })
        };
        let [reply, raw, connect, connect_raw, first_byte, first_byte_raw] = TAGS;
        let mut target = Target { label, started_unix_ms: start.as_millis() as u64, ..Target::default() };
        let beside = |raw: &str| self.phases.contains_key(raw);
        let is_corrected = corrected.get(&target.label).copied().unwrap_or_else(|| beside(raw));
        target.phases.reply = pair(reply, raw, is_corrected)?;
        target.phases.connect = pair(connect, connect_raw, beside(connect_raw))?;
        target.phases.first_byte = pair(first_byte, first_byte_raw, beside(first_byte_raw))?;
        target.seconds = (end - start).as_secs_f64();
        target.counts.received = target.phases.reply.best().map_or(0, Latencies::count);
        target.messages_per_second =
            if target.seconds > 0.0 { target.counts.received as f64 / target.seconds } else { 0.0 };
        target.series = series(self.phases.get(reply).map(Vec::as_slice).unwrap_or_default(), start)?;
        Ok(target)
    }
}

/// Intervals of a second or so as a series; longer ones tell nothing of seconds.
fn series(intervals: &[(Duration, Duration, Latencies)], start: Duration) -> Result<Vec<Second>> {
    if intervals.iter().any(|(_, length, _)| *length > Duration::from_millis(1_500)) {
        return Ok(Vec::new());
    }
    let mut seconds: BTreeMap<u32, Latencies> = BTreeMap::new();
    for (begin, _, latencies) in intervals {
        let Ok(second) = u32::try_from((*begin - start + Duration::from_millis(250)).as_secs()) else {
            bail!("intervals that lie too far apart");
        };
        seconds.entry(second).or_insert_with(Latencies::coarse).merge(latencies)?;
    }
    Ok(seconds
        .into_iter()
        .map(|(second, latencies)| Second {
            second,
            received: latencies.count(),
            latency: Some(latencies),
            ..Second::default()
        })
        .collect())
}
