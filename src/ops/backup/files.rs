//! Files and folders as a source.

use super::super::error::OpsError;
use super::engine::PageInspector;
use super::parent::{Cursor, Parent};
use super::plan::{Place, Plan, Source};
use super::{BackupOptions, Problem, Progress};
use crate::base::{Phase, Timestamp, explain};
use crate::chunker::{RECOGNISE_BYTES, recognise};
use crate::format::pack::BlobClass;
use crate::format::recipe::RecipeEntry;
use crate::format::snapshot::SnapshotSummary;
use crate::format::tree::{Content, CutKind, Device, EntryKind, ExtendedAttribute, TreeEntry};
use crate::ingest::{Event, FeedError, Feeder, FileEnd};
use crate::localfs::{
    Entry, Excludes, FileKind, LocalError, Metadata, Owners, Scan, ScanEvent, ScanOptions, SourceFile,
    printable,
};
use crate::repo::{Pieces, RepoError, Repository, WriteSession};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Both times of a file must be older than this before its parent's read for it to count as
/// unchanged: a later change could otherwise hide within the same tick of the file system's clock.
const SETTLED_NANOSECONDS: i64 = 2_000_000_000;
/// Holes shorter than this are read as the zeros they are.
const HOLE_BYTES_MIN: u64 = 64 << 10;

/// Most bytes of a file that says it is empty: some file systems do not tell lengths (`/proc`, some of FUSE), and some
/// of their files never end.
const UNTOLD_BYTES_MAX: u64 = 64 << 20;

/// What to take and how to cut it.
pub(super) struct FileOptions {
    pub scan: ScanOptions,
    pub owners: Owners,
    pages: Option<(Excludes, u32)>,
}

/// Feeds files, in step with the parent's tree.
pub(super) struct FileFeeder<'a> {
    pub session: &'a WriteSession,
    pub options: &'a FileOptions,
    same_host: bool,
    pub cursor: Option<Cursor>,
}

/// Takes what the file system says of an entry into the tree's words.
pub(super) fn tree_entry(name: &[u8], found: &Metadata) -> TreeEntry {
    let kind = match found.kind {
        FileKind::File => EntryKind::File,
        FileKind::Directory => EntryKind::Directory,
        FileKind::Symlink => EntryKind::Symlink,
        FileKind::Fifo => EntryKind::Fifo,
        FileKind::Socket => EntryKind::Socket,
        FileKind::CharacterDevice => EntryKind::CharacterDevice,
        FileKind::BlockDevice => EntryKind::BlockDevice,
    };
    let name_of = |owner: &Option<Arc<str>>| owner.as_ref().map(|name| name.as_bytes().to_vec());
    TreeEntry {
        user_id: Some(found.uid),
        group_id: Some(found.gid),
        user_name: name_of(&found.user),
        group_name: name_of(&found.group),
        changed: Some(found.changed),
        device: Some(found.device),
        inode: Some(found.inode),
        links: (found.kind == FileKind::File).then_some(found.links),
        size: (found.kind == FileKind::File).then_some(found.size),
        target: found.target.clone(),
        device_numbers: found.device_number.map(|(major, minor)| Device { major, minor }),
        attributes: found
            .attributes
            .iter()
            .map(|(name, value)| ExtendedAttribute { name: name.clone(), value: value.clone() })
            .collect(),
        ..TreeEntry::new(name.to_owned(), kind, found.mode, found.modified)
    }
}

/// A file read at offsets, as a stream over one range of it.
struct RangeReader<'a, 'b> {
    file: &'a SourceFile,
    offset: u64,
    left: u64,
    inspector: Option<&'a mut (dyn PageInspector + 'b)>,
}

impl RangeReader<'_, '_> {
    /// Takes as much as fits; whole pages where somebody looks at them.
    fn length(&self, room: usize) -> usize {
        let length = room.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match &self.inspector {
            Some(inspector) if length > inspector.page_bytes() => {
                length - length % inspector.page_bytes().max(1)
            }
            _ => length,
        }
    }
}

impl Read for RangeReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.length(buffer.len());
        let Some(space) = buffer.get_mut(..length) else { return Ok(0) };
        let count =
            self.file.read_at(self.offset, space).map_err(|error| io::Error::other(explain(&error)))?;
        if let (Some(inspector), Some(new)) = (&mut self.inspector, space.get_mut(..count)) {
            inspector.inspect(self.offset, new, &mut |offset, page| self.file.read_at(offset, page));
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// What became of reading one file.
pub(super) enum Read1 {
    Whole,
    Changed(LocalError),
}

/// How one file is read.
pub(super) struct Reading<'a, 'b> {
    pub cut: CutKind,
    /// Holes are looked for, and not read.
    pub holes: bool,
    /// Looks at the pages of the file as they pass.
    pub inspector: Option<&'a mut (dyn PageInspector + 'b)>,
}

impl<'a> FileFeeder<'a> {
    /// Prepares what does not change from file to file.
    pub fn options(options: &BackupOptions) -> Result<FileOptions, OpsError> {
        let pages = match &options.pages {
            Some((patterns, page)) => Some((super::excludes(patterns)?, *page)),
            None => None,
        };
        Ok(FileOptions {
            scan: ScanOptions {
                excludes: super::excludes(&options.excludes)?,
                one_file_system: options.one_file_system,
                skipped: options.skipped.clone(),
            },
            owners: Owners::load(),
            pages,
        })
    }

    pub fn new(
        session: &'a WriteSession,
        options: &'a FileOptions,
        same_host: bool,
        cursor: Option<Cursor>,
    ) -> Self {
        Self { session, options, same_host, cursor }
    }

    /// Goes into a folder of the plan.
    pub fn enter(&mut self, name: &[u8]) -> Result<(), RepoError> {
        if let Some(cursor) = &mut self.cursor {
            cursor.enter(name);
        }
        Ok(())
    }

    /// Leaves a folder of the plan.
    pub fn leave(&mut self) {
        if let Some(cursor) = &mut self.cursor {
            cursor.leave();
        }
    }

    /// Returns what the parent's stream of a name held.
    pub fn before(&mut self, name: &[u8]) -> Option<Content> {
        self.cursor.as_mut()?.find(name)?.content
    }

    /// The walk over one source, or over one entry of the root folder where that is the source.
    fn scan(&self, path: &Path, of_root: bool) -> Scan<'a> {
        let (options, bytes) = (self.options, path.as_os_str().as_bytes());
        match path.file_name() {
            Some(name) if of_root => Scan::of_entry(b"/", name.as_bytes(), &options.scan, &options.owners),
            _ => Scan::new(bytes, &options.scan, &options.owners),
        }
    }

    /// Feeds one source with everything below it.
    ///
    /// # Errors
    ///
    /// When the source itself cannot be read; what lies below it is only noted.
    pub fn source(
        &mut self,
        path: &Path,
        of_root: bool,
        feeder: &mut Feeder,
        progress: &mut Progress,
    ) -> Result<(), OpsError> {
        let observer = self.session.repository().environment().observer.clone();
        let scan = self.scan(path, of_root);
        let whole = (!of_root).then(|| scan.source().to_vec());
        for event in scan {
            if observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            match event {
                ScanEvent::Enter(entry) => {
                    observer.item(&printable(entry.path()));
                    let folder = tree_entry(entry.name(), entry.metadata());
                    self.enter(entry.name())?;
                    feeder.event(Event::Folder(Box::new(folder)))?;
                }
                ScanEvent::Leave => {
                    self.leave();
                    feeder.event(Event::Close)?;
                }
                ScanEvent::Leaf(entry) => {
                    let alone = whole.as_deref() == Some(entry.path());
                    self.leaf(&entry, alone, feeder, progress)?;
                }
                ScanEvent::Problem(error) if whole.is_some() && error.path() == whole.as_deref() => {
                    return Err(error.into());
                }
                ScanEvent::Problem(error) => note(progress, &error),
            }
        }
        Ok(())
    }

    /// Feeds what is no folder. One that is a source `alone` has to be readable.
    fn leaf(
        &mut self,
        entry: &Entry,
        alone: bool,
        feeder: &mut Feeder,
        progress: &mut Progress,
    ) -> Result<(), OpsError> {
        let found = entry.metadata();
        self.session.repository().environment().observer.item(&printable(entry.path()));
        let mut node = tree_entry(entry.name(), found);
        let before = self.cursor.as_mut().and_then(|cursor| cursor.find(entry.name()));
        if found.kind != FileKind::File {
            feeder.event(Event::Node(Box::new(node)))?;
            return Ok(());
        }
        if let Some(content) = before.as_ref().and_then(|before| self.unchanged(&node, before)) {
            progress.unchanged_files += 1;
            self.session.repository().environment().observer.advance(Phase::Backup, content.length, 0);
            node.content = Some(content);
            feeder.event(Event::Node(Box::new(node)))?;
            return Ok(());
        }
        let file = match entry.open() {
            Ok(file) => file,
            Err(error) if alone => return Err(error.into()),
            Err(error) => {
                note(progress, &error);
                return Ok(());
            }
        };
        feeder.file(Box::new(node), before.as_ref().and_then(|before| before.content.as_ref()))?;
        let holes = entry.metadata().may_have_holes();
        let reading = Reading { cut: self.cut(entry, &file), holes, inspector: None };
        match self.read(entry, &file, reading, feeder) {
            Ok(Read1::Whole) => Ok(()),
            Ok(Read1::Changed(error)) => {
                note(progress, &error);
                Ok(())
            }
            Err(FeedError::Pipeline(error)) => Err(error.into()),
            Err(FeedError::Source(source)) if alone => {
                Err(OpsError::Read { name: printable(entry.path()), source })
            }
            Err(FeedError::Source(source)) => {
                feeder.event(Event::Drop)?;
                let path = printable(entry.path());
                progress.problems.push(Problem { path, what: source.to_string() });
                Ok(())
            }
        }
    }

    /// Returns the parent's content if the file is certainly the same and all of it is still stored.
    pub fn unchanged(&mut self, now: &TreeEntry, before: &TreeEntry) -> Option<Content> {
        let content = before.content.as_ref()?;
        let started = if self.same_host { content.read? } else { return None };
        let same = before.kind == EntryKind::File
            && (before.device, before.inode, before.size) == (now.device, now.inode, now.size)
            && (before.modified, before.changed) == (now.modified, now.changed)
            && now.changed.is_some();
        let settled = |time: Timestamp| {
            time.nanoseconds().checked_add(SETTLED_NANOSECONDS).is_some_and(|t| t <= started.nanoseconds())
        };
        if !same || !settled(now.modified) || !settled(now.changed?) {
            return None;
        }
        let cursor = self.cursor.as_mut()?;
        let mut pieces = Pieces::open(&mut cursor.reader, content).ok()?;
        while let Some(piece) = pieces.next(&mut cursor.reader).ok()? {
            if let RecipeEntry::Chunk { id, .. } = piece
                && !self.session.knows(BlobClass::Content, &id)
            {
                return None;
            }
        }
        Some(content.clone())
    }

    pub fn cut(&self, entry: &Entry, file: &SourceFile) -> CutKind {
        if let Some((patterns, page_bytes)) = &self.options.pages {
            let path = entry.path();
            let below = path.strip_prefix(b"/").unwrap_or(path);
            if patterns.matches(path, below, entry.name(), false) {
                return CutKind::Pages { page_bytes: *page_bytes };
            }
        }
        let mut head = vec![0; RECOGNISE_BYTES.min(usize::try_from(file.size()).unwrap_or(usize::MAX))];
        let length = file.read_at(0, &mut head).unwrap_or(0);
        match recognise(head.get(..length).unwrap_or_default(), file.size()) {
            Some(database) => CutKind::Pages { page_bytes: database.page_bytes },
            None => CutKind::Stream,
        }
    }

    /// Reads a file that was opened in the feeder, and feeds it with its end.
    pub fn read(
        &self,
        entry: &Entry,
        file: &SourceFile,
        mut reading: Reading<'_, '_>,
        feeder: &mut Feeder,
    ) -> Result<Read1, FeedError> {
        let read = self.session.repository().environment().clock.now();
        let cut = reading.cut;
        let mut digest = blake3::Hasher::new();
        let mut offset = 0;
        let source = |error: LocalError| FeedError::Source(io::Error::other(error.to_string()));
        if file.size() == 0 {
            let mut reader = RangeReader { file, offset, left: UNTOLD_BYTES_MAX, inspector: None };
            offset = feeder.data(&mut reader, cut, UNTOLD_BYTES_MAX, &mut digest)?;
            if offset == UNTOLD_BYTES_MAX {
                return Err(FeedError::Source(io::Error::other(format!(
                    "it says that it is empty, and holds more than {UNTOLD_BYTES_MAX} bytes"
                ))));
            }
        }
        while offset < file.size() {
            let data =
                if reading.holes { next_stretch(file, offset).map_err(source)? } else { offset..file.size() };
            if data.start > offset {
                hash_zeros(&mut digest, data.start - offset);
                feeder.event(Event::Hole(data.start - offset))?;
                offset = data.start;
            }
            let wanted = data.end - data.start;
            let inspector = reading.inspector.as_deref_mut();
            let mut reader = RangeReader { file, offset, left: wanted, inspector };
            let got = feeder.data(&mut reader, cut, wanted, &mut digest)?;
            offset += got;
            if got < wanted {
                break;
            }
        }
        feeder.event(Event::End(FileEnd {
            length: offset,
            digest: Some(*digest.finalize().as_bytes()),
            cut,
            read: Some(read),
        }))?;
        Ok(match file.check_unchanged() {
            Ok(()) if offset == file.size() || file.size() == 0 => Read1::Whole,
            Ok(()) => Read1::Changed(LocalError::Changed { path: entry.path().to_vec(), what: "its length" }),
            Err(error) => Read1::Changed(error),
        })
    }
}

/// Returns the next range of data worth a hole before it; an empty range at the end of the file
/// when only a hole is left.
fn next_stretch(file: &SourceFile, offset: u64) -> Result<std::ops::Range<u64>, LocalError> {
    let Some(mut data) = file.next_data(offset)? else { return Ok(file.size()..file.size()) };
    if data.start - offset < HOLE_BYTES_MIN {
        data.start = offset;
    }
    // Data that is parted by short holes is read as one.
    while data.end < file.size() {
        match file.next_data(data.end)? {
            Some(next) if next.start - data.end < HOLE_BYTES_MIN => data.end = next.end,
            _ => break,
        }
    }
    Ok(data)
}

pub(in crate::ops) fn hash_zeros(digest: &mut blake3::Hasher, mut length: u64) {
    let zeros = [0; 64 << 10];
    while length > 0 {
        let part = usize::try_from(length).unwrap_or(usize::MAX).min(zeros.len());
        digest.update(zeros.get(..part).unwrap_or_default());
        length -= part as u64;
    }
}

fn note(progress: &mut Progress, error: &LocalError) {
    progress
        .problems
        .push(Problem { path: error.path().map(printable).unwrap_or_default(), what: explain(error) });
}

/// Walks the sources and compares them with the parent, without reading any content.
pub(super) fn dry_run(
    repository: &Arc<Repository>,
    plan: &Plan,
    options: &FileOptions,
    parent: Option<&Parent>,
    host: &str,
    progress: &mut Progress,
) -> Result<SnapshotSummary, OpsError> {
    let session = WriteSession::begin(repository)?;
    let cursor = match parent {
        Some(parent) => Some(parent.cursor(repository)?),
        None => None,
    };
    let mut feeder =
        FileFeeder::new(&session, options, parent.is_some_and(|parent| parent.host == host), cursor);
    let mut summary = SnapshotSummary::default();
    feeder.look(&plan.root, &mut summary, progress)?;
    summary.unchanged_files = progress.unchanged_files;
    summary.unreadable = progress.problems.len() as u64;
    Ok(summary)
}

impl FileFeeder<'_> {
    fn look(
        &mut self,
        place: &Place,
        summary: &mut SnapshotSummary,
        progress: &mut Progress,
    ) -> Result<(), OpsError> {
        for (name, place) in &place.children {
            match &place.source {
                Some(Source::Path(path)) => self.look_at(path, place.of_root, summary, progress)?,
                Some(_) => {}
                None => {
                    summary.directories += 1;
                    self.enter(name)?;
                    self.look(place, summary, progress)?;
                    self.leave();
                }
            }
        }
        Ok(())
    }

    fn look_at(
        &mut self,
        path: &Path,
        of_root: bool,
        summary: &mut SnapshotSummary,
        progress: &mut Progress,
    ) -> Result<(), OpsError> {
        let observer = self.session.repository().environment().observer.clone();
        for event in self.scan(path, of_root) {
            match event {
                ScanEvent::Enter(entry) => {
                    observer.item(&printable(entry.path()));
                    summary.directories += 1;
                    self.enter(entry.name())?;
                }
                ScanEvent::Leave => self.leave(),
                ScanEvent::Leaf(entry) if entry.metadata().kind == FileKind::File => {
                    observer.item(&printable(entry.path()));
                    summary.files += 1;
                    summary.bytes += entry.metadata().size;
                    let node = tree_entry(entry.name(), entry.metadata());
                    let before = self.cursor.as_mut().and_then(|cursor| cursor.find(entry.name()));
                    match before.as_ref().and_then(|before| self.unchanged(&node, before)) {
                        Some(_) => progress.unchanged_files += 1,
                        // An upper bound: deduplication is known only once the content is read.
                        None => match entry.open() {
                            Ok(_) => summary.new_bytes += entry.metadata().size,
                            Err(error) => note(progress, &error),
                        },
                    }
                }
                ScanEvent::Leaf(entry) => {
                    observer.item(&printable(entry.path()));
                    summary.others += 1;
                }
                ScanEvent::Problem(error) => note(progress, &error),
            }
        }
        Ok(())
    }
}
