//! Conditional requests and ranges (RFC 9110, 13 and 14): what is to be sent of a file, if anything.

use std::time::{Duration, SystemTime};

use super::super::Headers;

/// What there is to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entity<'a> {
    pub(super) tag: &'a str,
    /// Not later than `date`.
    pub(super) modified: SystemTime,
    pub(super) length: u64,
    /// When the reply is made.
    pub(super) date: SystemTime,
}

/// What is to be sent of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    Part {
        offset: u64,
        length: u64,
    },
    NotModified,
    PreconditionFailed,
    /// No byte of the range exists.
    Unsatisfiable,
}

/// In the order of RFC 9110, 13.2.2. What is malformed is as if it were not there.
pub(super) fn judge(headers: Headers<'_>, is_get: bool, entity: &Entity<'_>) -> Verdict {
    if let Some(tags) = tags(headers, "if-match") {
        if !tags.into_iter().any(|tag| tag.is_strongly(entity.tag)) {
            return Verdict::PreconditionFailed;
        }
    } else if let Some(time) = date(headers, "if-unmodified-since")
        && seconds(entity.modified) > seconds(time)
    {
        return Verdict::PreconditionFailed;
    }
    if let Some(tags) = tags(headers, "if-none-match") {
        if tags.into_iter().any(|tag| tag.is_weakly(entity.tag)) {
            return Verdict::NotModified;
        }
    } else if let Some(time) = date(headers, "if-modified-since")
        && seconds(entity.modified) <= seconds(time)
    {
        return Verdict::NotModified;
    }
    if is_get && may_be_part(headers, entity) { range(headers, entity.length) } else { Verdict::Whole }
}

/// Whether what the client has a part of is this (`If-Range`).
fn may_be_part(headers: Headers<'_>, entity: &Entity<'_>) -> bool {
    let mut values = headers.get_all("if-range");
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value @ [b'"', ..]), None) => Tag::of(value).is_some_and(|tag| tag.is_strongly(entity.tag)),
        (Some(value), None) => {
            // A date tells two versions apart only if there was time for no other since, and if it is theirs: all that
            // are from before 1970 have the same.
            let age = entity.date.duration_since(entity.modified).unwrap_or_default();
            let is_settled = age >= Duration::from_secs(2) && entity.modified > SystemTime::UNIX_EPOCH;
            is_settled && parse_date(value).is_some_and(|time| seconds(time) == seconds(entity.modified))
        }
        (Some(_), Some(_)) => false,
    }
}

/// One range; several at once are answered with the whole, as a server may.
fn range(headers: Headers<'_>, length: u64) -> Verdict {
    let mut values = headers.get_all("range");
    let (Some(value), None) = (values.next(), values.next()) else { return Verdict::Whole };
    let Some((first, last)) = parse_range(value) else { return Verdict::Whole };
    match (first, last) {
        (None, Some(count)) if count > 0 && length > 0 => {
            let count = count.min(length);
            Verdict::Part { offset: length - count, length: count }
        }
        (Some(first), last) if first < length => {
            let last = last.unwrap_or(u64::MAX).min(length - 1);
            Verdict::Part { offset: first, length: last - first + 1 }
        }
        _ => Verdict::Unsatisfiable,
    }
}

/// `bytes=first-last`, `bytes=first-` or `bytes=-count`.
fn parse_range(value: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let value = std::str::from_utf8(value).ok()?;
    let (unit, range) = value.split_once('=')?;
    let (first, last) = range.trim_matches([' ', '\t']).split_once('-')?;
    let is_bytes = unit.eq_ignore_ascii_case("bytes");
    match (number(first)?, number(last)?) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        ends => is_bytes.then_some(ends),
    }
}

/// Digits or nothing; what does not fit is as large as can be.
fn number(text: &str) -> Option<Option<u64>> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if text.is_empty() => Some(None),
        true => Some(Some(text.parse().unwrap_or(u64::MAX))),
        false => None,
    }
}

/// An entity tag of a list, or the star that stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag<'a> {
    Any,
    Strong(&'a [u8]),
    Weak(&'a [u8]),
}

impl<'a> Tag<'a> {
    /// A strong one, quotes included.
    fn of(value: &'a [u8]) -> Option<Self> {
        match next_tag(value) {
            Some((tag @ Tag::Strong(_), [])) => Some(tag),
            _ => None,
        }
    }

    fn is_strongly(self, tag: &str) -> bool {
        matches!(self, Self::Any) || matches!(self, Self::Strong(own) if own == tag.as_bytes())
    }

    fn is_weakly(self, tag: &str) -> bool {
        self.is_strongly(tag) || matches!(self, Self::Weak(own) if own == tag.as_bytes())
    }
}

/// The tags of all headers of this name; `None` without one.
fn tags<'a>(headers: Headers<'a>, name: &str) -> Option<Vec<Tag<'a>>> {
    let mut tags = None;
    for value in headers.get_all(name) {
        let list: &mut Vec<Tag<'a>> = tags.get_or_insert_default();
        if value == b"*" {
            list.push(Tag::Any);
            continue;
        }
        let mut rest = value;
        while let Some((tag, behind)) = next_tag(rest) {
            list.push(tag);
            rest = behind;
        }
    }
    tags
}

/// The next of a list: `"abc"` or `W/"abc"`, behind commas and white space; and what follows it.
fn next_tag(value: &[u8]) -> Option<(Tag<'_>, &[u8])> {
    let start = value.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
    let value = &value[start..];
    let (is_weak, quoted) = match value {
        [b'W', b'/', quoted @ ..] => (true, quoted),
        quoted => (false, quoted),
    };
    let [b'"', text @ ..] = quoted else { return None };
    let end = memchr::memchr(b'"', text)? + 2;
    let (tag, behind) = quoted.split_at(end);
    Some((if is_weak { Tag::Weak(tag) } else { Tag::Strong(tag) }, behind))
}

fn date(headers: Headers<'_>, name: &str) -> Option<SystemTime> {
    parse_date(headers.get(name)?)
}

fn parse_date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// Dates of HTTP know no smaller part of time.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abc\"";
    /// Sun, 06 Nov 1994 08:49:37 GMT, and a little more.
    const MODIFIED: Duration = Duration::from_millis(784_111_777_250);
    const DAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const PART: Verdict = Verdict::Part { offset: 10, length: 5 };

    type Fields<'a> = &'a [(&'static str, &'static str)];

    fn judged(length: u64, is_get: bool, fields: Fields<'_>) -> Verdict {
        let modified = SystemTime::UNIX_EPOCH + MODIFIED;
        judged_of(Entity { tag: TAG, modified, length, date: SystemTime::now() }, is_get, fields)
    }

    fn judged_of(entity: Entity<'_>, is_get: bool, fields: Fields<'_>) -> Verdict {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        judge(Headers::new(&fields), is_get, &entity)
    }

    fn of(fields: &[(&'static str, &'static str)]) -> Verdict {
        judged(100, true, fields)
    }

    #[test]
    fn tags() {
        use Verdict::{NotModified, PreconditionFailed, Whole};
        for (value, if_match, if_none_match) in [
            ("\"abc\"", Whole, NotModified),
            ("*", Whole, NotModified),
            ("\"x\", \"abc\"", Whole, NotModified),
            ("\"x\",\"y,\" , \"abc\"", Whole, NotModified),
            ("W/\"abc\"", PreconditionFailed, NotModified),
            ("\"x\"", PreconditionFailed, Whole),
            ("abc", PreconditionFailed, Whole),
            ("\"abc", PreconditionFailed, Whole),
            ("", PreconditionFailed, Whole),
            ("w/\"abc\"", PreconditionFailed, Whole),
        ] {
            assert_eq!(of(&[("If-Match", value)]), if_match, "{value}");
            assert_eq!(of(&[("If-None-Match", value)]), if_none_match, "{value}");
        }
        assert_eq!(of(&[("if-none-match", "\"x\""), ("if-none-match", TAG)]), NotModified);
    }

    #[test]
    fn dates() {
        use Verdict::{NotModified, PreconditionFailed, Whole};
        for (time, since, unless) in [
            (BEFORE, Whole, PreconditionFailed),
            (DAY, NotModified, Whole),
            (AFTER, NotModified, Whole),
            ("yesterday", Whole, Whole),
        ] {
            assert_eq!(of(&[("If-Modified-Since", time)]), since, "{time}");
            assert_eq!(of(&[("If-Unmodified-Since", time)]), unless, "{time}");
        }
    }

    #[test]
    fn a_tag_counts_more_than_a_date() {
        assert_eq!(of(&[("if-none-match", "\"x\""), ("if-modified-since", AFTER)]), Verdict::Whole);
        assert_eq!(of(&[("if-match", TAG), ("if-unmodified-since", BEFORE)]), Verdict::Whole);
        // And a failed precondition more than being up to date.
        assert_eq!(of(&[("if-match", "\"x\""), ("if-none-match", TAG)]), Verdict::PreconditionFailed);
    }

    #[test]
    fn ranges() {
        let part = |offset, length| Verdict::Part { offset, length };
        for (range, verdict) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-14", PART),
            ("Bytes= 10-14 ", PART),
            ("bytes=0-", part(0, 100)),
            ("bytes=99-", part(99, 1)),
            ("bytes=90-1000", part(90, 10)),
            ("bytes=0-99999999999999999999999", part(0, 100)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=100-", Verdict::Unsatisfiable),
            ("bytes=100-200", Verdict::Unsatisfiable),
            ("bytes=99999999999999999999999-", Verdict::Unsatisfiable),
            ("bytes=-0", Verdict::Unsatisfiable),
            ("bytes=14-10", Verdict::Whole),
            ("bytes=-", Verdict::Whole),
            ("bytes=", Verdict::Whole),
            ("bytes=a-b", Verdict::Whole),
            ("bytes=+1-2", Verdict::Whole),
            ("bytes=1-2-3", Verdict::Whole),
            ("bytes=0-1,5-6", Verdict::Whole),
            ("bytes = 1-2", Verdict::Whole),
            ("lines=1-2", Verdict::Whole),
            ("1-2", Verdict::Whole),
            ("", Verdict::Whole),
        ] {
            assert_eq!(of(&[("Range", range)]), verdict, "{range}");
        }
        assert_eq!(of(&[("Range", "bytes=1-2"), ("Range", "bytes=3-4")]), Verdict::Whole);
        assert_eq!(judged(100, false, &[("Range", "bytes=1-2")]), Verdict::Whole, "of a HEAD");
        for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(judged(0, true, &[("Range", range)]), Verdict::Unsatisfiable, "{range} of nothing");
        }
    }

    #[test]
    fn a_range_may_depend_on_the_version() {
        for (value, verdict) in [
            (TAG, PART),
            (DAY, PART),
            ("\"x\"", Verdict::Whole),
            ("W/\"abc\"", Verdict::Whole),
            ("\"abc\", \"x\"", Verdict::Whole),
            (BEFORE, Verdict::Whole),
            (AFTER, Verdict::Whole),
            ("nonsense", Verdict::Whole),
        ] {
            assert_eq!(of(&[("if-range", value), ("range", "bytes=10-14")]), verdict, "{value}");
        }
    }

    #[test]
    fn a_date_that_other_versions_may_have_too_is_no_version() {
        let modified = SystemTime::UNIX_EPOCH + MODIFIED;
        let epoch = SystemTime::UNIX_EPOCH;
        for (modified, date, said, verdict) in [
            (modified, modified + Duration::from_secs(2), DAY, PART),
            (modified, modified + Duration::from_secs(1), DAY, Verdict::Whole),
            // One from the future.
            (modified, modified, DAY, Verdict::Whole),
            // One from before 1970.
            (epoch, modified, "Thu, 01 Jan 1970 00:00:00 GMT", Verdict::Whole),
        ] {
            let entity = Entity { tag: TAG, modified, length: 100, date };
            let fields = [("if-range", said), ("range", "bytes=10-14")];
            assert_eq!(judged_of(entity, true, &fields), verdict, "{modified:?} at {date:?}");
        }
    }
}
