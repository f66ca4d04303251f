//! Backup: any sources in, one atomic snapshot out.
//!
//! Write order, and what a crash after each step leaves:
//! 1. packs and index runs, as [`crate::repo::WriteSession`] writes them: nothing refers to them yet;
//! 2. every producer has ended and said that it was successful, or nothing more is written;
//! 3. what it rests on is looked at again, and copied where it is about to go;
//! 4. the snapshot: the backup is there, whole;
//! 5. the same look again, since a sweeper may have listed roots before step 4; then it is reported.

mod command;
mod differences;
mod files;
mod parent;
mod plan;
mod watch;

pub use differences::{BASE_CACHE_BYTES, BasesFrom, Differences};
pub use plan::Source;

use self::command::Producer;
use self::files::FileFeeder;
use self::parent::Parent;
use self::plan::{Place, Plan};
use self::watch::Watched;
use super::error::OpsError;
use super::settle::settle;
use crate::base::{SnapshotId, Timestamp, explain};
use crate::codec::{DEFAULT_LEVEL, FRAME_BYTES};
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::cbor::Extra;
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::snapshot::{Snapshot, SnapshotMode, SnapshotSummary};
use crate::format::tree::{Content, CutKind, EntryKind, TreeEntry};
use crate::format::trust::Act;
use crate::ingest::{Event, FeedError, Feeder, IngestOptions, ingest};
use crate::localfs::{Excludes, printable};
use crate::repo::{Presence, Repository, WriteSession};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    /// Reads and compares, stores nothing.
    pub dry_run: bool,
    /// zstd level.
    pub level: i32,
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
            dry_run: false,
            level: DEFAULT_LEVEL,
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
struct Progress {
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
    super::names::check_label(&label)?;
    repository.require_writer()?;
    let identity = repository.keyring().identity.key;
    repository
        .registry()
        .may_sign(&identity, crate::format::trust::Act::Snapshot { host: &options.host, label: &label })?;
    if options.dry_run && plan.reads_streams() {
        return Err(OpsError::Usage("a dry run cannot read a stream without consuming it".to_owned()));
    }
    repository.load_index()?;
    let parent = Parent::find(repository, &options.host, &label, options.mode, options.parent)?;
    let files = FileFeeder::options(options)?;
    let (kind, names) = (plan.kind(), plan.names());
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
    // What dead writers left takes room that may be needed now. Who may not remove it leaves it to others.
    let _ = repository.environment().store.clean();
    // [CONCURRENCY-10]: a session first, then the look at what can be relied on.
    let presence = Presence::begin(repository, SessionPurpose::Write, IdSet::default(), &options.program)?;
    let session = WriteSession::begin(repository)?;
    let (bases, advice) = options.find_bases(repository);
    progress.advice.extend(advice.filter(|_| parent.is_some()));
    let ingest_options = IngestOptions {
        level: options.level,
        frame_bytes: FRAME_BYTES,
        differences: bases != BasesFrom::Nowhere,
        workers: options.workers,
    };
    let ingested = ingest(&session, &ingest_options, |feeder| {
        let mut feeding = Feeding {
            feeder,
            session: &session,
            started,
            files: &files,
            host: &options.host,
            parent: parent.as_ref(),
            progress: &mut progress,
        };
        feeding.places(plan.root)
    })?;
    let finished = session.finish()?;
    let counts = finished.counts();
    let differences = counts.differences.load(Ordering::Relaxed);
    let sum = |numbers: &[std::sync::atomic::AtomicU64; 2]| {
        numbers.iter().map(|number| number.load(Ordering::Relaxed)).sum::<u64>()
    };
    let summary = SnapshotSummary {
        files: ingested.counts.files,
        directories: ingested.counts.directories,
        others: ingested.counts.others,
        bytes: ingested.counts.bytes,
        new_blobs: sum(&counts.new_blobs),
        new_bytes: sum(&counts.new_bytes),
        stored_bytes: counts.stored_bytes.load(Ordering::Relaxed),
        unreadable: progress.problems.len() as u64,
        unchanged_files: progress.unchanged_files,
        extra: Extra::new(),
    };
    if repository.environment().observer.interrupted() {
        return Err(crate::repo::RepoError::Interrupted.into());
    }
    settle(repository, &presence, &[ingested.root])?;
    let (trust_sequence, trust) = repository.registry().head();
    let snapshot = Snapshot {
        host: options.host.clone(),
        label: label.clone(),
        user: options.user.clone(),
        started,
        ended: repository.environment().clock.now(),
        parent: parent.as_ref().map(|parent| parent.id),
        mode: options.mode,
        sources: names,
        root: ingested.root,
        summary: summary.clone(),
        program: options.program.clone(),
        tags: options.tags.iter().cloned().collect(),
        trust_sequence,
        trust,
        kind: kind.to_owned(),
        facts: BTreeMap::new(),
        extra: Extra::new(),
    };
    let id = repository.commit(&snapshot)?;
    // Whether the session has lapsed before the commit shows by the store's time of a renewal after it.
    let settled = presence.renew().map_err(OpsError::from);
    let settled = settled.and_then(|()| settle(repository, &presence, &[ingested.root]));
    if let Err(error) = settled {
        report_failed(repository, id, &error);
        return Err(OpsError::Unsettled { snapshot: id, source: Box::new(error) });
    }
    drop(presence);
    if let Some(cache) = repository.base_cache() {
        cache.settle(repository.environment().clock.now());
    }
    Ok(BackupReport {
        snapshot: Some(id),
        host: options.host.clone(),
        label,
        parent: snapshot.parent,
        summary,
        differences,
        bases,
        problems: progress.problems,
        advice: progress.advice,
    })
}

/// [CONCURRENCY-23]: says of a committed snapshot that it lacks something.
fn report_failed(repository: &Repository, id: SnapshotId, error: &OpsError) {
    if !matches!(error, OpsError::Repo(crate::repo::RepoError::Missing { .. })) {
        return;
    }
    let now = repository.environment().clock.now();
    let mut failed = Annotation::new(AnnotationKind::Verified, now);
    failed.subjects = [id].into_iter().collect();
    failed.method = Some("structure".to_owned());
    failed.outcome = Some(Outcome::Failed);
    failed.value = Some(explain(error));
    if let Err(error) = repository.annotate(&failed, Act::Verified) {
        let why = explain(&error);
        let text = format!("cannot note that snapshot {} lacks something: {why}", id.short());
        repository.environment().observer.warn(&text);
    }
}

/// Feeds the planned places, in the order of their names.
struct Feeding<'a> {
    feeder: &'a mut Feeder,
    session: &'a WriteSession,
    started: Timestamp,
    files: &'a files::FileOptions,
    host: &'a str,
    parent: Option<&'a Parent>,
    progress: &'a mut Progress,
}

impl Feeding<'_> {
    fn places(&mut self, root: Place) -> Result<(), OpsError> {
        let parent = match self.parent {
            Some(parent) => Some(parent.cursor(self.session.repository())?),
            None => None,
        };
        let mut files = FileFeeder::new(
            self.session,
            self.files,
            self.parent.is_some_and(|parent| parent.host == self.host),
            parent,
        );
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
                        Producer::start(&command, self.session.repository().environment().observer.clone())?;
                    self.stream(&name, &mut producer, before)?;
                    // Only a producer that says it succeeded may be committed.
                    producer.finish()?;
                }
                Some(Source::Path(path)) => files.source(&path, self.feeder, self.progress)?,
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
