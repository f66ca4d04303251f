//! The sweep: what was announced long enough ago, and is known to everybody, is deleted.

use super::super::error::OpsError;
use super::catalogues;
use super::copies::copy;
use super::logs::ended_logs;
use super::merges::{Logs, replaced};
use super::runs::delete_runs;
use super::tombstones::absorb;
use super::view::View;
use super::{PruneOptions, PruneReport};
use crate::base::{BlobId, CondemnedId, DamagedId, ObjectId, PackId, SnapshotId};
use crate::format::ObjectKind;
use crate::format::condemned::Condemned;
use crate::format::place::Place;
use crate::repo::{FoundCondemned, FoundSession, Presence, Repository, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the same prune found before: where it still holds, nothing needs to be looked for again.
pub(super) struct Before {
    pub roots: BTreeSet<BlobId>,
    /// Packs that hold all that these roots need.
    pub packs: BTreeSet<PackId>,
    /// Packs that must not be deleted, since what is needed of them cannot be copied.
    pub held: BTreeSet<PackId>,
}

/// Deletes what was condemned before and may go; returns the snapshots that are gone and that a catalogue lists.
///
/// # Errors
///
/// As [`super::prune`].
pub(super) fn sweep(
    repository: &Arc<Repository>,
    presence: &Presence,
    options: &PruneOptions,
    before: Before,
    report: &mut PruneReport,
) -> Result<BTreeSet<SnapshotId>, OpsError> {
    let own = (repository.keyring().identity.key, presence.id());
    let view = View::take(repository, presence, options)?;
    let mut held = before.held;
    if !held.is_empty()
        || !view.damage.found.is_empty()
        || !view.unread.is_empty()
        || !view.still_rests_on(&before.roots, &before.packs)
    {
        let index = repository.index().numbered();
        let mut keeper = view.keep(repository, &index)?;
        let rescues = std::mem::take(&mut keeper.rescues);
        held.append(&mut keeper.held);
        if !view.unread.is_empty() {
            // Nobody knows what a copy of such would be.
            index.for_each(|number, copy| {
                if view.unread.contains(&copy.pack.id) && keeper.chosen.get(number) {
                    held.insert(copy.pack.id);
                }
            });
        }
        drop(keeper);
        let copied = copy(repository, &rescues)?;
        report.copied_bytes += copied.copied.stored_bytes;
        held.extend(copied.held);
        report.held_packs = held.len() as u64;
    }
    // Whatever this session relied on is copied: it stands in nobody's way any more.
    presence.name(&view.listing.ids())?;
    let mut waiting_for = BTreeSet::new();
    let mut swept: Vec<(&CondemnedId, &Condemned)> = Vec::new();
    for (id, found) in view.listing.found.iter().filter(|(_, found)| view.is_due(found)) {
        let mut waits = false;
        for (key, session) in view.sessions.iter().filter(|(key, _)| **key != own) {
            let done =
                session.session.ended || session.session.seen.contains(id) || view.has_lapsed(key, session);
            if !done {
                waits = true;
                let signer = repository.registry().trust().key(&key.0);
                let name = signer.map_or("", |signer| signer.name.as_str());
                let program = &session.session.program;
                waiting_for.insert(format!("{program} of the key {} ({name})", key.0.short()));
            }
        }
        if !waits {
            swept.push((id, &found.condemned));
        }
    }
    report.waiting_for = waiting_for.into_iter().collect();
    let mut logs = ended_logs(repository, &view)?;
    let is_log = |place: &&Place| place.kind() == ObjectKind::LogPack;
    let mut waiting: BTreeSet<&Place> = view.listed_objects().filter(is_log).collect();
    if !waiting.is_empty() {
        let there = Logs::list(repository)?;
        waiting.retain(|place| there.hold(place));
        let due = swept.iter().flat_map(|(_, condemned)| &condemned.objects).map(|object| &object.place);
        logs.extend(replaced(repository, &view, &there, &due.filter(is_log).collect())?);
    }
    let gone = delete(repository, &view, &swept, &held, &logs, report)?;
    absorb(repository, presence, options, &view, &swept)?;
    waiting.extend(logs.keys());
    count_waiting(&view, &swept, &waiting, report);
    Ok(gone)
}

/// Counts what is there and waits for its grace to pass.
fn count_waiting(
    view: &View,
    swept: &[(&CondemnedId, &Condemned)],
    logs: &BTreeSet<&Place>,
    report: &mut PruneReport,
) {
    let gone = |pack: &PackId| swept.iter().any(|(_, condemned)| condemned.names(pack));
    let places: BTreeSet<&Place> =
        swept.iter().flat_map(|(_, condemned)| &condemned.objects).map(|object| &object.place).collect();
    let is_there = |found: &FoundCondemned| {
        let condemned = &found.condemned;
        let mut packs = condemned.dead.iter().chain(condemned.superfluous.iter());
        packs.any(|pack| view.packs.contains_key(pack) && !gone(pack))
            || condemned.objects.iter().any(|object| {
                let snapshot = SnapshotId::from(object.place.id());
                let is_snapshot = object.place.kind() == ObjectKind::Snapshot;
                (is_snapshot && view.snapshots.get(&snapshot).is_some() || logs.contains(&object.place))
                    && !places.contains(&object.place)
            })
    };
    let waiting = view.listing.found.values().filter(|found| !view.is_due(found) && is_there(found));
    for found in waiting {
        report.waiting_for_grace += 1;
        let seconds = view.due_in_seconds(found);
        report.waiting_seconds = Some(report.waiting_seconds.map_or(seconds, |before| before.min(seconds)));
    }
}

/// Deletes what condemnations list: snapshots and log packs first, then annotations and catalogues, then sessions,
/// then index runs, packs, and last the parity of all of them. Returns the snapshots that a catalogue lists.
fn delete(
    repository: &Repository,
    view: &View,
    swept: &[(&CondemnedId, &Condemned)],
    held: &BTreeSet<PackId>,
    logs: &BTreeMap<Place, u64>,
    report: &mut PruneReport,
) -> Result<BTreeSet<SnapshotId>, OpsError> {
    let store = &repository.environment().store;
    let read = view.read_by_sessions();
    let mut gone: BTreeSet<ObjectId> = BTreeSet::new();
    let places =
        || swept.iter().flat_map(|(_, condemned)| condemned.objects.iter().map(|object| &object.place));
    for place in places().filter(|place| place.kind() == ObjectKind::Snapshot) {
        // [CONCURRENCY-32]: only what is still forgotten.
        let id = SnapshotId::from(place.id());
        if view.has_ended(&id, &read) {
            let refused = || view.snapshots.refused_snapshots().any(|(refused, _)| refused == id);
            let is_there = view.snapshots.get(&id).is_some() || refused();
            store.delete(&place.to_string())?;
            report.deleted_objects += u64::from(is_there);
            gone.insert(place.id());
        }
    }
    let memory = view.snapshots.memory();
    let is_listed = |id: &&ObjectId| matches!(memory.told(id), Some(Told::There(_)));
    let listed = gone.iter().filter(is_listed).map(|id| SnapshotId::from(*id)).collect();
    // Only what is still forgotten or superfluous, and read by nobody, is among them ([CONCURRENCY-32]).
    let going: BTreeSet<&Place> = places().filter(|place| logs.contains_key(place)).collect();
    for place in going {
        store.delete(&place.to_string())?;
        report.deleted_logs += 1;
        report.deleted_log_bytes += logs.get(place).copied().unwrap_or(0);
        gone.insert(place.id());
    }
    gone.extend(catalogues::delete(repository, view, &places().collect(), report)?);
    let idle = view.idle_reports(repository);
    for place in places().filter(|place| place.kind() == ObjectKind::Damaged) {
        if idle.contains(&DamagedId::from(place.id())) {
            store.delete(&place.to_string())?;
            report.deleted_objects += 1;
        }
    }
    // The renewal that ends a session goes last, so that a kill in between revives none.
    let condemned: BTreeSet<ObjectId> =
        places().filter(|place| place.kind() == ObjectKind::Session).map(Place::id).collect();
    let over = |key: &_, found: &FoundSession| found.session.ended || view.has_lapsed(key, found);
    for (_, session) in view.sessions.iter().filter(|(key, found)| over(key, found)) {
        if !session.renewals.iter().all(|renewal| condemned.contains(&ObjectId::from(*renewal))) {
            continue;
        }
        let before = session.renewals.iter().filter(|renewal| **renewal != session.renewal);
        for renewal in before.chain([&session.renewal]) {
            store.delete(&format!("sessions/{renewal}"))?;
            report.deleted_objects += 1;
        }
    }
    let runs: Vec<&Place> = places().filter(|place| place.kind() == ObjectKind::IndexRun).collect();
    report.deleted_runs = delete_runs(repository, view, held, &runs)?;
    report.deleted_objects += report.deleted_runs;
    let mut deleted = BTreeSet::new();
    for (_, condemned) in swept {
        let sets = [&condemned.dead, &condemned.superfluous, &condemned.tombstones];
        for pack in sets.into_iter().flat_map(|set| set.iter()).filter(|pack| !held.contains(pack)) {
            let Some(object) = view.packs.get(pack).filter(|_| deleted.insert(*pack)) else { continue };
            store.delete(&object.name)?;
            report.deleted_packs += 1;
            report.deleted_bytes += object.length;
            gone.insert(ObjectId::from(*pack));
        }
    }
    report.deleted_objects += drop_parity(repository, &gone)?;
    Ok(listed)
}

/// Deletes the parity of what was deleted ([PARITY-5]): from the names of these nobody could tell later what they were of.
fn drop_parity(repository: &Repository, gone: &BTreeSet<ObjectId>) -> Result<u64, OpsError> {
    if gone.is_empty() {
        return Ok(0);
    }
    let store = &repository.environment().store;
    let mut dropped = 0;
    for object in store.list("parity/")? {
        let subject = object.name.split('/').nth(1).and_then(|subject| subject.parse::<ObjectId>().ok());
        if subject.is_some_and(|subject| gone.contains(&subject)) {
            store.delete(&object.name)?;
            dropped += 1;
        }
    }
    Ok(dropped)
}
