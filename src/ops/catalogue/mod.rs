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
//!
//! - this file: how catalogues are put together and written
//! - `roots`: snapshots and annotations
//! - `logs`: merged log packs

mod logs;
mod roots;

pub use logs::{LostMerge, MERGES_AT_LEAST, gather_logs, lost_merges};
pub use roots::{ROOTS_AT_LEAST, gather, gather_now};
pub(super) use roots::{put_back_vanished, record_ends, spent_annotations};

use super::error::OpsError;
use crate::base::{CatalogId, ObjectId};
use crate::format::ObjectKind;
use crate::format::catalog::{Catalog, CatalogEnd, CatalogEntry, CatalogPart, CatalogScope};
use crate::format::cbor::Extra;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::repo::{Memory, RepoError, Repository, Told, put_twice};
use std::collections::{BTreeSet, HashSet};

/// Plain bytes up to which catalogues are taken over into larger ones; what is longer is cut into several.
const PART_BYTES: usize = 24 << 20;
/// What an entry or end takes beside its original.
const AROUND_BYTES: usize = 200;
/// Ends that are remembered after the objects have left all catalogues.
const ENDS_MAX: usize = 1 << 15;
/// From so many objects on they are read by several threads.
const MANY: usize = 256;
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

/// Reads what a catalogue shall hold, of many several at once.
fn fetch<T: Sync>(
    from: &[T],
    get: impl Fn(&T) -> Result<Option<Vec<u8>>, RepoError> + Sync,
) -> Result<Vec<Option<Vec<u8>>>, OpsError> {
    if from.len() < MANY {
        return Ok(from.iter().map(get).collect::<Result<_, _>>()?);
    }
    let fetched: Result<Vec<Vec<_>>, RepoError> = std::thread::scope(|scope| {
        let get = &get;
        let threads: Vec<_> = from
            .chunks(from.len().div_ceil(THREADS))
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
fn choose_folded(
    memory: &Memory,
    is_own: impl Fn(&CatalogScope) -> bool,
    present: &HashSet<ObjectId>,
    items: &[Item],
) -> BTreeSet<CatalogId> {
    let mut bytes: usize = items.iter().map(Item::weight).sum();
    let mut sized: Vec<(usize, bool, CatalogId)> = Vec::new();
    for (id, held) in memory.held() {
        if !is_own(held.scope()) {
            continue;
        }
        let (mut length, mut gone) = (held.end_count() * AROUND_BYTES, 0);
        for (_, object, _, stored) in held.listed() {
            length += AROUND_BYTES + usize::try_from(stored).unwrap_or(usize::MAX / 2);
            // What is gone was allowed to go: that was looked at before.
            gone += usize::from(!present.contains(&object));
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
    memory: &Memory,
    present: &HashSet<ObjectId>,
    id: &CatalogId,
    items: &mut Vec<Item>,
) -> Result<(), OpsError> {
    let (_, catalogue) = repository.read_catalogue(id)?;
    for entry in catalogue.entries {
        let object = entry.place.id();
        let stands = matches!(memory.told(&object), Some(Told::There(_)));
        // [CATALOG-8]: an annotation that is gone, and was allowed to go.
        let is_gone = entry.place.kind() == ObjectKind::Annotation && !present.contains(&object);
        if stands && !is_gone {
            items.push(Item::There(entry));
        }
    }
    let stand = |end: &CatalogEnd| matches!(memory.told(&end.id), Some(Told::Ended(_)));
    items.extend(catalogue.ends.into_iter().filter(stand).map(Item::Ended));
    Ok(())
}

/// Sorts by number, takes out what stands there twice, and lets go of ends that are long over.
fn tidy(memory: &Memory, folded: &BTreeSet<CatalogId>, items: &mut Vec<Item>) {
    // An end that is new says more than the entry that was taken over; an object that came back more than its end.
    let mut seen: HashSet<ObjectId> = HashSet::new();
    items.retain(|item| {
        seen.insert(match item {
            Item::There(entry) => entry.place.id(),
            Item::Ended(end) => end.id,
        })
    });
    items.sort_by_key(|item| std::cmp::Reverse(item.number()));
    let in_kept = memory.held().iter().filter(|(id, _)| !folded.contains(*id));
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
    memory: &Memory,
    scope: &CatalogScope,
    items: Vec<Item>,
    folded: &BTreeSet<CatalogId>,
    next_number: u64,
) -> Result<CatalogId, OpsError> {
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
        .filter(|(id, _)| !folded.contains(*id))
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
