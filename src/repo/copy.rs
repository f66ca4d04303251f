//! Copying sealed frames into new packs, with their origins: what rescues and repacks need. No key to
//! content is used, and none is needed.
//!
//! Whole packs are read and their names and signatures verified, so that what is copied is what its
//! writer sealed and verified.

use super::error::RepoError;
use super::index::{KnownPack, encode_run};
use super::packs::{FinishedPack, fill_pack, open_pack, pack_name};
use super::repository::Repository;
use super::session::run_content;
use crate::base::{IndexId, PackId, limits};
use crate::format::pack::{BlobClass, FrameRecord, Origin, PackView};
use crate::format::trust::Act;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Bytes of frames after which a pack of copies is full.
const COPIES_BYTES: usize = 32 << 20;

/// Frames on their way into one pack.
#[derive(Default)]
struct Filling {
    origins: Vec<Origin>,
    numbers: HashMap<[u8; 32], u16>,
    bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
    /// Origins and counters of the frames: none may be twice in a pack.
    taken: HashSet<([u8; 32], u64)>,
}

/// Copies frames; [`FrameCopier::finish`] makes the copies known.
pub struct FrameCopier {
    repository: Arc<Repository>,
    filling: [Filling; 2],
    done: Vec<(Arc<KnownPack>, Vec<FrameRecord>)>,
    stored_bytes: u64,
}

/// What was copied.
#[derive(Debug, Clone, Default)]
pub struct Copied {
    /// The new packs.
    pub packs: BTreeSet<PackId>,
    /// Bytes of packs and index runs put into the store.
    pub stored_bytes: u64,
}

impl FrameCopier {
    /// Prepares to copy.
    ///
    /// # Errors
    ///
    /// When this key may not write packs.
    pub fn new(repository: &Arc<Repository>) -> Result<Self, RepoError> {
        let own = repository.keyring().identity.key;
        for act in [Act::ContentPack, Act::MetadataPack, Act::IndexRun] {
            repository.registry().may_sign(&own, act)?;
        }
        Ok(Self {
            repository: repository.clone(),
            filling: Default::default(),
            done: Vec::new(),
            stored_bytes: 0,
        })
    }

    /// Copies the frames of one pack that begin at these offsets.
    ///
    /// # Errors
    ///
    /// When the pack is not there, is damaged, was not signed by a key whose packs this one may adopt
    /// ([TRUST-16]), or has no frame at one of the offsets.
    pub fn copy(&mut self, pack: &PackId, offsets: &BTreeSet<u32>) -> Result<(), RepoError> {
        let repository = self.repository.clone();
        let name = pack_name(pack);
        let store = &repository.environment().store;
        let bytes = store.get(&name, limits::PACK_BYTES_MAX)?;
        let registry = repository.registry();
        let opened = open_pack(pack, &bytes, repository.id(), repository.keyring(), |key| {
            registry.public_key(key, Act::MetadataPack)
        })?;
        let own = repository.keyring().identity.key;
        if !registry.adopts(&own, &opened.signer, pack) {
            let why = "it is of a trust domain that this key does not copy from".to_owned();
            return Err(RepoError::Untrusted { object: name, why });
        }
        let view = PackView::parse(&bytes).map_err(RepoError::damaged(name.as_str()))?;
        let frames: BTreeMap<u32, &FrameRecord> =
            opened.frames.iter().map(|frame| (frame.offset, frame)).collect();
        for offset in offsets {
            let frame = frames.get(offset).ok_or_else(|| RepoError::Untrusted {
                object: name.clone(),
                why: format!("the index names a frame at {offset} that its table does not have"),
            })?;
            let origin = opened.origins.get(usize::from(frame.origin)).ok_or_else(|| {
                RepoError::damaged(name.as_str())(crate::format::FormatError::Invalid {
                    what: "frame",
                    why: "it has no origin",
                })
            })?;
            let sealed = view.frame(frame).map_err(RepoError::damaged(name.as_str()))?;
            self.push(opened.class, origin, frame, sealed)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        class: BlobClass,
        origin: &Origin,
        frame: &FrameRecord,
        sealed: &[u8],
    ) -> Result<(), RepoError> {
        let number = match class {
            BlobClass::Content => 0,
            BlobClass::Metadata => 1,
        };
        let [content, metadata] = &mut self.filling;
        let filling = if number == 0 { content } else { metadata };
        let full = filling.bytes.len() + sealed.len() > COPIES_BYTES
            || filling.origins.len() as u64 >= limits::PACK_ORIGINS_MAX;
        if full && !filling.frames.is_empty() {
            let filled = std::mem::take(filling);
            self.store(class, filled)?;
        }
        let [content, metadata] = &mut self.filling;
        let filling = if number == 0 { content } else { metadata };
        if !filling.taken.insert((origin.commitment, frame.counter)) {
            return Ok(());
        }
        let next = u16::try_from(filling.origins.len()).unwrap_or(u16::MAX);
        let number = *filling.numbers.entry(origin.commitment).or_insert_with(|| {
            filling.origins.push(*origin);
            next
        });
        filling.bytes.extend_from_slice(sealed);
        filling.frames.push(FrameRecord { origin: number, ..frame.clone() });
        Ok(())
    }

    fn store(&mut self, class: BlobClass, filled: Filling) -> Result<(), RepoError> {
        let repository = &self.repository;
        let environment = repository.environment();
        let pack: FinishedPack = fill_pack(
            class,
            filled.origins,
            &filled.bytes,
            filled.frames,
            repository.suite(),
            repository.id(),
            repository.keyring(),
            environment.entropy.as_ref(),
        )?;
        // What is put must read back as what it was made from.
        let public = |key: &_| repository.registry().public_key(key, Act::MetadataPack);
        open_pack(&pack.id, &pack.bytes, repository.id(), repository.keyring(), public)?;
        environment.store.put(&pack_name(&pack.id), &pack.bytes)?;
        self.stored_bytes += pack.bytes.len() as u64;
        let known = KnownPack {
            id: pack.id,
            length: super::frames::length_u32(pack.bytes.len())?,
            class,
            signer: repository.keyring().identity.key,
            origins: pack.origins.into(),
        };
        self.done.push((Arc::new(known), pack.frames));
        Ok(())
    }

    /// Puts the last packs, then the index run that names all of them.
    ///
    /// # Errors
    ///
    /// When the store fails: then nothing refers to the copies.
    pub fn finish(mut self) -> Result<Copied, RepoError> {
        let [content, metadata] = std::mem::take(&mut self.filling);
        for (class, filled) in [(BlobClass::Content, content), (BlobClass::Metadata, metadata)] {
            if !filled.frames.is_empty() {
                self.store(class, filled)?;
            }
        }
        if self.done.is_empty() {
            return Ok(Copied::default());
        }
        let repository = &self.repository;
        let content = run_content(&self.done)?;
        let run = encode_run(repository, &content)?;
        let id = IndexId::new(*blake3::hash(&run).as_bytes());
        repository.environment().store.put(&repository.index_name(&id), &run)?;
        repository.index().add(id, &content).map_err(|source| RepoError::Local {
            doing: "keep an index run in",
            path: "the cache".to_owned(),
            source,
        })?;
        let stored_bytes = self.stored_bytes + run.len() as u64;
        Ok(Copied { packs: self.done.iter().map(|(pack, _)| pack.id).collect(), stored_bytes })
    }
}
