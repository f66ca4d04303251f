//! What is archived of a cluster's log, read from the records alone: no segment is fetched.

use super::base::{Base, BaseFacts};
use super::created::CreationNotes;
use super::history::read_history;
use super::lineage::{ClusterName, Lineage, lineages};
use super::segment::{LogFile, Lsn, SegmentName};
use super::stretches::{ends, stretch_with};
use crate::base::{LogPackId, Timestamp, explain};
use crate::format::log::{LogRecord, LogRecordKind};
use crate::ops::OpsError;
use crate::ops::catalogue::LostMerge;
use crate::repo::{ForgottenLogs, FoundLog, LogOutline, RepoError, Repository, joined, joined_length};
use crate::timeline::{LogBase, LogSegment, LogStream, TimelinePath};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Bytes that were refused, or segments that will never come, as somebody recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The file, or the first one.
    pub name: String,
    /// The last one, of a gap.
    pub last_name: Option<String>,
    /// When it was recorded, by that host's clock.
    pub created: Timestamp,
    /// By which host.
    pub host: String,
    /// Why.
    pub reason: String,
}

/// An object of the archived log, as far as who lets it go must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogObject {
    /// Its id.
    pub id: LogPackId,
    /// Its length.
    pub length: u64,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
    /// Whether a pin holds it.
    pub pinned: bool,
}

/// The archived log of one lineage of a cluster, without what was forgotten of it.
#[derive(Debug, Clone)]
pub struct ClusterLog {
    /// The lineage.
    pub lineage: Lineage,
    /// Its segments and timelines.
    pub stream: LogStream,
    /// Files that were refused.
    pub conflicts: Vec<Remark>,
    /// Names that hold more than one content: two writers stored at the same moment.
    pub doubled: Vec<String>,
    /// Gaps that were recorded.
    pub recorded_gaps: Vec<Remark>,
    /// What replay of its segments creates.
    pub(super) created: CreationNotes,
    /// Files of the log that are there besides segments: histories, labels, partial segments.
    pub others: Vec<String>,
    /// Bytes of all files, and of the objects that hold them.
    pub bytes: (u64, u64),
    /// Objects by the name of their file; more than one where it came in pieces or several times.
    pub files: BTreeMap<String, Vec<LogObject>>,
    /// Objects of recorded gaps and refused files, by the name of the last file that they speak of.
    pub remarks: BTreeMap<String, Vec<LogObject>>,
    /// Objects that were forgotten and are there still: how many, and their bytes.
    pub forgotten: (u64, u64),
    /// How many objects cannot be read and may be good.
    pub damaged: usize,
    /// Objects that do not count, and why.
    pub refused: Vec<(String, String)>,
    /// Merged log packs that are gone, though nobody let them go; only retention looks for them.
    pub lost: Vec<LostMerge>,
}

/// Returns what planning needs to know of a base backup; its name is that of the snapshot.
pub fn log_base(base: &Base) -> LogBase {
    base.facts.log_base(base.view.id.to_string())
}

/// Reads what is archived of each lineage of a cluster, oldest lineage first.
///
/// # Errors
///
/// When the store cannot be listed or read.
pub fn read_cluster(repository: &Repository, cluster: &ClusterName) -> Result<Vec<ClusterLog>, OpsError> {
    lineages(repository, cluster)?.into_iter().map(|lineage| read_log(repository, cluster, lineage)).collect()
}

/// Does the same, and adds lineages of which nothing is archived: base backups that hold their log may be all that
/// there is of one. Those come first, as far as that is not known better.
///
/// # Errors
///
/// As [`read_cluster`].
pub fn read_cluster_of(
    repository: &Repository,
    cluster: &ClusterName,
    bases: &[Base],
) -> Result<Vec<ClusterLog>, OpsError> {
    let mut logs = read_cluster(repository, cluster)?;
    for base in bases.iter().rev() {
        let identifier = base.facts.system_identifier;
        if !logs.iter().any(|log| log.lineage.system_identifier == identifier) {
            let (segment_size, version) = (base.facts.segment_size, base.facts.major.to_string());
            let lineage = Lineage { system_identifier: identifier, segment_size, version };
            logs.insert(0, ClusterLog::empty(lineage));
        }
    }
    Ok(logs)
}

/// Finds the cluster and the lineage whose log a stream is; `None` for a stream of anything else.
pub fn cluster_of(stream: &str) -> Option<(ClusterName, u64)> {
    let (cluster, identifier) = stream.strip_prefix("pg/")?.rsplit_once('/')?;
    Some((ClusterName::new(cluster).ok()?, identifier.parse().ok()?))
}

/// Reads what is archived of one lineage.
///
/// # Errors
///
/// As [`read_cluster`].
pub fn read_log(
    repository: &Repository,
    cluster: &ClusterName,
    lineage: Lineage,
) -> Result<ClusterLog, OpsError> {
    let outline = repository.log_outline(&lineage.stream(cluster))?;
    let forgotten = repository.forgotten_logs()?;
    gather(repository, lineage, outline, &forgotten)
}

/// Does the same, and reads every record of merged log packs: each segment stands by itself.
///
/// # Errors
///
/// As [`read_cluster`].
pub fn read_log_in_full(
    repository: &Repository,
    cluster: &ClusterName,
    lineage: Lineage,
) -> Result<ClusterLog, OpsError> {
    let logs = repository.log_stream(&lineage.stream(cluster))?;
    let forgotten = repository.forgotten_logs()?;
    gather(repository, lineage, LogOutline { logs, merges: Vec::new() }, &forgotten)
}

/// Finds what was forgotten of the log and is there still, of all to which a base backup leads.
///
/// # Errors
///
/// [`OpsError::NotFound`] where the log is gone without which the base backup is worth nothing; else as
/// [`read_cluster`].
pub fn forgotten_log_of(
    repository: &Repository,
    cluster: &ClusterName,
    facts: &BaseFacts,
) -> Result<Vec<FoundLog>, OpsError> {
    let known = lineages(repository, cluster)?;
    let lineage = known.into_iter().find(|lineage| lineage.system_identifier == facts.system_identifier);
    let Some(lineage) = lineage else { return Ok(Vec::new()) };
    let listing = repository.log_stream(&lineage.stream(cluster))?;
    let (forgotten, registry) = (repository.forgotten_logs()?, repository.registry());
    let gone = listing.found.iter().filter(|found| forgotten.has_ended(registry, found)).cloned();
    let gone: Vec<FoundLog> = gone.collect();
    let all = LogOutline { logs: listing, merges: Vec::new() };
    let log = gather(repository, lineage, all, &ForgottenLogs::default())?;
    let base = facts.log_base(String::new());
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut is_good = base.holds_log;
    for timeline in log.stream.timelines() {
        let Some(path) = log.stream.path(timeline) else { continue };
        if path.follows(base.timeline, base.stop).is_err() {
            continue;
        }
        let reach = log.stream.reach(&path, if base.holds_log { base.stop } else { base.start });
        if reach.end < base.stop && !base.holds_log {
            continue;
        }
        is_good = true;
        names.extend(reach.segments.iter().map(|segment| segment.name.clone()));
        names.extend(path.branches().map(|branch| format!("{:08X}.history", branch.timeline)));
    }
    if !is_good {
        return Err(OpsError::NotFound(
            "a part of the log that the base backup needs was deleted already: it cannot be brought back"
                .to_owned(),
        ));
    }
    Ok(gone.into_iter().filter(|found| names.contains(&found.record.name)).collect())
}

/// Sorts what was read of a log, without what was forgotten.
fn gather(
    repository: &Repository,
    lineage: Lineage,
    outline: LogOutline,
    forgotten: &ForgottenLogs,
) -> Result<ClusterLog, OpsError> {
    let LogOutline { logs: listing, merges } = outline;
    let mut log = ClusterLog::empty(lineage);
    let mut sorting = Sorting { repository, forgotten, counted: HashSet::new(), files: BTreeMap::new() };
    for (name, error) in &listing.refused {
        log.refuse(name, error);
    }
    for found in listing.found {
        sorting.sort(&mut log, found);
    }
    // Ways come first: a stretch that one of them leaves is looked at record by record.
    let is_history = |name: &str| matches!(name.parse(), Ok(LogFile::History { .. }));
    let (histories, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut sorting.files).into_iter().partition(|(name, _)| is_history(name));
    sorting.files = others;
    for (name, found) in histories {
        log.take(repository, &name, &found)?;
    }
    let ends = ends(&log, sorting.files.keys(), &merges);
    for merge in merges {
        sorting.add_merge(&mut log, merge, &ends)?;
    }
    for (name, found) in sorting.files {
        // An original that is to go, or whatever else stands under a name that a merged log pack holds.
        if let Some(stretch) = stretch_with(&log, &name) {
            let objects = log.files.remove(&name).unwrap_or_default();
            log.files.entry(stretch).or_default().extend(objects);
            continue;
        }
        log.take(repository, &name, &found)?;
    }
    Ok(log)
}

fn remark(record: LogRecord) -> Remark {
    Remark {
        name: record.name,
        last_name: record.last_name,
        created: record.created,
        host: record.host,
        reason: record.reason.unwrap_or_default(),
    }
}

/// Returns the digest of the whole that a record is of, as far as it says so.
pub(super) fn digest(found: &FoundLog) -> Option<[u8; 32]> {
    let record = &found.record;
    match record.piece_offset {
        None => record.content.as_ref().map(|content| content.digest.blake3),
        Some(_) => record.whole.map(|whole| whole.blake3),
    }
}

/// What was read of a log on its way into its place.
pub(super) struct Sorting<'a> {
    pub repository: &'a Repository,
    pub forgotten: &'a ForgottenLogs,
    /// A merged log pack holds many records, and is counted once.
    pub counted: HashSet<LogPackId>,
    /// By the names of files.
    pub files: BTreeMap<String, Vec<FoundLog>>,
}

impl Sorting<'_> {
    /// Puts a record where it belongs.
    pub fn sort(&mut self, log: &mut ClusterLog, found: FoundLog) {
        let registry = self.repository.registry();
        let is_first = self.counted.insert(found.id);
        if self.forgotten.has_ended(registry, &found) {
            if is_first {
                log.forgotten.0 += 1;
                log.forgotten.1 += found.length;
            }
            log.note_forgotten(&found.record.name);
            return;
        }
        let is_remark = matches!(found.record.kind, LogRecordKind::Conflict | LogRecordKind::Gap);
        if is_first && !is_remark {
            log.bytes.1 += found.length;
        }
        let object = LogObject {
            id: found.id,
            length: found.length,
            stored: found.stored,
            pinned: self.forgotten.is_pinned(registry, &found.id, &found.record.stream),
        };
        let objects = if is_remark { &mut log.remarks } else { &mut log.files };
        let name = found.record.last_name.as_ref().unwrap_or(&found.record.name);
        objects.entry(name.clone()).or_default().push(object);
        match found.record.kind {
            LogRecordKind::Conflict => log.conflicts.push(remark(found.record)),
            LogRecordKind::Gap => log.recorded_gaps.push(remark(found.record)),
            _ => self.files.entry(found.record.name.clone()).or_default().push(found),
        }
    }
}

impl ClusterLog {
    /// Notes an object that does not count, or cannot be read.
    pub(super) fn refuse(&mut self, name: &str, error: &RepoError) {
        self.refused.push((name.to_owned(), explain(error)));
        self.damaged += usize::from(!matches!(error, RepoError::Untrusted { .. }));
    }

    /// Notes that a segment was let go.
    fn note_forgotten(&mut self, name: &str) {
        let size = self.lineage.segment_size;
        if let Ok(LogFile::Segment(segment)) = name.parse()
            && let Some(Lsn(start)) = segment.start(size)
        {
            let end = start.saturating_add(size.bytes());
            self.stream.add_forgotten(segment.timeline(), (start, end));
        }
    }

    /// The log of a lineage of which nothing is archived.
    pub fn empty(lineage: Lineage) -> Self {
        Self {
            stream: LogStream::new(lineage.segment_size.bytes()),
            lineage,
            conflicts: Vec::new(),
            doubled: Vec::new(),
            recorded_gaps: Vec::new(),
            created: CreationNotes::default(),
            others: Vec::new(),
            bytes: (0, 0),
            files: BTreeMap::new(),
            remarks: BTreeMap::new(),
            forgotten: (0, 0),
            damaged: 0,
            refused: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Says whether nothing was archived: the name was taken by a base backup that holds its log.
    pub fn is_unused(&self) -> bool {
        let nothing_held = self.files.is_empty() && self.forgotten.0 == 0;
        nothing_held && self.damaged == 0 && self.refused.is_empty() && self.lost.is_empty()
    }

    /// Takes all that stands under one name, what counts first.
    fn take(&mut self, repository: &Repository, name: &str, found: &[FoundLog]) -> Result<(), OpsError> {
        let mut digests: Vec<[u8; 32]> = found.iter().filter_map(digest).collect();
        digests.sort_unstable();
        digests.dedup();
        if digests.len() > 1 {
            self.doubled.push(name.to_owned());
        }
        self.bytes.0 += length(found).unwrap_or_else(|| joined_length(found));
        match name.parse() {
            Ok(LogFile::Segment(segment)) => {
                let end = segment.start(self.lineage.segment_size).map(|Lsn(start)| start);
                let end = end.and_then(|start| start.checked_add(self.lineage.segment_size.bytes()));
                self.created.take(name, end, found);
                if let Some(segment) = self.segment(segment, found) {
                    self.stream.add_segment(segment);
                }
            }
            Ok(LogFile::History { timeline }) => {
                match history(repository, u64::from(timeline), found) {
                    Ok(path) => self.stream.add_path(path),
                    Err(OpsError::Repo(error @ RepoError::Storage(_))) => return Err(error.into()),
                    Err(error) => {
                        self.stream.add_damaged_history(u64::from(timeline));
                        self.damaged += 1;
                        self.refused.push((name.to_owned(), explain(&error)));
                    }
                }
                self.others.push(name.to_owned());
            }
            _ => self.others.push(name.to_owned()),
        }
        Ok(())
    }

    /// Makes what is planned with of the records of one segment; `None` where not even its beginning is there.
    fn segment(&self, name: SegmentName, found: &[FoundLog]) -> Option<LogSegment> {
        let size = self.lineage.segment_size;
        let start = name.start(size)?;
        let is_whole = length(found).is_some_and(|length| length == size.bytes());
        let held = Lsn(start.0.checked_add(joined_length(found))?);
        if !is_whole && held == start {
            return None;
        }
        let whole = found.iter().find(|found| found.record.kind == LogRecordKind::Segment);
        // The whole counts; else the pieces together.
        let records: Vec<&LogRecord> = match whole.filter(|_| is_whole) {
            Some(found) => vec![&found.record],
            None => joined(found, 0).into_iter().map(|found| &found.record).collect(),
        };
        let commits = records.iter().filter_map(|record| record.commits);
        let commits = commits.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let fact = |name: &'static str| records.iter().filter_map(move |record| record.facts.get(name));
        let points = fact("restore_points").flat_map(|text| text.lines()).filter_map(|line| {
            let (at, name) = line.split_once(' ')?;
            Some((name.to_owned(), at.parse::<Lsn>().ok()?.0))
        });
        let end = start.0.saturating_add(size.bytes());
        let last = |name| fact(name).filter_map(|text| text.parse::<Lsn>().ok()).max();
        let written_end = match is_whole {
            true => last("records_end"),
            // A record that is not there to its end does not count.
            false => Some(last("last_record_end").unwrap_or(held).min(held)),
        };
        Some(LogSegment {
            name: name.to_string(),
            last: name.to_string(),
            count: 1,
            timeline: name.timeline(),
            start: start.0,
            end,
            written_end: written_end.map_or(end, |Lsn(written)| written.clamp(start.0, end)),
            whole: is_whole,
            commits,
            known: fact("times").next().is_none(),
            points: points.collect(),
        })
    }
}

/// Returns the length of what is archived whole under a name.
fn length(found: &[FoundLog]) -> Option<u64> {
    let whole = found.iter().find(|found| found.record.kind == LogRecordKind::Segment);
    if let Some(content) = whole.and_then(|found| found.record.content.as_ref()) {
        return Some(content.digest.length);
    }
    let whole = found.iter().find_map(|found| found.record.whole)?;
    (joined_length(found) == whole.length).then_some(whole.length)
}

/// Reads the way to a timeline: from the record where it says so, else from the file.
fn history(repository: &Repository, timeline: u64, found: &[FoundLog]) -> Result<TimelinePath, OpsError> {
    let noted = found.first().and_then(|found| found.record.facts.get("ancestors"));
    let text = match noted {
        // The form is that of the file, without the reasons.
        Some(ancestors) => ancestors.clone().into_bytes(),
        None => {
            let mut bytes = Vec::new();
            repository.read_segment(found, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            bytes
        }
    };
    read_history(timeline, &text).map_err(|error| OpsError::Stopped {
        why: error.to_string(),
        cure: "recovery cannot follow this timeline: choose another",
    })
}
