//! The registry of authority as this client believes it.

use super::environment::Environment;
use super::error::RepoError;
use super::seen::Seen;
use crate::base::{KeyId, ObjectId, PackId, RepositoryId, TrustId, explain, limits};
use crate::crypto::{SignedMessage, verify};
use crate::format::envelope::Envelope;
use crate::format::kind::ObjectKind;
use crate::format::trust::{Act, Chain, ChainError, Refusal, Role, Standing, Trust, Version};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// The chain of versions that counts, and what follows from its newest one.
pub struct Registry {
    chain: Chain,
    unread: BTreeSet<TrustId>,
    adopts: Mutex<HashMap<(KeyId, KeyId), bool>>,
}

fn refused(object: &str) -> impl FnOnce(Refusal) -> RepoError {
    let object = object.to_owned();
    move |why| RepoError::Untrusted { object, why: why.to_string() }
}

/// Reads one version: its bytes must be those it is named for; whether it counts is the chain's to say.
fn read_version(repository: &RepositoryId, id: TrustId, bytes: &[u8]) -> Option<Version> {
    if blake3::hash(bytes).as_bytes() != id.as_bytes() {
        return None;
    }
    let parsed = Envelope::parse(bytes).ok().filter(|parsed| parsed.envelope.kind == ObjectKind::Trust)?;
    let trust = Trust::decode(parsed.payload).ok()?;
    let signer = parsed.envelope.signer;
    let message = SignedMessage::new(repository, ObjectKind::Trust.number(), parsed.signed);
    let signature_holds = Version::signing_key(&trust, &signer)
        .is_some_and(|public| verify(&public, &message, parsed.signature).is_ok());
    Some(Version { id, trust, signer, signature_holds })
}

/// Reads one version from whichever of its two copies is whole, whether it counts or not.
///
/// # Errors
///
/// When the store cannot be read.
pub(super) fn fetch_version(
    environment: &Environment,
    repository: &RepositoryId,
    id: &TrustId,
) -> Result<Option<Version>, RepoError> {
    for folder in ["trust", "copies/trust"] {
        match environment.store.get(&format!("{folder}/{id}"), limits::STRUCTURED_BYTES_MAX) {
            Ok(bytes) => match read_version(repository, *id, &bytes) {
                Some(version) => return Ok(Some(version)),
                None => continue,
            },
            Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

impl Registry {
    /// Reads all versions from the store, each from whichever of its two copies is whole.
    ///
    /// # Errors
    ///
    /// When no chain leads from the pinned first version to what was seen before.
    pub fn load(
        environment: &Environment,
        repository: &RepositoryId,
        genesis: TrustId,
        known: &[(u64, TrustId)],
        seen: &Seen,
    ) -> Result<Self, RepoError> {
        let (mut versions, mut unread) = (BTreeMap::new(), BTreeMap::new());
        let (mut rotten, mut named_right) = (BTreeSet::new(), BTreeSet::new());
        for prefix in ["trust/", "copies/trust/"] {
            for object in environment.store.list(prefix)? {
                let Some(id) = object.name.rsplit('/').next().and_then(|id| id.parse::<TrustId>().ok())
                else {
                    continue;
                };
                if versions.contains_key(&id) {
                    continue;
                }
                match environment.store.get(&object.name, limits::STRUCTURED_BYTES_MAX) {
                    Ok(bytes) => {
                        let is_right = blake3::hash(&bytes).as_bytes() == id.as_bytes();
                        if is_right {
                            named_right.insert(id)
                        } else {
                            rotten.insert(id)
                        };
                        match read_version(repository, id, &bytes) {
                            Some(version) => drop(versions.insert(id, version)),
                            None => environment.observer.warn(&format!("{} is damaged", object.name)),
                        }
                    }
                    Err(error) => drop(unread.insert(id, error)),
                }
            }
        }
        rotten.extend(unread.keys());
        rotten.retain(|id| !named_right.contains(id));
        for (_, error) in unread.into_iter().filter(|(id, _)| !versions.contains_key(id)) {
            match error {
                // A newer version may be what could not be read: an older one must not count meanwhile.
                error @ StorageError::Transient { .. } => return Err(error.into()),
                error => environment.observer.warn(&explain(&error)),
            }
        }
        let mut all_known = known.to_vec();
        all_known.extend(seen.registry);
        let chain = Chain::resolve(versions.into_values().collect(), genesis, &all_known).map_err(|error| {
            let by_cache = match &error {
                ChainError::Missing { sequence, .. } => !known.iter().any(|(known, _)| known >= sequence),
                _ => false,
            };
            let why = match by_cache {
                true => format!(
                    "{error}; bring the object back from a copy of the repository; only the cache of this host remembers it: with \
                     --no-cache what is left can be read"
                ),
                false => error.to_string(),
            };
            RepoError::Untrusted { object: "the registry of trust".to_owned(), why }
        })?;
        for (id, why) in &chain.refused {
            environment.observer.warn(&format!("trust/{id} does not count: {why}"));
        }
        Ok(Self { chain, unread: rotten, adopts: Mutex::default() })
    }

    /// Returns the versions that count, and those that do not.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Returns objects in the place of versions of which no copy can be read: one may be newer than all that count.
    pub fn unread(&self) -> &BTreeSet<TrustId> {
        &self.unread
    }

    /// Returns the newest version.
    pub fn trust(&self) -> &Trust {
        &self.chain.head().trust
    }

    /// Returns the id of the newest version.
    pub fn id(&self) -> TrustId {
        self.chain.head().id
    }

    /// Returns number and id of the newest version.
    pub fn head(&self) -> (u64, TrustId) {
        (self.trust().sequence, self.id())
    }

    /// Returns the public key of a signer, whatever it may do; `None` where the registry does not know it.
    pub fn any_key(&self, signer: &KeyId) -> Option<[u8; 32]> {
        self.trust().key(signer).map(|key| key.signing)
    }

    /// Returns the public key of a signer whose role lets it do this.
    pub fn public_key(&self, signer: &KeyId, act: Act<'_>) -> Option<[u8; 32]> {
        self.trust().permits(signer, act).ok()?;
        self.any_key(signer)
    }

    /// Says whether a stored object counts for what it says; its signature was verified before.
    ///
    /// # Errors
    ///
    /// [`RepoError::Untrusted`] with the rule that it breaks.
    pub fn believe(
        &self,
        object: &str,
        signer: &KeyId,
        act: Act<'_>,
        id: &ObjectId,
    ) -> Result<(), RepoError> {
        self.trust().believes(signer, act, id, false).map_err(refused(object))
    }

    /// Says whether there ever was a key that may write and must not be believed.
    pub fn has_writers(&self) -> bool {
        self.trust().keys.iter().any(|key| key.role == Role::Writer)
    }

    /// Says whether a key is believed whatever it copies: it has a role that may delete, and is not in wrong
    /// hands ([CONCURRENCY-47]).
    pub fn is_believed(&self, signer: &KeyId) -> bool {
        self.trust().key(signer).is_some_and(|key| {
            matches!(key.role, Role::Owner | Role::Maintainer) && key.standing() != Standing::Revoked
        })
    }

    /// Says whether what a key attests of its own packs makes up for copies of others: only owners can both read
    /// content and delete, and one in wrong hands is not asked ([CONCURRENCY-57]).
    pub fn may_vouch(&self, signer: &KeyId) -> bool {
        let key = self.trust().key(signer);
        key.is_some_and(|key| key.role == Role::Owner && key.standing() != Standing::Revoked)
    }

    /// Says whether everybody who may rely on packs of `signer` may rely on those of `own` too: both are of one
    /// trust domain.
    pub fn shares_domain(&self, own: &KeyId, signer: &KeyId) -> bool {
        match (self.trust().key(own), self.trust().key(signer)) {
            (Some(own), Some(signer)) => own.domain == signer.domain,
            _ => false,
        }
    }

    /// Says whether condemnations of a key have effect, as far as its role says.
    pub fn may_condemn(&self, signer: &KeyId) -> bool {
        self.trust().permits(signer, Act::Condemned).is_ok()
    }

    /// Says whether this key may sign such a thing now.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] with the role of the key.
    pub fn may_sign(&self, signer: &KeyId, act: Act<'_>) -> Result<(), RepoError> {
        self.trust().may_sign(signer, act).map_err(|why| RepoError::Forbidden {
            role: self.trust().key(signer).map_or("unknown", |key| key.role.name()),
            action: format!("do this: {why}"),
        })
    }

    /// Says whether the key is in service.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] when it was removed or revoked.
    pub fn require_active(&self, key: &KeyId) -> Result<(), RepoError> {
        let record = self.trust().key(key);
        match record.map(|record| record.standing()) {
            Some(Standing::Active) => Ok(()),
            standing => Err(RepoError::Forbidden {
                role: record.map_or("unknown", |record| record.role.name()),
                action: match standing {
                    Some(Standing::Revoked) => "write any more: it was revoked".to_owned(),
                    _ => "write any more: it was removed".to_owned(),
                },
            }),
        }
    }

    /// Says whether `own` may rely on blobs in packs that `signer` made.
    ///
    /// A revoked signer's packs count only where its revocation lists them, which is asked pack by pack.
    pub fn adopts(&self, own: &KeyId, signer: &KeyId, pack: &PackId) -> bool {
        let trust = self.trust();
        if trust.key(signer).is_some_and(|key| key.revoked.is_some()) {
            return trust.may_adopt(own, signer, pack, false, false);
        }
        let mut known = self.adopts.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry((*own, *signer)).or_insert_with(|| trust.may_adopt(own, signer, pack, false, false))
    }
}
