//! Copying sealed frames into new packs, with their origins: what rescues and repacks need. No key to
//! content is used, and none is needed.
//!
//! Whole packs are read and their names and signatures verified, so that what is copied is what its
//! writer sealed and verified.

use super::contest::{Contests, Verdict};
use super::error::RepoError;
use super::index::KnownPack;
use super::packs::{FinishedPack, OpenedPack, fill_pack, open_pack, pack_bytes, pack_name};
use super::repository::Repository;
use super::session::run_content;
use crate::base::{KeyId, PackId, limits};
use crate::format::pack::{BlobClass, FrameRecord, Origin, PackView};
use crate::format::trust::Act;
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Records that make an index run worth writing while the copying goes on.
const RUN_RECORDS: usize = 1 << 17;

/// Frames on their way into one pack.
#[derive(Default)]
struct Filling {
    origins: Vec<Origin>,
    numbers: HashMap<Origin, u16>,
    bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
    /// Origins and counters of the frames, none of which may be twice in a pack, and where they are.
    taken: HashMap<(Origin, u64), (usize, usize)>,
}

/// Whether a pack that is being filled has a frame of some origin and counter.
enum Taken {
    No,
    /// This very frame.
    Yes,
    /// Another one: somebody took an origin that is not his.
    ByAnother,
}

impl Filling {
    fn takes(&self, origin: &Origin, frame: &FrameRecord, sealed: &[u8]) -> Taken {
        let Some((number, at)) = self.taken.get(&(*origin, frame.counter)) else {
            return Taken::No;
        };
        let held = self.frames.get(*number).map(|held| FrameRecord {
            origin: frame.origin,
            offset: frame.offset,
            ..held.clone()
        });
        let same = held.as_ref() == Some(frame)
            && self.bytes.get(*at..).is_some_and(|bytes| bytes.starts_with(sealed));
        if same { Taken::Yes } else { Taken::ByAnother }
    }
}

/// Copies frames; [`FrameCopier::finish`] makes the copies known.
pub struct FrameCopier {
    repository: Arc<Repository>,
    filling: [Filling; 2],
    done: Vec<(Arc<KnownPack>, Vec<FrameRecord>)>,
    copied: Copied,
    /// Keys that are believed copy nothing about which packs disagree: their copies stand for each other,
    /// whoever signed what they were made from ([CONCURRENCY-48]).
    contests: Option<Contests>,
}

/// What was copied.
#[derive(Debug, Clone, Default)]
pub struct Copied {
    /// The new packs.
    pub packs: BTreeSet<PackId>,
    /// Bytes of packs and index runs put into the store.
    pub stored_bytes: u64,
}

/// What was not copied of a pack.
#[derive(Debug, Default)]
pub struct NotCopied {
    /// Where the pack has no such frame, or was not signed by whoever says so: nothing is lost.
    pub made_up: BTreeSet<u32>,
    /// Frames of which another pack holds something else under the same origin and counter.
    pub contested: BTreeSet<u32>,
    /// Of such, the ones that this key has opened, and that are not what they claim to be: nothing is lost.
    pub forged: BTreeSet<u32>,
    /// Why the pack as a whole could not be copied from.
    pub unreadable: Option<RepoError>,
}

impl NotCopied {
    fn unreadable(error: RepoError) -> Self {
        Self { unreadable: Some(error), ..Self::default() }
    }
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
            copied: Copied::default(),
            contests: repository.registry().is_believed(&own).then(Contests::default),
        })
    }

    /// Copies the frames of one pack that begin at these offsets, as far as the index run of `signer` does not
    /// make them up; says which were not copied, and why.
    ///
    /// # Errors
    ///
    /// When the copies cannot be stored, or the store does not answer.
    pub fn copy(
        &mut self,
        pack: &PackId,
        signer: &KeyId,
        offsets: &BTreeSet<u32>,
    ) -> Result<NotCopied, RepoError> {
        let bytes = match self.repository.environment().store.get(&pack_name(pack), limits::PACK_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error @ StorageError::Transient { .. }) => return Err(error.into()),
            Err(error) => return Ok(NotCopied::unreadable(error.into())),
        };
        let opened = match self.open(pack, &bytes) {
            Ok(opened) => opened,
            // It was made that way: it never was a pack, and holds nothing.
            Err(RepoError::Damaged { .. }) if blake3::hash(&bytes) == *pack.as_bytes() => {
                return Ok(NotCopied { made_up: offsets.clone(), ..NotCopied::default() });
            }
            Err(error) => return Ok(NotCopied::unreadable(error)),
        };
        let mut not_copied = NotCopied::default();
        // [INDEX-9]
        if opened.signer != *signer {
            not_copied.made_up = offsets.clone();
            return Ok(not_copied);
        }
        let view = PackView::parse(&bytes).map_err(RepoError::damaged(pack_name(pack)))?;
        let known = Arc::new(KnownPack {
            id: *pack,
            length: super::frames::length_u32(bytes.len())?,
            class: opened.class,
            signer: opened.signer,
            origins: opened.origins.clone().into(),
        });
        let frames: BTreeMap<u32, &FrameRecord> =
            opened.frames.iter().map(|frame| (frame.offset, frame)).collect();
        for offset in offsets {
            let found = frames.get(offset).and_then(|frame| {
                let origin = opened.origins.get(usize::from(frame.origin))?;
                Some((*frame, origin, view.frame(frame).ok()?))
            });
            let Some((frame, origin, sealed)) = found else {
                not_copied.made_up.insert(*offset);
                continue;
            };
            let verdict = match &mut self.contests {
                Some(contests) => contests.judge(&self.repository, &known, frame, sealed)?,
                None => Verdict::Sound,
            };
            match verdict {
                Verdict::Sound => {}
                Verdict::Contested => {
                    not_copied.contested.insert(*offset);
                    continue;
                }
                Verdict::Forged => {
                    not_copied.forged.insert(*offset);
                    continue;
                }
            }
            self.push(opened.class, origin, frame, sealed)?;
        }
        Ok(not_copied)
    }

    /// Opens a pack that this key may copy from ([TRUST-16]).
    fn open(&self, pack: &PackId, bytes: &[u8]) -> Result<OpenedPack, RepoError> {
        let (repository, registry) = (&self.repository, self.repository.registry());
        let opened = open_pack(pack, bytes, repository.id(), repository.keyring(), |key| {
            registry.public_key(key, Act::MetadataPack)
        })?;
        let own = repository.keyring().identity.key;
        if !registry.adopts(&own, &opened.signer, pack) {
            let why = "it is of a trust domain that this key does not copy from".to_owned();
            return Err(RepoError::Untrusted { object: pack_name(pack), why });
        }
        Ok(opened)
    }

    /// Adds a frame that the caller has opened itself, and whose blobs have their ids: this key vouches for it.
    ///
    /// # Errors
    ///
    /// When a full pack cannot be stored.
    pub fn add_verified(
        &mut self,
        pack: &KnownPack,
        frame: &FrameRecord,
        sealed: &[u8],
    ) -> Result<(), RepoError> {
        let origin = pack.origins.get(usize::from(frame.origin)).ok_or_else(|| RepoError::Untrusted {
            object: pack_name(&pack.id),
            why: format!("its frame at {} has no origin", frame.offset),
        })?;
        self.push(pack.class, origin, frame, sealed)
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
        let taken = filling.takes(origin, frame, sealed);
        if matches!(taken, Taken::Yes) {
            return Ok(());
        }
        let full = filling.bytes.len() + sealed.len() > pack_bytes(class)
            || filling.origins.len() as u64 >= limits::PACK_ORIGINS_MAX
            || matches!(taken, Taken::ByAnother);
        if full && !filling.frames.is_empty() {
            let filled = std::mem::take(filling);
            self.store(class, filled)?;
        }
        let [content, metadata] = &mut self.filling;
        let filling = if number == 0 { content } else { metadata };
        filling.taken.insert((*origin, frame.counter), (filling.frames.len(), filling.bytes.len()));
        let next = u16::try_from(filling.origins.len()).unwrap_or(u16::MAX);
        let number = *filling.numbers.entry(*origin).or_insert_with(|| {
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
        self.copied.stored_bytes += pack.bytes.len() as u64;
        let known = KnownPack {
            id: pack.id,
            length: super::frames::length_u32(pack.bytes.len())?,
            class,
            signer: repository.keyring().identity.key,
            origins: pack.origins.into(),
        };
        self.copied.packs.insert(pack.id);
        self.done.push((Arc::new(known), pack.frames));
        let records: usize =
            self.done.iter().flat_map(|(_, frames)| frames).map(|frame| frame.blobs.len()).sum();
        if records >= RUN_RECORDS { self.write_run() } else { Ok(()) }
    }

    /// Makes durable packs known.
    fn write_run(&mut self) -> Result<(), RepoError> {
        let done = std::mem::take(&mut self.done);
        if done.is_empty() {
            return Ok(());
        }
        self.copied.stored_bytes += self.repository.put_run(&run_content(&done)?)?;
        Ok(())
    }

    /// Puts the last packs, then the index run that names them.
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
        self.write_run()?;
        Ok(self.copied)
    }
}
