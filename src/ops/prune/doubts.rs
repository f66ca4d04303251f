//! What reports of damage make of copies: none is counted, and none is given up because of a report alone
//! ([DAMAGED-9]).

use super::super::keeper::Doubts;
use crate::base::{PackId, limits};
use crate::repo::{DamageListing, RepoError, Repository, pack_name};
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{BTreeMap, HashSet};

/// Takes account of reports of damage, and looks for itself whether the packs are what they are named for.
///
/// # Errors
///
/// When the store does not say.
pub(super) fn doubts(
    repository: &Repository,
    damage: &DamageListing,
    packs: &BTreeMap<PackId, ObjectInfo>,
) -> Result<Doubts, RepoError> {
    let spoilt = damage.spoilt(repository.registry(), repository.keyring().identity.key);
    let mut rotten = HashSet::new();
    for pack in spoilt.packs().filter(|pack| packs.contains_key(pack)) {
        // Twice, so that no glitch on the way gives up what is whole.
        if is_rotten(repository, pack)? && is_rotten(repository, pack)? {
            rotten.insert(*pack);
        }
    }
    Ok(Doubts { spoilt, rotten })
}

fn is_rotten(repository: &Repository, pack: &PackId) -> Result<bool, RepoError> {
    match repository.environment().store.get(&pack_name(pack), limits::PACK_BYTES_MAX) {
        Ok(bytes) => Ok(blake3::hash(&bytes) != *pack.as_bytes()),
        Err(StorageError::Truncated { .. } | StorageError::TooLarge { .. }) => Ok(true),
        // What could not be read was not found to be wrong: another day it may be read.
        Err(StorageError::NotFound { .. } | StorageError::Fatal { .. } | StorageError::Denied { .. }) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
