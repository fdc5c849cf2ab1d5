//! The grammar of a condition:
//!
//! ```text
//! condition = metric [ "of" label ] operator limit
//! metric    = [ phase "." ] latency | "rate" | "errors" | "lost" | "late" | "never_sent" | "cpu" | "memory"
//! phase     = "reply" | "connect" | "first_byte" | "raw"
//! latency   = "p" percentile | "mean" | "max"
//! operator  = ">" | ">=" | "<" | "<="
//! limit     = number unit | ( "+" | "-" ) number "%" "vs" file
//! unit      = "ns" | "us" | "ms" | "s"             of latencies and cpu
//!           | "" | "k" | "M"                       of rates and counts
//!           | "%"                                  of errors, lost, late and never_sent: a share
//!           | "B" | "kB" | "MB"                    of memory
//! ```
//!
//! Spaces may stand between any two of these.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

/// A condition under which a result is not good enough.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(super) metric: Metric,
    /// The only target that it is about; every one, without.
    pub(super) label: Option<String>,
    pub(super) operator: Operator,
    pub(super) limit: Limit,
    /// As it was written.
    text: String,
}

/// A number of a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Metric {
    /// In microseconds.
    Latency(Phase, Latency),
    /// Messages a second.
    Rate,
    Errors,
    /// Connections that were lost.
    Lost,
    Late,
    NeverSent,
    /// CPU time of the server for each message, in microseconds.
    Cpu,
    /// The server's own memory for each connection, in bytes.
    Memory,
}

/// The latencies of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Of replies: corrected ones, where there are any.
    Reply,
    /// Of replies, from when the message was really sent.
    Raw,
    Connect,
    FirstByte,
}

/// One number of many latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Latency {
    /// From 0 to 1.
    Quantile(f64),
    Mean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Above,
    AtLeast,
    Below,
    AtMost,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Limit {
    /// In the unit of the metric.
    Value(f64),
    /// Of messages that were due, or connections that were asked for; 1 is all.
    Share(f64),
    /// So much more than in another result; 0.05 is 5% more.
    Change(f64, PathBuf),
}

/// What numbers of a metric are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Time,
    Rate,
    Count,
    Bytes,
}

impl Metric {
    fn dimension(self) -> Dimension {
        match self {
            Self::Latency(..) | Self::Cpu => Dimension::Time,
            Self::Rate => Dimension::Rate,
            Self::Errors | Self::Lost | Self::Late | Self::NeverSent => Dimension::Count,
            Self::Memory => Dimension::Bytes,
        }
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (phase, name) = match text.split_once('.') {
            // `p99.9` has a point too.
            Some((phase, name)) if !phase.starts_with('p') => {
                let phase = match phase {
                    "reply" => Phase::Reply,
                    "raw" => Phase::Raw,
                    "connect" => Phase::Connect,
                    "first_byte" | "first-byte" => Phase::FirstByte,
                    _ => bail!("no phase is called `{phase}`: there are reply, raw, connect and first_byte"),
                };
                (Some(phase), name)
            }
            _ => (None, text),
        };
        let latency = match name {
            "mean" => Some(Latency::Mean),
            "max" => Some(Latency::Quantile(1.0)),
            _ => name.strip_prefix('p').and_then(percentile).map(Latency::Quantile),
        };
        Ok(match (latency, phase, name) {
            (Some(latency), phase, _) => Self::Latency(phase.unwrap_or(Phase::Reply), latency),
            (None, None, "rate") => Self::Rate,
            (None, None, "errors") => Self::Errors,
            (None, None, "lost") => Self::Lost,
            (None, None, "late") => Self::Late,
            (None, None, "never_sent" | "never-sent") => Self::NeverSent,
            (None, None, "cpu") => Self::Cpu,
            (None, None, "memory") => Self::Memory,
            _ => bail!(
                "nothing is called `{text}`: there are p50, p99.9 and the like, mean, max, rate, errors, lost, \
                 late, never_sent, cpu and memory"
            ),
        })
    }
}

/// The share of a percentile as in `99.9`.
fn percentile(digits: &str) -> Option<f64> {
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    // Divided by 100, 99.9 would be a little more than 0.999, and so the next rank.
    let share: f64 = format!("{digits}e-2").parse().ok().filter(|_| plain)?;
    (0.0..=1.0).contains(&share).then_some(share)
}

impl Operator {
    /// The first operator in a text, with what stands before and after it.
    fn find(text: &str) -> Option<(&str, Self, &str)> {
        let place = text.find(['<', '>'])?;
        let (before, rest) = text.split_at(place);
        let found = [(">=", Self::AtLeast), ("<=", Self::AtMost), (">", Self::Above), ("<", Self::Below)];
        let (symbol, operator) = found.into_iter().find(|(symbol, _)| rest.starts_with(symbol))?;
        Some((before, operator, &rest[symbol.len()..]))
    }

    /// Whether it holds between a number and its limit.
    pub(super) fn holds(self, number: f64, limit: f64) -> bool {
        match self {
            Self::Above => number > limit,
            Self::AtLeast => number >= limit,
            Self::Below => number < limit,
            Self::AtMost => number <= limit,
        }
    }
}

impl Limit {
    fn parse(text: &str, dimension: Dimension) -> Result<Self> {
        if let Some((change, file)) = split_baseline(text) {
            let number = change.strip_suffix('%').map(str::trim_end);
            let number = number.filter(|number| number.starts_with(['+', '-']));
            let number = number.with_context(|| {
                format!("`{change}` is no change: give it as in `+5% vs {file}` or `-5% vs {file}`")
            })?;
            ensure!(!file.is_empty(), "no file after `vs`");
            return Ok(Self::Change(parse_number(number)? / 100.0, file.into()));
        }
        ensure!(
            !text.starts_with(['+', '-']),
            "`{text}` is a change, but of what: add `vs FILE`, or leave the sign out"
        );
        let digits = text.find(|c: char| c.is_ascii_alphabetic() || c == '%' || c == '/' || c == ' ');
        // `1e3` is a number.
        let digits = match digits {
            Some(place) if is_exponent(text, place) => {
                let rest = &text[place + 1..];
                let more = rest.find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '+'));
                more.map_or(text.len(), |more| place + 1 + more)
            }
            Some(place) => place,
            None => text.len(),
        };
        let (number, unit) = (parse_number(&text[..digits])?, text[digits..].trim());
        let factor = match (dimension, unit) {
            (Dimension::Time, "ns") => 1e-3,
            (Dimension::Time, "us" | "µs") => 1.0,
            (Dimension::Time, "ms") => 1e3,
            (Dimension::Time, "s") => 1e6,
            (Dimension::Rate, "" | "/s") | (Dimension::Count, "") | (Dimension::Bytes, "B") => 1.0,
            (Dimension::Rate, "k" | "k/s") | (Dimension::Count, "k") | (Dimension::Bytes, "kB") => 1e3,
            (Dimension::Rate, "M" | "M/s") | (Dimension::Count, "M") | (Dimension::Bytes, "MB") => 1e6,
            (Dimension::Count, "%") => return Ok(Self::Share(number / 100.0)),
            (Dimension::Time, _) => bail!("`{text}` needs a unit: ns, us, ms or s"),
            (Dimension::Rate, _) => bail!("no unit of a rate is called `{unit}`: give none, k or M"),
            (Dimension::Count, _) => bail!("no unit of a count is called `{unit}`: give none, k, M or %"),
            (Dimension::Bytes, _) => bail!("`{text}` needs a unit: B, kB or MB"),
        };
        Ok(Self::Value(number * factor))
    }
}

/// Whether the `e` of a number as `1e3` stands there.
fn is_exponent(text: &str, place: usize) -> bool {
    let rest = text[place..].strip_prefix(['e', 'E']);
    let digits = rest.map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
    digits.is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))
}

/// The change and the file of `CHANGE vs FILE`.
fn split_baseline(text: &str) -> Option<(&str, &str)> {
    let (change, file) =
        text.split_once(" vs").filter(|(_, file)| file.is_empty() || file.starts_with(' '))?;
    Some((change.trim(), file.trim()))
}

fn parse_number(text: &str) -> Result<f64> {
    let number: f64 = text.trim().parse().ok().with_context(|| format!("`{text}` is not a number"))?;
    ensure!(number.is_finite(), "`{text}` is not a number to compare with");
    Ok(number)
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (left, operator, right) =
            Operator::find(text).context("no operator in it: write it as in `p99>2ms` or `rate<50k`")?;
        let (name, label) = match left.trim().split_once(" of ") {
            Some((name, label)) => (name.trim(), Some(label.trim().to_owned())),
            None => (left.trim(), None),
        };
        ensure!(!name.is_empty(), "nothing stands before the operator");
        ensure!(!right.trim().is_empty(), "no limit stands after the operator");
        let metric: Metric = name.parse()?;
        let limit = Limit::parse(right.trim(), metric.dimension())?;
        Ok(Self { metric, label, operator, limit, text: text.trim().to_owned() })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Condition {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error:#}"))
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", text.parse::<Condition>().expect_err(text))
    }

    #[test]
    fn latencies_are_in_microseconds() {
        for (text, us) in
            [("p99>2ms", 2_000.0), ("p99 > 1500 ns", 1.5), ("p99>1.5s", 1.5e6), ("p99>7us", 7.0)]
        {
            let condition = parse(text);
            assert_eq!(condition.limit, Limit::Value(us), "{text}");
            assert_eq!(condition.metric, Metric::Latency(Phase::Reply, Latency::Quantile(0.99)));
            assert_eq!(condition.operator, Operator::Above);
            assert_eq!(condition.to_string(), text);
        }
    }

    #[test]
    fn percentiles_and_phases_are_told_apart() {
        let metric = |text| parse(text).metric;
        assert_eq!(metric("p99.9>1s"), Metric::Latency(Phase::Reply, Latency::Quantile(0.999)));
        assert_eq!(metric("raw.p99.99>1s"), Metric::Latency(Phase::Raw, Latency::Quantile(0.9999)));
        assert_eq!(metric("connect.max>1s"), Metric::Latency(Phase::Connect, Latency::Quantile(1.0)));
        assert_eq!(metric("first_byte.mean>1s"), Metric::Latency(Phase::FirstByte, Latency::Mean));
        assert_eq!(metric("p100>1s"), metric("max>1s"));
    }

    #[test]
    fn counts_and_rates_take_their_units() {
        let limit = |text| parse(text).limit;
        assert_eq!(limit("rate<50k"), Limit::Value(50_000.0));
        assert_eq!(limit("rate<1.5M/s"), Limit::Value(1.5e6));
        assert_eq!(limit("rate<2e4"), Limit::Value(20_000.0));
        assert_eq!(limit("errors>0"), Limit::Value(0.0));
        assert_eq!(limit("late>1%"), Limit::Share(0.01));
        assert_eq!(limit("never_sent>=1k"), Limit::Value(1_000.0));
        assert_eq!(limit("memory>160B"), Limit::Value(160.0));
        assert_eq!(limit("cpu>5us"), Limit::Value(5.0));
    }

    #[test]
    fn a_change_is_of_another_result() {
        let condition = parse("p99 > +5% vs some dir/base line.json");
        assert_eq!(condition.limit, Limit::Change(0.05, "some dir/base line.json".into()));
        assert_eq!(parse("rate<-10% vs a").limit, Limit::Change(-0.1, "a".into()));
    }

    #[test]
    fn a_target_can_be_named() {
        assert_eq!(parse("p99 of my server>2ms").label.as_deref(), Some("my server"));
        assert_eq!(parse("p99>2ms").label, None);
    }

    #[test]
    fn every_operator_holds_where_it_should() {
        let held = |text, number| {
            let Condition { operator, limit: Limit::Value(limit), .. } = parse(text) else {
                panic!("{text}")
            };
            operator.holds(number, limit)
        };
        assert_eq!(
            ["rate>2", "rate>=2", "rate<2", "rate<=2"].map(|text| held(text, 2.0)),
            [false, true, false, true]
        );
        assert!(held("rate>2", 2.1) && !held("rate>2", 1.9) && held("rate<2", 1.9) && !held("rate<=2", 2.1));
    }

    #[test]
    fn what_makes_no_sense_is_told_clearly() {
        for (text, why) in [
            ("", "no operator"),
            ("p99", "no operator"),
            (">2ms", "nothing stands before"),
            ("p99>", "no limit stands after"),
            ("p99>2", "needs a unit: ns, us, ms or s"),
            ("p99>2m", "needs a unit"),
            ("p99>fast", "not a number"),
            ("p101>2ms", "nothing is called `p101`"),
            ("p-1>2ms", "nothing is called `p-1`"),
            ("p1e1>2ms", "nothing is called `p1e1`"),
            ("speed>2", "nothing is called `speed`"),
            ("connect.rate>2", "nothing is called `connect.rate`"),
            ("tls.p99>2ms", "no phase is called `tls`"),
            ("rate<2ms", "no unit of a rate is called `ms`"),
            ("late>2ms", "no unit of a count"),
            ("memory>2", "needs a unit: B"),
            ("p99>+5%", "add `vs FILE`"),
            ("p99>-2ms", "add `vs FILE`"),
            ("p99>5% vs a.json", "is no change"),
            ("p99>+5 vs a.json", "is no change"),
            ("p99>+5% vs", "no file after `vs`"),
            ("rate>nan", "not a number"),
            ("rate>inf", "not a number"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(why), "{text}: {refusal}");
        }
    }
}
