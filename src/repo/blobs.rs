//! Reading blobs: look up, fetch, open, decode, check the id; whatever copy serves.

use super::error::RepoError;
use super::frames::{FrameDecoder, FrameKey};
use super::index::Located;
use super::packs::pack_name;
use super::repository::Repository;
use crate::base::{BlobId, PackId, explain};
use crate::crypto::Sealer;
use crate::format::pack::BlobClass;
use crate::storage::{Operation, StorageError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Plain bytes of decoded frames that are kept, since neighbours are often wanted next. With half of it a backup whose bases lie
/// scattered takes a quarter longer; with more it would hold more than 256 MiB in all.
const CACHED_FRAME_BYTES: usize = 28 << 20;

/// Where a frame lies: the pack and the offset in it.
pub type FramePlace = (PackId, u32);

/// Frames decoded of late, and those that are being decoded right now.
#[derive(Default)]
pub struct FrameCache {
    held: Mutex<HeldFrames>,
    decoded: Condvar,
}

/// Least recently used first.
#[derive(Default)]
struct HeldFrames {
    bytes: usize,
    frames: VecDeque<(FramePlace, Arc<Vec<u8>>)>,
    pending: HashSet<FramePlace>,
}

/// A frame that is at hand, or the duty to decode it.
pub(super) enum Claim<'a> {
    /// Its plain bytes.
    Held(Arc<Vec<u8>>),
    /// Nobody has it: whoever holds this decodes it, and others wait.
    Mine(Pending<'a>),
}

/// The duty to decode a frame, which ends when this is fulfilled or dropped.
pub(super) struct Pending<'a> {
    cache: &'a FrameCache,
    place: FramePlace,
}

impl Pending<'_> {
    /// Hands the plain bytes to those who wait, and keeps them for a while.
    pub fn fulfil(self, plain: Arc<Vec<u8>>) {
        self.cache.lock().put(self.place, plain);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.cache.lock().pending.remove(&self.place);
        self.cache.decoded.notify_all();
    }
}

impl HeldFrames {
    fn get(&mut self, place: &FramePlace) -> Option<Arc<Vec<u8>>> {
        let at = self.frames.iter().rposition(|(key, _)| key == place)?;
        let entry = self.frames.remove(at)?;
        let plain = entry.1.clone();
        self.frames.push_back(entry);
        Some(plain)
    }

    fn put(&mut self, place: FramePlace, plain: Arc<Vec<u8>>) {
        if self.frames.iter().any(|(key, _)| *key == place) {
            return;
        }
        self.bytes += plain.len();
        self.frames.push_back((place, plain));
        while self.bytes > CACHED_FRAME_BYTES {
            let Some((_, dropped)) = self.frames.pop_front() else { break };
            self.bytes -= dropped.len();
        }
    }
}

impl FrameCache {
    fn lock(&self) -> MutexGuard<'_, HeldFrames> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a frame's plain bytes, after waiting for whoever decodes it just now; or the duty to
    /// decode it. `None` for frames that need a base.
    ///
    /// Those hold one blob, which is seldom wanted twice. And who has the duty for one frame must never
    /// wait for another: records that contradict each other could make threads wait in a circle, or one
    /// for itself. What needs no base is decoded without asking for anything.
    pub(super) fn claim_for(&self, copy: &Located) -> Option<Claim<'_>> {
        copy.record.base.is_none().then(|| self.claim((copy.pack.id, copy.record.frame_offset)))
    }

    fn claim(&self, place: FramePlace) -> Claim<'_> {
        let mut held = self.lock();
        loop {
            if let Some(plain) = held.get(&place) {
                return Claim::Held(plain);
            }
            if held.pending.insert(place) {
                return Claim::Mine(Pending { cache: self, place });
            }
            held = self.decoded.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The plain bytes of a blob, within those of its frame.
#[derive(Debug, Clone, Default)]
pub struct Blob {
    frame: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Blob {
    /// Takes a range of a frame; `None` if the frame is shorter.
    pub fn new(frame: Arc<Vec<u8>>, offset: u32, length: u32) -> Option<Self> {
        let start = offset as usize;
        let range = start..start.checked_add(length as usize)?;
        frame.get(range.clone())?;
        Some(Self { frame, range })
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        self.frame.get(self.range.clone()).unwrap_or_default()
    }
}

/// Reads blobs; one per thread, so that buffers and contexts are reused.
pub struct BlobReader {
    repository: Arc<Repository>,
    decoder: FrameDecoder,
    sealed: Vec<u8>,
    /// Frames that did not serve during the present read, on such bases: a chain of differences meets its
    /// lower links again and again, and each try that fails costs as much as all below it.
    /// With each, whether the store gave no answer.
    failed: HashMap<(FramePlace, Bases), bool>,
    /// Whether a read is under way that tries everything there is, so that those within it need not.
    reading: bool,
    /// How many differences are being opened, each for the one before.
    nesting: usize,
}

impl BlobReader {
    /// Prepares a reader.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new(repository: &Arc<Repository>) -> Result<Self, RepoError> {
        Ok(Self {
            repository: repository.clone(),
            decoder: FrameDecoder::new()?,
            sealed: Vec::new(),
            failed: HashMap::new(),
            reading: false,
            nesting: 0,
        })
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Reads one blob from whatever copy serves, and checks its id.
    ///
    /// # Errors
    ///
    /// [`RepoError::Missing`] with a reason for every copy that was tried; the store's own error where it gave
    /// no answer about one of them, which may be whole.
    pub fn read(&mut self, class: BlobClass, what: &'static str, id: &BlobId) -> Result<Blob, RepoError> {
        self.read_shallower(class, what, id, u8::MAX)
    }

    fn read_shallower(
        &mut self,
        class: BlobClass,
        what: &'static str,
        id: &BlobId,
        depth_below: u8,
    ) -> Result<Blob, RepoError> {
        let first = !std::mem::replace(&mut self.reading, true);
        let read = self.read_any(class, what, id, depth_below, first);
        self.reading = !first;
        read
    }

    /// Reads from whatever copy serves. The `first` read looks for copies that the index does not know
    /// where those it knows fail; a read of a base within it leaves that to it.
    fn read_any(
        &mut self,
        class: BlobClass,
        what: &'static str,
        id: &BlobId,
        depth_below: u8,
        first: bool,
    ) -> Result<Blob, RepoError> {
        let mut reasons = Vec::new();
        let (mut forbidden, mut unanswered) = (None, None);
        for attempt in 0..if first { 3 } else { 1 } {
            if first {
                self.failed.clear();
            }
            unanswered = None;
            let mut copies = self.repository.index().find(class, id, false, |_| true);
            copies.retain(|copy| copy.record.depth < depth_below);
            copies.sort_by_key(|copy| copy.record.depth);
            for copy in &copies {
                match self.read_copy(copy) {
                    Ok(plain) => return Ok(plain),
                    Err(RepoError::Interrupted) => return Err(RepoError::Interrupted),
                    // Another copy may lie in an epoch that this key was granted.
                    Err(error @ RepoError::Forbidden { .. }) => forbidden = Some(error),
                    Err(error) if error.is_unanswered() => unanswered = Some(error),
                    Err(error) => {
                        // The next attempt may read it from another place.
                        self.repository.environment().store.doubt(&pack_name(&copy.pack.id));
                        let why = match &error {
                            // The base of a difference is missing, which names the base's packs only.
                            RepoError::Missing { .. } => self.unreadable(copy, &explain(&error)).to_string(),
                            error => explain(error),
                        };
                        if !reasons.contains(&why) {
                            reasons.push(why);
                        }
                    }
                }
            }
            if forbidden.is_some() && !self.repository.keyring().reads_content() {
                break;
            }
            // Whether this thread found more or another one meanwhile: the next attempt looks again.
            match attempt {
                _ if !first => {}
                0 => _ = self.repository.heal_index()?,
                1 => _ = self.repository.index_unlisted_packs()?,
                _ => {}
            }
        }
        // What an outage hides is not lost.
        if let Some(error) = unanswered {
            return Err(error);
        }
        if let Some(error) = forbidden.filter(|_| reasons.is_empty()) {
            return Err(error);
        }
        Err(RepoError::Missing { what, id: *id, reasons })
    }

    /// Reads the blob from this very copy, and checks its id.
    ///
    /// # Errors
    ///
    /// When this copy does not serve, whatever others there are.
    pub fn read_copy(&mut self, copy: &Located) -> Result<Blob, RepoError> {
        self.check_failed(copy, Bases::Verified)?;
        let read = self.read_this(copy);
        self.note_failed(copy, Bases::Verified, read.as_ref().err());
        read
    }

    fn read_this(&mut self, copy: &Located) -> Result<Blob, RepoError> {
        let is_difference = copy.record.base.is_some();
        match self.frame(copy).and_then(|frame| self.verified(copy, frame)) {
            Ok(Some(blob)) => return Ok(blob),
            // Bases are not verified by themselves, so this may be the fault of one of them, of which
            // another copy may serve.
            Ok(None) | Err(RepoError::Untrusted { .. }) if is_difference => {}
            Ok(None) => return Err(self.unreadable(copy, "its content is not what its id says")),
            Err(error) => return Err(error),
        }
        let mut sealed = Vec::new();
        fetch(&self.repository, copy, &mut sealed)?;
        let frame = Arc::new(self.open_on_verified(copy, &sealed)?);
        let blob = self.verified(copy, frame)?;
        blob.ok_or_else(|| self.unreadable(copy, "its content is not what its id says"))
    }

    /// Cuts the blob out of its frame, if it is the one that its id names.
    fn verified(&self, copy: &Located, frame: Arc<Vec<u8>>) -> Result<Option<Blob>, RepoError> {
        let blob = Blob::new(frame, copy.record.offset, copy.record.length);
        let keyring = self.repository.keyring();
        match blob {
            Some(blob) if keyring.blob_id(copy.record.class, blob.bytes())? == copy.record.id => {
                Ok(Some(blob))
            }
            _ => Ok(None),
        }
    }

    fn unreadable(&self, copy: &Located, why: &str) -> RepoError {
        RepoError::Untrusted {
            object: pack_name(&copy.pack.id),
            why: format!("frame at {}: {why}", copy.record.frame_offset),
        }
    }

    /// Returns the plain bytes of the frame that holds this copy; ids are not checked yet.
    ///
    /// # Errors
    ///
    /// When the pack cannot be read or the frame does not open or decode.
    pub fn frame(&mut self, copy: &Located) -> Result<Arc<Vec<u8>>, RepoError> {
        let repository = self.repository.clone();
        self.frame_from(copy, |sealed| fetch(&repository, copy, sealed))
    }

    /// Does the same with sealed bytes that `fetch` appends to an empty buffer, if they are wanted at all.
    ///
    /// # Errors
    ///
    /// As there, and what `fetch` says.
    pub fn frame_from(
        &mut self,
        copy: &Located,
        fetch: impl FnOnce(&mut Vec<u8>) -> Result<(), RepoError>,
    ) -> Result<Arc<Vec<u8>>, RepoError> {
        self.check_failed(copy, Bases::Hoped)?;
        let decoded = self.decode(copy, fetch);
        self.note_failed(copy, Bases::Hoped, decoded.as_ref().err());
        decoded
    }

    /// Decodes a difference against bytes that the caller has, said to be its base: whether they are, the id of
    /// what comes of it tells.
    ///
    /// # Errors
    ///
    /// As [`BlobReader::frame_from`].
    pub fn frame_on(
        &mut self,
        copy: &Located,
        base: &[u8],
        fetch: impl FnOnce(&mut Vec<u8>) -> Result<(), RepoError>,
    ) -> Result<Vec<u8>, RepoError> {
        let kept = self.repository.base_cache().and_then(|cache| cache.get(copy));
        if let Some(encoded) = kept
            && let Some(plain) = self.decode_kept(copy, Some(base), &encoded)
        {
            return Ok(plain);
        }
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.clear();
        let opened = fetch(&mut sealed)
            .and_then(|()| self.sealer_of(copy))
            .and_then(|sealer| self.open_on(copy, &sealer, &sealed, Some(base)));
        self.sealed = sealed;
        opened
    }

    /// Passes over a frame that failed for a difference that is being opened already.
    fn check_failed(&self, copy: &Located, bases: Bases) -> Result<(), RepoError> {
        let place = (copy.pack.id, copy.record.frame_offset);
        match self.failed.get(&(place, bases)).filter(|_| self.nesting > 0) {
            None => Ok(()),
            Some(false) => Err(self.unreadable(copy, "it cannot be read")),
            Some(true) => {
                let (operation, name) = (Operation::GetRange, pack_name(&copy.pack.id));
                let source = "the store did not answer just now".into();
                Err(StorageError::Transient { operation, name, source }.into())
            }
        }
    }

    fn note_failed(&mut self, copy: &Located, bases: Bases, error: Option<&RepoError>) {
        if let Some(error) = error.filter(|_| self.nesting > 0) {
            let place = (copy.pack.id, copy.record.frame_offset);
            self.failed.insert((place, bases), error.is_unanswered());
        }
    }

    fn decode(
        &mut self,
        copy: &Located,
        fetch: impl FnOnce(&mut Vec<u8>) -> Result<(), RepoError>,
    ) -> Result<Arc<Vec<u8>>, RepoError> {
        let repository = self.repository.clone();
        let claim = repository.frame_cache().claim_for(copy);
        if let Some(Claim::Held(plain)) = claim {
            return Ok(plain);
        }
        let plain = match self.cached(copy) {
            Some(plain) => plain,
            None => {
                let mut sealed = std::mem::take(&mut self.sealed);
                sealed.clear();
                let opened = fetch(&mut sealed).and_then(|()| self.open_fetched(copy, &sealed));
                self.sealed = sealed;
                opened?
            }
        };
        let plain = Arc::new(plain);
        if let Some(Claim::Mine(pending)) = claim {
            pending.fulfil(plain.clone());
        }
        Ok(plain)
    }

    /// Opens and decodes the sealed bytes of a frame that were fetched already; whether they are the
    /// blobs they should be, their ids tell.
    ///
    /// # Errors
    ///
    /// When they do not open or decode, or the base of a difference cannot be read.
    pub fn open_fetched(&mut self, copy: &Located, sealed: &[u8]) -> Result<Vec<u8>, RepoError> {
        self.open(copy, sealed, Bases::Hoped)
    }

    /// Does the same, with bases that are checked against their ids: where one copy of a base is not what
    /// it should be, another is taken.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_on_verified(&mut self, copy: &Located, sealed: &[u8]) -> Result<Vec<u8>, RepoError> {
        self.open(copy, sealed, Bases::Verified)
    }

    /// Reads a base from the copy of least depth, without looking whether it is what its id says: the id
    /// of what is decoded from it will tell.
    fn hoped_base(&mut self, class: BlobClass, id: &BlobId, depth_below: u8) -> Option<Blob> {
        let copies = self.repository.index().find(class, id, false, |_| true);
        let copy = copies.into_iter().min_by_key(|copy| copy.record.depth)?;
        if copy.record.depth >= depth_below {
            return None;
        }
        let frame = self.frame(&copy).ok()?;
        Blob::new(frame, copy.record.offset, copy.record.length)
    }

    fn base(
        &mut self,
        class: BlobClass,
        id: &BlobId,
        depth_below: u8,
        bases: Bases,
    ) -> Result<Blob, RepoError> {
        let hoped = match bases {
            Bases::Hoped => self.hoped_base(class, id, depth_below),
            Bases::Verified => None,
        };
        match hoped {
            Some(base) => Ok(base),
            None => self.read_shallower(class, "the base of a difference", id, depth_below),
        }
    }

    fn open(&mut self, copy: &Located, sealed: &[u8], bases: Bases) -> Result<Vec<u8>, RepoError> {
        let sealer = self.sealer_of(copy)?;
        let base = self.base_of(copy, bases)?;
        self.open_on(copy, &sealer, sealed, base.as_ref().map(Blob::bytes))
    }

    /// Returns the cipher of a copy's origin.
    fn sealer_of(&self, copy: &Located) -> Result<Arc<Sealer>, RepoError> {
        let (record, repository) = (&copy.record, &self.repository);
        let origin = copy
            .pack
            .origins
            .get(usize::from(record.origin))
            .ok_or_else(|| self.unreadable(copy, "its origin does not exist"))?;
        repository.origins().open(record.class, origin, repository.id(), repository.keyring())
    }

    fn open_on(
        &mut self,
        copy: &Located,
        sealer: &Sealer,
        sealed: &[u8],
        base: Option<&[u8]>,
    ) -> Result<Vec<u8>, RepoError> {
        let mut plain = Vec::new();
        self.decoder
            .open(sealer, self.repository.id(), &frame_key(copy), base, sealed, &mut plain)
            .map_err(|why| self.unreadable(copy, &why))?;
        Ok(plain)
    }

    /// Reads the base that a frame decodes against, if there is one.
    fn base_of(&mut self, copy: &Located, bases: Bases) -> Result<Option<Blob>, RepoError> {
        let Some(base) = copy.record.base else { return Ok(None) };
        if self.nesting == 0 && !self.reading {
            self.failed.clear();
        }
        self.nesting += 1;
        let base = self.base(copy.record.class, &base, copy.record.depth, bases);
        self.nesting -= 1;
        base.map(Some)
    }

    /// Decodes a frame from the base cache, if it and all that it is based on are there.
    fn cached(&mut self, copy: &Located) -> Option<Vec<u8>> {
        let repository = self.repository.clone();
        let encoded = repository.base_cache()?.get(copy)?;
        let base = self.base_of(copy, Bases::Hoped).ok()?;
        self.decode_kept(copy, base.as_ref().map(Blob::bytes), &encoded)
    }

    /// Decodes what the base cache holds of a frame.
    fn decode_kept(&mut self, copy: &Located, base: Option<&[u8]>, encoded: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        self.decoder.decode(&frame_key(copy), base, encoded, &mut plain).ok()?;
        Some(plain)
    }
}

fn frame_key(copy: &Located) -> FrameKey {
    let record = &copy.record;
    FrameKey {
        class: record.class,
        encoding: record.encoding,
        counter: record.counter,
        plain_length: record.plain_length,
        base: record.base,
    }
}

fn fetch(repository: &Repository, copy: &Located, sealed: &mut Vec<u8>) -> Result<(), RepoError> {
    Ok(repository.environment().store.get_range(
        &pack_name(&copy.pack.id),
        u64::from(copy.record.frame_offset),
        copy.record.sealed_length as usize,
        sealed,
    )?)
}

/// How much is asked of the bases of a difference.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Bases {
    /// Any copy that opens will do.
    Hoped,
    /// Each is checked against its id.
    Verified,
}
