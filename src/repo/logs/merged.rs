//! Merged log packs: many records and their frames in one object.
//!
//! A listing tells which there are, and one short read what one holds: its first record sums it up in runs, which
//! this client keeps. A segment in one is found by the run that covers its name, then its record, then its
//! frames; nothing else is fetched.

use super::find::{FoundLog, fetch_log_front, found_log, id_of, pack_row, unpack_row};
use super::frames::Frames;
use super::spans::Spans;
use super::sums::{covers, sums_up};
use crate::base::{KeyId, ObjectId, limits};
use crate::format::FormatError;
use crate::format::log::{LOG_HEAD_BYTES, LogPackFront, LogPackHead, LogRecord, LogRecordKind};
use crate::format::pack::ORIGIN_BYTES;
use crate::format::place::MERGED_FOLDER;
use crate::format::trust::{Act, Standing};
use crate::repo::error::RepoError;
use crate::repo::memory::{Told, merge};
use crate::repo::repository::Repository;
use crate::repo::roots::Listing;
use crate::storage::{ObjectInfo, StorageError};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes that are read first: head, a few origins, and the record of a merge.
const FIRST_BYTES: usize = 4096;
/// From so many on that this client has not seen, catalogues are asked.
const WORTH_A_CATALOGUE: usize = 8;
/// Merged log packs whose records are remembered.
const REMEMBERED: usize = 4;

/// A merged log pack that was listed, and what its first record says.
type ReadMerge = (ObjectInfo, Result<FoundLog, RepoError>);

/// What a log stream holds, without reading what merged log packs hold.
pub struct LogOutline {
    /// What lies by itself.
    pub logs: Listing<FoundLog>,
    /// Merged log packs, each by its first record.
    pub merges: Vec<FoundLog>,
}

/// What this process knows of merged log packs.
#[derive(Default)]
pub struct MergedLogs {
    /// By the folder of a stream.
    pub(super) spans: Mutex<HashMap<String, Arc<Spans>>>,
    opened: Mutex<VecDeque<Arc<MergedPack>>>,
}

/// A merged log pack whose front was read: what it holds, each record verified by itself.
pub(super) struct MergedPack {
    pub merge: FoundLog,
    pub records: Vec<FoundLog>,
    /// Why some of its records do not count, where that is so.
    pub untrusted: Option<String>,
    pub front: Vec<u8>,
    pub frames: OnceLock<Frames>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says whether an object lies where merged log packs do.
pub(super) fn is_merged(object: &str) -> bool {
    object.rsplit('/').nth(1) == Some(MERGED_FOLDER)
}

pub(super) fn broken(name: &str, why: &'static str) -> RepoError {
    RepoError::damaged(name)(FormatError::Invalid { what: "log pack", why })
}

/// Returns why a record is not what a merged log pack of this name begins with.
pub(super) fn check_merge(
    name: &str,
    record: &LogRecord,
    signer: &KeyId,
    around: &KeyId,
) -> Result<(), RepoError> {
    if record.kind != LogRecordKind::Merged {
        return Err(broken(name, "it holds records that do not belong together"));
    }
    if signer != around {
        return Err(broken(name, "its first record is signed by another key"));
    }
    Ok(())
}

impl Repository {
    /// Lists the merged log packs of a stream: one short read for each that this client has not seen before.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn merged_logs(&self, stream: &str) -> Result<Listing<FoundLog>, RepoError> {
        self.merged_logs_in(&self.log_stream_folder(stream))
    }

    /// Does the same by the folder of the stream, without a slash at its end.
    ///
    /// # Errors
    ///
    /// As [`Repository::merged_logs`].
    pub fn merged_logs_in(&self, folder: &str) -> Result<Listing<FoundLog>, RepoError> {
        self.merges_in(folder, self.environment().store.list(&format!("{folder}/{MERGED_FOLDER}/"))?)
    }

    /// Lists a stream: what lies by itself, and merged log packs as their first records sum them up. Where a key that may
    /// write was revoked, what is in merged ones is told record by record, since not all of it may count ([LOG-PACK-3]).
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn log_outline(&self, stream: &str) -> Result<LogOutline, RepoError> {
        if self.registry().trust().keys.iter().any(|key| key.standing() == Standing::Revoked) {
            return Ok(LogOutline { logs: self.log_stream(stream)?, merges: Vec::new() });
        }
        let folder = self.log_stream_folder(stream);
        let objects = self.environment().store.list(&format!("{folder}/"))?;
        let (merged, alone) = objects.into_iter().partition(|object| is_merged(&object.name));
        let mut logs = self.of_stream(stream, self.logs_in(alone)?);
        let merges = self.merges_in(&folder, merged)?;
        logs.refused.extend(merges.refused);
        Ok(LogOutline { logs, merges: merges.found })
    }

    /// Reads all records of a merged log pack that count.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is not what it must be.
    pub fn merge_records(&self, merge: &FoundLog) -> Result<Vec<FoundLog>, RepoError> {
        let object = ObjectInfo { name: merge.object.clone(), length: merge.length, modified: merge.stored };
        Ok(self.merged_pack(&object)?.records.clone())
    }

    fn merges_in(&self, folder: &str, objects: Vec<ObjectInfo>) -> Result<Listing<FoundLog>, RepoError> {
        let mut listing = Listing { found: Vec::new(), refused: Vec::new() };
        for (object, read) in self.read_merges(objects) {
            match read.and_then(|merge| self.believe_merge(&merge).map(|()| merge)) {
                Ok(merge) if self.log_stream_folder(&merge.record.stream) == folder => {
                    listing.found.push(merge);
                }
                Ok(_) => {
                    let why = "it is of another log".to_owned();
                    let error = RepoError::Untrusted { object: object.name.clone(), why };
                    listing.refused.push((object.name, error));
                }
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                Err(error) => listing.refused.push((object.name, error)),
            }
        }
        listing.found.sort_by_key(|merge| (merge.stored, merge.id));
        Ok(listing)
    }

    pub(super) fn merged_folder(&self, stream: &str) -> String {
        format!("{}/{MERGED_FOLDER}/", self.log_stream_folder(stream))
    }

    /// Whose merges count.
    fn believe_merge(&self, merge: &FoundLog) -> Result<(), RepoError> {
        let id = ObjectId::from(merge.id);
        self.registry().believe(&merge.object, &merge.signer, Act::LogMerge, &id)
    }

    /// Reads the first records of merged log packs: those that this client has not seen from a catalogue, and where none
    /// lists one by a short read. Whether their signers may make such is not asked.
    pub(super) fn read_merges(&self, objects: Vec<ObjectInfo>) -> Vec<ReadMerge> {
        if objects.is_empty() {
            return Vec::new();
        }
        let known = self.known_objects();
        let kept = |object: &ObjectInfo, id: ObjectId| {
            let (record, signer) = unpack_row(object, &known?.get(id.as_bytes())?)?;
            Some(found_log(object, id, record, signer))
        };
        let named = objects.into_iter().filter_map(|object| Some((id_of(&object)?, object)));
        let looked_up: Vec<_> = named.map(|(id, object)| (kept(&object, id), id, object)).collect();
        let unseen = looked_up.iter().filter(|(kept, ..)| kept.is_none()).count();
        // Where catalogues cannot be read either, that is told of each by itself.
        let memory = (unseen >= WORTH_A_CATALOGUE).then(|| self.memory().ok()).flatten();
        let listed = |object: &ObjectInfo, id: &ObjectId| {
            let Told::There(entry) = memory.as_ref()?.told(id)? else { return None };
            let merge = merge(entry).filter(|merge| merge.length == object.length)?;
            (merge.object == object.name).then_some(FoundLog { stored: object.modified, ..merge })
        };
        let (mut read, mut rows) = (Vec::with_capacity(looked_up.len()), Vec::new());
        for (kept, id, object) in looked_up {
            let merge = match kept {
                Some(merge) => Ok(merge),
                None => {
                    let merge = match listed(&object, &id) {
                        Some(merge) => Ok(merge),
                        None => self.fetch_merge(&object),
                    };
                    let row = merge.as_ref().ok().and_then(pack_row);
                    rows.extend(row.map(|row| (*id.as_bytes(), row)));
                    merge
                }
            };
            read.push((object, merge));
        }
        if let Some(known) = known.filter(|_| !rows.is_empty()) {
            known.put(self.environment().entropy.as_ref(), rows);
        }
        read
    }

    /// Fetches the first record of a merged log pack; whether its signer may make one is not asked.
    pub(super) fn fetch_merge(&self, object: &ObjectInfo) -> Result<FoundLog, RepoError> {
        let name = object.name.as_str();
        let id = id_of(object).ok_or_else(|| broken(name, "its name is none"))?;
        let (around, first) = self.fetch_first_record(name, object.length)?;
        let (record, signer) = self.open_log_record(name, &first)?;
        check_merge(name, &record, &signer, &around)?;
        Ok(found_log(object, id, record, signer))
    }

    /// Fetches the record of a merge as it was sealed and signed.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is not what it must be.
    pub fn merge_original(&self, merge: &FoundLog) -> Result<Vec<u8>, RepoError> {
        let (around, first) = self.fetch_first_record(&merge.object, merge.length)?;
        let (record, signer) = self.open_log_record(&merge.object, &first)?;
        check_merge(&merge.object, &record, &signer, &around)?;
        Ok(first)
    }

    /// Fetches who signed a log pack, and its first record.
    fn fetch_first_record(&self, name: &str, length: u64) -> Result<(KeyId, Vec<u8>), RepoError> {
        let store = &self.environment().store;
        let mut front = Vec::new();
        store.get_range(name, 0, at_most(length, FIRST_BYTES), &mut front)?;
        let head = LogPackHead::decode(&front).map_err(RepoError::damaged(name))?;
        let records_at = LOG_HEAD_BYTES + usize::from(head.origin_count) * ORIGIN_BYTES;
        let end = usize::try_from(head.frames_offset()).unwrap_or(usize::MAX);
        let mut first = front.split_off(records_at.min(front.len()));
        let more = |first: &mut Vec<u8>, wanted: usize| match wanted.checked_sub(first.len()) {
            None | Some(0) => Ok(()),
            Some(length) => store.get_range(name, (records_at + first.len()) as u64, length, first),
        };
        more(&mut first, FIRST_BYTES.min(end.saturating_sub(records_at)))?;
        let short = || RepoError::damaged(name)(FormatError::Truncated);
        let length = u32::from_le_bytes(*first.first_chunk().ok_or_else(short)?) as usize;
        if length as u64 > limits::LOG_RECORD_BYTES_MAX || records_at + 4 + length > end {
            return Err(broken(name, "its records overflow their place"));
        }
        more(&mut first, 4 + length)?;
        first.truncate(4 + length);
        Ok((head.signer, first.split_off(4.min(first.len()))))
    }

    /// Reads all records of a merged log pack. One that does not count by itself harms no other.
    pub(super) fn read_merged_front(
        &self,
        id: ObjectId,
        object: &ObjectInfo,
    ) -> Result<MergedPack, RepoError> {
        let name = object.name.as_str();
        let bytes = fetch_log_front(self.environment().store.as_ref(), name, object.length)?;
        let front = LogPackFront::parse(&bytes).map_err(RepoError::damaged(name))?;
        let opened = front.records.iter().map(|record| self.open_log_record(name, record));
        let mut opened = opened.collect::<Result<VecDeque<_>, _>>()?;
        let short = || RepoError::damaged(name)(FormatError::Truncated);
        let (record, signer) = opened.pop_front().ok_or_else(short)?;
        check_merge(name, &record, &signer, &front.signer)?;
        let merge = found_log(object, id, record, signer);
        self.believe_merge(&merge)?;
        if opened.iter().any(|(record, _)| record.kind == LogRecordKind::Merged) {
            return Err(broken(name, "it holds records that do not belong together"));
        }
        let records: Vec<&LogRecord> = opened.iter().map(|(record, _)| record).collect();
        if !sums_up(&merge.record.runs, &records) {
            return Err(broken(name, "its runs do not sum up its records"));
        }
        let (mut found, mut untrusted) = (Vec::with_capacity(opened.len()), None);
        for (record, signer) in opened {
            let believed = match record.stream == merge.record.stream {
                true => self.believe_log_record(name, &record, &signer, id).map_err(|error| match error {
                    RepoError::Untrusted { why, .. } => why,
                    error => error.to_string(),
                }),
                false => Err(format!("it speaks of {} in the log {}", record.name, record.stream)),
            };
            match believed {
                Ok(()) => found.push(found_log(object, id, record, signer)),
                Err(why) => drop(untrusted.get_or_insert(why)),
            }
        }
        Ok(MergedPack { merge, records: found, untrusted, front: bytes, frames: OnceLock::new() })
    }

    /// Returns a merged log pack with all its records, from memory where it was read of late.
    pub(super) fn merged_pack(&self, object: &ObjectInfo) -> Result<Arc<MergedPack>, RepoError> {
        let id = id_of(object).ok_or_else(|| broken(&object.name, "its name is none"))?;
        let known = |opened: &VecDeque<Arc<MergedPack>>| {
            opened.iter().find(|pack| pack.merge.object == object.name).cloned()
        };
        if let Some(pack) = known(&lock(&self.merged_logs.opened)) {
            return Ok(pack);
        }
        let pack = Arc::new(self.read_merged_front(id, object)?);
        let mut opened = lock(&self.merged_logs.opened);
        opened.push_back(pack.clone());
        if opened.len() > REMEMBERED {
            opened.pop_front();
        }
        Ok(pack)
    }
}

impl FoundLog {
    /// Says whether a merged log pack may hold a segment of this name.
    pub fn covers(&self, name: &str) -> bool {
        self.record.runs.iter().any(|run| covers(run, name))
    }
}

pub(super) fn at_most(length: u64, most: usize) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).min(most)
}
