//! The configuration of both sides, told apart without a key.
//!
//! It is the one object whose name says nothing of its bytes. What is believed here is a copy whose signature holds
//! under the public key that the registry beside it lists for its signer: bits that rot are noticed. Whether that
//! signer may sign it is a client's to say, who knows where the registry begins.

use crate::base::{KeyId, RepositoryId, limits};
use crate::crypto::{SignedMessage, verify};
use crate::format::config::Config;
use crate::format::envelope::Envelope;
use crate::format::kind::ObjectKind;
use crate::format::trust::Trust;
use crate::ops::OpsError;
use crate::storage::{StorageError, Store};
use std::collections::{BTreeMap, BTreeSet};

/// Both places of the configuration, in the order in which they are written ([CONCURRENCY-4]).
pub(super) const PLACES: [&str; 2] = ["copies/chronolith", "chronolith"];
/// Where versions of the registry lie.
const REGISTRY: [&str; 2] = ["trust/", "copies/trust/"];

/// A configuration whose signature holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub repository: RepositoryId,
    pub revision: u64,
    pub bytes: Vec<u8>,
}

/// What stands at one place.
pub(super) enum Copy {
    Missing,
    Bad(String),
    Good(Known),
}

/// What one side says of itself.
pub(super) struct Side {
    /// By place, as in [`PLACES`].
    pub copies: [Copy; 2],
    /// Names of versions of the registry that are what they are named for.
    pub registry: BTreeSet<String>,
}

/// Public keys by their ids, which are their hashes: it does not matter where they come from.
type Keys = BTreeMap<KeyId, [u8; 32]>;

impl Side {
    /// Reads the configuration and the registry of both stores. A mirror that was begun has the registry last.
    ///
    /// # Errors
    ///
    /// When a store does not answer.
    pub fn read_both(source: &dyn Store, target: &dyn Store) -> Result<(Self, Self), OpsError> {
        let mut keys = Keys::new();
        let registries = (registry(source, &mut keys)?, registry(target, &mut keys)?);
        Ok((Self::read(source, registries.0, &keys)?, Self::read(target, registries.1, &keys)?))
    }

    fn read(store: &dyn Store, registry: BTreeSet<String>, keys: &Keys) -> Result<Self, OpsError> {
        let [second, first] = PLACES;
        Ok(Self { copies: [read(store, second, keys)?, read(store, first, keys)?], registry })
    }

    /// Returns the copy with the highest revision.
    pub fn best(&self) -> Option<&Known> {
        let good = self.copies.iter().filter_map(|copy| match copy {
            Copy::Good(known) => Some(known),
            _ => None,
        });
        good.max_by_key(|known| known.revision)
    }

    /// Says whether both sides hold versions of one registry.
    pub fn shares_registry(&self, other: &Self) -> bool {
        !self.registry.is_disjoint(&other.registry)
    }
}

/// Returns the ids of a store's versions of the registry that are what they are named for, and takes the keys that they list.
fn registry(store: &dyn Store, keys: &mut Keys) -> Result<BTreeSet<String>, OpsError> {
    let mut ids = BTreeSet::new();
    for area in REGISTRY {
        for object in store.list(area)? {
            let bytes = match store.get(&object.name, limits::STRUCTURED_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
                Err(_) => continue,
            };
            let id = object.name.strip_prefix(area).unwrap_or_default();
            if id != blake3::hash(&bytes).to_hex().as_str() {
                continue;
            }
            ids.insert(id.to_owned());
            let trust = Envelope::parse(&bytes).and_then(|parsed| Trust::decode(parsed.payload));
            keys.extend(trust.into_iter().flat_map(|trust| trust.keys).map(|key| (key.id, key.signing)));
        }
    }
    Ok(ids)
}

fn read(store: &dyn Store, name: &str, keys: &Keys) -> Result<Copy, OpsError> {
    let bytes = match store.get(name, limits::CONFIG_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(StorageError::NotFound { .. }) => return Ok(Copy::Missing),
        Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
        Err(error) => return Ok(Copy::Bad(crate::base::explain(&error))),
    };
    let parsed = match Config::parse(&bytes) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Copy::Bad(error.to_string())),
    };
    let (repository, revision) = (parsed.config.repository, parsed.config.revision);
    let message = SignedMessage::new(&repository, ObjectKind::Configuration.number(), parsed.signed);
    let holds =
        keys.get(&parsed.config.signer).is_some_and(|key| verify(key, &message, &parsed.signature).is_ok());
    Ok(match holds {
        true => Copy::Good(Known { repository, revision, bytes }),
        false => Copy::Bad("its signature does not hold".to_owned()),
    })
}
