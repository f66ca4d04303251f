//! Times as people write and read them.
//!
//! The time zone is passed in: the library does not ask the system where it is.

use crate::base::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Zoned};

/// A time that somebody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTime {
    /// The time.
    pub time: Timestamp,
    /// That its offset was not written: it was taken from the time zone, or reckoned from now.
    pub assumed: bool,
    /// The other time that it may mean: where clocks were set back, an hour comes twice.
    pub other: Option<Timestamp>,
}

pub(super) fn to_jiff(time: Timestamp) -> jiff::Timestamp {
    // The range of a `Timestamp` lies within jiff's.
    jiff::Timestamp::from_nanosecond(i128::from(time.nanoseconds())).unwrap_or_default()
}

fn from_jiff(time: jiff::Timestamp) -> Option<Timestamp> {
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp::from_nanoseconds)
}

/// Writes a time in a zone with its offset: `2026-01-15 14:30:00 +01:00`.
pub fn show_time(time: Timestamp, zone: &TimeZone) -> String {
    to_jiff(time).to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// Writes a time that ends with a name of UTC as programs do, with `Z`; `None` where it ends otherwise.
fn in_utc(text: &str) -> Option<String> {
    let ending = ["UTC", "GMT", "Z"].into_iter().find(|ending| {
        let begin = text.len().checked_sub(ending.len());
        begin.and_then(|begin| text.get(begin..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
    })?;
    let time = text.get(..text.len() - ending.len())?.trim_end();
    time.ends_with(|last: char| last.is_ascii_digit()).then(|| format!("{time}Z"))
}

/// Reads a time: `2026-01-15 14:30:00+01:00`, the same without an offset or seconds, a day (the end
/// of it), `... UTC`, `now`, `yesterday`, `2 hours ago`, `3.days.ago`, `@SECONDS` since 1970.
///
/// Returns `None` for anything else.
pub fn read_time(text: &str, now: Timestamp, zone: &TimeZone) -> Option<ReadTime> {
    let text = text.trim();
    let exact = |time| Some(ReadTime { time: from_jiff(time)?, assumed: false, other: None });
    let assumed =
        |zoned: Zoned| Some(ReadTime { time: from_jiff(zoned.timestamp())?, assumed: true, other: None });
    if let Some(seconds) = text.strip_prefix('@') {
        return exact(jiff::Timestamp::from_second(seconds.parse().ok()?).ok()?);
    }
    // `14:30:00 +01:00` is how people write it, and how this program shows it.
    let joined = in_utc(text).unwrap_or_else(|| text.replace(" +", "+").replace(" -", "-"));
    if let Ok(time) = joined.parse::<jiff::Timestamp>() {
        return exact(time);
    }
    if let Ok(day) = text.parse::<Date>().and_then(|day| match text.len() {
        10 => day.to_datetime(Time::MAX).to_zoned(zone.clone()),
        _ => Err(jiff::Error::from_args(format_args!("more than a day"))),
    }) {
        return assumed(day);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        let read = zone.to_ambiguous_zoned(time);
        let other = match read.offset() {
            AmbiguousOffset::Fold { after, .. } => from_jiff(after.to_timestamp(time).ok()?),
            _ => None,
        };
        // The earlier of two.
        return Some(ReadTime { other, ..assumed(read.compatible().ok()?)? });
    }
    let words = text.replace('.', " ").to_ascii_lowercase();
    let now = to_jiff(now).to_zoned(zone.clone());
    match words.as_str() {
        "now" => return assumed(now),
        "yesterday" => return assumed(now.checked_sub(Span::new().days(1)).ok()?),
        _ => {}
    }
    let back = words.strip_suffix("ago")?.trim();
    let span: Span = back.parse().ok()?;
    assumed(now.checked_sub(span).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let now = Timestamp::from_parts(1_768_484_400, 0).unwrap();
        read_time(text, now, &zone).map(|read| format!("{} {}", show_time(read.time, &zone), read.assumed))
    }

    #[test]
    fn times_as_people_write_them() {
        for (text, expected) in [
            ("now", "2026-01-15 14:40:00 +01:00 true"),
            ("2026-01-15 14:30:00+01:00", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15T13:30:00Z", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15 14:30:00 +01:00", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15 13:30:00 UTC", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15 13:30:00.5utc", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15 13:30:00 GMT", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15 13:30 z", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15 09:30:00 -04:00", "2026-01-15 14:30:00 +01:00 false"),
            ("2026-01-15 14:30", "2026-01-15 14:30:00 +01:00 true"),
            ("2026-01-15T14:30:01", "2026-01-15 14:30:01 +01:00 true"),
            ("2026-01-14", "2026-01-14 23:59:59 +01:00 true"),
            ("yesterday", "2026-01-14 14:40:00 +01:00 true"),
            ("2 hours ago", "2026-01-15 12:40:00 +01:00 true"),
            ("3.days.ago", "2026-01-12 14:40:00 +01:00 true"),
            ("1 week 2 days ago", "2026-01-06 14:40:00 +01:00 true"),
            ("@0", "1970-01-01 01:00:00 +01:00 false"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
        // In the night in which clocks are set back from 3 to 2.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let read_there = |text| {
            let read = read_time(text, Timestamp::default(), &zone).unwrap();
            (show_time(read.time, &zone), read.other.map(|other| show_time(other, &zone)))
        };
        let (first, second) = ("2026-10-25 02:30:00 +02:00", "2026-10-25 02:30:00 +01:00");
        assert_eq!(read_there("2026-10-25 02:30"), (first.to_owned(), Some(second.to_owned())));
        assert_eq!(read_there(second), (second.to_owned(), None));
        assert_eq!(read_there("2026-10-25 03:00").1, None);
        for text in [
            "",
            "ago",
            "soon",
            "2 hours",
            "2026-13-01",
            "25:00",
            "@x",
            "2026-01-15 25:00",
            "UTC",
            "Z",
            "now UTC",
            "é",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
