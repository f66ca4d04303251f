//! What the log of a cluster that a restore goes over holds, and the archive does not: it is archived before
//! anything of the cluster is touched, so that whatever was committed in it can still be recovered.

use super::archiving::archives;
use super::{ClusterRestore, RestoreOptions};
use crate::base::{Classify, ErrorClass, explain};
use crate::ops::OpsError;
use crate::postgres::archive::whole_digest;
use crate::postgres::control::{ClusterState, ControlFile};
use crate::postgres::error::PostgresError;
use crate::postgres::history::read_history;
use crate::postgres::lineage::ClusterName;
use crate::postgres::segment::{LogFile, Lsn, SegmentName};
use crate::postgres::stream::{ClusterLog, digest};
use crate::postgres::wal::{FirstPage, LONG_HEADER_BYTES, Noted, walk_behind};
use crate::repo::{RepoError, Repository};
use crate::timeline::{LogSegment, LogStream};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of the log that only the cluster itself has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unarchived {
    /// The name under which it is archived: a segment that the server still wrote to is `NAME.partial`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// The system whose it is.
    pub system_identifier: u64,
}

/// Why a file of the log that only the cluster has does not come into the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// The cluster does not archive, as a restored copy: what it wrote is not the log of the original (B16).
    Copy,
    /// The archive holds other bytes under its name, or another timeline of its number (A2, A16).
    Conflict,
}

/// Archives such a file: success means that it is durable in the repository.
pub type Rescuer<'a> = dyn Fn(&Unarchived) -> Result<(), OpsError> + 'a;

/// What only a stopped cluster has of its log.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// What is to be archived, histories first.
    pub unarchived: Vec<Unarchived>,
    /// What is only kept aside, and why.
    pub left_out: Vec<(Unarchived, LeftOut)>,
}

/// Finds what a stopped cluster has of its log that is not archived. Segments that were made ahead of their use, or are
/// left from an earlier one, hold nothing.
pub(super) fn look(
    repository: &Repository,
    cluster: &ClusterName,
    data_directory: &Path,
    control: &ControlFile,
    log: &ClusterLog,
) -> Result<Found, PostgresError> {
    let folder = data_directory.join("pg_wal");
    let archived: BTreeSet<&str> = log.others.iter().map(String::as_str).collect();
    let unarchived = |name, path| Unarchived { name, path, system_identifier: control.system_identifier };
    let is_archived = |segment: SegmentName| {
        let start = segment.start(log.lineage.segment_size);
        let held = start.and_then(|start| log.stream.holding(segment.timeline(), start.0));
        held.is_some_and(|held| held.whole)
    };
    let stream = log.lineage.stream(cluster);
    let differs = |file: &Unarchived| -> Result<bool, PostgresError> {
        let here = whole_digest(&file.path)?.blake3;
        let found = repository.search_log(&stream, &file.name)?.found;
        Ok(!found.iter().filter_map(digest).any(|there| there == here))
    };
    let mut files = Vec::new();
    let mut segments: BTreeMap<u64, Vec<(SegmentName, PathBuf)>> = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(PostgresError::file("look into", &folder))? {
        let path = entry.map_err(PostgresError::file("look into", &folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        match name.parse() {
            Ok(LogFile::Segment(segment)) if is_written(&path, segment, control) => {
                segments.entry(segment.timeline()).or_default().push((segment, path));
            }
            Ok(LogFile::Segment(_)) | Err(_) => {}
            Ok(_) => files.push(unarchived(name, path)),
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    for (_, mut of_timeline) in segments {
        of_timeline.sort();
        let last = of_timeline.last().map(|(segment, _)| *segment);
        for (segment, path) in of_timeline {
            let name = segment.to_string();
            if is_archived(segment) {
                continue;
            }
            let status = |kind: &str| folder.join(format!("archive_status/{name}.{kind}")).exists();
            let is_open = Some(segment) == last && !status("ready") && !status("done");
            if is_open && holds_nothing(segment, control) {
                continue;
            }
            // Never taken for the whole: what follows in it may be of an earlier use of the file.
            let name = if is_open { format!("{name}.partial") } else { name };
            files.push(unarchived(name, path));
        }
    }
    let is_copy = !archives(data_directory, control, log);
    // Two promotions may have taken one number: what follows on the other's timeline is not the archive's.
    let mut strange = u64::MAX;
    let mut found = Found::default();
    for file in files {
        let Ok(kind) = file.name.parse::<LogFile>() else { continue };
        let is_there = archived.contains(file.name.as_str());
        let conflicts = is_there && differs(&file)?;
        if conflicts && let LogFile::History { timeline } = kind {
            strange = strange.min(u64::from(timeline));
        }
        if conflicts || kind.timeline() >= strange {
            found.left_out.push((file, LeftOut::Conflict));
        } else if is_there {
            continue;
        } else if is_copy {
            found.left_out.push((file, LeftOut::Copy));
        } else {
            found.unarchived.push(file);
        }
    }
    Ok(found)
}

/// Tablespaces that segments create: their numbers and places, by the names of segments.
type CreatedTablespaces = BTreeMap<String, Vec<(u32, String)>>;

/// The log as it will be once files are archived, and which tablespaces their segments create: what it leads to is
/// looked at before any of them is.
pub(super) fn rehearse(
    log: &ClusterLog,
    unarchived: &[Unarchived],
) -> Result<(LogStream, CreatedTablespaces), PostgresError> {
    let size = log.lineage.segment_size;
    let (mut stream, mut created, mut before) = (log.stream.clone(), BTreeMap::new(), Noted::default());
    for file in unarchived {
        let read = || fs::read(&file.path).map_err(PostgresError::file("read", &file.path));
        match file.name.parse() {
            Ok(LogFile::History { timeline }) => match read_history(u64::from(timeline), &read()?) {
                Ok(path) => stream.add_path(path),
                Err(_) => stream.add_damaged_history(u64::from(timeline)),
            },
            Ok(LogFile::Segment(segment)) => {
                let bytes = read()?;
                let (Some(Lsn(start)), Ok(first)) = (segment.start(size), FirstPage::read(&bytes)) else {
                    continue;
                };
                let noted = walk_behind(&bytes, &first, &before);
                let end = start.saturating_add(size.bytes());
                let points = noted.restore_points.iter();
                // Its beginning may have been received.
                stream = stream.without(&[file.name.clone()].into());
                stream.add_segment(LogSegment {
                    name: file.name.clone(),
                    last: file.name.clone(),
                    count: 1,
                    timeline: segment.timeline(),
                    start,
                    end,
                    written_end: if noted.switched { noted.end.0.clamp(start, end) } else { end },
                    whole: true,
                    commits: noted.commits.filter(|_| noted.complete),
                    known: noted.complete,
                    points: points.map(|(name, at)| (name.clone(), at.0)).collect(),
                });
                let tablespaces = noted.tablespaces.iter().map(|(number, path)| (*number, path.clone()));
                created.insert(file.name.clone(), tablespaces.collect());
                before = noted;
            }
            _ => {}
        }
    }
    Ok((stream, created))
}

/// Says whether the server has written to a segment: its first page is that of its place, and of this cluster.
fn is_written(path: &Path, segment: SegmentName, control: &ControlFile) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut bytes));
    let first = FirstPage::read(&bytes);
    read.is_ok()
        && first.is_ok_and(|first| {
            first.system_identifier == control.system_identifier
                && segment.start(control.segment_size) == Some(first.address)
        })
}

/// Says whether a server that was shut down in good order wrote no more to a segment than its last checkpoint.
fn holds_nothing(segment: SegmentName, control: &ControlFile) -> bool {
    let start = segment.start(control.segment_size);
    control.state == ClusterState::ShutDown
        && start.is_some_and(|start| control.checkpoint.0.wrapping_sub(start.0) == LONG_HEADER_BYTES as u64)
}

impl ClusterRestore {
    /// Archives what only the cluster that stands there has of its log, and plans anew with it: it may lead further,
    /// along another timeline, and create what has to have a place. Nothing of the cluster is touched.
    ///
    /// # Errors
    ///
    /// When it cannot be archived, unless that was forced, or what it leads to cannot be restored.
    pub fn archive_first(&mut self, rescuer: &Rescuer<'_>) -> Result<(), PostgresError> {
        if self.unarchived.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.look_again()?;
        let rescued = self.rescue(rescuer)?;
        if !rescued.is_empty() {
            let cluster = ClusterName::new(&self.base.facts.cluster)?;
            // Of which a session may say already that it is read.
            let options = RestoreOptions { base: Some(self.base.view.id), ..self.options.clone() };
            let found = std::mem::take(&mut self.unarchived);
            let left_out = std::mem::take(&mut self.left_out);
            *self = Self::prepare(&self.repository, &cluster, options)?;
            (self.unarchived, self.left_out) = (found, left_out);
        }
        self.rescued = Some(rescued);
        Ok(())
    }

    fn rescue(&self, rescuer: &Rescuer<'_>) -> Result<Vec<String>, PostgresError> {
        let observer = &self.repository.environment().observer;
        let mut done = Vec::new();
        for file in &self.unarchived {
            if observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            match rescuer(file) {
                Ok(()) => done.push(file.name.clone()),
                Err(error) if error.class() == ErrorClass::Interrupted => return Err(error.into()),
                Err(error) if self.options.force => observer.warn(&format!(
                    "{} could not be archived before the restore: {}; it is only kept aside",
                    file.name,
                    explain(&error)
                )),
                Err(error) => {
                    let before = match done.as_slice() {
                        [] => String::new(),
                        names => format!(" there; {} came into the archive before it", names.join(", ")),
                    };
                    return Err(PostgresError::failed(
                        format!(
                            "{} of the log in {} is not in the archive, and could not be archived: {}; nothing was changed{before}",
                            file.name,
                            self.options.data_directory.display(),
                            explain(&error)
                        ),
                        "remove the cause (a key that archives may be needed); with --force what is not archived is \
                         only kept aside, beside the data directory",
                    ));
                }
            }
        }
        Ok(done)
    }
}
