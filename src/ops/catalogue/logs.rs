//! Merged log packs in catalogues: by their first records a client knows a log of a million segments in a few
//! requests, and one that is gone though nobody let it go is noticed.
//!
//! What lies by itself in a log is in no catalogue: it is merged or forgotten before long.

use super::{Item, choose_folded, fetch, put, take_over, tidy};
use crate::base::{AnnotationId, LogPackId, ObjectId, Timestamp, explain};
use crate::format::ObjectKind;
use crate::format::catalog::{CatalogEnd, CatalogEntry, CatalogScope};
use crate::format::cbor::Extra;
use crate::format::log::LogRun;
use crate::format::place::{MERGED_FOLDER, Place};
use crate::ops::OpsError;
use crate::ops::snapshots::Snapshots;
use crate::repo::{ForgottenLogs, FoundLog, Memory, RepoError, Repository, Told};
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// New merged log packs of a stream, and ends of such, that are worth a catalogue.
pub const MERGES_AT_LEAST: usize = 32;
/// Merged log packs that are named when they are gone.
const SHOWN_MAX: usize = 8;

/// A merged log pack that a catalogue lists and that is gone, though nobody forgot it and no other one holds what it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostMerge {
    /// Its id.
    pub id: LogPackId,
    /// Its name in the store.
    pub object: String,
    /// The log stream.
    pub stream: String,
    /// What it held.
    pub runs: Vec<LogRun>,
}

/// How a merged log pack that is gone has ended.
struct End {
    kind: ObjectKind,
    authority: ObjectId,
    at: Timestamp,
}

/// Makes a catalogue of the merged log packs of each stream of which enough has gathered; tells what is gone. `listed` are the
/// merged log packs in the store by the folder of their stream; they were listed after the catalogues of `snapshots`
/// were read, which must be all.
///
/// Whatever goes wrong is told and stops nobody: without a catalogue everything works, and takes longer.
pub fn gather_logs(
    repository: &Repository,
    snapshots: &Snapshots,
    listed: &BTreeMap<String, Vec<ObjectInfo>>,
    at_least: usize,
) {
    let mut streams: BTreeMap<String, Vec<ObjectInfo>> = listed.clone();
    let told = snapshots.memory().held().values().filter_map(|held| match held.scope() {
        CatalogScope::Log(stream) => Some(repository.log_stream_folder(stream)),
        CatalogScope::Roots { .. } => None,
    });
    for folder in told {
        streams.entry(folder).or_default();
    }
    for (folder, objects) in streams {
        if let Err(error) = gather_stream(repository, snapshots, &folder, &objects, at_least) {
            let why = explain(&error);
            let observer = &repository.environment().observer;
            observer.warn(&format!("no catalogue was made of {folder}: {why}"));
        }
    }
}

fn gather_stream(
    repository: &Repository,
    snapshots: &Snapshots,
    folder: &str,
    objects: &[ObjectInfo],
    at_least: usize,
) -> Result<(), OpsError> {
    let before = snapshots.memory();
    let present: HashSet<ObjectId> = objects.iter().filter_map(id_of).collect();
    let is_new = |id: &ObjectId| !matches!(before.told(id), Some(Told::There(_)));
    let new: HashSet<ObjectId> = present.iter().filter(|id| is_new(id)).copied().collect();
    let gone = gone(before, folder, &present);
    if !before.unread().is_empty() || gone.is_empty() && new.len() < at_least {
        return Ok(());
    }
    let merges = repository.merged_logs_in(folder)?.found;
    let ends = ends(snapshots, &gone, &merges);
    tell_lost(repository, &gone, &ends);
    let stream = merges.first().or(gone.values().next()).map(|merge| merge.record.stream.clone());
    let found: Vec<&FoundLog> = merges
        .iter()
        .filter(|merge| new.contains(&merge.id.into()) && !snapshots.forgotten_logs().names(&merge.id))
        .collect();
    match stream {
        Some(stream) if found.len() + ends.len() >= at_least => {
            write_down(repository, folder, stream, &found, ends, &present)
        }
        _ => Ok(()),
    }
}

fn tell_lost(repository: &Repository, gone: &HashMap<ObjectId, FoundLog>, ends: &BTreeMap<ObjectId, End>) {
    let lost = gone.iter().filter(|(id, _)| !ends.contains_key(*id));
    let lost: BTreeSet<&str> = lost.map(|(_, merge)| merge.object.as_str()).collect();
    if !lost.is_empty() {
        let shown = lost.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
        let text = format!(
            "{} merged log packs that a catalogue lists are gone, and nobody has forgotten them: {shown}; \
             `chronolith check` says what they held",
            lost.len()
        );
        repository.environment().observer.warn(&text);
    }
}

/// Makes a catalogue of a stream of what was found and has ended, and of the earlier ones that are not much larger.
fn write_down(
    repository: &Repository,
    folder: &str,
    stream: String,
    found: &[&FoundLog],
    ends: BTreeMap<ObjectId, End>,
    present: &HashSet<ObjectId>,
) -> Result<(), OpsError> {
    // Other catalogues may have been made since, of the roots by this very process: numbers go on behind theirs.
    let memory = &repository.memory()?;
    if !memory.unread().is_empty() {
        return Ok(());
    }
    let seen = memory.before().map_or(0, |before| before.memory.next_number());
    let mut next_number = memory.next_number().max(seen);
    let originals = fetch(found, |merge| match repository.merge_original(merge) {
        Ok(original) => Ok(Some(original)),
        Err(RepoError::Storage(StorageError::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    })?;
    let mut items = Vec::new();
    for (merge, original) in found.iter().zip(originals) {
        let (Some(original), Some(first_seen)) = (original, merge.stored) else { continue };
        let id = ObjectId::from(merge.id);
        let number = match memory.told(&id) {
            // Somebody else has listed it since.
            Some(Told::There(_)) => continue,
            // It came back: it has its number.
            Some(Told::Ended(end)) => end.number,
            None => {
                next_number += 1;
                next_number - 1
            }
        };
        let place = place(folder, id)?;
        let (length, extra) = (merge.length, Extra::new());
        items.push(Item::There(CatalogEntry { place, number, first_seen, length, original, extra }));
    }
    for (id, end) in ends {
        let Some(Told::There(entry)) = memory.told(&id) else { continue };
        items.push(Item::Ended(CatalogEnd {
            kind: ObjectKind::LogPack,
            id,
            number: entry.number,
            authority_kind: end.kind,
            authority: end.authority,
            ended: end.at,
            original: None,
            extra: Extra::new(),
        }));
    }
    if items.is_empty() {
        return Ok(());
    }
    let scope = CatalogScope::Log(stream);
    let folded = choose_folded(memory, |other| *other == scope, present, &items);
    for id in &folded {
        take_over(repository, memory, present, id, &mut items)?;
    }
    tidy(memory, &folded, &mut items);
    put(repository, memory, &scope, items, &folded, next_number).map(drop)
}

fn id_of(object: &ObjectInfo) -> Option<ObjectId> {
    object.name.rsplit('/').next()?.parse().ok()
}

fn place(folder: &str, id: ObjectId) -> Result<Place, RepoError> {
    let inner = folder.strip_prefix("logs/").unwrap_or(folder);
    Place::new(ObjectKind::LogPack, &format!("{inner}/{MERGED_FOLDER}"), id)
        .map_err(RepoError::damaged("the catalogue being written"))
}

/// Finds the merged log packs of a stream that catalogues list and that are not there, as they were.
fn gone(memory: &Memory, folder: &str, present: &HashSet<ObjectId>) -> HashMap<ObjectId, FoundLog> {
    let own = format!("{folder}/{MERGED_FOLDER}/");
    memory
        .merges()
        .filter(|merge| merge.object.starts_with(&own))
        .map(|merge| (ObjectId::from(merge.id), merge))
        .filter(|(id, _)| !present.contains(id))
        .collect()
}

/// Says how those that are gone have ended, of all that were let go.
fn ends(
    snapshots: &Snapshots,
    gone: &HashMap<ObjectId, FoundLog>,
    there: &[FoundLog],
) -> BTreeMap<ObjectId, End> {
    let mut ends = BTreeMap::new();
    if gone.is_empty() {
        return ends;
    }
    let said: HashMap<ObjectId, Option<Timestamp>> = snapshots
        .stored()
        .iter()
        .filter(|root| root.place.kind() == ObjectKind::Annotation)
        .map(|root| (root.place.id(), root.stored))
        .collect();
    for (id, merge) in gone {
        let forgotten = snapshots.forgotten_logs().forgotten_by(&merge.id);
        let by = forgotten.and_then(|by: AnnotationId| {
            let authority = ObjectId::from(by);
            let at = said.get(&authority).copied().flatten()?;
            Some(End { kind: ObjectKind::Annotation, authority, at })
        });
        let end = by.or_else(|| {
            let holder = holder(merge, there)?;
            Some(End { kind: ObjectKind::LogPack, authority: holder.id.into(), at: holder.stored? })
        });
        if let Some(end) = end {
            ends.insert(*id, end);
        }
    }
    ends
}

/// Returns a merged log pack that holds all segments of another one, which is gone.
fn holder<'a>(gone: &FoundLog, there: &'a [FoundLog]) -> Option<&'a FoundLog> {
    // There is no hole in a run.
    let within = |part: &LogRun, whole: &LogRun| {
        let positions = part.positions.zip(whole.positions);
        part.timeline == whole.timeline
            && part.first >= whole.first
            && part.last <= whole.last
            && positions.is_some_and(|(part, whole)| part.0 >= whole.0 && part.1 <= whole.1)
    };
    there.iter().find(|merge| {
        let held = |part: &LogRun| merge.record.runs.iter().any(|whole| within(part, whole));
        merge.record.stream == gone.record.stream
            && merge.record.lineage == gone.record.lineage
            && gone.record.runs.iter().all(held)
    })
}

/// Finds the merged log packs that a catalogue lists and that are gone, though nobody let them go. The
/// catalogues must have been read before the logs were listed; `forgotten` after that.
///
/// # Errors
///
/// When the store cannot be listed or read.
pub fn lost_merges(
    repository: &Repository,
    memory: &Memory,
    present: &BTreeSet<LogPackId>,
    forgotten: &ForgottenLogs,
) -> Result<Vec<LostMerge>, OpsError> {
    let mut lost: Vec<FoundLog> =
        memory.merges().filter(|merge| !present.contains(&merge.id) && !forgotten.names(&merge.id)).collect();
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    // What ended meanwhile is in the catalogues that there are now.
    let now = repository.memory()?;
    lost.retain(|merge| !matches!(now.told(&merge.id.into()), Some(Told::Ended(_))));
    let streams: BTreeSet<String> = lost.iter().map(|merge| merge.record.stream.clone()).collect();
    for stream in streams {
        let there = repository.merged_logs(&stream)?.found;
        let is_back = |merge: &FoundLog| there.iter().any(|found| found.id == merge.id);
        lost.retain(|merge| {
            merge.record.stream != stream || !is_back(merge) && holder(merge, &there).is_none()
        });
    }
    lost.sort_by(|a, b| a.object.cmp(&b.object));
    let told = lost.into_iter().map(|merge| LostMerge {
        id: merge.id,
        object: merge.object,
        stream: merge.record.stream,
        runs: merge.record.runs,
    });
    Ok(told.collect())
}
