//! What a writer does before and after its commit: nothing that it relies on may be about to go.
//!
//! Write order ([CONCURRENCY-20] to [CONCURRENCY-23]):
//! 1. condemnations are listed; what the snapshot needs and has only in condemned packs is copied into
//!    new packs, with an index run: packs that nothing refers to yet;
//! 2. only then the condemnations are named by a renewal, which is what a sweeper acts on;
//! 3. again, until a listing shows nothing new.

use super::error::OpsError;
use super::reach::{Keeper, Said, Trust, reach};
use crate::base::{BlobId, PackId};
use crate::repo::{Copied, FrameCopier, KnownPack, Presence, RepoError, Repository, pack_name};
use std::collections::HashSet;
use std::sync::Arc;

/// Rounds after which something is wrong: every one was overtaken by a new condemnation.
const ROUNDS_MAX: usize = 64;

/// Makes sure that nothing below these roots rests on what is condemned or gone; returns what was copied.
///
/// # Errors
///
/// [`RepoError::Missing`] for what is gone already; what the store says.
pub(super) fn settle(
    repository: &Arc<Repository>,
    presence: &Presence,
    roots: &[BlobId],
) -> Result<Copied, OpsError> {
    let mut all = Copied::default();
    for _ in 0..ROUNDS_MAX {
        let unnamed = presence.unnamed()?;
        // A lapse while this looks shows at the renewal after it.
        let lapsed = presence.take_lapse();
        if unnamed.is_empty() && !lapsed {
            return Ok(all);
        }
        let listing = presence.listing();
        if let Some((id, why)) = listing.unreadable.iter().find(|(id, _)| unnamed.contains(id)) {
            return Err(OpsError::Stopped {
                why: format!("what the condemnation {} lists cannot be read: {why}", id.short()),
                cure: "run it again: nothing is taken over then from what others stored",
            });
        }
        let copied = rescue(repository, presence, roots)?;
        all.packs.extend(copied.packs);
        all.stored_bytes += copied.stored_bytes;
        presence.name(&unnamed)?;
    }
    Err(RepoError::Internal {
        doing: "making sure of what the snapshot needs",
        why: "new condemnations appear all the time".to_owned(),
    }
    .into())
}

/// Copies what these roots need and have only in packs that are condemned or not named by the index.
///
/// # Errors
///
/// As [`settle`].
pub(super) fn rescue(
    repository: &Arc<Repository>,
    presence: &Presence,
    roots: &[BlobId],
) -> Result<Copied, OpsError> {
    // What is copied is chosen by a fresh view: runs and packs as they are now.
    repository.refresh_index()?;
    let listed: HashSet<PackId> = repository.index().packs().into_keys().collect();
    repository.index_unlisted_packs()?;
    let lengths = repository.pack_lengths()?;
    let listing = presence.listing();
    let own = repository.keyring().identity.key;
    let registry = repository.registry();
    let trust = |pack: &KnownPack| {
        if lengths.get(&pack.id) != Some(&u64::from(pack.length)) {
            return Trust::Gone;
        }
        let condemned = listing.found.values().any(|found| found.condemned.names(&pack.id));
        let goes = condemned || !listed.contains(&pack.id);
        let said = Said::ByAnybody;
        match (registry.adopts(&own, &pack.signer, &pack.id), goes) {
            (true, false) => Trust::Stays(said),
            (true, true) => Trust::Goes(said),
            // What another trust domain stored serves readers, and nobody relies on it beside a copy of its own.
            (false, false) => Trust::Doubted(said),
            (false, true) => Trust::Lost(said),
        }
    };
    let index = repository.index().numbered();
    let mut keeper = Keeper::new(&index, trust);
    reach(repository, roots.iter().copied(), &mut keeper)?;
    if let Some((class, id)) = keeper.missing.first() {
        let what = match class {
            crate::format::pack::BlobClass::Content => "chunk",
            crate::format::pack::BlobClass::Metadata => "tree or recipe",
        };
        let reasons = vec!["it was deleted while this ran: no copy is left".to_owned()];
        return Err(RepoError::Missing { what, id: *id, reasons }.into());
    }
    let rescues = std::mem::take(&mut keeper.rescues);
    drop(keeper);
    if rescues.is_empty() {
        return Ok(Copied::default());
    }
    let mut copier = FrameCopier::new(repository)?;
    for ((pack, signer), offsets) in &rescues {
        let not_copied = copier.copy(pack, signer, offsets)?;
        if let Some(error) = not_copied.unreadable {
            return Err(error.into());
        }
        if let Some(offset) = not_copied.made_up.first() {
            let why = format!("the index names a frame at {offset} that its table does not have");
            return Err(RepoError::Untrusted { object: pack_name(pack), why }.into());
        }
    }
    Ok(copier.finish()?)
}
