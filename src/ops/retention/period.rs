//! Calendar periods: two times are in the same one when their keys are equal.

use jiff::Zoned;

/// A calendar period of which a policy keeps the newest snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// A minute.
    Minute,
    /// An hour. The hour that is repeated when clocks are set back is two.
    Hour,
    /// A day from midnight to midnight in the time zone, be it of 23 or 25 hours.
    Day,
    /// A week from Monday to Sunday (ISO 8601).
    Week,
    /// A month.
    Month,
    /// A quarter of a year.
    Quarter,
    /// A year.
    Year,
}

impl Period {
    /// All periods, shortest first.
    pub const ALL: [Self; 7] =
        [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// Returns the word by which options and reasons name it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Minute => "minutely",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Quarter => "quarterly",
            Self::Year => "yearly",
        }
    }

    /// Returns what tells this period from all others of its kind.
    pub(super) fn key(self, time: &Zoned) -> [i32; 4] {
        let year = i32::from(time.year());
        let month = i32::from(time.month());
        // The offset tells the two hours apart that have one name when clocks are set back.
        let offset = time.offset().seconds();
        let day = i32::from(time.day_of_year());
        let hour = i32::from(time.hour());
        match self {
            Self::Minute => [year, day, hour * 60 + i32::from(time.minute()), offset],
            Self::Hour => [year, day, hour, offset],
            Self::Day => [year, day, 0, 0],
            Self::Week => {
                let week = time.date().iso_week_date();
                [i32::from(week.year()), i32::from(week.week()), 0, 0]
            }
            Self::Month => [year, month, 0, 0],
            Self::Quarter => [year, (month - 1) / 3, 0, 0],
            Self::Year => [year, 0, 0, 0],
        }
    }
}
