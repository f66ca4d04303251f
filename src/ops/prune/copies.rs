//! Copies of what is needed, out of packs that go.

use super::super::error::OpsError;
use super::super::keeper::Frames;
use crate::base::{PackId, explain};
use crate::repo::{Copied, FrameCopier, RepoError, Repository, pack_name};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What came of copying.
#[derive(Default)]
pub(super) struct CopiedFrames {
    pub copied: Copied,
    /// Packs that have to stay, since not all that is needed of them was copied.
    pub held: BTreeSet<PackId>,
}

/// Copies sealed frames into new packs; durable and known on return.
///
/// A pack that cannot be copied from stays, and is told of: it stops nothing else.
///
/// # Errors
///
/// When copies cannot be stored.
pub(super) fn copy(repository: &Arc<Repository>, frames: &Frames) -> Result<CopiedFrames, OpsError> {
    let mut held = BTreeSet::new();
    if frames.is_empty() {
        return Ok(CopiedFrames::default());
    }
    let observer = &repository.environment().observer;
    let mut copier = FrameCopier::new(repository)?;
    for ((pack, signer), offsets) in frames {
        if observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        let not_copied = copier.copy(pack, signer, offsets)?;
        let name = pack_name(pack);
        if let Some(error) = not_copied.unreadable {
            observer.warn(&format!(
                "{name} stays, since what is needed of it cannot be copied: {}",
                explain(&error)
            ));
            held.insert(*pack);
        }
        if let Some(offset) = not_copied.contested.first() {
            observer.warn(&format!(
                "{name} stays: another pack holds something else that claims to be its frame at {offset}; `check \
                 --read-data` with a key that reads content tells which is forged"
            ));
            held.insert(*pack);
        }
        if let Some(offset) = not_copied.forged.first() {
            observer.warn(&format!(
                "the frame at {offset} of {name} is not what the key {} says that it is",
                signer.short()
            ));
        }
        if let Some(offset) = not_copied.made_up.first() {
            observer.warn(&format!(
                "an index run of the key {} makes up a frame at {offset} of {name}",
                signer.short()
            ));
        }
    }
    Ok(CopiedFrames { copied: copier.finish()?, held })
}
