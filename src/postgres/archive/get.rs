//! A file of the log comes back.

use super::data;
use crate::base::explain;
use crate::ops::OpsError;
use crate::postgres::lineage::{ClusterName, Lineage, lineages};
use crate::postgres::segment::LogFile;
use crate::repo::{RepoError, Repository, holds_whole, joined_length};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What came of asking for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// It stands there, whole.
    Written {
        /// Its length.
        bytes: u64,
    },
    /// Its beginning stands there, and zeros behind it: no more is archived of a segment that is still being
    /// received.
    Beginning {
        /// The length of the beginning.
        bytes: u64,
    },
    /// It is not in the archive: the repository was asked, and says so (R2).
    Absent,
}

/// Brings back a file of the log. What stands under the target's name is replaced in one step, by the
/// whole file or not at all (R5).
///
/// # Errors
///
/// Whenever it is not certain that the file is absent: the repository holds the cluster's log, this key
/// may see it, and nothing stands where the file would.
pub fn get(
    repository: &Repository,
    cluster: &ClusterName,
    name: &str,
    target: &Path,
) -> Result<Got, OpsError> {
    let file = parse(name)?;
    get_file(repository, cluster, &lineage(repository, cluster, target)?, file, name, target)
}

/// Brings back a file of the log of one lineage.
///
/// # Errors
///
/// As [`get`].
pub(in crate::postgres) fn get_of(
    repository: &Repository,
    cluster: &ClusterName,
    lineage: &Lineage,
    name: &str,
    target: &Path,
) -> Result<Got, OpsError> {
    get_file(repository, cluster, lineage, parse(name)?, name, target)
}

fn parse(name: &str) -> Result<LogFile, OpsError> {
    name.parse().map_err(|error| OpsError::Usage(format!("{error}")))
}

fn get_file(
    repository: &Repository,
    cluster: &ClusterName,
    lineage: &Lineage,
    file: LogFile,
    name: &str,
    target: &Path,
) -> Result<Got, OpsError> {
    let stream = lineage.stream(cluster);
    let mut listing = repository.search_log(&stream, name)?;
    for (_, error) in &listing.refused {
        let text = format!("{}; it is passed over", explain(error));
        repository.environment().observer.warn(&text);
    }
    if listing.found.is_empty() {
        // Something stands there and cannot be read: that is not the end of the log.
        return listing.refused.pop().map_or(Ok(Got::Absent), |(_, error)| Err(error.into()));
    }
    let is_whole = holds_whole(&listing.found);
    if !is_whole && let Some((_, error)) = listing.refused.pop() {
        // What would end it stands there and cannot be read.
        return Err(error.into());
    }
    // Pieces of a segment that is still being received end the log: behind them come zeros, in which a server
    // finds no record. Without a first piece nothing of it is there.
    let beginning = match file {
        LogFile::Segment(_) if !is_whole => joined_length(&listing.found),
        _ => 0,
    };
    if !is_whole && beginning == 0 {
        return Ok(Got::Absent);
    }
    let mut unfinished = Unfinished::create(target)?;
    let bytes = if is_whole {
        let digest = repository.read_segment_into(&listing.found, &|at, piece| {
            unfinished.write_at(piece, at).map_err(|source| unfinished.unwritten(source))
        })?;
        digest.length
    } else {
        let mut write = |piece: &[u8]| unfinished.write(piece).map_err(|source| unfinished.unwritten(source));
        let zeros = vec![0; 1 << 20];
        let mut at = repository.read_joined(&listing.found, &mut write)?;
        while at < lineage.segment_size.bytes() {
            let rest = usize::try_from(lineage.segment_size.bytes() - at).unwrap_or(usize::MAX);
            let some = zeros.get(..rest.min(zeros.len())).unwrap_or_default();
            write(some)?;
            at += some.len() as u64;
        }
        at
    };
    unfinished.finish(target)?;
    Ok(match is_whole {
        true => Got::Written { bytes },
        false => Got::Beginning { bytes: beginning },
    })
}

/// Finds the lineage whose log is asked for: that of the data directory that recovers, which a control file
/// names; else the newest of the cluster.
fn lineage(repository: &Repository, cluster: &ClusterName, target: &Path) -> Result<Lineage, OpsError> {
    let mut known = lineages(repository, cluster)?;
    if known.is_empty() {
        return Err(OpsError::Stopped {
            why: format!("nothing was ever archived under the cluster's name {cluster} here"),
            cure: "check the names of repository and cluster",
        });
    }
    match data::system_identifier(target) {
        None => known.pop().ok_or_else(|| OpsError::NotFound("there is no lineage".to_owned())),
        Some(identifier) => {
            let found = known.into_iter().find(|lineage| lineage.system_identifier == identifier);
            found.ok_or_else(|| OpsError::Stopped {
                why: format!(
                    "the data directory is of system {identifier}, and {cluster} has no log of that system"
                ),
                cure: "check the name of the cluster: another cluster's log would destroy this one",
            })
        }
    }
}

/// The file while it is written, under a name of its own beside the target; removed unless it is finished.
pub(super) struct Unfinished {
    path: PathBuf,
    file: Option<File>,
}

impl Unfinished {
    pub(super) fn create(target: &Path) -> Result<Self, OpsError> {
        let mut name = OsString::from(target.file_name().unwrap_or_default());
        name.push(".chronolith");
        let path = target.with_file_name(name);
        // No sync: after a crash the server asks again (R6).
        let mut options = File::options();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        match opened {
            Ok(file) => Ok(Self { path, file: Some(file) }),
            Err(source) => Err(OpsError::Write { name: path.display().to_string(), source }),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(bytes, at))
    }

    fn unwritten(&self, source: io::Error) -> RepoError {
        RepoError::Local { doing: "cannot write", path: self.path.display().to_string(), source }
    }

    pub(super) fn finish(mut self, target: &Path) -> Result<(), OpsError> {
        self.file = None;
        fs::rename(&self.path, target)
            .map_err(|source| OpsError::Write { name: target.display().to_string(), source })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What is left of it is written over by the next attempt.
            let _ = fs::remove_file(&self.path);
        }
    }
}
