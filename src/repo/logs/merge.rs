//! Many log packs become one: records byte for byte, frames sealed as they are, with their origins. No key to
//! content is used, and none is needed.
//!
//! Write order, and what a crash after each step leaves:
//! 1. the sources are read whole, and the merged log pack is put: it holds what its sources hold, which says
//!    nothing new;
//! 2. it is read back, and only then does anybody hear of it.
//!
//! What it stands for is condemned by a prune, and deleted by one that finds it whole then ([CONCURRENCY-40]).

use super::find::{FoundLog, fetch_log_front};
use super::merged::{broken, check_merge, is_merged};
use super::read::OpenedLog;
use super::sums::{sum_up, sums_up};
use crate::base::{Timestamp, limits};
use crate::format::kind::ObjectKind;
use crate::format::log::{LogPackFront, LogRecord, LogRecordKind};
use crate::format::pack::{FrameRecord, Origin};
use crate::format::place::MERGED_FOLDER;
use crate::format::sets::IdSet;
use crate::format::trust::{Act, Standing};
use crate::repo::error::RepoError;
use crate::repo::frames::length_u32;
use crate::repo::packs::finish_pack;
use crate::repo::repository::Repository;
use crate::repo::sealed::seal;
use crate::storage::{ObjectInfo, Store};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes of its sources up to which a merged log pack is filled: room is left for what its front and its tail say of them.
pub const MERGED_BYTES: u64 = 224 << 20;
/// Records of a merged log pack: each was sealed under an origin of its own, as a rule.
pub const MERGED_RECORDS: usize = limits::PACK_ORIGINS_MAX as usize;

/// Why log packs were not merged, and the name of the one that it lies with, where it does.
pub type MergeFailure = (Option<String>, RepoError);

fn by_itself(error: RepoError) -> MergeFailure {
    (None, error)
}

/// What is gathered of sources on their way into one log pack.
#[derive(Default)]
struct Gathered {
    sealed: Vec<u8>,
    frames: Vec<FrameRecord>,
    origins: Vec<Origin>,
    numbers: HashMap<Origin, u16>,
    /// Where the frame of an origin and counter is, which none may share.
    taken: HashMap<(u16, u64), usize>,
    /// Records as they are stored, and what they say.
    records: Vec<(Vec<u8>, LogRecord)>,
}

impl Gathered {
    fn number(&mut self, origin: &Origin) -> Result<u16, RepoError> {
        if let Some(number) = self.numbers.get(origin) {
            return Ok(*number);
        }
        let full = || RepoError::Usage("so many log packs do not fit into one".to_owned());
        let number = u16::try_from(self.origins.len()).map_err(|_| full())?;
        if u64::from(number) >= limits::PACK_ORIGINS_MAX {
            return Err(full());
        }
        self.origins.push(*origin);
        self.numbers.insert(*origin, number);
        Ok(number)
    }

    /// Adds a frame; one that is there already is not added twice.
    fn add(
        &mut self,
        object: &str,
        frame: &FrameRecord,
        origin: &Origin,
        sealed: &[u8],
    ) -> Result<(), RepoError> {
        let origin = self.number(origin)?;
        let here = FrameRecord { origin, offset: length_u32(self.sealed.len())?, ..frame.clone() };
        if let Some(known) = self.taken.get(&(origin, frame.counter)).and_then(|at| self.frames.get(*at)) {
            let held = self.sealed.get(known.offset as usize..usize::try_from(known.end()).unwrap_or(0));
            let same = held == Some(sealed) && *known == FrameRecord { offset: known.offset, ..here };
            return if same {
                Ok(())
            } else {
                Err(broken(object, "another log pack holds something else as its frame"))
            };
        }
        self.taken.insert((origin, frame.counter), self.frames.len());
        self.frames.push(here);
        self.sealed.extend_from_slice(sealed);
        Ok(())
    }
}

impl Repository {
    /// Puts together what log packs of one stream hold, in the order in which they come; merged ones among them are
    /// taken whole. Durable and read back on return.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] for a key that may not merge; when one of them is damaged, does not count or does not
    /// fit, with its name; when the store fails.
    pub fn merge_logs(&self, sources: &[&FoundLog]) -> Result<FoundLog, MergeFailure> {
        let own = self.keyring().identity.key;
        self.registry().may_sign(&own, Act::LogMerge).map_err(by_itself)?;
        self.registry().may_sign(&own, Act::LogPack).map_err(by_itself)?;
        crate::repo::open::check_features(self.config(), true).map_err(by_itself)?;
        let nothing = || by_itself(RepoError::Usage("there is nothing to merge".to_owned()));
        let stream = sources.first().map(|log| log.record.stream.clone()).ok_or_else(nothing)?;
        let mut gathered = Gathered::default();
        let mut done: Vec<&str> = Vec::new();
        for log in sources {
            if self.environment().observer.interrupted() {
                return Err(by_itself(RepoError::Interrupted));
            }
            // A merged one holds many records.
            if !done.contains(&log.object.as_str()) {
                self.gather(log, &stream, &mut gathered)
                    .map_err(|error| (Some(log.object.clone()), error))?;
                done.push(&log.object);
            }
        }
        let object = self.put_merged(&stream, gathered).map_err(by_itself)?;
        let merge = self.fetch_merge(&object).map_err(by_itself)?;
        self.verify_merge(&merge).map_err(by_itself)?;
        Ok(merge)
    }

    fn gather(&self, log: &FoundLog, stream: &str, gathered: &mut Gathered) -> Result<(), RepoError> {
        let object = log.object.as_str();
        let opened = self.open_log(log)?;
        let front = LogPackFront::parse(&opened.bytes).map_err(RepoError::damaged(object))?;
        let merges = usize::from(is_merged(object));
        for (bytes, (record, signer)) in front.records.iter().zip(&opened.records).skip(merges) {
            let standing = self.registry().trust().key(signer).map(|key| key.standing());
            if record.stream != stream || !matches!(standing, Some(Standing::Active | Standing::Retired)) {
                let why = "it holds a record that does not count, or is of another log".to_owned();
                return Err(RepoError::Untrusted { object: object.to_owned(), why });
            }
            self.believe_log_record(object, record, signer, log.id.into())?;
            gathered.records.push((bytes.to_vec(), record.clone()));
        }
        for frame in opened.frames() {
            let origin = opened.origins().get(usize::from(frame.origin));
            let end = usize::try_from(frame.end()).unwrap_or(usize::MAX);
            let sealed = opened.bytes.get(frame.offset as usize..end);
            let (Some(origin), Some(sealed)) = (origin, sealed) else {
                return Err(broken(object, "a frame is cut short"));
            };
            gathered.add(object, frame, origin, sealed)?;
        }
        Ok(())
    }

    /// Seals and puts what was gathered.
    fn put_merged(&self, stream: &str, gathered: Gathered) -> Result<ObjectInfo, RepoError> {
        let (suite, keyring) = (self.suite(), self.keyring());
        let entropy = self.environment().entropy.as_ref();
        let records: Vec<&LogRecord> = gathered.records.iter().map(|(_, record)| record).collect();
        let merge = merge_record(stream, &records, self.environment().clock.now())?;
        let merge = merge.encode().map_err(RepoError::damaged("the log record being written"))?;
        let merge = seal(ObjectKind::LogRecord, suite, self.id(), keyring, entropy, &merge)?;
        let stored = gathered.records.iter().map(|(bytes, _)| bytes.as_slice());
        let front = LogPackFront {
            signer: keyring.identity.key,
            origins: gathered.origins.clone(),
            records: [merge.as_slice()].into_iter().chain(stored).collect(),
        };
        let mut pack = Vec::new();
        front.encode(&mut pack).map_err(RepoError::damaged("the log pack being written"))?;
        let mut frames = gathered.frames;
        let before = length_u32(pack.len())?;
        for frame in &mut frames {
            frame.offset = frame.offset.checked_add(before).ok_or_else(too_long)?;
        }
        // The frames are moved back, so that they are in memory once.
        let mut bytes = gathered.sealed;
        bytes.splice(0..0, pack);
        if bytes.len() as u64 > limits::PACK_BYTES_MAX {
            return Err(too_long());
        }
        let (kind, origins) = (ObjectKind::LogPack, gathered.origins);
        let pack = finish_pack(kind, origins, bytes, frames, suite, self.id(), keyring, entropy)?;
        if pack.bytes.len() as u64 > limits::PACK_BYTES_MAX {
            return Err(too_long());
        }
        let name = format!("{}/{MERGED_FOLDER}/{}", self.log_stream_folder(stream), pack.id);
        let store = &self.environment().store;
        store.put(&name, &pack.bytes)?;
        drop(pack);
        Ok(store.head(&name)?)
    }

    /// Reads a merged log pack whole: its name, its signature, its records and what sums them up, and that it holds
    /// whatever they name.
    ///
    /// # Errors
    ///
    /// When any of it does not hold, or the store fails.
    pub fn verify_merge(&self, merge: &FoundLog) -> Result<(), RepoError> {
        self.open_merge(merge).map(drop)
    }

    fn open_merge(&self, merge: &FoundLog) -> Result<OpenedLog, RepoError> {
        let opened = self.open_log(merge)?;
        let [(first, signer), rest @ ..] = opened.records.as_slice() else {
            return Err(broken(&merge.object, "it has no records"));
        };
        check_merge(&merge.object, first, signer, &opened.signer)?;
        let records: Vec<&LogRecord> = rest.iter().map(|(record, _)| record).collect();
        match sums_up(&first.runs, &records) {
            true => Ok(opened),
            false => Err(broken(&merge.object, "its runs do not sum up its records")),
        }
    }

    /// Makes a merged log pack durable that somebody else may have put and not come to the end of it, and reads it
    /// whole before.
    ///
    /// # Errors
    ///
    /// As [`Repository::verify_merge`].
    pub fn secure_merge(&self, merge: &FoundLog) -> Result<(), RepoError> {
        let opened = self.open_merge(merge)?;
        self.environment().store.put(&merge.object, &opened.bytes)?;
        Ok(())
    }

    /// Returns the hashes of the records that a merged log pack holds, each of which opens and is summed up as it says.
    ///
    /// # Errors
    ///
    /// When any of it does not hold, or the store fails.
    pub fn merge_hashes(&self, merge: &FoundLog) -> Result<BTreeSet<[u8; 32]>, RepoError> {
        let (name, length, modified) = (merge.object.clone(), merge.length, merge.stored);
        let pack = self.read_merged_front(merge.id.into(), &ObjectInfo { name, length, modified })?;
        hashes_of(&merge.object, &pack.front)
    }

    /// Returns the hashes of the records that a log pack holds: what another must hold to stand in for it.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn log_record_hashes(&self, object: &str, length: u64) -> Result<BTreeSet<[u8; 32]>, RepoError> {
        hashes_of(object, &fetch_log_front(self.environment().store.as_ref(), object, length)?)
    }

    /// Does the same with an object of another store; returns too the names of the first and the last record.
    ///
    /// # Errors
    ///
    /// As [`Repository::log_record_hashes`].
    pub fn log_records_in(
        &self,
        store: &dyn Store,
        object: &ObjectInfo,
    ) -> Result<([String; 2], BTreeSet<[u8; 32]>), RepoError> {
        let bytes = fetch_log_front(store, &object.name, object.length)?;
        let front = LogPackFront::parse(&bytes).map_err(RepoError::damaged(object.name.as_str()))?;
        let records: Vec<&[u8]> =
            front.records.into_iter().skip(usize::from(is_merged(&object.name))).collect();
        let name = |record: Option<&&[u8]>| match record {
            Some(record) => Ok(self.open_log_record(&object.name, record)?.0.name),
            None => Err(broken(&object.name, "it holds no record")),
        };
        Ok(([name(records.first())?, name(records.last())?], hashes_of(&object.name, &bytes)?))
    }
}

fn hashes_of(object: &str, front: &[u8]) -> Result<BTreeSet<[u8; 32]>, RepoError> {
    let front = LogPackFront::parse(front).map_err(RepoError::damaged(object))?;
    let records = front.records.into_iter().skip(usize::from(is_merged(object)));
    Ok(records.map(|record| *blake3::hash(record).as_bytes()).collect())
}

fn too_long() -> RepoError {
    RepoError::Usage("so many log packs do not fit into one".to_owned())
}

/// Makes the record that sums up these.
fn merge_record(stream: &str, records: &[&LogRecord], created: Timestamp) -> Result<LogRecord, RepoError> {
    let runs = sum_up(records.iter().copied());
    let (Some(first), Some(last), Some(of)) = (runs.first(), runs.last(), records.first()) else {
        return Err(RepoError::Usage("there is nothing to merge".to_owned()));
    };
    Ok(LogRecord {
        kind: LogRecordKind::Merged,
        stream: stream.to_owned(),
        name: first.first.clone(),
        created,
        host: String::new(),
        program: concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned(),
        last_name: Some(last.last.clone()),
        content: None,
        piece_offset: None,
        whole: None,
        engine: of.engine.clone(),
        lineage: of.lineage.clone(),
        timeline: None,
        positions: None,
        commits: None,
        reason: None,
        against: None,
        runs,
        replaces: IdSet::default(),
        facts: BTreeMap::new(),
        extra: Default::default(),
    })
}
