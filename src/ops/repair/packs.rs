//! What is readable in damaged packs moves to new ones; what parity brings back is put right in its place.
//!
//! A frame is copied only if it was opened and each of its blobs has its id, so it takes a key that can open it:
//! an owner's for content. What lies elsewhere already, whole, is not copied.
//!
//! Write order, and what a crash after each step leaves:
//! 1. packs of copies: nothing refers to them;
//! 2. their index run: readers find the copies.
//!
//! The damaged packs stay as they are. Once nothing needs them, a prune deletes them.

use crate::base::{BlobId, ObjectId, PackId, explain};
use crate::format::index::IndexRecord;
use crate::format::pack::{BlobClass, FrameRecord};
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::trust::Act;
use crate::ops::OpsError;
use crate::ops::parity::restore;
use crate::repo::{
    BlobReader, CondemnedListing, DescribedPack, FrameCopier, FrameState, KnownPack, NumberedIndex,
    PackProblem, PackScanner, Presence, RepoError, Repository, SpoiltPacks, pack_name,
};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How to repair packs.
#[derive(Debug, Clone, Default)]
pub struct PacksOptions {
    /// Looks at these too, whatever is known of them.
    pub packs: Vec<PackId>,
    /// Name and version of the program.
    pub program: String,
}

/// A pack of which not everything can be read.
#[derive(Debug, Clone)]
pub struct DamagedPack {
    /// The pack.
    pub id: PackId,
    /// What is wrong with it.
    pub why: String,
    /// That its parity brings all of it back.
    pub by_parity: bool,
    /// Frames that are good and lie nowhere else.
    pub salvaged: u64,
    /// Their sealed bytes.
    pub salvaged_bytes: u64,
    /// Frames whose blobs are whole elsewhere.
    pub elsewhere: u64,
    /// Frames that this key cannot open: nobody knows what they are.
    pub closed: u64,
    /// Blobs that cannot be read here or elsewhere.
    pub lost: Vec<BlobId>,
    /// Their plain bytes.
    pub lost_bytes: u64,
    frames: Vec<FrameRecord>,
    /// Frames that are whole elsewhere, and the packs where.
    covered: Vec<(FrameRecord, BTreeSet<PackId>)>,
    known: Option<Arc<KnownPack>>,
}

/// What would be done.
pub struct PacksPlan {
    repository: Arc<Repository>,
    options: PacksOptions,
    /// The packs, in order of their ids.
    pub packs: Vec<DamagedPack>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacksRepaired {
    /// Packs that their parity brought back, in their own place.
    pub by_parity: u64,
    /// Frames that were copied.
    pub frames: u64,
    /// Packs that hold the copies.
    pub packs: u64,
    /// Bytes put into the store.
    pub stored_bytes: u64,
}

/// Where blobs are whole, beside the pack at hand.
struct Elsewhere<'a> {
    index: &'a NumberedIndex,
    lengths: &'a HashMap<PackId, u64>,
    spoilt: &'a SpoiltPacks,
    condemned: &'a CondemnedListing,
    reader: BlobReader,
}

impl Elsewhere<'_> {
    /// Returns a pack other than the one at hand in which a blob is whole. Anybody can claim to hold it: it is
    /// read, and what this key cannot read is believed of whoever made that one, and of owners and maintainers.
    fn has(&mut self, class: BlobClass, blob: &BlobId, not: &KnownPack) -> Result<Option<PackId>, RepoError> {
        let mut copies = Vec::new();
        self.index.copies(class, blob, |_, copy| {
            let pack = &copy.pack;
            if pack.id != not.id
                && self.lengths.get(&pack.id) == Some(&u64::from(pack.length))
                && !self.spoilt.names(&pack.id, blob)
                && !self.condemned.found.values().any(|found| found.condemned.names(&pack.id))
            {
                copies.push(copy);
            }
        });
        for copy in &copies {
            match self.reader.read_copy(copy) {
                Ok(_) => return Ok(Some(copy.pack.id)),
                Err(RepoError::Forbidden { .. }) => {
                    let signer = copy.pack.signer;
                    let believed = self.reader.repository().registry().is_believed(&signer);
                    if believed || signer == not.signer {
                        return Ok(Some(copy.pack.id));
                    }
                }
                Err(error @ RepoError::Interrupted) => return Err(error),
                Err(error) if error.is_unanswered() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

impl PacksPlan {
    /// Looks at every pack that is reported as damaged, has another length than the index says, or was
    /// named, and tries all of its frames.
    ///
    /// # Errors
    ///
    /// [`RepoError::Forbidden`] for a key that may not write packs; when the store cannot be listed.
    pub fn new(repository: &Arc<Repository>, options: PacksOptions) -> Result<Self, OpsError> {
        let own = repository.keyring().identity.key;
        for act in [Act::ContentPack, Act::MetadataPack, Act::IndexRun] {
            repository.registry().may_sign(&own, act)?;
        }
        repository.refresh_index()?;
        repository.index_unlisted_packs()?;
        let condemned = repository.condemned(&CondemnedListing::default())?;
        let spoilt = repository.damage_reports()?.spoilt(repository.registry(), own);
        let lengths = repository.pack_lengths()?;
        let index = repository.index().numbered();
        let known = repository.index().packs();
        let odd = known.values().filter(|pack| lengths.get(&pack.id) != Some(&u64::from(pack.length)));
        let mut chosen: BTreeSet<PackId> = odd.map(|pack| pack.id).collect();
        chosen.extend(spoilt.packs());
        chosen.extend(&options.packs);
        chosen.retain(|id| {
            // One that was pruned is no loss.
            !condemned.found.values().any(|found| found.condemned.names(id))
                && (known.contains_key(id) || lengths.contains_key(id))
        });
        let reader = BlobReader::new(repository)?;
        let mut elsewhere =
            Elsewhere { index: &index, lengths: &lengths, spoilt: &spoilt, condemned: &condemned, reader };
        let by_index = frames_by_index(&index, &chosen);
        let mut scanner = PackScanner::new(repository)?;
        let mut packs = Vec::new();
        for id in chosen {
            if repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            let (why, described) = look(&mut scanner, &id, lengths.get(&id).copied(), &known, &by_index)?;
            let mut damaged = DamagedPack {
                id,
                why,
                by_parity: false,
                salvaged: 0,
                salvaged_bytes: 0,
                elsewhere: 0,
                closed: 0,
                lost: Vec::new(),
                lost_bytes: 0,
                frames: Vec::new(),
                covered: Vec::new(),
                known: described.as_ref().map(|(known, _)| known.clone()),
            };
            if damaged.why.is_empty() {
                continue;
            }
            damaged.by_parity =
                restore(repository, &ObjectId::from(id), &pack_name(&id), true)? == Some(true);
            if let Some((pack, frames)) = described.filter(|_| !damaged.by_parity) {
                judge(&mut scanner, &pack, frames, &mut elsewhere, &mut damaged)?;
            }
            packs.push(damaged);
        }
        Ok(Self { repository: repository.clone(), options, packs })
    }

    /// Says whether something cannot be had any more, as far as this key can tell.
    pub fn loses_something(&self) -> bool {
        self.packs
            .iter()
            .filter(|pack| !pack.by_parity)
            .any(|pack| !pack.lost.is_empty() || pack.closed > 0 || pack.known.is_none())
    }

    /// Copies what can be salvaged.
    ///
    /// # Errors
    ///
    /// When the store fails: then nothing refers to the copies.
    pub fn run(&self) -> Result<PacksRepaired, OpsError> {
        let mut done = PacksRepaired::default();
        for pack in self.packs.iter().filter(|pack| pack.by_parity) {
            let name = pack_name(&pack.id);
            let restored = restore(&self.repository, &ObjectId::from(pack.id), &name, false)?;
            done.by_parity += u64::from(restored == Some(true));
        }
        if self.packs.iter().all(|pack| pack.frames.is_empty() && pack.covered.is_empty()) {
            return Ok(done);
        }
        let repository = &self.repository;
        let program = &self.options.program;
        let presence = Presence::begin(repository, SessionPurpose::Maintain, IdSet::default(), program)?;
        // The plan was made before: what it relied on may have been condemned since ([CONCURRENCY-10]).
        let listing = presence.listing();
        let goes = |pack: &PackId| listing.found.values().any(|found| found.condemned.names(pack));
        let mut scanner = PackScanner::new(repository)?;
        let mut copier = FrameCopier::new(repository)?;
        for (pack, known) in self.packs.iter().filter_map(|pack| Some((pack, pack.known.as_ref()?))) {
            let uncovered = pack.covered.iter().filter(|(_, packs)| packs.iter().any(goes));
            for frame in pack.frames.iter().chain(uncovered.map(|(frame, _)| frame)) {
                if repository.environment().observer.interrupted() {
                    return Err(RepoError::Interrupted.into());
                }
                // Read again: what is copied is what was verified just now.
                let (state, sealed) = scanner.salvage(known, frame)?;
                if state == FrameState::Good {
                    copier.add_verified(known, frame, &sealed)?;
                    done.frames += 1;
                }
            }
        }
        let copied = copier.finish()?;
        (done.packs, done.stored_bytes) = (copied.packs.len() as u64, copied.stored_bytes);
        Ok(done)
    }
}

/// Says what is wrong with a pack, and what it should hold; an empty text means nothing.
fn look(
    scanner: &mut PackScanner,
    id: &PackId,
    length: Option<u64>,
    known: &HashMap<PackId, Arc<KnownPack>>,
    by_index: &BTreeMap<PackId, Vec<FrameRecord>>,
) -> Result<(String, Option<DescribedPack>), OpsError> {
    let indexed = || known.get(id).map(|pack| (pack.clone(), by_index.get(id).cloned().unwrap_or_default()));
    let Some(length) = length else { return Ok(("it is missing".to_owned(), indexed())) };
    let expected = known.get(id).map(|pack| u64::from(pack.length));
    if let Some(expected) = expected.filter(|expected| *expected != length) {
        return Ok((format!("it has {length} bytes instead of {expected}"), indexed()));
    }
    match scanner.scan(id, length, |_| {}) {
        Ok(scanned) => {
            let bad = |state: &FrameState| matches!(state, FrameState::Bad(_) | FrameState::Baseless(_));
            let count = scanned.frames.iter().filter(|(_, state)| bad(state)).count();
            let why = match scanned.problems.as_slice() {
                [] if count == 0 => String::new(),
                [] => format!("{count} frames cannot be read"),
                problems => {
                    let texts: Vec<String> = problems.iter().map(PackProblem::to_string).collect();
                    texts.join("; ")
                }
            };
            let frames = scanned.frames.into_iter().map(|(frame, _)| frame).collect();
            Ok((why, Some((scanned.pack, frames))))
        }
        Err(error @ (RepoError::Interrupted | RepoError::Storage(StorageError::Transient { .. }))) => {
            Err(error.into())
        }
        Err(error) => Ok((explain(&error), indexed())),
    }
}

fn judge(
    scanner: &mut PackScanner,
    pack: &Arc<KnownPack>,
    frames: Vec<FrameRecord>,
    elsewhere: &mut Elsewhere<'_>,
    damaged: &mut DamagedPack,
) -> Result<(), OpsError> {
    for frame in frames {
        let (mut here, mut packs) = (Vec::new(), BTreeSet::new());
        for (blob, length) in &frame.blobs {
            match elsewhere.has(pack.class, blob, pack)? {
                Some(pack) => _ = packs.insert(pack),
                None => here.push((*blob, *length)),
            }
        }
        if here.is_empty() {
            damaged.elsewhere += 1;
            damaged.covered.push((frame, packs));
            continue;
        }
        match scanner.salvage(pack, &frame)?.0 {
            FrameState::Good => {
                damaged.salvaged += 1;
                damaged.salvaged_bytes += u64::from(frame.sealed_length);
                damaged.frames.push(frame);
            }
            FrameState::Closed => damaged.closed += 1,
            FrameState::Bad(_) | FrameState::Baseless(_) => {
                for (blob, length) in here {
                    damaged.lost.push(blob);
                    damaged.lost_bytes += u64::from(length);
                }
            }
        }
    }
    Ok(())
}

/// Puts the frames of packs together from what the index says, for packs that cannot say it themselves.
fn frames_by_index(index: &NumberedIndex, packs: &BTreeSet<PackId>) -> BTreeMap<PackId, Vec<FrameRecord>> {
    let mut found: BTreeMap<(PackId, u32), Vec<IndexRecord>> = BTreeMap::new();
    index.for_each(|_, copy| {
        if packs.contains(&copy.pack.id) {
            found.entry((copy.pack.id, copy.record.frame_offset)).or_default().push(copy.record);
        }
    });
    let mut frames: BTreeMap<PackId, Vec<FrameRecord>> = BTreeMap::new();
    for ((pack, _), mut records) in found {
        records.sort_by_key(|record| record.offset);
        records.dedup_by_key(|record| record.offset);
        let Some(first) = records.first().cloned() else { continue };
        let covered: u64 = records.iter().map(|record| u64::from(record.length)).sum();
        if covered != u64::from(first.plain_length) {
            continue;
        }
        frames.entry(pack).or_default().push(FrameRecord {
            offset: first.frame_offset,
            sealed_length: first.sealed_length,
            plain_length: first.plain_length,
            encoding: first.encoding,
            depth: first.depth,
            origin: first.origin,
            counter: first.counter,
            base: first.base,
            blobs: records.iter().map(|record| (record.id, record.length)).collect(),
        });
    }
    frames
}
