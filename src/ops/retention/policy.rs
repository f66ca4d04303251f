//! What a retention policy may ask for, and how people write it.

use super::period::Period;
use crate::base::Timestamp;
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};
use std::fmt;

/// A stretch of calendar time, written `1y6m2w3d12h`: years, months, weeks, days, hours.
///
/// Days, months and years are those of the calendar, so that a day may have 23 or 25 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    years: u16,
    months: u16,
    weeks: u16,
    days: u16,
    hours: u16,
}

impl Interval {
    /// Makes an interval of whole days.
    pub const fn of_days(days: u16) -> Self {
        Self { years: 0, months: 0, weeks: 0, days, hours: 0 }
    }

    /// Reads `7d`, `1y6m`, `2w`, `36h`; each unit at most once.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Interval`] for anything else, an interval of nothing included.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError::Interval(text.to_owned());
        let mut read = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, tail) = rest.split_at_checked(digits).ok_or_else(wrong)?;
            let number: u16 = number.parse().map_err(|_| wrong())?;
            let mut tail = tail.chars();
            let unit = match tail.next() {
                Some('y') => &mut read.years,
                Some('m') => &mut read.months,
                Some('w') => &mut read.weeks,
                Some('d') => &mut read.days,
                Some('h') => &mut read.hours,
                _ => return Err(wrong()),
            };
            if *unit != 0 {
                return Err(wrong());
            }
            *unit = number;
            rest = tail.as_str();
        }
        if read == Self::default() { Err(wrong()) } else { Ok(read) }
    }

    /// Returns the time this long before an instant, by the calendar of a time zone.
    pub fn back_from(&self, time: Timestamp, zone: &TimeZone) -> Timestamp {
        self.before(&super::super::time::to_jiff(time).to_zoned(zone.clone()))
    }

    /// Returns the time this long before another; the beginning of time where there is none.
    pub(super) fn before(&self, time: &Zoned) -> Timestamp {
        let span = Span::new()
            .try_years(self.years)
            .and_then(|span| span.try_months(self.months))
            .and_then(|span| span.try_weeks(self.weeks))
            .and_then(|span| span.try_days(self.days))
            .and_then(|span| span.try_hours(self.hours));
        span.and_then(|span| time.checked_sub(span))
            .ok()
            .and_then(|time| i64::try_from(time.timestamp().as_nanosecond()).ok())
            .map_or(Timestamp::from_nanoseconds(i64::MIN), Timestamp::from_nanoseconds)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [(self.years, 'y'), (self.months, 'm'), (self.weeks, 'w'), (self.days, 'd'), (self.hours, 'h')];
        parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

/// How much of something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// All of it.
    All,
    /// The newest so many. 0 keeps none, as if nothing had been asked for.
    Count(u32),
    /// What is at most this much older than the newest of the group.
    Within(Interval),
}

impl Amount {
    /// Reads `7`, `7d` or `all`.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Amount`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text == "all" {
            return Ok(Self::All);
        }
        if let Ok(count) = text.parse() {
            return Ok(Self::Count(count));
        }
        Interval::parse(text).map(Self::Within).map_err(|_| PolicyError::Amount(text.to_owned()))
    }

    fn is_nothing(self) -> bool {
        self == Self::Count(0)
    }
}

/// Keeps everything of the last days, and a number of snapshots also when no new ones come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepDays {
    /// Calendar days back from now.
    pub days: u16,
    /// The newest so many are kept however old they are.
    pub at_least: u32,
}

/// A retention policy: a snapshot stays when any of its rules keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest snapshots.
    pub last: Vec<Amount>,
    /// The newest snapshot of each period, for so many periods that have one. A period may stand here
    /// several times.
    pub periods: Vec<(Period, Amount)>,
    /// Snapshots with one of these tags: a key, and its value where that matters.
    pub tags: Vec<(String, Option<String>)>,
    /// The last days.
    pub days: Option<KeepDays>,
    /// Lets a group lose its last snapshot.
    pub allow_remove_all: bool,
}

impl Policy {
    /// Says whether no rule could keep anything.
    pub fn is_empty(&self) -> bool {
        self.last.iter().all(|amount| amount.is_nothing())
            && self.periods.iter().all(|(_, amount)| amount.is_nothing())
            && self.tags.is_empty()
            && self.days.is_none_or(|days| days.days == 0 && days.at_least == 0)
    }
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It would keep nothing.
    #[error("the policy is empty: it would keep nothing")]
    Empty,
    /// No interval.
    #[error("{0:?} is no interval: write numbers with y, m (months), w, d or h, such as 7d or 1y6m")]
    Interval(String),
    /// Neither number nor interval.
    #[error("{0:?} is neither a number of snapshots, nor an interval such as 7d or 1y6m, nor \"all\"")]
    Amount(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_as_people_write_them() {
        for text in ["7d", "1y6m2w3d12h", "36h", "2w"] {
            assert_eq!(Interval::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "7", "d", "0d", "7d7d", "-1d", "1.5d", "7 d", "99999d", "7D", "5s"] {
            assert!(Interval::parse(text).is_err(), "{text}");
        }
        assert_eq!(Interval::parse("1d1y").unwrap().to_string(), "1y1d");
    }

    #[test]
    fn amounts() {
        assert_eq!(Amount::parse("7"), Ok(Amount::Count(7)));
        assert_eq!(Amount::parse("all"), Ok(Amount::All));
        assert_eq!(Amount::parse("7d"), Ok(Amount::Within(Interval::of_days(7))));
        for text in ["", "-1", "x", "7.5", "99999999999"] {
            assert_eq!(Amount::parse(text), Err(PolicyError::Amount(text.to_owned())));
        }
    }

    #[test]
    fn a_policy_of_nothings_is_empty() {
        let mut policy = Policy { allow_remove_all: true, ..Policy::default() };
        assert!(policy.is_empty());
        policy.last.push(Amount::Count(0));
        policy.periods.push((Period::Day, Amount::Count(0)));
        policy.days = Some(KeepDays { days: 0, at_least: 0 });
        assert!(policy.is_empty());
        policy.periods.push((Period::Day, Amount::All));
        assert!(!policy.is_empty());
    }
}
