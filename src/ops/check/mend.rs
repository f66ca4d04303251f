//! What parity, a second copy or a catalogue, brings back of what a check found damaged: told, or done where that was asked for.
//!
//! An object is put in the place of its damaged self in one step, and only once its bytes were found to have
//! its name as their hash; a crash leaves it damaged or right.

use super::copies::find;
use super::report::{Findings, Mended, MendedFrom};
use crate::base::explain;
use crate::ops::OpsError;
use crate::ops::parity::{Stock, remake, restore};
use crate::repo::{RepoError, Repository};
use crate::storage::StorageError;
use std::collections::BTreeMap;

/// Damaged objects for which it is reckoned whether parity brings them back; of the rest it is only said that
/// there is some.
const FORETOLD_MAX: usize = 200;

fn stop(repository: &Repository) -> Result<(), OpsError> {
    match repository.environment().observer.interrupted() {
        true => Err(RepoError::Interrupted.into()),
        false => Ok(()),
    }
}

/// Puts right what it can; returns what was tried.
pub(super) fn mend(repository: &Repository, findings: &Findings) -> Result<Vec<Mended>, OpsError> {
    let mut mended = Vec::new();
    for (object, id) in findings.covered() {
        stop(repository)?;
        // Where its bytes are right something else is the matter with it.
        if let Some(in_place) = tried(repository, &object, restore(repository, &id, &object, false))? {
            mended.push(Mended { object, from: MendedFrom::Parity, in_place });
        }
    }
    // What parity has put right is right by now.
    for (object, (from, right)) in find(repository, &findings.damaged())? {
        stop(repository)?;
        let put = repository.environment().store.replace(&object, &right);
        let put = put.map(|()| Some(true)).map_err(|error| RepoError::from(error).into());
        if let Some(in_place) = tried(repository, &object, put)? {
            mended.retain(|tried| tried.object != object);
            mended.push(Mended { object, from, in_place });
        }
    }
    // Last, since only what is whole has parity.
    let parity = findings.damaged_parity();
    if parity.is_empty() {
        return Ok(mended);
    }
    let stock = Stock::take(repository)?;
    for object in parity {
        stop(repository)?;
        if let Some(in_place) = tried(repository, &object, remake(repository, &stock, &object, false))? {
            mended.push(Mended { object, from: MendedFrom::Subject, in_place });
        }
    }
    Ok(mended)
}

/// Takes what came of putting something right. That the store does not take it is a warning.
fn tried(
    repository: &Repository,
    object: &str,
    result: Result<Option<bool>, OpsError>,
) -> Result<Option<bool>, OpsError> {
    match result {
        Err(OpsError::Repo(RepoError::Storage(
            error @ (StorageError::Denied { .. } | StorageError::NoSpace { .. } | StorageError::Fatal { .. }),
        ))) => {
            let text = format!("{object} could not be put right: {}", explain(&error));
            repository.environment().observer.warn(&text);
            Ok(Some(false))
        }
        result => result,
    }
}

/// Says of damaged objects whether parity, a second copy or a catalogue would bring them back.
pub(super) fn foretell(repository: &Repository, findings: &Findings) -> Result<(), OpsError> {
    let mut remarks = BTreeMap::new();
    for (number, (object, id)) in findings.covered().into_iter().enumerate() {
        stop(repository)?;
        let remark = match number < FORETOLD_MAX {
            false => (true, " (there is parity: `chronolith check --repair`)"),
            true => match restore(repository, &id, &object, true)? {
                None => continue,
                Some(true) => (true, " (its parity brings it back whole: `chronolith check --repair`)"),
                Some(false) => (false, " (more is lost than its parity can bring back)"),
            },
        };
        remarks.insert(object, remark);
    }
    for (object, (from, _)) in find(repository, &findings.damaged())? {
        let remark = match from {
            MendedFrom::Catalogue => (true, " (a catalogue holds it whole: `chronolith check --repair`)"),
            _ => (true, " (its other copy is whole: `chronolith check --repair`)"),
        };
        remarks.insert(object, remark);
    }
    let parity = findings.damaged_parity();
    if !parity.is_empty() {
        let stock = Stock::take(repository)?;
        for object in parity.into_iter().take(FORETOLD_MAX) {
            stop(repository)?;
            let remark = match remake(repository, &stock, &object, true)? {
                None => continue,
                Some(true) => (true, " (it can be made anew: `chronolith check --repair`)"),
                Some(false) => (false, " (what it is of is damaged as well)"),
            };
            remarks.insert(object, remark);
        }
    }
    findings.remark(&remarks);
    Ok(())
}
