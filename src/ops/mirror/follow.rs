//! What only the mirror has: deleted at the source by its sweep, or lost there.
//!
//! The difference is everything. An object that the source lost must stay at the mirror, and so must everything else
//! until somebody has looked. So nothing is deleted unless the source, read with a key, is whole: its structure
//! is checked, and each root that is gone must have been ended on record ([CONCURRENCY-45]).

use super::copying::{good, put_right};
use super::{MirrorReport, is_root};
use crate::base::{LogPackId, PackId, SnapshotId, limits};
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::catalog::Catalog;
use crate::format::condemned::Condemned;
use crate::format::place::MERGED_FOLDER;
use crate::format::trust::Act;
use crate::format::{FormatError, ObjectKind};
use crate::ops::check::{CheckOptions, Gravity, ReadData, check};
use crate::ops::forget::require_whole_memory;
use crate::ops::merged_logs::{Held, Holders};
use crate::ops::{OpsError, Snapshots};
use crate::repo::{CondemnedListing, RepoError, Repository, is_about_snapshots};
use crate::storage::{ObjectInfo, StorageError, Store};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Names that a refusal lists.
const SHOWN_MAX: usize = 5;
/// Longest condemnation as stored.
const CONDEMNED_BYTES_MAX: u64 = 2 * limits::LISTING_BYTES_MAX;

/// What was deleted at the mirror, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Followed {
    /// Objects.
    pub deleted: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Objects of kinds that this program does not know; they stay.
    pub unknown: u64,
}

/// What an object that only the target has says about the source.
#[derive(PartialEq, Eq)]
enum Gone {
    /// It was deleted there on purpose.
    Deleted,
    /// It was lost there.
    Lost,
    /// Nothing: it was made at the target, by a check of it.
    Own,
}

/// What is on record about what is gone.
struct Records<'a> {
    repository: &'a Arc<Repository>,
    target: &'a dyn Store,
    snapshots: Snapshots,
    /// Names of objects that condemnations list, at either place.
    condemned: HashSet<String>,
    condemned_packs: HashSet<PackId>,
    named_packs: HashSet<PackId>,
    /// Merged log packs of the source by the folder of their stream, as far as they were asked for.
    merges: HashMap<String, Holders<'a>>,
}

impl<'a> Records<'a> {
    fn load(repository: &'a Arc<Repository>, target: &'a dyn Store) -> Result<Self, OpsError> {
        // Whoever deletes looks at no less ([CONCURRENCY-44]).
        let snapshots = Snapshots::load_all(repository)?;
        repository.load_index()?;
        let mut records = Self {
            repository,
            target,
            snapshots,
            condemned: HashSet::new(),
            condemned_packs: HashSet::new(),
            named_packs: repository.index().packs().into_keys().collect(),
            merges: HashMap::new(),
        };
        for found in repository.condemned(&CondemnedListing::default())?.found.values() {
            records.add(&found.condemned);
        }
        // Tombstones that the source has let go already.
        for object in target.list("condemned/")? {
            let Some(id) = super::id_of(&object.name) else { continue };
            let bytes = match target.get(&object.name, CONDEMNED_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
                Err(_) => continue,
            };
            let opened = repository.open_object(&object.name, id, ObjectKind::Condemned, &bytes);
            let believed = opened.and_then(|(signer, payload)| {
                repository.registry().believe(&object.name, &signer, Act::Condemned, &id)?;
                Condemned::decode(&payload).map_err(RepoError::damaged(object.name.as_str()))
            });
            // One that cannot be read explains nothing.
            if let Ok(condemned) = believed {
                records.add(&condemned);
            }
        }
        Ok(records)
    }

    fn add(&mut self, condemned: &Condemned) {
        self.condemned.extend(condemned.objects.iter().map(|object| object.place.to_string()));
        for packs in [&condemned.dead, &condemned.superfluous, &condemned.tombstones] {
            self.condemned_packs.extend(packs.iter().copied());
        }
    }

    /// Says what became of an object that the source does not have.
    ///
    /// # Errors
    ///
    /// When a store does not answer.
    fn fate(&mut self, object: &ObjectInfo) -> Result<Gone, OpsError> {
        let name = object.name.as_str();
        let Some(id) = super::id_of(name) else { return Ok(Gone::Lost) };
        // Of what is there twice a condemnation lists the first.
        let first = name.strip_prefix("copies/").unwrap_or(name);
        let deleted = match first.split('/').next().unwrap_or_default() {
            "snapshots" => {
                self.condemned.contains(name) || self.snapshots.ended().contains(&SnapshotId::from(id))
            }
            // The condemnation may have gone before the mirror saw it: what is left on record tells then.
            "annotations" if !self.condemned.contains(name) => return self.fate_of_annotation(name),
            "annotations" => true,
            "catalog" => self.condemned.contains(first) || self.is_replaced(name)?,
            "logs" => {
                self.condemned.contains(first)
                    || self.snapshots.forgotten_logs().names(&LogPackId::from(id))
                    || self.is_merged(object, LogPackId::from(id))?
            }
            "packs" => {
                let pack = PackId::from(id);
                self.condemned_packs.contains(&pack) || !self.named_packs.contains(&pack)
            }
            // Who removes a slot removes both copies of it.
            "keys" => {
                let twin = if first == name { format!("copies/{name}") } else { first.to_owned() };
                !is_there(self.repository.environment().store.as_ref(), &twin)?
            }
            "trust" => false,
            _ => true,
        };
        Ok(if deleted { Gone::Deleted } else { Gone::Lost })
    }

    /// Says whether merged log packs of the source hold what a log pack of the target holds.
    fn is_merged(&mut self, object: &ObjectInfo, id: LogPackId) -> Result<bool, OpsError> {
        let (names, hashes) = match self.repository.log_records_in(self.target, object) {
            Ok(records) => records,
            Err(RepoError::Storage(error @ StorageError::Transient { .. })) => return Err(error.into()),
            // Whatever it holds, nothing shows that it is there once more.
            Err(_) => return Ok(false),
        };
        let mut folders = object.name.splitn(3, '/');
        let (area, stream) = (folders.next().unwrap_or_default(), folders.next().unwrap_or_default());
        let folder = format!("{area}/{stream}");
        let is_merged = object.name.starts_with(&format!("{folder}/{MERGED_FOLDER}/"));
        let holders = match self.merges.entry(folder) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let found = self.repository.merged_logs_in(new.key())?.found;
                new.insert(Holders::new(self.repository, found))
            }
        };
        let names = names.each_ref().map(String::as_str);
        let held = Held { id, names: &names, is_merged };
        Ok(!holders.holding(&held, || Ok(hashes))?.is_empty())
    }

    /// Returns what an object of the target says; nothing of one that cannot be read.
    fn read_target<T>(
        &self,
        name: &str,
        kind: ObjectKind,
        decode: fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>, OpsError> {
        let Some(id) = super::id_of(name) else { return Ok(None) };
        let bytes = match self.target.get(name, 2 * limits::LISTING_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        let opened = self.repository.open_object(name, id, kind, &bytes);
        Ok(opened.ok().and_then(|(_, payload)| decode(&payload).ok()))
    }

    /// Says what became of an annotation that no condemnation lists.
    fn fate_of_annotation(&self, name: &str) -> Result<Gone, OpsError> {
        let Some(annotation) = self.read_target(name, ObjectKind::Annotation, Annotation::decode)? else {
            return Ok(Gone::Lost);
        };
        // An entry of the ledger of what was verified protects nothing, and a check of the mirror makes such.
        if matches!(annotation.kind, AnnotationKind::Verified | AnnotationKind::Attested) {
            return Ok(Gone::Own);
        }
        // [CATALOG-8]: once nothing is left that it speaks of it goes.
        let over = |id: &SnapshotId| self.snapshots.ended().contains(id);
        let is_spent = match annotation.cancels {
            _ if is_about_snapshots(&annotation) => annotation.subjects.iter().all(over),
            // Should that have been lost, it is told by itself.
            Some(cancels) => self.snapshots.annotations().iter().all(|(id, _)| *id != cancels),
            None => false,
        };
        Ok(if is_spent { Gone::Deleted } else { Gone::Lost })
    }

    /// Says whether catalogues of the source tell of all that an older one of the target lists, so that they have taken
    /// its place.
    fn is_replaced(&self, name: &str) -> Result<bool, OpsError> {
        let memory = self.snapshots.memory();
        let newest = memory.newest().map_or(0, |(_, sequence)| sequence);
        let old = self.read_target(name, ObjectKind::Catalog, Catalog::decode)?;
        let Some(old) = old.filter(|old| old.sequence < newest && memory.is_whole()) else {
            return Ok(false);
        };
        let entries = old.entries.iter().filter(|entry| entry.place.kind() != ObjectKind::Annotation);
        Ok(entries.map(|entry| entry.place.id()).all(|id| memory.told(&id).is_some()))
    }
}

fn is_there(store: &dyn Store, name: &str) -> Result<bool, OpsError> {
    match store.head(name) {
        Ok(_) => Ok(true),
        Err(StorageError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns what of the objects that only the target has is really gone from the source.
fn gone<'r>(repository: &Repository, report: &'r MirrorReport) -> Result<Vec<&'r ObjectInfo>, OpsError> {
    let mut gone = Vec::new();
    for object in &report.only_at_target {
        // A store that lists late may have left it out.
        if !is_there(repository.environment().store.as_ref(), &object.name)? {
            gone.push(object);
        }
    }
    Ok(gone)
}

/// Returns names of objects that the source lost: the mirror has them, and nothing on record says that they were
/// deleted. `repository` is the source. Index runs are not among them: `repair index` makes them anew.
///
/// # Errors
///
/// When a store fails.
pub fn lost_at_source(
    repository: &Arc<Repository>,
    target: &dyn Store,
    report: &MirrorReport,
) -> Result<Vec<String>, OpsError> {
    let mut records = Records::load(repository, target)?;
    let mut lost = Vec::new();
    for object in gone(repository, report)? {
        if records.fate(object)? == Gone::Lost {
            lost.push(object.name.clone());
        }
    }
    Ok(lost)
}

/// Puts back at the source what it lost, roots last; returns the names of those that are damaged at the target too.
///
/// # Errors
///
/// When a store fails.
pub fn put_back(source: &dyn Store, target: &dyn Store, lost: &[String]) -> Result<Vec<String>, OpsError> {
    let mut damaged = Vec::new();
    let (roots, others): (Vec<&String>, Vec<&String>) = lost.iter().partition(|name| is_root(name));
    for name in others.into_iter().chain(roots) {
        match good(target, name)? {
            Some(bytes) => put_right(source, name, &bytes)?,
            None => damaged.push(name.clone()),
        }
    }
    Ok(damaged)
}

/// Refuses to delete anything unless the source is whole and knows of everything that is gone.
fn require_whole(records: &Records<'_>, report: &MirrorReport, lost: &[&str]) -> Result<(), OpsError> {
    let repository = records.repository;
    let stopped = |why: String| OpsError::Stopped {
        why: format!("{why}: nothing was deleted"),
        cure: "look at the source with `check`; `mirror --heal --lost` brings back what it lost",
    };
    if let Some(object) = report.damaged.iter().find(|object| !object.healed) {
        return Err(stopped(format!("{} is damaged at the {}", object.name, object.place.name())));
    }
    if !lost.is_empty() {
        let shown = lost.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
        let count = lost.len();
        return Err(stopped(format!(
            "{count} objects are missing at the source that nobody deleted there ({shown})"
        )));
    }
    require_whole_memory(repository, &records.snapshots)?;
    let closed = |error: &RepoError| !matches!(error, RepoError::Untrusted { .. });
    if let Some((id, error)) = records.snapshots.refused_snapshots().find(|(_, error)| closed(error)) {
        let why = crate::base::explain(error);
        return Err(stopped(format!("what the snapshot {} needs is not known ({why})", id.short())));
    }
    let options = CheckOptions { read_data: ReadData::None, keep_ledger: false, program: String::new() };
    let found = check(repository, &options)?;
    if found.is_damaged() || !found.lost_logs.is_empty() {
        let first = found.findings.iter().find(|finding| finding.gravity == Gravity::Damage);
        let what = first.map_or_else(String::new, |finding| format!(" ({finding})"));
        return Err(stopped(format!("the source is damaged{what}")));
    }
    Ok(())
}

/// The order in which kinds of objects are deleted: what refers to others before what it refers to, and condemnations
/// last, which explain the rest to whoever comes back to it.
fn rank(name: &str) -> u8 {
    match name.split('/').next() {
        _ if is_root(name) => 0,
        Some("index") => 1,
        Some("packs") => 2,
        Some("condemned") => 4,
        _ => 3,
    }
}

/// Deletes at the target what the source's sweep has deleted. `repository` is the source, opened.
///
/// # Errors
///
/// [`OpsError::Stopped`], and nothing was deleted, where the source is damaged, or lacks something that nothing on
/// record says was deleted; when a store fails: run it again.
pub fn follow_sweep(
    repository: &Arc<Repository>,
    target: &dyn Store,
    report: &MirrorReport,
    dry_run: bool,
) -> Result<Followed, OpsError> {
    let gone = gone(repository, report)?;
    let mut followed = Followed::default();
    if gone.is_empty() {
        return Ok(followed);
    }
    let mut records = Records::load(repository, target)?;
    let (mut deleted, mut lost) = (Vec::new(), Vec::new());
    for object in gone {
        match records.fate(object)? {
            Gone::Deleted => deleted.push(object),
            Gone::Lost => lost.push(object.name.as_str()),
            Gone::Own => {}
        }
    }
    require_whole(&records, report, &lost)?;
    deleted.sort_by_key(|object| rank(&object.name));
    for object in deleted {
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        if !is_known(&object.name) {
            followed.unknown += 1;
            continue;
        }
        if !dry_run {
            target.delete(&object.name)?;
        }
        followed.deleted += 1;
        followed.deleted_bytes += object.length;
    }
    Ok(followed)
}

/// Says whether the objects are of a kind of which it is known when they may go.
fn is_known(name: &str) -> bool {
    const AREAS: [&str; 11] = [
        "keys",
        "packs",
        "index",
        "snapshots",
        "logs",
        "annotations",
        "sessions",
        "condemned",
        "damaged",
        "catalog",
        "parity",
    ];
    let first = name.strip_prefix("copies/").unwrap_or(name);
    first.split('/').next().is_some_and(|area| AREAS.contains(&area))
}
