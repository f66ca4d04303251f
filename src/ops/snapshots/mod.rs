//! All snapshots of a repository with what was said about them since, in the order of their commits.
//!
//! - `names`: which of them a name means

mod names;

pub(super) use names::LABEL_BYTES_MAX;
pub use names::{check_label, cut_label, is_label};

use super::copy::copied_from;
use super::error::OpsError;
use super::repair::repaired_from;
use super::vouched::Vouched;
use crate::base::{AnnotationId, KeyId, ObjectId, SnapshotId, Timestamp};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::catalog::CatalogEnd;
use crate::format::snapshot::Snapshot;
use crate::format::trust::Act;
use crate::repo::{
    ForgottenLogs, FoundAnnotation, Memory, RepoError, Repository, RootsWanted, StoredRoot, Told,
};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// That a snapshot must not be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The annotation, which an unpin names.
    pub id: AnnotationId,
    /// Why.
    pub reason: Option<String>,
}

/// Something that was said about a snapshot and still holds: a tag, a pin, a note, a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The annotation.
    pub id: AnnotationId,
    /// What it says.
    pub kind: AnnotationKind,
    /// Key of a tag.
    pub key: Option<String>,
    /// Value of a tag, reason of a pin, text of a note, what a verification found.
    pub value: Option<String>,
    /// How it was verified.
    pub method: Option<String>,
    /// How a verification ended.
    pub outcome: Option<Outcome>,
    /// Who said it.
    pub signer: KeyId,
    /// When, by the clock of that host.
    pub created: Timestamp,
}

impl Said {
    fn new(found: &FoundAnnotation) -> Self {
        let annotation = &found.annotation;
        Self {
            id: found.id,
            kind: annotation.kind,
            key: annotation.key.clone(),
            value: annotation.value.clone(),
            method: annotation.method.clone(),
            outcome: annotation.outcome,
            signer: found.signer,
            created: annotation.created,
        }
    }
}

/// A snapshot with all that was said about it since.
#[derive(Debug, Clone)]
pub struct SnapshotView {
    /// Its id.
    pub id: SnapshotId,
    /// Its content.
    pub snapshot: Snapshot,
    /// Who signed it.
    pub signer: KeyId,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
    /// The order in which a catalogue first saw it.
    pub number: Option<u64>,
    /// Its tags: those it was made with and later ones, without those taken off.
    pub tags: BTreeMap<String, Option<String>>,
    /// The pins that hold it; it is pinned while there is one.
    pub pinned: Vec<Pin>,
    /// That it is no root any more. Never true of a pinned one.
    pub forgotten: bool,
    /// The annotations that say so, which an undelete names.
    pub forgotten_by: Vec<AnnotationId>,
    /// Notes in the order in which they were made.
    pub notes: Vec<String>,
    /// What was said about it and still holds, in the order in which it was said.
    pub said: Vec<Said>,
}

/// All snapshots of a repository, oldest first.
pub struct Snapshots {
    repository: Arc<Repository>,
    views: Vec<SnapshotView>,
    places: HashMap<SnapshotId, usize>,
    zone: TimeZone,
    host: Option<String>,
    ended: HashSet<SnapshotId>,
    /// The annotation by which each snapshot that is not there was forgotten, as far as one says so.
    forgotten_by: HashMap<SnapshotId, AnnotationId>,
    /// Snapshots that are not there and that a pin speaks of: it may have come before they were deleted, or after.
    pinned_gone: HashSet<SnapshotId>,
    /// All that was said, in the order in which it was said, whether it counts or not.
    annotations: Vec<(AnnotationId, Annotation)>,
    memory: Memory,
    is_all: bool,
    stored: Vec<StoredRoot>,
    present: HashSet<ObjectId>,
    forgotten_logs: ForgottenLogs,
    vouched: Vouched,
    /// Objects that do not count, by name, and why: the caller reports them.
    pub refused: Vec<(String, RepoError)>,
}

impl Snapshots {
    /// Reads the snapshots that there are to show and to restore, and what was said about them: those of closed
    /// generations as catalogues tell of them.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn load(repository: &Arc<Repository>) -> Result<Self, OpsError> {
        Self::load_wanted(repository, RootsWanted::Shown)
    }

    /// Reads all snapshots that lie in the store, and what was said about them: whoever forgets or deletes looks
    /// at no less ([CONCURRENCY-44]).
    ///
    /// # Errors
    ///
    /// As [`Snapshots::load`].
    pub fn load_all(repository: &Arc<Repository>) -> Result<Self, OpsError> {
        Self::load_wanted(repository, RootsWanted::All)
    }

    fn load_wanted(repository: &Arc<Repository>, wanted: RootsWanted) -> Result<Self, OpsError> {
        let roots = repository.roots(wanted)?;
        let mut refused = roots.snapshots.refused;
        refused.extend(roots.annotations.refused);
        let mut views: Vec<SnapshotView> = roots
            .snapshots
            .found
            .into_iter()
            .map(|found| SnapshotView {
                id: found.id,
                tags: found.snapshot.tags.clone(),
                snapshot: found.snapshot,
                signer: found.signer,
                stored: found.stored,
                number: found.number,
                pinned: Vec::new(),
                forgotten: false,
                forgotten_by: Vec::new(),
                notes: Vec::new(),
                said: Vec::new(),
            })
            .collect();
        sort_by_commit(&mut views);
        let mut found = roots.annotations.found;
        found.sort_by_key(|annotation| (annotation.annotation.created, annotation.id));
        let mut places = places_of(&views);
        let (forgotten_by, pinned_gone) =
            apply(repository, &mut views, &places, &found, &roots.memory, &mut refused);
        let mut ended: HashSet<SnapshotId> =
            forgotten_by.keys().filter(|id| !pinned_gone.contains(id)).copied().collect();
        if !roots.is_all {
            let swept = swept(repository, &views, &roots.present)?;
            views.retain(|view| !swept.contains(&view.id));
            places = places_of(&views);
            ended.extend(swept);
        }
        let recorded = roots.memory.ends().filter(|end| end.kind == ObjectKind::Snapshot);
        let recorded = recorded.map(|end| SnapshotId::from(end.id));
        ended
            .extend(recorded.filter(|id| !places.contains_key(id) && !roots.present.contains(&(*id).into())));
        let forgotten_logs = ForgottenLogs::of(repository.registry(), &found);
        let vouched = Vouched::of(repository.registry(), &found);
        let annotations = found.into_iter().map(|found| (found.id, found.annotation)).collect();
        Ok(Self {
            repository: repository.clone(),
            views,
            places,
            zone: TimeZone::UTC,
            host: None,
            ended,
            forgotten_by,
            pinned_gone,
            forgotten_logs,
            vouched,
            annotations,
            memory: roots.memory,
            is_all: roots.is_all,
            stored: roots.stored,
            present: roots.present,
            refused,
        })
    }

    /// Returns what catalogues say.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Says whether all that lies in the store was looked at.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    /// Returns all snapshots and annotations that count as they lie in the store, as far as they were listed there.
    pub(super) fn stored(&self) -> &[StoredRoot] {
        &self.stored
    }

    /// Returns the ids of all that was listed in the store, counting or not.
    pub(super) fn present(&self) -> &HashSet<ObjectId> {
        &self.present
    }

    /// Returns the annotation by which a snapshot that is not there was forgotten, if one says so.
    pub(super) fn forgotten_by(&self, id: &SnapshotId) -> Option<AnnotationId> {
        self.forgotten_by.get(id).copied()
    }

    /// Says whether a pin speaks of a snapshot that is not there: it may have come before that was deleted, or after.
    pub(super) fn is_pinned_gone(&self, id: &SnapshotId) -> bool {
        self.pinned_gone.contains(id)
    }

    /// Returns all annotations whose signatures hold.
    pub(super) fn annotations(&self) -> &[(AnnotationId, Annotation)] {
        &self.annotations
    }

    /// Returns the packs that owners vouch for.
    pub(super) fn vouched(&self) -> &Vouched {
        &self.vouched
    }

    /// Sets the time zone in which times without an offset are understood; without it that is UTC.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// Sets the host whose snapshots a label means where several hosts have some under it.
    #[must_use]
    pub fn on_host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Returns all snapshots that are not forgotten, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SnapshotView> {
        self.views.iter().filter(|view| !view.forgotten)
    }

    /// Returns all snapshots, the forgotten ones too, oldest first.
    pub fn with_forgotten(&self) -> &[SnapshotView] {
        &self.views
    }

    /// Returns the snapshots that are not there and were forgotten by a key that may.
    pub fn ended(&self) -> &HashSet<SnapshotId> {
        &self.ended
    }

    /// Returns what was said of log packs: which are roots no more.
    pub fn forgotten_logs(&self) -> &ForgottenLogs {
        &self.forgotten_logs
    }

    /// Finds a snapshot by its id.
    pub fn get(&self, id: &SnapshotId) -> Option<&SnapshotView> {
        self.views.get(*self.places.get(id)?)
    }

    /// Returns the ids of snapshots that do not count or cannot be read, and why.
    pub fn refused_snapshots(&self) -> impl Iterator<Item = (SnapshotId, &RepoError)> {
        self.refused.iter().filter_map(|(name, error)| {
            let id = name.strip_prefix("snapshots/")?.rsplit('/').next()?.parse().ok()?;
            Some((id, error))
        })
    }

    /// Returns the newest snapshot of a host and label.
    pub fn newest_of(&self, host: &str, label: &str) -> Option<&SnapshotView> {
        self.iter().rev().find(|view| view.snapshot.host == host && view.snapshot.label == label)
    }
}

fn places_of(views: &[SnapshotView]) -> HashMap<SnapshotId, usize> {
    views.iter().enumerate().map(|(place, view)| (view.id, place)).collect()
}

/// Finds forgotten snapshots that are told of by catalogues alone and are gone. A sweep has taken them, and the catalogue
/// that records their end comes later. Of those that are not forgotten nobody looks whether they are there: whoever
/// restores one learns it.
fn swept(
    repository: &Repository,
    views: &[SnapshotView],
    present: &HashSet<ObjectId>,
) -> Result<HashSet<SnapshotId>, OpsError> {
    let is_hidden = |view: &&SnapshotView| view.forgotten && !present.contains(&ObjectId::from(view.id));
    let hidden: Vec<SnapshotId> = views.iter().filter(is_hidden).map(|view| view.id).collect();
    if hidden.is_empty() {
        return Ok(HashSet::new());
    }
    let listed = repository.environment().store.list("snapshots/").map_err(RepoError::from)?;
    let there: HashSet<SnapshotId> =
        listed.iter().filter_map(|object| object.name.rsplit('/').next()?.parse().ok()).collect();
    Ok(hidden.into_iter().filter(|id| !there.contains(id)).collect())
}

/// Sorts by commit: what catalogues have seen in their order ([CATALOG-2]), then the rest by the store's time, but a
/// snapshot never before its parent, since times of a store that was copied are those of the copy. A repaired copy is as old as its original, which it names
/// as its parent.
fn sort_by_commit(views: &mut Vec<SnapshotView>) {
    let places: HashMap<SnapshotId, usize> =
        views.iter().enumerate().map(|(place, view)| (view.id, place)).collect();
    let own = |view: &SnapshotView| {
        let ended = view.snapshot.ended;
        let stored = view.stored.unwrap_or(ended);
        // Who only says that it is a copy makes itself older, no more.
        let number = view.number.unwrap_or(u64::MAX);
        match repaired_from(&view.snapshot) {
            Some(original) if places.contains_key(&original) => (0, i64::MIN),
            Some(_) => (number, stored.min(ended).nanoseconds()),
            // The store's time of a copy is that of the copying.
            None if copied_from(&view.snapshot).is_some() => (number, stored.min(ended).nanoseconds()),
            None => (number, stored.nanoseconds()),
        }
    };
    let mut keys: Vec<Option<(u64, i64)>> = vec![None; views.len()];
    for start in 0..views.len() {
        // Up the line of parents to one that has its key, then down again. Ids are hashes of what
        // they name, parents included, so that a line has no circle.
        let mut line = vec![start];
        let parent_of =
            |place: usize| -> Option<usize> { places.get(&views.get(place)?.snapshot.parent?).copied() };
        while let Some(parent) = line.last().copied().and_then(parent_of) {
            if keys.get(parent).copied().flatten().is_some() || line.len() > views.len() {
                break;
            }
            line.push(parent);
        }
        for place in line.into_iter().rev() {
            let Some(view) = views.get(place) else { continue };
            let after = parent_of(place).and_then(|parent| keys.get(parent).copied().flatten());
            let after = after.map_or((0, i64::MIN), |(number, time)| (number, time.saturating_add(1)));
            let key = own(view).max(after);
            if let Some(slot) = keys.get_mut(place) {
                *slot = Some(key);
            }
        }
    }
    let mut sorted: Vec<_> = std::mem::take(views)
        .into_iter()
        .zip(keys)
        .map(|(view, key)| ((key, view.snapshot.started, view.id), view))
        .collect();
    sorted.sort_by_key(|(key, _)| *key);
    views.extend(sorted.into_iter().map(|(_, view)| view));
}

/// Folds annotations into the snapshots they speak about, as far as their signers may say so
/// (`format-spec/annotation.md`). Returns the forgotten snapshots that are not there, with what ended them, and those that a
/// pin speaks of.
fn apply(
    repository: &Repository,
    views: &mut [SnapshotView],
    places: &HashMap<SnapshotId, usize>,
    annotations: &[FoundAnnotation],
    memory: &Memory,
    refused: &mut Vec<(String, RepoError)>,
) -> (HashMap<SnapshotId, AnnotationId>, HashSet<SnapshotId>) {
    let registry = repository.registry();
    let mut believes = |found: &FoundAnnotation, act: Act<'_>| {
        let name = format!("annotation {}", found.id.short());
        match registry.believe(&name, &found.signer, act, &found.id.into()) {
            Ok(()) => true,
            Err(error) => {
                if !refused.iter().any(|(refused, _)| *refused == name) {
                    refused.push((name, error));
                }
                false
            }
        }
    };
    // [ANNOTATION-1]: cancelling is final, whatever the order in which things were said.
    let mut cancelled: HashSet<(AnnotationId, Option<SnapshotId>)> = HashSet::new();
    let by_id: HashMap<AnnotationId, &FoundAnnotation> =
        annotations.iter().map(|found| (found.id, found)).collect();
    for found in annotations {
        let annotation = &found.annotation;
        let Some(target) = annotation.cancels else { continue };
        match annotation.kind {
            AnnotationKind::Unpin if believes(found, Act::Withdraw) => {
                cancelled.insert((target, None));
            }
            AnnotationKind::Undeleted if believes(found, Act::Withdraw) => {
                if annotation.subjects.is_empty() && annotation.log_packs.is_empty() {
                    cancelled.insert((target, None));
                }
                cancelled.extend(annotation.subjects.iter().map(|subject| (target, Some(*subject))));
            }
            AnnotationKind::Untag => {
                // Whoever may tag the snapshot may take the tag off.
                let tag = by_id.get(&target);
                let subjects = tag.map(|tag| tag.annotation.subjects.iter()).into_iter().flatten();
                for subject in subjects {
                    let Some(view) = places.get(subject).and_then(|place| views.get(*place)) else {
                        continue;
                    };
                    let act = Act::Mark { host: &view.snapshot.host, label: &view.snapshot.label };
                    if believes(found, act) {
                        cancelled.insert((target, Some(*subject)));
                    }
                }
            }
            _ => {}
        }
    }
    let (mut ended, mut pinned) = (HashMap::new(), HashSet::new());
    // Tags made with the snapshot are taken off before later ones are put on.
    let ordered = annotations
        .iter()
        .filter(|found| found.annotation.kind == AnnotationKind::Untag)
        .chain(annotations.iter().filter(|found| found.annotation.kind != AnnotationKind::Untag));
    for found in ordered {
        let annotation = &found.annotation;
        for subject in annotation.subjects.iter() {
            let gone = |subject| cancelled.contains(&(found.id, subject));
            if gone(None) || gone(Some(*subject)) {
                continue;
            }
            let Some(view) = places.get(subject).and_then(|place| views.get_mut(*place)) else {
                match annotation.kind {
                    AnnotationKind::Forgotten if believes(found, Act::Withdraw) => {
                        ended.insert(*subject, found.id);
                    }
                    // Whether its signer may pin is not known without the snapshot; it may have been.
                    AnnotationKind::Pin => {
                        pinned.insert(*subject);
                    }
                    _ => {}
                }
                continue;
            };
            let mark = Act::Mark { host: &view.snapshot.host, label: &view.snapshot.label };
            match annotation.kind {
                AnnotationKind::Tag if believes(found, mark) => {
                    if let Some(key) = &annotation.key {
                        view.tags.insert(key.clone(), annotation.value.clone());
                        view.said.push(Said::new(found));
                    }
                }
                AnnotationKind::Untag if annotation.cancels.is_none() && believes(found, mark) => {
                    if let Some(key) = &annotation.key {
                        view.tags.remove(key);
                    }
                }
                AnnotationKind::Pin if believes(found, mark) => {
                    view.pinned.push(Pin { id: found.id, reason: annotation.value.clone() });
                    view.said.push(Said::new(found));
                }
                AnnotationKind::Note if believes(found, mark) => {
                    view.notes.extend(annotation.value.clone());
                    view.said.push(Said::new(found));
                }
                AnnotationKind::Verified if believes(found, Act::Verified) => {
                    view.said.push(Said::new(found))
                }
                AnnotationKind::Forgotten if believes(found, Act::Withdraw) => {
                    view.forgotten_by.push(found.id);
                }
                _ => {}
            }
        }
    }
    for view in views {
        // One that came back after its end was recorded: it has ended, unless that was taken back.
        if let Some(Told::Ended(end)) = memory.told(&view.id.into()) {
            let by = AnnotationId::from(end.authority);
            let is_cancelled = cancelled.contains(&(by, None)) || cancelled.contains(&(by, Some(view.id)));
            if is_by_annotation(end) && !is_cancelled && !view.forgotten_by.contains(&by) {
                view.forgotten_by.push(by);
            }
        }
        view.forgotten = !view.forgotten_by.is_empty() && view.pinned.is_empty();
    }
    (ended, pinned)
}

fn is_by_annotation(end: &CatalogEnd) -> bool {
    end.authority_kind == ObjectKind::Annotation
}
