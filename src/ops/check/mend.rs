//! What parity brings back of what a check found damaged: told, or done where that was asked for.
//!
//! An object is put in the place of its damaged self in one step, and only once its bytes were found to have
//! its name as their hash; a crash leaves it damaged or right.

use super::report::{Findings, Mended};
use crate::base::explain;
use crate::ops::OpsError;
use crate::ops::parity::restore;
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
        let in_place = match restore(repository, &id, &object, false) {
            // Its bytes are right: something else is the matter with it.
            Ok(None) => continue,
            Ok(Some(in_place)) => in_place,
            Err(OpsError::Repo(RepoError::Storage(
                error @ (StorageError::Denied { .. }
                | StorageError::NoSpace { .. }
                | StorageError::Fatal { .. }),
            ))) => {
                let why = explain(&error);
                let text = format!("{object} could not be put right from its parity: {why}");
                repository.environment().observer.warn(&text);
                false
            }
            Err(error) => return Err(error),
        };
        mended.push(Mended { object, in_place });
    }
    Ok(mended)
}

/// Says of damaged objects whether parity would bring them back.
pub(super) fn foretell(repository: &Repository, findings: &Findings) -> Result<(), OpsError> {
    let mut remarks = BTreeMap::new();
    for (number, (object, id)) in findings.covered().into_iter().enumerate() {
        stop(repository)?;
        let remark = match number < FORETOLD_MAX {
            false => " (there is parity: `chronolith check --repair`)",
            true => match restore(repository, &id, &object, true)? {
                None => continue,
                Some(true) => " (its parity brings it back whole: `chronolith check --repair`)",
                Some(false) => " (more is lost than its parity can bring back)",
            },
        };
        remarks.insert(object, remark);
    }
    findings.remark(&remarks);
    Ok(())
}
