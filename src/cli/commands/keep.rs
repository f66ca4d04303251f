//! The rules of a retention policy, as options: `forget` and `pg forget` take the same.

use super::backup::parse_tag;
use crate::cli::fault::Fault;
use crate::ops::retention::{Amount, Interval, KeepDays, Period, Policy, PolicyError};
use clap::Args;

/// What is kept.
#[derive(Args)]
pub struct KeepRules {
    /// Keeps the newest N
    #[arg(long, value_name = "N")]
    pub keep_last: Vec<String>,
    /// Keeps the newest of each of the newest N minutes that have one
    #[arg(long, value_name = "N")]
    pub keep_minutely: Vec<String>,
    /// ... hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Vec<String>,
    /// ... days
    #[arg(long, value_name = "N")]
    pub keep_daily: Vec<String>,
    /// ... weeks, which begin on Mondays
    #[arg(long, value_name = "N")]
    pub keep_weekly: Vec<String>,
    /// ... months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Vec<String>,
    /// ... quarters
    #[arg(long, value_name = "N")]
    pub keep_quarterly: Vec<String>,
    /// ... years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Vec<String>,
    /// Keeps everything of this interval back from the newest
    #[arg(long, value_name = "INTERVAL")]
    pub keep_within: Vec<String>,
    /// Keeps hourly ones of this interval
    #[arg(long, value_name = "INTERVAL")]
    pub keep_within_hourly: Vec<String>,
    /// Keeps daily ones
    #[arg(long, value_name = "INTERVAL")]
    pub keep_within_daily: Vec<String>,
    /// Keeps weekly ones
    #[arg(long, value_name = "INTERVAL")]
    pub keep_within_weekly: Vec<String>,
    /// Keeps monthly ones
    #[arg(long, value_name = "INTERVAL")]
    pub keep_within_monthly: Vec<String>,
    /// Keeps yearly ones
    #[arg(long, value_name = "INTERVAL")]
    pub keep_within_yearly: Vec<String>,
    /// Keeps what has this tag; several times: with any of them
    #[arg(long, value_name = "K[=V]")]
    pub keep_tag: Vec<String>,
    /// Keeps everything of the last days, reckoned from now
    #[arg(long, value_name = "DAYS")]
    pub keep_days: Option<u16>,
    /// With --keep-days: keeps at least so many, however old
    #[arg(long, value_name = "N", requires = "keep_days", default_value_t = 0)]
    pub keep_days_least: u32,
}

/// Says what is wrong with a policy.
pub fn refused(error: PolicyError) -> Fault {
    Fault::usage(error.to_string(), "`chronolith help forget` shows the rules")
}

impl KeepRules {
    /// Returns the policy; it may be empty.
    pub fn policy(&self) -> Result<Policy, Fault> {
        let mut policy = Policy::default();
        for text in &self.keep_last {
            policy.last.push(Amount::parse(text).map_err(refused)?);
        }
        for text in &self.keep_within {
            policy.last.push(Amount::Within(Interval::parse(text).map_err(refused)?));
        }
        let amounts = [
            (Period::Minute, &self.keep_minutely),
            (Period::Hour, &self.keep_hourly),
            (Period::Day, &self.keep_daily),
            (Period::Week, &self.keep_weekly),
            (Period::Month, &self.keep_monthly),
            (Period::Quarter, &self.keep_quarterly),
            (Period::Year, &self.keep_yearly),
        ];
        for (period, texts) in amounts {
            for text in texts {
                policy.periods.push((period, Amount::parse(text).map_err(refused)?));
            }
        }
        let intervals = [
            (Period::Hour, &self.keep_within_hourly),
            (Period::Day, &self.keep_within_daily),
            (Period::Week, &self.keep_within_weekly),
            (Period::Month, &self.keep_within_monthly),
            (Period::Year, &self.keep_within_yearly),
        ];
        for (period, texts) in intervals {
            for text in texts {
                policy.periods.push((period, Amount::Within(Interval::parse(text).map_err(refused)?)));
            }
        }
        policy.tags = self.keep_tag.iter().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?;
        policy.days = self.keep_days.map(|days| KeepDays { days, at_least: self.keep_days_least });
        Ok(policy)
    }
}
