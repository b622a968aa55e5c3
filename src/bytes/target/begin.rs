//! Where a stream begins that brings no last event ID: `?since=` and `?last=`.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bytes::history::EventId;

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Present,
    /// With so many of the newest events.
    Last(usize),
    Since(Since),
    /// What the client asked for can't be read: it is told so in the stream, since an EventSource
    /// takes any other answer as final.
    Unreadable,
}

/// What `?since=` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// `0`: the oldest event that is kept.
    All,
    /// What comes after an event, by its id.
    Id(EventId),
    /// `-60s`: so long ago.
    Ago(Duration),
    /// A time of day (RFC 3339, or whole seconds since 1970), in milliseconds since 1970.
    At { ms: u64 },
}

impl Begin {
    /// Reads the value of `?since=`, or else of `?last=`.
    pub(super) fn parse(is_since: bool, value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let begin = if is_since {
            parse_since(text).map(Self::Since)
        } else {
            parse_count(text).map(Self::Last)
        };
        begin.unwrap_or(Self::Unreadable)
    }

    /// Of two that a target has: `since` counts more than `last`, a later one more than an earlier.
    pub(super) fn or(self, later: Self) -> Self {
        match (self, later) {
            (Self::Since(_), Self::Last(_)) => self,
            _ => later,
        }
    }
}

/// A whole number; one that is too large stands for the largest.
fn parse_count(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}

fn parse_since(text: &str) -> Option<Since> {
    if text == "0" {
        return Some(Since::All);
    }
    if let Some(id) = EventId::parse(text.as_bytes()) {
        return Some(Since::Id(id));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return parse_time(ago).map(Since::Ago);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u64>().ok()?.checked_mul(1000).map(|ms| Since::At { ms });
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let ms = u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()?;
    Some(Since::At { ms })
}

/// `500ms`, `60s`, `5m`, `1h`.
fn parse_time(text: &str) -> Option<Duration> {
    let unit = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_since_a_time_or_an_event() {
        let at = |ms| Some(Since::At { ms });
        let ago = |ms| Some(Since::Ago(Duration::from_millis(ms)));
        let id = |ms, seq| Some(Since::Id(EventId { ms, seq }));
        for (text, expected) in [
            ("0", Some(Since::All)),
            ("0-0", id(0, 0)),
            ("1700000000000-5", id(1_700_000_000_000, 5)),
            ("-60s", ago(60_000)),
            ("-500ms", ago(500)),
            ("-5m", ago(300_000)),
            ("-1h", ago(3_600_000)),
            ("-0s", ago(0)),
            ("1700000000", at(1_700_000_000_000)),
            ("2026-01-31T12:00:00Z", at(1_769_860_800_000)),
            ("2026-01-31T13:00:00.250+01:00", at(1_769_860_800_250)),
            ("", None),
            ("-", None),
            ("-60", None),
            ("-s", None),
            ("60s", None),
            ("-1d", None),
            ("1.5", None),
            ("x", None),
            ("99999999999999999999", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-02-30T00:00:00Z", None),
        ] {
            assert_eq!(parse_since(text), expected, "{text}");
        }
    }

    #[test]
    fn so_many_of_the_newest() {
        for (text, expected) in [
            ("0", Some(0)),
            ("20", Some(20)),
            ("1000000", Some(1_000_000)),
            ("99999999999999999999999", Some(usize::MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("x", None),
        ] {
            assert_eq!(parse_count(text), expected, "{text}");
        }
    }

    #[test]
    fn of_several_the_last_counts_and_since_before_last() {
        let (last, since) = (Begin::Last(5), Begin::Since(Since::All));
        assert_eq!(Begin::Present.or(last).or(since), since);
        assert_eq!(Begin::Present.or(since).or(last), since);
        assert_eq!(last.or(Begin::Last(7)), Begin::Last(7));
        assert_eq!(last.or(Begin::Unreadable), Begin::Unreadable);
    }
}
