//! Numbers for people.

use crate::result::Counter;

/// A number in groups of three digits.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of bytes in the unit that suits it.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..10_000 => format!("{} B", count(number)),
        10_000..10_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.1} GB", number as f64 / 1e9),
    }
}

/// The kernel's counters that have moved, or that none has; nothing if there are none.
pub(crate) fn moved(counters: &[Counter]) -> String {
    let changed = counters.iter().filter(|counter| counter.has_changed());
    let each: Vec<String> = changed
        .map(|counter| format!("{} +{}", counter.name, count(counter.after.saturating_sub(counter.before))))
        .collect();
    match (counters.len(), each.is_empty()) {
        (0, _) => String::new(),
        (counters, true) => format!("none of {counters} counters of drops and overflows moved"),
        (_, false) => each.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        let grouped = [0, 999, 1_000, 12_345, 1_234_567].map(count);
        assert_eq!(grouped, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn counters_that_moved_are_named() {
        let counter = |name: &str, after| Counter { name: name.to_owned(), before: 5, after };
        assert_eq!(moved(&[]), "");
        assert_eq!(
            moved(&[counter("a", 5), counter("b", 5)]),
            "none of 2 counters of drops and overflows moved"
        );
        assert_eq!(moved(&[counter("a", 5), counter("b", 1_239), counter("c", 6)]), "b +1,234, c +1");
    }

    #[test]
    fn bytes_take_a_fitting_unit() {
        let sized = [9_999, 10_000, 2_345_678, 12_345_678, 12_345_678_901].map(bytes);
        assert_eq!(sized, ["9,999 B", "10.0 kB", "2345.7 kB", "12.3 MB", "12.3 GB"]);
    }
}
