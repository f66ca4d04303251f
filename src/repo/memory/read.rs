//! Catalogues as this client reads them: each from whichever copy is whole, or from its own cache.

use super::{Before, Memory, Opened, Remembered};
use crate::base::{CatalogId, KeyId, ObjectId, explain, limits};
use crate::format::ObjectKind;
use crate::format::catalog::{Catalog, CatalogEntry};
use crate::format::trust::{Act, Role};
use crate::repo::error::RepoError;
use crate::repo::repository::Repository;
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Originals that are worth a thread of their own.
const ORIGINALS_A_THREAD: usize = 64;
/// Threads that verify originals.
const THREADS_MAX: usize = 8;

/// Where an object with two copies lies.
const AREAS: [&str; 2] = ["catalog", "copies/catalog"];

impl Repository {
    /// Reads all catalogues that count.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed, or does not answer. What cannot be read is named in the result.
    pub fn memory(&self) -> Result<Memory, RepoError> {
        let mut copies: BTreeMap<CatalogId, BTreeSet<usize>> = BTreeMap::new();
        for (number, area) in AREAS.iter().enumerate() {
            for object in self.environment().store.list(&format!("{area}/"))? {
                if let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse::<CatalogId>) {
                    copies.entry(id).or_default().insert(number);
                }
            }
        }
        let (mut found, mut refused, mut unread) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        for id in copies.keys() {
            match self.catalogue(id) {
                Ok(catalogue) => drop(found.insert(*id, catalogue)),
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                Err(error @ RepoError::Untrusted { .. }) => {
                    self.environment().observer.warn(&explain(&error));
                    if self.was_once_believed(id)? {
                        refused.insert(*id);
                    }
                }
                Err(error) => unread.push((format!("catalog/{id}"), error)),
            }
        }
        let whole = found.keys().copied().collect::<Vec<_>>();
        let mut memory = Memory::assemble(found, refused);
        memory.unread = unread;
        for id in whole.iter().filter(|id| memory.held.contains_key(id)) {
            let here = copies.get(id).cloned().unwrap_or_default();
            let name = |number: usize| AREAS.get(number).map(|area| format!("{area}/{id}"));
            if let (1, Some(there)) = (here.len(), here.first())
                && let (Some(whole), Some(missing)) = (name(*there), name(1 - there))
            {
                memory.alone.push((whole, missing));
            }
        }
        memory.before = self.seen_before(&memory)?.map(Box::new);
        Ok(memory)
    }

    /// Holds what the store has against the newest catalogues that this client has seen, and notes these.
    fn seen_before(&self, memory: &Memory) -> Result<Option<Before>, RepoError> {
        let Some(known) = self.known_objects() else { return Ok(None) };
        let (newest, seen) = (memory.newest().map_or(0, |(_, sequence)| sequence), known.newest_catalogues());
        let Some((sequence, ids)) = seen.filter(|(sequence, _)| *sequence > newest) else {
            let ids: Vec<CatalogId> = memory.held.keys().copied().collect();
            if newest > 0 && known.newest_catalogues() != Some((newest, ids.clone())) {
                known.see_catalogues(self.environment().entropy.as_ref(), newest, &ids);
            }
            return Ok(None);
        };
        let (mut gone, mut kept, mut is_whole) = (Vec::new(), BTreeMap::new(), true);
        for id in ids {
            let name = format!("catalog/{id}");
            let remembered = known.get(id.as_bytes()).and_then(|row| unpack(&row));
            if let Some(remembered) = &remembered
                && self
                    .registry()
                    .believe(&name, &remembered.signer, Act::Catalog, &ObjectId::from(id))
                    .is_err()
            {
                continue;
            }
            if self.is_there(&id)? {
                continue;
            }
            gone.push(id);
            match remembered {
                Some(remembered) => drop(kept.insert(id, Arc::new(remembered))),
                None => is_whole = false,
            }
        }
        let memory = Memory::assemble(kept, BTreeSet::new());
        Ok((!gone.is_empty()).then_some(Before { sequence, gone, memory, is_whole }))
    }

    /// Says whether either copy of a catalogue is in the store, whether it can be read or not.
    fn is_there(&self, id: &CatalogId) -> Result<bool, RepoError> {
        for area in AREAS {
            match self.environment().store.head(&format!("{area}/{id}")) {
                Ok(_) => return Ok(true),
                Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Says whether a catalogue that does not count was made by a key of a role that makes some: then it may have
    /// counted, and others wrote as it says.
    fn was_once_believed(&self, id: &CatalogId) -> Result<bool, RepoError> {
        for area in AREAS {
            match self.author_of(&format!("{area}/{id}"), ObjectKind::Catalog) {
                Ok(crate::repo::Author::Key(signer)) => {
                    let role = self.registry().trust().key(&signer).map(|key| key.role);
                    return Ok(matches!(role, Some(Role::Owner | Role::Maintainer)));
                }
                Ok(_) | Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Reads one catalogue, from the client's cache or from whichever copy is whole.
    ///
    /// # Errors
    ///
    /// When neither copy can be read or counts.
    pub(super) fn catalogue(&self, id: &CatalogId) -> Result<Arc<Remembered>, RepoError> {
        let known = self.known_objects();
        if let Some(remembered) = known.and_then(|known| unpack(&known.get(id.as_bytes())?)) {
            // Whom to believe may have changed since.
            let name = format!("catalog/{id}");
            self.registry().believe(&name, &remembered.signer, Act::Catalog, &ObjectId::from(*id))?;
            return Ok(self.remember(id, remembered));
        }
        let (signer, mut catalogue) = self.read_catalogue(id)?;
        self.open_originals(&mut catalogue.entries)?;
        for end in &mut catalogue.ends {
            // Whoever made the catalogue may say that it has ended: the signature around it says so.
            end.original = end.original.as_ref().map(|_| vec![0]);
        }
        let remembered = Remembered { signer, catalogue };
        if let Some(known) = known
            && let Ok(bytes) = remembered.catalogue.encode()
        {
            let row = [signer.as_bytes().as_slice(), &bytes].concat();
            known.put(self.environment().entropy.as_ref(), vec![(*id.as_bytes(), row)]);
            // They came one by one before, and are in this now. Of logs each is looked for by itself.
            let roots =
                remembered.catalogue.entries.iter().filter(|entry| entry.place.kind() != ObjectKind::LogPack);
            known.remove(roots.map(|entry| *entry.place.id().as_bytes()));
        }
        Ok(self.remember(id, remembered))
    }

    fn remember(&self, id: &CatalogId, remembered: Remembered) -> Arc<Remembered> {
        self.note_catalogue(*id, remembered.scope());
        Arc::new(remembered)
    }

    /// Reads a catalogue as it was stored, from whichever copy is whole, with the originals sealed as they are.
    ///
    /// # Errors
    ///
    /// When neither copy can be read or counts.
    pub fn read_catalogue(&self, id: &CatalogId) -> Result<(KeyId, Catalog), RepoError> {
        let mut problem = None;
        for area in AREAS {
            let name = format!("{area}/{id}");
            match self.read_copy(&name, ObjectId::from(*id)) {
                Ok(read) => return Ok(read),
                Err(error @ RepoError::Storage(StorageError::NotFound { .. })) => {
                    problem.get_or_insert(error);
                }
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| RepoError::Usage("there is no such catalogue".to_owned())))
    }

    fn read_copy(&self, name: &str, id: ObjectId) -> Result<(KeyId, Catalog), RepoError> {
        let bytes = self.environment().store.get(name, limits::LISTING_BYTES_MAX * 2)?;
        let (signer, payload) = self.open_object(name, id, ObjectKind::Catalog, &bytes)?;
        self.registry().believe(name, &signer, Act::Catalog, &id)?;
        Ok((signer, Catalog::decode(&payload).map_err(RepoError::damaged(name))?))
    }

    /// Puts in the place of each original what it says, verified as if it had been read from the store
    /// ([CATALOG-1]); of one that does not hold nothing is left.
    fn open_originals(&self, entries: &mut [CatalogEntry]) -> Result<(), RepoError> {
        let open = |entry: &mut CatalogEntry| {
            let (name, original) = (entry.place.to_string(), &entry.original);
            let opened = match entry.place.kind() {
                // Not the object, but what it begins with.
                ObjectKind::LogPack => self.open_log_record(&name, original).and_then(|(record, signer)| {
                    Ok((signer, record.encode().map_err(RepoError::damaged(name.as_str()))?))
                }),
                kind => self.open_object(&name, entry.place.id(), kind, original),
            };
            entry.original = match opened {
                Ok((signer, payload)) => Opened { signer, payload }.pack(),
                Err(_) => vec![0],
            };
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX);
        let threads = (entries.len() / ORIGINALS_A_THREAD).clamp(1, cores);
        let share = entries.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let mut shares = entries.chunks_mut(share);
            let own = shares.next();
            let others: Vec<_> =
                shares.map(|share| scope.spawn(move || share.iter_mut().for_each(open))).collect();
            own.into_iter().flatten().for_each(open);
            others.into_iter().try_for_each(|other| {
                other.join().map_err(|_| RepoError::Internal {
                    doing: "reading a catalogue",
                    why: "a thread panicked".to_owned(),
                })
            })
        })
    }
}

fn unpack(row: &[u8]) -> Option<Remembered> {
    let (signer, bytes) = row.split_first_chunk::<32>()?;
    Some(Remembered { signer: KeyId::new(*signer), catalogue: Catalog::decode(bytes).ok()? })
}
