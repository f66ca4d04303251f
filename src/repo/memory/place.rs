//! Where a new root is put, so that everybody finds it: under the generation that no catalogue has closed.
//!
//! A catalogue may close it at the same moment. So whoever has put a root looks again, and puts the same
//! bytes under the next generation where the catalogue has not seen them ([CONCURRENCY-22]).

use crate::base::{CatalogId, ObjectId, explain};
use crate::format::ObjectKind;
use crate::format::catalog::CatalogScope;
use crate::format::trust::Act;
use crate::repo::error::RepoError;
use crate::repo::repository::Repository;
use crate::storage::StorageError;
use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

/// Rounds after which something is wrong: every one was overtaken by a new catalogue.
const ROUNDS_MAX: usize = 64;

/// What this process knows of catalogues: the generation that each of them closes.
#[derive(Default)]
pub struct Closings {
    closed: HashMap<CatalogId, u32>,
    /// Whether all were listed once.
    looked: bool,
}

/// A root that was put, and may have to be put again where it is found.
#[derive(Debug)]
pub struct Committed {
    /// Its id.
    pub id: ObjectId,
    area: &'static str,
    generation: u32,
    bytes: Vec<u8>,
    known: HashSet<CatalogId>,
}

impl Repository {
    /// Notes which generation a catalogue closes.
    pub(super) fn note_catalogue(&self, id: CatalogId, scope: &CatalogScope) {
        let closed = match scope {
            CatalogScope::Roots { last, .. } => *last,
            CatalogScope::Log(_) => 0,
        };
        self.closings.lock().unwrap_or_else(PoisonError::into_inner).closed.insert(id, closed);
    }

    /// Lists catalogues and reads those that are new; returns all that count.
    fn look_for_catalogues(&self) -> Result<HashMap<CatalogId, u32>, RepoError> {
        for object in self.environment().store.list("catalog/")? {
            let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse::<CatalogId>) else { continue };
            if self.closings.lock().unwrap_or_else(PoisonError::into_inner).closed.contains_key(&id) {
                continue;
            }
            match self.catalogue(&id) {
                Ok(_) | Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                // It closes nothing for anybody.
                Err(error) => {
                    self.environment().observer.warn(&explain(&error));
                    let mut closings = self.closings.lock().unwrap_or_else(PoisonError::into_inner);
                    closings.closed.insert(id, 0);
                }
            }
        }
        let mut closings = self.closings.lock().unwrap_or_else(PoisonError::into_inner);
        closings.looked = true;
        Ok(closings.closed.clone())
    }

    fn closed(&self) -> Result<HashMap<CatalogId, u32>, RepoError> {
        {
            let closings = self.closings.lock().unwrap_or_else(PoisonError::into_inner);
            if closings.looked {
                return Ok(closings.closed.clone());
            }
        }
        self.look_for_catalogues()
    }

    /// Returns the generation under which this client puts roots now ([CONCURRENCY-43]).
    ///
    /// # Errors
    ///
    /// When catalogues cannot be listed or read.
    pub fn generation(&self) -> Result<u32, RepoError> {
        self.closed().map(|closed| current(&closed))
    }

    /// Seals, signs and puts a snapshot or annotation under the current generation. Durable on return;
    /// found by all once [`Repository::stay_found`] returns.
    ///
    /// # Errors
    ///
    /// When this key may not sign such a thing, or the store fails.
    pub(in crate::repo) fn put_root(
        &self,
        kind: ObjectKind,
        act: Act<'_>,
        payload: &[u8],
    ) -> Result<Committed, RepoError> {
        let (id, bytes) = self.seal_object(kind, act, payload)?;
        self.put_root_bytes(kind, id, bytes)
    }

    /// Puts a root that was there before and is gone, where everybody finds it. Durable on return;
    /// [`Repository::stay_found`] has to follow.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn put_root_bytes(
        &self,
        kind: ObjectKind,
        id: ObjectId,
        bytes: Vec<u8>,
    ) -> Result<Committed, RepoError> {
        let closed = self.closed()?;
        let area = if kind == ObjectKind::Snapshot { "snapshots" } else { "annotations" };
        let generation = current(&closed);
        let root = Committed { id, area, generation, bytes, known: closed.into_keys().collect() };
        self.put_under(&root, generation)?;
        Ok(root)
    }

    fn put_under(&self, root: &Committed, generation: u32) -> Result<(), RepoError> {
        let name = format!("{}/{generation:08x}/{}", root.area, root.id);
        self.environment().store.put(&name, &root.bytes)?;
        Ok(())
    }

    /// Looks whether a catalogue has closed the generation of a root without having seen it; then it is put
    /// under the current one too, until a look shows nothing new ([CONCURRENCY-22]).
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn stay_found(&self, root: &Committed) -> Result<(), RepoError> {
        let mut generation = root.generation;
        for _ in 0..ROUNDS_MAX {
            let closed = self.look_for_catalogues()?;
            let now = current(&closed);
            if now == generation {
                return Ok(());
            }
            for id in closed.keys().filter(|id| !root.known.contains(id)) {
                match self.catalogue(id) {
                    Ok(catalogue) if catalogue.lists(&root.id) => return Ok(()),
                    Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                    // One that is gone, or that nobody can read, shows it to nobody.
                    _ => {}
                }
            }
            self.put_under(root, now)?;
            generation = now;
        }
        Err(RepoError::Internal {
            doing: "making sure that a root is found",
            why: "new catalogues appear all the time".to_owned(),
        })
    }
}

fn current(closed: &HashMap<CatalogId, u32>) -> u32 {
    closed.values().copied().max().unwrap_or(0).saturating_add(1)
}
