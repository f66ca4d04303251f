//! Copies of hurt snapshots that hold what is left of them, with what was lost named.
//!
//! In a copy, bytes of a file that cannot be had are zeros, so that everything else stays where it was; a folder
//! whose list of names cannot be read ends where it breaks off. Such a file has no digest, and the
//! next backup reads it anew rather than believe that it is unchanged.
//!
//! What is gone and nobody has ended is put back first, from a catalogue or from parity, and only where everything that
//! it needs is there: copies of what is condemned, then the object.
//!
//! Write order, for each snapshot, and what a crash after each step leaves:
//! 1. trees and recipes of the copy, and their index run: nothing refers to them;
//! 2. what the copy rests on and is condemned is copied, as before any commit;
//! 3. the copy itself, a snapshot with the fact [`REPAIRED_FROM`]: it is there, beside the original;
//! 4. the pins and notes of the original, said of the copy, and a note that says what was lost;
//! 5. only if that is wished: the originals of all copies are forgotten.

use crate::base::{BlobId, KeyId, SnapshotId, explain};
use crate::chunker::SKETCH_ALGORITHM;
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::pack::BlobClass;
use crate::format::recipe::{RecipeBuilder, RecipeEntry, RecipeRoot};
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Content, TreeBuilder, TreeEntry};
use crate::format::trust::{Act, Role, Standing};
use crate::ingest::MetadataWriter;
use crate::localfs::path_text;
use crate::ops::OpsError;
use crate::ops::catalogue::put_back_vanished;
use crate::ops::check::{Affected, CheckOptions, ReadData, Surveyed, survey};
use crate::ops::deserted::put_back;
use crate::ops::forget::{forget, vanished};
use crate::ops::settle::{rescue, settle};
use crate::ops::snapshots::{SnapshotView, Snapshots};
use crate::repo::{Pieces, Presence, RepoError, Repository, WriteSession};
use crate::view::{TreeWalk, WalkEvent};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// The fact by which a repaired copy names its original.
pub const REPAIRED_FROM: &str = "repaired-from";
/// Losses that are named one by one for each snapshot.
const LOST_MAX: usize = 10_000;
/// Ranges of one file that are named one by one.
const RANGES_MAX: usize = 1000;
/// Length of the note that says what was lost.
const NOTE_BYTES_MAX: usize = 60_000;

/// How to repair snapshots.
#[derive(Debug, Clone, Default)]
pub struct SnapshotsOptions {
    /// Only these; without any, all that are hurt.
    pub snapshots: Vec<SnapshotId>,
    /// Reads all content first, so that what nobody has found yet is found.
    pub read_data: bool,
    /// Forgets the originals once their copies are committed.
    pub forget: bool,
    /// Name and version of the program.
    pub program: String,
}

/// Something that cannot be had any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The path; empty for the root.
    pub path: Vec<u8>,
    /// Bytes of the file that are zeros in the copy; empty for a folder that breaks off here.
    pub ranges: Vec<Range<u64>>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&path_text(&self.path))?;
        if self.ranges.is_empty() {
            let end = if self.path.is_empty() { "" } else { "/" };
            return write!(f, "{end} (what lies in it, or from some name on)");
        }
        for (number, range) in self.ranges.iter().enumerate() {
            let sign = if number == 0 { " bytes " } else { ", " };
            write!(f, "{sign}{} to {}", range.start, range.end.saturating_sub(1))?;
        }
        Ok(())
    }
}

/// A snapshot of which something is lost.
#[derive(Debug, Clone)]
pub struct Hurt {
    /// The snapshot.
    pub id: SnapshotId,
    /// A copy that was made before.
    pub repaired: Option<SnapshotId>,
    /// False where not even the names in its root can be read, so that nothing is left to copy.
    pub repairable: bool,
    /// That something is lost; else only a key that reads content can tell, and no copy is made.
    pub is_certain: bool,
    /// That it is pinned: it is never forgotten, whatever was made of it.
    pub is_pinned: bool,
    /// How many paths are hurt.
    pub paths: u64,
}

/// A copy that was made.
#[derive(Debug, Clone)]
pub struct RepairedSnapshot {
    /// The original.
    pub from: SnapshotId,
    /// The copy.
    pub id: SnapshotId,
    /// What was lost.
    pub lost: Vec<Lost>,
    /// Losses beyond those.
    pub lost_more: u64,
    /// Bytes of files that are zeros now.
    pub lost_bytes: u64,
}

/// What would be done, and what came of it.
pub struct SnapshotsPlan {
    repository: Arc<Repository>,
    options: SnapshotsOptions,
    /// Snapshots and annotations that a catalogue lists and that are gone though nobody has ended them: put back,
    /// or found by who only looks.
    pub put_back: Vec<String>,
    /// The same of such as no catalogue lists and parity brings back.
    pub from_parity: Vec<String>,
    /// Hurt snapshots.
    pub hurt: Vec<Hurt>,
    /// Paths in them, and what of each is lost.
    pub lost: Vec<(SnapshotId, Lost)>,
    /// Copies that were made.
    pub repaired: Vec<RepairedSnapshot>,
    /// Originals that were forgotten.
    pub forgotten: Vec<SnapshotId>,
}

/// Returns the snapshot of which this one is a repaired copy.
pub fn repaired_from(snapshot: &Snapshot) -> Option<SnapshotId> {
    snapshot.facts.get(REPAIRED_FROM)?.parse().ok()
}

impl SnapshotsPlan {
    /// Finds what is hurt; with `write`, makes the copies and, if the options say so, forgets the originals.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] for a key that may not write such snapshots, or not forget them; when the
    /// store fails: then some copies may be missing, and no original was forgotten.
    pub fn run(
        repository: &Arc<Repository>,
        options: SnapshotsOptions,
        write: bool,
    ) -> Result<Self, OpsError> {
        if write {
            repository.require_writer()?;
        }
        if options.forget {
            repository.registry().may_sign(&repository.keyring().identity.key, Act::Withdraw)?;
        }
        let mut plan = Self {
            repository: repository.clone(),
            options,
            put_back: Vec::new(),
            from_parity: Vec::new(),
            hurt: Vec::new(),
            lost: Vec::new(),
            repaired: Vec::new(),
            forgotten: Vec::new(),
        };
        let mut snapshots = Snapshots::load_all(repository)?;
        if snapshots.memory().unread().is_empty() {
            let gone = vanished(repository, &snapshots)?;
            if write && !gone.is_empty() {
                plan.put_back = put_back_vanished(repository, &gone, snapshots.memory())?;
                snapshots = Snapshots::load_all(repository)?;
            } else {
                plan.put_back = gone.into_iter().collect();
            }
        }
        // A session first: what is condemned from here on waits.
        let program = plan.options.program.clone();
        let presence = match write {
            true => Some(Presence::begin(repository, SessionPurpose::Write, IdSet::default(), &program)?),
            false => None,
        };
        let read_data = if plan.options.read_data { ReadData::All } else { ReadData::None };
        let check = CheckOptions { read_data, keep_ledger: write, program };
        survey(repository, &check, |surveyed, report| {
            surveyed.walk_trees(report)?;
            // Of the forgotten ones, those that were named.
            let affected = || report.affected.iter().chain(&report.affected_forgotten);
            for (id, paths) in report.hurt.iter().chain(&report.hurt_forgotten) {
                let Some(view) = snapshots.get(id).filter(|view| plan.wants(view)) else { continue };
                let mut own = affected().filter(|affected| affected.snapshot == *id);
                let is_certain = !report.hurt_perhaps.contains(id) && own.any(|affected| affected.is_certain);
                plan.hurt.push(plan.look_at(&snapshots, view, *paths, is_certain)?);
            }
            let is_certain = |affected: &&Affected| {
                affected.is_certain && plan.hurt.iter().any(|hurt| hurt.id == affected.snapshot)
            };
            for affected in affected().filter(is_certain) {
                let lost = Lost { path: affected.path.clone(), ranges: affected.ranges.clone() };
                plan.lost.push((affected.snapshot, lost));
            }
            plan.put_back_deserted(surveyed, presence.as_ref())?;
            match &presence {
                Some(presence) => plan.write(surveyed, &snapshots, presence),
                None => Ok(()),
            }
        })?;
        if plan.options.forget && write {
            plan.forget_originals()?;
        }
        Ok(plan)
    }

    /// Puts back what is gone and comes back whole from parity. What a snapshot among that needs may have been condemned
    /// since: it is copied first, as before any commit.
    fn put_back_deserted(
        &mut self,
        surveyed: &Surveyed<'_>,
        presence: Option<&Presence>,
    ) -> Result<(), OpsError> {
        let mut back = Vec::new();
        for deserted in surveyed.deserted() {
            if surveyed.comes_back(deserted)? {
                back.push(deserted);
            }
        }
        self.from_parity = back.iter().map(|deserted| deserted.name()).collect();
        let Some(presence) = presence.filter(|_| !back.is_empty()) else { return Ok(()) };
        let roots: Vec<BlobId> = back.iter().filter_map(|deserted| deserted.root).collect();
        rescue(&self.repository, presence, &roots, &BTreeSet::new())?;
        settle(&self.repository, presence, &roots)?;
        for deserted in back {
            put_back(&self.repository, deserted)?;
        }
        presence.renew()?;
        settle(&self.repository, presence, &roots)?;
        Ok(())
    }

    fn wants(&self, view: &SnapshotView) -> bool {
        let named = &self.options.snapshots;
        if named.is_empty() { !view.forgotten } else { named.contains(&view.id) }
    }

    fn look_at(
        &self,
        snapshots: &Snapshots,
        view: &SnapshotView,
        paths: u64,
        is_certain: bool,
    ) -> Result<Hurt, OpsError> {
        let mut copies = snapshots.iter().filter(|other| self.is_copy(other, view));
        let repaired = copies.next().map(|copy| copy.id);
        let broken = match TreeWalk::new(&self.repository, view.snapshot.root)?.next() {
            Some(WalkEvent::Problem(error)) => {
                lost(error)?;
                true
            }
            _ => false,
        };
        let is_pinned = !view.pinned.is_empty();
        Ok(Hurt { id: view.id, repaired, repairable: !broken, is_certain, is_pinned, paths })
    }

    /// Says whether a snapshot is a repaired copy of another. Anybody can say so, and the original may be
    /// forgotten on account of it: so only what this key made, or one that may forget snapshots itself.
    fn is_copy(&self, copy: &SnapshotView, original: &SnapshotView) -> bool {
        let same = |snapshot: &Snapshot| (snapshot.host.clone(), snapshot.label.clone());
        let trusted = |signer: &KeyId| {
            *signer == self.repository.keyring().identity.key
                || self.repository.registry().trust().key(signer).is_some_and(|key| {
                    matches!(key.role, Role::Owner | Role::Maintainer) && key.standing() != Standing::Revoked
                })
        };
        repaired_from(&copy.snapshot) == Some(original.id)
            && same(&copy.snapshot) == same(&original.snapshot)
            && trusted(&copy.signer)
    }

    fn write(
        &mut self,
        surveyed: &Surveyed<'_>,
        snapshots: &Snapshots,
        presence: &Presence,
    ) -> Result<(), OpsError> {
        let repository = self.repository.clone();
        let own = repository.keyring().identity.key;
        let wanted: Vec<SnapshotId> = self
            .hurt
            .iter()
            .filter(|hurt| hurt.repairable && hurt.is_certain && hurt.repaired.is_none())
            .map(|hurt| hurt.id)
            .collect();
        let views: Vec<&SnapshotView> = wanted.iter().filter_map(|id| snapshots.get(id)).collect();
        // All of them or none: who may not write one of these learns it before anything is written.
        for view in &views {
            let (host, label) = (view.snapshot.host.as_str(), view.snapshot.label.as_str());
            repository.registry().may_sign(&own, Act::Snapshot { host, label })?;
        }
        for view in views {
            let session = WriteSession::begin(&repository)?;
            let mut copy = Copy::new(&repository, &session, surveyed)?;
            let root = copy.tree(&view.snapshot.root)?;
            let (lost, lost_more, lost_bytes) = (copy.lost, copy.lost_more, copy.lost_bytes);
            let finished = session.finish()?;
            drop(finished);
            let id = self.commit(view, root, &lost, lost_more, presence)?;
            self.repaired.push(RepairedSnapshot { from: view.id, id, lost, lost_more, lost_bytes });
        }
        Ok(())
    }

    fn commit(
        &self,
        view: &SnapshotView,
        root: BlobId,
        lost: &[Lost],
        lost_more: u64,
        presence: &Presence,
    ) -> Result<SnapshotId, OpsError> {
        let repository = &self.repository;
        rescue(repository, presence, &[root], &BTreeSet::new())?;
        settle(repository, presence, &[root])?;
        let (trust_sequence, trust) = repository.registry().head();
        let mut snapshot = Snapshot {
            root,
            parent: Some(view.id),
            tags: view.tags.clone(),
            program: self.options.program.clone(),
            trust_sequence,
            trust,
            ..view.snapshot.clone()
        };
        snapshot.summary.unreadable += lost.len() as u64 + lost_more;
        snapshot.facts.insert(REPAIRED_FROM.to_owned(), view.id.to_string());
        let id = repository.commit(&snapshot)?;
        presence.renew()?;
        settle(repository, presence, &[root])?;
        let mut text = format!("repaired copy of {}; lost:", view.id);
        let mut told = 0;
        for line in lost.iter().map(|lost| format!("\n{lost}")) {
            if text.len() + line.len() > NOTE_BYTES_MAX {
                break;
            }
            text.push_str(&line);
            told += 1;
        }
        let more = lost.len() as u64 - told + lost_more;
        if more > 0 {
            text.push_str(&format!("\n... and {more} more"));
        }
        let act = || Act::Mark { host: &snapshot.host, label: &snapshot.label };
        let say = |kind, value| {
            let mut said = Annotation::new(kind, repository.environment().clock.now());
            said.subjects = [id].into_iter().collect();
            said.value = value;
            repository.annotate(&said, act())
        };
        // First what keeps it: the copy stands for the original.
        for pin in &view.pinned {
            say(AnnotationKind::Pin, pin.reason.clone())?;
        }
        for note in &view.notes {
            say(AnnotationKind::Note, Some(note.clone()))?;
        }
        say(AnnotationKind::Note, Some(text))?;
        Ok(id)
    }

    fn forget_originals(&mut self) -> Result<(), OpsError> {
        let snapshots = Snapshots::load_all(&self.repository)?;
        let earlier = self.hurt.iter().filter(|hurt| hurt.repaired.is_some()).map(|hurt| hurt.id);
        let made = self.repaired.iter().map(|repaired| repaired.from);
        let chosen: BTreeSet<SnapshotId> = made.chain(earlier).collect();
        let chosen: Vec<SnapshotId> = chosen
            .into_iter()
            .filter(|id| snapshots.get(id).is_some_and(|view| !view.forgotten && view.pinned.is_empty()))
            .collect();
        if !chosen.is_empty() {
            forget(&self.repository, &snapshots, &chosen)?;
        }
        self.forgotten = chosen;
        Ok(())
    }

    /// Says whether something is lost.
    pub fn loses_something(&self) -> bool {
        !self.hurt.is_empty()
    }
}

/// Writes the tree of a copy.
struct Copy<'a, 'b> {
    repository: &'a Arc<Repository>,
    surveyed: &'a Surveyed<'b>,
    metadata: MetadataWriter<'a>,
    lost: Vec<Lost>,
    lost_more: u64,
    lost_bytes: u64,
}

/// A folder that is being written, or passed over as it is.
enum Level {
    Whole,
    Built(TreeBuilder),
}

impl<'a, 'b> Copy<'a, 'b> {
    fn new(
        repository: &'a Arc<Repository>,
        session: &'a WriteSession,
        surveyed: &'a Surveyed<'b>,
    ) -> Result<Self, OpsError> {
        let metadata = MetadataWriter::new(session)?;
        Ok(Self { repository, surveyed, metadata, lost: Vec::new(), lost_more: 0, lost_bytes: 0 })
    }

    fn tree(&mut self, root: &BlobId) -> Result<BlobId, OpsError> {
        let mut walk = TreeWalk::new(self.repository, *root)?;
        let mut levels = vec![Level::Built(TreeBuilder::new())];
        while let Some(event) = walk.next() {
            if self.repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            match event {
                WalkEvent::Enter(entry) => {
                    let whole = entry.subtree.is_none_or(|id| self.surveyed.is_whole(&id));
                    levels.push(match whole {
                        true => {
                            walk.skip();
                            Level::Whole
                        }
                        false => Level::Built(TreeBuilder::new()),
                    });
                }
                WalkEvent::Leave(entry) => {
                    let mut entry = TreeEntry::clone(&entry);
                    if let Some(Level::Built(builder)) = levels.pop() {
                        entry.subtree = Some(builder.finish(|node| self.put(node))?);
                    }
                    self.push(&mut levels, &entry)?;
                }
                WalkEvent::Leaf(entry) => {
                    let mut entry = *entry;
                    if let Some(content) = entry.content.take() {
                        let (content, ranges) = self.content(content)?;
                        entry.content = Some(content);
                        if !ranges.is_empty() {
                            self.lose(walk.path(), ranges);
                        }
                    }
                    self.push(&mut levels, &entry)?;
                }
                WalkEvent::Problem(error) => {
                    let error = lost(error)?;
                    self.repository.environment().observer.note(&explain(&error));
                    self.lose(walk.path(), Vec::new());
                }
            }
        }
        let id = match levels.pop() {
            Some(Level::Built(builder)) => builder.finish(|node| self.put(node))?,
            _ => return Err(unbalanced()),
        };
        self.metadata.flush()?;
        Ok(id)
    }

    fn put(&mut self, node: &[u8]) -> Result<BlobId, Failure> {
        self.metadata.put(node).map_err(Failure)
    }

    fn push(&mut self, levels: &mut [Level], entry: &TreeEntry) -> Result<(), OpsError> {
        match levels.last_mut() {
            Some(Level::Built(builder)) => Ok(builder.push(entry, |node| self.put(node))?),
            _ => Err(unbalanced()),
        }
    }

    fn lose(&mut self, path: &[u8], ranges: Vec<Range<u64>>) {
        self.lost_bytes += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        if self.lost.len() < LOST_MAX {
            self.lost.push(Lost { path: path.to_vec(), ranges });
        } else {
            self.lost_more += 1;
        }
    }

    /// Returns the content with zeros in the place of what is lost, and where that is.
    fn content(&mut self, content: Content) -> Result<(Content, Vec<Range<u64>>), OpsError> {
        if let RecipeRoot::Node(id) = &content.recipe
            && self.surveyed.is_whole(id)
        {
            return Ok((content, Vec::new()));
        }
        let mut reader = crate::repo::BlobReader::new(self.repository)?;
        let mut recipe = RecipeBuilder::new(SKETCH_ALGORITHM);
        let (mut ranges, mut offset, mut gap) = (Vec::new(), 0_u64, 0_u64);
        let mut pieces = what_is_left(Pieces::open(&mut reader, &content))?;
        while let Some(pieces) = &mut pieces {
            let Some(piece) = what_is_left(pieces.next(&mut reader))?.flatten() else { break };
            let end = offset.saturating_add(piece.length());
            let lost = match &piece {
                RecipeEntry::Chunk { id, length, .. } => {
                    self.surveyed.is_lost(BlobClass::Content, id, *length)
                }
                RecipeEntry::Hole { .. } => false,
            };
            if lost {
                add_range(&mut ranges, offset..end);
                gap += end - offset;
            } else {
                if gap > 0 {
                    let hole = RecipeEntry::Hole { length: std::mem::take(&mut gap) };
                    recipe.push(hole, |node| self.put(node))?;
                }
                recipe.push(piece, |node| self.put(node))?;
            }
            offset = end;
        }
        if offset < content.length {
            add_range(&mut ranges, offset..content.length);
            gap += content.length - offset;
        }
        if ranges.is_empty() {
            return Ok((content, ranges));
        }
        if gap > 0 {
            recipe.push(RecipeEntry::Hole { length: gap }, |node| self.put(node))?;
        }
        let recipe = recipe.finish(|node| self.put(node))?;
        // Neither what it was, nor to be taken for unchanged.
        Ok((Content { digest: None, read: None, recipe: recipe.root, ..content }, ranges))
    }
}

/// Passes on what says that something is lost, and fails where nobody knows.
fn lost(error: RepoError) -> Result<RepoError, RepoError> {
    match error {
        RepoError::Interrupted => Err(error),
        error if error.is_unanswered() => Err(error),
        error => Ok(error),
    }
}

fn what_is_left<T>(read: Result<T, RepoError>) -> Result<Option<T>, RepoError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => lost(error).map(|_| None),
    }
}

/// An error on the way into the repository.
struct Failure(RepoError);

impl From<crate::format::FormatError> for Failure {
    fn from(error: crate::format::FormatError) -> Self {
        Self(RepoError::damaged("a tree being written")(error))
    }
}

impl From<Failure> for OpsError {
    fn from(failure: Failure) -> Self {
        failure.0.into()
    }
}

fn unbalanced() -> OpsError {
    let why = "a folder ends that did not begin".to_owned();
    RepoError::Internal { doing: "writing a repaired tree", why }.into()
}

fn add_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    let room = ranges.len() < RANGES_MAX;
    match ranges.last_mut() {
        Some(last) if last.end == range.start || !room => last.end = range.end,
        _ => ranges.push(range),
    }
}
