//! What one recovery needs of the log, looked up before anything is written; or why it cannot be.

use super::interval::consistent;
use super::path::{Detour, TimelinePath};
use super::stream::{LogBase, LogSegment, LogStream, Reach};
use crate::base::Timestamp;

/// Where a recovery is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Where the log ends.
    Latest,
    /// As soon as the backup is consistent.
    Immediate,
    /// At an instant.
    Time {
        /// The instant.
        at: Timestamp,
        /// Whether what ended at this very instant is wanted too.
        inclusive: bool,
    },
    /// At a position.
    Position {
        /// The position.
        at: u64,
        /// Whether the record there is wanted too.
        inclusive: bool,
    },
    /// At the end of a transaction.
    Transaction {
        /// Its number.
        number: u64,
    },
    /// At a place that was given a name.
    Point {
        /// The name.
        name: String,
    },
}

/// Whether what is archived says that the target will be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It does.
    Certain,
    /// Only the recovery itself will show it.
    Unknown,
}

/// What a recovery needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// The backup.
    pub base: String,
    /// The timeline to recover along; to be named to the server, so that it looks for no other.
    pub timeline: u64,
    /// The way there.
    pub path: TimelinePath,
    /// The segments that are needed, in order, by name, of a stretch the first; of a backup that holds its log, those
    /// behind it.
    pub segments: Vec<String>,
    /// The same: of each the first and the last name.
    pub stretches: Vec<(String, String)>,
    /// How many segments that are.
    pub segment_count: u64,
    /// The last of them.
    pub last_segment: Option<String>,
    /// Timelines whose histories are needed.
    pub histories: Vec<u64>,
    /// Where the log that is needed ends.
    pub end: u64,
    /// The latest time that the log holds on this way.
    pub latest: Option<Timestamp>,
    /// Whether the target will be reached.
    pub certainty: Certainty,
    /// Where the log has a hole, for a recovery that may go on until the log ends: from, to.
    pub cut: Option<(u64, u64)>,
}

/// Why a recovery cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no backup.
    #[error("there is no base backup")]
    NoBase,
    /// The timeline is not known.
    #[error("the history of timeline {timeline} is not archived")]
    NoHistory {
        /// The timeline.
        timeline: u64,
    },
    /// A newer timeline has no history that can be used, so nobody knows which is the newest that the backup
    /// leads to (R9).
    #[error("the history of timeline {lost} is lost, and {chosen} may not be the newest timeline")]
    LostHistory {
        /// The newer timeline.
        lost: u64,
        /// The newest to which a way is known.
        chosen: u64,
    },
    /// The backup does not lead to the timeline (R10).
    #[error("the base backup {base} does not lead there: {why}")]
    Detour {
        /// The backup.
        base: String,
        /// Why not.
        why: Detour,
    },
    /// The log that makes the backup consistent is not whole (B11).
    #[error("the base backup {base} is not complete: a part of the log that it needs is not archived")]
    Incomplete {
        /// The backup.
        base: String,
        /// The timeline of the first missing segment.
        timeline: u64,
        /// Where it begins.
        missing: u64,
    },
    /// The target lies before the end of the backup (B12).
    #[error("the target lies before the end of the base backup {base}")]
    BeforeBase {
        /// The backup.
        base: String,
        /// When it ended.
        stopped: Timestamp,
        /// Where it was consistent.
        stop: u64,
    },
    /// The log does not reach so far (B13); `latest` would be what there is.
    #[error("the archived log does not reach the target; `latest` is what can be recovered")]
    Beyond {
        /// The backup.
        base: String,
        /// The timeline.
        timeline: u64,
        /// The latest time that it holds.
        latest: Option<Timestamp>,
        /// Where it ends.
        end: u64,
        /// Where it goes on, if segments are missing before it does.
        next: Option<u64>,
    },
    /// Nothing was given this name.
    #[error("the archived log has no restore point named {name:?}")]
    NoPoint {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
}

/// Returns the newest timeline that a backup leads to: the one that "latest" means for it.
pub fn newest_timeline(stream: &LogStream, base: &LogBase) -> Option<u64> {
    let mut timelines = stream.timelines();
    timelines.insert(base.timeline);
    let leads = |timeline: &u64| {
        stream.path(*timeline).is_some_and(|path| path.follows(base.timeline, base.stop).is_ok())
    };
    timelines.into_iter().rev().find(leads)
}

/// Plans a recovery from the newest backup that allows it.
///
/// # Errors
///
/// What stands in the way, for the backup that comes nearest.
pub fn plan_from(
    stream: &LogStream,
    bases: &[LogBase],
    target: &Target,
    timeline: Option<u64>,
) -> Result<RecoveryPlan, Refusal> {
    first_plan(bases, |base| plan(stream, base, target, timeline))
}

/// Does the same along the timeline of each backup itself.
///
/// # Errors
///
/// As [`plan_from`].
pub fn plan_on_own_timelines(
    stream: &LogStream,
    bases: &[LogBase],
    target: &Target,
) -> Result<RecoveryPlan, Refusal> {
    first_plan(bases, |base| plan(stream, base, target, Some(base.timeline)))
}

fn first_plan(
    bases: &[LogBase],
    plan: impl Fn(&LogBase) -> Result<RecoveryPlan, Refusal>,
) -> Result<RecoveryPlan, Refusal> {
    let mut ordered: Vec<&LogBase> = bases.iter().collect();
    ordered.sort_by_key(|base| (base.stopped, base.stop, &base.name));
    let mut refusal = None;
    for base in ordered.into_iter().rev() {
        match (plan(base), &mut refusal) {
            (Ok(plan), _) => return Ok(plan),
            // What can be named lies behind any of them.
            (Err(Refusal::NoPoint { known: more, .. }), Some(Refusal::NoPoint { known, .. })) => {
                let new: Vec<String> = more.into_iter().filter(|name| !known.contains(name)).collect();
                known.splice(0..0, new);
            }
            // That the newest is too new is no news where an older one has a problem of its own.
            (Err(error), None | Some(Refusal::BeforeBase { .. } | Refusal::Detour { .. })) => {
                refusal = Some(error);
            }
            (Err(_), Some(_)) => {}
        }
    }
    Err(refusal.unwrap_or(Refusal::NoBase))
}

/// Plans a recovery from one backup.
///
/// # Errors
///
/// What stands in the way.
pub fn plan(
    stream: &LogStream,
    base: &LogBase,
    target: &Target,
    timeline: Option<u64>,
) -> Result<RecoveryPlan, Refusal> {
    let timeline = match timeline {
        Some(timeline) => timeline,
        None => {
            let chosen = newest_timeline(stream, base).unwrap_or(base.timeline);
            // Where the backup is consistent all ways from it are one.
            let matters = *target != Target::Immediate;
            match stream.newest_without_history().filter(|lost| matters && *lost > chosen) {
                Some(lost) => return Err(Refusal::LostHistory { lost, chosen }),
                None => chosen,
            }
        }
    };
    // A timeline of which nothing is archived yet: that of the backup itself.
    let own = || (timeline == base.timeline).then(|| TimelinePath::root(timeline));
    let path = stream.path(timeline).or_else(own).ok_or(Refusal::NoHistory { timeline })?;
    let name = || base.name.clone();
    path.follows(base.timeline, base.stop).map_err(|why| Refusal::Detour { base: name(), why })?;
    before_base(base, target)?;
    let reach = consistent(stream, &path, base).ok_or_else(|| {
        let missing = stream.reach(&path, base.start).end;
        let end = missing.saturating_add(stream.segment_bytes()).saturating_sub(1);
        Refusal::Incomplete { base: name(), timeline: path.at(end).timeline, missing }
    })?;
    let (count, certainty) = needed(base, &reach, target, timeline)?;
    let segments: Vec<&LogSegment> = reach.segments.iter().take(count).map(AsRef::as_ref).collect();
    let end = segments.last().map_or(base.stop, |segment| segment.written_end);
    let histories = path.branches().map(|branch| branch.timeline).filter(|t| stream.has_history(*t));
    let to_the_end = *target == Target::Latest || certainty == Certainty::Unknown;
    Ok(RecoveryPlan {
        base: name(),
        timeline,
        histories: histories.collect(),
        segment_count: segments.iter().map(|segment| segment.count).sum(),
        last_segment: segments.last().map(|segment| segment.last.clone()),
        stretches: segments.iter().map(|segment| (segment.name.clone(), segment.last.clone())).collect(),
        segments: segments.into_iter().map(|segment| segment.name.clone()).collect(),
        end,
        latest: reach.latest(),
        certainty,
        cut: reach.next.filter(|_| to_the_end).map(|next| (reach.end, next.start)),
        path,
    })
}

/// B12: a target before the end of the backup needs an older one.
fn before_base(base: &LogBase, target: &Target) -> Result<(), Refusal> {
    let before = match target {
        Target::Time { at, .. } => *at < base.stopped,
        Target::Position { at, .. } => *at < base.stop,
        _ => false,
    };
    match before {
        true => Err(Refusal::BeforeBase { base: base.name.clone(), stopped: base.stopped, stop: base.stop }),
        false => Ok(()),
    }
}

/// Returns how many segments of a reach a target needs.
fn needed(
    base: &LogBase,
    reach: &Reach<'_>,
    target: &Target,
    timeline: u64,
) -> Result<(usize, Certainty), Refusal> {
    let all = reach.segments.len();
    let beyond = || Refusal::Beyond {
        base: base.name.clone(),
        timeline,
        latest: reach.latest(),
        end: reach.written_end,
        next: reach.next.map(|next| next.start),
    };
    // Segments up to the one for which this holds, but at least those that make the backup consistent.
    let consistent = reach.segments.iter().take_while(|segment| segment.start < base.stop).count();
    let through = |found: &dyn Fn(&LogSegment) -> bool| {
        let at = reach.segments.iter().position(|segment| found(segment))?;
        Some((at + 1).max(consistent))
    };
    let certain = |count: Option<usize>| count.map(|count| (count, Certainty::Certain));
    match target {
        Target::Latest => Ok((all, Certainty::Certain)),
        Target::Immediate => Ok((if base.holds_log { 0 } else { consistent }, Certainty::Certain)),
        Target::Time { at, inclusive } => {
            // The server stops at the first transaction that ended later; without one it takes the target for
            // not reached, and fails (B13).
            let later = |time: Timestamp| if *inclusive { time > *at } else { time >= *at };
            match certain(through(&|segment| segment.commits.is_some_and(|(_, latest)| later(latest)))) {
                Some(found) => Ok(found),
                None if reach.segments.iter().all(|segment| segment.known) => Err(beyond()),
                None => Ok((all, Certainty::Unknown)),
            }
        }
        Target::Position { at, .. } => {
            certain(through(&|segment| segment.written_end > *at)).ok_or_else(beyond)
        }
        Target::Transaction { .. } => Ok((all, Certainty::Unknown)),
        Target::Point { name } => {
            let named = |segment: &LogSegment| {
                segment.points.iter().any(|(point, at)| point == name && *at >= base.stop)
            };
            match certain(through(&named)) {
                Some(found) => Ok(found),
                None if reach.segments.iter().all(|segment| segment.known) => {
                    Err(Refusal::NoPoint { name: name.clone(), known: points(reach, base) })
                }
                None => Ok((all, Certainty::Unknown)),
            }
        }
    }
}

fn points(reach: &Reach<'_>, base: &LogBase) -> Vec<String> {
    let all = reach.segments.iter().flat_map(|segment| &segment.points);
    all.filter(|(_, at)| *at >= base.stop).map(|(name, _)| name.clone()).collect()
}
