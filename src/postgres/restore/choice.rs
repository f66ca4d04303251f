//! The base backup that a target needs, and the log behind it; or why there are none.

use super::{RestoreOptions, Timeline, read_file};
use crate::postgres::base::Base;
use crate::postgres::control::ControlFile;
use crate::postgres::error::PostgresError;
use crate::postgres::segment::Lsn;
use crate::postgres::stream::{ClusterLog, log_base};
use crate::repo::Repository;
use crate::timeline::{
    Certainty, LogBase, LogStream, RecoveryPlan, Refusal, Target, plan_from, plan_on_own_timelines,
};
use std::sync::Arc;

/// What a restore chooses from: base backups of one lineage, and its log.
pub(super) struct Choice<'a> {
    pub(super) stream: LogStream,
    pub(super) archived: bool,
    pub(super) options: &'a RestoreOptions,
    bases: Vec<LogBase>,
    /// The oldest of those that were left aside since the transaction that is the target began before them.
    too_new: Option<LogBase>,
}

impl<'a> Choice<'a> {
    /// Takes what there is, without the base backups that are too new for the target.
    ///
    /// # Errors
    ///
    /// When a base backup cannot be read.
    pub(super) fn new(
        repository: &Arc<Repository>,
        bases: &[&Base],
        stream: LogStream,
        archived: bool,
        options: &'a RestoreOptions,
    ) -> Result<Self, PostgresError> {
        let mut choice = Self { stream, archived, options, bases: Vec::new(), too_new: None };
        for base in bases {
            let line = log_base(base);
            // Who names one may know that the transaction was running when it was taken.
            let is_too_new = match options.target {
                Target::Transaction { number } if options.base.is_none() => {
                    next_transaction(repository, base)?.is_some_and(|next| began_before(number, next))
                }
                _ => false,
            };
            match is_too_new {
                true if choice.too_new.as_ref().is_none_or(|oldest| line.stopped < oldest.stopped) => {
                    choice.too_new = Some(line);
                }
                true => {}
                false => choice.bases.push(line),
            }
        }
        Ok(choice)
    }

    /// The same with another log.
    pub(super) fn with(&self, stream: LogStream) -> Self {
        let (bases, too_new) = (self.bases.clone(), self.too_new.clone());
        Self { stream, archived: self.archived, options: self.options, bases, too_new }
    }

    /// Plans from the newest backup that allows the target.
    ///
    /// # Errors
    ///
    /// Why none does; or where the log has a hole, if that was not allowed.
    pub(super) fn plan(&self) -> Result<RecoveryPlan, PostgresError> {
        let plan = self.choose().map_err(|refusal| self.explain(&refusal))?;
        match plan.cut.filter(|_| !self.options.up_to_gap) {
            None => Ok(plan),
            Some((from, to)) => Err(PostgresError::refused(
                format!(
                    "the archived log has a hole from {} to {}: the recovery would end before it, without what is behind",
                    Lsn(from),
                    Lsn(to)
                ),
                "archive what is missing (chronolith pg timeline shows what is there), choose another base backup with \
                 --base, or give --up-to-gap to restore what lies before the hole",
            )),
        }
    }

    fn choose(&self) -> Result<RecoveryPlan, Refusal> {
        if let (true, Some(LogBase { name, stopped, stop, .. })) = (self.bases.is_empty(), &self.too_new) {
            return Err(Refusal::BeforeBase { base: name.clone(), stopped: *stopped, stop: *stop });
        }
        match self.options.timeline {
            Timeline::Latest => plan_from(&self.stream, &self.bases, &self.options.target, None),
            Timeline::Number(number) => {
                plan_from(&self.stream, &self.bases, &self.options.target, Some(number))
            }
            Timeline::OfBase => plan_on_own_timelines(&self.stream, &self.bases, &self.options.target),
        }
    }

    /// Returns the timelines on which the target is reached for certain, where it is one that lies on some and not on
    /// others.
    pub(super) fn timelines_with_target(&self) -> Vec<u64> {
        if matches!(self.options.target, Target::Latest | Target::Immediate | Target::Transaction { .. }) {
            return Vec::new();
        }
        let mut timelines = self.stream.timelines();
        timelines.extend(self.bases.iter().map(|base| base.timeline));
        let reaches = |timeline: &u64| {
            let plan = plan_from(&self.stream, &self.bases, &self.options.target, Some(*timeline));
            plan.is_ok_and(|plan| plan.certainty == Certainty::Certain)
        };
        timelines.into_iter().filter(reaches).collect()
    }
}

/// Finds the system whose backups lead to the target: the newest, or one from before an upgrade, where those after it
/// lie behind the target or know nothing of it.
///
/// # Errors
///
/// As [`Choice::new`].
pub(super) fn lineage_for(
    repository: &Arc<Repository>,
    bases: &[Base],
    logs: &[ClusterLog],
    options: &RestoreOptions,
) -> Result<Option<u64>, PostgresError> {
    let mut looked_at = Vec::new();
    for newest in bases.iter().rev() {
        let identifier = newest.facts.system_identifier;
        if looked_at.contains(&identifier) {
            continue;
        }
        looked_at.push(identifier);
        let own: Vec<&Base> =
            bases.iter().filter(|base| base.facts.system_identifier == identifier).collect();
        let log = logs.iter().find(|log| log.lineage.system_identifier == identifier);
        let empty = || LogStream::new(newest.facts.segment_size.bytes());
        let stream = log.map_or_else(empty, |log| log.stream.clone());
        match Choice::new(repository, &own, stream, log.is_some(), options)?.choose() {
            Err(Refusal::BeforeBase { .. } | Refusal::NoPoint { .. } | Refusal::NoHistory { .. }) => {}
            _ => return Ok(Some(identifier)),
        }
    }
    Ok(None)
}

/// Reads the number of the transaction that was to be the next when the control file of a base backup was written.
fn next_transaction(repository: &Arc<Repository>, base: &Base) -> Result<Option<u64>, PostgresError> {
    let control = read_file(repository, base, "vital/pg_control")?;
    Ok(control.and_then(|control| ControlFile::parse(&control).ok()).map(|control| control.next_transaction))
}

/// Says whether a transaction has a smaller number than another. Numbers of 32 bits, as tables and logs show them, begin
/// anew after four thousand million: of two the earlier is the one from which it is less far to the other.
fn began_before(number: u64, next: u64) -> bool {
    match u32::try_from(number) {
        Ok(number) => {
            let low = u32::try_from(next & u64::from(u32::MAX)).unwrap_or_default();
            number.wrapping_sub(low) > u32::MAX / 2
        }
        Err(_) => number < next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_transactions_begin_anew() {
        assert!(began_before(999, 1000) && !began_before(1000, 1000) && !began_before(1001, 1000));
        // The second round, named with 32 bits and with all.
        let next = (1 << 32) + 1000;
        assert!(began_before(999, next) && !began_before(1000, next));
        assert!(began_before(u64::from(u32::MAX) - 5, next) && began_before(3 + u64::from(u32::MAX), next));
        assert!(!began_before(next, next) && began_before(next - 1, next) && !began_before(2 << 32, next));
    }
}
