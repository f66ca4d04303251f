//! Prune: what no root needs is announced, and deleted once everybody has heard of it.
//!
//! - `doubts`: what reports of damage make of copies
//! - `view`: what there is, read in an order that is safe to act on
//! - `uses`: how much of each pack is needed
//! - `plan`: what is not needed, and what is worth repacking
//! - `reseal`: what is needed is read and sealed anew, where it holds too much that is not
//! - `copies`: sealed frames that are needed, taken out of packs that go
//! - `logs`: log packs that were forgotten
//! - `merges`: log packs that become one, and those that a merged one holds
//! - `runs`: index runs that name what is gone, and many small ones, are merged
//! - `catalogues`: those that others took over, and annotations that they make superfluous
//! - `sweep`: deletion
//! - `tombstones`: condemnations whose objects are gone
//!
//! Write order, and what a crash after each step leaves:
//! 1. a session: it lapses;
//! 2. blobs that are sealed anew, vouched for, with an index run (see `reseal`): packs that stay;
//! 3. copies of what is needed of packs that are worth repacking, with an index run: packs that stay, and
//!    others that the next prune finds superfluous;
//! 4. merged index runs: records that stand in two runs, which says nothing new; merged log packs: what they hold is
//!    there twice;
//! 5. a catalogue, if enough has gathered (see [`super::catalogue`]): what it takes over the next prune condemns;
//! 6. a condemnation of what is not needed: writers adopt nothing from there any more, the next prune
//!    goes on with it;
//! 7. copies of what is needed and only in condemned packs, with an index run: packs that stay;
//! 8. snapshots and log packs, then annotations and catalogues, then sessions that ended, then index runs, then packs are deleted, of condemnations whose
//!    grace has passed and that every living session has named: whatever is left goes the next time;
//! 9. condemnations whose packs no index run names any more are deleted, many others absorbed into one;
//! 10. a catalogue that records the end of snapshots that were deleted, where one lists them: without it lists look whether
//!     what was forgotten is still there.
//!
//! Nobody is stopped or made to wait but the prune itself.

mod catalogues;
mod copies;
mod doubts;
mod logs;
mod merges;
mod plan;
mod reseal;
mod runs;
mod sweep;
mod tombstones;
mod uses;
mod view;

use self::copies::copy;
use self::merges::Logs;
use self::plan::Plan;
pub use self::reseal::Resealed;
use self::runs::merge_runs;
use self::sweep::{Before, sweep};
use self::view::View;
use super::catalogue;
use super::error::OpsError;
use crate::base::{LogPackId, PackId, SnapshotId};
use crate::format::ObjectKind;
use crate::format::cbor::Extra;
use crate::format::condemned::{Condemned, CondemnedObject, SessionSighting};
use crate::format::place::Place;
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::repo::{Presence, RepoError, Repository};
use crate::storage::StorageError;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Seconds between announcement and deletion where nobody says anything else.
pub const GRACE_SECONDS: u64 = 24 * 3600;

/// Objects besides packs that one condemnation lists: about half of what it may hold.
const OBJECTS_MAX: usize = 1 << 17;

/// How much that nobody needs may stay in packs that are needed in parts, or may be held by what is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// So many bytes.
    Bytes(u64),
    /// So much of what is kept.
    Share {
        /// 10000 is all of it: nothing is repacked to free it.
        hundredths: u32,
    },
}

impl Unused {
    /// Returns how many bytes may stay beside this many that are needed: a share is one of both together.
    pub(super) fn beside(self, needed: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share { hundredths } if hundredths >= 10_000 => u64::MAX,
            Self::Share { hundredths } => {
                let share = u128::from(needed) * u128::from(hundredths) / u128::from(10_000 - hundredths);
                u64::try_from(share).unwrap_or(u64::MAX)
            }
        }
    }
}

impl Default for Unused {
    fn default() -> Self {
        Self::Share { hundredths: 500 }
    }
}

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Seconds between the announcement and the deletion.
    pub grace_seconds: u64,
    /// Announces anew what was announced with a longer grace, so that this one counts.
    pub shorten: bool,
    /// How much that is not needed may stay.
    pub max_unused: Unused,
    /// How much that roots do not need may be held by what they need: bases of differences, and blobs in the same
    /// frame. What holds more is sealed anew; that takes an owner's key. `None` is a tenth for such a key, and for others
    /// whatever there is.
    pub max_held: Option<Unused>,
    /// Bytes of packs that are repacked, of frames that are sealed anew, and of log packs that are merged, in one go, at
    /// most; `None` for whatever there is.
    pub max_repack_bytes: Option<u64>,
    /// Looks and counts only.
    pub dry_run: bool,
    /// Snapshots that a dry run takes for forgotten.
    pub as_forgotten: BTreeSet<SnapshotId>,
    /// Log packs that a dry run takes for forgotten.
    pub as_forgotten_logs: HashSet<LogPackId>,
    /// Name and version of the program.
    pub program: String,
}

impl PruneOptions {
    /// Deletes what is not needed a day after it was announced.
    pub fn new(program: &str) -> Self {
        Self {
            grace_seconds: GRACE_SECONDS,
            shorten: false,
            max_unused: Unused::default(),
            max_held: None,
            max_repack_bytes: None,
            dry_run: false,
            as_forgotten: BTreeSet::new(),
            as_forgotten_logs: HashSet::new(),
            program: program.to_owned(),
        }
    }

    /// Deletes this long after the announcement, whatever an earlier one said.
    #[must_use]
    pub fn within(self, grace_seconds: u64) -> Self {
        Self { grace_seconds, shorten: true, ..self }
    }
}

/// What a prune found and did.
#[derive(Debug, Clone, Default)]
pub struct PruneReport {
    /// Packs in the store before.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Stored bytes of what roots need.
    pub needed_bytes: u64,
    /// Packs that were condemned now; without a dry run they are announced.
    pub condemned_packs: u64,
    /// Their bytes.
    pub condemned_bytes: u64,
    /// Forgotten snapshots that were condemned now.
    pub condemned_snapshots: u64,
    /// Log packs that were condemned now: forgotten ones, and those that a merged one holds.
    pub condemned_logs: u64,
    /// Their bytes.
    pub condemned_log_bytes: u64,
    /// Log packs that were merged now.
    pub merged_logs: u64,
    /// Their bytes.
    pub merged_log_bytes: u64,
    /// Packs among them that are needed in parts, or are small, of which what is needed is copied before.
    pub repacked_packs: u64,
    /// Their bytes.
    pub repacked_bytes: u64,
    /// Bytes of the parts.
    pub repack_copy_bytes: u64,
    /// Stored bytes, in packs that stay, of what nobody needs.
    pub unused_bytes: u64,
    /// Packs that no snapshot needs and that may belong to a backup that is still running.
    pub unfinished_packs: u64,
    /// Their bytes.
    pub unfinished_bytes: u64,
    /// Stored bytes of what is kept only because needed content differs from it.
    pub base_bytes: u64,
    /// Stored bytes of what is kept only because it was sealed together with what is needed.
    pub shared_frame_bytes: u64,
    /// How many bytes both together may have; `None` where that is not looked at, for want of a key or a bound.
    pub held_bytes_max: Option<u64>,
    /// What was sealed anew because they had more.
    pub resealed: Resealed,
    /// Bytes of packs once all that is announced is deleted.
    pub kept_bytes: u64,
    /// Packs that stay as they are, condemned or not, since what is needed of them cannot be copied.
    pub held_packs: u64,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Log packs that were deleted.
    pub deleted_logs: u64,
    /// Their bytes.
    pub deleted_log_bytes: u64,
    /// Other objects that were deleted.
    pub deleted_objects: u64,
    /// Index runs that were merged into others.
    pub merged_runs: u64,
    /// Index runs that were deleted.
    pub deleted_runs: u64,
    /// Bytes of copies that had to be made before.
    pub copied_bytes: u64,
    /// Condemnations that wait for their grace to pass.
    pub waiting_for_grace: u64,
    /// Seconds until the first of them is due.
    pub waiting_seconds: Option<u64>,
    /// Sessions that condemnations wait for.
    pub waiting_for: Vec<String>,
}

impl PruneReport {
    /// What holds of a plan that is made once more.
    fn anew(&self) -> Self {
        Self { resealed: self.resealed, held_bytes_max: self.held_bytes_max, ..Self::default() }
    }
}

/// Refuses what this key may not do.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not condemn, or cannot keep the bound of what is held.
pub fn require_allowed(repository: &Repository, options: &PruneOptions) -> Result<(), OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Condemned)?;
    self::reseal::bound(repository, options)?;
    Ok(())
}

/// Condemns what no root needs, and deletes what was condemned before and may go.
///
/// # Errors
///
/// As [`require_allowed`]; [`OpsError::Stopped`] where what is known of the
/// repository is not enough to delete anything safely; [`OpsError::Overtaken`] where it has to be done again.
pub fn prune(repository: &Arc<Repository>, options: &PruneOptions) -> Result<PruneReport, OpsError> {
    require_allowed(repository, options)?;
    let store = &repository.environment().store;
    store.draw_on_reserve(true);
    let pruned = prune_in_session(repository, options);
    store.draw_on_reserve(false);
    store.keep_reserve();
    pruned
}

/// Draws on room that was kept back only for what a deletion takes: the session, a condemnation.
fn prune_in_session(repository: &Arc<Repository>, options: &PruneOptions) -> Result<PruneReport, OpsError> {
    let mut report = PruneReport::default();
    let environment = repository.environment();
    let presence = Presence::begin(repository, SessionPurpose::Maintain, IdSet::default(), &options.program)?;
    environment.store.draw_on_reserve(false);
    let condemned = condemn(repository, &presence, options, false, &mut report);
    environment.store.draw_on_reserve(true);
    let before = match condemned {
        Err(error) if has_no_space(&error) => {
            environment.observer.warn("the store is full: nothing is repacked or merged this time");
            report = report.anew();
            let options = PruneOptions { max_repack_bytes: Some(0), ..options.clone() };
            condemn(repository, &presence, &options, true, &mut report)?
        }
        condemned => condemned?,
    };
    if let Some(before) = before {
        let gone = sweep(repository, &presence, options, before, &mut report)?;
        catalogue::record_ends(repository, &gone);
    }
    Ok(report)
}

fn has_no_space(error: &OpsError) -> bool {
    matches!(error, OpsError::Repo(RepoError::Storage(StorageError::NoSpace { .. })))
}

/// Announces what is not needed; returns what that rests on, or nothing after a dry run. `sparing`, it writes no more
/// than that takes.
fn condemn(
    repository: &Arc<Repository>,
    presence: &Presence,
    options: &PruneOptions,
    sparing: bool,
    report: &mut PruneReport,
) -> Result<Option<Before>, OpsError> {
    let own = (repository.keyring().identity.key, presence.id());
    let mut view = View::take(repository, presence, options)?;
    let mut plan = Plan::make(repository, &view, &own, options, !sparing, report)?;
    let room = options.max_repack_bytes.map(|most| most.saturating_sub(report.resealed.freed_bytes));
    let options = &PruneOptions { max_repack_bytes: room, ..options.clone() };
    if plan.is_stale {
        *report = report.anew();
        view = View::take(repository, presence, options)?;
        plan = Plan::make(repository, &view, &own, options, false, report)?;
    }
    if options.dry_run {
        merges::merge(repository, &view, &Logs::list(repository)?, options, report)?;
        return Ok(None);
    }
    let mut frames = std::mem::take(&mut plan.parts);
    frames.append(&mut plan.rescued);
    let mut copied = copy(repository, &frames)?;
    copied.held.append(&mut plan.held);
    report.copied_bytes += copied.copied.stored_bytes;
    report.held_packs = copied.held.len() as u64;
    for pack in std::mem::take(&mut plan.repacked) {
        let length = view.packs.get(&pack).map_or(0, |object| object.length);
        if copied.held.contains(&pack) {
            report.condemned_packs -= 1;
            report.condemned_bytes -= length;
            plan.bytes -= length;
            report.kept_bytes += length;
            plan.relied.insert(pack);
        } else {
            plan.superfluous.insert(pack);
        }
    }
    plan.copies.extend(&copied.copied.packs);
    plan.relied.extend(&copied.copied.packs);
    if !sparing {
        merge_runs(repository, &view, &mut plan, &copied.held, report)?;
        let logs = Logs::list(repository)?;
        for (place, length) in merges::merge(repository, &view, &logs, options, report)? {
            if !view.place_goes_soon(&place, options) && plan.objects.insert(place) {
                report.condemned_logs += 1;
                report.condemned_log_bytes += length;
                plan.bytes += length;
            }
        }
        catalogue::gather(repository, &view.snapshots, catalogue::ROOTS_AT_LEAST);
        catalogue::gather_logs(repository, &view.snapshots, &logs.merged(), catalogue::MERGES_AT_LEAST);
    }
    let before = Before { roots: view.roots(), packs: std::mem::take(&mut plan.relied), held: copied.held };
    announce(repository, presence, options, &view, &plan, &own)?;
    Ok(Some(before))
}

fn announce(
    repository: &Repository,
    presence: &Presence,
    options: &PruneOptions,
    view: &View,
    plan: &Plan,
    own: &(crate::base::KeyId, [u8; 32]),
) -> Result<(), OpsError> {
    let sessions: Vec<SessionSighting> = view
        .sessions
        .iter()
        .filter(|(key, found)| !found.session.ended && *key != own)
        .map(|((signer, session), found)| SessionSighting {
            signer: *signer,
            session: *session,
            renewal: found.renewal,
            sequence: found.session.sequence,
            extra: Extra::new(),
        })
        .collect();
    let recorded = sessions.iter().all(|sighting| {
        let mut known = view.listing.found.values().flat_map(|found| &found.condemned.sessions);
        known.any(|seen| seen.signer == sighting.signer && seen.renewal == sighting.renewal)
    });
    if plan.dead.is_empty() && plan.superfluous.is_empty() && plan.objects.is_empty() && recorded {
        return Ok(());
    }
    let set = |packs: &BTreeSet<PackId>| packs.iter().copied().collect();
    let object = |place: &Place| CondemnedObject { place: place.clone(), extra: Extra::new() };
    let mut condemned = Condemned {
        created: repository.environment().clock.now(),
        store_time: view.now,
        grace_seconds: options.grace_seconds,
        session: presence.id(),
        sessions,
        dead: set(&plan.dead),
        superfluous: set(&plan.superfluous),
        copies: set(&plan.copies),
        tombstones: IdSet::default(),
        objects: Vec::new(),
        absorbs: IdSet::default(),
        bytes: plan.bytes,
        program: options.program.clone(),
        catalogue: view.snapshots.memory().newest().map(|(id, _)| id),
        extra: Extra::new(),
    };
    // What does not fit into one is said in several, each good by itself: of a log there may be millions.
    let places: Vec<&Place> = plan.objects.iter().collect();
    let mut parts = places.chunks(OBJECTS_MAX);
    loop {
        let part = parts.next();
        condemned.objects = part.unwrap_or_default().iter().map(|place| object(place)).collect();
        let payload = condemned.encode().map_err(RepoError::damaged("the condemnation being written"))?;
        repository.put_object("condemned", ObjectKind::Condemned, Act::Condemned, &payload)?;
        if parts.len() == 0 {
            return Ok(());
        }
        (condemned.dead, condemned.superfluous) = (IdSet::default(), IdSet::default());
        (condemned.copies, condemned.bytes) = (IdSet::default(), 0);
    }
}
