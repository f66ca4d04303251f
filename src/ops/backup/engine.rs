//! Backups that an engine feeds: it knows what its files are and in which order they must be read, and
//! says at the end what a restore will have to know.

use super::super::error::OpsError;
use super::commit::{Job, permit};
use super::files::{FileFeeder, Read1, Reading, tree_entry};
use super::parent::Parent;
use super::{BackupOptions, BackupReport, Progress, stream_entry};
use crate::base::{Phase, Timestamp};
use crate::codec::FRAME_BYTES;
use crate::format::tree::{CutKind, EntryKind, TreeEntry};
use crate::ingest::{Event, FeedError, Feeder, IngestOptions};
use crate::localfs::{
    Entry, Excludes, FileKind, LocalError, Metadata, Scan, ScanEvent, ScanOptions, printable,
};
use crate::repo::{RepoError, Repository};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Reads a page at an offset once more; returns how much of it there was.
pub type ReadAgain<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<usize, LocalError>;

/// Looks at the pages of a file as they pass, and may replace one that was read while it was written.
pub trait PageInspector {
    /// Length of a page.
    fn page_bytes(&self) -> usize;
    /// Looks at bytes of the file that begin at a page; `again` reads a page once more.
    fn inspect(&mut self, offset: u64, bytes: &mut [u8], again: ReadAgain<'_>);
}

/// How often a file is looked at again that another one replaces again and again.
const REPLACED_TRIES: u32 = 8;

/// What becomes of something that is no folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It is taken as it is.
    Take,
    /// It is left out.
    LeaveOut,
    /// An empty folder stands for it.
    EmptyFolder,
}

/// What an engine knows of files that the file system does not say. Paths are those below the folder
/// that is scanned.
pub trait FileRules {
    /// Says what becomes of something that is no folder.
    fn treat(&mut self, below: &[u8], found: &Metadata) -> Treatment;
    /// Returns the page by which the file is cut; `None` lets its content decide.
    fn page_bytes(&mut self, below: &[u8]) -> Option<u32>;
    /// Returns who looks at the pages of a file that is about to be read.
    fn inspector(&mut self, below: &[u8]) -> Option<&mut dyn PageInspector>;
    /// Hears that a file was taken over from the parent without reading.
    fn unchanged(&mut self, below: &[u8]);
    /// Says whether such trouble is to be expected of files in use; any other ends the backup.
    fn excuses(&self, error: &LocalError) -> bool;
}

/// What is the same for all that an engine's backup takes.
#[derive(Debug, Clone)]
pub struct EngineJob {
    /// The engine, which becomes the snapshot's kind.
    pub kind: String,
    /// What is backed up, for people.
    pub sources: Vec<String>,
    /// The label.
    pub label: String,
}

/// Where an engine puts what it takes: folders and files in the order of their names.
pub struct Taking<'a> {
    pub(super) feeder: &'a mut Feeder,
    pub(super) files: FileFeeder<'a>,
    progress: &'a mut Progress,
    pub(super) started: Timestamp,
    /// How streams are taken that are taken beside each other.
    pub(super) ingest: IngestOptions,
}

/// Makes a snapshot of what `feed` feeds; it returns the facts that the snapshot remembers.
///
/// # Errors
///
/// What `feed` says, or what stopped the backup otherwise: then nothing is committed.
pub fn backup_engine<E: From<OpsError> + From<RepoError>>(
    repository: &Arc<Repository>,
    job: EngineJob,
    options: &BackupOptions,
    feed: impl FnOnce(&mut Taking<'_>) -> Result<BTreeMap<String, String>, E>,
) -> Result<BackupReport, E> {
    let started = repository.environment().clock.now();
    permit(repository, options, &job.label)?;
    repository.load_index()?;
    let EngineJob { kind, sources, label } = job;
    let parent = match options.parent {
        Some(_) => Parent::find(repository, &options.host, &label, options.mode, options.parent)?,
        // Which snapshot can be a parent is the engine's to know.
        None => None,
    };
    let files = FileFeeder::options(options)?;
    let progress = Progress::default();
    let job = Job { kind, sources, label, started, parent, progress, original: None };
    job.run(repository, options, |feeder, session, parent, progress| {
        let cursor = match parent {
            Some(parent) => Some(parent.cursor(repository)?),
            None => None,
        };
        let believed = !options.read_everything && parent.is_some_and(|p| p.host == options.host);
        let files = FileFeeder::new(session, &files, believed, cursor);
        let ingest = IngestOptions {
            effort: options.effort,
            frame_bytes: FRAME_BYTES,
            differences: feeder.differences(),
            workers: options.workers,
        };
        feed(&mut Taking { feeder, files, progress, started, ingest })
    })
}

impl Taking<'_> {
    /// Opens a folder that exists in the snapshot only.
    ///
    /// # Errors
    ///
    /// When the pipeline has stopped.
    pub fn open_folder(&mut self, name: &[u8]) -> Result<(), OpsError> {
        let entry = TreeEntry::new(name.to_owned(), EntryKind::Directory, 0o700, self.started);
        self.files.enter(name)?;
        Ok(self.feeder.event(Event::Folder(Box::new(entry)))?)
    }

    /// Opens a folder of which more is known than its name.
    ///
    /// # Errors
    ///
    /// When the pipeline has stopped.
    pub fn open_entry(&mut self, entry: TreeEntry) -> Result<(), OpsError> {
        self.files.enter(&entry.name)?;
        Ok(self.feeder.event(Event::Folder(Box::new(entry)))?)
    }

    /// Lets what is in the innermost folder come in any order of names; of the whole snapshot before any is
    /// opened. What is known of its entries is kept in memory until it closes.
    ///
    /// # Errors
    ///
    /// When the pipeline has stopped.
    pub fn any_order(&mut self) -> Result<(), OpsError> {
        if let Some(cursor) = &mut self.files.cursor {
            cursor.any_order();
        }
        Ok(self.feeder.event(Event::AnyOrder)?)
    }

    /// Closes the innermost folder.
    ///
    /// # Errors
    ///
    /// When the pipeline has stopped.
    pub fn close_folder(&mut self) -> Result<(), OpsError> {
        self.files.leave();
        Ok(self.feeder.event(Event::Close)?)
    }

    /// Takes bytes as a file.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or the pipeline has stopped.
    pub fn stream(&mut self, name: &[u8], mode: u32, reader: &mut dyn Read) -> Result<u64, OpsError> {
        let entry = TreeEntry { mode, ..stream_entry(name, self.started) };
        self.stream_entry(entry, CutKind::Stream, reader)
    }

    /// Takes bytes as a file of which more is known than its name, cut as it is told.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or the pipeline has stopped.
    pub fn stream_entry(
        &mut self,
        entry: TreeEntry,
        cut: CutKind,
        reader: &mut dyn Read,
    ) -> Result<u64, OpsError> {
        let name = entry.name.clone();
        let before = self.files.before(&name);
        self.feeder.file(Box::new(entry), before.as_ref())?;
        let end = self.feeder.stream(reader, cut).map_err(|error| match error {
            FeedError::Source(source) => OpsError::Read { name: printable(&name), source },
            FeedError::Pipeline(error) => error.into(),
        })?;
        Ok(end.length)
    }

    /// Adds a line of advice to the report.
    pub fn advise(&mut self, line: String) {
        self.progress.advice.push(line);
    }

    /// Takes a folder with all that lies in it, under another name.
    ///
    /// # Errors
    ///
    /// When something cannot be read for a reason that the rules do not excuse, or the pipeline has
    /// stopped.
    pub fn scan(
        &mut self,
        path: &Path,
        name: &[u8],
        excludes: Excludes,
        rules: &mut dyn FileRules,
    ) -> Result<(), OpsError> {
        let options = self.files.options;
        let scan = ScanOptions { excludes, skipped: options.scan.skipped.clone(), one_file_system: false };
        let observer = self.files.session.repository().environment().observer.clone();
        let source = path.as_os_str().as_bytes();
        let mut top = true;
        for event in Scan::new(source, &scan, &options.owners) {
            if observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            match event {
                ScanEvent::Enter(entry) => {
                    observer.item(&printable(entry.path()));
                    let name = if std::mem::take(&mut top) { name } else { entry.name() };
                    let folder = tree_entry(name, entry.metadata());
                    self.files.enter(name)?;
                    self.feeder.event(Event::Folder(Box::new(folder)))?;
                }
                ScanEvent::Leave => self.close_folder()?,
                ScanEvent::Leaf(entry) => {
                    let below = entry.path().get(source.len()..).unwrap_or_default();
                    let below = below.strip_prefix(b"/").unwrap_or(below).to_vec();
                    self.leaf(&entry, &below, rules, REPLACED_TRIES)?;
                }
                ScanEvent::Problem(error) => excused(error, rules)?,
            }
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        entry: &Entry,
        below: &[u8],
        rules: &mut dyn FileRules,
        tries: u32,
    ) -> Result<(), OpsError> {
        let found = entry.metadata();
        let mut node = tree_entry(entry.name(), found);
        match rules.treat(below, found) {
            Treatment::LeaveOut => return Ok(()),
            Treatment::EmptyFolder => {
                let folder =
                    TreeEntry { kind: EntryKind::Directory, mode: 0o700, target: None, ..node.clone() };
                self.files.enter(entry.name())?;
                self.feeder.event(Event::Folder(Box::new(folder)))?;
                return self.close_folder();
            }
            Treatment::Take => {}
        }
        let before = self.files.cursor.as_mut().and_then(|cursor| cursor.find(entry.name()));
        if found.kind != FileKind::File {
            return Ok(self.feeder.event(Event::Node(Box::new(node)))?);
        }
        if let Some(content) = before.as_ref().and_then(|before| self.files.unchanged(&node, before)) {
            self.progress.unchanged_files += 1;
            let observer = &self.files.session.repository().environment().observer;
            observer.advance(Phase::Backup, content.length, 0);
            rules.unchanged(below);
            node.content = Some(content);
            return Ok(self.feeder.event(Event::Node(Box::new(node)))?);
        }
        let file = match entry.open() {
            Ok(file) => file,
            // Another file has got the name since: that one is to be taken, not none.
            Err(LocalError::Replaced { .. }) if tries > 0 => {
                return match entry.again(&self.files.options.owners) {
                    Ok(entry) => self.leaf(&entry, below, rules, tries - 1),
                    Err(error) => excused(error, rules),
                };
            }
            Err(error) => return excused(error, rules),
        };
        self.feeder.file(Box::new(node), before.as_ref().and_then(|before| before.content.as_ref()))?;
        let cut = match rules.page_bytes(below) {
            Some(page_bytes) => CutKind::Pages { page_bytes },
            None => self.files.cut(entry, &file),
        };
        let reading = Reading { cut, holes: false, inspector: rules.inspector(below) };
        match self.files.read(entry, &file, reading, self.feeder) {
            Ok(Read1::Whole) => Ok(()),
            Ok(Read1::Changed(error)) => excused(error, rules),
            Err(FeedError::Pipeline(error)) => Err(error.into()),
            Err(FeedError::Source(source)) => Err(OpsError::Read { name: printable(entry.path()), source }),
        }
    }
}

fn excused(error: LocalError, rules: &mut dyn FileRules) -> Result<(), OpsError> {
    if rules.excuses(&error) { Ok(()) } else { Err(error.into()) }
}
