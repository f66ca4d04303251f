//! Segments that are fetched before the server asks for them.
//!
//! Each lies in a folder of one data directory, so that no recovery meets what another left (R8), with its
//! digest behind it: what a crash left half written is not believed. Where it has reached a disk of this machine, the system has
//! run ever since, and nobody has written to the file, it is what was read from the repository, and is handed over as it
//! is. The folder holds what follows the
//! segment that was asked for last and nothing else, so that it stays small and forgets a timeline that
//! recovery has left. It never says that something is absent: only the repository does.

use super::data;
use super::get::Unfinished;
use crate::base::Timestamp;
use crate::direct::is_on_disk;
use crate::format::log::LogDigest;
use crate::ops::OpsError;
use crate::postgres::lineage::{ClusterName, lineages};
use crate::postgres::segment::{LogFile, SegmentName};
use crate::postgres::wal::FirstPage;
use crate::repo::{RepoError, Repository, holds_whole};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_root};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Length of the digest behind a segment.
const DIGEST_BYTES: usize = 32;
/// Length of what tells one run of the system from others.
const RUN_BYTES: usize = 16;
/// Length of what stands behind the digest: the run of the system in which the segment was written, and the time that the
/// file got when it was, which every later write changes.
const MARK_BYTES: usize = RUN_BYTES + 8;
/// Tells one run of the system from others.
const RUN: &str = "/proc/sys/kernel/random/boot_id";
/// How much of a segment is read at once.
const WINDOW_BYTES: usize = 256 << 10;
/// Holds the lock of whoever fills the folder.
const LOCK: &str = "lock";

/// The folder of one data directory.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
    cluster: ClusterName,
    system_identifier: u64,
}

impl Spool {
    /// Returns the folder for the data directory around a file, below `root`; `None` where the directory does
    /// not say which cluster it is. `repository` tells repositories apart.
    pub fn of(root: &Path, repository: &str, cluster: &ClusterName, file: &Path) -> Option<Self> {
        let system_identifier = data::system_identifier(file)?;
        let folder = data::folder_of(root, "spool", repository, cluster, file)?;
        Some(Self { folder, cluster: cluster.clone(), system_identifier })
    }

    /// Moves a segment to its target, if it is here and whole; returns its length.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    pub fn take(&self, name: &str, target: &Path) -> Result<Option<u64>, OpsError> {
        // No other file is fetched ahead, and no other name leads into the folder.
        let Ok(LogFile::Segment(segment)) = name.parse() else { return Ok(None) };
        let path = self.folder.join(segment.to_string());
        let Ok(file) = File::options().read(true).write(true).open(&path) else { return Ok(None) };
        let Some(length) = whole(&file) else {
            let _ = fs::remove_file(&path);
            return Ok(None);
        };
        let written = |source| OpsError::Write { name: target.display().to_string(), source };
        // A crash before it has its new name leaves what is not believed.
        file.set_len(length).map_err(written)?;
        match fs::rename(&path, target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let mut unfinished = Unfinished::create(target)?;
                each_window(&file, 0..length, |window| unfinished.write(window)).map_err(written)?;
                unfinished.finish(target)?;
                let _ = fs::remove_file(&path);
            }
            renamed => renamed.map_err(written)?,
        }
        Ok(Some(length))
    }

    /// Returns how many of the segments that follow one are here; `fetched` is that one, whose first page
    /// says how long segments are.
    pub fn ahead(&self, name: &str, fetched: &Path, most: usize) -> Option<usize> {
        let window = self.window(name, fetched, most)?;
        Some(window.iter().take_while(|name| self.folder.join(name.to_string()).is_file()).count())
    }

    fn window(&self, name: &str, fetched: &Path, most: usize) -> Option<Vec<SegmentName>> {
        let LogFile::Segment(mut segment) = name.parse().ok()? else { return None };
        let size = first_page(fetched)?.segment_size;
        let mut window = Vec::new();
        while window.len() < most {
            segment = segment.next(size)?;
            window.push(segment);
        }
        Some(window)
    }

    /// Fetches the segments that follow one, as far as they are archived and at most so many; removes all
    /// others. Does nothing while somebody else does that. Returns how many it fetched.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written, or the repository fails.
    pub fn fill(&self, repository: &Repository, name: &str, most: usize) -> Result<usize, OpsError> {
        let local = |source| OpsError::Write { name: self.folder.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(local)?;
        let lock = File::create(self.folder.join(LOCK)).map_err(local)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(0);
        }
        let known = lineages(repository, &self.cluster)?;
        let lineage = known.iter().find(|lineage| lineage.system_identifier == self.system_identifier);
        let (Some(lineage), Ok(LogFile::Segment(mut segment))) = (lineage, name.parse()) else {
            return Ok(0);
        };
        let stream = lineage.stream(&self.cluster);
        let mut window = Vec::new();
        while window.len() < most
            && let Some(next) = segment.next(lineage.segment_size)
        {
            window.push(next);
            segment = next;
        }
        self.clear_but(&window).map_err(local)?;
        let mut fetched = 0;
        for name in window.iter().map(SegmentName::to_string) {
            let path = self.folder.join(&name);
            if path.is_file() {
                continue;
            }
            let found = repository.search_log(&stream, &name)?.found;
            // Of one that is still being received the server itself asks for more.
            if !holds_whole(&found) {
                break;
            }
            let partial = self.folder.join(format!("{name}.partial"));
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            let file = options.open(&partial).map_err(local)?;
            let digest = repository.read_segment_into(&found, &|at, piece| {
                file.write_all_at(piece, at).map_err(|source| RepoError::Local {
                    doing: "cannot write",
                    path: partial.display().to_string(),
                    source,
                })
            })?;
            // Nobody waits for this. A disk that takes nothing says so here, and nowhere else.
            file.sync_data().map_err(local)?;
            end(&file, &digest, repository.environment().clock.now()).map_err(local)?;
            fs::rename(&partial, &path).map_err(local)?;
            fetched += 1;
        }
        Ok(fetched)
    }

    /// Removes what is not wanted any more: what was passed, another timeline's, what a dead process left.
    fn clear_but(&self, window: &[SegmentName]) -> io::Result<()> {
        let wanted: BTreeSet<String> = window.iter().map(SegmentName::to_string).collect();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let keep = entry.file_name().to_str().is_some_and(|name| name == LOCK || wanted.contains(name));
            if !keep {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Writes what stands behind a segment.
fn end(file: &File, digest: &LogDigest, now: Timestamp) -> io::Result<()> {
    let time = u64::try_from(now.nanoseconds()).unwrap_or(0);
    file.write_all_at(&digest.blake3, digest.length)?;
    file.write_all_at(&mark(time).unwrap_or([0; MARK_BYTES]), digest.length + DIGEST_BYTES as u64)?;
    // Where it gets another time the digest is compared, no more.
    let _ = file.set_modified(UNIX_EPOCH + Duration::from_nanos(time));
    Ok(())
}

/// Returns the mark of a file that is written in this run of the system and has this time, in nanoseconds; `None` where
/// the system does not tell.
fn mark(time: u64) -> Option<[u8; MARK_BYTES]> {
    let run = fs::read(RUN).ok().filter(|run| !run.is_empty())?;
    let mut mark = [0; MARK_BYTES];
    let (run_part, time_part) = mark.split_first_chunk_mut::<RUN_BYTES>()?;
    *run_part = *blake3::hash(&run).as_bytes().first_chunk()?;
    time_part.copy_from_slice(&time.to_le_bytes());
    Some(mark)
}

/// Returns the length of the segment that a file holds, if it is whole: it is as it was written, or the digest behind it
/// says so.
fn whole(file: &File) -> Option<u64> {
    let metadata = file.metadata().ok()?;
    let length = metadata.len().checked_sub((DIGEST_BYTES + MARK_BYTES) as u64)?;
    let mut behind = [0; DIGEST_BYTES + MARK_BYTES];
    file.read_exact_at(&mut behind, length).ok()?;
    let (digest, found) = behind.split_first_chunk::<DIGEST_BYTES>()?;
    let time = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    let expected = u64::try_from(time).ok().filter(|_| is_on_disk(file)).and_then(mark);
    let is_as_written = expected.is_some_and(|expected| expected == found);
    (is_as_written || digest_of(file, length).ok()? == *digest).then_some(length)
}

/// Hashes the first bytes of a file: the halves at once, which are subtrees of the whole's BLAKE3 where the length
/// is that of a segment, since the server waits.
fn digest_of(file: &File, length: u64) -> io::Result<blake3::Hash> {
    let half = length / 2;
    let hash = |range: Range<u64>| {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(range.start);
        each_window(file, range, |window| {
            hasher.update(window);
            Ok(())
        })?;
        Ok::<_, io::Error>(hasher)
    };
    if !length.is_power_of_two() || half < blake3::CHUNK_LEN as u64 {
        return Ok(hash(0..length)?.finalize());
    }
    let (left, right) = std::thread::scope(|scope| {
        let right = scope.spawn(|| hash(half..length));
        (hash(0..half), right.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
    });
    Ok(merge_subtrees_root(&left?.finalize_non_root(), &right?.finalize_non_root(), Mode::Hash))
}

/// Reads a part of a file piece by piece, which stay in a processor's cache.
fn each_window(
    file: &File,
    range: Range<u64>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = range.start;
    while at < range.end {
        let rest = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let some = window.get_mut(..rest.min(WINDOW_BYTES)).unwrap_or_default();
        file.read_exact_at(some, at)?;
        each(some)?;
        at += some.len() as u64;
    }
    Ok(())
}

fn first_page(path: &Path) -> Option<FirstPage> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path).ok()?, 64), &mut bytes).ok()?;
    FirstPage::read(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::push::digest_of as digest_in_memory;

    fn segment(folder: &Path) -> (PathBuf, File) {
        let path = folder.join("segment");
        let content: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
        let options = || File::options().read(true).write(true).create(true).truncate(true).clone();
        let file = options().open(&path).unwrap();
        file.write_all_at(&content, 0).unwrap();
        let now = Timestamp::from_nanoseconds(1_700_000_000_123_456_789);
        end(&file, &digest_in_memory(&content), now).unwrap();
        (path, file)
    }

    /// What a crash may have left, or somebody changed, is compared with the digest behind it.
    #[test]
    fn only_what_is_whole_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (_, file) = segment(folder.path());
        assert_eq!(whole(&file), Some(1 << 20));
        let behind = file.metadata().unwrap().len() - MARK_BYTES as u64;
        // Another run of the system: the digest holds.
        let mut mark = [0; MARK_BYTES];
        file.read_exact_at(&mut mark, behind).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&[0; MARK_BYTES], behind).unwrap();
        file.set_modified(written).unwrap();
        assert_eq!(whole(&file), Some(1 << 20));
        // Nor does the digest hold where bytes are others.
        file.write_all_at(b"x", 70_001).unwrap();
        file.set_modified(written).unwrap();
        assert_eq!(whole(&file), None);
        // This run of the system, but somebody wrote to the file.
        file.write_all_at(&mark, behind).unwrap();
        assert_eq!(whole(&file), None);
        // Cut short, wherever.
        let (_, file) = segment(folder.path());
        for length in [0, 10, MARK_BYTES as u64, behind, (1 << 20) + 1, 1 << 19] {
            file.set_len(length).unwrap();
            assert_eq!(whole(&file), None, "{length}");
        }
    }
}
