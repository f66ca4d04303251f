//! What catalogues remember: which roots there are, in which order they came, and which have ended.
//!
//! - this file: all catalogues that count, taken together
//! - `read`: catalogues come from the store, or from what this client keeps of them
//! - `roots`: snapshots and annotations, from catalogues as far as these go
//! - `logs`: merged log packs, as catalogues tell of them
//! - `place`: where a new root is put, so that everybody finds it
//!
//! Every catalogue that no other one replaces counts, so that of two that were made at the same moment none is
//! lost: each of them says of which objects it knows, and what a later one says of an object stands.
//! Normative: `format-spec/catalog.md`.

mod logs;
mod place;
mod read;
mod roots;

pub(super) use logs::merge;
pub(super) use place::Closings;
pub use place::Committed;
pub use roots::{Roots, RootsWanted, StoredRoot};

use super::error::RepoError;
use crate::base::{CatalogId, KeyId, ObjectId, SnapshotId};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::catalog::{Catalog, CatalogEnd, CatalogEntry, CatalogScope};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A signed original whose signature holds: who signed it, and what it says.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub signer: KeyId,
    pub payload: Vec<u8>,
}

impl Opened {
    /// In the form in which a catalogue in memory and the client's own cache hold it.
    fn pack(&self) -> Vec<u8> {
        [self.signer.as_bytes().as_slice(), &self.payload].concat()
    }

    /// `None` where the original turned out bad.
    fn unpack(packed: &[u8]) -> Option<Self> {
        let (signer, payload) = packed.split_first_chunk::<32>()?;
        (!payload.is_empty()).then(|| Self { signer: KeyId::new(*signer), payload: payload.to_vec() })
    }
}

/// A catalogue that counts.
#[derive(Debug)]
pub struct Remembered {
    /// Who signed it.
    pub signer: KeyId,
    /// What it says; in the place of each original of an entry stands what that says once it was verified.
    catalogue: Catalog,
}

impl Remembered {
    /// Returns what it lists.
    pub fn scope(&self) -> &CatalogScope {
        &self.catalogue.scope
    }

    /// Returns its number in the order in which catalogues were made.
    pub fn sequence(&self) -> u64 {
        self.catalogue.sequence
    }

    /// Returns how many objects it lists as there.
    pub fn entry_count(&self) -> usize {
        self.catalogue.entries.len()
    }

    /// Returns the objects that it lists as there: kind, id, number, and about how many bytes of each it holds.
    pub fn listed(&self) -> impl Iterator<Item = (ObjectKind, ObjectId, u64, u64)> {
        let held = |entry: &CatalogEntry| match entry.place.kind() {
            ObjectKind::LogPack => entry.original.len() as u64,
            _ => entry.length,
        };
        let entries = self.catalogue.entries.iter();
        entries.map(move |entry| (entry.place.kind(), entry.place.id(), entry.number, held(entry)))
    }

    /// Returns how many ends it holds.
    pub fn end_count(&self) -> usize {
        self.catalogue.ends.len()
    }

    fn lists(&self, id: &ObjectId) -> bool {
        self.catalogue.entries.iter().any(|entry| entry.place.id() == *id)
    }
}

/// What catalogues last say of an object.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// That it is there.
    There(&'a CatalogEntry),
    /// That it has ended.
    Ended(&'a CatalogEnd),
}

/// All catalogues that count, taken together.
#[derive(Debug, Default)]
pub struct Memory {
    held: BTreeMap<CatalogId, Arc<Remembered>>,
    /// For each object the sequence of the catalogue that speaks of it last, that catalogue, and the place
    /// in its entries, or in its ends.
    last: HashMap<ObjectId, (u64, CatalogId, Result<usize, usize>)>,
    replaced: BTreeSet<CatalogId>,
    untold: BTreeSet<CatalogId>,
    unread: Vec<(String, RepoError)>,
    alone: Vec<(String, String)>,
    before: Option<Box<Before>>,
}

/// What a client saw that is gone from the store, with whatever came after it: the store was set back to an earlier
/// state, or somebody took it away.
#[derive(Debug)]
pub struct Before {
    /// The greatest sequence of those that were seen.
    pub sequence: u64,
    /// The catalogues that counted then and are gone.
    pub gone: Vec<CatalogId>,
    /// What they remembered, as far as the client's cache still holds it.
    pub memory: Memory,
    /// Whether it holds all of it.
    pub is_whole: bool,
}

impl Before {
    /// Returns what was the newest, with its sequence.
    pub fn newest(&self) -> Option<(CatalogId, u64)> {
        let known = self.memory.newest().map(|(id, _)| id);
        known.or_else(|| self.gone.first().copied()).map(|id| (id, self.sequence))
    }
}

impl Memory {
    /// Takes catalogues together; `there` are the ids of all that lie in the store, counting or not.
    fn assemble(found: BTreeMap<CatalogId, Arc<Remembered>>, refused: BTreeSet<CatalogId>) -> Self {
        let said = |list: fn(&Catalog) -> Vec<CatalogId>| -> BTreeSet<CatalogId> {
            found.values().flat_map(|remembered| list(&remembered.catalogue)).collect()
        };
        let replaced = said(|catalogue| catalogue.replaces.iter().copied().collect());
        let parts = said(|catalogue| catalogue.parts.iter().map(|part| part.catalogue).collect());
        let mut untold: BTreeSet<CatalogId> =
            parts.iter().filter(|part| !found.contains_key(*part)).copied().collect();
        untold.extend(refused);
        untold.retain(|id| !replaced.contains(id));
        let mut memory = Self { untold, ..Self::default() };
        for (id, remembered) in found {
            match replaced.contains(&id) {
                true => drop(memory.replaced.insert(id)),
                false => drop(memory.held.insert(id, remembered)),
            }
        }
        for (id, remembered) in &memory.held {
            let catalogue = &remembered.catalogue;
            let mut tell = |object: ObjectId, place: Result<usize, usize>| {
                let new = (catalogue.sequence, *id, place);
                let known = memory.last.entry(object).or_insert(new);
                // Of two of the same moment the one that has seen it is right.
                let order = |told: &(u64, CatalogId, Result<usize, usize>)| (told.0, told.2.is_ok());
                if order(&new) > order(known) {
                    *known = new;
                }
            };
            let entries = catalogue.entries.iter().enumerate();
            entries.for_each(|(place, entry)| tell(entry.place.id(), Ok(place)));
            let ends = catalogue.ends.iter().enumerate();
            ends.for_each(|(place, end)| tell(end.id, Err(place)));
        }
        memory
    }

    /// Returns what was said last of an object.
    pub fn told(&self, id: &ObjectId) -> Option<Told<'_>> {
        let (_, catalogue, place) = self.last.get(id)?;
        let catalogue = &self.held.get(catalogue)?.catalogue;
        match place {
            Ok(place) => catalogue.entries.get(*place).map(Told::There),
            Err(place) => catalogue.ends.get(*place).map(Told::Ended),
        }
    }

    /// Returns all objects that are there as far as catalogues know.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.last.keys().filter_map(|id| match self.told(id)? {
            Told::There(entry) => Some(entry),
            Told::Ended(_) => None,
        })
    }

    /// Returns all recorded ends.
    pub fn ends(&self) -> impl Iterator<Item = &CatalogEnd> {
        self.last.keys().filter_map(|id| match self.told(id)? {
            Told::Ended(end) => Some(end),
            Told::There(_) => None,
        })
    }

    /// Returns the catalogues that count and that no other replaces.
    pub fn held(&self) -> &BTreeMap<CatalogId, Arc<Remembered>> {
        &self.held
    }

    /// Returns catalogues that are there and that others have taken over: they may go.
    pub fn replaced(&self) -> &BTreeSet<CatalogId> {
        &self.replaced
    }

    /// Returns catalogues that belong to the whole and are gone, or that somebody signed whose word counts no
    /// more: what they told has to be found out anew, and the next catalogue takes their place.
    pub fn untold(&self) -> &BTreeSet<CatalogId> {
        &self.untold
    }

    /// Returns catalogues of which neither copy can be read, and why: they might remember more.
    pub fn unread(&self) -> &[(String, RepoError)] {
        &self.unread
    }

    /// Returns the names of copies of catalogues that are whole, each with the name of the one that is not there.
    pub fn alone(&self) -> &[(String, String)] {
        &self.alone
    }

    /// Returns what this client saw before, where the store holds none of it and nothing newer.
    pub fn before(&self) -> Option<&Before> {
        self.before.as_deref()
    }

    /// Says whether catalogues tell of all that closed generations hold.
    pub fn is_whole(&self) -> bool {
        self.untold.is_empty() && self.unread.is_empty()
    }

    /// Returns the newest catalogue and its sequence ([CATALOG-4]).
    pub fn newest(&self) -> Option<(CatalogId, u64)> {
        let order = |held: &(&CatalogId, &Arc<Remembered>)| (held.1.sequence(), std::cmp::Reverse(*held.0));
        self.held.iter().max_by_key(order).map(|(id, held)| (*id, held.sequence()))
    }

    /// Returns the number that the next object seen will have.
    pub fn next_number(&self) -> u64 {
        self.held.values().map(|held| held.catalogue.next_number).max().unwrap_or(1)
    }

    /// Returns the generation under which new roots are put ([CONCURRENCY-43]).
    pub fn generation(&self) -> u32 {
        let closed = self.held.values().filter_map(|held| match held.scope() {
            CatalogScope::Roots { last, .. } => Some(*last),
            CatalogScope::Log(_) => None,
        });
        closed.max().unwrap_or(0).saturating_add(1)
    }

    /// Returns the names of snapshots and annotations that a catalogue lists, that are not among `present`,
    /// and whose end neither a catalogue nor `ended` knows ([CONCURRENCY-45]).
    pub fn vanished(
        &self,
        present: &HashSet<ObjectId>,
        ended: impl Fn(&SnapshotId) -> bool,
    ) -> BTreeSet<String> {
        let over = |id: &SnapshotId| {
            // One that came back after its end has ended all the same.
            let told = self.told(&ObjectId::from(*id));
            matches!(told, Some(Told::Ended(_))) || !present.contains(&ObjectId::from(*id)) && ended(id)
        };
        let excused = |entry: &CatalogEntry| match entry.place.kind() {
            ObjectKind::Annotation => self.speaks_of_nothing(entry, present, &over),
            ObjectKind::Snapshot => over(&SnapshotId::from(entry.place.id())),
            // What a log holds needs nothing else, so nothing is deleted for want of it ([CATALOG-14]).
            _ => true,
        };
        let gone = self.entries().filter(|entry| !present.contains(&entry.place.id()));
        gone.filter(|entry| !excused(entry)).map(|entry| entry.place.to_string()).collect()
    }

    /// [CATALOG-8]: says whether an annotation speaks only about what has ended, or takes back only what does; an
    /// attestation keeps nothing.
    fn speaks_of_nothing(
        &self,
        entry: &CatalogEntry,
        present: &HashSet<ObjectId>,
        over: &impl Fn(&SnapshotId) -> bool,
    ) -> bool {
        let Some(annotation) = read_annotation(entry) else { return false };
        if annotation.kind == AnnotationKind::Attested {
            return true;
        }
        if is_about_snapshots(&annotation) {
            return annotation.subjects.iter().all(over);
        }
        let Some(cancels) = annotation.cancels.map(ObjectId::from) else { return false };
        let target = match self.told(&cancels) {
            Some(Told::There(target)) => read_annotation(target),
            _ => None,
        };
        match target {
            Some(target) => !present.contains(&cancels) && target.subjects.iter().all(over),
            // A forgetting that is only hidden must not come back without what took it back.
            None => annotation.kind != AnnotationKind::Undeleted && !present.contains(&cancels),
        }
    }
}

/// Returns what an annotation in a catalogue says.
fn read_annotation(entry: &CatalogEntry) -> Option<Annotation> {
    Opened::unpack(&entry.original).and_then(|opened| Annotation::decode(&opened.payload).ok())
}

/// Says whether an annotation speaks about snapshots and nothing else.
pub fn is_about_snapshots(annotation: &Annotation) -> bool {
    !annotation.subjects.is_empty() && annotation.packs.is_empty() && annotation.log_packs.is_empty()
}
