//! Index runs: those that name only what is gone or goes are condemned with it, those that name much of
//! it, and many small ones, are merged ([CONCURRENCY-51] to [CONCURRENCY-53]).
//!
//! A run describes only packs of its signer, so everybody merges only his own.

use super::super::error::OpsError;
use super::PruneReport;
use super::plan::Plan;
use super::view::View;
use crate::base::{IndexId, KeyId, ObjectId, PackId, Timestamp, explain, limits};
use crate::format::ObjectKind;
use crate::format::place::Place;
use crate::repo::{RepoError, Repository, RunContent, RunOutline};
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Records up to which a run is small.
const SMALL_RECORDS: u64 = 1 << 15;
/// Small runs that may stand side by side before they are merged.
const SMALL_RUNS: usize = 16;
/// Records that are merged into one run, and merged runs that one prune makes: it is bounded in memory and
/// in time, and the next one goes on.
const MERGED_RECORDS: u64 = 1 << 19;
const MERGES: usize = 4;
/// After this time a pack that is not there and that no condemnation lists does not come any more.
const GONE_SECONDS: u64 = 7 * 24 * 3600;

/// An index run as it says of itself.
pub(super) struct Run {
    pub place: Place,
    pub outline: RunOutline,
    stored: Option<Timestamp>,
}

impl Run {
    fn id(&self) -> IndexId {
        IndexId::from(self.place.id())
    }
}

/// All runs but those that cannot be read.
pub(super) struct Runs {
    pub found: Vec<Run>,
    /// Whether some could not be read: they might name anything.
    pub unread: bool,
}

fn place_of(object: &ObjectInfo) -> Option<Place> {
    let mut parts = object.name.split('/').skip(1);
    let (folder, id) = (parts.next()?, parts.next()?.parse::<ObjectId>().ok()?);
    Place::new(ObjectKind::IndexRun, folder, id).ok()
}

/// Says whether that is worth a warning, or the end.
fn is_fatal(error: &RepoError) -> bool {
    matches!(error, RepoError::Storage(StorageError::Transient { .. }) | RepoError::Interrupted)
}

impl Runs {
    /// Reads the outlines of all runs.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn read(repository: &Repository) -> Result<Self, OpsError> {
        let objects = repository.environment().store.list("index/")?;
        Self::outline(repository, &objects)
    }

    fn outline(repository: &Repository, objects: &[ObjectInfo]) -> Result<Self, OpsError> {
        let mut runs = Self { found: Vec::new(), unread: false };
        for object in objects {
            let Some(place) = place_of(object) else { continue };
            match repository.outline_run(&object.name, object.length) {
                Ok(outline) => runs.found.push(Run { place, outline, stored: object.modified }),
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(_) => runs.unread = true,
            }
        }
        Ok(runs)
    }
}

fn open(repository: &Repository, run: &Run) -> Result<Option<RunContent>, OpsError> {
    let name = run.place.to_string();
    let bytes = repository.environment().store.get(&name, limits::INDEX_RUN_BYTES_MAX);
    match bytes.map_err(RepoError::from).and_then(|bytes| repository.open_run(&run.id(), &bytes)) {
        Ok(content) => Ok(Some(content)),
        Err(error) if is_fatal(&error) => Err(error.into()),
        Err(error) => {
            repository.environment().observer.warn(&explain(&error));
            Ok(None)
        }
    }
}

/// Adds to the plan the runs that are not needed any more; puts merged ones before.
///
/// # Errors
///
/// When the store fails.
pub(super) fn merge_runs(
    repository: &Repository,
    view: &View,
    plan: &mut Plan,
    held: &BTreeSet<PackId>,
    report: &mut PruneReport,
) -> Result<(), OpsError> {
    let objects = repository.environment().store.list("index/")?;
    let idle = plan.dead.is_empty()
        && plan.superfluous.is_empty()
        && objects.len() < SMALL_RUNS
        && view.listed.keys().all(|pack| view.packs.contains_key(pack));
    if idle {
        return Ok(());
    }
    let runs = Runs::outline(repository, &objects)?;
    let ends = |pack: &PackId, run: &Run| match view.packs.contains_key(pack) {
        true => {
            let listed = plan.dead.contains(pack) || plan.superfluous.contains(pack);
            (listed || view.is_condemned(pack)) && !held.contains(pack)
        }
        false => view.is_condemned(pack) || view.is_older_than(run.stored, GONE_SECONDS),
    };
    let own = repository.keyring().identity.key;
    let mut superseded = Vec::new();
    let (mut lean, mut small) = (Vec::new(), Vec::new());
    for run in runs.found.iter().filter(|run| !view.is_listed(&run.place)) {
        let (all, over) =
            (run.outline.packs.len(), run.outline.packs.iter().filter(|pack| ends(pack, run)).count());
        if over == all {
            superseded.push(run.place.clone());
        } else if run.outline.signer != own || run.outline.records > MERGED_RECORDS {
        } else if over * 4 >= all {
            lean.push(run);
        } else if run.outline.records <= SMALL_RECORDS {
            small.push(run);
        }
    }
    if lean.len() + small.len() >= SMALL_RUNS {
        lean.append(&mut small);
    }
    lean.sort_by_key(|run| (run.outline.records, run.place.id()));
    let mut groups: Vec<(u64, Vec<&Run>)> = Vec::new();
    for run in lean {
        match groups.last_mut().filter(|(records, _)| records + run.outline.records <= MERGED_RECORDS) {
            Some((records, group)) => {
                *records += run.outline.records;
                group.push(run);
            }
            None => groups.push((run.outline.records, vec![run])),
        }
    }
    for (_, group) in groups.into_iter().take(MERGES) {
        let merged = merge(repository, &group, &ends)?;
        report.merged_runs += merged.len() as u64;
        superseded.extend(merged);
    }
    plan.objects.extend(superseded);
    Ok(())
}

/// Merges runs, without what is gone or goes; returns those that the merged run stands for.
fn merge(
    repository: &Repository,
    runs: &[&Run],
    ends: &impl Fn(&PackId, &Run) -> bool,
) -> Result<Vec<Place>, OpsError> {
    let mut merged = RunContent { records: Vec::new(), packs: Vec::new() };
    let mut numbers: HashMap<PackId, u32> = HashMap::new();
    let mut superseded = Vec::new();
    for run in runs {
        let Some(content) = open(repository, run)? else { continue };
        let kept: Vec<Option<u32>> = content
            .packs
            .iter()
            .map(|pack| {
                (!ends(&pack.id, run)).then(|| {
                    *numbers.entry(pack.id).or_insert_with(|| {
                        merged.packs.push(pack.clone());
                        u32::try_from(merged.packs.len() - 1).unwrap_or(u32::MAX)
                    })
                })
            })
            .collect();
        merged.records.extend(content.records.into_iter().filter_map(|mut record| {
            record.pack = kept.get(record.pack as usize).copied().flatten()?;
            Some(record)
        }));
        superseded.push(run.place.clone());
    }
    if superseded.is_empty() || merged.records.is_empty() {
        return Ok(Vec::new());
    }
    merged.records.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    merged.records.dedup();
    repository.put_run(&merged)?;
    Ok(superseded)
}

/// Deletes runs that were condemned, as far as others describe what is there and stays; returns how many.
///
/// # Errors
///
/// When the store fails.
pub(super) fn delete_runs(
    repository: &Repository,
    view: &View,
    held: &BTreeSet<PackId>,
    condemned: &[&Place],
) -> Result<u64, OpsError> {
    if condemned.is_empty() {
        return Ok(0);
    }
    let runs = Runs::read(repository)?;
    let condemned: HashSet<&Place> = condemned.iter().copied().collect();
    let stays =
        |pack: &&PackId| view.packs.contains_key(*pack) && (!view.is_condemned(pack) || held.contains(*pack));
    let going: Vec<&Run> = runs.found.iter().filter(|run| condemned.contains(&run.place)).collect();
    let mut wanted: HashSet<(KeyId, PackId)> = HashSet::new();
    for run in &going {
        wanted.extend(run.outline.packs.iter().filter(stays).map(|pack| (run.outline.signer, *pack)));
    }
    // Only what is verified as a whole can stand in for what is deleted.
    let mut described: HashSet<(KeyId, PackId)> = HashSet::new();
    for run in runs.found.iter().filter(|run| !view.is_listed(&run.place)) {
        let place = |pack: &PackId| (run.outline.signer, *pack);
        let useful = run
            .outline
            .packs
            .iter()
            .any(|pack| wanted.contains(&place(pack)) && !described.contains(&place(pack)));
        if useful && open(repository, run)?.is_some() {
            described.extend(run.outline.packs.iter().map(place));
        }
    }
    let mut deleted = 0;
    for run in going {
        let mut packs = run.outline.packs.iter().filter(stays);
        if packs.all(|pack| described.contains(&(run.outline.signer, *pack))) {
            repository.environment().store.delete(&run.place.to_string())?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
