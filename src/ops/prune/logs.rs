//! Log packs that are roots no more: nothing refers to one, so it goes by itself.

use super::super::error::OpsError;
use super::view::View;
use crate::base::{LogPackId, ObjectId};
use crate::format::ObjectKind;
use crate::format::place::{Place, RECORDS_FOLDER};
use crate::repo::{FoundLog, RepoError, Repository};
use std::collections::{BTreeMap, BTreeSet};

/// Finds the log packs, and records by themselves, that were forgotten and are there, with their lengths.
/// Those of streams that living sessions read are roots still ([CONCURRENCY-13]).
///
/// # Errors
///
/// When the store cannot be listed or read.
pub(super) fn ended_logs(repository: &Repository, view: &View) -> Result<BTreeMap<Place, u64>, OpsError> {
    let mut ended = BTreeMap::new();
    if !view.forgets_logs() {
        return Ok(ended);
    }
    let read: BTreeSet<String> = view
        .streams_read_by_sessions()
        .into_iter()
        .map(|stream| repository.log_stream_folder(stream))
        .collect();
    for object in repository.environment().store.list("logs/")? {
        let Some((folder, id)) = object.name.rsplit_once('/') else { continue };
        let (Some(inner), Ok(id)) = (folder.strip_prefix("logs/"), id.parse::<ObjectId>()) else { continue };
        let stream = folder.rsplit_once('/').map_or(folder, |(stream, _)| stream);
        let log = LogPackId::from(id);
        if !view.is_forgotten_log(&log) || read.contains(stream) {
            continue;
        }
        let alone = inner.ends_with(&format!("/{RECORDS_FOLDER}"));
        let kind = if alone { ObjectKind::LogRecord } else { ObjectKind::LogPack };
        let Ok(place) = Place::new(kind, inner, id) else { continue };
        if view.snapshots.forgotten_logs().may_be_pinned(&log) && is_held(repository, view, &place, &log)? {
            continue;
        }
        ended.insert(place, object.length);
    }
    Ok(ended)
}

/// Says whether a pin holds a log pack. Whose pins count depends on its stream, which only it tells itself;
/// one that cannot be read is held by any.
fn is_held(repository: &Repository, view: &View, place: &Place, log: &LogPackId) -> Result<bool, RepoError> {
    let (found, refused) = repository.log_at(&place.to_string())?;
    let forgotten = view.snapshots.forgotten_logs();
    let holds = |found: &FoundLog| forgotten.is_pinned(repository.registry(), log, &found.record.stream);
    Ok(refused || found.iter().any(holds))
}
