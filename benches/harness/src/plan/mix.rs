//! The weighted mix of requests.

use serde::{Deserialize, Serialize};

use super::{Dialect, Refusal};

/// The largest message in bytes.
const LARGEST: usize = 16 << 20;

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// How many of the sum of all weights it gets.
    pub(crate) weight: u32,
    /// Bytes of the message, the body of a frame, or a redis value; of HTTP, nothing.
    pub(crate) size: usize,
    pub(crate) operation: Operation,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    Echo,
    /// A path.
    Fetch(String),
    Ping,
    Set,
    Get,
}

/// The mix in a text such as `80:64,20:16k`, or the one entry that there is without it.
pub(super) fn parse(
    text: Option<&str>,
    dialect: Dialect,
    size: usize,
    path: &str,
) -> Result<Vec<Entry>, Refusal> {
    let entries = match text {
        Some(text) => {
            text.split(',').map(|part| entry(part.trim(), dialect, size)).collect::<Result<Vec<_>, _>>()?
        }
        None => {
            let operation = match dialect {
                Dialect::Echo | Dialect::Frames => Operation::Echo,
                Dialect::Http => Operation::Fetch(path.to_owned()),
                Dialect::Redis => Operation::Ping,
            };
            vec![Entry { weight: 1, size, operation }]
        }
    };
    for entry in &entries {
        if entry.weight == 0 {
            return Err(Refusal::new("mix", "a weight of 0: leave the entry out instead"));
        }
        let least = usize::from(dialect != Dialect::Frames && dialect != Dialect::Http);
        if !(least..=LARGEST).contains(&entry.size) {
            return Err(Refusal::new("size", format!("must be {least} to {LARGEST} bytes")));
        }
    }
    Ok(entries)
}

fn entry(text: &str, dialect: Dialect, size: usize) -> Result<Entry, Refusal> {
    let refuse = || {
        Refusal::new(
            "mix",
            format!(
                "`{text}` is not {}",
                match dialect {
                    Dialect::Echo | Dialect::Frames => "WEIGHT:BYTES, as in `80:64,20:16k`",
                    Dialect::Http => "WEIGHT:/PATH, as in `80:/small,20:/large`",
                    Dialect::Redis => "WEIGHT:OPERATION[:BYTES], as in `90:get:64,9:set:64,1:ping`",
                }
            ),
        )
    };
    let (weight, rest) = text.split_once(':').ok_or_else(refuse)?;
    let weight = weight.parse().map_err(|_| refuse())?;
    let (operation, size) = match dialect {
        Dialect::Echo | Dialect::Frames => (Operation::Echo, bytes(rest).ok_or_else(refuse)?),
        Dialect::Http if rest.starts_with('/') && !rest.contains(char::is_whitespace) => {
            (Operation::Fetch(rest.to_owned()), 0)
        }
        Dialect::Http => return Err(refuse()),
        Dialect::Redis => {
            let (name, size) = match rest.split_once(':') {
                Some((name, text)) => (name, bytes(text).ok_or_else(refuse)?),
                None => (rest, size),
            };
            let operation = match name {
                "ping" => Operation::Ping,
                "set" => Operation::Set,
                "get" => Operation::Get,
                _ => return Err(refuse()),
            };
            (operation, size)
        }
    };
    Ok(Entry { weight, size, operation })
}

/// A number of bytes, as in `64`, `16k` or `1m`.
pub(super) fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Vec<(u32, usize)> {
        let entries = parse(Some(text), Dialect::Echo, 64, "/").unwrap();
        entries.iter().map(|entry| (entry.weight, entry.size)).collect()
    }

    #[test]
    fn sizes_are_weighted() {
        assert_eq!(sizes("80:64, 20:16k"), [(80, 64), (20, 16_384)]);
        assert_eq!(sizes("1:2m"), [(1, 2 << 20)]);
    }

    #[test]
    fn operations_and_paths_are_read() {
        let redis = parse(Some("90:get:100,9:set,1:ping"), Dialect::Redis, 32, "/").unwrap();
        assert_eq!((&redis[0].operation, redis[0].size), (&Operation::Get, 100));
        assert_eq!((&redis[1].operation, redis[1].size), (&Operation::Set, 32));
        let http = parse(Some("3:/a,1:/b?c"), Dialect::Http, 0, "/").unwrap();
        assert_eq!(http[1].operation, Operation::Fetch("/b?c".to_owned()));
        let plain = parse(None, Dialect::Http, 0, "/plaintext").unwrap();
        assert_eq!(plain[0].operation, Operation::Fetch("/plaintext".to_owned()));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["", "64", "0:64", "a:64", "1:0", "1:64x", "1:99m", "1:64,"] {
            assert!(parse(Some(wrong), Dialect::Echo, 64, "/").is_err(), "{wrong}");
        }
        for wrong in ["1:del", "1:get:", "1:get:x"] {
            assert!(parse(Some(wrong), Dialect::Redis, 64, "/").is_err(), "{wrong}");
        }
        assert!(parse(Some("1:path"), Dialect::Http, 64, "/").is_err());
    }
}
