//! What a key holds: its own identity, and the secrets of the epochs that were granted to it.
//!
//! A role is nothing but the set of secrets in its grants (`format-spec/keys.md`). What a key does
//! not hold it cannot do; the messages of [`RepoError::Forbidden`] only say so in words.

use super::error::RepoError;
use super::later::Later;
use crate::base::{BlobId, KeyId, Secret, TrustId};
use crate::crypto::{ContentPublicKey, ContentSecretKey, IdKey, SigningKey};
use crate::format::pack::BlobClass;
use crate::format::trust::{Epoch, Role};
use std::collections::BTreeMap;
use std::sync::OnceLock;

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

impl EpochKeys {
    /// Puts the secrets of an epoch together.
    pub(super) fn new(
        number: u32,
        metadata: Secret,
        epoch: &Epoch,
        content_secret: Option<ContentSecretKey>,
    ) -> Self {
        Self { number, metadata, content_public: epoch.content, content_secret }
    }
}

/// Everything this client can open and seal with.
pub struct Keyring {
    /// Who the client is.
    pub identity: Identity,
    epochs: BTreeMap<u32, EpochKeys>,
    /// Epochs that began since: they are opened, nothing is sealed in them.
    later: OnceLock<Later>,
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
        Self { identity, epochs, later: OnceLock::new(), content_ids, metadata_ids, chunker_seed }
    }

    /// Says where epochs that begin from now on are learned from.
    pub(super) fn learn_from(&self, later: Later) {
        let _ = self.later.set(later);
    }

    fn forbidden(&self, action: &str) -> RepoError {
        RepoError::Forbidden { role: self.identity.role.name(), action: action.to_owned() }
    }

    /// Returns the newest epoch as of the opening of the repository, under which everything new is sealed.
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

    /// Returns an epoch's keys, also of one that began since the repository was opened: others may seal in it
    /// what this client has to read.
    ///
    /// # Errors
    ///
    /// When the epoch was never granted to this key; when the registry had to be read and could not be.
    pub fn epoch(&self, number: u32) -> Result<&EpochKeys, RepoError> {
        if let Some(epoch) = self.epochs.get(&number) {
            return Ok(epoch);
        }
        let later = match self.later.get() {
            Some(later) => later.epoch(number, &self.identity)?,
            None => None,
        };
        later.ok_or_else(|| self.forbidden(&format!("read epoch {number}: it was not granted")))
    }

    /// Returns all epochs that were granted when the repository was opened, oldest first.
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
