//! Reading back what was restored, by all cores, and comparing it with the snapshot.

use super::{RestoreProblem, RestoreReport, Severity, local_problem};
use crate::base::{Observer, Phase, explain};
use crate::format::pack::BlobClass;
use crate::format::recipe::RecipeEntry;
use crate::format::tree::{Content, ContentDigest, TreeEntry};
use crate::localfs::{StandingFile, TargetFolder};
use crate::ops::OpsError;
use crate::ops::listing::Found;
use crate::repo::{BlobReader, Pieces, RepoError, Repository};
use crate::view::{TreeWalk, WalkEvent};
use crossbeam_channel::{Receiver, bounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Length of one read.
const READ_BYTES: usize = 1 << 20;
/// Files that wait to be read; each keeps its folder open.
const WAITING: usize = 32;

/// A file to be read back.
struct Task {
    folder: TargetFolder,
    path: Vec<u8>,
    entry: Box<TreeEntry>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads everything back and adds what is wrong to the report.
pub(super) fn verify(
    repository: &Arc<Repository>,
    found: &Found,
    target: &TargetFolder,
    report: &mut RestoreReport,
) -> Result<(), OpsError> {
    let observer = repository.environment().observer.clone();
    observer.begin(Phase::Check, Some(report.bytes));
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (tasks, to_do) = bounded::<Task>(WAITING);
    let outcome = Mutex::new((0, Vec::new()));
    let walked = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (to_do, outcome, observer) = (to_do.clone(), &outcome, observer.as_ref());
            scope.spawn(move || work(repository, &to_do, observer, outcome));
        }
        drop(to_do);
        let walked = walk(repository, found, target, &outcome, &mut |task| {
            // The workers take tasks until there are no more.
            let _ = tasks.send(task);
        });
        drop(tasks);
        walked
    });
    walked?;
    if observer.interrupted() {
        return Err(RepoError::Interrupted.into());
    }
    let (verified, mut problems) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    problems.sort_by(|a: &RestoreProblem, b| a.path.cmp(&b.path));
    report.verified_files = verified;
    // What could not be restored has been told already.
    let known: std::collections::HashSet<Vec<u8>> =
        report.problems.iter().map(|problem| problem.path.clone()).collect();
    problems.retain(|problem| !known.contains(&problem.path));
    problems.into_iter().for_each(|problem| report.problem(problem));
    observer.end(Phase::Check);
    Ok(())
}

type Outcome = Mutex<(u64, Vec<RestoreProblem>)>;

fn walk(
    repository: &Arc<Repository>,
    found: &Found,
    target: &TargetFolder,
    outcome: &Outcome,
    send: &mut dyn FnMut(Task),
) -> Result<(), OpsError> {
    let content = match found {
        Found::Folder { content, .. } => content,
        Found::Leaf(entry) => {
            if entry.content.is_some() {
                let path = entry.name.clone();
                send(Task { folder: target.clone(), path, entry: entry.clone() });
            }
            return Ok(());
        }
    };
    let mut walk = TreeWalk::new(repository, *content)?;
    let mut folders = vec![target.clone()];
    while let Some(event) = walk.next() {
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        match event {
            WalkEvent::Enter(entry) => {
                let folder = folders.last().and_then(|folder| folder.look_into(&entry.name));
                match folder {
                    Some(folder) => folders.push(folder),
                    None => {
                        let what = "the folder is not there".to_owned();
                        lock(outcome).1.push(RestoreProblem::new(walk.path(), Severity::Missing, what));
                        // Its `Leave` comes all the same.
                        folders.extend(folders.last().cloned());
                        walk.skip();
                    }
                }
            }
            WalkEvent::Leaf(entry) => {
                if let (Some(folder), true) = (folders.last(), entry.content.is_some()) {
                    send(Task { folder: folder.clone(), path: walk.path().to_vec(), entry });
                }
            }
            WalkEvent::Leave(_) => drop(folders.pop()),
            // The restore has told it.
            WalkEvent::Problem(_) => {}
        }
    }
    Ok(())
}

fn work(repository: &Arc<Repository>, tasks: &Receiver<Task>, observer: &dyn Observer, outcome: &Outcome) {
    let mut buffer = vec![0; READ_BYTES];
    for task in tasks {
        if observer.interrupted() {
            // Emptied, so that the walk is never kept waiting.
            continue;
        }
        let problem = check(repository, &task, &mut buffer, observer);
        let mut outcome = lock(outcome);
        match problem {
            None => outcome.0 += 1,
            Some(problem) => outcome.1.push(problem),
        }
    }
}

fn check(
    repository: &Arc<Repository>,
    task: &Task,
    buffer: &mut Vec<u8>,
    observer: &dyn Observer,
) -> Option<RestoreProblem> {
    let problem = |what: &str| Some(RestoreProblem::new(&task.path, Severity::Missing, what.to_owned()));
    let content = task.entry.content.as_ref()?;
    let file = match task.folder.finished_file(&task.entry.name) {
        Ok(Some(file)) => file,
        Ok(None) => return problem("the file is not there"),
        Err(error) => return Some(local_problem(&task.path, &error)),
    };
    if file.length() != content.length {
        return problem("read back, it has another length");
    }
    file.forget_cached();
    let same = match &content.digest {
        Some(ContentDigest::Blake3(digest)) => {
            whole(&file, buffer, observer).map(|found| found == *digest).map_err(|e| explain(&e))
        }
        _ => pieces(repository, &file, content, buffer, observer),
    };
    match same {
        Ok(true) => None,
        Ok(false) => problem("read back, its content is another one"),
        Err(why) => problem(&why),
    }
}

/// Takes the digest of a whole file.
fn whole(
    file: &StandingFile,
    buffer: &mut Vec<u8>,
    observer: &dyn Observer,
) -> Result<[u8; 32], crate::localfs::LocalError> {
    buffer.resize(READ_BYTES, 0);
    let mut digest = blake3::Hasher::new();
    let mut offset = 0;
    loop {
        let read = file.read_at(offset, buffer)?;
        digest.update(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
        observer.advance(Phase::Check, read as u64, 0);
        if read < buffer.len() || observer.interrupted() {
            return Ok(*digest.finalize().as_bytes());
        }
    }
}

/// Compares a file of which nobody took a digest piece by piece.
fn pieces(
    repository: &Arc<Repository>,
    file: &StandingFile,
    content: &Content,
    buffer: &mut Vec<u8>,
    observer: &dyn Observer,
) -> Result<bool, String> {
    let tell = |error: RepoError| explain(&error);
    let mut reader = BlobReader::new(repository).map_err(tell)?;
    let mut pieces = Pieces::open(&mut reader, content).map_err(tell)?;
    let mut offset = 0;
    while let Some(entry) = pieces.next(&mut reader).map_err(tell)? {
        let mut left = entry.length();
        if let RecipeEntry::Chunk { id, length, .. } = entry {
            buffer.resize(length as usize, 0);
            let read = file.read_at(offset, buffer).map_err(|error| explain(&error))?;
            let found = repository.keyring().blob_id(BlobClass::Content, buffer).map_err(tell)?;
            if read < buffer.len() || found != id {
                return Ok(false);
            }
            offset += left;
        } else {
            buffer.resize(READ_BYTES, 0);
            while left > 0 {
                let piece = left.min(READ_BYTES as u64);
                let space = buffer.get_mut(..piece as usize).unwrap_or_default();
                let read = file.read_at(offset, space).map_err(|error| explain(&error))?;
                if read < space.len() || space.iter().any(|byte| *byte != 0) {
                    return Ok(false);
                }
                offset += piece;
                left -= piece;
            }
        }
        observer.advance(Phase::Check, entry.length(), 0);
        if observer.interrupted() {
            return Ok(true);
        }
    }
    Ok(true)
}
