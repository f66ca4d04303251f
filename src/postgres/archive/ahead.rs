//! Segments that are archived before the server hands them over.
//!
//! The server hands over one file at a time. When several wait, a process beside it archives those that are
//! ready, on a few threads, and leaves a receipt for each: its digest and where it went, written once it is
//! durable. Whoever is then handed the file compares, and asks the repository whether it lists the file: a
//! receipt saves reading and storing, and never speaks for a repository that cannot be asked. So nothing is claimed that is not durable; nothing is copied anywhere, and nothing is ever dropped: what is
//! not archived stays in the server's own folder.

use super::data;
use super::push::{push, whole_digest};
use crate::ops::OpsError;
use crate::postgres::lineage::{Archiver, ClusterName};
use crate::postgres::segment::LogFile;
use crate::repo::Repository;
use rustix::fs::{FlockOperation, flock};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Holds the lock of whoever archives ahead.
const LOCK: &str = "lock";
/// Ends the name of a file's mark in `archive_status` that says that it waits.
const READY: &str = ".ready";
/// Ends the name of the history of a timeline.
const HISTORY: &str = ".history";
/// Length of the digest that a receipt begins with; the stream follows.
const DIGEST_BYTES: usize = 32;
/// Files that one process archives before it looks again who waits.
const BATCH_MAX: usize = 256;

/// The receipts for one data directory.
#[derive(Debug, Clone)]
pub struct Receipts {
    folder: PathBuf,
}

impl Receipts {
    /// Returns the folder for the data directory around a file, below `root`; `None` where the directory does
    /// not say which cluster it is. What one repository has received says nothing of another at the same place:
    /// the repository's id is in the folder's name.
    pub fn of(root: &Path, repository: &Repository, cluster: &ClusterName, file: &Path) -> Option<Self> {
        let id = repository.id().to_string();
        data::folder_of(root, "receipts", &id, cluster, file).map(|folder| Self { folder })
    }

    /// Says whether the file was archived already, byte for byte as it is now, and the repository lists it
    /// still. A receipt is good once.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read; then the receipt stays.
    pub fn redeem(&self, repository: &Repository, path: &Path) -> Result<bool, OpsError> {
        let Some(receipt) = self.receipt(path) else { return Ok(false) };
        let Ok(kept) = fs::read(&receipt) else { return Ok(false) };
        let kept = kept.split_first_chunk::<DIGEST_BYTES>();
        let kept = kept.and_then(|(digest, stream)| Some((digest, std::str::from_utf8(stream).ok()?)));
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let good = match (kept, whole_digest(path)) {
            (Some((kept, stream)), Ok(digest)) if digest.blake3 == *kept => {
                repository.lists_log(stream, name, &digest)?
            }
            _ => false,
        };
        let _ = fs::remove_file(&receipt);
        Ok(good)
    }

    fn receipt(&self, path: &Path) -> Option<PathBuf> {
        let name: LogFile = path.file_name()?.to_str()?.parse().ok()?;
        Some(self.folder.join(name.to_string()))
    }

    /// Archives what waits beside a file, in the order of the log, on so many threads; returns how many were
    /// archived. Does nothing while somebody else does that. Ends at the first failure: the server meets
    /// it, too, and tells.
    ///
    /// # Errors
    ///
    /// When the folder of receipts cannot be written, or a file not archived.
    pub fn archive_ready(
        &self,
        repository: &Repository,
        archiver: &Archiver,
        file: &Path,
        threads: usize,
    ) -> Result<usize, OpsError> {
        let local = |source| OpsError::Write { name: self.folder.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(local)?;
        let lock = File::create(self.folder.join(LOCK)).map_err(local)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(0);
        }
        let wal = file.parent().unwrap_or(Path::new("."));
        let ready = waiting(file).map_err(local)?;
        self.clear_but(&ready).map_err(local)?;
        let queue = ready.into_iter().filter(|name| !self.folder.join(name).is_file()).take(BATCH_MAX);
        let (histories, queue): (Vec<String>, VecDeque<String>) = {
            let (histories, others): (Vec<_>, Vec<_>) = queue.partition(|name| name.ends_with(HISTORY));
            (histories, others.into())
        };
        // A timeline's segments lead nowhere without its history (A15): what follows waits until it is durable.
        for name in &histories {
            self.archive_one(repository, archiver, &wal.join(name), name)?;
        }
        let (queue, failure) = (Mutex::new(queue), Mutex::new(None::<OpsError>));
        let next = || {
            let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            if failed { None } else { queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() }
        };
        let work = || {
            let mut count = 0;
            while let Some(name) = next() {
                match self.archive_one(repository, archiver, &wal.join(&name), &name) {
                    Ok(()) => count += 1,
                    Err(error) => {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
            count
        };
        let count = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().map(|other| other.join().unwrap_or(0)).sum::<usize>() + own
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(histories.len() + count),
        }
    }

    fn archive_one(
        &self,
        repository: &Repository,
        archiver: &Archiver,
        path: &Path,
        name: &str,
    ) -> Result<(), OpsError> {
        // The digest of before: should the file change meanwhile, nobody redeems this receipt.
        let digest = whole_digest(path)?;
        let pushed = push(repository, archiver, path)?;
        let local = |source| OpsError::Write { name: self.folder.display().to_string(), source };
        let partial = self.folder.join(format!("{name}.written"));
        fs::write(&partial, [digest.blake3.as_slice(), pushed.stream.as_bytes()].concat()).map_err(local)?;
        fs::rename(&partial, self.folder.join(name)).map_err(local)
    }

    /// Removes receipts for what does not wait any more.
    fn clear_but(&self, ready: &[String]) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let keep = name.to_str().is_some_and(|name| name == LOCK || ready.iter().any(|r| r == name));
            if !keep {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Names the files that wait beside a file, but not that one: histories first, then in the order of the log.
pub(super) fn waiting(file: &Path) -> io::Result<Vec<String>> {
    let folder = file.parent().unwrap_or(Path::new(".")).join("archive_status");
    let own = file.file_name().unwrap_or_default().as_bytes().to_vec();
    let mut ready = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(READY)) else { continue };
        if name.parse::<LogFile>().is_ok() && name.as_bytes() != own.as_slice() {
            ready.push(name.to_owned());
        }
    }
    ready.sort_by_key(|name| (!name.ends_with(HISTORY), name.clone()));
    Ok(ready)
}

/// Says whether at least so many files wait beside a file.
pub fn is_waiting(file: &Path, least: usize) -> bool {
    waiting(file).is_ok_and(|ready| ready.len() >= least)
}
