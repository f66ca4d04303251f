//! What a key holds: its own identity, and the secrets of the epochs that were granted to it.
//!
//! A role is nothing but the set of secrets in its grants (`format-spec/keys.md`). What a key does
//! not hold it cannot do; the messages of [`RepoError::Forbidden`] only say so in words.

use super::error::RepoError;
use crate::base::{BlobId, KeyId, Secret, TrustId};
use crate::crypto::{ContentPublicKey, ContentSecretKey, IdKey, SigningKey};
use crate::format::pack::BlobClass;
use crate::format::trust::Role;
use std::collections::BTreeMap;

/// Who this client is: one key of the registry, with its secret halves.
pub struct Identity {
    /// The key's id.
    pub key: KeyId,
    /// Its role, as the registry has it.
    pub role: Role,
    /// Signs what this client makes.
    pub signing: SigningKey,
    /// The seed of the signing key, kept for rewriting the slot.
    pub seed: Secret,
    /// Opens the grants made to this key.
    pub exchange: ContentSecretKey,
    /// The first version of the registry, which names the owner; everything is believed from there.
    pub genesis: TrustId,
}

/// The secrets of one epoch, as far as this key holds them.
pub struct EpochKeys {
    /// Number of the epoch.
    pub number: u32,
    /// Seals and opens metadata.
    pub metadata: Secret,
    /// Content is sealed to it.
    pub content_public: ContentPublicKey,
    /// Opens content; readers and owners hold it.
    pub content_secret: Option<ContentSecretKey>,
}

/// Everything this client can open and seal with.
pub struct Keyring {
    /// Who the client is.
    pub identity: Identity,
    epochs: BTreeMap<u32, EpochKeys>,
    content_ids: Option<IdKey>,
    metadata_ids: IdKey,
    chunker_seed: Option<Secret>,
}

impl Keyring {
    /// Puts a keyring together; there is at least one epoch.
    pub fn new(
        identity: Identity,
        epochs: BTreeMap<u32, EpochKeys>,
        content_ids: Option<IdKey>,
        metadata_ids: IdKey,
        chunker_seed: Option<Secret>,
    ) -> Self {
        Self { identity, epochs, content_ids, metadata_ids, chunker_seed }
    }

    fn forbidden(&self, action: &str) -> RepoError {
        RepoError::Forbidden { role: self.identity.role.name(), action: action.to_owned() }
    }

    /// Returns the newest epoch, under which everything new is sealed.
    ///
    /// # Errors
    ///
    /// When no epoch was granted to this key.
    pub fn current(&self) -> Result<&EpochKeys, RepoError> {
        self.epochs
            .values()
            .next_back()
            .ok_or_else(|| self.forbidden("read this repository: it was granted no epoch"))
    }

    /// Returns an epoch's keys.
    ///
    /// # Errors
    ///
    /// When the epoch was never granted to this key.
    pub fn epoch(&self, number: u32) -> Result<&EpochKeys, RepoError> {
        self.epochs
            .get(&number)
            .ok_or_else(|| self.forbidden(&format!("read epoch {number}: it was not granted")))
    }

    /// Returns all granted epochs, oldest first.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochKeys> {
        self.epochs.values()
    }

    /// Returns the key that opens an epoch's content.
    ///
    /// # Errors
    ///
    /// When this key's role holds none.
    pub fn content_secret(&self, epoch: u32) -> Result<&ContentSecretKey, RepoError> {
        self.epoch(epoch)?.content_secret.as_ref().ok_or_else(|| self.forbidden("read content"))
    }

    /// Says whether this key can read content at all.
    pub fn reads_content(&self) -> bool {
        self.epochs.values().any(|epoch| epoch.content_secret.is_some())
    }

    /// Computes the id of a blob.
    ///
    /// # Errors
    ///
    /// When this key holds no id key for that class.
    pub fn blob_id(&self, class: BlobClass, plain: &[u8]) -> Result<BlobId, RepoError> {
        Ok(self.id_key(class)?.blob_id(plain))
    }

    /// Hashes a name of metadata, so that the store does not learn it: keyed as the ids of metadata are.
    pub fn metadata_hash(&self, name: &[u8]) -> BlobId {
        self.metadata_ids.blob_id(name)
    }

    /// Returns the key that ids of a class are computed with.
    ///
    /// # Errors
    ///
    /// When this key does not hold it.
    pub fn id_key(&self, class: BlobClass) -> Result<&IdKey, RepoError> {
        match class {
            BlobClass::Content => self.content_ids.as_ref().ok_or_else(|| self.forbidden("identify content")),
            BlobClass::Metadata => Ok(&self.metadata_ids),
        }
    }

    /// Returns the seed of the chunker's gear table.
    ///
    /// # Errors
    ///
    /// When this key does not hold it: it cannot write backups.
    pub fn chunker_seed(&self) -> Result<&Secret, RepoError> {
        self.chunker_seed.as_ref().ok_or_else(|| self.forbidden("write backups"))
    }
}
