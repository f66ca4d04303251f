//! What a drill came to, noted in the repository: an entry of the ledger of verification
//! (`format-spec/annotation.md`).

use super::DrillReport;
use crate::base::{SnapshotId, Timestamp};
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::trust::Act;
use crate::ops::OpsError;
use crate::repo::Repository;
use std::collections::BTreeMap;

/// What the annotation says of how it was done.
pub const METHOD_DRILL: &str = "drill";
/// Longest reason that is noted.
const REASON_CHARACTERS_MAX: usize = 4000;

fn instant(time: Timestamp) -> String {
    crate::ops::show_time(time, &jiff::tz::TimeZone::UTC)
}

/// Notes what a drill of a base backup came to; `came_to` is its report, or why there is none. `told` are more
/// figures, by name.
///
/// # Errors
///
/// When the store fails.
pub fn record(
    repository: &Repository,
    base: SnapshotId,
    came_to: Result<&DrillReport, &str>,
    told: BTreeMap<String, String>,
) -> Result<(), OpsError> {
    let mut annotation = Annotation::new(AnnotationKind::Verified, repository.environment().clock.now());
    annotation.subjects = [base].into_iter().collect();
    annotation.method = Some(METHOD_DRILL.to_owned());
    annotation.facts = told;
    let mut put = |name: &str, value: String| drop(annotation.facts.insert(name.to_owned(), value));
    let reason = match came_to {
        Ok(report) => {
            let findings = &report.findings;
            put("restore_seconds", format!("{:.3}", report.restore_seconds));
            put("replay_seconds", format!("{:.3}", report.replay_seconds));
            put("rto_seconds", format!("{:.3}", report.restore_seconds + report.replay_seconds));
            put("bytes", report.restored.bytes.to_string());
            put(
                "databases",
                findings.databases.values().filter(|d| d.found_bytes.is_some()).count().to_string(),
            );
            put("assertions", findings.assertions.to_string());
            put("amcheck", if findings.amcheck { "yes" } else { "no" }.to_owned());
            if let Some(time) = findings.recovered_to {
                put("recovered_to", instant(time));
            }
            match findings.problems.as_slice() {
                [] => None,
                [first] => Some(first.clone()),
                [first, rest @ ..] => Some(format!("{first}; and {} more", rest.len())),
            }
        }
        Err(why) => Some(why.to_owned()),
    };
    annotation.outcome = Some(if reason.is_none() { Outcome::Passed } else { Outcome::Failed });
    annotation.value = reason.map(|reason| reason.chars().take(REASON_CHARACTERS_MAX).collect());
    repository.annotate(&annotation, Act::Verified)?;
    Ok(())
}
