//! Frames: how plain blobs become sealed bytes, and back.

use super::error::RepoError;
use super::keyring::Keyring;
use crate::base::{BlobId, Entropy, RepositoryId, Secret};
use crate::codec::{CodecError, Compressor, Decompressor, Encoding};
use crate::crypto::derive::content_info;
use crate::crypto::{
    CryptoError, IdKey, Sealer, Suite, TAG_BYTES, decapsulate, derive_committed, derive_pair, encapsulate,
};
use crate::format::pack::{BlobClass, FrameAssociatedData, FrameRecord, Origin, frame_nonce};
use blake3::hazmat::{ChainingValue, HasherExt};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) fn internal(doing: &'static str) -> impl FnOnce(CryptoError) -> RepoError {
    move |why| RepoError::Internal { doing, why: why.to_string() }
}

fn coding(doing: &'static str) -> impl FnOnce(CodecError) -> RepoError {
    move |why| RepoError::Internal { doing, why: why.to_string() }
}

/// A sealed frame on its way into a pack, in the buffer of its encoder.
pub struct SealedFrame<'a> {
    /// The sealed bytes.
    pub bytes: &'a [u8],
    /// What they hold, as it was before it was sealed.
    pub encoded: &'a [u8],
    /// What the table of contents will say; the offset is set when the frame finds its place.
    pub record: FrameRecord,
}

/// A sealed frame that holds one blob, whose id was found while it was verified.
pub struct SealedBlob {
    /// The sealed bytes.
    pub bytes: Vec<u8>,
    /// What the table of contents will say; the offset is set when the frame finds its place.
    pub record: FrameRecord,
    /// What it comes to as a subtree of the whole that it is a part of, where that was asked for.
    pub subtree: Option<ChainingValue>,
}

/// The one origin of a writer session for one class of blobs: a key nobody else seals with, and a
/// counter that never goes back.
pub struct SessionOrigin {
    /// What packs carry, so that readers can derive the key.
    pub origin: Origin,
    /// The cipher under the session's key.
    pub sealer: Arc<Sealer>,
    class: BlobClass,
    counter: AtomicU64,
}

impl SessionOrigin {
    /// Draws a fresh origin under the newest epoch.
    ///
    /// # Errors
    ///
    /// When the key was granted no epoch, or the epoch's public key is not usable.
    pub fn draw(
        class: BlobClass,
        suite: Suite,
        repository: &RepositoryId,
        keyring: &Keyring,
        entropy: &dyn Entropy,
    ) -> Result<Self, RepoError> {
        let epoch = keyring.current()?;
        let (encapsulation, secret) = match class {
            BlobClass::Metadata => ([0; 32], epoch.metadata.duplicate()),
            BlobClass::Content => {
                let info = content_info(repository, epoch.number);
                encapsulate(&epoch.content_public, entropy, &info)
                    .map_err(internal("making a content key"))?
            }
        };
        let salt = entropy.draw();
        let (key, commitment) = derive_pair(class.frame_context(), &secret, &salt);
        Ok(Self {
            origin: Origin { suite, epoch: epoch.number, encapsulation, salt, commitment },
            sealer: Arc::new(Sealer::new(suite, &key)),
            class,
            counter: AtomicU64::new(0),
        })
    }
}

/// Opens origins of packs; remembers them, since one session's packs share one.
#[derive(Default)]
pub struct OriginCache {
    sealers: Mutex<HashMap<[u8; 32], Arc<Sealer>>>,
}

/// Origins remembered before the cache starts over.
const ORIGINS_REMEMBERED: usize = 4096;

impl OriginCache {
    /// Remembers the origin of this process's own session, which it may be unable to open otherwise.
    pub fn remember(&self, own: &SessionOrigin) {
        self.sealers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(own.origin.commitment, own.sealer.clone());
    }

    /// Returns the cipher of an origin.
    ///
    /// # Errors
    ///
    /// When this key may not read that class or epoch, or the origin is not what was committed to.
    pub fn open(
        &self,
        class: BlobClass,
        origin: &Origin,
        repository: &RepositoryId,
        keyring: &Keyring,
    ) -> Result<Arc<Sealer>, RepoError> {
        let mut sealers = self.sealers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sealer) = sealers.get(&origin.commitment) {
            return Ok(sealer.clone());
        }
        let derived: Secret;
        let secret = match class {
            BlobClass::Metadata => &keyring.epoch(origin.epoch)?.metadata,
            BlobClass::Content => {
                let info = content_info(repository, origin.epoch);
                derived = decapsulate(keyring.content_secret(origin.epoch)?, &origin.encapsulation, &info)
                    .map_err(internal("opening a content key"))?;
                &derived
            }
        };
        let key = derive_committed(class.frame_context(), secret, &origin.salt, &origin.commitment)
            .map_err(internal("deriving a frame key"))?;
        let sealer = Arc::new(Sealer::new(origin.suite, &key));
        if sealers.len() >= ORIGINS_REMEMBERED {
            sealers.clear();
        }
        sealers.insert(origin.commitment, sealer.clone());
        Ok(sealer)
    }
}

/// The base of a difference: its id, its plain bytes and its depth.
pub struct Base<'a> {
    /// Id of the base blob.
    pub id: BlobId,
    /// Its plain bytes.
    pub plain: &'a [u8],
    /// Depth of the copy that readers will decode it from.
    pub depth: u8,
    /// Whether time is taken to find all that both have in common.
    pub thorough: bool,
}

/// Compresses and seals frames; one per thread, so that contexts and buffers are reused.
pub struct FrameEncoder {
    compressor: Compressor,
    decompressor: Decompressor,
    sealed: Vec<u8>,
    opened: Vec<u8>,
    decoded: Vec<u8>,
}

impl FrameEncoder {
    /// Prepares an encoder for a zstd level.
    ///
    /// # Errors
    ///
    /// When the level does not exist or memory is short.
    pub fn new(level: i32) -> Result<Self, RepoError> {
        Self::with(Compressor::new(level))
    }

    /// Prepares an encoder for segments of logs.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn for_logs() -> Result<Self, RepoError> {
        Self::with(Compressor::for_logs())
    }

    fn with(compressor: Result<Compressor, CodecError>) -> Result<Self, RepoError> {
        Ok(Self {
            compressor: compressor.map_err(coding("preparing compression"))?,
            decompressor: Decompressor::new().map_err(coding("preparing decompression"))?,
            sealed: Vec::new(),
            opened: Vec::new(),
            decoded: Vec::new(),
        })
    }

    /// Goes on at another zstd level.
    ///
    /// # Errors
    ///
    /// As [`FrameEncoder::new`].
    pub fn set_level(&mut self, level: i32) -> Result<(), RepoError> {
        if self.compressor.level() != level {
            self.compressor = Compressor::new(level).map_err(coding("preparing compression"))?;
        }
        Ok(())
    }

    /// Encodes and seals one frame, then opens, decodes and identifies it again, before anything is
    /// published: a flaw of the compressor or of memory shows here and not at the restore.
    ///
    /// # Errors
    ///
    /// When compression fails or the frame does not read back as what it was made from.
    pub fn seal(
        &mut self,
        session: &SessionOrigin,
        repository: &RepositoryId,
        ids: &IdKey,
        plain: &[u8],
        blobs: Vec<(BlobId, u32)>,
    ) -> Result<SealedFrame<'_>, RepoError> {
        self.sealed.clear();
        let encoding = self.compressor.compress(plain, &mut self.sealed).map_err(coding("compressing"))?;
        self.finish(session, repository, ids, plain.len(), blobs, encoding, None)
    }

    /// Does the same to one blob that has no id yet. What is hashed is what was read back, which is compared with what
    /// it was made from: so the id is that of what the frame holds. `offset` says where the blob begins in a whole of
    /// which it is a subtree.
    ///
    /// # Errors
    ///
    /// As [`FrameEncoder::seal`].
    pub fn seal_alone(
        &mut self,
        session: &SessionOrigin,
        repository: &RepositoryId,
        ids: &IdKey,
        plain: &[u8],
        offset: Option<u64>,
    ) -> Result<SealedBlob, RepoError> {
        let mut bytes = Vec::new();
        let encoding = self.compressor.compress(plain, &mut bytes).map_err(coding("compressing"))?;
        let (counter, bound) =
            seal_encoded(session, repository, length_u32(plain.len())?, encoding, None, &mut bytes)?;
        let encoded = session
            .sealer
            .open_into(frame_nonce(counter), bound.as_ref(), &bytes, &mut self.opened)
            .map_err(internal("verifying a sealed frame"))?;
        let (mut id, mut rest) = (ids.hasher(), plain);
        let mut tree = offset.map(|offset| {
            let mut tree = blake3::Hasher::new();
            tree.set_input_offset(offset);
            tree
        });
        let mut each = |found: &[u8]| {
            let Some((wanted, later)) =
                rest.split_at_checked(found.len()).filter(|(wanted, _)| *wanted == found)
            else {
                return Err(Unverified(unreadable("a blob")));
            };
            (_, rest) = (wanted, later);
            id.update(found);
            if let Some(tree) = &mut tree {
                tree.update(found);
            }
            Ok(())
        };
        let decoded = self.decompressor.decode_in_windows(encoding, encoded, plain.len(), &mut each);
        decoded.map_err(|Unverified(error)| error)?;
        if !rest.is_empty() {
            return Err(unreadable("a blob"));
        }
        let plain_length = length_u32(plain.len())?;
        let record = FrameRecord {
            offset: 0,
            sealed_length: length_u32(bytes.len())?,
            plain_length,
            encoding,
            depth: 0,
            origin: 0,
            counter,
            base: None,
            blobs: vec![(BlobId::new(*id.finalize().as_bytes()), plain_length)],
        };
        Ok(SealedBlob { bytes, record, subtree: tree.map(|tree| tree.finalize_non_root()) })
    }

    /// Does the same to one blob as a difference against a base; `None` if that takes more than
    /// `encoded_max` bytes and is not worth it.
    ///
    /// # Errors
    ///
    /// As [`FrameEncoder::seal`].
    #[expect(clippy::too_many_arguments, reason = "the parts of one frame and what bounds it")]
    pub fn seal_difference(
        &mut self,
        session: &SessionOrigin,
        repository: &RepositoryId,
        ids: &IdKey,
        plain: &[u8],
        blob: BlobId,
        base: &Base<'_>,
        encoded_max: usize,
    ) -> Result<Option<SealedFrame<'_>>, RepoError> {
        self.sealed.clear();
        let encoded = match base.thorough {
            false => self.compressor.difference(base.plain, plain, &mut self.sealed),
            true => self.compressor.thorough_difference(base.plain, plain, &mut self.sealed),
        };
        encoded.map_err(coding("encoding a difference"))?;
        if self.sealed.len() > encoded_max {
            return Ok(None);
        }
        let blobs = vec![(blob, length_u32(plain.len())?)];
        self.finish(session, repository, ids, plain.len(), blobs, Encoding::Difference, Some(base)).map(Some)
    }

    /// Seals what was encoded, and verifies it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one frame")]
    fn finish(
        &mut self,
        session: &SessionOrigin,
        repository: &RepositoryId,
        ids: &IdKey,
        plain_length: usize,
        blobs: Vec<(BlobId, u32)>,
        encoding: Encoding,
        base: Option<&Base<'_>>,
    ) -> Result<SealedFrame<'_>, RepoError> {
        let mut bytes = std::mem::take(&mut self.sealed);
        let base_id = base.map(|base| base.id);
        let plain_length = length_u32(plain_length)?;
        let (counter, bound) =
            seal_encoded(session, repository, plain_length, encoding, base_id.as_ref(), &mut bytes)?;
        self.verify(session, ids, &bytes, &blobs, encoding, counter, plain_length, bound.as_ref(), base)?;
        let record = FrameRecord {
            offset: 0,
            sealed_length: length_u32(bytes.len())?,
            plain_length,
            encoding,
            depth: base.map_or(0, |base| base.depth + 1),
            origin: 0,
            counter,
            base: base_id,
            blobs,
        };
        self.sealed = bytes;
        let encoded_length = self.sealed.len().saturating_sub(TAG_BYTES);
        let encoded = self.opened.get(..encoded_length).unwrap_or_default();
        Ok(SealedFrame { bytes: &self.sealed, encoded, record })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one frame, checked in one place")]
    fn verify(
        &mut self,
        session: &SessionOrigin,
        ids: &IdKey,
        sealed: &[u8],
        blobs: &[(BlobId, u32)],
        encoding: Encoding,
        counter: u64,
        plain_length: u32,
        bound: &[u8],
        base: Option<&Base<'_>>,
    ) -> Result<(), RepoError> {
        let encoded = session
            .sealer
            .open_into(frame_nonce(counter), bound, sealed, &mut self.opened)
            .map_err(internal("verifying a sealed frame"))?;
        let damaged = |id: BlobId| unreadable(&format!("blob {id}"));
        self.decoded.clear();
        self.decompressor
            .decode(encoding, base.map(|base| base.plain), encoded, plain_length as usize, &mut self.decoded)
            .map_err(coding("verifying a compressed frame"))?;
        check_blobs(ids, &self.decoded, blobs).map_err(damaged)
    }
}

/// Seals what was encoded under the next nonce of a session; returns the nonce's counter and what the frame is bound to.
fn seal_encoded(
    session: &SessionOrigin,
    repository: &RepositoryId,
    plain_length: u32,
    encoding: Encoding,
    base: Option<&BlobId>,
    bytes: &mut Vec<u8>,
) -> Result<(u64, FrameAssociatedData), RepoError> {
    let counter = session.counter.fetch_add(1, Ordering::Relaxed);
    let bound = FrameAssociatedData::new(repository, session.class, encoding, counter, plain_length, base);
    session
        .sealer
        .seal(frame_nonce(counter), bound.as_ref(), bytes, 0)
        .map_err(internal("sealing a frame"))?;
    Ok((counter, bound))
}

fn unreadable(what: &str) -> RepoError {
    RepoError::Internal {
        doing: "verifying a frame before it is stored",
        why: format!("{what} does not read back; suspect the memory of this machine"),
    }
}

/// What was wrong with a frame that was decoded piece by piece.
struct Unverified(RepoError);

impl From<CodecError> for Unverified {
    fn from(why: CodecError) -> Self {
        Self(coding("verifying a compressed frame")(why))
    }
}

pub(super) fn length_u32(length: usize) -> Result<u32, RepoError> {
    u32::try_from(length).map_err(|_| RepoError::Internal {
        doing: "storing a frame",
        why: "it is longer than 4 GiB".to_owned(),
    })
}

/// Checks that the plain bytes are the blobs that they are said to be; returns the first that is not.
pub(super) fn check_blobs(ids: &IdKey, plain: &[u8], blobs: &[(BlobId, u32)]) -> Result<(), BlobId> {
    let (mut rest, mut last) = (plain, BlobId::new([0; 32]));
    for (id, length) in blobs {
        let (blob, behind) = rest.split_at_checked(*length as usize).ok_or(*id)?;
        if ids.blob_id(blob) != *id {
            return Err(*id);
        }
        (rest, last) = (behind, *id);
    }
    // What stands behind the last one is no blob of this frame.
    if rest.is_empty() { Ok(()) } else { Err(last) }
}

/// How to open one frame: what its index record or its pack's table says.
#[derive(Debug, Clone, Copy)]
pub struct FrameKey {
    /// Content or metadata.
    pub class: BlobClass,
    /// How the plain bytes were encoded.
    pub encoding: Encoding,
    /// The nonce's counter.
    pub counter: u64,
    /// Length of the decoded bytes.
    pub plain_length: u32,
    /// What a difference decodes against.
    pub base: Option<BlobId>,
}

impl FrameKey {
    fn bound(&self, repository: &RepositoryId) -> FrameAssociatedData {
        FrameAssociatedData::new(
            repository,
            self.class,
            self.encoding,
            self.counter,
            self.plain_length,
            self.base.as_ref(),
        )
    }
}

/// Why a frame that is decoded piece by piece cannot be read.
struct Told(String);

impl From<CodecError> for Told {
    fn from(why: CodecError) -> Self {
        Self(why.to_string())
    }
}

/// Opens and decodes frames; one per thread.
pub struct FrameDecoder {
    decompressor: Decompressor,
    room: Vec<u8>,
}

impl FrameDecoder {
    /// Prepares a decoder.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new() -> Result<Self, RepoError> {
        let decompressor = Decompressor::new().map_err(coding("preparing decompression"))?;
        Ok(Self { decompressor, room: Vec::new() })
    }

    /// Opens a frame and appends the plain bytes to `plain`.
    ///
    /// # Errors
    ///
    /// A sentence that says why the frame cannot be read; the ids of the blobs are for the caller to check.
    pub fn open(
        &mut self,
        sealer: &Sealer,
        repository: &RepositoryId,
        frame: &FrameKey,
        base: Option<&[u8]>,
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), String> {
        let encoded = unseal(sealer, repository, frame, sealed, &mut self.room)?;
        decode(&mut self.decompressor, frame, base, encoded, plain)
    }

    /// Opens a frame that needs no base, and hands the plain bytes on piece by piece. They count only when this returns.
    ///
    /// # Errors
    ///
    /// A sentence that says why the frame cannot be read, or what `each` says; the ids of the blobs are for the caller to
    /// check.
    pub fn open_in_windows(
        &mut self,
        sealer: &Sealer,
        repository: &RepositoryId,
        frame: &FrameKey,
        sealed: &[u8],
        each: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let encoded = unseal(sealer, repository, frame, sealed, &mut self.room)?;
        let mut told = |plain: &[u8]| each(plain).map_err(Told);
        let length = frame.plain_length as usize;
        let decoded = self.decompressor.decode_in_windows(frame.encoding, encoded, length, &mut told);
        decoded.map_err(|Told(why)| why)
    }

    /// Decodes what was opened already, and appends the plain bytes to `plain`.
    ///
    /// # Errors
    ///
    /// A sentence that says why it cannot be decoded.
    pub fn decode(
        &mut self,
        frame: &FrameKey,
        base: Option<&[u8]>,
        encoded: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), String> {
        decode(&mut self.decompressor, frame, base, encoded, plain)
    }
}

/// Opens what is sealed in `room`.
fn unseal<'a>(
    sealer: &Sealer,
    repository: &RepositoryId,
    frame: &FrameKey,
    sealed: &[u8],
    room: &'a mut Vec<u8>,
) -> Result<&'a [u8], String> {
    let bound = frame.bound(repository);
    sealer.open_into(frame_nonce(frame.counter), bound.as_ref(), sealed, room).map_err(|why| why.to_string())
}

fn decode(
    decompressor: &mut Decompressor,
    frame: &FrameKey,
    base: Option<&[u8]>,
    encoded: &[u8],
    plain: &mut Vec<u8>,
) -> Result<(), String> {
    decompressor
        .decode(frame.encoding, base, encoded, frame.plain_length as usize, plain)
        .map_err(|why| why.to_string())
}
