//! Restoring into a folder: only what differs is written, whatever fails is named, the rest comes.
//!
//! - `steps`: what is to be done, from the snapshot and what stands in the target
//! - `compare`: what of it stands there already
//! - `writing`: doing it
//! - `metadata`: what is set on restored files
//! - `verify`: reading everything back

mod compare;
mod metadata;
mod steps;
mod verify;
mod writing;

use self::steps::{Step, StepOptions, Steps};
use self::writing::Writing;
use super::error::OpsError;
use super::listing::{Found, locate};
use crate::base::{BlobId, Phase, explain};
use crate::localfs::{self, Durability, LocalError, Ownership, TargetFolder, permit_many_handles, printable};
use crate::repo::{RepoError, Repository};
use crate::view::{StreamOptions, stream};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Problems that are told one by one; the rest is only counted.
const PROBLEMS_MAX: usize = 10_000;

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Removes what the snapshot does not have.
    pub delete: bool,
    /// Reads everything back afterwards.
    pub verify: bool,
    /// Makes holes of runs of zeros also where the original had none.
    pub sparse: bool,
    /// Whose the files are; `None`: their owners' for root, else one's own.
    pub ownership: Option<Ownership>,
    /// Does not wait until everything is on the disk.
    pub no_sync: bool,
    /// Folders that no restore may write to or remove: the repository, the cache.
    pub protected: Vec<PathBuf>,
    /// Bytes to restore, where they are known: for progress only.
    pub total_bytes: Option<u64>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Content or the whole entry is missing.
    Missing,
    /// Content is right; something of its metadata, or a socket, cannot be had here.
    Metadata,
}

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// The path below the target.
    pub path: Vec<u8>,
    /// How bad it is.
    pub severity: Severity,
    /// Why.
    pub what: String,
    /// Bytes of a file that could not be read.
    pub missing: Vec<Range<u64>>,
    /// Where the rest of the file is kept.
    pub kept_as: Option<Vec<u8>>,
}

impl RestoreProblem {
    fn new(path: &[u8], severity: Severity, what: String) -> Self {
        Self { path: path.to_vec(), severity, what, missing: Vec::new(), kept_as: None }
    }
}

/// What a restore did, or in a preview would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Files that are whole now.
    pub files: u64,
    /// Those of them of which nothing had to be written.
    pub unchanged_files: u64,
    /// Folders.
    pub directories: u64,
    /// Symbolic links, pipes, devices.
    pub others: u64,
    /// Further names of files.
    pub links: u64,
    /// Length of all files.
    pub bytes: u64,
    /// Bytes of the pieces that had to be fetched. Of one that differs from what stands there only in part, only
    /// that part is written.
    pub written_bytes: u64,
    /// Bytes that stood there already.
    pub same_bytes: u64,
    /// Entries that were removed, whole folders counted once.
    pub removed: u64,
    /// Files that were read back and found right.
    pub verified_files: u64,
    /// What is not as it was.
    pub problems: Vec<RestoreProblem>,
    /// How many more problems there were.
    pub problems_more: u64,
    /// Problems of [`Severity::Missing`].
    pub missing: u64,
}

impl RestoreReport {
    /// Says whether all content and all entries are there.
    pub fn complete(&self) -> bool {
        self.missing == 0
    }

    fn problem(&mut self, problem: RestoreProblem) {
        self.missing += u64::from(problem.severity == Severity::Missing);
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.problems_more += 1;
        }
    }
}

/// One thing that a restore would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned<'a> {
    /// It would remove this, which the snapshot does not have, with all that lies in it.
    Remove(&'a [u8]),
    /// It would write this many bytes of this file, and leave the rest as it stands.
    Write {
        /// The path below the target.
        path: &'a [u8],
        /// Bytes to be written.
        bytes: u64,
        /// Bytes that stand there already.
        same_bytes: u64,
    },
    /// It would make or keep this folder, link or special file.
    Make(&'a [u8]),
}

/// A restore that has been checked and can be shown or run.
pub struct RestorePlan {
    repository: Arc<Repository>,
    found: Found,
    target: PathBuf,
    options: RestoreOptions,
}

impl RestorePlan {
    /// Checks a request: what `path` names under `root` is to be restored into the folder `target`.
    /// A folder's content comes directly into the target, anything else under its name.
    ///
    /// # Errors
    ///
    /// When the path does not exist, the target is no folder, or the request could destroy what it
    /// should not.
    pub fn new(
        repository: &Arc<Repository>,
        root: &BlobId,
        path: &[Vec<u8>],
        target: &Path,
        options: RestoreOptions,
    ) -> Result<Self, OpsError> {
        if target.as_os_str().is_empty() {
            return Err(OpsError::Usage("a restore needs a target folder".to_owned()));
        }
        if target.exists() && !target.is_dir() {
            return Err(OpsError::Usage(format!(
                "the target {} is not a folder; restore into a folder, or a single file to standard output",
                target.display()
            )));
        }
        let mut protected = options.protected.clone();
        protected.extend(repository.environment().cache.clone());
        protected.push(PathBuf::from(repository.environment().store.location()));
        check_target(target, &protected, options.delete)?;
        let found = locate(repository, root, path)?;
        if options.delete && matches!(found, Found::Leaf(_)) {
            return Err(OpsError::Usage(format!(
                "restoring one file while deleting all others in {} makes no sense",
                target.display()
            )));
        }
        Ok(Self { repository: repository.clone(), found, target: target.to_owned(), options })
    }

    /// Returns the folder that would be written to.
    pub fn target(&self) -> &Path {
        &self.target
    }

    fn local_options(&self) -> localfs::RestoreOptions {
        let standard = localfs::RestoreOptions::default();
        localfs::RestoreOptions {
            sparse: self.options.sparse,
            // What else stands in the way is only removed by those who asked for it.
            replace_folders: self.options.delete,
            ownership: self.options.ownership.unwrap_or(standard.ownership),
            durability: if self.options.no_sync { Durability::Never } else { Durability::AtEnd },
        }
    }

    fn steps(&self, target: Option<TargetFolder>, compare: bool) -> Result<Steps, RepoError> {
        let options = StepOptions { delete: self.options.delete, compare };
        Steps::new(&self.repository, &self.found, target, options)
    }

    /// Tells what a run would do and changes nothing. With `compare`, files that stand in the target
    /// are read; without, all are told as if they had to be written, and only removals are exact.
    ///
    /// # Errors
    ///
    /// As [`RestorePlan::run`].
    pub fn preview(
        &self,
        compare: bool,
        mut visit: impl FnMut(Planned<'_>),
    ) -> Result<RestoreReport, OpsError> {
        permit_many_handles();
        let target = TargetFolder::open_existing(self.target.as_os_str().as_bytes(), self.local_options())?;
        let mut report = RestoreReport::default();
        let (mut path, mut lengths) = (Vec::new(), vec![0]);
        let mut bytes = 0;
        let mut length = 0;
        for wanted in self.steps(target, compare)? {
            let mut at = |name: &[u8]| {
                path.truncate(lengths.last().copied().unwrap_or(0));
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            };
            match wanted.tag {
                Step::Enter(entry) => {
                    at(&entry.name);
                    visit(Planned::Make(&path));
                    lengths.push(path.len());
                    report.directories += 1;
                }
                Step::Leave { .. } => drop(lengths.pop()),
                Step::Other(entry) => {
                    at(&entry.name);
                    visit(Planned::Make(&path));
                    report.others += 1;
                }
                Step::Link(entry, _) => {
                    at(&entry.name);
                    visit(Planned::Make(&path));
                    report.links += 1;
                }
                Step::File(start) => {
                    at(&start.entry.name);
                    bytes = 0;
                    length = start.entry.content.as_ref().map_or(0, |content| content.length);
                }
                Step::Piece { length, .. } => bytes += u64::from(length),
                Step::Hole { .. } => {}
                Step::End { same_bytes, broken } => {
                    visit(Planned::Write { path: &path, bytes, same_bytes });
                    report.files += 1;
                    report.bytes += length;
                    report.written_bytes += bytes;
                    report.same_bytes += same_bytes;
                    report.unchanged_files += u64::from(bytes == 0 && same_bytes > 0);
                    if let Some((_, error)) = broken {
                        report.problem(RestoreProblem::new(&path, Severity::Missing, explain(&error)));
                    }
                }
                Step::Remove(name) => {
                    at(&name);
                    visit(Planned::Remove(&path));
                    report.removed += 1;
                }
                Step::Unreadable(error) => {
                    path.truncate(lengths.last().copied().unwrap_or(0));
                    report.problem(RestoreProblem::new(&path, Severity::Missing, explain(&error)));
                }
            }
        }
        if self.repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        Ok(report)
    }

    /// Restores. Steps, and what a crash after each leaves:
    ///
    /// 1. folders and unfinished files, under names that begin with
    ///    [`crate::localfs::TEMPORARY_PREFIX`]: the next restore goes on with them;
    /// 2. each file gets its metadata and then its name: it is whole;
    /// 3. each folder gets its metadata once all in it is done;
    /// 4. everything is made durable;
    /// 5. everything is read back, where that was asked for.
    ///
    /// # Errors
    ///
    /// When nothing more can be restored: the disk is full, this key may not read content, the user
    /// stopped it. A single file that cannot be restored is a problem in the report.
    pub fn run(&self) -> Result<RestoreReport, OpsError> {
        permit_many_handles();
        let observer = self.repository.environment().observer.clone();
        observer.begin(Phase::Restore, self.options.total_bytes);
        let target = TargetFolder::open(self.target.as_os_str().as_bytes(), self.local_options())?;
        let steps = self.steps(Some(target.clone()), true)?;
        let mut writing = Writing::new(target.clone(), observer.clone());
        stream(&self.repository, StreamOptions::default(), steps, |delivered| writing.take(delivered))?;
        if let Some(error) = writing.fatal.take() {
            return Err(error);
        }
        if observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        writing.sync()?;
        observer.end(Phase::Restore);
        let mut report = writing.report;
        if self.options.verify {
            verify::verify(&self.repository, &self.found, &target, &mut report)?;
        }
        Ok(report)
    }
}

/// Refuses targets that lie in what must not be written to, or whose emptying would remove it.
fn check_target(target: &Path, protected: &[PathBuf], delete: bool) -> Result<(), OpsError> {
    let target = resolve(target);
    if delete && target.parent().is_none() {
        return Err(OpsError::Usage(
            "refusing to delete in / what the snapshot does not have; name a folder".to_owned(),
        ));
    }
    for folder in protected {
        let Ok(folder) = folder.canonicalize() else { continue };
        if target.starts_with(&folder) {
            return Err(OpsError::Usage(format!(
                "the target {} lies in {}, which is not to be written to",
                target.display(),
                folder.display()
            )));
        }
        if delete && folder.starts_with(&target) {
            return Err(OpsError::Usage(format!(
                "deleting what the snapshot does not have in {} would delete {}",
                target.display(),
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Resolves as much of a path as exists.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => resolve(parent).join(name),
        (_, Some(name)) => resolve(Path::new(".")).join(name),
        _ => path.to_owned(),
    }
}

/// Says what a problem is about, on one line.
impl std::fmt::Display for RestoreProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = if self.path.is_empty() { "the target".to_owned() } else { printable(&self.path) };
        write!(f, "{path}: {}", self.what)?;
        for (number, range) in self.missing.iter().enumerate() {
            let sign = if number == 0 { "; missing bytes " } else { ", " };
            write!(f, "{sign}{} to {}", range.start, range.end.saturating_sub(1))?;
        }
        match &self.kept_as {
            Some(path) => write!(f, "; what could be read is in {}", printable(path)),
            None => Ok(()),
        }
    }
}

/// Names what stands in the way of a local operation, for the verification.
fn local_problem(path: &[u8], error: &LocalError) -> RestoreProblem {
    RestoreProblem::new(path, Severity::Missing, explain(error))
}
