//! Changing the registry of trust: an owner writes the next version.
//!
//! Write order, and what a crash after each step leaves:
//! 1. the copy of the new version: it counts at once, since readers take either copy;
//! 2. the version itself: the same.
//!
//! Nobody locks. Two owners may write a version each on top of the same one; the one with the lowest
//! id counts (`format-spec/trust.md`, [TRUST-10]). So whoever has written lists again: who lost makes
//! the change again on top of the winner, and who won takes over what a loser had changed, since the
//! loser may have listed, and been content, before the winner wrote.

use super::error::RepoError;
use super::init::make_grant;
use super::registry::Registry;
use super::repository::Repository;
use super::sealed::sign_plain;
use super::seen::Seen;
use super::slots::put_twice;
use crate::base::{Secret, Timestamp, TrustId, limits};
use crate::crypto::ContentSecretKey;
use crate::format::cbor::Extra;
use crate::format::grant::Bundle;
use crate::format::kind::ObjectKind;
use crate::format::pack::BlobClass;
use crate::format::trust::{Act, Epoch, KeyRecord, Revocation, Standing, Trust, Version};
use crate::storage::StorageError;
use std::collections::BTreeSet;

/// How often the change is made again before something is wrong with the store.
const ATTEMPTS: usize = 16;

/// Makes a change to the registry, as often as others come in between, and returns the registry in
/// which it counts.
///
/// `change` is given the next version, with number, predecessor and time filled in; it finds its own
/// change there already when that was taken over by somebody, and then does nothing.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for any key but an owner's; what `change` or the store say.
pub fn amend_registry(
    repository: &Repository,
    change: impl Fn(&mut Trust) -> Result<(), RepoError>,
) -> Result<Registry, RepoError> {
    let environment = repository.environment();
    let own = repository.keyring().identity.key;
    let mut known = vec![repository.registry().head()];
    let mut rivals: Vec<TrustId> = Vec::new();
    for _ in 0..ATTEMPTS {
        let listed = list_versions(repository)?;
        let registry = load(repository, &known)?;
        registry.may_sign(&own, Act::Trust)?;
        complete(repository, &registry.head().1)?;
        let mut next = following(repository, &registry);
        for rival in rivals.drain(..) {
            take_over(repository, &registry, &rival, &mut next)?;
        }
        change(&mut next)?;
        next.keys.sort_by_key(|key| key.id);
        if same_but_for_number(&next, registry.trust()) {
            return Ok(registry);
        }
        let object = sign_plain(
            ObjectKind::Trust,
            repository.id(),
            &repository.keyring().identity.signing,
            &next.encode(),
        );
        // What would not be read must not be written.
        Trust::decode(&next.encode()).map_err(RepoError::damaged("the registry being written"))?;
        if list_versions(repository)? != listed {
            continue;
        }
        let id = TrustId::new(*blake3::hash(&object).as_bytes());
        put_twice(environment, &format!("trust/{id}"), &object)?;
        let written = load(repository, &known)?;
        let counts = written.chain().at(next.sequence).is_some_and(|version| version.id == id);
        rivals = written
            .chain()
            .refused
            .iter()
            .map(|(rival, _)| *rival)
            .filter(|rival| *rival != id && !listed.contains(rival))
            .collect();
        if counts && rivals.is_empty() {
            return Ok(written);
        }
        known = vec![registry.head()];
    }
    Err(RepoError::Internal {
        doing: "changing the registry of trust",
        why: "others change it all the time".to_owned(),
    })
}

/// Reads the registry as the store shows it now.
pub(super) fn load(repository: &Repository, known: &[(u64, TrustId)]) -> Result<Registry, RepoError> {
    let genesis = repository.keyring().identity.genesis;
    Registry::load(repository.environment(), repository.id(), genesis, known, &Seen::default())
}

/// Puts the copy of a version that is missing, as where its writer found the store full after the first.
fn complete(repository: &Repository, id: &TrustId) -> Result<(), RepoError> {
    let store = &repository.environment().store;
    let (first, second) = (format!("trust/{id}"), format!("copies/trust/{id}"));
    for (missing, other) in [(&first, &second), (&second, &first)] {
        if !matches!(store.head(missing), Err(StorageError::NotFound { .. })) {
            continue;
        }
        let bytes = store.get(other, limits::STRUCTURED_BYTES_MAX)?;
        if blake3::hash(&bytes).as_bytes() == id.as_bytes() {
            store.put(missing, &bytes)?;
        }
    }
    Ok(())
}

fn list_versions(repository: &Repository) -> Result<BTreeSet<TrustId>, RepoError> {
    let mut versions = BTreeSet::new();
    for prefix in ["trust/", "copies/trust/"] {
        let objects = repository.environment().store.list(prefix)?;
        let id = |name: &str| name.rsplit('/').next()?.parse::<TrustId>().ok();
        versions.extend(objects.iter().filter_map(|object| id(&object.name)));
    }
    Ok(versions)
}

impl Repository {
    /// Says whether the registry is still the one that this client opened the repository with: who was added
    /// since is a stranger to it. Costs two listings where nothing has changed.
    ///
    /// # Errors
    ///
    /// When the store does not answer, or the registry there does not follow from the known one.
    pub fn is_registry_current(&self) -> Result<bool, RepoError> {
        let chain = self.registry().chain();
        let is_known = |id: &TrustId| {
            chain.versions().iter().any(|version| version.id == *id)
                || chain.refused.iter().any(|(refused, _)| refused == id)
        };
        if list_versions(self)?.iter().all(is_known) {
            return Ok(true);
        }
        let head = self.registry().head();
        Ok(load(self, &[head])?.head() == head)
    }

    /// Says whether the key in use is in service, by the registry as it is now.
    ///
    /// # Errors
    ///
    /// As [`Repository::is_registry_current`].
    pub fn is_in_service(&self) -> Result<bool, RepoError> {
        if self.is_registry_current()? {
            return Ok(true);
        }
        let now = load(self, &[self.registry().head()])?;
        let own = now.trust().key(&self.keyring().identity.key);
        Ok(own.is_some_and(|key| key.standing() == Standing::Active))
    }
}

fn following(repository: &Repository, registry: &Registry) -> Trust {
    let (sequence, id) = registry.head();
    Trust {
        sequence: sequence.saturating_add(1),
        predecessor: Some(id),
        created: repository.environment().clock.now(),
        ..registry.trust().clone()
    }
}

fn same_but_for_number(next: &Trust, last: &Trust) -> bool {
    let as_last = Trust {
        sequence: last.sequence,
        predecessor: last.predecessor,
        created: last.created,
        ..next.clone()
    };
    as_last == *last
}

/// Takes over what an owner changed in a version that lost: keys that it added, with their grants,
/// and keys that it took out of service.
fn take_over(
    repository: &Repository,
    registry: &Registry,
    rival: &TrustId,
    next: &mut Trust,
) -> Result<(), RepoError> {
    let Some(rival) = super::registry::fetch_version(repository.environment(), repository.id(), rival)?
    else {
        return Ok(());
    };
    if !is_owners(registry, &rival) {
        return Ok(());
    }
    for key in &rival.trust.keys {
        match next.keys.iter_mut().find(|known| known.id == key.id) {
            // A revocation names the version that makes it, which is this one now.
            Some(known) if key.revoked.is_some() && known.revoked.is_none() => {
                let sequence = next.sequence;
                known.revoked = key.revoked.clone().map(|revoked| Revocation { sequence, ..revoked });
                drop_grants(next, &key.id);
            }
            Some(known) if key.removed && !known.removed => {
                known.removed = true;
                drop_grants(next, &key.id);
            }
            Some(_) => {}
            None if key.revoked.is_none() => {
                next.keys.push(key.clone());
                for epoch in &mut next.epochs {
                    let grant = rival.trust.epoch(epoch.number).and_then(|epoch| epoch.grant(&key.id));
                    if let Some(grant) = grant {
                        epoch.grants.push(grant.clone());
                        epoch.grants.sort_by_key(|grant| grant.key);
                    }
                }
            }
            None => {}
        }
    }
    // An epoch that began in the rival begins here too, but for keys that are out of service by now.
    for epoch in rival.trust.epochs.iter().filter(|epoch| epoch.number > registry_epochs(registry)) {
        if next.epochs.iter().any(|known| known.content == epoch.content) {
            continue;
        }
        let mut epoch = epoch.clone();
        epoch.number = following_epoch(next);
        // Grants are bound to the number of their epoch: under another one nobody could open them.
        if rival.trust.epoch(epoch.number).is_some_and(|same| same.content == epoch.content) {
            let is_active = |key: &crate::base::KeyId| {
                next.keys.iter().any(|known| known.id == *key && known.standing() == Standing::Active)
            };
            epoch.grants.retain(|grant| is_active(&grant.key));
            next.epochs.push(epoch);
        }
    }
    Ok(())
}

fn registry_epochs(registry: &Registry) -> u32 {
    registry.trust().current_epoch().map_or(0, |epoch| epoch.number)
}

fn following_epoch(trust: &Trust) -> u32 {
    trust.epochs.last().map_or(1, |epoch| epoch.number.saturating_add(1))
}

/// The secrets of an epoch that is to begin.
pub struct NewEpoch {
    metadata: Secret,
    content: ContentSecretKey,
    created: Timestamp,
}

impl NewEpoch {
    /// Draws new secrets.
    ///
    /// # Errors
    ///
    /// When this key does not hold what stays the same in all epochs.
    pub fn draw(repository: &Repository) -> Result<Self, RepoError> {
        let environment = repository.environment();
        let keyring = repository.keyring();
        keyring.id_key(BlobClass::Content)?;
        keyring.chunker_seed()?;
        let entropy = environment.entropy.as_ref();
        Ok(Self {
            metadata: Secret::new(entropy.draw()),
            content: ContentSecretKey::new(Secret::new(entropy.draw())),
            created: environment.clock.now(),
        })
    }
}

/// Begins an epoch with these secrets, granted to every key in service as far as its role is given them. What was
/// sealed before stays as it is. Does nothing where it has begun already.
///
/// # Errors
///
/// When the exchange half of a key is not usable.
pub fn begin_epoch(repository: &Repository, trust: &mut Trust, new: &NewEpoch) -> Result<(), RepoError> {
    let public = new.content.public();
    if trust.epochs.iter().any(|epoch| epoch.content == public) {
        return Ok(());
    }
    let keyring = repository.keyring();
    let number = following_epoch(trust);
    let bundle = Bundle {
        epoch: number,
        metadata: new.metadata.duplicate(),
        content: Some(ContentSecretKey::new(new.content.secret().duplicate())),
        content_ids: Some(keyring.id_key(BlobClass::Content)?.secret().duplicate()),
        metadata_ids: keyring.id_key(BlobClass::Metadata)?.secret().duplicate(),
        chunker_seed: Some(keyring.chunker_seed()?.duplicate()),
        extra: Extra::new(),
    };
    let mut grants = Vec::new();
    for key in trust.keys.iter().filter(|key| key.standing() == Standing::Active) {
        grants.push(make_grant(repository.environment(), repository.id(), &bundle, key)?);
    }
    grants.sort_by_key(|grant| grant.key);
    trust.epochs.push(Epoch {
        number,
        content: public,
        created: new.created,
        suite: repository.suite(),
        grants,
        closed: false,
        extra: Extra::new(),
    });
    Ok(())
}

/// Revokes a key: of what it signed only what the revocation lists still counts, and it opens nothing any more.
/// With `close`, nothing is adopted from the epochs that it was granted. A key that was revoked before keeps
/// the time of that, and what is accepted of it grows or shrinks to what is given.
///
/// # Errors
///
/// [`RepoError::Usage`] when no owner would be left, or there is no such key.
pub fn revoke_in_registry(
    trust: &mut Trust,
    key: &crate::base::KeyId,
    revocation: Revocation,
    close: bool,
) -> Result<(), RepoError> {
    let record = trust.keys.iter_mut().find(|record| record.id == *key);
    let record = record.ok_or_else(|| RepoError::Usage(format!("there is no key {}", key.short())))?;
    record.revoked = Some(match record.revoked.take() {
        Some(before) => Revocation { accepted: revocation.accepted, ..before },
        None => revocation,
    });
    if !trust.keys.iter().any(KeyRecord::is_active_owner) {
        return Err(RepoError::Usage(
            "it is the only owner: nobody could change the keys any more".to_owned(),
        ));
    }
    if close {
        for epoch in trust.epochs.iter_mut().filter(|epoch| epoch.grant(key).is_some()) {
            epoch.closed = true;
        }
    }
    drop_grants(trust, key);
    Ok(())
}

/// Says whether a version that does not count was made by somebody who may make versions.
fn is_owners(registry: &Registry, version: &Version) -> bool {
    version.signature_holds
        && registry.chain().versions().iter().any(|before| Some(before.id) == version.trust.predecessor)
        && registry.trust().key(&version.signer).is_some_and(KeyRecord::is_active_owner)
}

/// Takes a key's grants away, so that opening the repository with it shows nothing any more.
fn drop_grants(trust: &mut Trust, key: &crate::base::KeyId) {
    for epoch in &mut trust.epochs {
        epoch.grants.retain(|grant| grant.key != *key);
    }
}

/// Lists a new key with grants of every epoch that this key holds itself, as far as its role is
/// given them.
///
/// # Errors
///
/// When the new key's exchange half is not usable.
pub fn add_to_registry(
    repository: &Repository,
    trust: &mut Trust,
    record: &KeyRecord,
) -> Result<(), RepoError> {
    if trust.keys.iter().any(|key| key.id == record.id) {
        return Ok(());
    }
    trust.keys.push(record.clone());
    for bundle in bundles(repository)? {
        if let Some(epoch) = trust.epochs.iter_mut().find(|epoch| epoch.number == bundle.epoch) {
            epoch.grants.push(make_grant(repository.environment(), repository.id(), &bundle, record)?);
            epoch.grants.sort_by_key(|grant| grant.key);
        }
    }
    Ok(())
}

/// Takes a key out of service: what it signed still counts, but it signs nothing new and opens nothing.
///
/// # Errors
///
/// [`RepoError::Usage`] when no owner would be left, or there is no such key.
pub fn remove_from_registry(trust: &mut Trust, key: &crate::base::KeyId) -> Result<(), RepoError> {
    let record = trust.keys.iter_mut().find(|record| record.id == *key);
    let record = record.ok_or_else(|| RepoError::Usage(format!("there is no key {}", key.short())))?;
    record.removed = true;
    if !trust.keys.iter().any(KeyRecord::is_active_owner) {
        return Err(RepoError::Usage(
            "it is the only owner: nobody could change the keys any more".to_owned(),
        ));
    }
    drop_grants(trust, key);
    Ok(())
}

/// Returns all that this key holds, epoch by epoch.
fn bundles(repository: &Repository) -> Result<Vec<Bundle>, RepoError> {
    let keyring = repository.keyring();
    let bundle = |epoch: &super::keyring::EpochKeys| -> Result<Bundle, RepoError> {
        let copy = |key: &ContentSecretKey| ContentSecretKey::new(key.secret().duplicate());
        Ok(Bundle {
            epoch: epoch.number,
            metadata: epoch.metadata.duplicate(),
            content: epoch.content_secret.as_ref().map(copy),
            content_ids: keyring.id_key(BlobClass::Content).ok().map(|ids| ids.secret().duplicate()),
            metadata_ids: keyring.id_key(BlobClass::Metadata)?.secret().duplicate(),
            chunker_seed: keyring.chunker_seed().ok().map(crate::base::Secret::duplicate),
            extra: Extra::new(),
        })
    };
    keyring.epochs().map(bundle).collect()
}
