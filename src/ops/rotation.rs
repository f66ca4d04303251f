//! Keys over time: a new epoch, and the end of a key that is in the wrong hands.
//!
//! Nothing is sealed again: what was sealed in an old epoch stays readable by those who hold it.
//!
//! Write order, and what a crash after each step leaves:
//! 1. where an owner is revoked who signed the configuration: the same configuration, signed by another owner;
//! 2. the next version of the registry, twice: the new epoch, the revocation, both at once;
//! 3. the slots of a revoked key are deleted: they opened nothing any more.

use super::error::OpsError;
use super::keys::delete_slots_of;
use crate::base::{KeyId, ObjectId, Timestamp, limits};
use crate::format::cbor::Extra;
use crate::format::kind::{MAGIC, ObjectKind};
use crate::format::trust::{Act, KeyRecord, Revocation, Standing};
use crate::repo::{NewEpoch, RepoError, Repository, amend_registry, begin_epoch, revoke_in_registry};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes at the start of an object that say of what kind it is and who signed it, alike in all kinds.
const FRONT_BYTES: usize = 48;

/// Begins an epoch with new keys for metadata and content, granted to all keys in service; returns its number.
///
/// # Errors
///
/// When this key is no owner's, or the store fails.
pub fn rotate(repository: &Repository) -> Result<u32, OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Trust)?;
    let epoch = NewEpoch::draw(repository)?;
    let registry = amend_registry(repository, |trust| begin_epoch(repository, trust, &epoch))?;
    Ok(registry.trust().current_epoch().map_or(0, |epoch| epoch.number))
}

/// What of a revoked key's objects is still accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// Nothing.
    Nothing,
    /// Everything that is there now.
    Everything,
    /// What the store received before this time.
    Before(Timestamp),
}

/// An object that the key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedObject {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its id.
    pub id: ObjectId,
    /// Its name in the store.
    pub name: String,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
    /// That it still counts.
    pub accepted: bool,
}

/// What a revocation would bring about.
pub struct RevocationPlan {
    /// The key.
    pub key: KeyRecord,
    /// Everything in the store that it signed, apart from sessions, in order of names.
    pub objects: Vec<SignedObject>,
    /// Closes the epochs that the key was granted: nothing that was sealed in them is adopted any more.
    pub close_epochs: bool,
}

impl RevocationPlan {
    /// Finds everything that a key signed, and decides what of it is still accepted; `also` are accepted whatever
    /// else is.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] unless this key is an owner's; [`OpsError::Usage`] for the key in use, the only
    /// owner, or where more would be accepted than a revocation can list; what the store says.
    pub fn new(
        repository: &Repository,
        key: &KeyId,
        accept: &Accept,
        also: &BTreeSet<ObjectId>,
        close_epochs: bool,
    ) -> Result<Self, OpsError> {
        let own = repository.keyring().identity.key;
        repository.registry().may_sign(&own, Act::Trust)?;
        let record = repository.registry().trust().key(key);
        let record =
            record.ok_or_else(|| OpsError::NotFound(format!("there is no key {}", key.short())))?.clone();
        if *key == own {
            let why = "it is the key in use: another owner has to revoke it";
            return Err(OpsError::Usage(why.to_owned()));
        }
        let before = match record.standing() {
            Standing::Revoked => record.revoked.as_ref().map(|revoked| revoked.accepted.clone()),
            Standing::Active | Standing::Retired => None,
        };
        let before: BTreeSet<ObjectId> = before.unwrap_or_default().into_iter().collect();
        let mut objects = Vec::new();
        let store = &repository.environment().store;
        for object in store.list("")? {
            if repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            let Some((kind, id)) = signed_by(repository, key, &object.name, object.length)? else { continue };
            let accepted = also.contains(&id)
                || before.contains(&id)
                || match accept {
                    Accept::Nothing => false,
                    Accept::Everything => true,
                    Accept::Before(time) => object.modified.is_some_and(|stored| stored < *time),
                };
            objects.push(SignedObject { kind, id, name: object.name, stored: object.modified, accepted });
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        let plan = Self { key: record, objects, close_epochs };
        let most = limits::TRUST_ACCEPTED_MAX;
        if plan.accepted().len() as u64 > most {
            return Err(OpsError::Usage(format!(
                "{} objects would still be accepted, a revocation lists at most {most}: accept those up to an earlier time",
                plan.accepted().len()
            )));
        }
        Ok(plan)
    }

    /// Returns the ids that are still accepted, ascending.
    fn accepted(&self) -> BTreeSet<ObjectId> {
        self.objects.iter().filter(|object| object.accepted).map(|object| object.id).collect()
    }

    /// Counts objects by kind: all, and those that are still accepted.
    pub fn counts(&self) -> BTreeMap<ObjectKind, (u64, u64)> {
        let mut counts: BTreeMap<ObjectKind, (u64, u64)> = BTreeMap::new();
        for object in &self.objects {
            let count = counts.entry(object.kind).or_default();
            count.0 += 1;
            count.1 += u64::from(object.accepted);
        }
        counts
    }

    /// Revokes the key, begins an epoch that it is not granted, and deletes its slots; returns the number of the epoch.
    ///
    /// # Errors
    ///
    /// [`OpsError::Usage`] when no owner would be left; what the store says.
    pub fn run(&self, repository: &Repository) -> Result<u32, OpsError> {
        let epoch = NewEpoch::draw(repository)?;
        let revision = match repository.config().signer == self.key.id {
            true => repository.sign_configuration()?,
            false => repository.config().revision,
        };
        let now = repository.environment().clock.now();
        let registry = amend_registry(repository, |trust| {
            let revocation = Revocation {
                at: now,
                sequence: trust.sequence,
                catalog: None,
                accepted: self.accepted().into_iter().collect(),
                extra: Extra::new(),
            };
            revoke_in_registry(trust, &self.key.id, revocation, self.close_epochs)?;
            // No older configuration, which a thief may have signed, is believed any more.
            trust.least_revision = trust.least_revision.max(revision);
            begin_epoch(repository, trust, &epoch)
        })?;
        delete_slots_of(repository, &self.key.id)?;
        Ok(registry.trust().current_epoch().map_or(0, |epoch| epoch.number))
    }
}

/// Says of what kind an object is, if this key signed it; whether the signature holds, its readers ask.
fn signed_by(
    repository: &Repository,
    key: &KeyId,
    name: &str,
    length: u64,
) -> Result<Option<(ObjectKind, ObjectId)>, OpsError> {
    let area = name.split('/').next().unwrap_or_default();
    let counts = matches!(
        area,
        "packs"
            | "index"
            | "snapshots"
            | "annotations"
            | "logs"
            | "damaged"
            | "condemned"
            | "catalog"
            | "parity"
    );
    let Some(Ok(id)) = name.rsplit('/').next().map(str::parse::<ObjectId>) else { return Ok(None) };
    if !counts || length < FRONT_BYTES as u64 {
        return Ok(None);
    }
    let mut front = Vec::with_capacity(FRONT_BYTES);
    match repository.environment().store.get_range(name, 0, FRONT_BYTES, &mut front) {
        Ok(()) => {}
        Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
        Err(_) => return Ok(None),
    }
    let kind =
        front.get(4).and_then(|number| ObjectKind::ALL.into_iter().find(|kind| kind.number() == *number));
    let signer = front.get(16..FRONT_BYTES);
    let is_signed = front.starts_with(&MAGIC) && signer == Some(key.as_bytes().as_slice());
    Ok(kind.filter(|_| is_signed).map(|kind| (kind, id)))
}
