//! What a prune sees of a repository, taken in the order that makes it safe to act on.

use super::super::error::OpsError;
use super::super::forget::require_whole_memory;
use super::super::keeper::{Doubts, Keeper, Trust};
use super::super::reach::{reach, reach_readable};
use super::super::settle::held_in;
use super::super::snapshots::{SnapshotView, Snapshots};
use super::super::words::Said;
use super::PruneOptions;
use super::doubts::doubts;
use super::plan::noun;
use crate::base::{BlobId, DamagedId, KeyId, LogPackId, PackId, SnapshotId, Timestamp, explain};
use crate::format::ObjectKind;
use crate::format::damaged::DamagedObject;
use crate::format::place::Place;
use crate::format::session::SessionPurpose;
use crate::repo::{
    Author, CondemnedListing, DamageListing, FoundCondemned, FoundSession, KnownPack, NumberedIndex,
    Presence, RepoError, Repository, Sessions,
};
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Everything that a decision rests on. The fields were read in the order in which they stand
/// ([CONCURRENCY-26], [CONCURRENCY-32]).
pub(super) struct View {
    pub now: Timestamp,
    pub listing: CondemnedListing,
    pub sessions: Sessions,
    pub snapshots: Snapshots,
    /// Snapshots that do not count, and what is at their top.
    pub shadows: BTreeMap<SnapshotId, BlobId>,
    /// Packs that index runs name.
    pub listed: HashMap<PackId, Arc<KnownPack>>,
    pub packs: BTreeMap<PackId, ObjectInfo>,
    /// When packs and other objects that condemnations list are due, by the store's time.
    due: (HashMap<PackId, i128>, HashMap<Place, i128>),
    as_forgotten: BTreeSet<SnapshotId>,
    as_forgotten_logs: HashSet<LogPackId>,
    /// Packs with keys that describe them, though another key signed them.
    lies: HashSet<(PackId, KeyId)>,
    /// Packs that several keys describe, and that do not tell themselves which of them is right.
    pub unread: HashSet<PackId>,
    /// Reports of damage.
    pub damage: DamageListing,
    pub doubts: Doubts,
}

impl View {
    /// Looks at everything.
    ///
    /// # Errors
    ///
    /// [`OpsError::Stopped`] where something that might protect data cannot be read; [`OpsError::Overtaken`] where keys
    /// have changed since the repository was opened.
    pub fn take(
        repository: &Arc<Repository>,
        presence: &Presence,
        options: &PruneOptions,
    ) -> Result<Self, OpsError> {
        presence.renew()?;
        let now = presence.store_time().ok_or_else(|| OpsError::Stopped {
            why: "the store does not tell when objects were stored".to_owned(),
            cure: "prune where the objects are kept",
        })?;
        presence.unnamed()?;
        let listing = presence.listing();
        if let Some((id, why)) = listing.unreadable.iter().next() {
            return Err(OpsError::Stopped {
                why: format!("the condemnation {} cannot be read: {why}", id.short()),
                cure: "bring the object back from a copy of the repository, or remove it from the store by hand",
            });
        }
        let sessions = sessions(repository, now)?;
        // A key is older than its sessions: those of one that this client does not know were passed over.
        if !repository.is_registry_current()? {
            return Err(OpsError::Overtaken("keys were added or taken out of service since this began"));
        }
        let snapshots = Snapshots::load_all(repository)?;
        require_whole_memory(repository, &snapshots)?;
        let shadows = shadows(repository, &snapshots)?;
        repository.refresh_index()?;
        let mut listed = repository.index().packs();
        repository.index_unlisted_packs()?;
        let mut packs = BTreeMap::new();
        let store = &repository.environment().store;
        for object in store.list("packs/")? {
            if let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse) {
                packs.insert(id, object);
            }
        }
        let (lies, unread) = lies(repository, &packs, &mut listed)?;
        let damage = repository.damage_reports()?;
        if let Some((id, why)) = damage.unreadable.iter().next() {
            return Err(OpsError::Stopped {
                why: format!("the report of damage {} cannot be read: {why}", id.short()),
                cure: "bring the object back from a copy of the repository, or remove it from the store by \
                       hand and run `check --read-data`, which reports anew what is bad",
            });
        }
        let doubts = doubts(repository, &damage, &packs)?;
        let due = all_due(&listing);
        let (as_forgotten, as_forgotten_logs) = match options.dry_run {
            true => (options.as_forgotten.clone(), options.as_forgotten_logs.clone()),
            false => Default::default(),
        };
        Ok(Self {
            now,
            listing,
            sessions,
            snapshots,
            shadows,
            listed,
            packs,
            lies,
            unread,
            damage,
            doubts,
            due,
            as_forgotten,
            as_forgotten_logs,
        })
    }

    /// Snapshots that living sessions read: roots, whatever was said about them.
    pub fn read_by_sessions(&self) -> BTreeSet<SnapshotId> {
        self.living().flat_map(|found| found.session.snapshots.iter().copied()).collect()
    }

    /// Log streams that living sessions read: what is archived of them is a root.
    pub fn streams_read_by_sessions(&self) -> BTreeSet<&str> {
        self.living().flat_map(|found| found.session.streams.iter().map(String::as_str)).collect()
    }

    fn living(&self) -> impl Iterator<Item = &FoundSession> {
        let lives = |(key, found): &(&_, &FoundSession)| !found.session.ended && !self.has_lapsed(key, found);
        self.sessions.iter().filter(lives).map(|(_, found)| found)
    }

    /// Says whether any log pack was forgotten.
    pub fn forgets_logs(&self) -> bool {
        !self.snapshots.forgotten_logs().is_empty() || !self.as_forgotten_logs.is_empty()
    }

    /// Says whether a log pack was forgotten, whatever pins or sessions say.
    pub fn is_forgotten_log(&self, id: &LogPackId) -> bool {
        self.snapshots.forgotten_logs().names(id) || self.as_forgotten_logs.contains(id)
    }

    /// Says whether a snapshot is no root any more.
    pub fn has_ended(&self, id: &SnapshotId, read: &BTreeSet<SnapshotId>) -> bool {
        let forgotten =
            |view: &SnapshotView| view.forgotten || view.pinned.is_empty() && self.as_forgotten.contains(id);
        match self.snapshots.get(id) {
            Some(view) => forgotten(view) && !read.contains(id),
            // One that does not count, or cannot be read, and that somebody who may has forgotten.
            None => self.snapshots.ended().contains(id) || self.as_forgotten.contains(id),
        }
    }

    /// [CONCURRENCY-15]: says whether a session stood still for so long that nobody waits for it.
    pub fn has_lapsed(&self, key: &(KeyId, [u8; 32]), found: &FoundSession) -> bool {
        self.listing.found.values().any(|condemnation| {
            let condemned = &condemnation.condemned;
            let recorded = condemned
                .sessions
                .iter()
                .any(|seen| (seen.signer, seen.session) == *key && seen.renewal == found.renewal);
            let wait = condemned.grace_seconds.max(found.session.promise_seconds.saturating_mul(3));
            recorded && is_older(self.now, since(condemnation), wait)
        })
    }

    /// [CONDEMNED-3]: says whether the grace of a condemnation has passed.
    pub fn is_due(&self, found: &FoundCondemned) -> bool {
        due(found) <= i128::from(self.now.nanoseconds())
    }

    /// Says whether more than its grace once again has passed since it was due.
    pub fn is_long_due(&self, found: &FoundCondemned) -> bool {
        due(found) + i128::from(found.condemned.grace_seconds) * SECOND <= i128::from(self.now.nanoseconds())
    }

    /// Says whether something was stored so many seconds ago, by the store's time.
    pub fn is_older_than(&self, stored: Option<Timestamp>, seconds: u64) -> bool {
        stored.is_some_and(|stored| is_older(self.now, stored, seconds))
    }

    /// Says whether any condemnation lists an object.
    pub fn is_listed(&self, place: &Place) -> bool {
        self.due.1.contains_key(place)
    }

    /// Returns all objects besides packs that condemnations list.
    pub fn listed_objects(&self) -> impl Iterator<Item = &Place> {
        self.due.1.keys()
    }

    /// Returns how long it is until the grace of a condemnation has passed.
    pub fn due_in_seconds(&self, found: &FoundCondemned) -> u64 {
        let left = (due(found) - i128::from(self.now.nanoseconds())).max(0);
        u64::try_from(left.div_euclid(SECOND) + i128::from(left.rem_euclid(SECOND) > 0)).unwrap_or(u64::MAX)
    }

    /// Says whether any condemnation names a pack.
    pub fn is_condemned(&self, pack: &PackId) -> bool {
        self.due.0.contains_key(pack)
    }

    /// Says whether a pack was announced, and goes as soon as these options want.
    pub fn goes_soon(&self, pack: &PackId, options: &PruneOptions) -> bool {
        self.is_soon(self.due.0.get(pack), options)
    }

    /// Says the same of another object.
    pub fn place_goes_soon(&self, place: &Place, options: &PruneOptions) -> bool {
        self.is_soon(self.due.1.get(place), options)
    }

    /// [CONCURRENCY-46]: what was announced with a longer grace is announced once more; no grace that
    /// somebody announced is cut.
    fn is_soon(&self, due: Option<&i128>, options: &PruneOptions) -> bool {
        let wanted = i128::from(self.now.nanoseconds()) + i128::from(options.grace_seconds) * SECOND;
        due.is_some_and(|due| !options.shorten || *due <= wanted)
    }

    /// [CONCURRENCY-30]: says whether a pack may belong to a backup in progress.
    pub fn may_be_in_use(&self, pack: &KnownPack, object: &ObjectInfo) -> bool {
        self.sessions.iter().any(|(key, found)| {
            let writes = matches!(found.session.purpose, SessionPurpose::Write | SessionPurpose::Other(_));
            let before = match (found.began, object.modified) {
                (Some(began), Some(stored)) => began <= stored,
                _ => true,
            };
            writes && !found.session.ended && key.0 == pack.signer && before && !self.has_lapsed(key, found)
        })
    }

    /// Returns the reports of damage that have nothing to say any more.
    pub fn idle_reports(&self, repository: &Repository) -> Vec<DamagedId> {
        let cancelled = self.damage.cancelled(repository.registry());
        let is_there = |entry: &DamagedObject| match entry.place.kind() {
            ObjectKind::ContentPack | ObjectKind::MetadataPack => {
                self.packs.contains_key(&PackId::from(entry.place.id()))
            }
            _ => true,
        };
        let ids = self.damage.found.keys();
        ids.filter(|id| self.damage.is_over(id, &cancelled, is_there)).copied().collect()
    }

    /// Returns what is at the top of every snapshot that is a root.
    pub fn roots(&self) -> BTreeSet<BlobId> {
        let read = self.read_by_sessions();
        let roots = self.snapshots.with_forgotten().iter().filter(|view| !self.has_ended(&view.id, &read));
        roots.map(|view| view.snapshot.root).chain(self.shadows.values().copied()).collect()
    }

    /// Says whether everything that was relied on for some roots is still there and as safe as it was, so that
    /// nothing that is needed now has to be looked for.
    pub fn still_rests_on(&self, roots: &BTreeSet<BlobId>, packs: &BTreeSet<PackId>) -> bool {
        let safe = |pack: &PackId| self.packs.contains_key(pack) && !self.is_condemned(pack);
        self.roots().is_subset(roots) && packs.iter().all(safe)
    }

    /// Chooses the copies of everything that roots reach.
    ///
    /// # Errors
    ///
    /// [`OpsError::Stopped`] where something is missing: a damaged repository is not pruned.
    pub fn keep<'a>(
        &'a self,
        repository: &'a Arc<Repository>,
        index: &'a NumberedIndex,
    ) -> Result<Keeper<'a>, OpsError> {
        let registry = repository.registry();
        let trust = move |pack: &KnownPack| {
            let whole = self.packs.get(&pack.id).map(|object| object.length) == Some(u64::from(pack.length));
            if !whole || self.lies.contains(&(pack.id, pack.signer)) {
                return Trust::Gone;
            }
            let said = Said::of(registry, &pack.signer);
            // One of those who describe it tells the truth: it stays, and stands in for nobody.
            if self.unread.contains(&pack.id) {
                return Trust::Doubted(said);
            }
            match (self.is_condemned(&pack.id), self.listed.contains_key(&pack.id)) {
                (true, _) => Trust::Goes(said),
                // Nobody adopts what no run names.
                (false, false) => Trust::Aside(said),
                (false, true) => Trust::Stays(said),
            }
        };
        let vouched = self.snapshots.vouched();
        let mut keeper = Keeper::new(index, trust).doubting(&self.doubts).believing(vouched, registry);
        let read = self.read_by_sessions();
        for view in self.snapshots.with_forgotten().iter().filter(|view| !self.has_ended(&view.id, &read)) {
            let hurt = |what: String| OpsError::Stopped {
                why: format!(
                    "{what}, which snapshot {} of {} on {} needs (signed by the key {}): the repository is damaged",
                    view.id.short(),
                    view.snapshot.label,
                    view.snapshot.host,
                    view.signer.short()
                ),
                cure: "bring the packs back, or forget that snapshot; `chronolith check` names all that are hurt",
            };
            match reach(repository, [view.snapshot.root], &mut keeper) {
                Ok(()) => {}
                Err(OpsError::Repo(error @ (RepoError::Missing { .. } | RepoError::Damaged { .. }))) => {
                    return Err(hurt(explain(&error)));
                }
                Err(error) => return Err(error),
            }
            if let Some((class, id)) = keeper.missing.first() {
                let held: Vec<String> = held_in(repository, *class, id).into_iter().collect();
                let because = match held.is_empty() {
                    true => "no pack holds it".to_owned(),
                    false => format!("it cannot be had from {}", held.join(", ")),
                };
                return Err(hurt(format!("{} {} is missing ({because})", noun(*class), id.short())));
            }
        }
        // What does not count stops nobody, whatever it claims to need ([CONCURRENCY-55]).
        for root in self.shadows.values() {
            reach_readable(repository, *root, &mut keeper)?;
        }
        keeper.missing.clear();
        Ok(keeper)
    }
}

/// Words about packs that count for nothing, and the packs that cannot be asked.
type Lies = (HashSet<(PackId, KeyId)>, HashSet<PackId>);

/// [INDEX-9]: where runs of several keys describe a pack, looks who signed it; the others' word counts for
/// nothing.
fn lies(
    repository: &Repository,
    packs: &BTreeMap<PackId, ObjectInfo>,
    listed: &mut HashMap<PackId, Arc<KnownPack>>,
) -> Result<Lies, RepoError> {
    let (mut lies, mut unread) = (HashSet::new(), HashSet::new());
    for (pack, signers) in repository.index().disputed() {
        let Some(object) = packs.get(&pack) else { continue };
        let truth = match repository.describe_pack(&pack, object.length) {
            Ok((truth, _)) => truth,
            Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
            Err(RepoError::Storage(StorageError::NotFound { .. })) => {
                lies.extend(signers.into_iter().map(|signer| (pack, signer)));
                continue;
            }
            // Its frames may be whole, and those who do not tell the truth may be who wants it to go.
            Err(error) => {
                repository.environment().observer.warn(&explain(&error));
                unread.insert(pack);
                continue;
            }
        };
        lies.extend(
            signers.into_iter().filter(|signer| *signer != truth.signer).map(|signer| (pack, signer)),
        );
        listed.entry(pack).and_modify(|known| *known = truth);
    }
    Ok((lies, unread))
}

/// Nanoseconds.
const SECOND: i128 = 1_000_000_000;

fn since(found: &FoundCondemned) -> Timestamp {
    let made = found.condemned.store_time;
    found.stored.map_or(made, |stored| stored.max(made))
}

fn due(found: &FoundCondemned) -> i128 {
    i128::from(since(found).nanoseconds()) + i128::from(found.condemned.grace_seconds) * SECOND
}

/// The earliest time at which each object that condemnations list is due.
fn all_due(listing: &CondemnedListing) -> (HashMap<PackId, i128>, HashMap<Place, i128>) {
    let (mut packs, mut places) = (HashMap::new(), HashMap::new());
    for found in listing.found.values() {
        let (condemned, due) = (&found.condemned, due(found));
        let earlier = |known: &mut i128| *known = due.min(*known);
        for pack in [&condemned.dead, &condemned.superfluous, &condemned.tombstones]
            .into_iter()
            .flat_map(|set| set.iter())
        {
            packs.entry(*pack).and_modify(earlier).or_insert(due);
        }
        for object in &condemned.objects {
            places.entry(object.place.clone()).and_modify(earlier).or_insert(due);
        }
    }
    (packs, places)
}

fn is_older(now: Timestamp, then: Timestamp, seconds: u64) -> bool {
    let passed = i128::from(now.nanoseconds()) - i128::from(then.nanoseconds());
    passed >= i128::from(seconds) * 1_000_000_000
}

/// Longer than any session may go without a renewal ([SESSION-9]), three times.
const UNKNOWN_SESSION_SECONDS: u64 = 3 * 86400;

/// Lists sessions. What may be one and cannot be read is waited for as long as any may be silent
/// ([CONCURRENCY-54]).
fn sessions(repository: &Repository, now: Timestamp) -> Result<Sessions, OpsError> {
    let (sessions, unreadable) = repository.sessions_as_far_as_readable()?;
    for (stored, error) in unreadable {
        if stored.is_none_or(|stored| !is_older(now, stored, UNKNOWN_SESSION_SECONDS)) {
            return Err(OpsError::Stopped {
                why: format!("{}, and it may be of a running backup", explain(&error)),
                cure: "remove it from the store by hand, or prune again when it is three days old",
            });
        }
        repository.environment().observer.warn(&explain(&error));
    }
    Ok(sessions)
}

/// Finds the snapshots that do not count and what is at their top: what they reach stays as far as it is
/// there. One that rotted may still be wanted: only a person can say that it is not.
fn shadows(repository: &Repository, snapshots: &Snapshots) -> Result<BTreeMap<SnapshotId, BlobId>, OpsError> {
    let mut shadows = BTreeMap::new();
    let observer = &repository.environment().observer;
    for (name, error) in snapshots.refused.iter().filter(|(name, _)| name.starts_with("snapshots/")) {
        let id = name.rsplit('/').next().and_then(|id| id.parse::<SnapshotId>().ok());
        let Some(id) = id.filter(|id| !snapshots.ended().contains(id)) else { continue };
        let stop = |why: String| OpsError::Stopped {
            why,
            cure: "bring the object back from a copy of the repository, or say that it is not needed: forget it by its id",
        };
        match error {
            RepoError::Untrusted { .. } => {
                // Whoever made it held the metadata key: a writer that was revoked, say.
                if let Some(snapshot) = repository.peek_at_snapshot(name)? {
                    shadows.insert(id, snapshot.root);
                }
                observer.warn(&format!("{}; what it needs stays until it is forgotten", explain(error)));
            }
            RepoError::Damaged { .. }
                if repository.author_of(name, ObjectKind::Snapshot)? != Author::Unknown =>
            {
                observer.warn(&format!("{}: it never was a snapshot", explain(error)));
            }
            RepoError::TooNew(_) => return Err(stop(format!("{name} is of a newer program"))),
            error => return Err(stop(format!("{}, and what it needs is not known", explain(error)))),
        }
    }
    Ok(shadows)
}
