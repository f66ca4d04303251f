//! Which base backups stay, and what of the log with them.

use super::going::{Going, file_ages, ranges};
use super::{BaseDecision, BaseReason, ClusterPlan, ClusterPolicy, KeptBase, LineagePlan, Present};
use crate::base::{SnapshotId, Timestamp};
use crate::ops::OpsError;
use crate::ops::retention::{Candidate, Policy, Reason, plan};
use crate::postgres::base::LogPlace;
use crate::postgres::stream::ClusterLog;
use crate::repo::FRESH_LOG_SECONDS;
use crate::timeline::{HeldBase, LogDecision, LogReason, LogRetention, LogRules, intervals};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// How long log stays that no good base backup leads to.
const RECENT: i64 = 7 * DAY;
/// How much older than a running backup the log may be that it needs: a standby begins at its last restart point.
const BEFORE_BACKUP: i64 = DAY;

/// Times that all lineages have in common.
pub(super) struct Times {
    /// The present, or when anything was archived last: where nothing new comes, nothing old goes.
    pub newest: Timestamp,
    pub recent: Timestamp,
    pub busy: Timestamp,
}

impl Times {
    pub fn of(logs: &[ClusterLog], bases: &[KeptBase], present: &Present) -> Self {
        let files =
            logs.iter().flat_map(|log| log.files.values().flatten()).filter_map(|object| object.stored);
        let newest = files.chain(bases.iter().filter_map(|base| base.stored)).max();
        let newest = newest.map_or(present.now, |newest| newest.min(present.now));
        let before =
            |time: Timestamp, span| Timestamp::from_nanoseconds(time.nanoseconds().saturating_sub(span));
        let fresh = before(newest, FRESH_LOG_SECONDS * SECOND);
        let running = present.running_since.map(|since| before(since, BEFORE_BACKUP));
        let busy = running.map_or(fresh, |running| running.min(fresh));
        Self { newest, recent: before(newest, RECENT).min(busy), busy }
    }

    pub fn rules(&self, window: Option<Timestamp>, is_current: bool) -> LogRules {
        LogRules { window, recent: self.recent, busy: self.busy, is_current }
    }
}

/// Says whether a lineage is the newest from which anything can be recovered.
pub(super) fn is_current(logs: &[ClusterLog], bases: &[KeptBase], place: usize) -> bool {
    logs.iter().skip(place + 1).all(|log| {
        let held = held_by(log, bases, |_| false);
        let files = file_ages(log);
        let retention = LogRetention::new(&log.stream, &held, &files);
        !held.iter().any(|held| held.counts && retention.is_good(&held.base))
    })
}

pub(super) fn held_by(
    log: &ClusterLog,
    bases: &[KeptBase],
    kept: impl Fn(&KeptBase) -> bool,
) -> Vec<HeldBase> {
    let identifier = log.lineage.system_identifier;
    let own = bases.iter().filter(|base| base.facts.system_identifier == identifier);
    own.map(|base| base.held(kept(base))).collect()
}

pub(super) fn decide_log(log: &ClusterLog, held: &[HeldBase], rules: &LogRules) -> LogDecision {
    let files = file_ages(log);
    LogRetention::new(&log.stream, held, &files).decide(rules)
}

/// Decides about base backups, which come in the order of their commits, and the log of all lineages.
///
/// # Errors
///
/// [`OpsError::Usage`] for a policy that would keep nothing.
pub fn decide(
    logs: &[ClusterLog],
    bases: &[KeptBase],
    policy: &ClusterPolicy,
    zone: &TimeZone,
    present: &Present,
) -> Result<ClusterPlan, OpsError> {
    if policy.is_empty() {
        return Err(OpsError::Usage(
            "the policy is empty: it would keep nothing; nothing was forgotten".to_owned(),
        ));
    }
    let times = Times::of(logs, bases, present);
    let window = policy.log.map(|span| span.back_from(times.newest, zone));
    let good = good_bases(logs, bases);
    let mut reasons = by_rules(bases, &good, policy, window, zone, times.newest)?;
    let mut lineages = Vec::new();
    for (place, log) in logs.iter().enumerate() {
        let rules = times.rules(window, is_current(logs, bases, place));
        let kept = |base: &KeptBase| base.doubtful || reasons.get(&base.id).is_some_and(|r| !r.is_empty());
        let decision = decide_log(log, &held_by(log, bases, kept), &rules);
        for base in bases {
            let name = base.id.to_string();
            let reasons = reasons.entry(base.id).or_default();
            if decision.by_window.contains(&name) {
                reasons.insert(BaseReason::BeginsWindow);
            }
            if decision.waiting.contains(&name) && reasons.is_empty() {
                reasons.insert(BaseReason::Waiting);
            }
        }
        lineages.push(rules);
    }
    // Backups of a lineage of which no log is archived: they hold it, and are good by themselves.
    let is_good = |base: &&KeptBase| good.contains(&base.id);
    let stays = |base: &KeptBase| reasons.get(&base.id).is_some_and(|reasons| !reasons.is_empty());
    if !policy.allow_remove_all
        && !bases.iter().filter(is_good).any(stays)
        && let Some(newest) = bases.iter().rev().find(is_good)
    {
        reasons.entry(newest.id).or_default().insert(BaseReason::Only);
    }
    let plan = |(log, rules): (&ClusterLog, LogRules)| {
        let kept = |base: &KeptBase| base.doubtful || reasons.get(&base.id).is_some_and(|r| !r.is_empty());
        let decision = decide_log(log, &held_by(log, bases, kept), &rules);
        let going = Going::of(log, &decision, &times);
        let own = bases.iter().filter(|base| base.facts.system_identifier == log.lineage.system_identifier);
        let (mut all, mut left, mut decisions) = (Vec::new(), Vec::new(), Vec::new());
        for base in own {
            let line = base.facts.log_base(base.id.to_string());
            if kept(base) {
                left.push(line.clone());
            }
            all.push(line);
            if !base.doubtful {
                decisions.push(BaseDecision {
                    id: base.id,
                    stopped: base.facts.stopped,
                    timeline: u64::from(base.facts.timeline),
                    good: good.contains(&base.id),
                    reasons: reasons.get(&base.id).cloned().unwrap_or_default(),
                });
            }
        }
        let after = log.stream.left(&going.names, &decision.histories);
        let mut kept_segments: BTreeMap<LogReason, u64> = BTreeMap::new();
        for segment in log.stream.segments() {
            if let Some(reason) = decision.kept.get(&segment.name) {
                *kept_segments.entry(*reason).or_default() += segment.count;
            }
        }
        let going_segments = || log.stream.segments().filter(|segment| going.names.contains(&segment.name));
        let segments: u64 = going_segments().map(|segment| segment.count).sum();
        let stretches = going_segments().count() as u64;
        LineagePlan {
            lineage: log.lineage.clone(),
            bases: decisions,
            before: intervals(&log.stream, &all),
            after: intervals(&after, &left),
            kept: kept_segments,
            ranges: ranges(log, &going.names),
            segments,
            // Of a stretch only the first has its name there.
            files: segments.max(stretches) - stretches + going.names.len() as u64,
            objects: going.objects,
            bytes: going.bytes,
        }
    };
    let lineages = logs.iter().zip(lineages).map(plan).collect();
    Ok(ClusterPlan { window, lineages })
}

/// Returns the backups whose log is all there. One of a lineage of which nothing is archived is good if it
/// holds its own.
fn good_bases(logs: &[ClusterLog], bases: &[KeptBase]) -> BTreeSet<SnapshotId> {
    let mut good: BTreeSet<SnapshotId> =
        bases.iter().filter(|base| base.facts.log == LogPlace::Inside).map(|base| base.id).collect();
    for log in logs {
        let held = held_by(log, bases, |_| false);
        let files = file_ages(log);
        let retention = LogRetention::new(&log.stream, &held, &files);
        let names = held.iter().filter(|held| retention.is_good(&held.base)).map(|held| &held.base.name);
        good.extend(names.filter_map(|name| name.parse::<SnapshotId>().ok()));
    }
    good.retain(|id| bases.iter().any(|base| base.id == *id && !base.doubtful));
    good
}

/// Applies the rules for base backups. Only good ones count; pins and tags hold any.
fn by_rules(
    bases: &[KeptBase],
    good: &BTreeSet<SnapshotId>,
    policy: &ClusterPolicy,
    window: Option<Timestamp>,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<BTreeMap<SnapshotId, BTreeSet<BaseReason>>, OpsError> {
    let mut reasons: BTreeMap<SnapshotId, BTreeSet<BaseReason>> = BTreeMap::new();
    let mut keep = |id: SnapshotId, reason| {
        reasons.entry(id).or_default().insert(reason);
    };
    let counted: Vec<&KeptBase> = bases.iter().filter(|base| good.contains(&base.id)).collect();
    for base in bases.iter().filter(|base| base.pinned) {
        keep(base.id, BaseReason::Rule(Reason::Pinned));
    }
    for base in bases.iter().filter(|base| !good.contains(&base.id)) {
        base.kept_tags(&policy.bases).for_each(|tag| keep(base.id, BaseReason::Rule(Reason::Tag(tag))));
    }
    if !policy.bases.is_empty() {
        let candidates: Vec<Candidate<'_>> = counted.iter().map(|base| base.candidate()).collect();
        let rules = Policy { allow_remove_all: true, ..policy.bases.clone() };
        let plan =
            plan(&candidates, &rules, zone, now).map_err(|error| OpsError::Usage(error.to_string()))?;
        for decision in plan.groups.into_iter().flat_map(|group| group.decisions) {
            decision.reasons.into_iter().for_each(|reason| keep(decision.id, BaseReason::Rule(reason)));
        }
    }
    if let Some(count) = policy.full.filter(|count| *count > 0) {
        let full = counted.iter().enumerate().rev().filter(|(_, base)| base.full);
        let oldest = full.take(count as usize).last().map(|(place, _)| place);
        counted.iter().skip(oldest.unwrap_or(0)).for_each(|base| keep(base.id, BaseReason::Full));
    }
    if let Some(window) = window.filter(|_| !policy.rules_for_bases()) {
        let within = counted.iter().filter(|base| base.ended() >= window);
        within.for_each(|base| keep(base.id, BaseReason::Window));
    }
    Ok(reasons)
}
