//! Key slots: opening one with what the user has, writing one for an identity.

use super::environment::{Environment, KeyCache};
use super::error::RepoError;
use super::frames::internal;
use super::sealed::{open_plain, sign_plain};
use crate::base::{Entropy, KeyId, RepositoryId, Secret, SecretBytes, SlotId, Timestamp, explain, limits};
use crate::crypto::{PasswordParameters, SigningKey, key_from_file, key_from_password};
use crate::format::cbor::Extra;
use crate::format::envelope::Envelope;
use crate::format::kind::ObjectKind;
use crate::format::slot::{Identity, Slot, Unlock};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet};

/// What the user unlocks a repository with.
pub enum Credential {
    /// A password, typed, from a file or printed by a command.
    Password(SecretBytes),
    /// The content of a key file.
    KeyFile(SecretBytes),
}

/// A slot found in the store.
pub struct FoundSlot {
    /// Its name in the store.
    pub id: SlotId,
    /// The key that signed it.
    pub signer: KeyId,
    /// Its content; the signature is checked once the registry is known.
    pub slot: Slot,
}

const CACHE_CONTEXT: &str = "chronolith v1 key cache";

fn cache_name(repository: &RepositoryId, slot: &SlotId) -> String {
    format!("chronolith:{}:{}", &repository.to_string()[..16], &slot.to_string()[..16])
}

/// Reads one slot's stored bytes from whichever of its two copies is whole.
///
/// # Errors
///
/// When neither is.
pub(super) fn fetch_slot(environment: &Environment, id: &SlotId) -> Result<Vec<u8>, RepoError> {
    let mut problem = None;
    for folder in ["keys", "copies/keys"] {
        match environment.store.get(&format!("{folder}/{id}"), limits::SLOT_BYTES_MAX * 2) {
            Ok(bytes) if blake3::hash(&bytes).as_bytes() == id.as_bytes() => return Ok(bytes),
            Ok(_) => {}
            Err(error) => problem = Some(error),
        }
    }
    Err(problem.map_or(RepoError::WrongKey { what: "slot: it is damaged by now" }, RepoError::from))
}

/// Reads all slots, each from whichever of its two copies is whole.
///
/// # Errors
///
/// When the store cannot be listed.
pub fn list_slots(environment: &Environment) -> Result<Vec<FoundSlot>, RepoError> {
    let (mut slots, mut unread) = (BTreeMap::new(), BTreeMap::new());
    for prefix in ["keys/", "copies/keys/"] {
        for object in environment.store.list(prefix)? {
            let Some(id) = object.name.rsplit('/').next().and_then(|id| id.parse::<SlotId>().ok()) else {
                continue;
            };
            if slots.contains_key(&id) {
                continue;
            }
            let bytes = match environment.store.get(&object.name, limits::SLOT_BYTES_MAX * 2) {
                Ok(bytes) => bytes,
                Err(error) => {
                    drop(unread.insert(id, error));
                    continue;
                }
            };
            if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
                environment.observer.warn(&format!("{} is damaged", object.name));
                continue;
            }
            let found = Envelope::parse(&bytes).and_then(|parsed| {
                let slot = Slot::decode(parsed.payload)?;
                Ok(FoundSlot { id, signer: parsed.envelope.signer, slot })
            });
            match found {
                Ok(found) => drop(slots.insert(id, found)),
                Err(why) => environment.observer.warn(&format!("{}: {why}", object.name)),
            }
        }
    }
    for (_, error) in unread.into_iter().filter(|(id, _)| !slots.contains_key(id)) {
        match error {
            // Else a store that is out of reach would look like a wrong password.
            error @ StorageError::Transient { .. } => return Err(error.into()),
            error => environment.observer.warn(&explain(&error)),
        }
    }
    Ok(slots.into_values().collect())
}

/// Remembers what a password was stretched to for a slot some minutes ago.
fn remembered(
    cache: &dyn KeyCache,
    repository: &RepositoryId,
    found: &FoundSlot,
    password: &SecretBytes,
) -> Option<Secret> {
    let held = cache.load(&cache_name(repository, &found.id))?;
    let (held_check, key) = held.expose().split_first_chunk::<32>()?;
    let mut hasher = blake3::Hasher::new_derive_key(CACHE_CONTEXT);
    hasher.update(&found.slot.salt).update(password.expose());
    // `Hash` compares in constant time.
    let same = hasher.finalize() == *held_check;
    <[u8; 32]>::try_from(key).ok().filter(|_| same).map(Secret::new)
}

fn remember(
    cache: &dyn KeyCache,
    repository: &RepositoryId,
    id: &SlotId,
    slot: &Slot,
    password: &SecretBytes,
    key: &Secret,
) {
    let mut hasher = blake3::Hasher::new_derive_key(CACHE_CONTEXT);
    hasher.update(&slot.salt).update(password.expose());
    let entry = SecretBytes::new([hasher.finalize().as_bytes().as_slice(), key.expose()].concat());
    cache.store(&cache_name(repository, id), entry.expose());
}

/// Unwraps the identity in a slot; `None` where the key does not fit.
fn identity_in(
    found: &FoundSlot,
    opener: &Secret,
    repository: &RepositoryId,
) -> Result<Option<Identity>, RepoError> {
    let name = || format!("keys/{}", found.id);
    let Ok(plain) = found.slot.open(opener, repository) else { return Ok(None) };
    let identity = Identity::decode(&plain).map_err(RepoError::damaged(name()))?;
    if SigningKey::from_seed(&identity.signing_seed).key_id() != found.slot.key {
        let why = "it holds another key than it says".to_owned();
        return Err(RepoError::Untrusted { object: name(), why });
    }
    Ok(Some(identity))
}

/// Opens the first slot that the credential fits and that `accept` takes; returns what that made of it.
///
/// Whoever can put objects can put a slot there that is another's but for who signed it, and that
/// opens with the same password. `accept` refuses it as untrusted, once it knows the registry; it is
/// told and the next one tried, so that nobody is locked out.
///
/// # Errors
///
/// [`RepoError::WrongKey`] when it fits none, or there is no slot of its kind;
/// [`RepoError::Untrusted`] when it fits only such as are refused.
pub fn open_slot<T>(
    environment: &Environment,
    repository: &RepositoryId,
    credential: &Credential,
    mut accept: impl FnMut(SlotId, Identity) -> Result<T, RepoError>,
) -> Result<T, RepoError> {
    let cache = environment.key_cache.as_ref();
    let mut slots = list_slots(environment)?;
    // What a command printed for its slot may have been given as a password too.
    slots.sort_by_key(|found| found.slot.unlock.number());
    let (mut refused, mut tried) = (Vec::new(), BTreeSet::new());
    let mut attempt = |id: SlotId, identity: Identity| match accept(id, identity) {
        Ok(opened) => {
            refused.iter().for_each(|why| environment.observer.warn(&explain(why)));
            Ok(Some(opened))
        }
        Err(error @ RepoError::Untrusted { .. }) => {
            refused.push(error);
            Ok(None)
        }
        Err(error) => Err(error),
    };
    if let Credential::Password(password) = credential {
        // Stretching costs a fifth of a second a slot: the one that is remembered comes first.
        for found in &slots {
            let Some(opener) = remembered(cache, repository, found, password) else { continue };
            let Ok(Some(identity)) = identity_in(found, &opener, repository) else { continue };
            tried.insert(found.id);
            if let Some(opened) = attempt(found.id, identity)? {
                return Ok(opened);
            }
        }
    }
    for found in slots.iter().filter(|found| !tried.contains(&found.id)) {
        let opener = match (credential, &found.slot.unlock) {
            (Credential::Password(password), Unlock::Password(parameters) | Unlock::Command(parameters)) => {
                key_from_password(password, &found.slot.salt, parameters)
                    .map_err(internal("stretching the password"))?
            }
            (Credential::KeyFile(content), Unlock::KeyFile) => key_from_file(content, &found.slot.salt)
                .map_err(|why| RepoError::Usage(format!("the key file cannot be used: {why}")))?,
            _ => continue,
        };
        let Some(identity) = identity_in(found, &opener, repository)? else { continue };
        let Some(opened) = attempt(found.id, identity)? else { continue };
        if let Credential::Password(password) = credential {
            remember(cache, repository, &found.id, &found.slot, password, &opener);
        }
        return Ok(opened);
    }
    Err(refused.into_iter().next().unwrap_or(RepoError::WrongKey {
        what: match credential {
            Credential::Password(_) => "password",
            Credential::KeyFile(_) => "key file",
        },
    }))
}

/// How a new slot is to be opened.
pub enum NewSlot<'a> {
    /// By a password.
    Password(&'a SecretBytes, PasswordParameters),
    /// By the content of a key file.
    KeyFile(&'a SecretBytes),
    /// By what a command prints.
    Command(&'a SecretBytes, PasswordParameters),
}

/// Wraps an identity into a new slot, signed by that identity itself.
///
/// # Errors
///
/// When the key file or the parameters cannot be used.
pub fn make_slot(
    repository: &RepositoryId,
    identity: &Identity,
    opener: &NewSlot<'_>,
    name: &str,
    created: Timestamp,
    entropy: &dyn Entropy,
) -> Result<(SlotId, Vec<u8>), RepoError> {
    let salt = entropy.draw();
    let (unlock, key) = match opener {
        NewSlot::Password(password, parameters) => {
            (Unlock::Password(*parameters), key_from_password(password, &salt, parameters))
        }
        NewSlot::KeyFile(content) => (Unlock::KeyFile, key_from_file(content, &salt)),
        NewSlot::Command(output, parameters) => {
            (Unlock::Command(*parameters), key_from_password(output, &salt, parameters))
        }
    };
    let key = key.map_err(|why| RepoError::Usage(format!("this cannot open a slot: {why}")))?;
    let signing = SigningKey::from_seed(&identity.signing_seed);
    let slot = Slot {
        unlock,
        salt,
        wrapped: identity.wrap(&key, &salt, repository).map_err(internal("wrapping an identity"))?,
        key: signing.key_id(),
        name: name.to_owned(),
        created,
        extra: Extra::new(),
    };
    let object = sign_plain(ObjectKind::Slot, repository, &signing, &slot.encode());
    Ok((SlotId::new(*blake3::hash(&object).as_bytes()), object))
}

/// Stores an object that opens the repository, in both places.
///
/// # Errors
///
/// What the store says.
pub fn put_twice(environment: &Environment, name: &str, object: &[u8]) -> Result<(), RepoError> {
    environment.store.put(&format!("copies/{name}"), object)?;
    environment.store.put(name, object)?;
    Ok(())
}

/// Checks a slot's signature by the registry's word for its key.
///
/// # Errors
///
/// When the signature does not hold or its signer may not sign that slot.
pub fn check_slot(
    repository: &RepositoryId,
    registry: &super::registry::Registry,
    id: SlotId,
    object: &[u8],
) -> Result<(), RepoError> {
    let name = format!("keys/{id}");
    let opened =
        open_plain(&name, id.into(), ObjectKind::Slot, repository, object, |key| registry.any_key(key))?;
    let slot = Slot::decode(&opened.payload).map_err(RepoError::damaged(name.as_str()))?;
    let act = crate::format::trust::Act::Slot { identity: slot.key };
    registry.believe(&name, &opened.signer, act, &id.into())
}

/// Reads a slot once more and checks who signed it, as [`check_slot`] does.
///
/// # Errors
///
/// When it cannot be read, or as there.
pub fn believe_slot(
    environment: &Environment,
    repository: &RepositoryId,
    registry: &super::registry::Registry,
    id: SlotId,
) -> Result<(), RepoError> {
    check_slot(repository, registry, id, &fetch_slot(environment, &id)?)
}
