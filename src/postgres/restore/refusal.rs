//! Why a target cannot be reached, in words, and what can be.

use super::choice::Choice;
use crate::base::{SnapshotId, Timestamp};
use crate::postgres::error::PostgresError;
use crate::postgres::segment::Lsn;
use crate::timeline::{Refusal, Target};

/// Writes an instant with its offset.
fn instant(time: Timestamp) -> String {
    crate::ops::show_time(time, &jiff::tz::TimeZone::UTC)
}

impl Choice<'_> {
    /// Says why a target cannot be reached, and what can be.
    pub(super) fn explain(&self, refusal: &Refusal) -> PostgresError {
        let archived = self.archived;
        let (why, mut cure) = match refusal {
        Refusal::BeforeBase { stopped, .. } if matches!(self.options.target, Target::Transaction { .. }) => (
            format!(
                "the transaction that is the target began before every base backup; the oldest ended at {}",
                instant(*stopped)
            ),
            "--base SNAP restores from one all the same: if the transaction was running then, it leads there".to_owned(),
        ),
        Refusal::BeforeBase { stopped, stop, .. } => (
            format!(
                "the target lies before the end of every base backup: the oldest that was looked at ended at {} ({})",
                instant(*stopped),
                Lsn(*stop)
            ),
            "choose a later target, or an older base backup with --base".to_owned(),
        ),
        Refusal::Beyond { .. } if !archived => (
            "the target lies behind the end of the base backup, and no log of this cluster is archived"
                .to_owned(),
            "--target latest restores what the backup holds; archive the log for more (pg archive-push)"
                .to_owned(),
        ),
        Refusal::Beyond { base, latest, end, timeline, next } => {
            let latest = latest.map_or(String::new(), |latest| {
                format!(", its latest transaction ended at {}", instant(latest))
            });
            let hole =
                next.map_or(String::new(), |next| format!("; segments up to {} are missing", Lsn(next)));
            (
                format!(
                    "the archived log of timeline {timeline} ends at {} before the target{latest}{hole}",
                    Lsn(*end)
                ),
                match next {
                    Some(_) => format!(
                        "--base {} --target-timeline {timeline} --target latest --up-to-gap restores what lies before \
                         the hole",
                        base.parse::<SnapshotId>().map_or_else(|_| base.clone(), |id| id.short())
                    ),
                    None => "--target latest restores what there is".to_owned(),
                },
            )
        }
        Refusal::LostHistory { lost, chosen } => (
            format!(
                "there is log of timeline {lost}, but no history of it that can be used: whether the newest \
                 timeline is {chosen}, nobody can say"
            ),
            format!(
                "archive {lost:08X}.history from a server that has it, or name the timeline: --target-timeline {chosen}"
            ),
        ),
        Refusal::Incomplete { timeline, missing, .. } => (
            format!(
                "the log that makes the base backup consistent is not in the archive: timeline {timeline} from {} on",
                Lsn(*missing)
            ),
            "wait until the server has archived it, or choose an older base backup with --base".to_owned(),
        ),
        Refusal::NoPoint { known, .. } => (
            refusal.to_string(),
            match known.is_empty() {
                true => "it has none at all behind the end of a base backup".to_owned(),
                false => format!("it has: {}", known.join(", ")),
            },
        ),
        other => (other.to_string(), "chronolith pg timeline shows what can be recovered".to_owned()),
    };
        let elsewhere = self.timelines_with_target();
        if let Some(first) = elsewhere.first() {
            let all: Vec<String> = elsewhere.iter().map(ToString::to_string).collect();
            let which = if all.len() == 1 { "timeline" } else { "timelines" };
            cure = format!("it lies on {which} {}: --target-timeline {first}; else {cure}", all.join(", "));
        }
        PostgresError::Refused { why, cure }
    }
}
