//! Copying snapshots and logs into another repository, with other keys, another chunker and another cipher.
//!
//! Ids are keyed, so that what one repository calls a chunk says nothing in another: content is read, verified
//! and cut anew, and only what the target lacks is stored, as differences where that pays. What is said of a
//! snapshot (times, host, label, tags, pins, notes, facts) goes with it, and two facts name where it came from; by
//! them it is not copied twice.
//!
//! Write order, for each snapshot, oldest first, and what a crash after each step leaves:
//! 1. all that a backup writes before its commit: nothing refers to it;
//! 2. the copy: it is there, whole, every file's digest compared;
//! 3. its notes and pins: the next run adds those that are missing.
//!
//! | room | holds |
//! |---|---|
//! | `reading` | a tree of the source, its pieces read ahead by all cores, in order |
//! | `feeding` | from there into the target |
//! | `logs` | archived segments of logs |

mod feeding;
mod logs;
mod reading;

pub use logs::{CopiedLogs, copy_logs};

use self::feeding::{CopyError, feed};
use super::backup::{BackupOptions, Differences, Job, Original, Parent, permit};
use super::error::OpsError;
use super::snapshots::{SnapshotView, Snapshots};
use crate::base::{RepositoryId, SnapshotId, explain};
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::snapshot::{Snapshot, SnapshotSummary};
use crate::format::trust::{Act, Role, Standing};
use crate::ingest::Effort;
use crate::repo::{FoundAnnotation, Repository};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The fact by which a copy names its original.
pub const COPIED_FROM: &str = "copied-from";
/// The fact by which it names the repository of the original.
pub const COPIED_FROM_REPOSITORY: &str = "copied-from-repository";

/// Where a snapshot was made first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The repository.
    pub repository: RepositoryId,
    /// The snapshot in it.
    pub snapshot: SnapshotId,
}

/// Returns the snapshot of which this one says that it is a copy.
pub fn copied_from(snapshot: &Snapshot) -> Option<Origin> {
    let repository = snapshot.facts.get(COPIED_FROM_REPOSITORY)?.parse().ok()?;
    Some(Origin { repository, snapshot: snapshot.facts.get(COPIED_FROM)?.parse().ok()? })
}

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Copies nothing.
    pub dry_run: bool,
    /// How hard content is compressed.
    pub effort: Effort,
    /// When chunks that are new are stored as differences.
    pub differences: Differences,
    /// Name and version of the program.
    pub program: String,
    /// Worker threads; 0 takes one a core.
    pub workers: usize,
}

impl CopyOptions {
    /// What a copy is unless somebody says otherwise.
    pub fn new(program: &str) -> Self {
        Self {
            dry_run: false,
            effort: Effort::default(),
            differences: Differences::default(),
            program: program.to_owned(),
            workers: 0,
        }
    }
}

/// What became of a snapshot.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was copied, or would be: then there is no id yet.
    Copied {
        /// The copy.
        id: Option<SnapshotId>,
        /// Its figures, as far as they are about the target those of the copying.
        summary: SnapshotSummary,
    },
    /// A copy was there.
    Present(SnapshotId),
    /// It cannot be read whole; nothing was committed.
    Failed(String),
}

/// A snapshot, and what became of it.
#[derive(Debug, Clone)]
pub struct CopiedSnapshot {
    /// The snapshot at the source.
    pub from: SnapshotId,
    /// Its host.
    pub host: String,
    /// Its label.
    pub label: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// Copies these snapshots of a repository into another, in the order in which they are given; the oldest comes first.
///
/// # Errors
///
/// [`OpsError::Usage`] where both are one repository; `Forbidden` where a key may not write one of them at the target, before
/// anything is written; when the target fails, or the source does not answer. What was copied by then stays.
pub fn copy_snapshots(
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    chosen: &[&SnapshotView],
    options: &CopyOptions,
) -> Result<Vec<CopiedSnapshot>, OpsError> {
    require_other(source, target)?;
    target.require_writer()?;
    let mut copies = Copies { source, target, options, known: Snapshots::load(target)?, made: Vec::new() };
    for view in chosen {
        let (host, label) = (&view.snapshot.host, &view.snapshot.label);
        if copies.of(view).is_none() {
            permit(target, &copies.backup_options(view), label)?;
        }
        if host.is_empty() {
            return Err(OpsError::Usage(format!("snapshot {} names no host", view.id.short())));
        }
    }
    source.load_index()?;
    target.load_index()?;
    let mut copied = Vec::new();
    for view in chosen {
        let outcome = copies.one(view)?;
        let (host, label) = (view.snapshot.host.clone(), view.snapshot.label.clone());
        copied.push(CopiedSnapshot { from: view.id, host, label, outcome });
    }
    if !options.dry_run {
        copies.say(chosen)?;
    }
    Ok(copied)
}

/// Refuses a copy of a repository into itself.
fn require_other(source: &Repository, target: &Repository) -> Result<(), OpsError> {
    match source.id() == target.id() {
        true => Err(OpsError::Usage(
            "both are the same repository: `mirror` makes and updates the same one elsewhere".to_owned(),
        )),
        false => Ok(()),
    }
}

struct Copies<'a> {
    source: &'a Arc<Repository>,
    target: &'a Arc<Repository>,
    options: &'a CopyOptions,
    /// What is at the target.
    known: Snapshots,
    /// What was copied in this run: the original and its copy.
    made: Vec<(SnapshotId, SnapshotView)>,
}

impl Copies<'_> {
    fn origin(&self, view: &SnapshotView) -> Origin {
        let own = Origin { repository: *self.source.id(), snapshot: view.id };
        copied_from(&view.snapshot).unwrap_or(own)
    }

    /// Anybody who may write for a host can say that something is a copy, and so keep the true one away: that
    /// counts only of this key and those that may do anything here.
    fn trusts(&self, copy: &SnapshotView) -> bool {
        let trusted = |record: &crate::format::trust::KeyRecord| {
            matches!(record.role, Role::Owner | Role::Maintainer) && record.standing() != Standing::Revoked
        };
        copy.signer == self.target.keyring().identity.key
            || self.target.registry().trust().key(&copy.signer).is_some_and(trusted)
    }

    /// Returns the copy of a snapshot that is at the target.
    fn of(&self, view: &SnapshotView) -> Option<&SnapshotView> {
        let origin = self.origin(view);
        if let Some((_, copy)) = self.made.iter().find(|(from, _)| *from == view.id) {
            return Some(copy);
        }
        // One that goes the other way is where it came from.
        let home = (origin.repository == *self.target.id()).then_some(origin.snapshot);
        let same = |copy: &&SnapshotView| {
            let (ours, theirs) = (&copy.snapshot, &view.snapshot);
            let claims = home == Some(copy.id) || copied_from(ours) == Some(origin) && self.trusts(copy);
            claims && (&ours.host, &ours.label) == (&theirs.host, &theirs.label)
        };
        self.known.with_forgotten().iter().find(same)
    }

    fn backup_options(&self, view: &SnapshotView) -> BackupOptions {
        let snapshot = &view.snapshot;
        BackupOptions {
            label: Some(snapshot.label.clone()),
            mode: snapshot.mode,
            effort: self.options.effort,
            differences: self.options.differences,
            workers: self.options.workers,
            ..BackupOptions::new(&snapshot.host, &snapshot.user, &self.options.program)
        }
    }

    fn one(&mut self, view: &SnapshotView) -> Result<Outcome, OpsError> {
        if let Some(copy) = self.of(view) {
            return Ok(Outcome::Present(copy.id));
        }
        let summary = view.snapshot.summary.clone();
        if self.options.dry_run {
            return Ok(Outcome::Copied { id: None, summary });
        }
        let observer = self.target.environment().observer.clone();
        observer.item(&format!("snapshot {}", view.id.short()));
        // The copy of its parent, or else the newest of its line, is what it is most like.
        let parent_copy = view.snapshot.parent.and_then(|parent| self.parent_copy(&parent));
        let line = self.made.iter().rev().map(|(_, copy)| copy).find(|copy| same_line(copy, view));
        let nearest =
            parent_copy.or(line).or_else(|| self.known.newest_of(&view.snapshot.host, &view.snapshot.label));
        // What it holds may be taken over without reading only where whoever said so is believed.
        let believed = nearest.is_some_and(|near| self.trusts(near));
        let original = Original { snapshot: self.shape(view), parent: parent_copy.map(|copy| copy.id) };
        let job = Job {
            kind: view.snapshot.kind.clone(),
            sources: view.snapshot.sources.clone(),
            label: view.snapshot.label.clone(),
            started: view.snapshot.started,
            parent: nearest.map(Parent::of),
            progress: Default::default(),
            original: Some(original),
        };
        let root = view.snapshot.root;
        let result = job.run(self.target, &self.backup_options(view), |feeder, session, parent, _| {
            let cursor = match parent {
                Some(parent) => Some(parent.cursor(self.target)?),
                None => None,
            };
            feed(self.source, root, session, cursor, believed, feeder)?;
            Ok::<_, CopyError>(BTreeMap::new())
        });
        let report = match result {
            Ok(report) => report,
            Err(CopyError::Source(error)) => return Ok(Outcome::Failed(explain(&error))),
            Err(CopyError::Other(error)) => return Err(error),
        };
        let found =
            self.target.snapshots()?.found.into_iter().find(|found| Some(found.id) == report.snapshot);
        if let Some(found) = found {
            self.made.push((view.id, plain_view(found)));
        }
        Ok(Outcome::Copied { id: report.snapshot, summary: report.summary })
    }

    fn parent_copy(&self, parent: &SnapshotId) -> Option<&SnapshotView> {
        if let Some((_, copy)) = self.made.iter().find(|(from, _)| from == parent) {
            return Some(copy);
        }
        let origin = Origin { repository: *self.source.id(), snapshot: *parent };
        self.known.iter().find(|copy| copied_from(&copy.snapshot) == Some(origin) && self.trusts(copy))
    }

    /// Returns what the copy says: all of the original, its tags as they are now, and where it came from.
    fn shape(&self, view: &SnapshotView) -> Snapshot {
        let mut snapshot = Snapshot { tags: view.tags.clone(), ..view.snapshot.clone() };
        let origin = self.origin(view);
        snapshot.facts.insert(COPIED_FROM.to_owned(), origin.snapshot.to_string());
        snapshot.facts.insert(COPIED_FROM_REPOSITORY.to_owned(), origin.repository.to_string());
        snapshot
    }

    /// Adds the notes and pins of the originals that their copies lack. What was said of a copy once and taken back since
    /// stays taken back.
    fn say(&self, chosen: &[&SnapshotView]) -> Result<(), OpsError> {
        let speaking: Vec<_> =
            chosen.iter().filter(|view| !view.notes.is_empty() || !view.pinned.is_empty()).collect();
        if speaking.is_empty() {
            return Ok(());
        }
        let mut said: HashSet<(SnapshotId, AnnotationKind, Option<String>)> = HashSet::new();
        let _ = self.target.visit_annotations(|FoundAnnotation { annotation, .. }| {
            said.extend(
                annotation.subjects.iter().map(|id| (*id, annotation.kind, annotation.value.clone())),
            );
        })?;
        for view in speaking {
            let Some(copy) = self.of(view).map(|copy| copy.id) else { continue };
            let act = Act::Mark { host: &view.snapshot.host, label: &view.snapshot.label };
            let marks = view
                .said
                .iter()
                .filter(|mark| matches!(mark.kind, AnnotationKind::Note | AnnotationKind::Pin));
            for mark in marks {
                if !said.insert((copy, mark.kind, mark.value.clone())) {
                    continue;
                }
                let mut annotation = Annotation::new(mark.kind, mark.created);
                annotation.subjects = [copy].into_iter().collect();
                annotation.value = mark.value.clone();
                self.target.annotate(&annotation, act)?;
            }
        }
        Ok(())
    }
}

fn same_line(one: &SnapshotView, other: &SnapshotView) -> bool {
    (&one.snapshot.host, &one.snapshot.label) == (&other.snapshot.host, &other.snapshot.label)
}

/// A snapshot about which nobody has said anything.
fn plain_view(found: crate::repo::FoundSnapshot) -> SnapshotView {
    SnapshotView {
        id: found.id,
        tags: found.snapshot.tags.clone(),
        snapshot: found.snapshot,
        signer: found.signer,
        stored: found.stored,
        number: None,
        pinned: Vec::new(),
        forgotten: false,
        forgotten_by: Vec::new(),
        notes: Vec::new(),
        said: Vec::new(),
    }
}
