//! Parity for what is stored: added, changed, dropped; and used, where something is damaged.
//!
//! Write orders, and what a crash after each step leaves:
//!
//! adding: 1. the new parity of an object: it is stronger from then on; 2. older parity of it is deleted.
//!
//! repairing: an object is put in the place of its damaged self in one step, and only after what is put was found
//! to have its name as its hash.

use super::deserted::{self, Deserted};
use super::error::OpsError;
use super::snapshots::Snapshots;
use crate::base::{ObjectId, PackId, limits};
use crate::format::ObjectKind;
use crate::format::trust::{Act, Role};
use crate::repo::{CondemnedListing, ParityShape, RepoError, Repository, pack_name};
use crate::storage::StorageError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What parity is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParityStatus {
    /// Objects that parity can be made of.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, the ones that have some.
    pub covered: u64,
    /// Their bytes.
    pub covered_bytes: u64,
    /// Parity objects.
    pub parity_objects: u64,
    /// Their bytes.
    pub parity_bytes: u64,
    /// Parity objects of what is not there (any more).
    pub idle: u64,
}

/// What was added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParityAdded {
    /// Objects that parity was made of.
    pub made: u64,
    /// Bytes put into the store.
    pub stored_bytes: u64,
    /// Older parity objects that were deleted, and those of what nobody misses any more.
    pub replaced: u64,
    /// Objects that have such parity already.
    pub kept: u64,
    /// Objects of which none was made, since they are damaged, by name and why.
    pub damaged: Vec<(String, String)>,
}

/// A damaged object, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParityRepaired {
    /// Its name in the store.
    pub name: String,
    /// That its right bytes could be computed; without a dry run they are in its place.
    pub repaired: bool,
}

/// An object that parity can be made of, or that has some.
struct Subject {
    name: String,
    bytes: u64,
}

/// What there is that parity can be made of, and what parity there is.
pub(super) struct Stock {
    subjects: BTreeMap<ObjectId, Subject>,
    /// Names and lengths of parity objects by their subjects.
    parity: BTreeMap<ObjectId, Vec<(String, u64)>>,
}

impl Stock {
    /// Lists both.
    pub(super) fn take(repository: &Repository) -> Result<Self, OpsError> {
        let (mut subjects, mut parity) = (BTreeMap::new(), BTreeMap::<ObjectId, Vec<(String, u64)>>::new());
        for object in repository.environment().store.list("")? {
            let parts: Vec<&str> = object.name.split('/').collect();
            match parts.as_slice() {
                ["packs" | "index" | "snapshots" | "annotations" | "logs", .., id] => {
                    if let Ok(id) = id.parse::<ObjectId>() {
                        subjects.insert(id, Subject { name: object.name.clone(), bytes: object.length });
                    }
                }
                ["parity", subject, _] => {
                    if let Ok(subject) = subject.parse::<ObjectId>() {
                        parity.entry(subject).or_default().push((object.name.clone(), object.length));
                    }
                }
                _ => {}
            }
        }
        Ok(Self { subjects, parity })
    }
}

/// Counts what parity there is.
///
/// # Errors
///
/// When the store cannot be listed.
pub fn status(repository: &Repository) -> Result<ParityStatus, OpsError> {
    let stock = Stock::take(repository)?;
    let mut status = ParityStatus::default();
    for (id, subject) in &stock.subjects {
        status.objects += 1;
        status.bytes += subject.bytes;
        if stock.parity.contains_key(id) {
            status.covered += 1;
            status.covered_bytes += subject.bytes;
        }
    }
    for (id, objects) in &stock.parity {
        status.parity_objects += objects.len() as u64;
        status.parity_bytes += objects.iter().map(|(_, length)| length).sum::<u64>();
        status.idle += if stock.subjects.contains_key(id) { 0 } else { objects.len() as u64 };
    }
    Ok(status)
}

fn stop(repository: &Repository) -> Result<(), OpsError> {
    match repository.environment().observer.interrupted() {
        true => Err(RepoError::Interrupted.into()),
        false => Ok(()),
    }
}

/// Makes parity, of this share of each object, for everything that has no such yet.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not; [`OpsError::Usage`] for a share that is none; what the store says.
pub fn add(repository: &Arc<Repository>, percent: u8) -> Result<ParityAdded, OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Parity)?;
    if !(1..=100).contains(&percent) {
        return Err(OpsError::Usage(format!("{percent}% is no share: give 1% to 100%")));
    }
    let store = &repository.environment().store;
    let stock = Stock::take(repository)?;
    let mut added = ParityAdded::default();
    for (id, subject) in &stock.subjects {
        stop(repository)?;
        let wanted = ParityShape::of(subject.bytes, percent);
        let before = stock.parity.get(id).map(Vec::as_slice).unwrap_or_default();
        let mut has = false;
        for (name, length) in before {
            // What is cut short, or does not even say what it is, is none. The rest is for who reads it.
            let outline = repository.read_parity_outline(name)?;
            has |= outline.is_some_and(|found| found.shape == wanted && found.object_bytes == *length);
        }
        if has {
            added.kept += 1;
            continue;
        }
        let bytes = match store.get(&subject.name, limits::PACK_BYTES_MAX) {
            Ok(bytes) if blake3::hash(&bytes) == *id.as_bytes() => bytes,
            Ok(_) => {
                let why = "its bytes are not the ones it was named for".to_owned();
                added.damaged.push((subject.name.clone(), why));
                continue;
            }
            // Pruned since it was listed.
            Err(StorageError::NotFound { .. }) => continue,
            Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
            Err(error) => {
                added.damaged.push((subject.name.clone(), error.to_string()));
                continue;
            }
        };
        let kind = ObjectKind::of(&bytes).map_err(RepoError::damaged(subject.name.as_str()))?;
        let (put, length) = repository.put_parity(kind, id, &bytes, wanted)?;
        added.made += 1;
        added.stored_bytes += length;
        for (name, _) in before.iter().filter(|(name, _)| *name != put) {
            store.delete(name)?;
            added.replaced += 1;
        }
    }
    added.replaced += drop_idle(repository, &stock)?;
    Ok(added)
}

/// Deletes parity of packs and index runs that are gone and not missed ([PARITY-5]); who may not delete leaves it to
/// others. That of anything else may be the only trace of it, and stays.
fn drop_idle(repository: &Arc<Repository>, stock: &Stock) -> Result<u64, OpsError> {
    let role = repository.keyring().identity.role;
    if !matches!(role, Role::Owner | Role::Maintainer) {
        return Ok(0);
    }
    let mut dropped = 0;
    for (id, objects) in stock.parity.iter().filter(|(id, _)| !stock.subjects.contains_key(*id)) {
        for (name, _) in objects {
            let kind = repository.read_parity_outline(name)?.map(|outline| outline.kind);
            let gone = match kind {
                Some(ObjectKind::ContentPack | ObjectKind::MetadataPack) => {
                    place(repository, stock, id)?.is_none()
                }
                Some(ObjectKind::IndexRun) => true,
                _ => false,
            };
            if gone {
                repository.environment().store.delete(name)?;
                dropped += 1;
            }
        }
    }
    Ok(dropped)
}

/// Deletes all parity; returns how many objects, and their bytes.
///
/// # Errors
///
/// [`RepoError::Forbidden`] unless this key is an owner's or maintainer's; what the store says.
pub fn drop_all(repository: &Repository, dry_run: bool) -> Result<(u64, u64), OpsError> {
    let role = repository.keyring().identity.role;
    if !matches!(role, Role::Owner | Role::Maintainer) {
        return Err(RepoError::Forbidden { role: role.name(), action: "drop parity".to_owned() }.into());
    }
    let (mut count, mut bytes) = (0, 0);
    for object in repository.environment().store.list("parity/")? {
        stop(repository)?;
        if !dry_run {
            repository.environment().store.delete(&object.name)?;
        }
        count += 1;
        bytes += object.length;
    }
    Ok((count, bytes))
}

/// Looks at every object that has parity, and puts right what is not what it is named for, or a pack that the
/// index names and that is gone. Then parity that is damaged itself is made anew.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not write; what the store says.
pub fn repair(repository: &Arc<Repository>, dry_run: bool) -> Result<Vec<ParityRepaired>, OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Parity)?;
    let stock = Stock::take(repository)?;
    let mut found = Vec::new();
    for id in stock.parity.keys() {
        stop(repository)?;
        let Some(name) = place(repository, &stock, id)? else { continue };
        if let Some(repaired) = restore(repository, id, &name, dry_run)? {
            found.push(ParityRepaired { name, repaired });
        }
    }
    for name in deserted_names(repository, &stock)? {
        found.push(ParityRepaired { name, repaired: false });
    }
    for (name, _) in stock.parity.values().flatten() {
        stop(repository)?;
        if let Some(repaired) = remake(repository, &stock, name, dry_run)? {
            found.push(ParityRepaired { name: name.clone(), repaired });
        }
    }
    Ok(found)
}

/// Names snapshots and annotations that are gone though nobody has ended them. Whether what they need is still there is
/// not for who only compares hashes to know.
fn deserted_names(repository: &Arc<Repository>, stock: &Stock) -> Result<Vec<String>, OpsError> {
    let mut candidates = BTreeMap::new();
    for (id, objects) in stock.parity.iter().filter(|(id, _)| !stock.subjects.contains_key(*id)) {
        for (name, _) in objects {
            candidates.extend(repository.read_parity_outline(name)?.map(|outline| (*id, outline.kind)));
        }
    }
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let snapshots = Snapshots::load_all(repository)?;
    Ok(deserted::find(repository, &candidates, &snapshots)?.iter().map(Deserted::name).collect())
}

/// Makes a parity object anew that is not what it was named for; `None` where nothing is wrong with it or what it is of
/// is not there, else whether that could be done: only what is whole has parity.
///
/// Write order: the new one, which may have the name of the damaged one and then takes its place in one step; the damaged
/// one is deleted.
///
/// # Errors
///
/// When the store does not answer, or does not take what is made.
pub(super) fn remake(
    repository: &Repository,
    stock: &Stock,
    name: &str,
    dry_run: bool,
) -> Result<Option<bool>, OpsError> {
    let store = &repository.environment().store;
    let mut parts = name.split('/').skip(1).map(str::parse::<ObjectId>);
    let (Some(Ok(subject)), Some(Ok(id))) = (parts.next(), parts.next()) else { return Ok(None) };
    let left = match store.get(name, 2 * limits::PACK_BYTES_MAX) {
        Ok(bytes) if blake3::hash(&bytes) == *id.as_bytes() => return Ok(None),
        Ok(bytes) => bytes,
        Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
        Err(StorageError::NotFound { .. }) => return Ok(None),
        // What the disk does not give back counts as lost.
        Err(_) => Vec::new(),
    };
    let Some(place) = stock.subjects.get(&subject).map(|subject| &subject.name) else { return Ok(None) };
    let bytes = match store.get(place, limits::PACK_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
        Err(StorageError::NotFound { .. }) => return Ok(None),
        Err(_) => Vec::new(),
    };
    if blake3::hash(&bytes) != *subject.as_bytes() {
        return Ok(Some(false));
    }
    if !dry_run {
        let kind = ObjectKind::of(&bytes).map_err(RepoError::damaged(place.as_str()))?;
        let shape = shape_of(&left, &subject, bytes.len() as u64);
        let (put, _) = repository.put_parity(kind, &subject, &bytes, shape)?;
        if put != name {
            store.delete(name)?;
        }
    }
    Ok(Some(true))
}

/// Returns the numbers that damaged parity had; where it does not say, those of the greatest share that was as long.
fn shape_of(left: &[u8], subject: &ObjectId, bytes: u64) -> ParityShape {
    let said = Repository::parity_outline(left).filter(|outline| outline.subject == *subject);
    let (length, shape) = (left.len() as u64, |percent| ParityShape::of(bytes, percent));
    let parity_bytes = |shape: &ParityShape| u64::from(shape.shard_bytes) * u64::from(shape.parity_shards);
    said.map(|outline| outline.shape)
        .filter(|shape| shape.shard_bytes == ParityShape::of(bytes, 1).shard_bytes)
        .or_else(|| (1..=100).rev().map(shape).find(|shape| parity_bytes(shape) < length))
        .unwrap_or_else(|| shape(1))
}

/// Returns the name of an object that is there, or of a pack that is missed.
fn place(repository: &Repository, stock: &Stock, id: &ObjectId) -> Result<Option<String>, OpsError> {
    if let Some(subject) = stock.subjects.get(id) {
        return Ok(Some(subject.name.clone()));
    }
    // What is gone may have been deleted because nothing needed it: only a pack can be known to be missed.
    let pack = PackId::from(*id);
    repository.load_index()?;
    let missed = repository.index().packs().contains_key(&pack);
    let condemned = repository.condemned(&CondemnedListing::default())?;
    let pruned = condemned.found.values().any(|found| found.condemned.names(&pack));
    Ok((missed && !pruned).then(|| pack_name(&pack)))
}

/// Puts an object right by its parity; `None` where nothing is wrong with it, else whether that could be done.
///
/// # Errors
///
/// When the store does not answer, or does not take the repaired bytes.
pub(super) fn restore(
    repository: &Repository,
    id: &ObjectId,
    name: &str,
    dry_run: bool,
) -> Result<Option<bool>, OpsError> {
    let store = &repository.environment().store;
    let left = match store.get(name, limits::PACK_BYTES_MAX) {
        Ok(bytes) if blake3::hash(&bytes) == *id.as_bytes() => return Ok(None),
        Ok(bytes) => bytes,
        Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
        // What the disk does not give back counts as lost.
        Err(_) => Vec::new(),
    };
    let Some(whole) = repository.from_parity(id, &left)? else { return Ok(Some(false)) };
    if !dry_run {
        store.replace(name, &whole)?;
    }
    Ok(Some(true))
}
