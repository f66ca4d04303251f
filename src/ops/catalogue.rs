//! Making catalogues: what lies in the store is written down together, with the signed originals, so that
//! whoever looks needs a handful of requests, and so that nothing vanishes unnoticed (`format-spec/catalog.md`).
//!
//! Forget and prune do it by themselves once enough has gathered. What is new, and what has ended, goes into one new
//! catalogue together with those of the earlier ones that are not much larger, or that mostly tell of what has ended: so there are only a few
//! of them, and each object is written down anew only a few times. Large ones stay as they are.
//!
//! Write order, and what a crash after each step leaves:
//! 1. where one object does not hold it all, first the catalogue that names the others: they are missing, and
//!    everybody reads the objects themselves until the next one is made;
//! 2. the others;
//! 3. what was taken over is condemned by the next prune: two catalogues that say the same.
//!
//! Each object is put below `copies/` first. Two at once make two catalogues, which both count until the next
//! one takes them over. A writer whose root neither has seen puts it again ([CONCURRENCY-22]).

use super::error::OpsError;
use super::names::Snapshots;
use crate::base::{AnnotationId, CatalogId, ObjectId, PackId, SnapshotId, Timestamp, explain, limits};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::catalog::{Catalog, CatalogEnd, CatalogEntry, CatalogPart, CatalogScope};
use crate::format::cbor::Extra;
use crate::format::place::Place;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::repo::{Memory, RepoError, Repository, StoredRoot, Told, is_about_snapshots, put_twice};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// New roots and ends that are worth a catalogue.
pub const ROOTS_AT_LEAST: usize = 32;
/// Plain bytes up to which catalogues are taken over into larger ones; what is longer is cut into several.
const PART_BYTES: usize = 24 << 20;
/// What an entry or end takes beside its original.
const AROUND_BYTES: usize = 200;
/// Ends that are remembered after the objects have left all catalogues.
const ENDS_MAX: usize = 1 << 15;
/// Originals that are fetched at once.
const THREADS: usize = 8;
const PROGRAM: &str = concat!("chronolith ", env!("CARGO_PKG_VERSION"));

/// What goes into a catalogue: an object that is there, or one that has ended.
enum Item {
    There(CatalogEntry),
    Ended(CatalogEnd),
}

impl Item {
    fn number(&self) -> u64 {
        match self {
            Self::There(entry) => entry.number,
            Self::Ended(end) => end.number,
        }
    }

    fn weight(&self) -> usize {
        AROUND_BYTES
            + match self {
                Self::There(entry) => entry.original.len(),
                Self::Ended(end) => end.original.as_ref().map_or(0, Vec::len),
            }
    }
}

/// Makes a catalogue of what has gathered, if that is enough; returns it. `snapshots` must be all.
///
/// Whatever goes wrong is told and stops nobody: without a catalogue everything works, and takes longer.
pub fn gather(repository: &Repository, snapshots: &Snapshots, at_least: usize) -> Option<CatalogId> {
    let made = try_gather(repository, snapshots, at_least);
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
) -> Result<Option<CatalogId>, OpsError> {
    let memory = snapshots.memory();
    complete_copies(repository, memory)?;
    let new = new_roots(snapshots);
    let over = new_ends(snapshots);
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
    let originals = fetch(repository, new.iter().map(|root| root.place.to_string()).collect())?;
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
    let folded = choose_folded(snapshots, &items);
    for id in &folded {
        take_over(repository, snapshots, id, &mut items)?;
    }
    let kept: BTreeSet<CatalogId> =
        memory.held().keys().filter(|id| !folded.contains(*id)).copied().collect();
    tidy(memory, &kept, &mut items);
    put(repository, snapshots, items, &folded, &kept, next_number).map(Some)
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

/// Finds snapshots that a catalogue lists, that are gone, and that somebody has forgotten.
fn new_ends(snapshots: &Snapshots) -> BTreeMap<ObjectId, (u64, AnnotationId)> {
    let gone = snapshots.memory().entries().filter(|entry| {
        entry.place.kind() == ObjectKind::Snapshot && !snapshots.present().contains(&entry.place.id())
    });
    let ended = gone.filter_map(|entry| {
        let by = snapshots.ended_by().get(&SnapshotId::from(entry.place.id()))?;
        Some((entry.place.id(), (entry.number, *by)))
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
    let names = found.iter().map(|root| root.place.to_string()).collect();
    let originals: HashMap<ObjectId, (Vec<u8>, Option<Timestamp>)> = found
        .iter()
        .zip(fetch(repository, names)?)
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

/// Fetches objects, several at once; of those that are gone or not what they were named for nothing comes.
fn fetch(repository: &Repository, names: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, OpsError> {
    let get = |name: &String| -> Result<Option<Vec<u8>>, RepoError> {
        let bytes = match repository.environment().store.get(name, limits::STRUCTURED_BYTES_MAX * 2) {
            Ok(bytes) => bytes,
            Err(crate::storage::StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let id = name.rsplit('/').next().and_then(|id| id.parse::<ObjectId>().ok());
        let is_whole = id.is_some_and(|id| blake3::hash(&bytes) == *id.as_bytes());
        Ok(is_whole.then_some(bytes))
    };
    if names.len() < ROOTS_AT_LEAST * THREADS {
        return Ok(names.iter().map(get).collect::<Result<_, _>>()?);
    }
    let share = names.len().div_ceil(THREADS);
    let fetched: Result<Vec<Vec<_>>, RepoError> = std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(get).collect::<Result<Vec<_>, _>>()))
            .collect();
        let panicked =
            || RepoError::Internal { doing: "making a catalogue", why: "a thread panicked".to_owned() };
        threads.into_iter().map(|thread| thread.join().map_err(|_| panicked())?).collect()
    });
    Ok(fetched?.into_iter().flatten().collect())
}

/// Chooses the catalogues that are taken over: small ones beside what is new, and those that mostly tell of
/// what is over.
fn choose_folded(snapshots: &Snapshots, items: &[Item]) -> BTreeSet<CatalogId> {
    let memory = snapshots.memory();
    let mut bytes: usize = items.iter().map(Item::weight).sum();
    let mut sized: Vec<(usize, bool, CatalogId)> = Vec::new();
    for (id, held) in memory.held() {
        if !matches!(held.scope(), CatalogScope::Roots { .. }) {
            continue;
        }
        let (mut length, mut gone) = (held.end_count() * AROUND_BYTES, 0);
        for (_, object, _, stored) in held.listed() {
            length += AROUND_BYTES + usize::try_from(stored).unwrap_or(usize::MAX / 2);
            // What is gone was allowed to go: that was looked at before.
            gone += usize::from(!snapshots.present().contains(&object));
        }
        sized.push((length, gone > held.entry_count() / 2, *id));
    }
    sized.sort();
    let mut folded = BTreeSet::new();
    for (length, is_mostly_over, id) in sized {
        let fits = length <= bytes.saturating_mul(2) && bytes + length <= PART_BYTES;
        if fits || is_mostly_over {
            bytes += length;
            folded.insert(id);
        }
    }
    folded
}

/// Takes what a catalogue says, as far as it still stands.
fn take_over(
    repository: &Repository,
    snapshots: &Snapshots,
    id: &CatalogId,
    items: &mut Vec<Item>,
) -> Result<(), OpsError> {
    let memory = snapshots.memory();
    let (_, catalogue) = repository.read_catalogue(id)?;
    for entry in catalogue.entries {
        let object = entry.place.id();
        let stands = matches!(memory.told(&object), Some(Told::There(_)));
        // [CATALOG-8]: an annotation that is gone, and was allowed to go.
        let is_gone = entry.place.kind() == ObjectKind::Annotation && !snapshots.present().contains(&object);
        if stands && !is_gone {
            items.push(Item::There(entry));
        }
    }
    let stand = |end: &CatalogEnd| matches!(memory.told(&end.id), Some(Told::Ended(_)));
    items.extend(catalogue.ends.into_iter().filter(stand).map(Item::Ended));
    Ok(())
}

/// Sorts by number, takes out what stands there twice, and lets go of ends that are long over.
fn tidy(memory: &Memory, kept: &BTreeSet<CatalogId>, items: &mut Vec<Item>) {
    // An end that is new says more than the entry that was taken over; an object that came back more than its end.
    let mut seen: HashSet<ObjectId> = HashSet::new();
    items.retain(|item| {
        seen.insert(match item {
            Item::There(entry) => entry.place.id(),
            Item::Ended(end) => end.id,
        })
    });
    items.sort_by_key(|item| std::cmp::Reverse(item.number()));
    let in_kept = memory.held().iter().filter(|(id, _)| kept.contains(*id));
    let listed: HashSet<ObjectId> =
        in_kept.flat_map(|(_, held)| held.listed()).map(|(_, object, ..)| object).collect();
    let mut ends = 0;
    items.retain(|item| match item {
        Item::There(_) => true,
        Item::Ended(end) => {
            ends += 1;
            ends <= ENDS_MAX || listed.contains(&end.id)
        }
    });
    items.reverse();
}

/// Puts the items into as many catalogues as they take; the last of them is the newest.
fn put(
    repository: &Repository,
    snapshots: &Snapshots,
    items: Vec<Item>,
    folded: &BTreeSet<CatalogId>,
    kept: &BTreeSet<CatalogId>,
    next_number: u64,
) -> Result<CatalogId, OpsError> {
    let memory = snapshots.memory();
    let scope = scope(snapshots, folded);
    // Behind what is gone, so that a client which has seen that sees this as newer.
    let seen = memory.before().and_then(|before| before.newest());
    let (mut sequence, mut predecessor) =
        match memory.newest().into_iter().chain(seen).max_by_key(|(_, sequence)| *sequence) {
            Some((id, sequence)) => (sequence, Some(id)),
            None => (0, None),
        };
    let mut parts: Vec<CatalogPart> = memory
        .held()
        .iter()
        .filter(|(id, _)| kept.contains(*id))
        .map(|(id, held)| CatalogPart {
            catalogue: *id,
            scope: held.scope().clone(),
            entries: held.entry_count() as u64,
            extra: Extra::new(),
        })
        .collect();
    let gone = memory.before().into_iter().flat_map(|before| &before.gone);
    let replaced = folded.iter().chain(memory.replaced()).chain(memory.untold()).chain(gone);
    let replaces: IdSet<CatalogId> = replaced.copied().collect();
    let mut pieces = pieces(items);
    let last = pieces.pop().unwrap_or_default();
    let mut objects: Vec<(CatalogId, Vec<u8>)> = Vec::new();
    let count = pieces.len();
    for (number, piece) in pieces.into_iter().chain([last]).enumerate() {
        sequence += 1;
        let (mut entries, mut ends) = (Vec::new(), Vec::new());
        for item in piece {
            match item {
                Item::There(entry) => entries.push(entry),
                Item::Ended(end) => ends.push(end),
            }
        }
        entries.sort_by_key(|entry| (entry.place.kind(), entry.place.id()));
        ends.sort_by_key(|end| (end.kind, end.id));
        let entry_count = entries.len() as u64;
        let is_newest = number == count;
        parts.sort_by_key(|part| part.catalogue);
        let catalogue = Catalog {
            sequence,
            predecessor,
            created: repository.environment().clock.now(),
            scope: scope.clone(),
            entries,
            ends,
            parts: if is_newest { parts.clone() } else { Vec::new() },
            replaces: if is_newest { replaces.clone() } else { IdSet::default() },
            program: PROGRAM.to_owned(),
            next_number,
            extra: Extra::new(),
        };
        let payload = catalogue.encode().map_err(RepoError::damaged("the catalogue being written"))?;
        let (id, bytes) = repository.seal_object(ObjectKind::Catalog, Act::Catalog, &payload)?;
        let id = CatalogId::from(id);
        let extra = Extra::new();
        parts.push(CatalogPart { catalogue: id, scope: scope.clone(), entries: entry_count, extra });
        predecessor = Some(id);
        objects.push((id, bytes));
    }
    let newest = predecessor.ok_or_else(|| RepoError::Internal {
        doing: "making a catalogue",
        why: "nothing was to be written".to_owned(),
    })?;
    for (id, bytes) in objects.iter().rev() {
        put_twice(repository.environment(), &format!("catalog/{id}"), bytes)?;
    }
    Ok(newest)
}

/// The generations that a new catalogue closes: the current one, and any that is already written under.
fn scope(snapshots: &Snapshots, folded: &BTreeSet<CatalogId>) -> CatalogScope {
    let memory = snapshots.memory();
    let current = memory.generation();
    let firsts = memory.held().iter().filter(|(id, _)| folded.contains(*id));
    let firsts = firsts.filter_map(|(_, held)| match held.scope() {
        CatalogScope::Roots { first, .. } => Some(*first),
        CatalogScope::Log(_) => None,
    });
    let folders =
        snapshots.stored().iter().filter_map(|root| u32::from_str_radix(root.place.folder(), 16).ok());
    // Somebody who wants to exhaust the numbers must not.
    let last = folders.filter(|folder| *folder < u32::MAX / 2).max().unwrap_or(current).max(current);
    CatalogScope::Roots { first: firsts.min().unwrap_or(current), last }
}

fn pieces(items: Vec<Item>) -> Vec<Vec<Item>> {
    let (mut pieces, mut bytes) = (vec![Vec::new()], 0);
    for item in items {
        let weight = item.weight();
        if bytes > 0 && bytes + weight > PART_BYTES {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += weight;
        if let Some(piece) = pieces.last_mut() {
            piece.push(item);
        }
    }
    pieces
}

/// Finds annotations that nobody needs any more: all snapshots that they speak about have ended, which catalogues
/// that are there record; or what they take back is gone ([ANNOTATION-6], [CATALOG-8]); or none of the packs that they
/// attest is there. `snapshots` must be all.
///
/// First those that say something, then those that take something back, which must go after them.
pub(super) fn spent_annotations(snapshots: &Snapshots, is_there: impl Fn(&PackId) -> bool) -> Vec<Place> {
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
pub(super) fn put_back_vanished(
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
    super::forget::require_whole_memory(repository, &snapshots)?;
    try_gather(repository, &snapshots, 1)
}
