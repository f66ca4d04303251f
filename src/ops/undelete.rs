//! Undelete: what was forgotten is a root again, with everything that it needs.
//!
//! Write order ([CONCURRENCY-38]), and what a crash after each step leaves:
//! 1. a session, so that no sweep overtakes this: it lapses;
//! 2. copies of what the snapshot needs and has only in condemned packs: packs that nothing refers to;
//! 3. the same snapshot in another place, where its own is condemned: it is forgotten there too;
//! 4. the annotation that takes the forgetting back: the snapshot is there again;
//! 5. the last look of a writer; then success is reported.
//!
//! Log packs are brought back in the same order. The name of one that was condemned stays dead: what it holds
//! is stored again, and the old one stays forgotten.

use super::error::OpsError;
use super::forget::require_whole_memory;
use super::settle::{rescue, settle};
use super::snapshots::Snapshots;
use crate::base::{AnnotationId, LogPackId, ObjectId, SnapshotId};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::repo::{FoundLog, Presence, RepoError, Repository};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Takes back that snapshots were forgotten; returns what was written.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not; [`RepoError::Missing`] where something that a snapshot
/// needs was swept already: then nothing is taken back.
pub fn undelete(
    repository: &Arc<Repository>,
    chosen: &[SnapshotId],
    program: &str,
) -> Result<Vec<AnnotationId>, OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Withdraw)?;
    let read: IdSet<SnapshotId> = chosen.iter().copied().collect();
    // A session with the purpose of reading them: they are roots from here on.
    let presence = Presence::begin(repository, SessionPurpose::Maintain, read, program)?;
    let snapshots = Snapshots::load_all(repository)?;
    require_whole_memory(repository, &snapshots)?;
    let mut roots = Vec::new();
    for id in chosen {
        let view = snapshots.get(id).ok_or_else(|| RepoError::NoSnapshot(id.to_string()))?;
        if view.forgotten_by.is_empty() {
            return Err(OpsError::Usage(format!("snapshot {} is not forgotten", id.short())));
        }
        roots.push(view.snapshot.root);
    }
    // It was condemned before this session, which named it all the same: nothing rests on it yet.
    rescue(repository, &presence, &roots, &BTreeSet::new())?;
    for id in chosen {
        move_from_condemned(repository, &presence, id)?;
    }
    let mut put = Vec::new();
    let forgettings: BTreeSet<AnnotationId> =
        chosen.iter().filter_map(|id| snapshots.get(id)).flat_map(|view| view.forgotten_by.clone()).collect();
    for forgetting in forgettings {
        let mut back = Annotation::new(AnnotationKind::Undeleted, repository.environment().clock.now());
        back.cancels = Some(forgetting);
        back.subjects = chosen.iter().copied().collect();
        put.push(repository.annotate(&back, Act::Withdraw)?);
    }
    presence.renew()?;
    settle(repository, &presence, &roots)?;
    for id in chosen {
        move_from_condemned(repository, &presence, id)?;
    }
    Ok(put)
}

/// Takes back that log packs, and log records by themselves, were forgotten; returns what was written. To be
/// done before the snapshots that need them are brought back.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not, or may not store again what is condemned; the store's error where
/// one was swept already: then nothing is taken back.
pub fn undelete_logs(
    repository: &Arc<Repository>,
    logs: &[FoundLog],
    program: &str,
) -> Result<Vec<AnnotationId>, OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Withdraw)?;
    let streams = logs.iter().map(|log| log.record.stream.clone()).collect();
    let presence =
        Presence::begin_reading(repository, SessionPurpose::Maintain, IdSet::default(), streams, program)?;
    require_whole_memory(repository, &Snapshots::load_all(repository)?)?;
    // One object may hold many records.
    let mut left: BTreeMap<LogPackId, &FoundLog> = logs.iter().map(|log| (log.id, log)).collect();
    store_condemned_again(repository, &presence, &mut left)?;
    for log in left.values() {
        repository.environment().store.head(&log.object).map_err(RepoError::from)?;
    }
    let mut put = Vec::new();
    for found in repository.annotations()?.found {
        let annotation = &found.annotation;
        let named: IdSet<LogPackId> =
            annotation.log_packs.iter().filter(|id| left.contains_key(id)).copied().collect();
        if annotation.kind != AnnotationKind::Forgotten || named.is_empty() {
            continue;
        }
        let mut back = Annotation::new(AnnotationKind::Undeleted, repository.environment().clock.now());
        back.cancels = Some(found.id);
        back.log_packs = named;
        put.push(repository.annotate(&back, Act::Withdraw)?);
    }
    // The last look: what was condemned meanwhile may be swept by somebody who saw it forgotten.
    presence.renew()?;
    let unnamed = presence.unnamed()?;
    let moved = store_condemned_again(repository, &presence, &mut left)?;
    if !moved.is_empty() {
        let mut again = Annotation::new(AnnotationKind::Forgotten, repository.environment().clock.now());
        again.log_packs = moved.into_iter().collect();
        put.push(repository.annotate(&again, Act::Withdraw)?);
    }
    presence.name(&unnamed)?;
    Ok(put)
}

/// Stores again what some of these log packs hold that a condemnation lists; returns those, and leaves the others.
fn store_condemned_again(
    repository: &Repository,
    presence: &Presence,
    left: &mut BTreeMap<LogPackId, &FoundLog>,
) -> Result<Vec<LogPackId>, OpsError> {
    let listing = presence.listing();
    let objects = listing.found.values().flat_map(|found| &found.condemned.objects);
    let logs = [ObjectKind::LogPack, ObjectKind::LogRecord];
    let dead: BTreeSet<LogPackId> = objects
        .filter(|object| logs.contains(&object.place.kind()))
        .map(|object| LogPackId::from(object.place.id()))
        .filter(|id| left.contains_key(id))
        .collect();
    for id in &dead {
        if let Some(log) = left.remove(id) {
            repository.store_log_again(log)?;
        }
    }
    Ok(dead.into_iter().collect())
}

/// Puts a snapshot where no condemnation lists it: a name that was condemned stays dead ([CONCURRENCY-31]).
fn move_from_condemned(
    repository: &Repository,
    presence: &Presence,
    id: &SnapshotId,
) -> Result<(), OpsError> {
    let listing = presence.listing();
    let dead: BTreeSet<String> = listing
        .found
        .values()
        .flat_map(|found| &found.condemned.objects)
        .filter(|object| object.place.kind() == ObjectKind::Snapshot)
        .filter(|object| object.place.id() == ObjectId::from(*id))
        .map(|object| object.place.to_string())
        .collect();
    let store = &repository.environment().store;
    let suffix = format!("/{id}");
    let places: Vec<String> = store
        .list("snapshots/")?
        .into_iter()
        .map(|object| object.name)
        .filter(|name| name.ends_with(&suffix))
        .collect();
    let (condemned, staying): (Vec<String>, Vec<String>) =
        places.into_iter().partition(|place| dead.contains(place));
    let whole = |place: &String| repository.root_bytes(place, &ObjectId::from(*id));
    let mut read = Err(RepoError::NoSnapshot(id.to_string()));
    // Where one copy is damaged, another may be whole.
    for place in &staying {
        read = whole(place);
        if read.is_ok() {
            return Ok(());
        }
    }
    for place in &condemned {
        if read.is_err() {
            read = whole(place);
        }
    }
    let bytes = read?;
    let free =
        (repository.generation()?..=u32::MAX).map(|generation| format!("snapshots/{generation:08x}/{id}"));
    if let Some(place) = free.into_iter().find(|place| !dead.contains(place) && !staying.contains(place)) {
        store.put(&place, &bytes)?;
    }
    Ok(())
}
