//! Snapshots and annotations in catalogues, and what these say about such as are gone.

use super::{Item, choose_folded, fetch, put, take_over, tidy};
use crate::base::{AnnotationId, CatalogId, ObjectId, PackId, SnapshotId, Timestamp, explain, limits};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::catalog::{CatalogEnd, CatalogEntry, CatalogScope};
use crate::format::cbor::Extra;
use crate::format::place::Place;
use crate::format::trust::Act;
use crate::ops::OpsError;
use crate::ops::forget::require_whole_memory;
use crate::ops::snapshots::Snapshots;
use crate::repo::{Memory, RepoError, Repository, StoredRoot, Told, is_about_snapshots};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// New roots and ends that are worth a catalogue.
pub const ROOTS_AT_LEAST: usize = 32;
/// Makes a catalogue of what has gathered, if that is enough; returns it. `snapshots` must be all.
///
/// Whatever goes wrong is told and stops nobody: without a catalogue everything works, and takes longer.
pub fn gather(repository: &Repository, snapshots: &Snapshots, at_least: usize) -> Option<CatalogId> {
    told(repository, try_gather(repository, snapshots, at_least, &BTreeSet::new()))
}

/// Records the ends of snapshots that a sweep of this process has just deleted and that a catalogue lists: until then that
/// one goes on telling of them. A pin that came too late holds nothing, and stops nobody.
pub(in crate::ops) fn record_ends(repository: &Arc<Repository>, swept: &BTreeSet<SnapshotId>) {
    if swept.is_empty() {
        return;
    }
    let made =
        Snapshots::load_all(repository).and_then(|snapshots| try_gather(repository, &snapshots, 1, swept));
    told(repository, made);
}

fn told(repository: &Repository, made: Result<Option<CatalogId>, OpsError>) -> Option<CatalogId> {
    made.unwrap_or_else(|error| {
        let why = explain(&error);
        repository.environment().observer.warn(&format!("no catalogue was made: {why}"));
        None
    })
}

fn try_gather(
    repository: &Repository,
    snapshots: &Snapshots,
    at_least: usize,
    swept: &BTreeSet<SnapshotId>,
) -> Result<Option<CatalogId>, OpsError> {
    let memory = snapshots.memory();
    complete_copies(repository, memory)?;
    let new = new_roots(snapshots);
    let over = new_ends(snapshots, swept);
    if !snapshots.is_all()
        || new.len() + over.len() < at_least && memory.untold().is_empty() && memory.before().is_none()
        || new.is_empty() && over.is_empty() && memory.held().is_empty()
        || !memory.unread().is_empty()
    {
        return Ok(None);
    }
    let before = memory.before().map_or(0, |before| before.memory.next_number());
    let mut next_number = memory.next_number().max(before);
    let mut items = Vec::new();
    let originals = fetch(&new, |root| whole(repository, root))?;
    for (root, original) in new.iter().zip(originals) {
        let (Some(original), Some(first_seen)) = (original, root.stored) else { continue };
        let number = match memory.told(&root.place.id()) {
            // It came back: it has its number.
            Some(Told::Ended(end)) => end.number,
            _ => {
                next_number += 1;
                next_number - 1
            }
        };
        let (place, length) = (root.place.clone(), root.length);
        items.push(Item::There(CatalogEntry {
            place,
            number,
            first_seen,
            length,
            original,
            extra: Extra::new(),
        }));
    }
    items.extend(ends(repository, snapshots, &over)?.into_iter().map(Item::Ended));
    let present = snapshots.present();
    let is_own = |scope: &CatalogScope| matches!(scope, CatalogScope::Roots { .. });
    let folded = choose_folded(memory, is_own, present, &items);
    for id in &folded {
        take_over(repository, memory, present, id, &mut items)?;
    }
    tidy(memory, &folded, &mut items);
    let scope = scope(memory, &folded);
    let made = put(repository, memory, &scope, items, &folded, next_number)?;
    bring_along(repository, present)?;
    Ok(Some(made))
}

/// Puts under the current generation what has come into those that were closed while the catalogue was made. Its writer may
/// have looked for catalogues before there was this one, and readers look into the last one that was closed only.
fn bring_along(repository: &Repository, present: &HashSet<ObjectId>) -> Result<(), OpsError> {
    let store = &repository.environment().store;
    let current = format!("{:08x}", repository.generation()?);
    for kind in [ObjectKind::Snapshot, ObjectKind::Annotation] {
        let area = if kind == ObjectKind::Snapshot { "snapshots/" } else { "annotations/" };
        for object in store.list(area)? {
            let mut parts = object.name.split('/').skip(1);
            let (Some(folder), Some(Ok(id))) = (parts.next(), parts.next().map(str::parse::<ObjectId>))
            else {
                continue;
            };
            if folder >= current.as_str() || present.contains(&id) {
                continue;
            }
            let Ok(place) = Place::new(kind, folder, id) else { continue };
            let root = StoredRoot { place, length: object.length, stored: object.modified };
            if let Some(bytes) = whole(repository, &root)? {
                store.put(&format!("{area}{current}/{id}"), &bytes).map_err(RepoError::from)?;
            }
        }
    }
    Ok(())
}

/// Returns a root as it lies in the store; nothing of one that is gone, or not what it was named for.
fn whole(repository: &Repository, root: &StoredRoot) -> Result<Option<Vec<u8>>, RepoError> {
    match repository.root_bytes(&root.place.to_string(), &root.place.id()) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(RepoError::Storage(StorageError::NotFound { .. }) | RepoError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Brings a second copy to where there is only one.
fn complete_copies(repository: &Repository, memory: &Memory) -> Result<(), OpsError> {
    let store = &repository.environment().store;
    for (whole, missing) in memory.alone() {
        let bytes = store.get(whole, limits::LISTING_BYTES_MAX * 2).map_err(RepoError::from)?;
        let id = whole.rsplit('/').next().and_then(|id| id.parse::<ObjectId>().ok());
        if id.is_some_and(|id| blake3::hash(&bytes) == *id.as_bytes()) {
            store.put(missing, &bytes).map_err(RepoError::from)?;
        }
    }
    Ok(())
}

/// Finds what counts, lies in the store and is in no catalogue: snapshots in the order of their commits, then
/// annotations by the store's time.
fn new_roots(snapshots: &Snapshots) -> Vec<StoredRoot> {
    let memory = snapshots.memory();
    let order: HashMap<ObjectId, usize> = snapshots
        .with_forgotten()
        .iter()
        .enumerate()
        .map(|(place, view)| (ObjectId::from(view.id), place))
        .collect();
    let is_new = |root: &&StoredRoot| match memory.told(&root.place.id()) {
        None => true,
        Some(Told::There(_)) => false,
        Some(Told::Ended(_)) => {
            snapshots.get(&SnapshotId::from(root.place.id())).is_some_and(|view| !view.forgotten)
        }
    };
    let mut new: Vec<StoredRoot> = snapshots.stored().iter().filter(is_new).cloned().collect();
    let key = |root: &StoredRoot| {
        let id = root.place.id();
        (root.place.kind(), order.get(&id).copied(), root.stored, id)
    };
    new.sort_by_key(key);
    new.dedup_by_key(|root| root.place.id());
    new
}

/// Finds snapshots that a catalogue lists, that are gone, and that somebody has forgotten. One that is pinned may have been
/// deleted by somebody else, unless it is known to be swept.
fn new_ends(snapshots: &Snapshots, swept: &BTreeSet<SnapshotId>) -> BTreeMap<ObjectId, (u64, AnnotationId)> {
    let gone = snapshots.memory().entries().filter(|entry| {
        entry.place.kind() == ObjectKind::Snapshot && !snapshots.present().contains(&entry.place.id())
    });
    let ended = gone.filter_map(|entry| {
        let id = SnapshotId::from(entry.place.id());
        let is_over = swept.contains(&id) || !snapshots.is_pinned_gone(&id);
        let by = snapshots.forgotten_by(&id).filter(|_| is_over)?;
        Some((entry.place.id(), (entry.number, by)))
    });
    ended.collect()
}

/// Makes the records of these ends, with the annotations by which they ended.
fn ends(
    repository: &Repository,
    snapshots: &Snapshots,
    over: &BTreeMap<ObjectId, (u64, AnnotationId)>,
) -> Result<Vec<CatalogEnd>, OpsError> {
    let mut places: HashMap<ObjectId, &StoredRoot> = HashMap::new();
    for root in snapshots.stored().iter().filter(|root| root.place.kind() == ObjectKind::Annotation) {
        places.insert(root.place.id(), root);
    }
    let authorities: BTreeSet<ObjectId> = over.values().map(|(_, by)| ObjectId::from(*by)).collect();
    let found: Vec<&StoredRoot> = authorities.iter().filter_map(|id| places.get(id).copied()).collect();
    let originals: HashMap<ObjectId, (Vec<u8>, Option<Timestamp>)> = found
        .iter()
        .zip(fetch(&found, |root| whole(repository, root))?)
        .filter_map(|(root, original)| Some((root.place.id(), (original?, root.stored))))
        .collect();
    let end = |(id, (number, by)): (&ObjectId, &(u64, AnnotationId))| {
        let authority = ObjectId::from(*by);
        let (original, stored) = originals.get(&authority)?;
        Some(CatalogEnd {
            kind: ObjectKind::Snapshot,
            id: *id,
            number: *number,
            authority_kind: ObjectKind::Annotation,
            authority,
            ended: (*stored)?,
            original: Some(original.clone()),
            extra: Extra::new(),
        })
    };
    Ok(over.iter().filter_map(end).collect())
}

/// The generations that a new catalogue closes: the current one, and those of the catalogues that it takes over. What
/// was brought back stands under a later one already, and that becomes the current one: who puts something at this moment
/// puts it under the one that is closed last, where every reader looks ([CONCURRENCY-44]).
fn scope(memory: &Memory, folded: &BTreeSet<CatalogId>) -> CatalogScope {
    let current = memory.generation();
    let firsts = memory.held().iter().filter(|(id, _)| folded.contains(*id));
    let firsts = firsts.filter_map(|(_, held)| match held.scope() {
        CatalogScope::Roots { first, .. } => Some(*first),
        CatalogScope::Log(_) => None,
    });
    CatalogScope::Roots { first: firsts.min().unwrap_or(current), last: current }
}

/// Finds annotations that nobody needs any more: all snapshots that they speak about have ended, which catalogues
/// that are there record; or what they take back is gone ([ANNOTATION-6], [CATALOG-8]); or none of the packs that they
/// attest is there. `snapshots` must be all.
///
/// First those that say something, then those that take something back, which must go after them.
pub(in crate::ops) fn spent_annotations(
    snapshots: &Snapshots,
    is_there: impl Fn(&PackId) -> bool,
) -> Vec<Place> {
    let memory = snapshots.memory();
    let over = |id: &SnapshotId| {
        let id = ObjectId::from(*id);
        !snapshots.present().contains(&id) && matches!(memory.told(&id), Some(Told::Ended(_)))
    };
    let all: HashMap<AnnotationId, &Annotation> =
        snapshots.annotations().iter().map(|(id, annotation)| (*id, annotation)).collect();
    let is_spent = |annotation: &Annotation| {
        if is_about_snapshots(annotation) {
            return annotation.subjects.iter().all(over);
        }
        let Some(cancels) = annotation.cancels else { return false };
        match all.get(&cancels) {
            Some(target) => is_about_snapshots(target) && target.subjects.iter().all(over),
            // What it took back is gone. Should a forgetting only be hidden for a while, it must find this one still
            // there when it comes back.
            None => {
                annotation.kind != AnnotationKind::Undeleted
                    && !snapshots.present().contains(&ObjectId::from(cancels))
            }
        }
    };
    let mut spent: Vec<(bool, Place)> = Vec::new();
    for root in snapshots.stored().iter().filter(|root| root.place.kind() == ObjectKind::Annotation) {
        let Some(annotation) = all.get(&AnnotationId::from(root.place.id())) else { continue };
        let is_over = match annotation.kind {
            AnnotationKind::Attested => !annotation.packs.iter().any(&is_there),
            _ => is_spent(annotation),
        };
        if is_over {
            spent.push((annotation.cancels.is_some(), root.place.clone()));
        }
    }
    spent.sort();
    spent.into_iter().map(|(_, place)| place).collect()
}

/// Puts roots back that a catalogue lists and that are gone though nobody has ended them; returns their names.
///
/// # Errors
///
/// When a catalogue cannot be read, or the store fails.
pub(in crate::ops) fn put_back_vanished(
    repository: &Repository,
    vanished: &BTreeSet<String>,
    memory: &Memory,
) -> Result<Vec<String>, OpsError> {
    let mut back = Vec::new();
    if vanished.is_empty() {
        return Ok(back);
    }
    let generation = repository.generation()?;
    for id in memory.held().keys() {
        let (_, catalogue) = repository.read_catalogue(id)?;
        for entry in &catalogue.entries {
            let name = entry.place.to_string();
            let is_whole = blake3::hash(&entry.original) == *entry.place.id().as_bytes();
            if !is_whole || !vanished.contains(&name) || back.contains(&name) {
                continue;
            }
            // Where everybody looks, and where no condemnation can have named it.
            let folder = format!("{generation:08x}");
            let place = Place::new(entry.place.kind(), &folder, entry.place.id())
                .map_err(RepoError::damaged(name.as_str()))?;
            repository
                .environment()
                .store
                .put(&place.to_string(), &entry.original)
                .map_err(RepoError::from)?;
            back.push(name);
        }
    }
    Ok(back)
}

/// Makes a catalogue of whatever is in none yet, for who wants one now; returns it.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not; as [`Snapshots::load_all`].
pub fn gather_now(repository: &Arc<Repository>) -> Result<Option<CatalogId>, OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Catalog)?;
    let snapshots = Snapshots::load_all(repository)?;
    require_whole_memory(repository, &snapshots)?;
    try_gather(repository, &snapshots, 1, &BTreeSet::new())
}
