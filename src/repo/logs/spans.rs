//! Which names merged log packs may hold: what a client must know to look up or to archive one segment.
//!
//! An original is deleted no sooner than a day after the merged log pack that holds it was stored
//! ([CONCURRENCY-40]). So whoever has listed merged log packs within half a day finds in the segment's folder whatever
//! was merged since, and need not list them again ([LOG-PACK-8]). That something is *not* archived rests on a new
//! listing always.

use super::find::FoundLog;
use super::merged::lock;
use crate::base::Timestamp;
use crate::repo::error::RepoError;
use crate::repo::repository::Repository;
use crate::repo::roots::Listing;
use crate::storage::{ObjectInfo, StorageError};
use std::sync::Arc;

/// For how long a listing of merged log packs is good for who looks into the segment's folder, too.
const LISTING_SECONDS: i64 = 12 * 3600;
/// A merged log pack is at least as old as this when originals are deleted on account of it ([CONCURRENCY-40]).
pub const MERGED_LOG_SECONDS: u64 = 24 * 3600;

/// Which names merged log packs of a stream may hold, and when they were listed.
pub(super) struct Spans {
    listed: Timestamp,
    packs: Vec<Span>,
}

struct Span {
    object: ObjectInfo,
    /// First and last names; `None` where the record cannot be read, so that it may be any.
    names: Option<Vec<(String, String)>>,
}

impl Span {
    fn may_hold(&self, name: &str) -> bool {
        let within = |(first, last): &(String, String)| first.as_str() <= name && name <= last.as_str();
        self.names.as_ref().is_none_or(|names| names.iter().any(within))
    }
}

impl Repository {
    /// Returns the copies of a segment in merged log packs. What was listed within half a day will do,
    /// or only what was listed since some instant.
    pub(super) fn merged_copies(
        &self,
        stream: &str,
        name: &str,
        since: Option<Timestamp>,
    ) -> Result<Listing<FoundLog>, RepoError> {
        let mut listing = Listing { found: Vec::new(), refused: Vec::new() };
        for span in self.spans(stream, since)?.packs.iter().filter(|span| span.may_hold(name)) {
            match self.merged_pack(&span.object) {
                Ok(pack) => {
                    let here = pack.records.iter().filter(|found| found.record.name == name);
                    listing.found.extend(here.cloned());
                    let why = pack.untrusted.clone().filter(|_| listing.found.is_empty());
                    listing.refused.extend(why.map(|why| {
                        let object = span.object.name.clone();
                        (object.clone(), RepoError::Untrusted { object, why })
                    }));
                }
                // Deleted since it was listed.
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                Err(error) => listing.refused.push((span.object.name.clone(), error)),
            }
        }
        Ok(listing)
    }

    /// Returns which names merged log packs may hold, as of a listing that is young enough.
    fn spans(&self, stream: &str, since: Option<Timestamp>) -> Result<Arc<Spans>, RepoError> {
        let folder = self.merged_folder(stream);
        let now = self.environment().clock.now();
        let is_good = |spans: &Spans| {
            let age = now.seconds().saturating_sub(spans.listed.seconds());
            (0..LISTING_SECONDS).contains(&age) && since.is_none_or(|since| spans.listed >= since)
        };
        if let Some(spans) = lock(&self.merged_logs.spans).get(&folder).filter(|spans| is_good(spans)) {
            return Ok(spans.clone());
        }
        let store = &self.environment().store;
        // On a disk of this machine a listing takes less time than looking up what is kept of an older one.
        let near = if store.capabilities().distant { None } else { Some(store.list(&folder)?) };
        let known = if near.as_ref().is_some_and(Vec::is_empty) { None } else { self.known_objects() };
        let row = *blake3::hash(folder.as_bytes()).as_bytes();
        let kept = known.and_then(|known| unpack_spans(&folder, &known.get(&row)?));
        let spans = match kept.filter(is_good) {
            Some(spans) => Arc::new(spans),
            None => {
                let mut packs = Vec::new();
                let objects = near.map_or_else(|| store.list(&folder), Ok)?;
                for (object, read) in self.read_merges(objects) {
                    let names = match read {
                        Ok(merge) if merge.record.stream != stream => continue,
                        Ok(merge) => {
                            Some(merge.record.runs.into_iter().map(|run| (run.first, run.last)).collect())
                        }
                        Err(RepoError::Storage(StorageError::NotFound { .. })) => continue,
                        Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                        Err(_) => None,
                    };
                    packs.push(Span { object, names });
                }
                let spans = Spans { listed: now, packs };
                if let Some(known) = known {
                    known.put(self.environment().entropy.as_ref(), vec![(row, pack_spans(&spans))]);
                }
                Arc::new(spans)
            }
        };
        lock(&self.merged_logs.spans).insert(folder, spans.clone());
        Ok(spans)
    }
}

/// Stands for the names of one that cannot be read.
const ANY: u32 = u32::MAX;

fn pack_spans(spans: &Spans) -> Vec<u8> {
    let mut row = spans.listed.nanoseconds().to_le_bytes().to_vec();
    let number = |count: usize| u32::try_from(count).unwrap_or(ANY - 1).to_le_bytes();
    for span in &spans.packs {
        let id = span.object.name.rsplit('/').next().unwrap_or_default();
        row.extend_from_slice(id.as_bytes());
        row.extend_from_slice(&span.object.length.to_le_bytes());
        let stored = span.object.modified.map_or(i64::MIN, Timestamp::nanoseconds);
        row.extend_from_slice(&stored.to_le_bytes());
        row.extend_from_slice(&span.names.as_ref().map_or(ANY.to_le_bytes(), |names| number(names.len())));
        for name in span.names.iter().flatten().flat_map(|(first, last)| [first, last]) {
            row.extend_from_slice(&number(name.len()));
            row.extend_from_slice(name.as_bytes());
        }
    }
    row
}

fn unpack_spans(folder: &str, mut row: &[u8]) -> Option<Spans> {
    fn take<const N: usize>(row: &mut &[u8]) -> Option<[u8; N]> {
        let (taken, rest) = row.split_first_chunk::<N>()?;
        *row = rest;
        Some(*taken)
    }
    let listed = Timestamp::from_nanoseconds(i64::from_le_bytes(take(&mut row)?));
    let mut packs = Vec::new();
    while !row.is_empty() {
        let id = String::from_utf8(take::<64>(&mut row)?.to_vec()).ok()?;
        let length = u64::from_le_bytes(take(&mut row)?);
        let stored = i64::from_le_bytes(take(&mut row)?);
        let count = u32::from_le_bytes(take(&mut row)?);
        let mut name = || {
            let length = u32::from_le_bytes(take(&mut row)?) as usize;
            let (name, rest) = row.split_at_checked(length)?;
            row = rest;
            String::from_utf8(name.to_vec()).ok()
        };
        let names = match count {
            ANY => None,
            count => Some((0..count).map(|_| Some((name()?, name()?))).collect::<Option<Vec<_>>>()?),
        };
        let modified = (stored != i64::MIN).then(|| Timestamp::from_nanoseconds(stored));
        packs.push(Span { object: ObjectInfo { name: format!("{folder}{id}"), length, modified }, names });
    }
    Some(Spans { listed, packs })
}
