//! The objects of a log that go.

use super::decide::Times;
use crate::base::LogPackId;
use crate::format::log::LogRun;
use crate::postgres::segment::{LogFile, SegmentName};
use crate::postgres::stream::{ClusterLog, LogObject};
use crate::timeline::{LogDecision, LogFileAge};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Runs of forgotten segments that are told one by one.
const RANGES_MAX: usize = 100;

/// What goes of a log.
pub(super) struct Going {
    pub names: BTreeSet<String>,
    pub objects: Vec<LogPackId>,
    pub bytes: u64,
}

impl Going {
    pub fn of(log: &ClusterLog, decision: &LogDecision, times: &Times) -> Self {
        let kept_file = |name: &str, objects: &[LogObject]| match name.parse() {
            Ok(LogFile::History { timeline }) => {
                let young = |object: &LogObject| object.stored.is_none_or(|stored| stored >= times.busy);
                decision.histories.contains(&u64::from(timeline))
                    || objects.iter().any(|o| o.pinned || young(o))
            }
            Ok(file) => {
                // What has no place in this log is nobody's to judge.
                let placed = file.start(log.lineage.segment_size).is_some();
                !placed || decision.kept.contains_key(name)
            }
            Err(_) => true,
        };
        let oldest = log.files.keys().filter(|name| decision.kept.contains_key(*name));
        let oldest = oldest.filter_map(|name| start_of(log, name)).min();
        let kept_remark = |name: &str, objects: &[LogObject]| {
            let stays = |object: &LogObject| {
                object.pinned || object.stored.is_none_or(|stored| stored >= times.recent)
            };
            let placed = start_of(log, name);
            placed.is_none_or(|start| oldest.is_some_and(|oldest| start >= oldest))
                || objects.iter().any(stays)
        };
        let mut going = Self { names: BTreeSet::new(), objects: Vec::new(), bytes: 0 };
        // Of one that is gone, as if it were there: what it held lies before everything that stays.
        let is_before =
            |run: &LogRun| run.positions.is_some_and(|(_, end)| oldest.is_none_or(|oldest| end <= oldest));
        let lost = log.lost.iter().filter(|merge| !merge.runs.is_empty() && merge.runs.iter().all(is_before));
        going.objects.extend(lost.map(|merge| merge.id));
        // A merged log pack stays as long as anything in it does.
        let mut held: HashSet<LogPackId> = HashSet::new();
        let mut goes: BTreeMap<LogPackId, u64> = BTreeMap::new();
        let files = log.files.iter().map(|entry| (entry, true));
        for ((name, objects), is_file) in files.chain(log.remarks.iter().map(|entry| (entry, false))) {
            let kept = if is_file { kept_file(name, objects) } else { kept_remark(name, objects) };
            if kept {
                held.extend(objects.iter().map(|object| object.id));
                continue;
            }
            if is_file {
                going.names.insert(name.clone());
            }
            goes.extend(objects.iter().map(|object| (object.id, object.length)));
        }
        for (id, length) in goes.into_iter().filter(|(id, _)| !held.contains(id)) {
            going.objects.push(id);
            going.bytes += length;
        }
        going
    }
}

fn start_of(log: &ClusterLog, name: &str) -> Option<u64> {
    name.parse::<LogFile>().ok()?.start(log.lineage.segment_size).map(|start| start.0)
}

/// Returns the runs of segments that go, without a hole in each.
pub(super) fn ranges(log: &ClusterLog, names: &BTreeSet<String>) -> Vec<(String, String, u64)> {
    let mut runs: Vec<(String, String, u64)> = Vec::new();
    let mut open: Option<(u64, u64)> = None;
    for segment in log.stream.segments() {
        if !names.contains(&segment.name) {
            open = None;
            continue;
        }
        match runs.last_mut().filter(|_| open == Some((segment.timeline, segment.start))) {
            Some((_, last, count)) => {
                *last = segment.last.clone();
                *count += segment.count;
            }
            None => runs.push((segment.name.clone(), segment.last.clone(), segment.count)),
        }
        open = Some((segment.timeline, segment.end));
    }
    runs.truncate(RANGES_MAX);
    runs
}

/// The files that are a stretch of the log, by what their names say; others stand for no place in it.
pub(super) fn file_ages(log: &ClusterLog) -> Vec<LogFileAge> {
    let size = log.lineage.segment_size;
    let age = |(name, objects): (&String, &Vec<LogObject>)| {
        let segment: SegmentName = match name.parse().ok()? {
            LogFile::Segment(segment) | LogFile::Partial(segment) | LogFile::BackupLabel { segment, .. } => {
                segment
            }
            LogFile::History { .. } => return None,
        };
        let start = segment.start(size)?;
        let stored = objects.iter().map(|object| object.stored).reduce(|a, b| Some(a?.max(b?))).flatten();
        let pinned = objects.iter().any(|object| object.pinned);
        let held = log.stream.holding(segment.timeline(), start.0).filter(|held| held.name == *name);
        let end = held.map_or(start.0.saturating_add(size.bytes()), |held| held.end);
        let (name, timeline) = (name.clone(), segment.timeline());
        Some(LogFileAge { name, timeline, start: start.0, end, stored, pinned })
    };
    log.files.iter().filter_map(age).collect()
}
