//! Merged log packs as stretches of the log: planned with by what sums them up, their records unread. Where that does not say
//! enough, their records are read, and each segment stands by itself.

use super::archive::INIT_FORKS;
use super::segment::{LogFile, SegmentName};
use super::stream::{ClusterLog, LogObject, Sorting};
use crate::format::log::LogRun;
use crate::ops::OpsError;
use crate::repo::{FoundLog, RepoError};
use crate::storage::StorageError;
use crate::timeline::LogSegment;
use std::collections::BTreeMap;

/// Facts of records that say something of a single segment that planning must know.
const TELLING: [&str; 5] =
    ["last_record_end", "record_begun", "restore_points", "tablespaces_created", "times"];

/// Returns where what is archived of each timeline ends, of single files and of merged log packs.
pub(super) fn ends<'a>(
    log: &ClusterLog,
    files: impl Iterator<Item = &'a String>,
    merges: &[FoundLog],
) -> BTreeMap<u64, u64> {
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    let mut note = |timeline: u64, end: u64| {
        let known = ends.entry(timeline).or_default();
        *known = end.max(*known);
    };
    let size = log.lineage.segment_size;
    for name in files {
        if let Ok(LogFile::Segment(segment)) = name.parse()
            && let Some(start) = segment.start(size)
        {
            note(segment.timeline(), start.0.saturating_add(size.bytes()));
        }
    }
    for run in merges.iter().flat_map(|merge| &merge.record.runs) {
        if let Some((timeline, (_, end))) = run.timeline.zip(run.positions) {
            note(timeline, end);
        }
    }
    ends
}

/// Returns the name of the stretch that a segment of this name lies in.
pub(super) fn stretch_with(log: &ClusterLog, name: &str) -> Option<String> {
    let Ok(LogFile::Segment(segment)) = name.parse() else { return None };
    let start = segment.start(log.lineage.segment_size)?;
    log.stream.holding(segment.timeline(), start.0).map(|held| held.name.clone())
}

/// Makes a stretch of a run; `None` where its records have to be read.
fn stretch(log: &ClusterLog, run: &LogRun, ends: &BTreeMap<u64, u64>) -> Option<LogSegment> {
    let size = log.lineage.segment_size;
    let place = |name: &str| {
        let name: SegmentName = match name.parse().ok()? {
            LogFile::Segment(name) => name,
            _ => return None,
        };
        Some((name.timeline(), name.start(size)?.0))
    };
    let ((timeline, start), (last_timeline, last)) = (place(&run.first)?, place(&run.last)?);
    let end = last.checked_add(size.bytes())?;
    let count = end.checked_sub(start)? / size.bytes();
    let is_plain = run.timeline == Some(timeline)
        && last_timeline == timeline
        && run.positions == Some((start, end))
        && (run.records, run.bytes) == (count, end - start);
    let is_told = TELLING.iter().all(|fact| !run.facts.contains(*fact));
    // Where records end in the last of all segments, that segment says.
    let is_last = ends.get(&timeline).is_none_or(|known| *known <= end);
    let ends_early = is_last && run.facts.contains("records_end");
    // A way that leaves the timeline in the midst of it.
    let is_left = log.stream.forks_of(timeline).any(|fork| start < fork && fork < end);
    (is_plain && is_told && !ends_early && !is_left).then(|| LogSegment {
        name: run.first.clone(),
        last: run.last.clone(),
        count,
        timeline,
        start,
        end,
        written_end: end,
        whole: true,
        commits: run.commits,
        known: true,
        points: Vec::new(),
    })
}

impl Sorting<'_> {
    /// Adds what a merged log pack holds.
    pub(super) fn add_merge(
        &mut self,
        log: &mut ClusterLog,
        merge: FoundLog,
        ends: &BTreeMap<u64, u64>,
    ) -> Result<(), OpsError> {
        let registry = self.repository.registry();
        let pinned = self.forgotten.is_pinned(registry, &merge.id, &merge.record.stream);
        if self.forgotten.names(&merge.id) && !pinned {
            log.forgotten.0 += 1;
            log.forgotten.1 += merge.length;
            for (timeline, range) in
                merge.record.runs.iter().filter_map(|run| run.timeline.zip(run.positions))
            {
                log.stream.add_forgotten(timeline, range);
            }
            return Ok(());
        }
        let stretches: Option<Vec<LogSegment>> =
            merge.record.runs.iter().map(|run| stretch(log, run, ends)).collect();
        let is_same = |log: &ClusterLog, stretch: &LogSegment| {
            let held = log.stream.holding(stretch.timeline, stretch.start);
            held.is_some_and(|held| (held.start, held.end) == (stretch.start, stretch.end))
        };
        let fits = |stretch: &LogSegment| {
            let range = (stretch.start, stretch.end);
            is_same(log, stretch) || !log.stream.overlaps(stretch.timeline, range)
        };
        let Some(stretches) = stretches.filter(|all| all.iter().all(fits)) else {
            match self.repository.merge_records(&merge) {
                Ok(records) => records.into_iter().for_each(|found| self.sort(log, found)),
                // Deleted since it was listed.
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error.into()),
                Err(error) => log.refuse(&merge.object, &error),
            }
            return Ok(());
        };
        self.counted.insert(merge.id);
        log.bytes.1 += merge.length;
        let object = LogObject { id: merge.id, length: merge.length, stored: merge.stored, pinned };
        for (stretch, run) in stretches.into_iter().zip(&merge.record.runs) {
            log.files.entry(stretch.name.clone()).or_default().push(object);
            if run.facts.contains(INIT_FORKS) {
                log.created.in_merge(&stretch.name, &merge);
            }
            if !is_same(log, &stretch) {
                log.bytes.0 += run.bytes;
                log.stream.add_segment(stretch);
            }
        }
        Ok(())
    }
}
