//! A segment becomes a log pack.
//!
//! Write order, and what a crash leaves: the folder of the segment is listed; where a store has folders, that one is
//! made while the segment is compressed; the log pack is put, durable once that returns; the folder is listed again, for
//! another who stored other bytes at the same moment; only then does anybody hear of success. A crash before the put
//! leaves nothing, or an empty folder, one after it a segment that the next attempt finds and makes durable itself
//! ([LOG-PACK-7]).

use super::find::FoundLog;
use super::merged::is_merged;
use crate::base::{LogPackId, ObjectId, Timestamp, limits};
use crate::format::kind::ObjectKind;
use crate::format::log::{LogChunk, LogContent, LogDigest, LogPackFront, LogRecord, LogRecordKind};
use crate::format::pack::BlobClass;
use crate::format::place::RECORDS_FOLDER;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::repo::error::RepoError;
use crate::repo::frames::{SessionOrigin, length_u32};
use crate::repo::packs::finish_pack;
use crate::repo::repository::Repository;
use crate::repo::roots::Listing;
use crate::repo::sealed::seal;
use std::collections::{BTreeMap, HashSet};

/// What is known of a segment besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct LogEntry {
    /// The stream: a cluster and its lineage.
    pub stream: String,
    /// Name of the segment's file.
    pub name: String,
    /// The host.
    pub host: String,
    /// Name and version of the program.
    pub program: String,
    /// The engine.
    pub engine: String,
    /// What tells one lineage from another.
    pub lineage: Option<String>,
    /// The timeline.
    pub timeline: Option<u64>,
    /// Where it begins and ends in the log.
    pub positions: Option<(u64, u64)>,
    /// The earliest and the latest commit in it.
    pub commits: Option<(Timestamp, Timestamp)>,
    /// What the engine needs to know.
    pub facts: BTreeMap<String, String>,
}

/// How archiving ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPut {
    /// It was stored.
    Stored(LogPackId),
    /// The same bytes were there already.
    Present(LogPackId),
}

impl LogEntry {
    pub(super) fn record(&self, kind: LogRecordKind, created: Timestamp) -> LogRecord {
        LogRecord {
            kind,
            stream: self.stream.clone(),
            name: self.name.clone(),
            created,
            host: self.host.clone(),
            program: self.program.clone(),
            last_name: None,
            content: None,
            piece_offset: None,
            whole: None,
            engine: self.engine.clone(),
            lineage: self.lineage.clone(),
            timeline: self.timeline,
            positions: self.positions,
            commits: self.commits,
            reason: None,
            against: None,
            runs: Vec::new(),
            replaces: IdSet::default(),
            facts: self.facts.clone(),
            extra: Default::default(),
        }
    }
}

/// Length and digest of bytes.
pub(super) fn digest(bytes: &[u8]) -> LogDigest {
    LogDigest { length: bytes.len() as u64, blake3: *blake3::hash(bytes).as_bytes() }
}

/// Returns the names of all objects of a listing.
fn names(listing: &Listing<FoundLog>) -> HashSet<String> {
    let found = listing.found.iter().map(|log| log.object.clone());
    found.chain(listing.refused.iter().map(|(name, _)| name.clone())).collect()
}

/// Returns the one of several that counts for a segment, or for a piece of one.
fn first_that_counts(found: &[FoundLog], piece: Option<(u64, Option<LogDigest>)>) -> Option<&FoundLog> {
    found.iter().find(|log| match piece {
        None => log.record.kind == LogRecordKind::Segment,
        Some((offset, _)) => log.record.piece_offset == Some(offset),
    })
}

/// Says whether what stands there cannot be true beside what is offered.
fn differs(log: &FoundLog, piece: Option<(u64, Option<LogDigest>)>, digest: &LogDigest) -> bool {
    let held = log.record.content.as_ref().map(|content| content.digest);
    match (piece, log.record.piece_offset) {
        (None, None) => held.is_some_and(|held| held != *digest),
        (None, Some(_)) => log.record.whole.is_some_and(|whole| whole != *digest),
        (Some((_, whole)), None) => whole.is_some_and(|whole| held.is_some_and(|held| held != whole)),
        (Some((offset, whole)), Some(held_at)) => {
            let other = |held: LogDigest| held.length == digest.length && held != *digest;
            (held_at == offset && held.is_some_and(other))
                || whole.zip(log.record.whole).is_some_and(|(offered, held)| offered != held)
        }
    }
}

impl Repository {
    /// Refuses unless this key may archive segments of the stream.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`], or [`RepoError::TooNew`] where a feature allows reading only.
    pub fn require_log_writer(&self, stream: &str) -> Result<(), RepoError> {
        let key = &self.keyring().identity.key;
        self.registry().may_sign(key, Act::LogRecord { stream })?;
        self.registry().may_sign(key, Act::LogPack)?;
        crate::repo::open::check_features(self.config(), true)
    }

    /// Archives a segment of at most 128 MiB. Durable on return.
    ///
    /// # Errors
    ///
    /// [`RepoError::LogTaken`] when other bytes have the name, which is then recorded as a conflict; or
    /// when this key may not write the stream, or the store fails.
    pub fn archive_log(&self, entry: &LogEntry, bytes: &[u8]) -> Result<LogPut, RepoError> {
        self.archive_log_telling(entry, bytes, || entry.clone())
    }

    /// Does the same, and has `tell` say the rest of what is known of the segment while it is compressed. What says where
    /// it belongs must be the same as in `entry`.
    ///
    /// # Errors
    ///
    /// As [`Repository::archive_log`].
    pub fn archive_log_telling(
        &self,
        entry: &LogEntry,
        bytes: &[u8],
        tell: impl FnOnce() -> LogEntry + Send,
    ) -> Result<LogPut, RepoError> {
        self.require_log_writer(&entry.stream)?;
        let found = self.look_before(&entry.stream, &entry.name)?;
        if !found.found.is_empty() {
            let entry = tell();
            let digest = digest(bytes);
            if let Some(present) = self.present(&entry, &found.found, None, &digest)? {
                return Ok(LogPut::Present(present));
            }
            return self.store_log(&entry, bytes, &found, || entry.clone());
        }
        self.store_log(entry, bytes, &found, tell)
    }

    /// Stores a segment beside what was found under its name.
    fn store_log(
        &self,
        entry: &LogEntry,
        bytes: &[u8],
        found: &Listing<FoundLog>,
        tell: impl FnOnce() -> LogEntry + Send,
    ) -> Result<LogPut, RepoError> {
        let folder = self.log_segment_folder(&entry.stream, &entry.name);
        let clock = self.environment().clock.clone();
        let mut told = None;
        let record = || told.insert(tell()).record(LogRecordKind::Segment, clock.now());
        let stored = self.put_log(&folder, record, bytes)?;
        self.settle(told.as_ref().unwrap_or(entry), &names(found), stored, None, bytes)
    }

    /// Archives a piece of a long segment, which begins at `offset`; the piece that ends the segment says
    /// what the whole is. Durable on return.
    ///
    /// # Errors
    ///
    /// As [`Repository::archive_log`].
    pub fn archive_log_piece(
        &self,
        entry: &LogEntry,
        offset: u64,
        bytes: &[u8],
        whole: Option<LogDigest>,
    ) -> Result<LogPut, RepoError> {
        self.require_log_writer(&entry.stream)?;
        let found = self.look_before(&entry.stream, &entry.name)?;
        if !found.found.is_empty() {
            let digest = digest(bytes);
            if let Some(present) = self.present(entry, &found.found, Some((offset, whole)), &digest)? {
                return Ok(LogPut::Present(present));
            }
        }
        let record = LogRecord {
            piece_offset: Some(offset),
            whole,
            ..entry.record(LogRecordKind::Piece, self.environment().clock.now())
        };
        let folder = self.log_segment_folder(&entry.stream, &entry.name);
        let stored = self.put_log(&folder, || record, bytes)?;
        self.settle(entry, &names(&found), stored, Some((offset, whole)), bytes)
    }

    /// Looks once more after a put: of two that stored different bytes under one name at the same moment
    /// only the one that counts may be told of success.
    pub(super) fn settle(
        &self,
        entry: &LogEntry,
        known: &HashSet<String>,
        stored: LogPackId,
        piece: Option<(u64, Option<LogDigest>)>,
        bytes: &[u8],
    ) -> Result<LogPut, RepoError> {
        let folder = format!("{}/", self.log_segment_folder(&entry.stream, &entry.name));
        let own = stored.to_string();
        let is_new = |name: &String| !known.contains(name) && name.strip_prefix(&folder) != Some(&own);
        let mut is_other = self.environment().store.list(&folder)?.iter().any(|object| is_new(&object.name));
        let merged = self.merged_copies(&entry.stream, &entry.name, None)?.found;
        is_other |= merged.iter().any(|log| !known.contains(&log.object));
        if is_other {
            let found = self.look_before(&entry.stream, &entry.name)?.found;
            let digest = digest(bytes);
            if let Some(against) = first_that_counts(&found, piece).filter(|log| differs(log, piece, &digest))
            {
                return Err(self.taken(entry, &digest, against.id)?);
            }
        }
        Ok(LogPut::Stored(stored))
    }

    /// Says whether one of these holds the same bytes, whole, and makes it durable; puts a conflict and fails
    /// where the one that counts holds others.
    pub(super) fn present(
        &self,
        entry: &LogEntry,
        found: &[FoundLog],
        piece: Option<(u64, Option<LogDigest>)>,
        digest: &LogDigest,
    ) -> Result<Option<LogPackId>, RepoError> {
        if let Some(against) = first_that_counts(found, piece).filter(|log| differs(log, piece, digest)) {
            return Err(self.taken(entry, digest, against.id)?);
        }
        let mut forgotten = None;
        for log in found {
            let record = &log.record;
            let Some(content) = &record.content else { continue };
            let same = match piece {
                None => record.kind == LogRecordKind::Segment && content.digest == *digest,
                Some((offset, whole)) => {
                    record.piece_offset == Some(offset) && content.digest == *digest && record.whole == whole
                }
            };
            // A record says what the bytes were; whether they are still there, the bytes say.
            if !same || self.is_going(log, &mut forgotten)? {
                continue;
            }
            if is_merged(&log.object) {
                // Its originals were deleted after it was made durable, or are there still.
                if self.read_log(log).is_ok() {
                    return Ok(Some(log.id));
                }
            } else if let Ok(opened) = self.open_log(log) {
                // Whoever put them may not have come to the end of it: only a put of one's own that has
                // returned says that they are durable.
                self.environment().store.put(&log.object, &opened.bytes)?;
                return Ok(Some(log.id));
            }
        }
        match found.iter().find(|log| differs(log, piece, digest)) {
            Some(against) => Err(self.taken(entry, digest, against.id)?),
            None => Ok(None),
        }
    }

    /// Records that a name is taken, and returns the error that says so.
    fn taken(
        &self,
        entry: &LogEntry,
        digest: &LogDigest,
        against: LogPackId,
    ) -> Result<RepoError, RepoError> {
        self.record_conflict(entry, *digest, Some(against), "other bytes have this name already")?;
        Ok(RepoError::LogTaken { stream: entry.stream.clone(), name: entry.name.clone() })
    }

    /// Says whether a segment is listed with these bytes: whole, or in pieces that reach from end to end.
    /// Reads records only.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn lists_log(&self, stream: &str, name: &str, digest: &LogDigest) -> Result<bool, RepoError> {
        let found = self.look_before(stream, name)?.found;
        if let Some(whole) = first_that_counts(&found, None) {
            return Ok(!differs(whole, None, digest)
                && (self.is_fresh(whole) || !self.is_going(whole, &mut None)?));
        }
        let mut forgotten = None;
        for log in &found {
            if !self.is_fresh(log) && self.is_going(log, &mut forgotten)? {
                return Ok(false);
            }
        }
        let ends_so = |log: &FoundLog| log.record.whole == Some(*digest);
        let mut at = 0;
        while at < digest.length {
            let here = found.iter().filter(|log| log.record.piece_offset == Some(at));
            let longest = here.filter_map(|log| Some(log.record.content.as_ref()?.digest.length)).max();
            let Some(length) = longest.filter(|length| *length > 0) else { return Ok(false) };
            at += length;
        }
        Ok(at == digest.length && found.iter().any(ends_so))
    }

    /// Records that bytes were refused, unless that is recorded already: whoever is refused tries for ever.
    ///
    /// # Errors
    ///
    /// When this key may not write the stream, or the store fails.
    pub fn record_conflict(
        &self,
        entry: &LogEntry,
        digest: LogDigest,
        against: Option<LogPackId>,
        reason: &str,
    ) -> Result<(), RepoError> {
        let recorded = self.log_records(&entry.stream)?.found.iter().any(|known| {
            let known = &known.record;
            known.kind == LogRecordKind::Conflict
                && known.name == entry.name
                && known.lineage == entry.lineage
                && known.content.as_ref().is_some_and(|content| content.digest == digest)
        });
        if recorded {
            return Ok(());
        }
        let record = LogRecord {
            content: Some(LogContent { digest, chunks: Vec::new(), extra: Default::default() }),
            against,
            reason: Some(reason.to_owned()),
            ..entry.record(LogRecordKind::Conflict, self.environment().clock.now())
        };
        self.put_log_record(&record).map(drop)
    }

    /// Records that the segments from one to another will never come ([LOG-PACK-9]).
    ///
    /// # Errors
    ///
    /// When this key may not write the stream, or the store fails.
    pub fn record_gap(&self, entry: &LogEntry, last_name: &str, reason: &str) -> Result<ObjectId, RepoError> {
        self.put_log_record(&LogRecord {
            last_name: Some(last_name.to_owned()),
            reason: Some(reason.to_owned()),
            ..entry.record(LogRecordKind::Gap, self.environment().clock.now())
        })
    }

    pub(super) fn put_log_record(&self, record: &LogRecord) -> Result<ObjectId, RepoError> {
        let payload = record.encode().map_err(RepoError::damaged("the log record being written"))?;
        let folder = format!("{}/{RECORDS_FOLDER}", self.log_stream_folder(&record.stream));
        self.put_object(&folder, ObjectKind::LogRecord, Act::LogRecord { stream: &record.stream }, &payload)
    }

    /// Makes a log pack of a record and its bytes, and puts it. What the record says besides its content is found out
    /// meanwhile.
    pub(super) fn put_log(
        &self,
        folder: &str,
        record: impl FnOnce() -> LogRecord + Send,
        bytes: &[u8],
    ) -> Result<LogPackId, RepoError> {
        if bytes.is_empty() || bytes.len() as u64 > limits::LOG_PIECE_BYTES_MAX {
            let why = match bytes.is_empty() {
                true => "it is empty",
                false => "it is too long for one object",
            };
            return Err(RepoError::Usage(format!("{} cannot be archived: {why}", record().name)));
        }
        let entropy = self.environment().entropy.as_ref();
        let session =
            SessionOrigin::draw(BlobClass::Content, self.suite(), self.id(), self.keyring(), entropy)?;
        let store = &self.environment().store;
        let (mut record, sealed) = std::thread::scope(|scope| {
            let record = scope.spawn(|| {
                // Waits for the disk for the most part, and nobody else has to.
                store.expect_put(folder);
                record()
            });
            let sealed = self.seal_segment(&session, bytes);
            // Waited for first: a panic is an error here, and nothing else.
            let record = record.join().map_err(|_| panicked());
            Ok::<_, RepoError>((record?, sealed?))
        })?;
        let chunks = sealed.ids.iter().map(|(id, length)| LogChunk { id: *id, length: *length }).collect();
        record.content = Some(LogContent { digest: sealed.digest, chunks, extra: Default::default() });
        let record = record.encode().map_err(RepoError::damaged("the log record being written"))?;
        let (suite, keyring) = (self.suite(), self.keyring());
        let record = seal(ObjectKind::LogRecord, suite, self.id(), keyring, entropy, &record)?;
        let front = LogPackFront {
            signer: keyring.identity.key,
            origins: vec![session.origin],
            records: vec![&record],
        };
        let mut head = Vec::new();
        front.encode(&mut head).map_err(RepoError::damaged("the log pack being written"))?;
        let mut pack = Vec::new();
        let mut frames = Vec::with_capacity(sealed.frames.len());
        for (mut record, bytes) in sealed.frames {
            record.offset = length_u32(head.len() + pack.len())?;
            match pack.is_empty() {
                // There is room behind it: that of its encoder.
                true => pack = bytes,
                false => pack.extend_from_slice(&bytes),
            }
            frames.push(record);
        }
        let origins = front.origins;
        pack.splice(0..0, head);
        let pack =
            finish_pack(ObjectKind::LogPack, origins, pack, frames, suite, self.id(), keyring, entropy)?;
        store.put(&format!("{folder}/{}", pack.id), &pack.bytes)?;
        Ok(ObjectId::from(pack.id).into())
    }
}

pub(super) fn panicked() -> RepoError {
    RepoError::Internal { doing: "archiving a segment", why: "a thread panicked".to_owned() }
}
