//! What values settings may have.

use std::time::Duration;

use super::{Refusal, Span};

/// The highest rate that can be asked for, in messages per second.
const HIGHEST_RATE: f64 = 1e8;

pub(super) fn messages_per_second(field: &'static str, rate: f64) -> Result<f64, Refusal> {
    if rate > 0.0 && rate <= HIGHEST_RATE {
        return Ok(rate);
    }
    Err(Refusal::new(field, format!("must be above 0 and at most {HIGHEST_RATE} messages per second")))
}

pub(super) fn within(
    field: &'static str,
    value: Option<usize>,
    default: usize,
    least: usize,
    most: usize,
) -> Result<usize, Refusal> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Refusal::new(field, format!("must be {least} to {most}")))
}

pub(super) fn percent(field: &'static str, value: Option<f64>, default: f64) -> Result<f64, Refusal> {
    let value = value.unwrap_or(default);
    if (0.0..=100.0).contains(&value) {
        return Ok(value);
    }
    Err(Refusal::new(field, "must be 0 to 100 percent"))
}

pub(super) fn time(
    field: &'static str,
    value: Option<Span>,
    default_ms: u64,
    least: Duration,
) -> Result<Duration, Refusal> {
    const MOST: Duration = Duration::from_secs(24 * 60 * 60);
    let value = value.map_or(Duration::from_millis(default_ms), |span| span.0);
    if (least..=MOST).contains(&value) {
        return Ok(value);
    }
    Err(Refusal::new(field, format!("must be {} to {}", Span(least), Span(MOST))))
}
