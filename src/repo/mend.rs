//! What repair needs of the repository: packs believed from their own bytes, and runs of the index
//! over packs that are there already.

use super::error::RepoError;
use super::index::{KnownPack, encode_run};
use super::packs::{open_pack, pack_name};
use super::repository::Repository;
use super::session::run_content;
use crate::base::{IndexId, PackId, limits};
use crate::crypto::SignedMessage;
use crate::format::ObjectKind;
use crate::format::config::Config;
use crate::format::pack::FrameRecord;
use crate::format::trust::Act;
use std::sync::Arc;

/// A pack and the frames that its table of contents names.
pub type DescribedPack = (Arc<KnownPack>, Vec<FrameRecord>);

impl Repository {
    /// Reads a whole pack and checks its name, its signature and its table of contents.
    ///
    /// # Errors
    ///
    /// When it cannot be read, any of it does not hold, or its epoch was not granted to this key.
    pub fn read_pack(&self, id: &PackId) -> Result<DescribedPack, RepoError> {
        let bytes = self.environment().store.get(&pack_name(id), limits::PACK_BYTES_MAX)?;
        let opened = open_pack(id, &bytes, self.id(), self.keyring(), |key| {
            self.registry().public_key(key, Act::MetadataPack)
        })?;
        let known = KnownPack {
            id: *id,
            length: super::frames::length_u32(bytes.len())?,
            class: opened.class,
            signer: opened.signer,
            origins: opened.origins.into(),
        };
        Ok((Arc::new(known), opened.frames))
    }

    /// Signs the configuration anew with this key, as its next revision: one that a revoked owner signed counts no
    /// more, and without any that counts nobody opens the repository. Returns the revision.
    ///
    /// Write order ([CONCURRENCY-4]): the second copy, which counts at once; then the first.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] for any key but an owner's; what the store says.
    pub fn sign_configuration(&self) -> Result<u64, RepoError> {
        let own = &self.keyring().identity;
        self.registry().may_sign(&own.key, Act::Configuration)?;
        let revision = self.config().revision.saturating_add(1);
        let config = Config { revision, signer: own.key, ..self.config().clone() };
        let encoded = config.encode();
        let kind = ObjectKind::Configuration.number();
        let message = SignedMessage::new(self.id(), kind, encoded.as_bytes());
        let signed = Config::finish(encoded, &own.signing.sign(&message));
        // What no reader would accept must not be written.
        Config::parse(&signed).map_err(RepoError::damaged("the configuration being written"))?;
        let store = &self.environment().store;
        store.replace("copies/chronolith", &signed)?;
        store.replace("chronolith", &signed)?;
        Ok(revision)
    }

    /// Puts an index run over packs of this key that are in the store; durable on return.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] for a key that may not, or where a pack is another key's ([INDEX-9]); what the
    /// store says.
    pub fn put_index_run(&self, packs: &[DescribedPack]) -> Result<IndexId, RepoError> {
        let own = self.keyring().identity.key;
        self.registry().may_sign(&own, Act::IndexRun)?;
        if packs.iter().any(|(pack, _)| pack.signer != own) {
            return Err(RepoError::Forbidden {
                role: self.keyring().identity.role.name(),
                action: "write the index of another key's packs".to_owned(),
            });
        }
        let content = run_content(packs)?;
        let run = encode_run(self, &content)?;
        let id = IndexId::new(*blake3::hash(&run).as_bytes());
        self.environment().store.put(&self.index_name(&id), &run)?;
        self.index().add(id, &content)?;
        Ok(id)
    }
}
