//! Snapshots and annotations: closed generations from catalogues, the rest from the store.

use super::{Memory, Opened, Told};
use crate::base::{ObjectId, Timestamp, explain};
use crate::format::ObjectKind;
use crate::format::catalog::CatalogEntry;
use crate::format::place::Place;
use crate::repo::error::RepoError;
use crate::repo::repository::Repository;
use crate::repo::roots::{FoundAnnotation, FoundSnapshot, Listing};
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{HashMap, HashSet};

/// From so many objects on they are read by several threads.
const MANY: usize = 256;
/// Objects that are asked for at once.
const THREADS: usize = 8;

/// Which roots are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootsWanted {
    /// What there is to show and to restore: closed generations as catalogues tell of them.
    Shown,
    /// Everything that lies in the store: whoever forgets or deletes looks at no less ([CONCURRENCY-44]).
    All,
}

/// A root as it lies in the store.
#[derive(Debug, Clone)]
pub struct StoredRoot {
    /// Where.
    pub place: Place,
    /// Its stored length.
    pub length: u64,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
}

/// What was found of snapshots and annotations.
pub struct Roots {
    /// Snapshots.
    pub snapshots: Listing<FoundSnapshot>,
    /// Annotations.
    pub annotations: Listing<FoundAnnotation>,
    /// What catalogues say of both.
    pub memory: Memory,
    /// Whether all that lies in the store was listed.
    pub is_all: bool,
    /// All that were listed in the store and count; an object may lie in several places.
    pub stored: Vec<StoredRoot>,
    /// Ids of all that were listed in the store, counting or not.
    pub present: HashSet<ObjectId>,
}

/// An object of one kind, wherever it was read.
struct Root {
    id: ObjectId,
    name: String,
    stored: Option<Timestamp>,
    number: Option<u64>,
    opened: Result<Opened, RepoError>,
}

impl Repository {
    /// Reads snapshots and annotations. One that is damaged, or whose signer may not make it, is refused by name
    /// and harms no other.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or does not answer.
    pub fn roots(&self, wanted: RootsWanted) -> Result<Roots, RepoError> {
        // First: what a catalogue lists was put before, so that the listing shows it ([CONCURRENCY-26]).
        let mut memory = self.memory()?;
        let mut is_all = wanted == RootsWanted::All || memory.generation() == 1 || !memory.is_whole();
        if !is_all && self.goes_on_after(memory.generation())? {
            // Somebody has closed the generation since. Or what lies there was brought back from what was condemned in
            // this one, or the catalogue that closed this one is lost: then nothing but a look at everything shows it.
            memory = self.memory()?;
            is_all = !memory.is_whole() || self.goes_on_after(memory.generation())?;
        }
        let mut roots = Roots {
            snapshots: Listing { found: Vec::new(), refused: Vec::new() },
            annotations: Listing { found: Vec::new(), refused: Vec::new() },
            memory,
            is_all,
            stored: Vec::new(),
            present: HashSet::new(),
        };
        for root in self.read_area(ObjectKind::Snapshot, &mut roots)? {
            let read = root.opened.and_then(|opened| {
                self.read_snapshot(&root.name, root.id, opened.signer, &opened.payload, root.stored)
            });
            match read {
                Ok(found) => roots.snapshots.found.push(FoundSnapshot { number: root.number, ..found }),
                Err(error) => roots.snapshots.refused.push((root.name, error)),
            }
        }
        // One that was brought back may stand in two generations: it is one, as old as it was first.
        roots.snapshots.found.sort_by_key(|found| (found.id, found.stored));
        roots.snapshots.found.dedup_by_key(|found| found.id);
        for root in self.read_area(ObjectKind::Annotation, &mut roots)? {
            let read = root
                .opened
                .and_then(|opened| self.read_annotation(&root.name, root.id, opened.signer, &opened.payload));
            match read {
                Ok(found) => roots.annotations.found.push(found),
                Err(error) => roots.annotations.refused.push((root.name, error)),
            }
        }
        roots.annotations.found.sort_by_key(|found| found.id);
        roots.annotations.found.dedup_by_key(|found| found.id);
        let refused = roots.snapshots.refused.iter().chain(&roots.annotations.refused);
        let refused: HashSet<&str> = refused.map(|(name, _)| name.as_str()).collect();
        roots.stored.retain(|root| !refused.contains(root.place.to_string().as_str()));
        Ok(roots)
    }

    /// Says whether objects lie in the generation after this one.
    fn goes_on_after(&self, generation: u32) -> Result<bool, RepoError> {
        let next = generation.saturating_add(1);
        for area in ["snapshots", "annotations"] {
            if !self.environment().store.list(&format!("{area}/{next:08x}/"))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the objects of a kind and opens them: those that a catalogue holds, or that this client has
    /// opened before, without a request.
    fn read_area(&self, kind: ObjectKind, roots: &mut Roots) -> Result<Vec<Root>, RepoError> {
        let memory = &roots.memory;
        let area = if kind == ObjectKind::Snapshot { "snapshots" } else { "annotations" };
        let prefix = match roots.is_all {
            true => format!("{area}/"),
            false => format!("{area}/{:08x}/", memory.generation()),
        };
        let entries: HashMap<ObjectId, &CatalogEntry> = memory
            .entries()
            .filter(|entry| entry.place.kind() == kind)
            .map(|entry| (entry.place.id(), entry))
            .collect();
        let mut objects = Vec::new();
        let mut listed = self.environment().store.list(&prefix)?;
        let closed = listed.len();
        if !roots.is_all {
            // Whoever put something while the catalogue was made may have looked for one before it was there, and have
            // told of success: it is in the generation that was closed, and in no catalogue ([CONCURRENCY-44]).
            let last = memory.generation().saturating_sub(1);
            listed.extend(self.environment().store.list(&format!("{area}/{last:08x}/"))?);
        }
        for (place, object) in listed.into_iter().enumerate() {
            let mut parts = object.name.split('/').skip(1);
            let (Some(folder), Some(Ok(id))) = (parts.next(), parts.next().map(str::parse::<ObjectId>))
            else {
                continue;
            };
            if place >= closed && memory.told(&id).is_some() {
                continue;
            }
            roots.present.insert(id);
            if let Ok(place) = Place::new(kind, folder, id) {
                roots.stored.push(StoredRoot { place, length: object.length, stored: object.modified });
            }
            objects.push((id, object));
        }
        if !roots.is_all {
            let listed = entries.values().filter(|entry| !roots.present.contains(&entry.place.id()));
            objects.extend(listed.map(|entry| {
                let (name, length) = (entry.place.to_string(), entry.length);
                (entry.place.id(), ObjectInfo { name, length, modified: Some(entry.first_seen) })
            }));
        }
        let known = self.known_objects();
        let (mut found, mut fetched) = (Vec::with_capacity(objects.len()), Vec::new());
        for (id, object) in objects {
            let entry = entries.get(&id);
            // Of one that came back after its end the number still holds.
            let number = entry.map(|entry| entry.number).or_else(|| match memory.told(&id) {
                Some(Told::Ended(end)) => Some(end.number),
                _ => None,
            });
            let stored = entry.map(|entry| entry.first_seen).or(object.modified);
            let opened = entry
                .filter(|entry| entry.length == object.length)
                .and_then(|entry| Opened::unpack(&entry.original))
                .or_else(|| unpack_row(&known?.get(id.as_bytes())?, object.length));
            let root = |opened| Root { id, name: object.name.clone(), stored, number, opened };
            match opened {
                Some(opened) => found.push(root(Ok(opened))),
                None => fetched.push((root(Ok(Opened::none())), object)),
            }
        }
        let (mut rows, mut seen) = (Vec::new(), Vec::new());
        for (mut root, object, opened) in self.fetch_roots(kind, fetched) {
            match opened {
                // Removed since it was listed.
                Err(RepoError::Storage(StorageError::NotFound { .. })) => continue,
                // It may be whole: whoever counts on the list must have it whole, too.
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                // A catalogue that lists it holds it as well, with its own signature.
                Err(error @ (RepoError::Damaged { .. } | RepoError::Storage(_))) => {
                    let held = entries.get(&root.id).and_then(|entry| Opened::unpack(&entry.original));
                    if held.is_some() {
                        let why = explain(&error);
                        let text = format!("{}: {why}; what a catalogue holds of it is taken", root.name);
                        self.environment().observer.warn(&text);
                    }
                    root.opened = held.ok_or(error);
                    seen.push(root);
                    continue;
                }
                opened => root.opened = opened,
            }
            if let Ok(opened) = &root.opened {
                rows.push((*root.id.as_bytes(), pack_row(opened, object.length)));
            }
            seen.push(root);
        }
        if let Some(known) = known.filter(|_| !rows.is_empty()) {
            known.put(self.environment().entropy.as_ref(), rows);
        }
        found.extend(seen);
        Ok(found)
    }

    /// Reads objects, many of them by several threads at once.
    fn fetch_roots(
        &self,
        kind: ObjectKind,
        objects: Vec<(Root, ObjectInfo)>,
    ) -> Vec<(Root, ObjectInfo, Result<Opened, RepoError>)> {
        let fetch = |(root, object): (Root, ObjectInfo)| {
            let opened = self
                .get_root(&object.name, &root.id)
                .map_err(RepoError::from)
                .and_then(|bytes| self.open_object(&object.name, root.id, kind, &bytes))
                .map(|(signer, payload)| Opened { signer, payload });
            (root, object, opened)
        };
        if objects.len() < MANY {
            return objects.into_iter().map(fetch).collect();
        }
        let share = objects.len().div_ceil(THREADS);
        let mut shares: Vec<Vec<_>> = (0..THREADS).map(|_| Vec::with_capacity(share)).collect();
        for (number, object) in objects.into_iter().enumerate() {
            if let Some(share) = shares.get_mut(number / share) {
                share.push(object);
            }
        }
        std::thread::scope(|scope| {
            let fetch = &fetch;
            let threads: Vec<_> = shares
                .into_iter()
                .map(|share| scope.spawn(move || share.into_iter().map(fetch).collect::<Vec<_>>()))
                .collect();
            // A panic goes on in this thread.
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.flatten().collect()
        })
    }
}

impl Opened {
    /// Stands where nothing was read yet.
    fn none() -> Self {
        Self { signer: crate::base::KeyId::new([0; 32]), payload: Vec::new() }
    }
}

/// What the client keeps of an object: its stored length, who signed it, what it says.
fn pack_row(opened: &Opened, length: u64) -> Vec<u8> {
    [length.to_le_bytes().as_slice(), &opened.pack()].concat()
}

fn unpack_row(row: &[u8], length: u64) -> Option<Opened> {
    let (stored, opened) = row.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*stored) == length { Opened::unpack(opened) } else { None }
}
