//! Catalogues that others have taken over, and annotations that speak only about what has ended and is recorded
//! as such: both go as everything else does, announced first.

use super::super::catalogue::spent_annotations;
use super::super::error::OpsError;
use super::view::View;
use super::{PruneOptions, PruneReport};
use crate::base::ObjectId;
use crate::format::ObjectKind;
use crate::format::place::Place;
use crate::repo::{RepoError, Repository};
use std::collections::{BTreeSet, HashSet};

/// Finds what is not needed and not announced yet.
///
/// # Errors
///
/// None that a name which was read can have.
pub(super) fn idle(view: &View, options: &PruneOptions) -> Result<BTreeSet<Place>, RepoError> {
    let replaced = view.snapshots.memory().replaced().iter().map(|id| {
        Place::new(ObjectKind::Catalog, "", ObjectId::from(*id))
            .map_err(RepoError::damaged("the condemnation being written"))
    });
    let mut idle: BTreeSet<Place> = replaced.collect::<Result<_, _>>()?;
    idle.extend(spent(view));
    idle.retain(|place| !view.place_goes_soon(place, options));
    Ok(idle)
}

fn spent(view: &View) -> Vec<Place> {
    spent_annotations(&view.snapshots, |pack| view.packs.contains_key(pack))
}

/// Deletes what was condemned of these and is still not needed, what takes something back after that; returns the
/// annotations.
///
/// # Errors
///
/// When the store fails.
pub(super) fn delete(
    repository: &Repository,
    view: &View,
    condemned: &HashSet<&Place>,
    report: &mut PruneReport,
) -> Result<Vec<ObjectId>, OpsError> {
    let store = &repository.environment().store;
    let mut gone = Vec::new();
    for place in spent(view).iter().filter(|place| condemned.contains(place)) {
        store.delete(&place.to_string())?;
        report.deleted_objects += 1;
        gone.push(place.id());
    }
    let replaced = view.snapshots.memory().replaced();
    for place in condemned.iter().filter(|place| place.kind() == ObjectKind::Catalog) {
        if replaced.contains(&place.id().into()) {
            store.delete(&format!("copies/{place}"))?;
            store.delete(&place.to_string())?;
            report.deleted_objects += 1;
        }
    }
    Ok(gone)
}
