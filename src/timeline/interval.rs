//! What can be recovered: from the end of a backup to the last transaction that the log holds without a
//! hole.

use super::path::TimelinePath;
use super::stream::{LogBase, LogStream};
use crate::base::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Positions and times that can be recovered to on one way, from one or more backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The timeline that the recovery ends on.
    pub timeline: u64,
    /// The backups that lead into it, oldest first.
    pub bases: Vec<String>,
    /// Where it begins: the oldest backup is consistent.
    pub from: u64,
    /// When that was.
    pub from_time: Timestamp,
    /// Where what is archived ends.
    pub to: u64,
    /// The latest time at which a transaction ended in it; `None` where none did after the backup, or that
    /// is not known.
    pub to_time: Option<Timestamp>,
    /// Whether segments of the way are there behind its end: it ends because one is missing.
    pub cut: bool,
}

/// Segments of one timeline that are missing between others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The timeline.
    pub timeline: u64,
    /// Where the first missing segment begins.
    pub from: u64,
    /// Where the next one that is there begins.
    pub to: u64,
}

/// Says whether a backup can be brought to consistency on a way, and how far the log reaches then.
pub(super) fn consistent<'a>(
    stream: &'a LogStream,
    path: &TimelinePath,
    base: &LogBase,
) -> Option<super::stream::Reach<'a>> {
    path.follows(base.timeline, base.stop).ok()?;
    if base.holds_log {
        // What it brings ends in the segment in which it was consistent; from there on the archive goes on.
        return Some(stream.reach(path, base.stop));
    }
    let reach = stream.reach(path, base.start);
    (reach.end >= base.stop).then_some(reach)
}

/// Returns what can be recovered on each timeline.
pub fn intervals(stream: &LogStream, bases: &[LogBase]) -> Vec<Interval> {
    let mut timelines = stream.timelines();
    timelines.extend(bases.iter().map(|base| base.timeline));
    let mut found = Vec::new();
    for timeline in timelines {
        // A backup knows its own timeline, though nothing else may be known of it.
        let own = || bases.iter().any(|base| base.timeline == timeline).then(|| TimelinePath::root(timeline));
        let Some(path) = stream.path(timeline).or_else(own) else { continue };
        // Backups from which the log reaches to the same place lead into the same interval.
        let mut ends: BTreeMap<u64, Interval> = BTreeMap::new();
        let mut ordered: Vec<&LogBase> = bases.iter().collect();
        ordered.sort_by_key(|base| (base.stop, &base.name));
        for base in ordered {
            let Some(reach) = consistent(stream, &path, base) else { continue };
            let to = reach.written_end.max(base.stop);
            // A backup that holds its log may end behind where the archive does.
            let interval = ends.entry(reach.end.max(base.stop)).or_insert_with(|| Interval {
                timeline,
                bases: Vec::new(),
                from: base.stop,
                from_time: base.stopped,
                to,
                to_time: reach.latest().filter(|latest| *latest > base.stopped),
                cut: reach.next.is_some(),
            });
            interval.bases.push(base.name.clone());
        }
        found.extend(ends.into_values());
    }
    found
}

/// What the loss of segments does to an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hurt {
    /// The interval as it was.
    pub before: Interval,
    /// What is left of it: the latest time and position from its first backup, `None` if not even that can be
    /// brought to consistency.
    pub after: Option<Interval>,
}

/// Says which intervals become shorter, or end to be, without some segments.
pub fn hurt(stream: &LogStream, bases: &[LogBase], lost: &BTreeSet<String>) -> Vec<Hurt> {
    let left = intervals(&stream.without(lost), bases);
    let mut hurt = Vec::new();
    for before in intervals(stream, bases) {
        let same = |after: &&Interval| {
            after.timeline == before.timeline
                && before.bases.first().is_some_and(|base| after.bases.contains(base))
        };
        let after = left.iter().find(same).cloned();
        if after.as_ref().is_none_or(|after| after.to < before.to) {
            hurt.push(Hurt { before, after });
        }
    }
    hurt
}

/// Returns what is missing between the segments of each timeline, and was not let go.
pub fn gaps(stream: &LogStream) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for timeline in stream.timelines() {
        let mut end = None;
        for segment in stream.segments_of(timeline) {
            if let Some(from) = end.filter(|end| *end < segment.start) {
                let missing = stream.not_forgotten(timeline, (from, segment.start));
                gaps.extend(missing.into_iter().map(|(from, to)| Gap { timeline, from, to }));
            }
            end = Some(segment.held_end());
        }
    }
    gaps
}
