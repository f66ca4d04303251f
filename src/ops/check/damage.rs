//! What a check says to others of the packs that it found bad: reports of damage, and that earlier
//! ones no longer hold (`format-spec/damaged.md`).
//!
//! A report makes backups store again what a pack held, so only what was read twice and was wrong twice is
//! reported. What a listing shows to everybody (a pack that is gone or cut short) needs no report.

use crate::base::{BlobId, DamagedId, ObjectId, PackId};
use crate::format::ObjectKind;
use crate::format::cbor::Extra;
use crate::format::damaged::{Damaged, DamagedObject, Finding};
use crate::format::pack::BlobClass;
use crate::format::place::Place;
use crate::format::sets::IdSet;
use crate::format::trust::Role;
use crate::ops::OpsError;
use crate::repo::{
    DamageListing, FrameState, PackProblem, RepoError, Repository, ScannedPack, SpoiltPacks, can_tell,
    may_cancel,
};
use crate::storage::StorageError;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Blobs that one entry names at most; of more than these the whole pack is reported.
const ENTRY_BLOBS_MAX: usize = 50_000;
/// Blobs and packs that one report names at most, so that it stays within what an object may hold.
const REPORT_IDS_MAX: usize = 200_000;

/// What is known of reports before a check, and what it finds.
#[derive(Default)]
pub(super) struct Damage {
    listing: DamageListing,
    /// What counts for this key.
    pub known: SpoiltPacks,
    /// What this check found bad.
    found: BTreeMap<PackId, DamagedObject>,
    /// Packs of which all that is bad was reported before.
    pub known_bad: HashSet<PackId>,
    /// Packs whose bytes have their names as hashes, and whether all of their content was verified too.
    sound: HashMap<PackId, bool>,
}

/// What was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// Packs that were reported.
    pub reported: u64,
    /// Reports that were taken back.
    pub cancelled: u64,
}

fn place(class: BlobClass, pack: &PackId) -> Result<Place, RepoError> {
    let kind = match class {
        BlobClass::Content => ObjectKind::ContentPack,
        BlobClass::Metadata => ObjectKind::MetadataPack,
    };
    Place::new(kind, "", ObjectId::from(*pack)).map_err(RepoError::damaged("a report of damage"))
}

/// What is to be said of a pack that was read whole; `None` where nothing is.
pub(super) fn of_scan(scanned: &ScannedPack, length: u64) -> Result<Option<DamagedObject>, RepoError> {
    let renamed = scanned.problems.contains(&PackProblem::Name);
    let (mut broken, mut closed) = (Vec::new(), false);
    for (frame, state) in &scanned.frames {
        let is_broken = match state {
            FrameState::Good => false,
            FrameState::Bad(_) => true,
            // Where the bytes are others than they were, this may be one of them.
            FrameState::Baseless(_) => renamed,
            FrameState::Closed => {
                closed = true;
                false
            }
        };
        if is_broken {
            broken.extend(frame.blobs.iter().map(|(id, _)| *id));
        }
    }
    let finding = match scanned.problems.as_slice() {
        _ if renamed => Finding::Hash,
        [PackProblem::Signature] => Finding::Signature,
        [] if broken.is_empty() => return Ok(None),
        [] => Finding::Content,
        _ => Finding::Undecodable,
    };
    let all = match finding {
        Finding::Hash => closed,
        Finding::Content => false,
        _ => true,
    };
    let blobs = if all { Vec::new() } else { broken };
    entry(scanned.pack.class, &scanned.pack.id, finding, blobs, Some(length)).map(Some)
}

/// What is to be said of a pack that does not even tell what it holds; `None` where that may be nobody's
/// fault.
pub(super) fn of_error(
    class: BlobClass,
    pack: &PackId,
    error: &RepoError,
) -> Result<Option<DamagedObject>, RepoError> {
    let finding = match error {
        RepoError::Damaged { .. } => Finding::Undecodable,
        RepoError::Storage(StorageError::Fatal { .. }) => Finding::Unreadable,
        _ => return Ok(None),
    };
    entry(class, pack, finding, Vec::new(), None).map(Some)
}

/// Makes an entry; no blobs means all of them.
pub(super) fn entry(
    class: BlobClass,
    pack: &PackId,
    finding: Finding,
    blobs: Vec<BlobId>,
    found_bytes: Option<u64>,
) -> Result<DamagedObject, RepoError> {
    let blobs = if blobs.len() > ENTRY_BLOBS_MAX { Vec::new() } else { blobs };
    Ok(DamagedObject {
        place: place(class, pack)?,
        finding,
        blobs: blobs.into_iter().collect(),
        expected_bytes: None,
        found_bytes,
        detail: None,
        extra: Extra::new(),
    })
}

/// Adds what another entry says of the same pack: the blobs of one do not make those of another good.
fn unite(before: &mut DamagedObject, entry: &DamagedObject) {
    before.blobs = match before.blobs.is_empty() || entry.blobs.is_empty() {
        true => IdSet::default(),
        false => before.blobs.iter().chain(entry.blobs.iter()).copied().collect(),
    };
}

impl Damage {
    /// Reads the reports that there are.
    pub fn load(repository: &Repository) -> Result<Self, OpsError> {
        let listing = repository.damage_reports()?;
        let known = listing.spoilt(repository.registry(), repository.keyring().identity.key);
        Ok(Self { listing, known, ..Self::default() })
    }

    /// Notes that something is wrong with a pack; says whether that was reported before.
    pub fn add(&mut self, entry: DamagedObject) -> bool {
        let known = self.known.covers(&entry);
        let pack = PackId::from(entry.place.id());
        if known {
            self.known_bad.insert(pack);
        }
        match self.found.get_mut(&pack) {
            Some(before) => unite(before, &entry),
            None => drop(self.found.insert(pack, entry)),
        }
        known
    }

    /// Notes that the bytes of a pack have its name as their hash.
    pub fn is_sound(&mut self, pack: PackId, verified: bool) {
        self.sound.insert(pack, verified);
    }

    /// Puts what is new, and takes back what no longer holds.
    ///
    /// # Errors
    ///
    /// When this key is out of service, or the store fails.
    pub fn publish(
        self,
        repository: &Repository,
        method: &str,
        program: &str,
    ) -> Result<Published, RepoError> {
        let (registry, own) = (repository.registry(), repository.keyring().identity.key);
        let role = repository.keyring().identity.role;
        let over = |entry: &DamagedObject| {
            use Finding::{Hash, Length, Missing, Unreadable};
            let pack = PackId::from(entry.place.id());
            let of_bytes = matches!(entry.finding, Missing | Length | Hash | Unreadable);
            let sound = self.sound.get(&pack).is_some_and(|verified| *verified || of_bytes);
            sound && !self.found.contains_key(&pack)
        };
        let mut cancels = BTreeSet::new();
        let mut again: Vec<DamagedObject> = Vec::new();
        let cancelled = self.listing.cancelled(registry);
        for (id, found) in &self.listing.found {
            let may = found.signer == own || may_cancel(role);
            if cancelled.contains(id) || !may || !found.damaged.objects.iter().any(over) {
                continue;
            }
            // What else the report says still holds, and has to count for as much when this key says it: it
            // stays where it is if this key is believed less, or its signer is.
            let rest = || found.damaged.objects.iter().filter(|entry| !over(entry));
            let signer = registry.trust().key(&found.signer).map(|key| key.role);
            let as_good = |signer: Role| {
                signer != Role::Writer && rest().all(|entry| can_tell(signer, entry) && can_tell(role, entry))
            };
            if found.signer != own && rest().next().is_some() && !signer.is_some_and(as_good) {
                continue;
            }
            cancels.insert(*id);
            again.extend(rest().filter(|entry| can_tell(role, entry)).cloned());
        }
        // What others will know once those are taken back.
        let mut left = self.listing.clone();
        left.found.retain(|id, _| !cancels.contains(id));
        let known = left.spoilt(registry, own);
        let mut entries: BTreeMap<(ObjectKind, ObjectId), DamagedObject> = BTreeMap::new();
        for entry in self.found.into_values().filter(|entry| !known.covers(entry)).chain(again) {
            match entries.entry((entry.place.kind(), entry.place.id())) {
                Entry::Vacant(vacant) => drop(vacant.insert(entry)),
                Entry::Occupied(mut before) => unite(before.get_mut(), &entry),
            }
        }
        let published = Published { reported: entries.len() as u64, cancelled: cancels.len() as u64 };
        let mut cancels: Vec<DamagedId> = cancels.into_iter().collect();
        let mut entries = entries.into_values().peekable();
        // First what is bad, so that nothing that still holds is unsaid in between.
        while entries.peek().is_some() {
            let (mut objects, mut ids) = (Vec::new(), 0);
            while let Some(entry) =
                entries.next_if(|entry| objects.is_empty() || ids + entry.blobs.len() < REPORT_IDS_MAX)
            {
                ids += entry.blobs.len() + 1;
                objects.push(entry);
            }
            let last = entries.peek().is_none();
            let cancels = if last { std::mem::take(&mut cancels) } else { Vec::new() };
            put(repository, objects, cancels, method, program)?;
        }
        if !cancels.is_empty() {
            put(repository, Vec::new(), cancels, method, program)?;
        }
        Ok(published)
    }

    /// Returns packs that are reported and ought to be looked at again.
    pub fn reported(&self) -> HashSet<PackId> {
        let entries = self.listing.found.values().flat_map(|found| &found.damaged.objects);
        entries.map(|entry| PackId::from(entry.place.id())).collect()
    }
}

fn put(
    repository: &Repository,
    objects: Vec<DamagedObject>,
    cancels: Vec<DamagedId>,
    method: &str,
    program: &str,
) -> Result<(), RepoError> {
    let damaged = Damaged {
        created: repository.environment().clock.now(),
        objects,
        method: method.to_owned(),
        program: program.to_owned(),
        cancels: cancels.into_iter().collect(),
        extra: Extra::new(),
    };
    repository.report_damage(&damaged).map(drop)
}
