//! Roots: snapshots and what was said about them later.

use super::error::RepoError;
use super::memory::Committed;
use super::repository::Repository;
use super::sealed::{Author, author, open_unbelieved, seal};
use crate::base::{AnnotationId, KeyId, ObjectId, PackId, SnapshotId, Timestamp, limits};
use crate::format::FormatError;
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::kind::ObjectKind;
use crate::format::snapshot::Snapshot;
use crate::format::trust::Act;
use crate::storage::StorageError;

/// A snapshot as this client found it.
#[derive(Debug, Clone)]
pub struct FoundSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its content.
    pub snapshot: Snapshot,
    /// Who signed it.
    pub signer: KeyId,
    /// When the store received it, where the store says so; of one that a catalogue lists, when it was first seen.
    pub stored: Option<Timestamp>,
    /// The order in which a catalogue first saw it ([CATALOG-2]).
    pub number: Option<u64>,
}

/// An annotation as this client found it.
#[derive(Debug, Clone)]
pub struct FoundAnnotation {
    /// Its id.
    pub id: AnnotationId,
    /// Its content.
    pub annotation: Annotation,
    /// Who signed it.
    pub signer: KeyId,
}

/// What a listing of roots found: those that count, and what is wrong with the others.
#[derive(Debug)]
pub struct Listing<T> {
    /// The objects that count.
    pub found: Vec<T>,
    /// Names of objects that do not, and why. Who deletes what no root needs must stop where one of
    /// these may be a root.
    pub refused: Vec<(String, RepoError)>,
}

impl Repository {
    /// Seals, signs and stores a structured object; returns its id. Durable on return.
    ///
    /// # Errors
    ///
    /// When this key may not sign such a thing, or the store fails.
    pub fn put_object(
        &self,
        folder: &str,
        kind: ObjectKind,
        act: Act<'_>,
        payload: &[u8],
    ) -> Result<ObjectId, RepoError> {
        let (id, object) = self.seal_object(kind, act, payload)?;
        self.environment().store.put(&format!("{folder}/{id}"), &object)?;
        Ok(id)
    }

    /// Seals and signs a structured object without storing it; returns its id and its bytes.
    ///
    /// # Errors
    ///
    /// When this key may not sign such a thing.
    pub fn seal_object(
        &self,
        kind: ObjectKind,
        act: Act<'_>,
        payload: &[u8],
    ) -> Result<(ObjectId, Vec<u8>), RepoError> {
        self.registry().may_sign(&self.keyring().identity.key, act)?;
        let entropy = self.environment().entropy.as_ref();
        let object = seal(kind, self.suite(), self.id(), self.keyring(), entropy, payload)?;
        Ok((ObjectId::new(*blake3::hash(&object).as_bytes()), object))
    }

    /// Commits a snapshot: the last write of a backup.
    ///
    /// # Errors
    ///
    /// When this key may not write that host and label, or the store fails.
    pub fn commit(&self, snapshot: &Snapshot) -> Result<SnapshotId, RepoError> {
        let committed = self.put_snapshot(snapshot)?;
        self.stay_found(&committed)?;
        Ok(committed.id.into())
    }

    /// Does the same without a look whether others find it: [`Repository::stay_found`] has to follow.
    ///
    /// # Errors
    ///
    /// As [`Repository::commit`].
    pub fn put_snapshot(&self, snapshot: &Snapshot) -> Result<Committed, RepoError> {
        let payload = snapshot.encode().map_err(RepoError::damaged("the snapshot being written"))?;
        let act = Act::Snapshot { host: &snapshot.host, label: &snapshot.label };
        self.put_root(ObjectKind::Snapshot, act, &payload)
    }

    /// Adds an annotation.
    ///
    /// # Errors
    ///
    /// When this key may not say that, or the store fails.
    pub fn annotate(&self, annotation: &Annotation, act: Act<'_>) -> Result<AnnotationId, RepoError> {
        let payload = annotation.encode().map_err(RepoError::damaged("the annotation being written"))?;
        let committed = self.put_root(ObjectKind::Annotation, act, &payload)?;
        self.stay_found(&committed)?;
        Ok(committed.id.into())
    }

    /// Says for everybody that this key has opened all frames of these packs, and that their blobs have their ids.
    ///
    /// # Errors
    ///
    /// As [`Repository::annotate`].
    pub fn attest(
        &self,
        packs: impl IntoIterator<Item = PackId>,
        method: &str,
    ) -> Result<AnnotationId, RepoError> {
        let mut attested = Annotation::new(AnnotationKind::Attested, self.environment().clock.now());
        attested.packs = packs.into_iter().collect();
        attested.method = Some(method.to_owned());
        attested.outcome = Some(Outcome::Passed);
        self.annotate(&attested, Act::Attested)
    }

    /// Reads a root. What was read wrong once may be read right the second time; else a pin that is whole could be
    /// taken for something that its signer put there broken.
    pub(super) fn get_root(&self, name: &str, id: &ObjectId) -> Result<Vec<u8>, StorageError> {
        let read = || self.environment().store.get(name, limits::STRUCTURED_BYTES_MAX * 2);
        let bytes = read()?;
        if blake3::hash(&bytes) == *id.as_bytes() { Ok(bytes) } else { read() }
    }

    /// Reads a snapshot or annotation to put the same bytes elsewhere: they are those that it is named for.
    ///
    /// # Errors
    ///
    /// [`RepoError::Damaged`] where they are others each time; what the store says.
    pub fn root_bytes(&self, name: &str, id: &ObjectId) -> Result<Vec<u8>, RepoError> {
        let bytes = self.get_root(name, id)?;
        if blake3::hash(&bytes) == *id.as_bytes() {
            return Ok(bytes);
        }
        let (what, why) = ("a root", "its bytes are not the ones it was named for");
        Err(RepoError::Damaged { object: name.to_owned(), source: FormatError::Invalid { what, why } })
    }

    fn list_objects<T>(
        &self,
        prefix: &str,
        mut read: impl FnMut(&str, ObjectId, &[u8], Option<Timestamp>) -> Result<T, RepoError>,
    ) -> Result<Listing<T>, RepoError> {
        let mut listing = Listing { found: Vec::new(), refused: Vec::new() };
        let store = &self.environment().store;
        for object in store.list(prefix)? {
            let id = match object.name.rsplit('/').next().map(str::parse::<ObjectId>) {
                Some(Ok(id)) => id,
                _ => continue,
            };
            let bytes = match self.get_root(&object.name, &id) {
                Ok(bytes) => bytes,
                // Removed since it was listed.
                Err(StorageError::NotFound { .. }) => continue,
                // It may be whole: whoever counts on the list must have it whole, too.
                Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
                // One object that the disk does not give back must not hide all others.
                Err(error) => {
                    listing.refused.push((object.name, error.into()));
                    continue;
                }
            };
            match read(&object.name, id, &bytes, object.modified) {
                Ok(found) => listing.found.push(found),
                Err(error) => listing.refused.push((object.name, error)),
            }
        }
        Ok(listing)
    }

    /// Reads all snapshots from the store, whatever catalogues say of them. One that is damaged, or whose signer
    /// may not write its host and label, is refused by name and harms no other.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn snapshots(&self) -> Result<Listing<FoundSnapshot>, RepoError> {
        let mut listing = self.list_objects("snapshots/", |name, id, bytes, stored| {
            let (signer, payload) = self.open_object(name, id, ObjectKind::Snapshot, bytes)?;
            self.read_snapshot(name, id, signer, &payload, stored)
        })?;
        // One that was brought back may stand in two generations: it is one, as old as it was first.
        listing.found.sort_by_key(|found| (found.id, found.stored));
        listing.found.dedup_by_key(|found| found.id);
        Ok(listing)
    }

    /// Takes a snapshot whose signature holds, if its signer may write its host and label.
    pub(super) fn read_snapshot(
        &self,
        name: &str,
        id: ObjectId,
        signer: KeyId,
        payload: &[u8],
        stored: Option<Timestamp>,
    ) -> Result<FoundSnapshot, RepoError> {
        let snapshot = Snapshot::decode(payload).map_err(RepoError::damaged(name))?;
        let act = Act::Snapshot { host: &snapshot.host, label: &snapshot.label };
        self.registry().believe(name, &signer, act, &id)?;
        // A writer who knew a newer registry than the store shows proves that the store was set back.
        let (sequence, _) = self.registry().head();
        if snapshot.trust_sequence > sequence {
            self.environment().observer.warn(&format!(
                "{name} was made under version {} of the registry of trust, the store shows only {sequence}",
                snapshot.trust_sequence
            ));
        }
        Ok(FoundSnapshot { id: id.into(), snapshot, signer, stored, number: None })
    }

    /// Finds out who made an object that cannot be read, or does not count.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn author_of(&self, name: &str, kind: ObjectKind) -> Result<Author, RepoError> {
        let Some(Ok(id)) = name.rsplit('/').next().map(str::parse::<ObjectId>) else {
            return Ok(Author::Nobody);
        };
        let bytes = self.environment().store.get(name, limits::LISTING_BYTES_MAX * 2)?;
        Ok(author(name, id, kind, self.id(), &bytes, |key| self.registry().any_key(key)))
    }

    /// Reads a snapshot that does not count. What it says was said by somebody who held the metadata key;
    /// `None` where not even that holds.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or the epoch was not granted to this key.
    pub fn peek_at_snapshot(&self, name: &str) -> Result<Option<Snapshot>, RepoError> {
        let bytes = self.environment().store.get(name, limits::STRUCTURED_BYTES_MAX * 2)?;
        let opened = open_unbelieved(name, ObjectKind::Snapshot, self.id(), self.keyring(), &bytes);
        match opened.map_err(|error| self.judge(name, &bytes, error)) {
            Ok(payload) => Ok(Snapshot::decode(&payload).ok()),
            Err(RepoError::Damaged { .. } | RepoError::Untrusted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Repository::annotations`], one at a time: there may be many, and long ones. Returns those
    /// that do not count, and why.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn visit_annotations(
        &self,
        mut visit: impl FnMut(FoundAnnotation),
    ) -> Result<Vec<(String, RepoError)>, RepoError> {
        let visited = self.list_objects("annotations/", |name, id, bytes, _| {
            self.open_annotation(name, id, bytes).map(&mut visit)
        });
        visited.map(|listing| listing.refused)
    }

    fn open_annotation(&self, name: &str, id: ObjectId, bytes: &[u8]) -> Result<FoundAnnotation, RepoError> {
        let (signer, payload) = self.open_object(name, id, ObjectKind::Annotation, bytes)?;
        self.read_annotation(name, id, signer, &payload)
    }

    /// Takes an annotation whose signature holds.
    pub(super) fn read_annotation(
        &self,
        name: &str,
        id: ObjectId,
        signer: KeyId,
        payload: &[u8],
    ) -> Result<FoundAnnotation, RepoError> {
        let annotation = Annotation::decode(payload).map_err(RepoError::damaged(name))?;
        Ok(FoundAnnotation { id: id.into(), annotation, signer })
    }

    /// Reads all annotations whose form and signature hold. Whether the signer may say that of a
    /// snapshot is checked where the snapshot is known ([`super::Registry::believe`]).
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn annotations(&self) -> Result<Listing<FoundAnnotation>, RepoError> {
        self.list_objects("annotations/", |name, id, bytes, _| self.open_annotation(name, id, bytes))
    }
}
