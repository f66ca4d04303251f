//! The side that writes: takes the steps in order, with the pieces that came for them.
//!
//! For each file: its content, then length, metadata and at last its name; for each folder: all
//! that lies in it, then its metadata; at the very end one sync. What is interrupted leaves
//! unfinished files under names of their own, which the next restore begins with.

use super::metadata::metadata_of;
use super::steps::{FileStart, Step};
use super::{RestoreProblem, RestoreReport, Severity};
use crate::base::{Classify, ErrorClass, Observer, Phase, explain};
use crate::format::tree::{EntryKind, TreeEntry};
use crate::localfs::{FileWriter, LocalError, RESTORE_MARKER, TEMPORARY_PREFIX, TargetFolder, printable};
use crate::ops::OpsError;
use crate::ops::cat::check_digest;
use crate::repo::RepoError;
use crate::view::{AtHand, Delivered, Piece};
use rustix::io::Errno;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// What is written of a piece that stands there in part: blocks of most file systems.
const BLOCK_BYTES: u64 = 4096;
/// Zeros for the digests of files with holes.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
/// Ranges of one file that are told one by one.
const RANGES_MAX: usize = 1000;

/// A folder on the way down; `None` once it could not be made: nothing in it can be restored.
struct Level {
    folder: Option<TargetFolder>,
    path_length: usize,
    /// Unfinished files that are kept although unfinished files are to go.
    keeps: bool,
}

/// A file that is being written.
struct OpenFile {
    entry: TreeEntry,
    writer: FileWriter,
    /// Takes the digest of a file that is written from its first byte to its last.
    digest: Option<blake3::Hasher>,
    written: u64,
    missing: Vec<Range<u64>>,
    missing_more: bool,
    why: Option<String>,
}

/// The writing side.
pub(super) struct Writing {
    root: TargetFolder,
    levels: Vec<Level>,
    path: Vec<u8>,
    file: Option<OpenFile>,
    observer: Arc<dyn Observer>,
    /// What is done so far.
    pub report: RestoreReport,
    /// Why the restore cannot go on.
    pub fatal: Option<OpsError>,
}

impl Writing {
    /// Begins in a target.
    pub fn new(root: TargetFolder, observer: Arc<dyn Observer>) -> Self {
        let top = Level { folder: Some(root.clone()), path_length: 0, keeps: false };
        Self {
            root,
            levels: vec![top],
            path: Vec::new(),
            file: None,
            observer,
            report: RestoreReport::default(),
            fatal: None,
        }
    }

    /// Takes one step; breaks when the restore cannot go on.
    pub fn take(&mut self, delivered: Delivered<Step>) -> ControlFlow<()> {
        if self.observer.interrupted() {
            self.fatal = Some(RepoError::Interrupted.into());
        }
        if self.fatal.is_some() {
            return ControlFlow::Break(());
        }
        match delivered.tag {
            Step::Enter(entry) => self.enter(&entry),
            Step::Leave { entry, tidy } => self.leave(entry.as_deref(), tidy),
            Step::Other(entry) => self.other(&entry),
            Step::Link(entry, first) => self.link(&entry, &first),
            Step::File(start) => self.begin(*start),
            Step::Piece { offset, length } => {
                self.piece(offset, length, delivered.piece, delivered.at_hand.as_ref());
            }
            Step::Hole { offset, length } => self.hole(offset, length),
            Step::End { same_bytes, broken } => self.end(same_bytes, broken),
            Step::Remove(name) => self.remove(&name),
            Step::Unreadable(error) => self.missing(explain(&error)),
        }
        if self.fatal.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn folder(&self) -> Option<&TargetFolder> {
        self.levels.last().and_then(|level| level.folder.as_ref())
    }

    /// Sets the path to an entry of the innermost folder.
    fn at(&mut self, name: &[u8]) {
        self.path.truncate(self.levels.last().map_or(0, |level| level.path_length));
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    fn missing(&mut self, what: String) {
        self.report.problem(RestoreProblem::new(&self.path, Severity::Missing, what));
    }

    /// Notes what a local file said: for this entry alone, unless nothing else can succeed either.
    fn failed(&mut self, error: LocalError) {
        if is_fatal(&error) {
            self.fatal = Some(error.into());
        } else {
            self.missing(explain(&error));
        }
    }

    /// Notes what of the metadata could not be set.
    fn finished(&mut self, result: Result<Vec<LocalError>, LocalError>) -> bool {
        match result {
            Ok(problems) => {
                for problem in problems {
                    let what = match problem {
                        LocalError::NotRestored { what, .. } => format!("{what} could not be restored"),
                        other => explain(&other),
                    };
                    self.report.problem(RestoreProblem::new(&self.path, Severity::Metadata, what));
                }
                true
            }
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }

    fn enter(&mut self, entry: &TreeEntry) {
        self.at(&entry.name);
        let folder = match self.folder().map(|parent| parent.enter(&entry.name)) {
            Some(Ok(folder)) => Some(folder),
            Some(Err(error)) => {
                self.failed(error);
                None
            }
            None => None,
        };
        self.levels.push(Level { folder, path_length: self.path.len(), keeps: false });
    }

    fn leave(&mut self, entry: Option<&TreeEntry>, tidy: bool) {
        let Some(level) = self.levels.pop() else { return };
        self.path.truncate(level.path_length);
        let Some(folder) = level.folder else { return };
        if tidy && !level.keeps {
            self.tidy(&folder);
        }
        if let Some(entry) = entry
            && self.finished(folder.finish(&metadata_of(entry)))
        {
            self.report.directories += 1;
        }
    }

    /// Removes what restores of files that are not in the snapshot left unfinished.
    fn tidy(&mut self, folder: &TargetFolder) {
        for name in folder.names().unwrap_or_default() {
            if name.starts_with(TEMPORARY_PREFIX.as_bytes())
                && name != RESTORE_MARKER.as_bytes()
                && let Err(error) = folder.remove(&name)
            {
                self.failed(error);
            }
        }
    }

    fn other(&mut self, entry: &TreeEntry) {
        self.at(&entry.name);
        let Some(made) = self.folder().map(|folder| folder.create_special(&entry.name, &metadata_of(entry)))
        else {
            return;
        };
        if self.finished(made) && entry.kind != EntryKind::Socket {
            self.report.others += 1;
        }
    }

    fn link(&mut self, entry: &TreeEntry, first: &[u8]) {
        self.at(&entry.name);
        let Some(folder) = self.folder() else { return };
        let mut names: Vec<&[u8]> = first.split(|byte| *byte == b'/').collect();
        let Some(first_name) = names.pop() else { return };
        let parent = names.into_iter().try_fold(self.root.clone(), |parent, name| parent.look_into(name));
        let linked = match parent {
            Some(parent) => folder.link(&entry.name, &parent, first_name),
            None => {
                let what = format!("the file that it is another name of, {}, is missing", printable(first));
                return self.missing(what);
            }
        };
        match linked {
            Ok(()) => self.report.links += 1,
            Err(error) => self.failed(error),
        }
    }

    fn begin(&mut self, start: FileStart) {
        self.at(&start.entry.name);
        self.observer.item(&printable(&self.path));
        self.file = None;
        let length = start.entry.content.as_ref().map_or(0, |content| content.length);
        let Some(made) =
            self.folder().map(|folder| folder.create_file(&start.entry.name, length, start.has_holes))
        else {
            return;
        };
        let writer = match made {
            Ok(writer) => writer,
            Err(error) => return self.failed(error),
        };
        if start.standing.is_some_and(|compared| compared != writer.identity()) {
            // What was compared with the snapshot is not what would be completed.
            return self.missing("it was replaced by another file while it was being restored".to_owned());
        }
        self.file = Some(OpenFile {
            digest: start.standing.is_none().then(blake3::Hasher::new),
            entry: start.entry,
            writer,
            written: 0,
            missing: Vec::new(),
            missing_more: false,
            why: None,
        });
    }

    fn piece(
        &mut self,
        offset: u64,
        length: u32,
        piece: Result<Piece, RepoError>,
        standing: Option<&AtHand>,
    ) {
        self.observer.advance(Phase::Restore, u64::from(length), u64::from(length));
        let Some(file) = &mut self.file else { return };
        match piece {
            Ok(piece) => {
                if let Some(digest) = &mut file.digest {
                    digest.update(piece.bytes());
                }
                file.written += u64::from(length);
                let standing = standing.map_or(&[][..], |standing| &standing.bytes);
                let mut parts = differing(offset, standing, piece.bytes());
                if let Err(error) = parts.try_for_each(|(at, part)| file.writer.write_at(at, part)) {
                    self.file = None;
                    self.failed(error);
                }
            }
            Err(error) if matches!(error.class(), ErrorClass::Forbidden | ErrorClass::Interrupted) => {
                self.fatal = Some(error.into());
            }
            Err(error) => file.lacks(offset..offset.saturating_add(u64::from(length)), &error),
        }
    }

    fn hole(&mut self, offset: u64, length: u64) {
        let Some(file) = &mut self.file else { return };
        if let Some(digest) = &mut file.digest {
            let mut left = length;
            while left > 0 {
                let piece = left.min(ZEROS.len() as u64);
                digest.update(ZEROS.get(..piece as usize).unwrap_or_default());
                left -= piece;
            }
        }
        if file.writer.existing_length() > offset
            && let Err(error) = file.writer.hole(offset, length)
        {
            self.file = None;
            self.failed(error);
        }
    }

    fn end(&mut self, same_bytes: u64, broken: Option<(u64, RepoError)>) {
        let Some(mut file) = self.file.take() else { return };
        let length = file.entry.content.as_ref().map_or(0, |content| content.length);
        if let Some((from, error)) = broken {
            file.lacks(from..length, &error);
        }
        self.report.written_bytes += file.written;
        self.report.same_bytes += same_bytes;
        if !file.missing.is_empty() {
            return self.incomplete(file);
        }
        let name = printable(&self.path);
        let genuine = match (&file.digest, &file.entry.content) {
            (Some(digest), Some(content)) => check_digest(&name, content, digest),
            _ => Ok(()),
        };
        if let Err(error) = genuine {
            file.why = Some(explain(&error));
            return self.incomplete(file);
        }
        let untouched = !file.writer.was_written();
        if self.finished(file.writer.finish(&metadata_of(&file.entry))) {
            self.report.files += 1;
            self.report.bytes += length;
            self.report.unchanged_files += u64::from(untouched);
        }
    }

    /// Leaves a file that could not be restored wholly under its unfinished name.
    fn incomplete(&mut self, file: OpenFile) {
        let mut what = file.why.unwrap_or_else(|| "parts of it cannot be read".to_owned());
        if file.missing_more {
            what.push_str(" (and more ranges)");
        }
        let mut problem = RestoreProblem::new(&self.path, Severity::Missing, what);
        problem.missing = file.missing;
        match file.writer.keep() {
            Ok(path) => problem.kept_as = Some(path),
            Err(error) => return self.failed(error),
        }
        if let Some(level) = self.levels.last_mut() {
            level.keeps = true;
        }
        self.report.problem(problem);
    }

    fn remove(&mut self, name: &[u8]) {
        self.at(name);
        match self.folder().map(|folder| folder.remove(name)) {
            Some(Ok(())) => self.report.removed += 1,
            Some(Err(error)) => self.failed(error),
            None => {}
        }
    }

    /// Makes everything durable.
    pub fn sync(&self) -> Result<(), LocalError> {
        self.root.sync()
    }
}

impl OpenFile {
    fn lacks(&mut self, range: Range<u64>, error: &RepoError) {
        self.why.get_or_insert_with(|| explain(error));
        self.digest = None;
        let room = self.missing.len() < RANGES_MAX;
        match self.missing.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if room => self.missing.push(range),
            _ => self.missing_more = true,
        }
    }
}

/// Cuts a piece into blocks, lying where they lie in the file, and returns the runs of those that are not as they
/// stand there; all of it where something of another length stands there, or nothing.
fn differing<'a>(offset: u64, standing: &'a [u8], piece: &'a [u8]) -> impl Iterator<Item = (u64, &'a [u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if standing.len() != piece.len() {
            let whole = piece.get(at..).filter(|rest| !rest.is_empty())?;
            at = piece.len();
            return Some((offset, whole));
        }
        let block_end = |at: usize| {
            let over = offset.wrapping_add(at as u64) % BLOCK_BYTES;
            piece.len().min(at.saturating_add((BLOCK_BYTES - over) as usize))
        };
        let differs = |at: usize| piece.get(at..block_end(at)) != standing.get(at..block_end(at));
        while at < piece.len() && !differs(at) {
            at = block_end(at);
        }
        let start = at;
        while at < piece.len() && differs(at) {
            at = block_end(at);
        }
        let run = piece.get(start..at).filter(|run| !run.is_empty())?;
        Some((offset.saturating_add(start as u64), run))
    })
}

/// Says whether nothing else can be restored either.
fn is_fatal(error: &LocalError) -> bool {
    const FATAL: [Errno; 6] =
        [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::MFILE, Errno::NFILE];
    match error {
        LocalError::System { source, .. } => {
            source.raw_os_error().is_some_and(|code| FATAL.contains(&Errno::from_raw_os_error(code)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_whole_blocks_and_all_of_them() {
        let runs = |offset: u64, standing: &[u8], piece: &[u8]| -> Vec<(u64, usize)> {
            differing(offset, standing, piece).map(|(at, run)| (at, run.len())).collect()
        };
        let standing = vec![7; 5 * 4096 + 100];
        for offset in [0, 4096, 1, 4095, 8292] {
            assert_eq!(runs(offset, &standing, &standing), []);
            for changed in [0, 4095, 4096, 9000, 5 * 4096, 5 * 4096 + 99] {
                let mut piece = standing.clone();
                piece[changed] = 8;
                let found = runs(offset, &standing, &piece);
                let [(at, length)] = found[..] else { panic!("{found:?}") };
                let place = offset + changed as u64;
                assert!((at..at + length as u64).contains(&place), "{offset} {changed}");
                assert!(length <= 4096 && (at == offset || at % 4096 == 0), "{offset} {changed}");
            }
        }
        let mut piece = standing.clone();
        for changed in [5000, 8192, 20479] {
            piece[changed] = 8;
        }
        assert_eq!(runs(0, &standing, &piece), [(4096, 8192), (16384, 4096)]);
        // Of another length, or nothing at all.
        assert_eq!(runs(3, &standing[1..], &piece), [(3, piece.len())]);
        assert_eq!(runs(3, &[], &piece), [(3, piece.len())]);
        assert_eq!(runs(3, &[], &[]), []);
    }
}
