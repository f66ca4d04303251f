//! Reports of damage as this client finds them (`format-spec/damaged.md`).
//!
//! Who is believed decides what a stolen key can do: a report makes others store things again, so
//! a writer's counts only for writers of its own trust domain, and nobody's for more than its role lets
//! it see. No report deletes anything.

use super::error::RepoError;
use super::registry::Registry;
use super::repository::Repository;
use super::sealed::Author;
use crate::base::{BlobId, DamagedId, KeyId, ObjectId, PackId, explain, limits};
use crate::format::ObjectKind;
use crate::format::damaged::{Damaged, DamagedObject, Finding};
use crate::format::trust::{Act, Role, Standing};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A report whose form and signature hold, and whose signer may make some.
#[derive(Debug, Clone)]
pub struct FoundDamage {
    /// Its content.
    pub damaged: Damaged,
    /// Who signed it.
    pub signer: KeyId,
}

/// All reports that there are.
#[derive(Debug, Clone, Default)]
pub struct DamageListing {
    /// Those that can be read.
    pub found: BTreeMap<DamagedId, FoundDamage>,
    /// Ids of those that cannot, and why: what they name is not known.
    pub unreadable: BTreeMap<DamagedId, String>,
}

/// What cannot be had from a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoilt {
    /// All of it, or nobody knows what.
    Whole,
    /// These blobs.
    Blobs(HashSet<BlobId>),
}

/// Packs that reports name, with what cannot be had from them.
#[derive(Debug, Clone, Default)]
pub struct SpoiltPacks(HashMap<PackId, Spoilt>);

impl SpoiltPacks {
    /// Says whether a blob cannot be had from a pack.
    pub fn names(&self, pack: &PackId, blob: &BlobId) -> bool {
        match self.0.get(pack) {
            Some(Spoilt::Whole) => true,
            Some(Spoilt::Blobs(blobs)) => blobs.contains(blob),
            None => false,
        }
    }

    /// Says whether what an entry names is known already.
    pub fn covers(&self, entry: &DamagedObject) -> bool {
        match self.0.get(&PackId::from(entry.place.id())) {
            Some(Spoilt::Whole) => true,
            Some(Spoilt::Blobs(known)) => {
                !entry.blobs.is_empty() && entry.blobs.iter().all(|blob| known.contains(blob))
            }
            None => false,
        }
    }

    /// Returns the packs.
    pub fn packs(&self) -> impl Iterator<Item = &PackId> {
        self.0.keys()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, entry: &DamagedObject) {
        let spoilt =
            self.0.entry(PackId::from(entry.place.id())).or_insert_with(|| Spoilt::Blobs(HashSet::new()));
        match spoilt {
            Spoilt::Blobs(blobs) if !entry.blobs.is_empty() => blobs.extend(entry.blobs.iter()),
            _ => *spoilt = Spoilt::Whole,
        }
    }
}

/// Says whether a key can see such a thing at all ([DAMAGED-1]).
pub fn can_tell(role: Role, entry: &DamagedObject) -> bool {
    let reads_content = matches!(role, Role::Owner | Role::Reader);
    match (entry.finding, entry.place.kind()) {
        (Finding::Content, ObjectKind::ContentPack | ObjectKind::LogPack) => reads_content,
        _ => true,
    }
}

/// Says whether a report of `signer` counts for the client `own` ([DAMAGED-1]).
fn counts_for(registry: &Registry, own: &KeyId, signer: &KeyId) -> bool {
    let trust = registry.trust();
    match (trust.key(own), trust.key(signer)) {
        (Some(own), Some(signer)) if signer.role == Role::Writer => {
            own.role == Role::Writer && own.domain == signer.domain
        }
        (Some(_), Some(_)) => true,
        _ => false,
    }
}

/// Says whether a key may say of another's report that it no longer holds ([DAMAGED-3]).
pub const fn may_cancel(role: Role) -> bool {
    matches!(role, Role::Owner | Role::Maintainer | Role::Reader)
}

impl DamageListing {
    /// Returns the reports that were said to hold no longer, by somebody who may say so.
    pub fn cancelled(&self, registry: &Registry) -> BTreeSet<DamagedId> {
        let mut cancelled = BTreeSet::new();
        for canceller in self.found.values() {
            let role = registry.trust().key(&canceller.signer).map(|key| key.role);
            let counts = |id: &&DamagedId| {
                let own = self.found.get(*id).is_some_and(|found| found.signer == canceller.signer);
                own || role.is_some_and(may_cancel)
            };
            cancelled.extend(canceller.damaged.cancels.iter().filter(counts));
        }
        cancelled
    }

    /// Returns the entries that count for a client, each with its report.
    pub fn counting<'a>(
        &'a self,
        registry: &'a Registry,
        own: KeyId,
    ) -> impl Iterator<Item = (&'a DamagedId, &'a DamagedObject)> {
        let cancelled = self.cancelled(registry);
        self.found
            .iter()
            .filter(move |(id, found)| !cancelled.contains(id) && counts_for(registry, &own, &found.signer))
            .flat_map(move |(id, found)| {
                let role = registry.trust().key(&found.signer).map(|key| key.role);
                let entries = found.damaged.objects.iter();
                let told = entries.filter(move |entry| role.is_some_and(|role| can_tell(role, entry)));
                told.map(move |entry| (id, entry))
            })
    }

    /// Returns the packs that are reported to a client.
    pub fn spoilt(&self, registry: &Registry, own: KeyId) -> SpoiltPacks {
        let mut spoilt = SpoiltPacks::default();
        for (_, entry) in self.counting(registry, own) {
            if matches!(entry.place.kind(), ObjectKind::ContentPack | ObjectKind::MetadataPack) {
                spoilt.add(entry);
            }
        }
        spoilt
    }

    /// Returns the packs of which somebody who reads content says that blobs are not what their ids say.
    pub fn forged(&self, registry: &Registry) -> SpoiltPacks {
        let cancelled = self.cancelled(registry);
        let mut forged = SpoiltPacks::default();
        for (_, found) in self.found.iter().filter(|(id, _)| !cancelled.contains(id)) {
            let reads = registry.trust().key(&found.signer).is_some_and(|key| {
                matches!(key.role, Role::Owner | Role::Reader) && key.standing() != Standing::Revoked
            });
            let entries =
                found.damaged.objects.iter().filter(|entry| reads && entry.finding == Finding::Content);
            entries.for_each(|entry| forged.add(entry));
        }
        forged
    }

    /// Says whether a report has nothing to say any more: it was cancelled, or everything that it names is
    /// gone, and whatever it cancels ([DAMAGED-10]).
    pub fn is_over(
        &self,
        id: &DamagedId,
        cancelled: &BTreeSet<DamagedId>,
        is_there: impl Fn(&DamagedObject) -> bool,
    ) -> bool {
        let Some(found) = self.found.get(id) else { return false };
        // One that takes another back stays longer than that, or the other would count again.
        if found.damaged.cancels.iter().any(|other| self.found.contains_key(other)) {
            return false;
        }
        cancelled.contains(id) || !found.damaged.objects.iter().any(is_there)
    }
}

impl Repository {
    /// Lists and reads all reports of damage. One whose signer may not make any is none, nor is one
    /// that was rubbish when it was put; one that cannot be read is named in the result.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn damage_reports(&self) -> Result<DamageListing, RepoError> {
        let mut listing = DamageListing::default();
        for object in self.environment().store.list("damaged/")? {
            let Some(Ok(id)) = object.name.rsplit('/').next().map(str::parse::<ObjectId>) else { continue };
            // What was read wrong once may be read right the second time.
            let read = self.read_damage(&object.name, id).or_else(|error| match error {
                RepoError::Damaged { .. } => self.read_damage(&object.name, id),
                error => Err(error),
            });
            match read {
                Ok(found) => drop(listing.found.insert(id.into(), found)),
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                Err(error @ RepoError::Untrusted { .. }) => {
                    self.environment().observer.warn(&explain(&error));
                }
                Err(error @ RepoError::Storage(_)) => {
                    listing.unreadable.insert(id.into(), explain(&error));
                }
                // [CONCURRENCY-54]: what never was a report is none.
                Err(error) => {
                    let is_damaged = matches!(error, RepoError::Damaged { .. });
                    match self.author_of(&object.name, ObjectKind::Damaged)? {
                        Author::Unknown => drop(listing.unreadable.insert(id.into(), explain(&error))),
                        // Others can read it, and it may count for them.
                        Author::Key(signer)
                            if !is_damaged
                                && self
                                    .registry()
                                    .believe(&object.name, &signer, Act::Damaged, &id)
                                    .is_ok() =>
                        {
                            listing.unreadable.insert(id.into(), explain(&error));
                        }
                        _ => self.environment().observer.warn(&explain(&error)),
                    }
                }
            }
        }
        Ok(listing)
    }

    fn read_damage(&self, name: &str, id: ObjectId) -> Result<FoundDamage, RepoError> {
        let bytes = self.environment().store.get(name, limits::STRUCTURED_BYTES_MAX * 2)?;
        let (signer, payload) = self.open_object(name, id, ObjectKind::Damaged, &bytes)?;
        self.registry().believe(name, &signer, Act::Damaged, &id)?;
        let damaged = Damaged::decode(&payload).map_err(RepoError::damaged(name))?;
        Ok(FoundDamage { damaged, signer })
    }

    /// Reads which packs are reported as damaged: from here on nothing that cannot be had from them is
    /// adopted ([CONCURRENCY-16]).
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn find_spoilt_packs(&self) -> Result<(), RepoError> {
        let listing = self.damage_reports()?;
        for (id, why) in &listing.unreadable {
            self.environment().observer.warn(&format!(
                "the report of damage {} cannot be read, so what it warns of is not known: {why}",
                id.short()
            ));
        }
        self.bar_spoilt(listing.spoilt(self.registry(), self.keyring().identity.key));
        Ok(())
    }

    /// Puts a report of damage; durable on return.
    ///
    /// # Errors
    ///
    /// When this key is out of service, or the store fails.
    pub fn report_damage(&self, damaged: &Damaged) -> Result<DamagedId, RepoError> {
        let payload = damaged.encode().map_err(RepoError::damaged("the report being written"))?;
        self.put_object("damaged", ObjectKind::Damaged, Act::Damaged, &payload).map(DamagedId::from)
    }
}
