//! Reading blobs: look up, fetch, open, decode, check the id; whatever copy serves.

use super::error::RepoError;
use super::frames::{FrameDecoder, FrameKey};
use super::index::Located;
use super::packs::pack_name;
use super::repository::Repository;
use crate::base::{BlobId, PackId};
use crate::format::pack::BlobClass;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Plain bytes of decoded frames that are kept, since neighbours are often wanted next.
const CACHED_FRAME_BYTES: usize = 16 << 20;

/// Where a frame lies: the pack and the offset in it.
pub type FramePlace = (PackId, u32);

/// Frames decoded of late.
#[derive(Default)]
pub struct FrameCache(Mutex<HeldFrames>);

/// Least recently used first.
#[derive(Default)]
struct HeldFrames {
    bytes: usize,
    frames: VecDeque<(FramePlace, Arc<Vec<u8>>)>,
}

impl FrameCache {
    /// Returns a frame's plain bytes if they are still here.
    pub fn get(&self, place: &FramePlace) -> Option<Arc<Vec<u8>>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.frames.iter().position(|(key, _)| key == place)?;
        let entry = held.frames.remove(at)?;
        let plain = entry.1.clone();
        held.frames.push_back(entry);
        Some(plain)
    }

    /// Keeps a frame's plain bytes for a while.
    pub fn put(&self, place: FramePlace, plain: Arc<Vec<u8>>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.frames.iter().any(|(key, _)| *key == place) {
            return;
        }
        held.bytes += plain.len();
        held.frames.push_back((place, plain));
        while held.bytes > CACHED_FRAME_BYTES {
            let Some((_, dropped)) = held.frames.pop_front() else { break };
            held.bytes -= dropped.len();
        }
    }
}

/// Reads blobs; one per thread, so that buffers and contexts are reused.
pub struct BlobReader {
    repository: Arc<Repository>,
    decoder: FrameDecoder,
    sealed: Vec<u8>,
}

impl BlobReader {
    /// Prepares a reader.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new(repository: &Arc<Repository>) -> Result<Self, RepoError> {
        Ok(Self { repository: repository.clone(), decoder: FrameDecoder::new()?, sealed: Vec::new() })
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Reads one blob from whatever copy serves, and checks its id.
    ///
    /// # Errors
    ///
    /// [`RepoError::Missing`] with a reason for every copy that was tried.
    pub fn read(&mut self, class: BlobClass, what: &'static str, id: &BlobId) -> Result<Vec<u8>, RepoError> {
        self.read_shallower(class, what, id, u8::MAX)
    }

    fn read_shallower(
        &mut self,
        class: BlobClass,
        what: &'static str,
        id: &BlobId,
        depth_below: u8,
    ) -> Result<Vec<u8>, RepoError> {
        let mut reasons = Vec::new();
        let mut forbidden = None;
        for attempt in 0..3 {
            let mut copies = self.repository.index().find(class, id, false, |_| true);
            copies.retain(|copy| copy.record.depth < depth_below);
            copies.sort_by_key(|copy| copy.record.depth);
            for copy in &copies {
                match self.read_copy(copy) {
                    Ok(plain) => return Ok(plain),
                    Err(RepoError::Interrupted) => return Err(RepoError::Interrupted),
                    // Another copy may lie in an epoch that this key was granted.
                    Err(error @ RepoError::Forbidden { .. }) => forbidden = Some(error),
                    Err(error) => {
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
                0 => _ = self.repository.heal_index()?,
                1 => _ = self.repository.index_unlisted_packs()?,
                _ => {}
            }
        }
        if let Some(error) = forbidden.filter(|_| reasons.is_empty()) {
            return Err(error);
        }
        Err(RepoError::Missing { what, id: *id, reasons })
    }

    /// Reads the blob from this very copy.
    fn read_copy(&mut self, copy: &Located) -> Result<Vec<u8>, RepoError> {
        let frame = self.frame(copy)?;
        let start = copy.record.offset as usize;
        let blob = start.checked_add(copy.record.length as usize).and_then(|end| frame.get(start..end));
        let keyring = self.repository.keyring();
        match blob {
            Some(blob) if keyring.blob_id(copy.record.class, blob)? == copy.record.id => Ok(blob.to_vec()),
            _ => Err(self.unreadable(copy, "its content is not what its id says")),
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
        let place = (copy.pack.id, copy.record.frame_offset);
        let cache = self.repository.frame_cache();
        if let Some(plain) = cache.get(&place) {
            return Ok(plain);
        }
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.clear();
        let fetched = self.repository.environment().store.get_range(
            &pack_name(&copy.pack.id),
            u64::from(copy.record.frame_offset),
            copy.record.sealed_length as usize,
            &mut sealed,
        );
        let opened = match fetched {
            Ok(()) => self.open_fetched(copy, &mut sealed),
            Err(error) => Err(error.into()),
        };
        self.sealed = sealed;
        let plain = Arc::new(opened?);
        self.repository.frame_cache().put(place, plain.clone());
        Ok(plain)
    }

    /// Opens and decodes the sealed bytes of a frame that were fetched already.
    ///
    /// # Errors
    ///
    /// When they do not open or decode, or the base of a difference cannot be read.
    pub fn open_fetched(&mut self, copy: &Located, sealed: &mut Vec<u8>) -> Result<Vec<u8>, RepoError> {
        let record = &copy.record;
        let origin = copy
            .pack
            .origins
            .get(usize::from(record.origin))
            .ok_or_else(|| self.unreadable(copy, "its origin does not exist"))?;
        let repository = self.repository.clone();
        let sealer =
            repository.origins().open(record.class, origin, repository.id(), repository.keyring())?;
        let base = match copy.record.base {
            Some(base) => {
                Some(self.read_shallower(record.class, "the base of a difference", &base, record.depth)?)
            }
            None => None,
        };
        let key = FrameKey {
            class: record.class,
            encoding: record.encoding,
            counter: record.counter,
            plain_length: record.plain_length,
            base: copy.record.base,
        };
        let mut plain = Vec::new();
        self.decoder
            .open(&sealer, repository.id(), &key, base.as_deref(), sealed, &mut plain)
            .map_err(|why| self.unreadable(copy, &why))?;
        Ok(plain)
    }
}

/// Writes an error and its causes in one line.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
