//! Merged log packs of a stream, and whether they hold what another log pack holds: then that may go, or went ([CONCURRENCY-40]).

use super::error::OpsError;
use crate::base::LogPackId;
use crate::repo::{FoundLog, RepoError, Repository};
use crate::storage::StorageError;
use std::collections::{BTreeSet, HashMap};

/// What stands in for others: records by the hash of their bytes, read where it matters.
pub(super) struct Holders<'a> {
    repository: &'a Repository,
    /// Those that may stand in for others.
    pub merges: Vec<FoundLog>,
    hashes: HashMap<LogPackId, BTreeSet<[u8; 32]>>,
}

/// A log pack of which the question is asked.
pub(super) struct Held<'a> {
    pub id: LogPackId,
    /// Some names that it holds.
    pub names: &'a [&'a str],
    pub is_merged: bool,
}

impl<'a> Holders<'a> {
    pub fn new(repository: &'a Repository, merges: Vec<FoundLog>) -> Self {
        Self { repository, merges, hashes: HashMap::new() }
    }

    /// Returns the records of a merged log pack; none of one that is not what it must be.
    fn hashes(&mut self, merge: &FoundLog) -> Result<&BTreeSet<[u8; 32]>, OpsError> {
        if !self.hashes.contains_key(&merge.id) {
            let hashes = readable(self.repository.merge_hashes(merge))?;
            self.hashes.insert(merge.id, hashes.unwrap_or_default());
        }
        Ok(self.hashes.entry(merge.id).or_default())
    }

    /// Returns the merged log packs that hold all records of a log pack; their hashes are asked for where any may. Of two that
    /// hold the same only one stands in for the other.
    ///
    /// # Errors
    ///
    /// When a store does not answer.
    pub fn holding(
        &mut self,
        held: &Held<'_>,
        records: impl FnOnce() -> Result<BTreeSet<[u8; 32]>, RepoError>,
    ) -> Result<Vec<FoundLog>, OpsError> {
        let covers =
            |merge: &&FoundLog| merge.id != held.id && held.names.iter().all(|name| merge.covers(name));
        let candidates: Vec<FoundLog> = self.merges.iter().filter(covers).cloned().collect();
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let Some(own) = readable(records())? else { return Ok(Vec::new()) };
        let mut holding = Vec::new();
        for merge in candidates {
            let there = self.hashes(&merge)?;
            let better = !held.is_merged || there.len() > own.len() || merge.id < held.id;
            if better && !own.is_empty() && own.is_subset(there) {
                holding.push(merge);
            }
        }
        Ok(holding)
    }
}

/// What was read; nothing of what cannot be read.
fn readable<T>(read: Result<T, RepoError>) -> Result<Option<T>, OpsError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ RepoError::Storage(StorageError::Transient { .. })) => Err(error.into()),
        Err(_) => Ok(None),
    }
}
