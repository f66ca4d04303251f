//! Keys: who may open the repository, and for what.
//!
//! A *key* is an identity in the registry of trust, with a role. A *slot* is one way to open one: a
//! password, a key file, what a command prints. A key may have several slots.
//!
//! Write orders, and what a crash after each step leaves:
//!
//! adding a key
//! 1. its slot, twice: a slot that opens to an identity which the registry does not list. It is
//!    refused, and `list` shows it as left over;
//! 2. the next version of the registry, twice: the key is there, whole.
//!
//! (The other way round, a crash would leave a key that nobody can ever open, and the registry never
//! drops a key.)
//!
//! removing a key
//! 1. the next version of the registry, twice: the key opens nothing and signs nothing new;
//! 2. its slots: none is left.
//!
//! changing what opens a slot
//! 1. the new slot, twice: both open;
//! 2. the old slot: only the new one opens.

use super::error::OpsError;
use crate::base::{KeyId, SlotId, Timestamp};
use crate::crypto::SigningKey;
use crate::format::cbor::Extra;
use crate::format::slot::{Identity, Unlock};
use crate::format::trust::scope::Scope;
use crate::format::trust::{Act, KeyRecord, Role, Standing};
use crate::repo::{
    Credential, NewSlot, RepoError, Repository, add_to_registry, amend_registry, believe_slot, draw_identity,
    list_slots, make_slot, open_slot, put_twice, remove_from_registry,
};

/// One way to open a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotView {
    /// Its id.
    pub id: SlotId,
    /// What opens it: `password`, `key file`, `command`.
    pub kind: &'static str,
    /// A name for people.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A key with its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// What the registry says of it.
    pub record: KeyRecord,
    /// Its slots.
    pub slots: Vec<SlotView>,
    /// That it is the key in use.
    pub own: bool,
}

/// All keys, and slots that belong to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyList {
    /// The keys, oldest first.
    pub keys: Vec<KeyView>,
    /// Slots whose identity the registry does not list, or that were signed by a key that may not: left
    /// over, or put there by somebody.
    pub unlisted: Vec<SlotView>,
}

/// What a new key is to be.
pub struct NewKey {
    /// What it is for.
    pub role: Role,
    /// A name for people.
    pub name: String,
    /// Its trust domain; the empty one is that of all keys that were given none.
    pub domain: String,
    /// Where it may write; empty lists mean everywhere.
    pub scope: Scope,
}

/// A key and the slot that opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The key.
    pub key: KeyId,
    /// The new slot.
    pub slot: SlotId,
}

const fn kind(unlock: &Unlock) -> &'static str {
    match unlock {
        Unlock::Password(_) => "password",
        Unlock::KeyFile => "key file",
        Unlock::Command(_) => "command",
    }
}

/// Lists the keys of a repository. Every key may do this.
///
/// # Errors
///
/// When the store cannot be read.
pub fn list(repository: &Repository) -> Result<KeyList, OpsError> {
    let trust = repository.registry().trust();
    let mut keys: Vec<KeyView> = trust
        .keys
        .iter()
        .map(|record| KeyView {
            record: record.clone(),
            slots: Vec::new(),
            own: record.id == repository.keyring().identity.key,
        })
        .collect();
    keys.sort_by_key(|key| (key.record.created, key.record.id));
    let mut unlisted = Vec::new();
    for found in list_slots(repository.environment())? {
        let believed =
            believe_slot(repository.environment(), repository.id(), repository.registry(), found.id);
        let foreign = matches!(believed, Err(RepoError::Untrusted { .. }));
        let slot = SlotView {
            id: found.id,
            kind: kind(&found.slot.unlock),
            name: found.slot.name,
            created: found.slot.created,
        };
        match keys.iter_mut().find(|key| key.record.id == found.slot.key) {
            Some(key) if !foreign => key.slots.push(slot),
            _ => unlisted.push(slot),
        }
    }
    Ok(KeyList { keys, unlisted })
}

/// Finds a key by its id, a unique prefix of at least eight digits, or its name; of several keys of one name the one that
/// is in service.
///
/// # Errors
///
/// When none answers to it, or several do.
pub fn find(list: &KeyList, name: &str) -> Result<KeyId, OpsError> {
    let by_id = |key: &KeyView| name.len() >= 8 && key.record.id.to_string().starts_with(name);
    let by_name = |key: &KeyView| !name.is_empty() && key.record.name == name;
    let is_active = |key: &KeyView| key.record.standing() == Standing::Active;
    let any_active = list.keys.iter().any(|key| by_id(key) || by_name(key) && is_active(key));
    let mut found =
        list.keys.iter().filter(|key| by_id(key) || by_name(key) && (is_active(key) || !any_active));
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key.record.id),
        (None, _) => Err(OpsError::NotFound(format!("no key answers to {name:?}"))),
        (Some(first), Some(second)) => Err(RepoError::Ambiguous {
            name: name.to_owned(),
            candidates: format!("{}, {}", first.record.id, second.record.id),
        }
        .into()),
    }
}

fn put_slot(
    repository: &Repository,
    identity: &Identity,
    opener: &NewSlot<'_>,
    name: &str,
) -> Result<SlotId, OpsError> {
    let environment = repository.environment();
    let created = environment.clock.now();
    let entropy = environment.entropy.as_ref();
    let (id, object) = make_slot(repository.id(), identity, opener, name, created, entropy)?;
    if let Err(error) = put_twice(environment, &format!("keys/{id}"), &object) {
        // Half a slot would open something that its owner was never told of.
        let _ = delete_slot(repository, &id);
        return Err(error.into());
    }
    Ok(id)
}

fn delete_slot(repository: &Repository, id: &SlotId) -> Result<(), OpsError> {
    let store = &repository.environment().store;
    store.delete(&format!("keys/{id}"))?;
    store.delete(&format!("copies/keys/{id}"))?;
    Ok(())
}

/// Adds a key with a role, and the slot that opens it.
///
/// # Errors
///
/// When this key is no owner's, or the store fails.
pub fn add(repository: &Repository, new: &NewKey, opener: &NewSlot<'_>) -> Result<Made, OpsError> {
    let environment = repository.environment();
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Trust)?;
    let (sequence, known) = repository.registry().head();
    let identity = Identity {
        known,
        known_sequence: sequence,
        ..draw_identity(environment, new.role, repository.keyring().identity.genesis)
    };
    let signing = SigningKey::from_seed(&identity.signing_seed);
    let created = environment.clock.now();
    let mut record =
        KeyRecord::new(signing.public(), identity.exchange.public(), new.role, &new.name, created);
    record.domain.clone_from(&new.domain);
    record.scope = new.scope.clone();
    let slot = put_slot(repository, &identity, opener, &new.name)?;
    // Should this fail, the slot stays: the version may have been written all the same.
    amend_registry(repository, |trust| add_to_registry(repository, trust, &record))?;
    Ok(Made { key: record.id, slot })
}

/// Returns the identity of the key in use, for a slot that is made now.
fn own_identity(repository: &Repository) -> Identity {
    let own = &repository.keyring().identity;
    let (known_sequence, known) = repository.registry().head();
    Identity {
        signing_seed: own.seed.duplicate(),
        exchange: crate::crypto::ContentSecretKey::new(own.exchange.secret().duplicate()),
        genesis: own.genesis,
        role: own.role,
        known,
        known_sequence,
        extra: Extra::new(),
    }
}

/// Adds another way to open the key in use. Every key may do this.
///
/// # Errors
///
/// When this key was removed or revoked, or the store fails.
pub fn add_slot(repository: &Repository, opener: &NewSlot<'_>, name: &str) -> Result<Made, OpsError> {
    let key = repository.keyring().identity.key;
    repository.registry().may_sign(&key, Act::Slot { identity: key })?;
    let slot = put_slot(repository, &own_identity(repository), opener, name)?;
    Ok(Made { key, slot })
}

/// Replaces the slot that `current` opens by one that something else opens.
///
/// # Errors
///
/// When `current` opens no slot of the key in use, or the store fails.
pub fn change_slot(
    repository: &Repository,
    current: &Credential,
    opener: &NewSlot<'_>,
) -> Result<Made, OpsError> {
    // A copy of the slot that another key signed opens too; it is the true one that must go.
    let old = open_slot(repository.environment(), repository.id(), current, |slot, _| {
        believe_slot(repository.environment(), repository.id(), repository.registry(), slot)?;
        Ok(slot)
    })?;
    let name = list_slots(repository.environment())?
        .into_iter()
        .find(|found| found.id == old)
        .map_or_else(String::new, |found| found.slot.name);
    let made = add_slot(repository, opener, &name)?;
    delete_slot(repository, &old)?;
    Ok(made)
}

/// Takes a key out of service and deletes its slots; returns how many there were.
///
/// What it signed still counts, and whoever has copied its secrets can still read what they opened
/// so far: where that matters, content moves to a new repository.
///
/// # Errors
///
/// When this key is no owner's, no owner would be left, or the store fails.
pub fn remove(repository: &Repository, key: &KeyId) -> Result<u64, OpsError> {
    amend_registry(repository, |trust| remove_from_registry(trust, key))?;
    delete_slots_of(repository, key)
}

/// Deletes all slots of a key; returns how many there were.
pub(super) fn delete_slots_of(repository: &Repository, key: &KeyId) -> Result<u64, OpsError> {
    let mut deleted = 0;
    for found in list_slots(repository.environment())? {
        if found.slot.key == *key {
            delete_slot(repository, &found.id)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Deletes one slot. What it opened may have others.
///
/// # Errors
///
/// When it is the last way to open an owner's key, there is no such slot, or the store fails.
pub fn remove_slot(repository: &Repository, id: &SlotId) -> Result<(), OpsError> {
    let list = list(repository)?;
    let own = repository.keyring().identity.key;
    let role = repository.keyring().identity.role;
    let holder = list.keys.iter().find(|key| key.slots.iter().any(|slot| slot.id == *id));
    match holder {
        Some(key) if key.record.id != own && role != Role::Owner => {
            return Err(RepoError::Forbidden {
                role: role.name(),
                action: "delete another key's slot".to_owned(),
            }
            .into());
        }
        Some(key) if key.slots.len() == 1 => {
            return Err(OpsError::Usage(format!(
                "it is the only way to open the key {}: remove the key instead",
                key.record.id.short()
            )));
        }
        Some(_) => {}
        None if list.unlisted.iter().any(|slot| slot.id == *id) => {}
        None => return Err(OpsError::NotFound(format!("there is no slot {}", id.short()))),
    }
    delete_slot(repository, id)
}
