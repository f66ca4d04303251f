//! Reading a pack from its first byte to its last, in windows: memory is a few MiB whatever its length.
//!
//! Name, signature, both copies of the origins, the table of contents and every frame that this
//! key can open are checked, and what is wrong is told apart: a pack whose trailer is damaged may
//! still give all its content, and one whose name and signature hold may have been made wrong.

use super::blobs::BlobReader;
use super::error::RepoError;
use super::frames::check_blobs;
use super::index::{KnownPack, Located};
use super::packs::pack_name;
use super::repository::Repository;
use crate::base::{PackId, explain};
use crate::crypto::{IdKey, SIGNATURE_BYTES, SignedMessage, verify};
use crate::format::index::IndexRecord;
use crate::format::pack::{BlobClass, FrameRecord, HEAD_BYTES, ORIGIN_BYTES, Origin, PackHead};
use crate::format::trust::Act;
use crate::storage::StorageError;
use std::fmt;
use std::sync::Arc;

/// Sealed bytes that are read at once, unless a single frame is longer.
const WINDOW_BYTES: u64 = 4 << 20;

/// What became of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameState {
    /// It opens, decodes, and its blobs have their ids.
    Good,
    /// It does not, and why.
    Bad(String),
    /// It cannot be read since its base can be had nowhere, and why; nothing is known against the frame.
    Baseless(String),
    /// This key may not open it.
    Closed,
}

/// What is wrong with a pack as an object, apart from its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackProblem {
    /// Its bytes do not have its name as their hash.
    Name,
    /// They do, but the signature does not hold, or is by a key that may not make packs.
    Signature,
    /// The head does not decode.
    Head,
    /// Head and trailer differ.
    Trailer,
    /// The two copies of the origins differ.
    Origins,
}

impl fmt::Display for PackProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "its bytes are not the ones it was named for",
            Self::Signature => "its signature does not hold",
            Self::Head => "its head is damaged",
            Self::Trailer => "its head and its trailer differ",
            Self::Origins => "the two copies of its origins differ",
        })
    }
}

/// A pack that was read whole.
pub struct ScannedPack {
    /// What it is.
    pub pack: Arc<KnownPack>,
    /// Its frames, and what became of each.
    pub frames: Vec<(FrameRecord, FrameState)>,
    /// What is wrong with the pack as an object, apart from its frames.
    pub problems: Vec<PackProblem>,
}

impl ScannedPack {
    /// Says whether everything about it could be looked at and is right.
    pub fn verified(&self) -> bool {
        self.problems.is_empty() && self.frames.iter().all(|(_, state)| *state == FrameState::Good)
    }
}

/// Scans packs; one per thread.
pub struct PackScanner {
    reader: BlobReader,
    window: Vec<u8>,
}

impl PackScanner {
    /// Prepares a scanner.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new(repository: &Arc<Repository>) -> Result<Self, RepoError> {
        Ok(Self { reader: BlobReader::new(repository)?, window: Vec::new() })
    }

    /// Returns a reader, for single blobs.
    pub fn reader(&mut self) -> &mut BlobReader {
        &mut self.reader
    }

    /// Reads a pack of this length; `advance` hears of every window.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or its tail does not even say what lies in it.
    pub fn scan(
        &mut self,
        id: &PackId,
        length: u64,
        mut advance: impl FnMut(u64),
    ) -> Result<ScannedPack, RepoError> {
        let repository = self.reader.repository().clone();
        let store = &repository.environment().store;
        let name = pack_name(id);
        let (pack, records) = repository.describe_pack(id, length)?;
        let mut scanned =
            ScannedPack { pack, frames: Vec::with_capacity(records.len()), problems: Vec::new() };
        let mut hasher = blake3::Hasher::new();
        let mut records = records.into_iter().peekable();
        let signed_end = length.saturating_sub(SIGNATURE_BYTES as u64);
        let mut at = 0;
        while at < signed_end {
            // A window ends where a frame ends, so that no frame is read twice.
            let mut frames = Vec::new();
            let mut end = at;
            while let Some(record) =
                records.next_if(|record| frames.is_empty() || record.end() - at <= WINDOW_BYTES)
            {
                end = record.end();
                frames.push(record);
            }
            if frames.is_empty() {
                end = signed_end.min(at + WINDOW_BYTES);
            }
            self.window.clear();
            let bytes = usize::try_from(end - at).unwrap_or(usize::MAX);
            store.get_range(&name, at, bytes, &mut self.window)?;
            hasher.update(&self.window);
            if at == 0
                && let Some(problem) = self.head_problem(&scanned.pack)
            {
                scanned.problems.push(problem);
            }
            for record in frames {
                let state = self.frame(&scanned.pack, &record, at)?;
                scanned.frames.push((record, state));
            }
            advance(end - at);
            at = end;
        }
        let mut signature = Vec::new();
        store.get_range(&name, signed_end, SIGNATURE_BYTES, &mut signature)?;
        let signed = hasher.finalize();
        hasher.update(&signature);
        if hasher.finalize() != *id.as_bytes() {
            scanned.problems.push(PackProblem::Name);
        } else if !signature_holds(&repository, &scanned.pack, signed.as_bytes(), &signature) {
            scanned.problems.push(PackProblem::Signature);
        }
        Ok(scanned)
    }

    /// Reads one frame by itself; its sealed bytes come with it if it is good.
    ///
    /// # Errors
    ///
    /// When the store does not answer, or the user stopped it.
    pub fn salvage(
        &mut self,
        pack: &Arc<KnownPack>,
        record: &FrameRecord,
    ) -> Result<(FrameState, Vec<u8>), RepoError> {
        let store = self.reader.repository().environment().store.clone();
        self.window.clear();
        let (at, length) = (u64::from(record.offset), record.sealed_length as usize);
        match store.get_range(&pack_name(&pack.id), at, length, &mut self.window) {
            Ok(()) => {}
            Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
            Err(error) => return Ok((FrameState::Bad(explain(&error)), Vec::new())),
        }
        let state = self.frame(pack, record, at)?;
        Ok((state, self.window.clone()))
    }

    /// Compares the head with what the trailer said.
    fn head_problem(&self, pack: &KnownPack) -> Option<PackProblem> {
        let Ok(head) = PackHead::decode(&self.window) else { return Some(PackProblem::Head) };
        if (head.class, head.signer) != (pack.class, pack.signer)
            || usize::from(head.origin_count) != pack.origins.len()
        {
            return Some(PackProblem::Trailer);
        }
        let end = HEAD_BYTES + ORIGIN_BYTES * pack.origins.len();
        let origins = self.window.get(HEAD_BYTES..end)?;
        match Origin::decode_all(origins, head.origin_count, head.class) {
            Ok(origins) if *origins == *pack.origins => None,
            _ => Some(PackProblem::Origins),
        }
    }

    fn frame(
        &mut self,
        pack: &Arc<KnownPack>,
        record: &FrameRecord,
        window_at: u64,
    ) -> Result<FrameState, RepoError> {
        let repository = self.reader.repository().clone();
        let Ok(ids) = repository.keyring().id_key(pack.class) else { return Ok(FrameState::Closed) };
        let Some(copy) = located(pack, record) else {
            return Ok(FrameState::Bad("it holds nothing".to_owned()));
        };
        let state = self.judge(&copy, record, ids, window_at, BlobReader::open_fetched)?;
        match state {
            // It may be the fault of a base, of which another copy may serve.
            FrameState::Bad(_) if record.base.is_some() => {
                self.judge(&copy, record, ids, window_at, BlobReader::open_on_verified)
            }
            state => Ok(state),
        }
    }

    fn judge(
        &mut self,
        copy: &Located,
        record: &FrameRecord,
        ids: &IdKey,
        window_at: u64,
        open: impl Fn(&mut BlobReader, &Located, &[u8]) -> Result<Vec<u8>, RepoError>,
    ) -> Result<FrameState, RepoError> {
        let start = usize::try_from(u64::from(record.offset).saturating_sub(window_at)).unwrap_or(usize::MAX);
        let sealed = start
            .checked_add(record.sealed_length as usize)
            .and_then(|end| self.window.get(start..end))
            .unwrap_or_default();
        Ok(match open(&mut self.reader, copy, sealed) {
            Ok(plain) => match check_blobs(ids, &plain, &record.blobs) {
                Ok(()) => FrameState::Good,
                Err(id) => FrameState::Bad(format!("blob {} is not what its id says", id.short())),
            },
            Err(RepoError::Forbidden { .. }) => FrameState::Closed,
            Err(error @ (RepoError::Interrupted | RepoError::Storage(StorageError::Transient { .. }))) => {
                return Err(error);
            }
            // The base: the frame itself was fetched already.
            Err(error @ (RepoError::Missing { .. } | RepoError::Storage(_))) => {
                FrameState::Baseless(explain(&error))
            }
            Err(error) => FrameState::Bad(explain(&error)),
        })
    }
}

/// Makes what the index would say of a frame's first blob.
fn located(pack: &Arc<KnownPack>, record: &FrameRecord) -> Option<Located> {
    let (id, length) = *record.blobs.first()?;
    Some(Located {
        record: IndexRecord {
            id,
            class: pack.class,
            pack: 0,
            frame_offset: record.offset,
            sealed_length: record.sealed_length,
            plain_length: record.plain_length,
            offset: 0,
            length,
            counter: record.counter,
            base: record.base,
            origin: record.origin,
            encoding: record.encoding,
            depth: record.depth,
        },
        pack: pack.clone(),
    })
}

fn signature_holds(repository: &Repository, pack: &KnownPack, hash: &[u8; 32], signature: &[u8]) -> bool {
    let act = match pack.class {
        BlobClass::Content => Act::ContentPack,
        BlobClass::Metadata => Act::MetadataPack,
    };
    let public = repository.registry().public_key(&pack.signer, act);
    let message = SignedMessage::from_hash(repository.id(), pack.class.pack_kind(), hash);
    match (public, signature.try_into()) {
        (Some(public), Ok(signature)) => verify(&public, &message, signature).is_ok(),
        _ => false,
    }
}
