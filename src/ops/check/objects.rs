//! Every object but the packs: is it there, in both copies where there are two, is it what its name
//! says, does its signature hold.

use super::report::{Findings, Gravity};
use crate::base::{AnnotationId, IndexId, ObjectId, PackId, SlotId, SnapshotId, explain, limits};
use crate::format::annotation::AnnotationKind;
use crate::format::config::Config;
use crate::format::envelope::Envelope;
use crate::format::kind::ObjectKind;
use crate::format::snapshot::Snapshot;
use crate::format::trust::{Act, Trust};
use crate::ops::forget::{lost_version, vanished};
use crate::ops::{OpsError, Snapshots};
use crate::repo::{
    FoundAnnotation, FoundSnapshot, Memory, RepoError, Repository, Told, check_slot, pack_name,
};
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The store's objects, sorted into what they should be.
#[derive(Default)]
pub(super) struct Inventory {
    pub packs: BTreeMap<PackId, u64>,
    runs: Vec<(IndexId, String)>,
    trust: BTreeSet<ObjectId>,
    slots: BTreeSet<ObjectId>,
    /// Objects in an envelope that need no second copy.
    others: Vec<(ObjectKind, ObjectId, String)>,
    /// Ids of snapshots and annotations.
    pub roots: HashSet<ObjectId>,
    /// The newest generation in which an annotation lies: snapshots that are brought back may lie in later ones.
    generation: u32,
    /// Objects of which only the name can be checked here.
    named: Vec<(ObjectId, String)>,
    /// What has parity and is not there, as far as it is a snapshot or an annotation.
    pub deserted: BTreeMap<ObjectId, ObjectKind>,
    /// Hashes of the names of all of them.
    names: HashSet<u64>,
}

fn hash_of(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The parts of a name that ends in an id.
fn split(name: &str) -> Option<(&str, ObjectId)> {
    let (folder, id) = name.rsplit_once('/')?;
    Some((folder, id.parse().ok()?))
}

fn is_generation(text: &str) -> bool {
    text.len() == 8 && text != "00000000" && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Inventory {
    /// Sorts the store's objects; what does not belong there is told.
    pub fn take(objects: Vec<ObjectInfo>, findings: &Findings) -> Self {
        let mut inventory = Self::default();
        for object in objects {
            inventory.names.insert(hash_of(&object.name));
            if matches!(object.name.as_str(), "chronolith" | "copies/chronolith") {
                continue;
            }
            let subject = object.name.strip_prefix("parity/").and_then(|rest| rest.split('/').next());
            if let Some(Ok(subject)) = subject.map(str::parse) {
                findings.cover(subject);
            }
            let known = split(&object.name)
                .is_some_and(|(folder, id)| inventory.sort(folder, id, &object.name, object.length));
            if !known {
                findings.add(Gravity::Note, object.name, "it is no part of the repository");
            }
        }
        inventory
    }

    /// Says whether an object that was there is not in a later listing.
    pub fn has_lost_any(&self, later: &[ObjectInfo]) -> bool {
        let later: HashSet<u64> = later.iter().map(|object| hash_of(&object.name)).collect();
        !self.names.is_subset(&later)
    }

    fn sort(&mut self, folder: &str, id: ObjectId, name: &str, length: u64) -> bool {
        let (area, rest) = folder.split_once('/').unwrap_or((folder, ""));
        let kind = match (area, rest) {
            ("trust", "") | ("copies", "trust") => {
                self.trust.insert(id);
                return true;
            }
            ("keys", "") | ("copies", "keys") => {
                self.slots.insert(id);
                return true;
            }
            ("packs", shard) => {
                let id = PackId::from(id);
                let belongs = name == pack_name(&id) && !shard.is_empty();
                if belongs {
                    self.packs.insert(id, length);
                }
                return belongs;
            }
            ("index", generation) if is_generation(generation) => {
                self.runs.push((id.into(), name.to_owned()));
                return true;
            }
            // Both are listed, opened and told of by who reads them.
            ("snapshots" | "annotations", generation) if is_generation(generation) => {
                self.roots.insert(id);
                if area == "annotations" {
                    self.generation = self.generation.max(u32::from_str_radix(rest, 16).unwrap_or(0));
                }
                return true;
            }
            ("sessions", "") => ObjectKind::Session,
            ("condemned", "") => ObjectKind::Condemned,
            ("damaged", "") => ObjectKind::Damaged,
            ("catalog", "") | ("copies", "catalog") => ObjectKind::Catalog,
            // Looked at by who reads logs.
            ("logs", rest) if !rest.is_empty() => return true,
            ("parity", rest) if !rest.is_empty() => {
                self.named.push((id, name.to_owned()));
                return true;
            }
            _ => return false,
        };
        self.others.push((kind, id, name.to_owned()));
        true
    }
}

/// Lists snapshots by their names.
///
/// # Errors
///
/// When the store cannot be listed.
pub(super) fn listed_snapshots(repository: &Repository) -> Result<HashSet<SnapshotId>, OpsError> {
    let listed = repository.environment().store.list("snapshots/")?;
    Ok(listed.iter().filter_map(|object| split(&object.name)).map(|(_, id)| id.into()).collect())
}

/// Takes a copy of the configuration, if an owner has signed it.
///
/// # Errors
///
/// When it is damaged, or its signature does not hold.
pub(super) fn read_configuration(
    repository: &Repository,
    name: &str,
    bytes: &[u8],
) -> Result<Config, RepoError> {
    let parsed = Config::parse(bytes).map_err(RepoError::damaged(name))?;
    let (kind, signer) = (ObjectKind::Configuration.number(), &parsed.config.signer);
    let act = Act::Configuration;
    repository.verify_signature(name, act, kind, signer, parsed.signed, &parsed.signature)?;
    Ok(parsed.config)
}

/// Checks objects one by one.
pub(super) struct Objects<'a> {
    pub repository: &'a Arc<Repository>,
    pub findings: &'a Findings,
    pub count: u64,
    /// Objects that this key may not open.
    pub closed: u64,
    /// Snapshots that are there and that somebody said to be forgotten, whether that counts or not.
    pub perhaps_forgotten: HashSet<SnapshotId>,
    /// How often a copy that is missing is still looked for.
    pub patience: u32,
}

/// How often copies that are missing are looked for again, in one check.
pub(super) const PATIENCE: u32 = 4;
/// Of these, how often one copy is.
const LOOKS: u32 = 2;
/// What lies between two looks.
const PAUSE: Duration = Duration::from_millis(200);

fn is_missing<T>(answer: &Result<T, StorageError>) -> bool {
    matches!(answer, Err(StorageError::NotFound { .. }))
}

impl Objects<'_> {
    /// Reads an object; what cannot be read is told and `None`.
    fn get(&mut self, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, OpsError> {
        let read = self.repository.environment().store.get(name, limit_bytes);
        self.told(name, read)
    }

    fn told(&mut self, name: &str, read: Result<Vec<u8>, StorageError>) -> Result<Option<Vec<u8>>, OpsError> {
        self.count += 1;
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StorageError::NotFound { .. }) => {
                self.findings.add(Gravity::Damage, name, "it is missing");
                Ok(None)
            }
            Err(error @ (StorageError::Truncated { .. } | StorageError::TooLarge { .. })) => {
                self.findings.add(Gravity::Damage, name, explain(&error));
                Ok(None)
            }
            Err(error @ StorageError::Transient { .. }) => Err(error.into()),
            // One object that the disk does not give back must not hide what is wrong with others.
            Err(error) => {
                self.findings.add(Gravity::Damage, name, explain(&error));
                Ok(None)
            }
        }
    }

    fn tell(&mut self, name: &str, error: &RepoError) {
        match error {
            RepoError::Forbidden { .. } => self.closed += 1,
            RepoError::Untrusted { why, .. } => {
                self.findings.add(Gravity::Warning, name, format!("it does not count: {why}"));
            }
            other => self.findings.add(Gravity::Damage, name, explain(other)),
        }
    }

    /// Checks all but packs and roots.
    pub fn check(&mut self, inventory: &mut Inventory) -> Result<(), OpsError> {
        self.configurations()?;
        for id in &inventory.trust {
            self.twice(&format!("trust/{id}"), limits::STRUCTURED_BYTES_MAX, |_, bytes| {
                let parsed = Envelope::parse(bytes)?;
                Trust::decode(parsed.payload).map(drop)
            })?;
        }
        for id in &inventory.slots {
            self.slot(id)?;
        }
        for (id, name) in &inventory.runs {
            self.stop()?;
            if let Some(bytes) = self.get(name, limits::INDEX_RUN_BYTES_MAX)?
                && let Err(error) = self.repository.open_run(id, &bytes)
            {
                self.tell(name, &error);
            }
        }
        for (kind, id, name) in &inventory.others {
            self.stop()?;
            if let Some(bytes) = self.get(name, limits::LISTING_BYTES_MAX * 2)?
                && let Err(error) = self.repository.open_object(name, *id, *kind, &bytes)
            {
                self.tell(name, &error);
            }
        }
        for (id, name) in &inventory.named {
            self.stop()?;
            if let Some(bytes) = self.get(name, 2 * limits::PACK_BYTES_MAX)? {
                self.is_named_right(name, id, &bytes);
                let is_root = |kind| matches!(kind, ObjectKind::Snapshot | ObjectKind::Annotation);
                let outline = Repository::parity_outline(&bytes).filter(|outline| is_root(outline.kind));
                let outline = outline.filter(|outline| !inventory.roots.contains(&outline.subject));
                inventory.deserted.extend(outline.map(|outline| (outline.subject, outline.kind)));
            }
        }
        for object in self.repository.environment().store.unfinished()? {
            let what = "a writer has not finished it; once it is a day old, the next backup removes it";
            self.findings.add(Gravity::Note, object.name, what);
        }
        Ok(())
    }

    fn stop(&self) -> Result<(), OpsError> {
        match self.repository.environment().observer.interrupted() {
            true => Err(RepoError::Interrupted.into()),
            false => Ok(()),
        }
    }

    fn is_named_right(&self, name: &str, id: &ObjectId, bytes: &[u8]) -> bool {
        let right = blake3::hash(bytes) == *id.as_bytes();
        if !right {
            self.findings.add(Gravity::Damage, name, "its bytes are not the ones it was named for");
        }
        right
    }

    fn configurations(&mut self) -> Result<(), OpsError> {
        for name in ["chronolith", "copies/chronolith"] {
            let Some(bytes) = self.get(name, limits::CONFIG_BYTES_MAX)? else { continue };
            let checked = read_configuration(self.repository, name, &bytes);
            let own = self.repository.config();
            match checked {
                Ok(config) if config.repository != own.repository => {
                    self.findings.add(Gravity::Damage, name, "it is another repository's");
                }
                Ok(config) if config.revision < own.revision => {
                    let (found, newest) = (config.revision, own.revision);
                    let what = format!("it is revision {found}, an old one: there is {newest}");
                    self.findings.add(Gravity::Damage, name, what);
                }
                Ok(_) => {}
                // Neither form can be told from damage: nobody else writes here.
                Err(error) => self.findings.add(Gravity::Damage, name, explain(&error)),
            }
        }
        Ok(())
    }

    /// Waits a moment for one of two copies that is missing, and says whether it came. Whoever puts both may be between
    /// the two.
    fn await_copy(&mut self, name: &str) -> Result<bool, OpsError> {
        let looks = LOOKS.min(self.patience);
        self.patience -= looks;
        for _ in 0..looks {
            self.stop()?;
            std::thread::sleep(PAUSE);
            // Whatever else is wrong with it, reading it tells.
            if !is_missing(&self.repository.environment().store.head(name)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks both copies of an object.
    fn twice(
        &mut self,
        name: &str,
        limit_bytes: u64,
        check: impl Fn(&str, &[u8]) -> Result<(), crate::format::FormatError>,
    ) -> Result<(), OpsError> {
        self.stop()?;
        let Some((_, id)) = split(name) else { return Ok(()) };
        for name in [name.to_owned(), format!("copies/{name}")] {
            let store = &self.repository.environment().store;
            let mut read = store.get(&name, limit_bytes);
            if is_missing(&read) && self.await_copy(&name)? {
                read = store.get(&name, limit_bytes);
            }
            if let Some(bytes) = self.told(&name, read)?
                && self.is_named_right(&name, &id, &bytes)
                && let Err(error) = check(&name, &bytes)
            {
                self.tell(&name, &RepoError::damaged(name.as_str())(error));
            }
        }
        Ok(())
    }

    fn slot(&mut self, id: &ObjectId) -> Result<(), OpsError> {
        self.stop()?;
        let (mut missing, mut counts) = (Vec::new(), true);
        for name in [format!("keys/{id}"), format!("copies/keys/{id}")] {
            let head = self.repository.environment().store.head(&name);
            if is_missing(&head) && !self.await_copy(&name)? {
                self.count += 1;
                missing.push(name);
                continue;
            }
            let Some(bytes) = self.get(&name, limits::SLOT_BYTES_MAX * 2)? else { continue };
            if !self.is_named_right(&name, id, &bytes) {
                continue;
            }
            let id = SlotId::from(*id);
            if let Err(error) = check_slot(self.repository.id(), self.repository.registry(), id, &bytes) {
                counts &= !matches!(error, RepoError::Untrusted { .. });
                self.tell(&name, &error);
            }
        }
        // What `key add` put before it broke off is no slot yet, and nothing of one is missing.
        let gravity = if counts { Gravity::Damage } else { Gravity::Note };
        missing.into_iter().for_each(|name| self.findings.add(gravity, name, "it is missing"));
        Ok(())
    }

    /// Reads snapshots and annotations, tells which do not count, and returns the snapshots.
    pub fn roots(&mut self) -> Result<Vec<FoundSnapshot>, OpsError> {
        let snapshots = self.repository.snapshots()?;
        let known: BTreeMap<SnapshotId, &Snapshot> =
            snapshots.found.iter().map(|found| (found.id, &found.snapshot)).collect();
        self.count += (snapshots.found.len() + snapshots.refused.len()) as u64;
        for (name, error) in &snapshots.refused {
            self.tell(name, error);
        }
        let made = snapshots.found.iter().map(|found| (&found.snapshot, &found.signer));
        if let Some((id, sequence)) = lost_version(self.repository.registry(), made) {
            let what = format!(
                "snapshots were made under it, version {sequence} of the registry of trust, and it is gone: what needs \
                 its keys and epochs cannot be read"
            );
            self.findings.add(Gravity::Damage, format!("trust/{id}"), what);
        }
        let mut absent: Vec<(AnnotationId, SnapshotId)> = Vec::new();
        let mut forgotten: HashSet<SnapshotId> = HashSet::new();
        let (mut count, mut perhaps) = (0, HashSet::new());
        let refused = self.repository.visit_annotations(|found| {
            count += 1;
            if found.annotation.kind == AnnotationKind::Forgotten {
                perhaps.extend(found.annotation.subjects.iter().filter(|id| known.contains_key(id)));
            }
            let is_believed = self.is_believed(&found, &known);
            let subjects = found.annotation.subjects.iter().filter(|subject| !known.contains_key(subject));
            if is_believed && found.annotation.kind == AnnotationKind::Forgotten {
                forgotten.extend(subjects);
            } else {
                absent.extend(subjects.map(|subject| (found.id, *subject)));
            }
        })?;
        self.count += count + refused.len() as u64;
        self.perhaps_forgotten = perhaps;
        for (id, subject) in absent.into_iter().filter(|(_, subject)| !forgotten.contains(subject)) {
            let what = format!("it speaks of snapshot {}, which is not here", subject.short());
            self.findings.add(Gravity::Note, format!("annotation {id}"), what);
        }
        for (name, error) in &refused {
            self.tell(name, error);
        }
        Ok(snapshots.found)
    }

    /// Leaves out snapshots whose end is recorded and that are there again: nobody misses what they need.
    pub fn leave_out_ended(
        &self,
        memory: &Memory,
        snapshots: &mut Vec<FoundSnapshot>,
    ) -> Result<(), OpsError> {
        let is_told = |found: &FoundSnapshot| matches!(memory.told(&found.id.into()), Some(Told::Ended(_)));
        if !snapshots.iter().any(is_told) {
            return Ok(());
        }
        let all = Snapshots::load_all(self.repository)?;
        snapshots.retain(|found| {
            let has_ended = is_told(found) && all.get(&found.id).is_some_and(|view| view.forgotten);
            if has_ended {
                let what = "it was deleted, and is there again: the next prune deletes it once more";
                self.findings.add(Gravity::Note, format!("snapshot {}", found.id), what);
            }
            !has_ended
        });
        Ok(())
    }

    /// Tells of catalogues that are gone, and of roots that they list and nobody has ended ([CONCURRENCY-45]).
    pub fn memory(&mut self, memory: &Memory, inventory: &Inventory) -> Result<(), OpsError> {
        for (whole, missing) in memory.alone() {
            if !self.await_copy(missing)? {
                self.findings.add(Gravity::Damage, missing, format!("it is missing; {whole} is whole"));
            }
        }
        for id in memory.untold() {
            let what = "other catalogues name it, and it is gone or does not count: what it remembered of \
                        snapshots that are gone is lost; the next `forget` or `prune` makes a new one";
            self.findings.add(Gravity::Damage, format!("catalog/{id}"), what);
        }
        if let Some(before) = memory.before() {
            for id in &before.gone {
                let what =
                    "this client has seen it, and it is gone from both places, with whatever was newer";
                self.findings.add(Gravity::Damage, format!("catalog/{id}"), what);
            }
            let snapshots = Snapshots::load_all(self.repository)?;
            for name in before.memory.vanished(snapshots.present(), |id| snapshots.ended().contains(id)) {
                let what = "a catalogue that is gone too listed it, and nobody has forgotten it";
                self.findings.add(Gravity::Damage, name, what);
            }
        }
        if memory.is_whole() && inventory.generation > memory.generation() {
            let what = format!(
                "a catalogue is gone: objects lie in generation {}, and none closes the one before it; what it \
                 remembered of snapshots that are gone is lost; `forget` and `prune` make a new one once enough has \
                 gathered",
                inventory.generation
            );
            self.findings.add(Gravity::Damage, "catalog/", what);
        }
        // Listed before the catalogues were: what is new in these is looked for again.
        if memory.vanished(&inventory.roots, |_| false).is_empty() {
            return Ok(());
        }
        let snapshots = Snapshots::load_all(self.repository)?;
        if !snapshots.memory().unread().is_empty() {
            return Ok(());
        }
        for name in vanished(self.repository, &snapshots)? {
            let what = "a catalogue lists it, and it is gone though nobody has forgotten it; \
                        `chronolith repair snapshots` puts it back";
            self.findings.add(Gravity::Damage, name, what);
        }
        Ok(())
    }

    /// Says whether an annotation's signer may say such a thing ([ANNOTATION-2]), and tells of one that may not.
    fn is_believed(&self, found: &FoundAnnotation, known: &BTreeMap<SnapshotId, &Snapshot>) -> bool {
        use AnnotationKind::{Attested, Forgotten, Note, Pin, Tag, Undeleted, Unpin, Untag, Verified};
        let subjects = found.annotation.subjects.iter().filter_map(|subject| known.get(subject));
        let acts: Vec<Act<'_>> = match found.annotation.kind {
            // Where only a tag is named, its own subjects say who may take it off.
            Tag | Untag | Pin | Note => {
                subjects.map(|snapshot| Act::Mark { host: &snapshot.host, label: &snapshot.label }).collect()
            }
            Unpin | Forgotten | Undeleted => vec![Act::Withdraw],
            Verified => vec![Act::Verified],
            Attested => vec![Act::Attested],
        };
        let name = format!("annotation {}", found.id);
        let registry = self.repository.registry();
        let believed = acts
            .into_iter()
            .try_for_each(|act| registry.believe(&name, &found.signer, act, &found.id.into()));
        if let Err(RepoError::Untrusted { why, .. }) = believed {
            self.findings.add(Gravity::Warning, name, format!("it does not count: {why}"));
            return false;
        }
        true
    }
}
