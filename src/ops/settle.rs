//! What a writer does before and after its commit: nothing that it relies on may be about to go.
//!
//! Write order ([CONCURRENCY-20] to [CONCURRENCY-23]):
//! 1. condemnations are listed; what the snapshot needs and has only in condemned packs is copied into
//!    new packs, with an index run: packs that nothing refers to yet;
//! 2. only then the condemnations are named by a renewal, which is what a sweeper acts on;
//! 3. again, until a listing shows nothing new.

use super::error::OpsError;
use super::keeper::{Frames, Keeper, Trust};
use super::reach::reach;
use super::vouched::Vouched;
use super::words::Said;
use crate::base::{BlobId, CondemnedId, KeyId, PackId};
use crate::format::pack::BlobClass;
use crate::repo::{Copied, FrameCopier, KnownPack, Presence, RepoError, Repository, pack_name};
use crate::storage::StorageError;
use std::collections::{BTreeSet, HashSet};
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
        let copied = rescue(repository, presence, roots, &presence.named())?;
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

/// Copies what these roots need and have on some word only in packs that are condemned, but not by those
/// condemnations on which nothing rests: what only such list, or no index run names, is copied where there is
/// nothing else.
///
/// # Errors
///
/// As [`settle`].
pub(super) fn rescue(
    repository: &Arc<Repository>,
    presence: &Presence,
    roots: &[BlobId],
    idle: &BTreeSet<CondemnedId>,
) -> Result<Copied, OpsError> {
    let mut all = Copied::default();
    // What turns out not to be there is looked for elsewhere, once more for every such pack at most.
    let mut useless: HashSet<(PackId, KeyId)> = HashSet::new();
    loop {
        let rescues = needed(repository, presence, roots, idle, &useless)?;
        if rescues.is_empty() {
            return Ok(all);
        }
        let before = useless.len();
        let mut copier = FrameCopier::new(repository)?;
        for ((pack, signer), offsets) in &rescues {
            let not_copied = copier.copy(pack, signer, offsets)?;
            if let Some(offset) = not_copied.contested.first() {
                return Err(OpsError::Stopped {
                    why: format!(
                        "{} is about to be deleted, and another pack holds something else that claims to be its \
                         frame at {offset}",
                        pack_name(pack)
                    ),
                    cure: "run `check --read-data` with a key that reads content, which reports what is forged, \
                           then this again",
                });
            }
            match not_copied.unreadable {
                None if not_copied.made_up.is_empty() => {}
                None
                | Some(
                    RepoError::Storage(StorageError::NotFound { .. })
                    | RepoError::Damaged { .. }
                    | RepoError::Untrusted { .. },
                ) => _ = useless.insert((*pack, *signer)),
                Some(error) => return Err(error.into()),
            }
        }
        let copied = copier.finish()?;
        all.packs.extend(copied.packs);
        all.stored_bytes += copied.stored_bytes;
        if useless.len() == before {
            return Ok(all);
        }
    }
}

/// Names the packs that hold a blob, as the index says.
pub(super) fn held_in(repository: &Repository, class: BlobClass, id: &BlobId) -> BTreeSet<String> {
    let held = repository.index().find(class, id, false, |_| true);
    held.iter().map(|copy| pack_name(&copy.pack.id)).collect()
}

/// Finds the frames to copy, by a fresh view: runs and packs as they are now.
fn needed(
    repository: &Arc<Repository>,
    presence: &Presence,
    roots: &[BlobId],
    idle: &BTreeSet<CondemnedId>,
    useless: &HashSet<(PackId, KeyId)>,
) -> Result<Frames, OpsError> {
    repository.refresh_index()?;
    let listed: HashSet<PackId> = repository.index().packs().into_keys().collect();
    repository.index_unlisted_packs()?;
    let lengths = repository.pack_lengths()?;
    let listing = presence.listing();
    let own = repository.keyring().identity.key;
    let registry = repository.registry();
    let trust = |pack: &KnownPack| {
        let is_whole = lengths.get(&pack.id) == Some(&u64::from(pack.length));
        if !is_whole || useless.contains(&(pack.id, pack.signer)) {
            return Trust::Gone;
        }
        let mut naming = listing.found.iter().filter(|(_, found)| found.condemned.names(&pack.id)).peekable();
        let condemned = naming.peek().is_some();
        let is_new = naming.any(|(id, _)| !idle.contains(id));
        let aside = condemned || !listed.contains(&pack.id);
        let said = Said::of(registry, &pack.signer);
        match registry.adopts(&own, &pack.signer, &pack.id) {
            true if is_new => Trust::Goes(said),
            true if aside => Trust::Aside(said),
            true => Trust::Stays(said),
            // What another trust domain stored serves readers, and nobody relies on it beside a copy of its own.
            false if aside => Trust::Lost(said),
            false => Trust::Doubted(said),
        }
    };
    let index = repository.index().numbered();
    let own = (!registry.is_believed(&own)).then_some(own);
    let rescues = |vouched: &Vouched| -> Result<Frames, OpsError> {
        let mut keeper = Keeper::new(&index, trust).relying_on(own).believing(vouched, registry);
        reach(repository, roots.iter().copied(), &mut keeper)?;
        if let Some((class, id)) = keeper.missing.first() {
            let what = match class {
                BlobClass::Content => "chunk",
                BlobClass::Metadata => "tree or recipe",
            };
            let held = held_in(repository, *class, id);
            let reasons = match held.is_empty() {
                true => vec!["no pack holds it".to_owned()],
                false => held.into_iter().map(|pack| format!("it cannot be had from {pack}")).collect(),
            };
            return Err(RepoError::Missing { what, id: *id, reasons }.into());
        }
        Ok(std::mem::take(&mut keeper.rescues))
    };
    let found = rescues(&Vouched::default())?;
    if found.is_empty() {
        return Ok(found);
    }
    // Who made that superfluous may have sealed it anew ([CONCURRENCY-57]).
    let vouched = Vouched::of(registry, &repository.annotations()?.found);
    if vouched.is_empty() { Ok(found) } else { rescues(&vouched) }
}
