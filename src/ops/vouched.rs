//! Packs of blobs that an owner has read, compared with their ids and sealed anew ([CONCURRENCY-57]): copies that
//! make up for others, on whose word these may rest.
//!
//! A pack counts where the key that signed it has attested it, and may. What an index run of somebody else says of
//! it does not ([INDEX-9]), nor does the attestation of a reader, who may not delete.

use crate::base::{KeyId, PackId};
use crate::format::annotation::{AnnotationKind, Outcome};
use crate::repo::{FoundAnnotation, KnownPack, Registry};
use std::collections::HashSet;

/// Packs that were attested, each with the owner who did so.
#[derive(Debug, Default)]
pub(super) struct Vouched(HashSet<(PackId, KeyId)>);

impl Vouched {
    /// Learns from all annotations whose signatures hold.
    pub fn of(registry: &Registry, annotations: &[FoundAnnotation]) -> Self {
        let attested = annotations.iter().filter(|found| {
            found.annotation.kind == AnnotationKind::Attested
                && found.annotation.outcome == Some(Outcome::Passed)
                && registry.may_vouch(&found.signer)
        });
        let packs = attested
            .flat_map(|found| found.annotation.packs.iter().map(|pack| (*pack, found.signer)))
            .collect();
        Self(packs)
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says whether the key that signed a pack vouches for what is in it.
    pub fn names(&self, pack: &KnownPack) -> bool {
        self.0.contains(&(pack.id, pack.signer))
    }
}
