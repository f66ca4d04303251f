//! What a prune would do: which packs go, which are copied to smaller ones first, and what that frees.

use super::super::error::OpsError;
use super::super::keeper::{Frames, Keeper};
use super::catalogues;
use super::logs::ended_logs;
use super::reseal::reseal;
use super::uses::{Use, uses};
use super::view::View;
use super::{PruneOptions, PruneReport};
use crate::base::{KeyId, ObjectId, PackId, SnapshotId};
use crate::format::ObjectKind;
use crate::format::pack::{BlobClass, ORIGIN_BYTES};
use crate::format::place::Place;
use crate::repo::{FoundSession, KnownPack, NumberedIndex, RepoError, Repository, pack_bytes};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Head, trailer, and what seals a table of contents.
const PACK_FRAME_BYTES: u64 = 64 + 192 + 16 + 4;

/// A pack is small that takes less than this part of a full one: what a backup of little leaves.
const SMALL_PART: usize = 16;
/// So many small packs of a class are put together.
const SMALL_PACKS: usize = 32;

/// What is not needed, and what has to be copied before that is true.
#[derive(Default)]
pub(super) struct Plan {
    pub dead: BTreeSet<PackId>,
    pub superfluous: BTreeSet<PackId>,
    /// Packs that hold the copies on account of which others are superfluous.
    pub copies: BTreeSet<PackId>,
    /// Packs that are needed in parts: with these parts copied they are superfluous.
    pub repacked: BTreeSet<PackId>,
    pub parts: Frames,
    /// What is needed and only in condemned packs.
    pub rescued: Frames,
    /// Packs that go and have to stay.
    pub held: BTreeSet<PackId>,
    pub objects: BTreeSet<Place>,
    pub bytes: u64,
    /// Packs that stay, and that something is needed of.
    pub relied: BTreeSet<PackId>,
    /// Blobs were sealed anew meanwhile: what there is has to be looked at again, and this is no plan.
    pub is_stale: bool,
}

/// A pack that could be repacked.
struct Partly {
    id: PackId,
    length: u64,
    unused: u64,
    copied: u64,
}

impl Plan {
    /// Finds out what is not needed. Where `reseals`, what holds too much of that is sealed anew first.
    ///
    /// # Errors
    ///
    /// [`OpsError::Stopped`] where what is known is not enough to delete anything safely.
    pub fn make(
        repository: &Arc<Repository>,
        view: &View,
        own: &(KeyId, [u8; 32]),
        options: &PruneOptions,
        reseals: bool,
        report: &mut PruneReport,
    ) -> Result<Self, OpsError> {
        let index = repository.index().numbered();
        let mut keeper = view.keep(repository, &index)?;
        let rescued = std::mem::take(&mut keeper.rescues);
        let mut plan = Self { rescued, held: std::mem::take(&mut keeper.held), ..Self::default() };
        let uses = uses(&index, &keeper, report);
        report.packs = view.packs.len() as u64;
        report.pack_bytes = view.packs.values().map(|object| object.length).sum();
        report.needed_bytes = uses.values().map(|used| used.frames).sum();
        if reseals
            && !repository.index().damaged()
            && reseal(repository, view, &index, &keeper, options, report)?
        {
            return Ok(Self { is_stale: true, ..plan });
        }
        plan.sort_packs(repository, view, &uses, options, report);
        plan.find_copies(&index, &keeper, view);
        // A local index that turned out damaged may have hidden what a pack is needed for.
        if repository.index().damaged() {
            repository.heal_index()?;
            return Err(OpsError::Overtaken("the local index was damaged, and has been fetched again"));
        }
        plan.bytes = report.condemned_bytes;
        let going: u64 = view
            .packs
            .values()
            .zip(view.packs.keys())
            .filter(|(_, id)| {
                view.is_condemned(id)
                    || plan.dead.contains(id)
                    || plan.superfluous.contains(id)
                    || plan.repacked.contains(id)
            })
            .map(|(object, _)| object.length)
            .sum();
        report.kept_bytes = (report.pack_bytes - going).saturating_add(report.repack_copy_bytes);
        objects(repository, view, own, options, &mut plan, report)?;
        Ok(plan)
    }

    /// Says which packs hold nothing that is needed, which are worth repacking, and which stay.
    fn sort_packs(
        &mut self,
        repository: &Arc<Repository>,
        view: &View,
        uses: &HashMap<PackId, Use>,
        options: &PruneOptions,
        report: &mut PruneReport,
    ) {
        // Packs without a run too, by what their tables say.
        let described = repository.index().packs();
        let own = repository.keyring().identity.key;
        let mut partly = Vec::new();
        let [mut small_content, mut small_metadata] = [Vec::new(), Vec::new()];
        for (id, object) in view.packs.iter().filter(|(id, _)| !view.goes_soon(id, options)) {
            let known = view.listed.get(id).or_else(|| described.get(id));
            let Some(used) = uses.get(id) else {
                // What no run and no table describes is left alone: nobody knows what it holds.
                let Some(pack) = known else { continue };
                if view.may_be_in_use(pack, object) {
                    report.unfinished_packs += 1;
                    report.unfinished_bytes += object.length;
                    continue;
                }
                // Which list it goes to is told below; a pack cut short holds nothing that could be relied on.
                self.dead.insert(pack.id);
                report.condemned_packs += 1;
                report.condemned_bytes += object.length;
                continue;
            };
            // What is needed from a condemned pack is copied before anything is deleted.
            if view.is_condemned(id) {
                continue;
            }
            self.relied.insert(*id);
            let Some(pack) = known else { continue };
            let unused = unused(pack, object.length, used);
            report.unused_bytes += unused;
            // A copy of what is doubted would be doubted by nobody. Nobody vouches for a copy as an owner does for what was
            // sealed anew ([CONCURRENCY-57]): others would be needed again.
            let may = view.listed.contains_key(id)
                && !view.snapshots.vouched().names(pack)
                && !view.unread.contains(id)
                && !view.doubts.spoilt.packs().any(|spoilt| spoilt == id)
                && !view.may_be_in_use(pack, object)
                && repository.registry().adopts(&own, &pack.signer, id);
            if !may {
                continue;
            }
            let candidate = || Partly {
                id: *id,
                length: object.length,
                unused,
                copied: object.length.saturating_sub(unused),
            };
            if unused > 0 {
                partly.push(candidate());
            }
            if object.length < (pack_bytes(pack.class) / SMALL_PART) as u64 {
                match pack.class {
                    BlobClass::Content => small_content.push(candidate()),
                    BlobClass::Metadata => small_metadata.push(candidate()),
                }
            }
        }
        self.choose_repacked(partly, options, report);
        for mut small in [small_content, small_metadata] {
            small.retain(|pack| !self.repacked.contains(&pack.id));
            small.sort_by_key(|pack| (pack.length, pack.id));
            let room = options.max_repack_bytes.map(|most| most.saturating_sub(report.repacked_bytes));
            let mut taken = 0_u64;
            let fit = small.iter().take_while(|pack| {
                taken = taken.saturating_add(pack.length);
                room.is_none_or(|room| taken <= room)
            });
            let fit = fit.count();
            // A few would only be written once more.
            for pack in small.iter().take(if fit >= SMALL_PACKS { fit } else { 0 }) {
                self.repack(pack, options, report);
            }
        }
    }

    /// Takes the packs from which most is freed for what is copied, until no more is unused than is allowed.
    fn choose_repacked(&mut self, mut partly: Vec<Partly>, options: &PruneOptions, report: &mut PruneReport) {
        let allowed = options.max_unused.beside(report.needed_bytes);
        partly.sort_by(|a, b| {
            let share = |one: &Partly, other: &Partly| u128::from(one.unused) * u128::from(other.length);
            share(b, a).cmp(&share(a, b)).then(a.id.cmp(&b.id))
        });
        for pack in partly {
            if report.unused_bytes <= allowed {
                return;
            }
            self.repack(&pack, options, report);
        }
    }

    /// Takes one, unless that would be more than may be repacked in one go.
    fn repack(&mut self, pack: &Partly, options: &PruneOptions, report: &mut PruneReport) {
        let total = report.repacked_bytes.saturating_add(pack.length);
        if options.max_repack_bytes.is_some_and(|most| total > most) {
            return;
        }
        report.repacked_packs += 1;
        report.repacked_bytes = total;
        report.repack_copy_bytes += pack.copied;
        report.unused_bytes -= pack.unused;
        report.condemned_packs += 1;
        report.condemned_bytes += pack.length;
        self.relied.remove(&pack.id);
        self.repacked.insert(pack.id);
    }

    /// Finds the frames to copy, and the packs on account of which others are superfluous.
    fn find_copies(&mut self, index: &NumberedIndex, keeper: &Keeper<'_>, view: &View) {
        // Nothing of a record is remembered: where many packs go, theirs are many.
        index.for_each(|number, copy| {
            let (pack, class, id) = (copy.pack.id, copy.record.class, copy.record.id);
            if self.dead.contains(&pack) {
                if keeper.is_needed(class, &id) {
                    self.superfluous.insert(pack);
                    keeper.packs_of(class, &id, |relied_on| _ = self.copies.insert(relied_on));
                }
            } else if self.repacked.contains(&pack) && keeper.chosen.get(number) {
                let frames = self.parts.entry((pack, copy.pack.signer)).or_default();
                frames.insert(copy.record.frame_offset);
            }
        });
        self.dead.retain(|pack| !self.superfluous.contains(pack));
        let (dead, superfluous, repacked) = (&self.dead, &self.superfluous, &self.repacked);
        self.copies.retain(|pack| {
            let goes = dead.contains(pack) || superfluous.contains(pack) || repacked.contains(pack);
            !goes && !view.is_condemned(pack)
        });
    }
}

/// Bytes of a pack that nobody needs.
fn unused(pack: &KnownPack, length: u64, used: &Use) -> u64 {
    let around = PACK_FRAME_BYTES + 2 * (ORIGIN_BYTES * pack.origins.len()) as u64;
    length.saturating_sub(around + used.frames + used.table)
}

/// Forgotten snapshots wherever they stand, forgotten log packs, and renewals of sessions that ended or lapsed.
fn objects(
    repository: &Repository,
    view: &View,
    own: &(KeyId, [u8; 32]),
    options: &PruneOptions,
    plan: &mut Plan,
    report: &mut PruneReport,
) -> Result<(), OpsError> {
    let read = view.read_by_sessions();
    for object in repository.environment().store.list("snapshots/")? {
        let mut parts = object.name.split('/').skip(1);
        let (Some(folder), Some(Ok(id))) = (parts.next(), parts.next().map(str::parse::<ObjectId>)) else {
            continue;
        };
        if !view.has_ended(&SnapshotId::from(id), &read) {
            continue;
        }
        let Ok(place) = Place::new(ObjectKind::Snapshot, folder, id) else { continue };
        if !view.place_goes_soon(&place, options) && plan.objects.insert(place) {
            report.condemned_snapshots += 1;
            plan.bytes += object.length;
        }
    }
    plan.objects.extend(catalogues::idle(view, options)?);
    for (place, length) in ended_logs(repository, view)? {
        if !view.place_goes_soon(&place, options) && plan.objects.insert(place) {
            report.condemned_logs += 1;
            report.condemned_log_bytes += length;
            plan.bytes += length;
        }
    }
    for idle in view.idle_reports(repository) {
        let place = Place::new(ObjectKind::Damaged, "", ObjectId::from(idle))
            .map_err(RepoError::damaged("the condemnation being written"))?;
        if !view.place_goes_soon(&place, options) {
            plan.objects.insert(place);
        }
    }
    let over = |key: &_, found: &FoundSession| found.session.ended || view.has_lapsed(key, found);
    for (key, session) in view.sessions.iter().filter(|(key, found)| over(key, found)) {
        for renewal in session.renewals.iter().filter(|_| key != own) {
            let place = Place::new(ObjectKind::Session, "", ObjectId::from(*renewal))
                .map_err(RepoError::damaged("the condemnation being written"))?;
            if !view.place_goes_soon(&place, options) {
                plan.objects.insert(place);
            }
        }
    }
    Ok(())
}

/// What a blob is called.
pub(super) const fn noun(class: BlobClass) -> &'static str {
    match class {
        BlobClass::Content => "chunk",
        BlobClass::Metadata => "tree or recipe",
    }
}
