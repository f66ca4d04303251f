//! What is stored twice: a copy that is missing or damaged is put right from the other one ([CONVENTIONS-6]), a
//! damaged snapshot or annotation from the catalogue that lists it.
//!
//! Whatever is put in its place has the object's name as its hash, or, of the configuration, is the very one that
//! this client believes. Nobody could say anything with it that is not said elsewhere already.

use super::objects::read_configuration;
use super::report::MendedFrom;
use crate::base::{ObjectId, limits};
use crate::ops::OpsError;
use crate::repo::{RepoError, Repository};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet};

/// The name of the configuration, which is not that of its bytes.
const CONFIGURATION: &str = "chronolith";
/// Where objects lie that have a second copy.
const TWICE: [&str; 3] = ["trust/", "keys/", "catalog/"];
/// Before the names of second copies.
const COPIES: &str = "copies/";
/// Where objects lie that catalogues hold.
const LISTED: [&str; 2] = ["snapshots/", "annotations/"];

/// Right bytes by the names of damaged objects, and where they were found.
pub(super) type Found = BTreeMap<String, (MendedFrom, Vec<u8>)>;

/// Looks elsewhere for the right bytes of objects that were found damaged.
///
/// # Errors
///
/// When the store does not answer.
pub(super) fn find(repository: &Repository, damaged: &BTreeSet<String>) -> Result<Found, OpsError> {
    let mut found = Found::new();
    for name in damaged {
        if let Some(right) = from_other(repository, name)? {
            found.insert(name.clone(), (MendedFrom::OtherCopy, right));
        }
    }
    let listed = |name: &&String| LISTED.iter().any(|area| name.starts_with(area));
    let mut wanted: BTreeMap<ObjectId, &String> =
        damaged.iter().filter(listed).filter_map(|name| Some((id_of(name)?, name))).collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    for id in repository.memory()?.held().keys() {
        // One that cannot be read is told of by itself.
        let Ok((_, catalogue)) = repository.read_catalogue(id) else { continue };
        for entry in catalogue.entries {
            let is_whole = blake3::hash(&entry.original) == *entry.place.id().as_bytes();
            let Some(name) = wanted.get(&entry.place.id()).copied().filter(|_| is_whole) else { continue };
            wanted.remove(&entry.place.id());
            // What is gone was deleted: `repair snapshots` puts that back, where no condemnation can have named it.
            if read(repository, name)?.is_some_and(|bytes| bytes != entry.original) {
                found.insert(name.clone(), (MendedFrom::Catalogue, entry.original));
            }
        }
    }
    Ok(found)
}

fn id_of(name: &str) -> Option<ObjectId> {
    name.rsplit('/').next()?.parse().ok()
}

/// Returns the name of the other copy of what is stored twice.
fn other_copy(name: &str) -> Option<String> {
    if let Some(first) = name.strip_prefix(COPIES) {
        return Some(first.to_owned());
    }
    let is_twice =
        name == CONFIGURATION || id_of(name).is_some() && TWICE.iter().any(|a| name.starts_with(a));
    is_twice.then(|| format!("{COPIES}{name}"))
}

/// Reads what should stand under a name from the other copy; `None` where it has none, that one is not right
/// either, or nothing is wrong with this one.
fn from_other(repository: &Repository, name: &str) -> Result<Option<Vec<u8>>, OpsError> {
    let Some(other) = other_copy(name) else { return Ok(None) };
    let right = match read(repository, &other)? {
        Some(bytes) if is_right(repository, &other, &bytes) => bytes,
        _ => return Ok(None),
    };
    let is_same = read(repository, name)?.is_some_and(|bytes| bytes == right);
    Ok((!is_same).then_some(right))
}

fn read(repository: &Repository, name: &str) -> Result<Option<Vec<u8>>, OpsError> {
    match repository.environment().store.get(name, limits::LISTING_BYTES_MAX * 2) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error @ StorageError::Transient { .. }) => Err(RepoError::from(error).into()),
        Err(_) => Ok(None),
    }
}

fn is_right(repository: &Repository, name: &str, bytes: &[u8]) -> bool {
    match id_of(name) {
        Some(id) => blake3::hash(bytes) == *id.as_bytes(),
        None => {
            read_configuration(repository, name, bytes).is_ok_and(|config| config == *repository.config())
        }
    }
}
