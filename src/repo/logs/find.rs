//! What the store holds of a segment, of a stream, of all streams: one short read an object.

use super::merged::{broken, is_merged};
use crate::base::{KeyId, LogPackId, ObjectId, Timestamp, limits};
use crate::format::FormatError;
use crate::format::envelope::Envelope;
use crate::format::kind::ObjectKind;
use crate::format::log::{LOG_HEAD_BYTES, LogPackFront, LogPackHead, LogRecord, LogRecordKind};
use crate::format::place::{MERGED_FOLDER, RECORDS_FOLDER};
use crate::format::trust::Act;
use crate::repo::error::RepoError;
use crate::repo::known::KnownObjects;
use crate::repo::repository::Repository;
use crate::repo::roots::Listing;
use crate::repo::sealed::open;
use crate::storage::{ObjectInfo, StorageError, Store};

/// Bytes of a log pack that are read first: head, origin and record of a segment of common length.
const FRONT_BYTES: u64 = 4096;

/// A record as this client found it. Its signature holds, and its signer may write the stream.
#[derive(Debug, Clone)]
pub struct FoundLog {
    /// The log pack, or the record by itself.
    pub id: LogPackId,
    /// The object's name in the store.
    pub object: String,
    /// The object's length.
    pub length: u64,
    /// The record.
    pub record: LogRecord,
    /// Who signed it.
    pub signer: KeyId,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
}

pub(super) fn id_of(object: &ObjectInfo) -> Option<ObjectId> {
    object.name.rsplit('/').next()?.parse().ok()
}

impl Repository {
    /// Lists what stands in the folder of a segment, what counts first ([CONCURRENCY-39]). Merged log packs
    /// are not looked into.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn find_log(&self, stream: &str, name: &str) -> Result<Listing<FoundLog>, RepoError> {
        let folder = self.log_segment_folder(stream, name);
        let objects = self.environment().store.list(&format!("{folder}/"))?;
        let mut listing = self.logs_in_with(objects, self.known_for_few())?;
        // A pack that was put into the folder of another segment says nothing about this one.
        let is_here = |found: &FoundLog| found.record.stream == stream && found.record.name == name;
        let (found, strangers) = listing.found.into_iter().partition(is_here);
        listing.found = found;
        listing.refused.extend(strangers.into_iter().map(misplaced));
        Ok(listing)
    }

    /// Does the same, and looks into merged log packs: what this does not find is not archived.
    ///
    /// # Errors
    ///
    /// As [`Repository::find_log`].
    pub fn search_log(&self, stream: &str, name: &str) -> Result<Listing<FoundLog>, RepoError> {
        let began = self.environment().clock.now();
        let folder = self.find_log(stream, name)?;
        let merged = self.merged_copies(stream, name, None)?;
        let ends = |found: &FoundLog| found.record.piece_offset.is_none() || found.record.whole.is_some();
        let is_there = folder.found.iter().chain(&merged.found).any(ends);
        // Nobody is told that something is not there because of what was so some hours ago.
        let merged = if is_there { merged } else { self.merged_copies(stream, name, Some(began))? };
        Ok(together(folder, merged))
    }

    /// Looks up what stands under a name before something is archived under it, and again afterwards
    /// ([LOG-PACK-7], [LOG-PACK-8]).
    pub(super) fn look_before(&self, stream: &str, name: &str) -> Result<Listing<FoundLog>, RepoError> {
        let folder = self.find_log(stream, name)?;
        Ok(together(folder, self.merged_copies(stream, name, None)?))
    }

    /// Lists the records of a stream that stand by themselves: gaps and conflicts.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn log_records(&self, stream: &str) -> Result<Listing<FoundLog>, RepoError> {
        self.read_logs(&format!("{}/{RECORDS_FOLDER}/", self.log_stream_folder(stream)))
    }

    /// Reads all records of a stream.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn log_stream(&self, stream: &str) -> Result<Listing<FoundLog>, RepoError> {
        let listing = self.read_logs(&format!("{}/", self.log_stream_folder(stream)))?;
        Ok(self.of_stream(stream, listing))
    }

    /// Refuses what speaks of another stream than the one in whose folder it lies.
    pub(super) fn of_stream(&self, stream: &str, mut listing: Listing<FoundLog>) -> Listing<FoundLog> {
        let (found, strangers) = listing.found.into_iter().partition(|found| found.record.stream == stream);
        listing.found = found;
        listing.refused.extend(strangers.into_iter().map(misplaced));
        listing
    }

    /// Reads all records of all streams.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn all_logs(&self) -> Result<Listing<FoundLog>, RepoError> {
        self.read_logs("logs/")
    }

    /// Reads the records of one object by its name; says too whether it is there and cannot be read.
    ///
    /// # Errors
    ///
    /// When the store cannot be asked.
    pub fn log_at(&self, name: &str) -> Result<(Vec<FoundLog>, bool), RepoError> {
        let listing = self.read_logs(name)?;
        let found = listing.found.into_iter().filter(|found| found.object == name).collect();
        Ok((found, !listing.refused.is_empty()))
    }

    fn read_logs(&self, prefix: &str) -> Result<Listing<FoundLog>, RepoError> {
        self.logs_in(self.environment().store.list(prefix)?)
    }

    /// Reads the records of objects that were listed: of those that this client has not read before, by a short
    /// read each.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn logs_in(&self, objects: Vec<ObjectInfo>) -> Result<Listing<FoundLog>, RepoError> {
        let known = if objects.is_empty() { None } else { self.known_objects() };
        self.logs_in_with(objects, known)
    }

    fn logs_in_with(
        &self,
        objects: Vec<ObjectInfo>,
        known: Option<&KnownObjects>,
    ) -> Result<Listing<FoundLog>, RepoError> {
        let mut listing = Listing { found: Vec::new(), refused: Vec::new() };
        let mut rows = Vec::new();
        for object in objects {
            let Some(id) = id_of(&object) else { continue };
            let kept = known.filter(|_| !is_merged(&object.name));
            let kept = kept.and_then(|known| unpack_row(&object, &known.get(id.as_bytes())?));
            if let Some((record, signer)) = kept {
                // Whom to believe may have changed since.
                match self.believe_log_record(&object.name, &record, &signer, id) {
                    Ok(()) => listing.found.push(found_log(&object, id, record, signer)),
                    Err(error) => listing.refused.push((object.name, error)),
                }
                continue;
            }
            match self.read_log_front(id, &object) {
                Ok((found, untrusted)) => {
                    if let ([one], true, false) = (found.as_slice(), known.is_some(), is_merged(&object.name))
                    {
                        rows.extend(pack_row(one).map(|row| (*id.as_bytes(), row)));
                    }
                    listing.found.extend(found);
                    listing.refused.extend(untrusted.map(|error| (object.name, error)));
                }
                // Removed since it was listed.
                Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ RepoError::Storage(StorageError::Transient { .. })) => return Err(error),
                // One object that the disk does not give back must not hide all others.
                Err(error) => listing.refused.push((object.name, error)),
            }
        }
        if let Some(known) = known.filter(|_| !rows.is_empty()) {
            known.put(self.environment().entropy.as_ref(), rows);
        }
        listing.found.sort_by_key(|found| (found.stored, found.id));
        Ok(listing)
    }

    /// Reads the records of one object: of a log pack the front, of a record by itself the whole.
    fn read_log_front(&self, id: ObjectId, object: &ObjectInfo) -> Result<ReadFront, RepoError> {
        let store = &self.environment().store;
        let name = &object.name;
        let mut folders = name.rsplit('/').skip(1);
        let found = |(record, signer)| found_log(object, id, record, signer);
        match folders.next() {
            Some(RECORDS_FOLDER) => {
                let bytes = store.get(name, limits::LOG_RECORD_BYTES_MAX)?;
                let (record, signer) = self.read_log_record(name, &bytes)?;
                let alone = matches!(record.kind, LogRecordKind::Gap | LogRecordKind::Conflict);
                return if alone {
                    Ok((vec![found((record, signer))], None))
                } else {
                    Err(broken(name, ALONE))
                };
            }
            Some(MERGED_FOLDER) => {
                let pack = self.read_merged_front(id, object)?;
                let untrusted = |why| RepoError::Untrusted { object: name.clone(), why };
                return Ok((pack.records, pack.untrusted.map(untrusted)));
            }
            _ => {}
        }
        let front = fetch_log_front(store.as_ref(), name, object.length)?;
        let front = LogPackFront::parse(&front).map_err(RepoError::damaged(name.as_str()))?;
        let records = front.records.iter().map(|record| self.read_log_record(name, record));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        check_records(name, &front.signer, &records)?;
        Ok((records.into_iter().map(found).collect(), None))
    }

    /// Opens a record: its own signature must hold, and its signer may write the stream ([LOG-PACK-3]).
    pub(super) fn read_log_record(&self, name: &str, bytes: &[u8]) -> Result<(LogRecord, KeyId), RepoError> {
        let (record, signer) = self.open_log_record(name, bytes)?;
        // A revocation names objects of the store: the log pack, not the record in it.
        let hash = || ObjectId::new(*blake3::hash(bytes).as_bytes());
        let object = name.rsplit('/').next().and_then(|id| id.parse().ok()).unwrap_or_else(hash);
        self.believe_log_record(name, &record, &signer, object)?;
        Ok((record, signer))
    }

    /// Says whether the signer of a record that stands in an object may have made it.
    pub(super) fn believe_log_record(
        &self,
        name: &str,
        record: &LogRecord,
        signer: &KeyId,
        object: ObjectId,
    ) -> Result<(), RepoError> {
        let act = match record.kind {
            LogRecordKind::Merged => Act::LogMerge,
            _ => Act::LogRecord { stream: &record.stream },
        };
        self.registry().believe(name, signer, act, &object)
    }

    /// Opens a record: its own signature must hold, whoever made it.
    pub(in crate::repo) fn open_log_record(
        &self,
        name: &str,
        bytes: &[u8],
    ) -> Result<(LogRecord, KeyId), RepoError> {
        // Its name in the store is that of what it stands in; it is named by its own hash.
        let id = ObjectId::new(*blake3::hash(bytes).as_bytes());
        Envelope::parse(bytes).map_err(RepoError::damaged(name))?;
        let signer = |key: &_| self.registry().any_key(key);
        let opened = open(name, id, ObjectKind::LogRecord, self.id(), self.keyring(), bytes, signer)?;
        let record = LogRecord::decode(&opened.payload).map_err(RepoError::damaged(name))?;
        Ok((record, opened.signer))
    }
}

/// Fetches the first bytes of a log pack: head, origins and records.
pub(super) fn fetch_log_front(store: &dyn Store, name: &str, length: u64) -> Result<Vec<u8>, RepoError> {
    let mut front = Vec::new();
    let first = usize::try_from(length.min(FRONT_BYTES)).unwrap_or(usize::MAX);
    store.get_range(name, 0, first, &mut front)?;
    if front.len() < LOG_HEAD_BYTES {
        return Err(RepoError::damaged(name)(FormatError::Truncated));
    }
    let head = LogPackHead::decode(&front).map_err(RepoError::damaged(name))?;
    let needed = usize::try_from(head.frames_offset()).unwrap_or(usize::MAX);
    if let Some(more) = needed.checked_sub(front.len()).filter(|more| *more > 0) {
        store.get_range(name, front.len() as u64, more, &mut front)?;
    }
    Ok(front)
}

const ALONE: &str = "a record by itself is a gap or a conflict";

pub(super) fn found_log(object: &ObjectInfo, id: ObjectId, record: LogRecord, signer: KeyId) -> FoundLog {
    FoundLog {
        id: id.into(),
        object: object.name.clone(),
        length: object.length,
        record,
        signer,
        stored: object.modified,
    }
}

/// What this client keeps of an object: its stored length, who signed its record, what that says.
pub(super) fn pack_row(found: &FoundLog) -> Option<Vec<u8>> {
    let payload = found.record.encode().ok()?;
    Some([found.length.to_le_bytes().as_slice(), found.signer.as_bytes(), &payload].concat())
}

/// Takes apart what is kept of an object.
pub(super) fn unpack_row(object: &ObjectInfo, row: &[u8]) -> Option<(LogRecord, KeyId)> {
    let (length, row) = row.split_first_chunk::<8>()?;
    let (signer, payload) = row.split_first_chunk::<32>()?;
    let record = LogRecord::decode(payload).ok()?;
    (u64::from_le_bytes(*length) == object.length).then(|| (record, KeyId::new(*signer)))
}

/// The records of an object that count, and why others in it do not.
type ReadFront = (Vec<FoundLog>, Option<RepoError>);

/// [LOG-PACK-1]: what a log pack may hold that is not merged.
fn check_records(name: &str, signer: &KeyId, records: &[(LogRecord, KeyId)]) -> Result<(), RepoError> {
    let [(record, own)] = records else {
        return Err(broken(name, "it holds records that do not belong together"));
    };
    if own != signer {
        return Err(broken(name, "its first record is signed by another key"));
    }
    match record.kind {
        LogRecordKind::Segment | LogRecordKind::Piece => Ok(()),
        _ => Err(broken(name, "it holds records that do not belong together")),
    }
}

/// Puts what was found in two places together, what counts first.
fn together(mut listing: Listing<FoundLog>, more: Listing<FoundLog>) -> Listing<FoundLog> {
    listing.found.extend(more.found);
    listing.found.sort_by_key(|found| (found.stored, found.id));
    listing.refused.extend(more.refused);
    listing
}

fn misplaced(found: FoundLog) -> (String, RepoError) {
    let why = format!("it speaks of {} in the log {}", found.record.name, found.record.stream);
    (found.object.clone(), RepoError::Untrusted { object: found.object, why })
}
