//! What is needed is sealed anew, where it holds too much that is not: bases that nothing but differences need, and
//! blobs that were sealed together with others ([CONCURRENCY-57]).
//!
//! - `chains`: differences, and the bases that only they hold
//! - `choose`: what is worth it
//! - `write`: blobs are read, compared with their ids and stored again
//!
//! Nothing is condemned here, and nothing is relied on that was not looked at again: what was sealed anew stands beside
//! what there was, vouched for, and whoever takes stock afterwards finds that the old copies are not needed any more.
//!
//! Write order, and what a crash after each step leaves:
//! 1. packs: packs that no run names;
//! 2. an annotation that vouches for them: it says nothing to anybody;
//! 3. their index run: copies that take the place of others, which the next prune finds.

mod chains;
mod choose;
mod write;

use self::choose::{Picked, Wanted};
use super::super::error::OpsError;
use super::super::keeper::Keeper;
use super::view::View;
use super::{PruneOptions, PruneReport, Unused};
use crate::format::trust::Act;
use crate::repo::{NumberedIndex, RepoError, Repository};
use std::sync::Arc;

/// How much may be held by what is needed where nobody says anything else.
const HELD_MOST: Unused = Unused::Share { hundredths: 1000 };

/// Where nobody says anything else, that a tenth of what is needed has to be gained, at least: all that is sealed anew
/// has to be read, decoded and written, which takes ten times as long as the rest of a prune.
const GAIN_LEAST: u64 = 10;

/// Blobs that were sealed anew, so that what they held may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// How many.
    pub blobs: u64,
    /// Their sealed bytes; before it is done, what they are expected to take.
    pub bytes: u64,
    /// Sealed bytes of frames that nobody needs any more, as reckoned before.
    pub freed_bytes: u64,
    /// Blobs that stay as they are, since they could not be read.
    pub unreadable: u64,
}

/// Returns how much may be held, or `None` where nothing is sealed anew.
///
/// # Errors
///
/// [`RepoError::Forbidden`] where a bound was given and this key cannot keep it.
pub(super) fn bound(repository: &Repository, options: &PruneOptions) -> Result<Option<Unused>, RepoError> {
    let (keyring, registry) = (repository.keyring(), repository.registry());
    let own = keyring.identity.key;
    let can = keyring.reads_content()
        && registry.may_vouch(&own)
        && [Act::ContentPack, Act::Attested].iter().all(|act| registry.may_sign(&own, *act).is_ok());
    match options.max_held.unwrap_or(HELD_MOST) {
        Unused::Share { hundredths } if hundredths >= 10_000 => Ok(None),
        bound if can => Ok(Some(bound)),
        _ if options.max_held.is_none() => Ok(None),
        _ => Err(RepoError::Forbidden {
            role: keyring.identity.role.name(),
            action: "seal anew what it cannot read, so nothing that is held can be freed: prune with an owner's key, \
                     or give no bound for it"
                .to_owned(),
        }),
    }
}

/// Seals anew what holds too much, as far as the options let it; says whether anything was stored. `report` says what
/// is held.
///
/// # Errors
///
/// When the store fails. What cannot be read is told, and stays as it is.
pub(super) fn reseal(
    repository: &Arc<Repository>,
    view: &View,
    index: &NumberedIndex,
    keeper: &Keeper<'_>,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<bool, OpsError> {
    let Some(bound) = bound(repository, options)? else { return Ok(false) };
    let held = report.base_bytes + report.shared_frame_bytes;
    let content = report.needed_bytes.saturating_sub(held);
    let allowed = bound.beside(content);
    report.held_bytes_max = Some(allowed);
    if held <= allowed {
        return Ok(false);
    }
    let wanted = Wanted {
        // Whoever allows nothing wants what was forgotten gone, whatever that costs.
        bytes: if allowed == 0 { u64::MAX } else { held - allowed },
        at_any_cost: allowed == 0,
        room: options.max_repack_bytes.unwrap_or(u64::MAX),
    };
    let picked = Picked::choose(repository, view, index, keeper, wanted);
    let gain = picked.freed_bytes.saturating_sub(picked.bytes);
    if options.max_held.is_none() && gain < content / GAIN_LEAST {
        return Ok(false);
    }
    report.resealed =
        Resealed { blobs: picked.blobs, bytes: picked.bytes, freed_bytes: picked.freed_bytes, unreadable: 0 };
    if options.dry_run || picked.blobs == 0 {
        return Ok(false);
    }
    let written = write::write(repository, index, keeper, &picked)?;
    report.resealed = Resealed { freed_bytes: picked.freed_bytes, ..written };
    Ok(written.blobs > 0)
}
