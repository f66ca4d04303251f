//! Prune: what no root needs is announced, and deleted once everybody has heard of it.
//!
//! - `doubts`: what reports of damage make of copies
//! - `view`: what there is, read in an order that is safe to act on
//!
//! Write order, and what a crash after each step leaves:
//! 1. a session: it lapses;
//! 2. a condemnation of what is not needed: writers adopt nothing from there any more, the next prune
//!    goes on with it;
//! 3. copies of what is needed and only in condemned packs, with an index run: packs that stay;
//! 4. snapshots, then sessions that ended, then index runs, then packs are deleted, of condemnations whose
//!    grace has passed and that every living session has named: whatever is left goes the next time.
//!
//! Nobody is stopped or made to wait but the prune itself.

mod doubts;
mod view;

use self::view::View;
use super::error::OpsError;
use crate::base::{CondemnedId, DamagedId, ObjectId, PackId, SnapshotId};
use crate::format::ObjectKind;
use crate::format::cbor::Extra;
use crate::format::condemned::{Condemned, CondemnedObject, SessionSighting};
use crate::format::place::Place;
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::repo::{FrameCopier, Presence, RepoError, Repository};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Seconds between announcement and deletion where nobody says anything else.
pub const GRACE_SECONDS: u64 = 24 * 3600;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Seconds between the announcement and the deletion.
    pub grace_seconds: u64,
    /// Announces anew what was announced with a longer grace, so that this one counts.
    pub shorten: bool,
    /// Looks and counts only.
    pub dry_run: bool,
    /// Snapshots that a dry run takes for forgotten.
    pub as_forgotten: BTreeSet<SnapshotId>,
    /// Name and version of the program.
    pub program: String,
}

impl PruneOptions {
    /// Deletes what is not needed a day after it was announced.
    pub fn new(program: &str) -> Self {
        Self {
            grace_seconds: GRACE_SECONDS,
            shorten: false,
            dry_run: false,
            as_forgotten: BTreeSet::new(),
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
    /// Stored bytes, in packs that stay, of what nobody needs.
    pub unused_bytes: u64,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Other objects that were deleted.
    pub deleted_objects: u64,
    /// Bytes of copies that had to be made before.
    pub copied_bytes: u64,
    /// Condemnations that wait for their grace to pass.
    pub waiting_for_grace: u64,
    /// Seconds until the first of them is due.
    pub waiting_seconds: Option<u64>,
    /// Sessions that condemnations wait for.
    pub waiting_for: Vec<String>,
}

/// What is not needed.
#[derive(Default)]
struct Unneeded {
    dead: BTreeSet<PackId>,
    superfluous: BTreeSet<PackId>,
    copies: BTreeSet<PackId>,
    objects: BTreeSet<Place>,
    bytes: u64,
}

/// Condemns what no root needs, and deletes what was condemned before and may go.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not condemn; [`OpsError::Stopped`] where what is known of the
/// repository is not enough to delete anything safely.
pub fn prune(repository: &Arc<Repository>, options: &PruneOptions) -> Result<PruneReport, OpsError> {
    let own = repository.keyring().identity.key;
    repository.registry().may_sign(&own, Act::Condemned)?;
    let mut report = PruneReport::default();
    let presence = Presence::begin(repository, SessionPurpose::Maintain, IdSet::default(), &options.program)?;
    condemn(repository, &presence, options, &mut report)?;
    if !options.dry_run {
        sweep(repository, &presence, options, &mut report)?;
    }
    Ok(report)
}

fn condemn(
    repository: &Arc<Repository>,
    presence: &Presence,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<(), OpsError> {
    let own = (repository.keyring().identity.key, presence.id());
    let view = View::take(repository, presence, options)?;
    let unneeded = unneeded(repository, &view, &own, options, report)?;
    if options.dry_run {
        return Ok(());
    }
    let sessions: Vec<SessionSighting> = view
        .sessions
        .iter()
        .filter(|(key, found)| !found.session.ended && **key != own)
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
    if unneeded.dead.is_empty() && unneeded.superfluous.is_empty() && unneeded.objects.is_empty() && recorded
    {
        return Ok(());
    }
    let object = |place: &Place| CondemnedObject { place: place.clone(), extra: Extra::new() };
    let condemned = Condemned {
        created: repository.environment().clock.now(),
        store_time: view.now,
        grace_seconds: options.grace_seconds,
        session: presence.id(),
        sessions,
        dead: unneeded.dead.iter().copied().collect(),
        superfluous: unneeded.superfluous.iter().copied().collect(),
        copies: unneeded.copies.iter().copied().collect(),
        tombstones: IdSet::default(),
        objects: unneeded.objects.iter().map(object).collect(),
        absorbs: IdSet::default(),
        bytes: unneeded.bytes,
        program: options.program.clone(),
        catalogue: None,
        extra: Extra::new(),
    };
    let payload = condemned.encode().map_err(RepoError::damaged("the condemnation being written"))?;
    repository.put_object("condemned", ObjectKind::Condemned, Act::Condemned, &payload)?;
    Ok(())
}

/// Finds packs in which nothing is relied on, and other objects whose time is over.
fn unneeded(
    repository: &Arc<Repository>,
    view: &View,
    own: &(crate::base::KeyId, [u8; 32]),
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<Unneeded, OpsError> {
    let index = repository.index().numbered();
    let keeper = view.keep(repository, &index)?;
    let mut needed: BTreeMap<PackId, u64> = BTreeMap::new();
    index.for_each(|number, copy| {
        if keeper.chosen.get(number) {
            let record = &copy.record;
            let share = u64::from(record.sealed_length) * u64::from(record.length);
            *needed.entry(copy.pack.id).or_default() += share / u64::from(record.plain_length.max(1));
        }
    });
    report.packs = view.packs.len() as u64;
    report.pack_bytes = view.packs.values().map(|object| object.length).sum();
    report.needed_bytes = needed.values().sum();
    // Packs without a run too, by what their tables say.
    let described = repository.index().packs();
    let mut found = Unneeded::default();
    for (id, object) in view.packs.iter().filter(|(id, _)| !view.goes_soon(id, options)) {
        if let Some(bytes) = needed.get(id) {
            // What is needed from a condemned pack is copied before anything is deleted.
            if !view.is_condemned(id) {
                report.unused_bytes += object.length.saturating_sub(*bytes);
            }
            continue;
        }
        // What no run and no table describes is left alone: nobody knows what it holds.
        let described = view.listed.get(id).or_else(|| described.get(id));
        let Some(pack) = described.filter(|pack| !view.may_be_in_use(pack, object)) else { continue };
        // Which list it goes to is told below; a pack cut short holds nothing that could be relied on.
        found.dead.insert(pack.id);
        report.condemned_packs += 1;
        report.condemned_bytes += object.length;
    }
    let mut copies = Vec::new();
    index.for_each(|_, copy| {
        if found.dead.contains(&copy.pack.id) {
            copies.push((copy.pack.id, copy.record.class, copy.record.id));
        }
    });
    for (pack, class, id) in copies {
        if keeper.is_needed(class, &id) {
            found.superfluous.insert(pack);
            keeper.packs_of(class, &id, |relied_on| _ = found.copies.insert(relied_on));
        }
    }
    found.dead.retain(|pack| !found.superfluous.contains(pack));
    // A local index that turned out damaged may have hidden what a pack is needed for.
    if repository.index().damaged() {
        repository.heal_index()?;
        return Err(OpsError::Stopped {
            why: "the local index was damaged, and has been fetched again".to_owned(),
            cure: "run it again",
        });
    }
    let (dead, superfluous) = (&found.dead, &found.superfluous);
    found
        .copies
        .retain(|pack| !dead.contains(pack) && !superfluous.contains(pack) && !view.is_condemned(pack));
    found.bytes = report.condemned_bytes;
    objects(repository, view, own, options, &mut found, report)?;
    Ok(found)
}

/// Forgotten snapshots wherever they stand, and renewals of sessions that ended.
fn objects(
    repository: &Repository,
    view: &View,
    own: &(crate::base::KeyId, [u8; 32]),
    options: &PruneOptions,
    found: &mut Unneeded,
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
        if !view.place_goes_soon(&place, options) && found.objects.insert(place) {
            report.condemned_snapshots += 1;
            found.bytes += object.length;
        }
    }
    for report in view.idle_reports(repository) {
        let place = Place::new(ObjectKind::Damaged, "", ObjectId::from(report))
            .map_err(RepoError::damaged("the condemnation being written"))?;
        if !view.place_goes_soon(&place, options) {
            found.objects.insert(place);
        }
    }
    for (key, session) in view.sessions.iter().filter(|(_, found)| found.session.ended) {
        for renewal in session.renewals.iter().filter(|_| key != own) {
            let place = Place::new(ObjectKind::Session, "", ObjectId::from(*renewal))
                .map_err(RepoError::damaged("the condemnation being written"))?;
            if !view.place_goes_soon(&place, options) {
                found.objects.insert(place);
            }
        }
    }
    Ok(())
}

fn sweep(
    repository: &Arc<Repository>,
    presence: &Presence,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<(), OpsError> {
    let own = (repository.keyring().identity.key, presence.id());
    let view = View::take(repository, presence, options)?;
    let index = repository.index().numbered();
    let mut keeper = view.keep(repository, &index)?;
    let rescues = std::mem::take(&mut keeper.rescues);
    drop(keeper);
    if !rescues.is_empty() {
        let mut copier = FrameCopier::new(repository)?;
        for (pack, offsets) in &rescues {
            copier.copy(pack, offsets)?;
        }
        report.copied_bytes += copier.finish()?.stored_bytes;
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
                waiting_for.insert(format!("{} of the key {}", session.session.program, key.0.short()));
            }
        }
        if !waits {
            swept.push((id, &found.condemned));
        }
    }
    report.waiting_for = waiting_for.into_iter().collect();
    delete(repository, &view, &swept, report)?;
    let gone = |pack: &PackId| swept.iter().any(|(_, condemned)| condemned.names(pack));
    let places: BTreeSet<&Place> =
        swept.iter().flat_map(|(_, condemned)| &condemned.objects).map(|object| &object.place).collect();
    for found in view.listing.found.values().filter(|found| !view.is_due(found)) {
        let condemned = &found.condemned;
        let mut packs = condemned.dead.iter().chain(condemned.superfluous.iter());
        let lists = packs.any(|pack| view.packs.contains_key(pack) && !gone(pack))
            || condemned.objects.iter().any(|object| {
                let snapshot = SnapshotId::from(object.place.id());
                object.place.kind() == ObjectKind::Snapshot
                    && view.snapshots.get(&snapshot).is_some()
                    && !places.contains(&object.place)
            });
        if lists {
            report.waiting_for_grace += 1;
            let seconds = view.due_in_seconds(found);
            report.waiting_seconds =
                Some(report.waiting_seconds.map_or(seconds, |before| before.min(seconds)));
        }
    }
    Ok(())
}

/// Deletes what condemnations list: snapshots first, packs last, and condemnations that nothing needs as
/// tombstones any more.
fn delete(
    repository: &Repository,
    view: &View,
    swept: &[(&CondemnedId, &Condemned)],
    report: &mut PruneReport,
) -> Result<(), OpsError> {
    let store = &repository.environment().store;
    let read = view.read_by_sessions();
    let places =
        || swept.iter().flat_map(|(_, condemned)| condemned.objects.iter().map(|object| &object.place));
    for place in places().filter(|place| place.kind() == ObjectKind::Snapshot) {
        // [CONCURRENCY-32]: only what is still forgotten.
        let id = SnapshotId::from(place.id());
        let gone = view.snapshots.get(&id).is_none();
        if gone || view.has_ended(&id, &read) {
            store.delete(&place.to_string())?;
            report.deleted_objects += u64::from(!gone);
        }
    }
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
    for session in view.sessions.values().filter(|found| found.session.ended) {
        if !session.renewals.iter().all(|renewal| condemned.contains(&ObjectId::from(*renewal))) {
            continue;
        }
        let before = session.renewals.iter().filter(|renewal| **renewal != session.renewal);
        for renewal in before.chain([&session.renewal]) {
            store.delete(&format!("sessions/{renewal}"))?;
            report.deleted_objects += 1;
        }
    }
    for (_, condemned) in swept {
        for pack in
            condemned.dead.iter().chain(condemned.superfluous.iter()).chain(condemned.tombstones.iter())
        {
            let Some(object) = view.packs.get(pack) else { continue };
            store.delete(&object.name)?;
            report.deleted_packs += 1;
            report.deleted_bytes += object.length;
        }
    }
    Ok(())
}
