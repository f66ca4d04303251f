//! Log packs that become one, and those that a merged one holds.
//!
//! What is archived of a log in many small objects is put together once it is an hour old and enough of it
//! lies side by side ([`Repository::merge_logs`]); the originals are condemned then, and a later prune deletes them. It does
//! so only where it finds a merged log pack that holds their very records, that is whole, that nobody has forgotten or condemned,
//! and that has been there for a day: so that whoever looks up a segment finds it all the while ([CONCURRENCY-40]).

use super::super::error::OpsError;
use super::super::merged_logs::{Held, Holders};
use super::view::View;
use super::{PruneOptions, PruneReport};
use crate::base::{LogPackId, ObjectId, explain};
use crate::format::ObjectKind;
use crate::format::log::LogRecordKind;
use crate::format::place::{MERGED_FOLDER, Place, RECORDS_FOLDER};
use crate::format::trust::Standing;
use crate::repo::{
    FRESH_LOG_SECONDS, FoundLog, MERGED_BYTES, MERGED_LOG_SECONDS, MERGED_RECORDS, RepoError, Repository,
    follows,
};
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Log packs side by side that are worth one of them all.
const WORTH_MERGING: usize = 64;
/// Log packs that are left out of a merge since they cannot be merged, until it is given up.
const LEFT_OUT_MAX: usize = 8;
/// Bytes that the front and the tail of a merged log pack may need for a record, besides its own.
const AROUND_BYTES: u64 = 512;

/// An object, and where it lies.
type Placed = (Place, ObjectInfo);

/// The archived objects of a log stream.
#[derive(Default)]
struct Stream {
    /// By the folder of a segment.
    segments: BTreeMap<String, Vec<Placed>>,
    merged: Vec<Placed>,
}

/// All archived logs, as they lie in the store.
pub(super) struct Logs {
    streams: BTreeMap<String, Stream>,
}

impl Logs {
    /// Lists them.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed.
    pub fn list(repository: &Repository) -> Result<Self, OpsError> {
        let mut streams: BTreeMap<String, Stream> = BTreeMap::new();
        for object in repository.environment().store.list("logs/")? {
            let Some((folder, id)) = object.name.rsplit_once('/') else { continue };
            let (Some(inner), Ok(id)) = (folder.strip_prefix("logs/"), id.parse::<ObjectId>()) else {
                continue;
            };
            let Some((stream, segment)) = inner.split_once('/') else { continue };
            if segment == RECORDS_FOLDER {
                continue;
            }
            let Ok(place) = Place::new(ObjectKind::LogPack, inner, id) else { continue };
            let own = streams.entry(format!("logs/{stream}")).or_default();
            match segment == MERGED_FOLDER {
                true => own.merged.push((place, object)),
                false => own.segments.entry(folder.to_owned()).or_default().push((place, object)),
            }
        }
        Ok(Self { streams })
    }

    /// Returns the merged log packs by the folder of their stream.
    pub fn merged(&self) -> BTreeMap<String, Vec<ObjectInfo>> {
        let merged = |stream: &Stream| stream.merged.iter().map(|(_, object)| object.clone()).collect();
        self.streams
            .iter()
            .filter(|(_, stream)| !stream.merged.is_empty())
            .map(|(folder, stream)| (folder.clone(), merged(stream)))
            .collect()
    }

    /// Says whether a log pack is there.
    pub fn hold(&self, place: &Place) -> bool {
        let name = place.to_string();
        let Some((folder, _)) = name.rsplit_once('/') else { return false };
        let Some((stream, _)) = folder.rsplit_once('/') else { return false };
        self.streams.get(stream).is_some_and(|stream| {
            let own = stream.segments.get(folder).into_iter().flatten();
            own.chain(&stream.merged).any(|(there, _)| there == place)
        })
    }
}

/// Finds the merged log packs of a stream that count, and that nobody condemned or forgot.
fn holders<'a>(
    repository: &'a Repository,
    view: &View,
    folder: &str,
    stream: &Stream,
) -> Result<Holders<'a>, OpsError> {
    let mut merges = Vec::new();
    if !stream.merged.is_empty() {
        let places: HashMap<&str, &Place> =
            stream.merged.iter().map(|(place, object)| (object.name.as_str(), place)).collect();
        merges = repository.merged_logs_in(folder)?.found;
        merges.retain(|merge| {
            let place = places.get(merge.object.as_str());
            place.is_some_and(|place| !view.is_listed(place)) && !view.is_forgotten_log(&merge.id)
        });
    }
    Ok(Holders::new(repository, merges))
}

/// Returns the merged log packs that hold all records of an object; `names` are some that it holds.
fn holding(
    repository: &Repository,
    holders: &mut Holders<'_>,
    object: &ObjectInfo,
    id: LogPackId,
    names: &[&str],
    is_merged: bool,
) -> Result<Vec<FoundLog>, OpsError> {
    let records = || repository.log_record_hashes(&object.name, object.length);
    holders.holding(&Held { id, names, is_merged }, records)
}

/// Merges log packs as far as that is worth it, and returns what merged ones hold and may be condemned, with lengths.
///
/// # Errors
///
/// When the store fails, or the user stopped it.
pub(super) fn merge(
    repository: &Repository,
    view: &View,
    logs: &Logs,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<BTreeMap<Place, u64>, OpsError> {
    let mut originals = BTreeMap::new();
    for (folder, stream) in &logs.streams {
        let mut holders = holders(repository, view, folder, stream)?;
        replaced_merges(repository, stream, &mut holders, &mut originals)?;
        let alone: Vec<&Placed> = stream
            .segments
            .values()
            .filter_map(|objects| match objects.as_slice() {
                [one] => Some(one),
                // Whatever else was stored under the name has to be sorted out first.
                _ => None,
            })
            .filter(|(_, object)| view.is_older_than(object.modified, FRESH_LOG_SECONDS.unsigned_abs()))
            .filter(|(place, _)| !view.is_forgotten_log(&LogPackId::from(place.id())))
            .collect();
        if holders.merges.is_empty() && alone.len() < WORTH_MERGING {
            continue;
        }
        let mut sources: Vec<(FoundLog, &Place)> = Vec::new();
        for (log, (place, object)) in read(repository, folder, &alone)? {
            let name = log.record.name.clone();
            match holding(repository, &mut holders, object, log.id, &[&name], false)?.is_empty() {
                true => sources.push((log, place)),
                false => drop(originals.insert(place.clone(), object.length)),
            }
        }
        sources.sort_by_key(|(log, _)| (log.record.timeline, log.record.positions, log.id));
        for group in groups(&sources) {
            let bytes: u64 = group.iter().map(|(log, _)| log.length).sum();
            let total = report.repacked_bytes.saturating_add(report.merged_log_bytes).saturating_add(bytes);
            if options.max_repack_bytes.is_some_and(|most| total > most) {
                break;
            }
            if options.dry_run {
                report.merged_logs += group.len() as u64;
                report.merged_log_bytes += bytes;
                continue;
            }
            let Some(merge) = merge_group(repository, group)? else { continue };
            holders.merges.push(merge);
            for (log, place) in group {
                let name = log.record.name.as_str();
                let object =
                    ObjectInfo { name: log.object.clone(), length: log.length, modified: log.stored };
                if !holding(repository, &mut holders, &object, log.id, &[name], false)?.is_empty() {
                    report.merged_logs += 1;
                    report.merged_log_bytes += log.length;
                    originals.insert((*place).clone(), log.length);
                }
            }
        }
    }
    Ok(originals)
}

/// Finds merged log packs all of whose records are in another one: two prunes may have merged the same.
fn replaced_merges(
    repository: &Repository,
    stream: &Stream,
    holders: &mut Holders<'_>,
    originals: &mut BTreeMap<Place, u64>,
) -> Result<(), OpsError> {
    for merge in holders.merges.clone() {
        let Some((place, object)) = stream.merged.iter().find(|(_, object)| object.name == merge.object)
        else {
            continue;
        };
        let runs = merge.record.runs.iter();
        let names: Vec<&str> = runs.flat_map(|run| [run.first.as_str(), run.last.as_str()]).collect();
        if !holding(repository, holders, object, merge.id, &names, true)?.is_empty() {
            originals.insert(place.clone(), object.length);
            holders.merges.retain(|other| other.id != merge.id);
        }
    }
    Ok(())
}

/// Reads the records of log packs, of those that may be merged.
fn read<'a>(
    repository: &Repository,
    folder: &str,
    alone: &[&'a Placed],
) -> Result<Vec<(FoundLog, &'a Placed)>, OpsError> {
    let objects: Vec<ObjectInfo> = alone.iter().map(|(_, object)| object.clone()).collect();
    let by_name: HashMap<&str, &'a Placed> = alone.iter().map(|both| (both.1.name.as_str(), *both)).collect();
    let mut read = Vec::new();
    for log in repository.logs_in(objects)?.found {
        let record = &log.record;
        let segment = repository.log_segment_folder(&record.stream, &record.name);
        let is_here = log.object.rsplit_once('/').is_some_and(|(inside, _)| inside == segment);
        let standing = repository.registry().trust().key(&log.signer).map(|key| key.standing());
        let may = record.kind == LogRecordKind::Segment
            && record.positions.is_some_and(|(start, end)| start < end)
            && is_here
            && segment.starts_with(folder)
            && matches!(standing, Some(Standing::Active | Standing::Retired));
        if let Some(both) = by_name.get(log.object.as_str()).filter(|_| may) {
            read.push((log, *both));
        }
    }
    Ok(read)
}

/// Cuts what lies side by side into groups that fit into one log pack and are worth it.
fn groups<'a, 'b>(sources: &'a [(FoundLog, &'b Place)]) -> Vec<&'a [(FoundLog, &'b Place)]> {
    let mut groups = Vec::new();
    for stretch in sources.chunk_by(|(a, _), (b, _)| follows(&a.record, &b.record)) {
        let mut rest = stretch;
        while !rest.is_empty() {
            let mut bytes = 0_u64;
            let fits = |(log, _): &&(FoundLog, &Place)| {
                bytes = bytes.saturating_add(log.length + AROUND_BYTES);
                bytes <= MERGED_BYTES
            };
            let count = rest.iter().take(MERGED_RECORDS).take_while(fits).count();
            // One that is as long as a merged one may be stays by itself.
            let (group, left) = rest.split_at(count.max(1).min(rest.len()));
            let is_full = !left.is_empty() && group.len() > 1;
            if is_full || group.len() >= WORTH_MERGING {
                groups.push(group);
            }
            rest = left;
        }
    }
    groups
}

/// Merges a group, without those of it that cannot be merged: they stay as they are.
fn merge_group(repository: &Repository, group: &[(FoundLog, &Place)]) -> Result<Option<FoundLog>, OpsError> {
    let observer = &repository.environment().observer;
    let mut sources: Vec<&FoundLog> = group.iter().map(|(log, _)| log).collect();
    for _ in 0..LEFT_OUT_MAX {
        if sources.len() < 2 {
            return Ok(None);
        }
        let (object, error) = match repository.merge_logs(&sources) {
            Ok(merge) => return Ok(Some(merge)),
            Err(failure) => failure,
        };
        let stops =
            matches!(error, RepoError::Interrupted | RepoError::Storage(StorageError::Transient { .. }));
        let Some(object) = object.filter(|_| !stops) else { return Err(error.into()) };
        observer.warn(&format!("{object} is not merged with others: {}", explain(&error)));
        sources.retain(|log| log.object != object);
    }
    Ok(None)
}

/// Finds, of the log packs that condemnations list whose grace has passed, those that a merged one holds which
/// is whole, durable and old enough; with their lengths ([CONCURRENCY-40]).
///
/// # Errors
///
/// When the store fails.
pub(super) fn replaced(
    repository: &Repository,
    view: &View,
    logs: &Logs,
    due: &BTreeSet<&Place>,
) -> Result<BTreeMap<Place, u64>, OpsError> {
    let mut replaced = BTreeMap::new();
    let read: BTreeSet<String> = view
        .streams_read_by_sessions()
        .into_iter()
        .map(|stream| repository.log_stream_folder(stream))
        .collect();
    let mut secured: BTreeMap<LogPackId, bool> = BTreeMap::new();
    for (folder, stream) in logs.streams.iter().filter(|(folder, _)| !read.contains(*folder)) {
        let alone = stream.segments.values().filter_map(|objects| match objects.as_slice() {
            // Of two under one name nobody may go: by which came first one of them counts ([CONCURRENCY-39]).
            [one] => Some((one, false)),
            _ => None,
        });
        let merged = stream.merged.iter().map(|one| (one, true));
        let wanted: Vec<_> = alone.chain(merged).filter(|((place, _), _)| due.contains(place)).collect();
        if wanted.is_empty() {
            continue;
        }
        let mut holders = holders(repository, view, folder, stream)?;
        holders.merges.retain(|merge| view.is_older_than(merge.stored, MERGED_LOG_SECONDS));
        for ((place, object), is_merged) in wanted {
            let id = LogPackId::from(place.id());
            let names = names(repository, folder, object)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for merge in holding(repository, &mut holders, object, id, &names, is_merged)? {
                let is_good = match secured.get(&merge.id) {
                    Some(is_good) => *is_good,
                    None => {
                        let is_good = secure(repository, &merge)?;
                        secured.insert(merge.id, is_good);
                        is_good
                    }
                };
                if is_good {
                    replaced.insert(place.clone(), object.length);
                    break;
                }
            }
        }
    }
    Ok(replaced)
}

/// Returns some names that a log pack holds.
fn names(repository: &Repository, folder: &str, object: &ObjectInfo) -> Result<Vec<String>, OpsError> {
    if object
        .name
        .strip_prefix(folder)
        .is_some_and(|inside| inside.starts_with(&format!("/{MERGED_FOLDER}/")))
    {
        let found = repository.merged_logs_in(folder)?.found;
        let merge = found.into_iter().find(|merge| merge.object == object.name);
        let runs = merge.into_iter().flat_map(|merge| merge.record.runs);
        return Ok(runs.flat_map(|run| [run.first, run.last]).collect());
    }
    let found = repository.logs_in(vec![object.clone()])?.found;
    Ok(found.into_iter().map(|log| log.record.name).collect())
}

/// Reads a merged log pack whole, and makes sure that it is durable.
fn secure(repository: &Repository, merge: &FoundLog) -> Result<bool, OpsError> {
    match repository.secure_merge(merge) {
        Ok(()) => Ok(true),
        Err(error @ RepoError::Storage(StorageError::Transient { .. })) => Err(error.into()),
        Err(error) => {
            let why = explain(&error);
            let observer = &repository.environment().observer;
            observer.warn(&format!("{} does not stand in for what it holds: {why}", merge.object));
            Ok(false)
        }
    }
}
