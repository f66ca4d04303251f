//! Backup: any sources in, one atomic snapshot out.
//!
//! Write order, and what a crash after each step leaves:
//! 1. packs and index runs, as [`crate::repo::WriteSession`] writes them: nothing refers to them yet;
//! 2. every producer has ended and said that it was successful, or nothing more is written;
//! 3. what it rests on is looked at again, and copied where it is about to go;
//! 4. the snapshot: the backup is there, whole;
//! 5. the same look again, since a sweeper may have listed roots before step 4; then it is reported.
//!
//! - `plan`: sources in their places; `command`, `watch`: producers and streams; `files`: the file system
//! - `engine`, `parallel`: what a database engine feeds; several streams at a time
//! - `parent`: what it is compared with; `commit`: the steps above

mod command;
mod commit;
mod differences;
mod engine;
mod files;
mod parallel;
mod parent;
mod plan;
mod watch;

pub use command::Producer;
pub use differences::{BASE_CACHE_BYTES, BasesFrom, Differences};
pub use engine::{EngineJob, FileRules, PageInspector, ReadAgain, Taking, Treatment, backup_engine};
pub use parallel::{Lane, StreamPlan};
pub use plan::Source;

pub(in crate::ops) use self::commit::{Job, Original, permit};
pub(in crate::ops) use self::files::hash_zeros;
pub(in crate::ops) use self::parent::{Cursor, Parent};

use self::files::FileFeeder;
use self::plan::{Place, Plan};
use self::watch::Watched;
use super::error::OpsError;
use crate::base::{SnapshotId, Timestamp};

use crate::format::snapshot::{SnapshotMode, SnapshotSummary};
use crate::format::tree::{Content, CutKind, EntryKind, TreeEntry};
use crate::ingest::{Effort, Event, FeedError, Feeder};
use crate::localfs::{Excludes, printable};
use crate::repo::{Repository, WriteSession};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::sync::Arc;

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The host whose data it is.
    pub host: String,
    /// Ties the backups of one thing together; `None` takes it from the sources.
    pub label: Option<String>,
    /// Who runs the backup.
    pub user: String,
    /// How the parent is used.
    pub mode: SnapshotMode,
    /// The parent; `None` takes the newest one of the same host and label.
    pub parent: Option<SnapshotId>,
    /// Tags to begin with.
    pub tags: Vec<(String, Option<String>)>,
    /// Patterns for files to leave out.
    pub excludes: Vec<String>,
    /// Does not enter other file systems.
    pub one_file_system: bool,
    /// Folders, as (device, inode), never to be stored: the repository itself, the cache.
    pub skipped: HashSet<(u64, u64)>,
    /// Files of these patterns are cut at page boundaries of this many bytes, whatever they look like.
    pub pages: Option<(Vec<String>, u32)>,
    /// Reads every file, also one that seems not to have changed since the parent read it.
    pub read_everything: bool,
    /// Reads and compares, stores nothing.
    pub dry_run: bool,
    /// How hard content is compressed.
    pub effort: Effort,
    /// When chunks that are new are stored as differences against the parent's.
    pub differences: Differences,
    /// Bytes that the base cache takes at most; 0 goes without one.
    pub base_cache_bytes: u64,
    /// Name and version of the program.
    pub program: String,
    /// Worker threads; 0 takes one a core.
    pub workers: usize,
}

impl BackupOptions {
    /// What a backup is unless somebody says otherwise: of everything in the sources, compared with the
    /// newest one of the same host and label.
    pub fn new(host: &str, user: &str, program: &str) -> Self {
        Self {
            host: host.to_owned(),
            label: None,
            user: user.to_owned(),
            mode: SnapshotMode::Incremental,
            parent: None,
            tags: Vec::new(),
            excludes: Vec::new(),
            one_file_system: false,
            skipped: HashSet::new(),
            pages: None,
            read_everything: false,
            dry_run: false,
            effort: Effort::default(),
            differences: Differences::default(),
            base_cache_bytes: BASE_CACHE_BYTES,
            program: program.to_owned(),
            workers: 0,
        }
    }
}

/// Something that is not in the snapshot as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which file.
    pub path: String,
    /// What was wrong with it.
    pub what: String,
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The snapshot; `None` after a dry run.
    pub snapshot: Option<SnapshotId>,
    /// Its host.
    pub host: String,
    /// Its label.
    pub label: String,
    /// What it was compared with.
    pub parent: Option<SnapshotId>,
    /// Figures.
    pub summary: SnapshotSummary,
    /// How many of the new chunks were stored as differences.
    pub differences: u64,
    /// Where their bases were read.
    pub bases: BasesFrom,
    /// Files that could not be read wholly.
    pub problems: Vec<Problem>,
    /// What the user could do better, a line each.
    pub advice: Vec<String>,
}

/// What accumulates while the sources are fed.
#[derive(Default)]
pub(in crate::ops) struct Progress {
    problems: Vec<Problem>,
    advice: Vec<String>,
    unchanged_files: u64,
}

/// Makes one snapshot of all sources.
///
/// # Errors
///
/// When a source as a whole cannot be read, a command fails, or the repository cannot be written:
/// then nothing is committed.
pub fn backup(
    repository: &Arc<Repository>,
    sources: Vec<Source>,
    options: &BackupOptions,
) -> Result<BackupReport, OpsError> {
    let started = repository.environment().clock.now();
    let plan = Plan::new(sources)?;
    let label = match &options.label {
        Some(label) => label.clone(),
        None => plan.default_label(),
    };
    permit(repository, options, &label)?;
    if options.dry_run && plan.reads_streams() {
        return Err(OpsError::Usage("a dry run cannot read a stream without consuming it".to_owned()));
    }
    repository.load_index()?;
    let parent = Parent::find(repository, &options.host, &label, options.mode, options.parent)?;
    let files = FileFeeder::options(options)?;
    let (kind, sources) = (plan.kind().to_owned(), plan.names());
    let mut progress = Progress::default();
    if options.dry_run {
        let summary =
            files::dry_run(repository, &plan, &files, parent.as_ref(), &options.host, &mut progress)?;
        return Ok(BackupReport {
            snapshot: None,
            host: options.host.clone(),
            label,
            parent: parent.map(|parent| parent.id),
            summary,
            differences: 0,
            bases: BasesFrom::Nowhere,
            problems: progress.problems,
            advice: progress.advice,
        });
    }
    let job = Job { kind, sources, label, started, parent, progress, original: None };
    job.run(repository, options, |feeder, session, parent, progress| {
        let believed = !options.read_everything && parent.is_some_and(|p| p.host == options.host);
        let mut feeding = Feeding { feeder, session, started, files: &files, believed, parent, progress };
        feeding.places(plan.root)?;
        Ok::<_, OpsError>(BTreeMap::new())
    })
}

/// Feeds the planned places, in the order of their names.
struct Feeding<'a> {
    feeder: &'a mut Feeder,
    session: &'a WriteSession,
    started: Timestamp,
    files: &'a files::FileOptions,
    /// Whether what the file system says of a file shows that it has not changed since the parent.
    believed: bool,
    parent: Option<&'a Parent>,
    progress: &'a mut Progress,
}

impl Feeding<'_> {
    fn places(&mut self, root: Place) -> Result<(), OpsError> {
        let parent = match self.parent {
            Some(parent) => Some(parent.cursor(self.session.repository())?),
            None => None,
        };
        let mut files = FileFeeder::new(self.session, self.files, self.believed, parent);
        self.folder(root, &mut files)
    }

    fn folder(&mut self, place: Place, files: &mut FileFeeder<'_>) -> Result<(), OpsError> {
        for (name, place) in place.children {
            match place.source {
                Some(Source::Stream { reader, .. }) => {
                    let before = files.before(&name);
                    let mut reader = reader;
                    self.stream(&name, reader.as_mut(), before)?;
                }
                Some(Source::Command { command, .. }) => {
                    let before = files.before(&name);
                    let mut producer =
                        Producer::shell(&command, self.session.repository().environment().observer.clone())?;
                    self.stream(&name, &mut producer, before)?;
                    // Only a producer that says it succeeded may be committed.
                    producer.finish()?;
                }
                Some(Source::Path(path)) => {
                    files.source(&path, place.of_root, self.feeder, self.progress)?;
                }
                None => {
                    let entry = place.folder_entry(&name, self.started);
                    files.enter(&name)?;
                    self.feeder.event(Event::Folder(Box::new(entry)))?;
                    self.folder(place, files)?;
                    self.feeder.event(Event::Close)?;
                    files.leave();
                }
            }
        }
        Ok(())
    }

    fn stream(
        &mut self,
        name: &[u8],
        reader: &mut dyn Read,
        before: Option<Content>,
    ) -> Result<(), OpsError> {
        let entry = stream_entry(name, self.started);
        self.feeder.file(Box::new(entry), before.as_ref())?;
        let mut watched = Watched::new(reader);
        let end = self.feeder.stream(&mut watched, CutKind::Stream).map_err(|error| match error {
            FeedError::Source(source) => OpsError::Read { name: printable(name), source },
            FeedError::Pipeline(error) => error.into(),
        })?;
        if end.length == 0 {
            self.progress
                .advice
                .push(format!("{}: the stream was empty; it is recorded as empty", printable(name)));
        }
        self.progress.advice.extend(watched.advice(&printable(name)));
        Ok(())
    }
}

fn stream_entry(name: &[u8], modified: Timestamp) -> TreeEntry {
    TreeEntry::new(name.to_owned(), EntryKind::File, 0o600, modified)
}

fn excludes(patterns: &[String]) -> Result<Excludes, OpsError> {
    Ok(Excludes::new(patterns)?)
}
