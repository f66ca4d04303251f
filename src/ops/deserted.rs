//! Snapshots and annotations that are gone while their parity is still there.
//!
//! A sweep deletes the parity of what it deletes, so parity that is left shows that somebody else has deleted what it is of;
//! or that a sweep was killed in between, which the annotation that ended the snapshot tells. What is small enough comes
//! back from parity alone.

use super::error::OpsError;
use super::snapshots::Snapshots;
use crate::base::{AnnotationId, BlobId, ObjectId, SnapshotId};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::snapshot::Snapshot;
use crate::format::trust::Act;
use crate::repo::{RepoError, Repository};
use std::collections::{BTreeMap, HashSet};

/// A snapshot or annotation that is gone though nobody has ended it.
#[derive(Debug, Clone)]
pub(super) struct Deserted {
    /// What it was.
    pub kind: ObjectKind,
    /// Its id.
    pub id: ObjectId,
    /// Its bytes, where its parity brings them back, and what it needs may be known.
    pub bytes: Option<Vec<u8>>,
    /// The tree of a snapshot.
    pub root: Option<BlobId>,
    /// Others of its kind, of which one has to come back before this one means anything; empty where it does anyhow.
    pub rests_on: Vec<ObjectId>,
}

impl Deserted {
    /// Names it for people.
    pub fn name(&self) -> String {
        match self.kind {
            ObjectKind::Snapshot => format!("snapshot {}", self.id),
            _ => format!("annotation {}", self.id),
        }
    }
}

/// What a deserted object says.
enum Read {
    Snapshot(Snapshot),
    Annotation(Annotation),
    /// It does not count, or this key may not read it.
    Nothing,
}

/// Finds out which of these objects, of which parity is there and nothing else, somebody misses. `snapshots` must be all.
///
/// # Errors
///
/// When the store does not answer.
pub(super) fn find(
    repository: &Repository,
    candidates: &BTreeMap<ObjectId, ObjectKind>,
    snapshots: &Snapshots,
) -> Result<Vec<Deserted>, OpsError> {
    let memory = snapshots.memory();
    // Without these it is not known what has ended.
    let is_known = memory.is_whole() && memory.before().is_none();
    let (mut found, mut annotations) = (Vec::new(), Vec::new());
    let mut gone: HashSet<SnapshotId> = HashSet::new();
    let said: HashSet<AnnotationId> = snapshots.annotations().iter().map(|(id, _)| *id).collect();
    for (id, kind) in candidates {
        let is_snapshot = *kind == ObjectKind::Snapshot;
        // What a catalogue lists is missed, or has ended, on the word of that.
        if snapshots.present().contains(id)
            || memory.told(id).is_some()
            || is_snapshot && snapshots.ended().contains(&SnapshotId::from(*id))
            || !is_snapshot && *kind != ObjectKind::Annotation
        {
            continue;
        }
        let Some(bytes) = repository.from_parity(id, &[])? else {
            // Of what nobody can read only a snapshot is worth a word.
            if is_snapshot {
                found.push(Deserted { kind: *kind, id: *id, bytes: None, root: None, rests_on: Vec::new() });
            }
            continue;
        };
        match read(repository, *kind, id, &bytes)? {
            Read::Snapshot(snapshot) => {
                gone.insert(SnapshotId::from(*id));
                let (bytes, root) = (is_known.then_some(bytes), Some(snapshot.root));
                found.push(Deserted { kind: *kind, id: *id, bytes, root, rests_on: Vec::new() });
            }
            Read::Annotation(annotation) => annotations.push((*id, annotation, bytes)),
            Read::Nothing => {}
        }
    }
    let known: HashSet<AnnotationId> = annotations.iter().map(|(id, ..)| AnnotationId::from(*id)).collect();
    for (id, annotation, bytes) in annotations {
        // What only speaks about what is gone, or takes back what is, may be gone itself; and a record of what was read keeps
        // nothing.
        let (is_missed, rests_on) = match (annotation.kind, annotation.cancels) {
            (AnnotationKind::Verified | AnnotationKind::Attested, _) => (false, Vec::new()),
            (_, Some(target)) if said.contains(&target) => (true, Vec::new()),
            (_, Some(target)) => (known.contains(&target), vec![ObjectId::from(target)]),
            (_, None) if annotation.subjects.iter().any(|id| snapshots.get(id).is_some()) => {
                (true, Vec::new())
            }
            (_, None) => {
                let subjects = annotation.subjects.iter().filter(|id| gone.contains(id));
                let subjects: Vec<ObjectId> = subjects.map(|id| ObjectId::from(*id)).collect();
                (!subjects.is_empty(), subjects)
            }
        };
        if is_missed {
            let bytes = is_known.then_some(bytes);
            found.push(Deserted { kind: ObjectKind::Annotation, id, bytes, root: None, rests_on });
        }
    }
    Ok(found)
}

/// Opens what parity has brought back, as strictly as if it had been fetched.
fn read(repository: &Repository, kind: ObjectKind, id: &ObjectId, bytes: &[u8]) -> Result<Read, OpsError> {
    let name = format!("what parity/{id}/ holds");
    let (signer, payload) = match repository.open_object(&name, *id, kind, bytes) {
        Ok(opened) => opened,
        Err(error) if error.is_unanswered() => return Err(error.into()),
        Err(_) => return Ok(Read::Nothing),
    };
    let believes = |act| repository.registry().believe(&name, &signer, act, id).is_ok();
    if kind == ObjectKind::Annotation {
        // Whether its signer may say so is asked of every annotation where it is used.
        return Ok(Annotation::decode(&payload).map_or(Read::Nothing, Read::Annotation));
    }
    Ok(match Snapshot::decode(&payload) {
        Ok(snapshot) if believes(Act::Snapshot { host: &snapshot.host, label: &snapshot.label }) => {
            Read::Snapshot(snapshot)
        }
        _ => Read::Nothing,
    })
}

/// Puts one back under the current generation, where no condemnation of an earlier one names it.
///
/// # Errors
///
/// When the store fails.
pub(super) fn put_back(repository: &Repository, deserted: &Deserted) -> Result<(), RepoError> {
    let Some(bytes) = &deserted.bytes else { return Ok(()) };
    let committed = repository.put_root_bytes(deserted.kind, deserted.id, bytes.clone())?;
    repository.stay_found(&committed)
}
