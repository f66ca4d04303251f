//! What catalogues remember: roots that were once there and must not have vanished unnoticed.

use super::error::RepoError;
use super::repository::Repository;
use crate::base::{CatalogId, ObjectId, explain, limits};
use crate::format::ObjectKind;
use crate::format::catalog::Catalog;
use crate::format::trust::Act;
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashSet};

impl Repository {
    /// Returns the names of roots and annotations that a catalogue lists, that are not in the store,
    /// and whose end neither a catalogue nor `ended` knows ([CONCURRENCY-45]).
    ///
    /// # Errors
    ///
    /// When a catalogue cannot be read from either copy, or the store fails.
    pub fn vanished(&self, ended: impl Fn(&ObjectId) -> bool) -> Result<Vec<String>, RepoError> {
        let catalogues = self.catalogues()?;
        if catalogues.is_empty() {
            return Ok(Vec::new());
        }
        let replaced: HashSet<CatalogId> =
            catalogues.values().flat_map(|catalogue| catalogue.replaces.iter().copied()).collect();
        let ends: HashSet<ObjectId> =
            catalogues.values().flat_map(|catalogue| &catalogue.ends).map(|end| end.id).collect();
        let mut present = HashSet::new();
        for area in ["snapshots/", "annotations/", "logs/"] {
            // The same object may stand under a later generation too: it is the id that counts.
            let objects = self.environment().store.list(area)?;
            let id = |name: &str| name.rsplit('/').next()?.parse::<ObjectId>().ok();
            present.extend(objects.iter().filter_map(|object| id(&object.name)));
        }
        let mut vanished = BTreeSet::new();
        for (id, catalogue) in &catalogues {
            for entry in &catalogue.entries {
                let object = entry.place.id();
                // [CATALOG-8]: a later catalogue may leave out an annotation that speaks of nothing.
                let left_out = entry.place.kind() == ObjectKind::Annotation && replaced.contains(id);
                if !left_out && !present.contains(&object) && !ends.contains(&object) && !ended(&object) {
                    vanished.insert(entry.place.to_string());
                }
            }
        }
        Ok(vanished.into_iter().collect())
    }

    /// Reads all catalogues that count.
    fn catalogues(&self) -> Result<BTreeMap<CatalogId, Catalog>, RepoError> {
        let mut copies: BTreeMap<ObjectId, Vec<String>> = BTreeMap::new();
        for area in ["catalog/", "copies/catalog/"] {
            for object in self.environment().store.list(area)? {
                if let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse::<ObjectId>) {
                    copies.entry(id).or_default().push(object.name);
                }
            }
        }
        let mut catalogues = BTreeMap::new();
        for (id, names) in copies {
            let mut failed = None;
            for name in names {
                match self.read_catalogue(&name, id) {
                    Ok(catalogue) => {
                        catalogues.insert(CatalogId::from(id), catalogue);
                        failed = None;
                        break;
                    }
                    Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                    Err(error @ RepoError::Untrusted { .. }) => {
                        self.environment().observer.warn(&explain(&error));
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(catalogues)
    }

    fn read_catalogue(&self, name: &str, id: ObjectId) -> Result<Catalog, RepoError> {
        let bytes = self.environment().store.get(name, limits::LISTING_BYTES_MAX * 2)?;
        let (signer, payload) = self.open_object(name, id, ObjectKind::Catalog, &bytes)?;
        self.registry().believe(name, &signer, Act::Catalog, &id)?;
        Catalog::decode(&payload).map_err(RepoError::damaged(name))
    }
}
