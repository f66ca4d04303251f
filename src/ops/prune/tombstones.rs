//! Condemnations whose objects are gone: they stay as tombstones while an index run names one of their packs
//! ([CONCURRENCY-35]); then they go, and many that stay become one.

use super::super::error::OpsError;
use super::PruneOptions;
use super::runs::Runs;
use super::view::View;
use crate::base::{CondemnedId, PackId};
use crate::format::ObjectKind;
use crate::format::cbor::Extra;
use crate::format::condemned::Condemned;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::repo::{Presence, RepoError, Repository};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Tombstones that stand side by side before they become one.
const TOMBSTONES: usize = 8;
/// Packs that one condemnation carries on, at most.
const PACKS_MAX: usize = 1 << 20;

/// Deletes condemnations that nothing needs any more, of those that every session has named; absorbs many
/// others into one, which is put before they are deleted.
///
/// # Errors
///
/// When the store fails.
pub(super) fn absorb(
    repository: &Repository,
    presence: &Presence,
    options: &PruneOptions,
    view: &View,
    swept: &[(&CondemnedId, &Condemned)],
) -> Result<(), OpsError> {
    let store = &repository.environment().store;
    let is_over = |id: &CondemnedId, condemned: &Condemned| {
        // By a listing from before this sweep: what was deleted just now may be shown to others for a while.
        let packs_gone = !packs_of(condemned).any(|pack| view.packs.contains_key(pack));
        // A record of where a session stood still is needed until the session is gone.
        let obsolete = condemned.sessions.iter().all(|seen| {
            let found = view.sessions.get(&(seen.signer, seen.session));
            found.is_none_or(|found| found.session.ended || found.renewal != seen.renewal)
        });
        packs_gone && obsolete && view.listing.found.get(id).is_some_and(|found| view.is_long_due(found))
    };
    let mut over: Vec<_> = swept.iter().filter(|(id, condemned)| is_over(id, condemned)).collect();
    if over.is_empty() {
        return Ok(());
    }
    let mut present: HashMap<String, HashSet<String>> = HashMap::new();
    for object in over.iter().flat_map(|(_, condemned)| &condemned.objects) {
        let name = object.place.to_string();
        let area = name.split_inclusive('/').next().unwrap_or_default();
        if !present.contains_key(area) {
            let names = store.list(area)?.into_iter().map(|object| object.name).collect();
            present.insert(area.to_owned(), names);
        }
    }
    over.retain(|(_, condemned)| {
        !condemned.objects.iter().any(|object| {
            let name = object.place.to_string();
            present.values().any(|names| names.contains(&name))
        })
    });
    let runs = Runs::read(repository)?;
    // A run that cannot be read might name any.
    if runs.unread {
        return Ok(());
    }
    let named: HashSet<PackId> = runs.found.into_iter().flat_map(|run| run.outline.packs).collect();
    let mut left: Vec<(&CondemnedId, &Condemned)> = Vec::new();
    for (id, condemned) in over {
        match packs_of(condemned).any(|pack| named.contains(pack)) {
            true => left.push((*id, *condemned)),
            false => store.delete(&format!("condemned/{id}"))?,
        }
    }
    if left.len() < TOMBSTONES {
        return Ok(());
    }
    let mut packs: BTreeSet<PackId> = BTreeSet::new();
    let mut absorbed: BTreeSet<CondemnedId> = BTreeSet::new();
    let mut grace_seconds = 0;
    for (id, condemned) in left {
        let more: Vec<PackId> = packs_of(condemned).filter(|pack| named.contains(*pack)).copied().collect();
        if packs.len() + more.len() > PACKS_MAX {
            break;
        }
        packs.extend(more);
        absorbed.insert(*id);
        grace_seconds = grace_seconds.max(condemned.grace_seconds);
    }
    if absorbed.len() < 2 {
        return Ok(());
    }
    let condemned = Condemned {
        created: repository.environment().clock.now(),
        store_time: view.now,
        grace_seconds,
        session: presence.id(),
        sessions: Vec::new(),
        dead: IdSet::default(),
        superfluous: IdSet::default(),
        copies: IdSet::default(),
        tombstones: packs.into_iter().collect(),
        objects: Vec::new(),
        absorbs: absorbed.iter().copied().collect(),
        bytes: 0,
        program: options.program.clone(),
        catalogue: None,
        extra: Extra::new(),
    };
    let payload = condemned.encode().map_err(RepoError::damaged("the condemnation being written"))?;
    repository.put_object("condemned", ObjectKind::Condemned, Act::Condemned, &payload)?;
    for id in absorbed {
        store.delete(&format!("condemned/{id}"))?;
    }
    Ok(())
}

fn packs_of(condemned: &Condemned) -> impl Iterator<Item = &PackId> {
    let sets = [&condemned.dead, &condemned.superfluous, &condemned.tombstones];
    sets.into_iter().flat_map(|set| set.iter())
}
