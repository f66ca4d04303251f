//! Blobs are read, compared with their ids and sealed anew, in packs that the owner's key vouches for.
//!
//! A difference becomes what differs from a blob that roots need: from the one that its chain ends on, or from the first
//! of its like, which then stands alone. It is never deeper than any copy that it takes the place of, so that what is
//! built on those is decoded with it as well.
//!
//! Workers seal, each whole chains: what one of them stores is never based on what another stores at the same time.

use super::super::super::bits::Bits;
use super::super::super::error::OpsError;
use super::super::super::keeper::Keeper;
use super::super::plan::noun;
use super::Resealed;
use super::chains::Chains;
use super::choose::Picked;
use crate::base::{BlobId, PackId, explain, limits};
use crate::codec::{Compressor, DEFAULT_LEVEL, FRAME_BYTES};
use crate::format::pack::BlobClass;
use crate::ingest::METADATA_FRAME_BYTES;
use crate::repo::{
    Base, Blob, BlobReader, FrameEncoder, Located, NumberedIndex, RepoError, Repository, WriteSession,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How it is said that packs were attested.
const METHOD: &str = "sealed anew";
/// Blobs that are remembered at once.
const BLOBS_AT_ONCE: u64 = 1 << 18;
/// Blobs that are named when they cannot be read.
const TOLD_MAX: u64 = 20;
/// Blobs that are worth a worker of their own.
const BLOBS_EACH: usize = 64;
/// Workers at most: each holds some MiB.
const WORKERS_MAX: usize = 8;

/// A blob that is to be sealed anew.
struct Item {
    /// Where the copy lies that readers take first: pack, frame, and place in it.
    place: (PackId, u32, u32),
    class: BlobClass,
    id: BlobId,
    /// Whether it is only a base.
    is_held: bool,
    /// The chain that it is on.
    chain: u64,
    /// What that ends on, if roots need it.
    near: Option<BlobId>,
}

/// Blobs that will share a frame.
#[derive(Default)]
struct Gathered {
    plain: Vec<u8>,
    blobs: Vec<(BlobId, u32)>,
}

/// What all workers share.
struct Sealing<'a> {
    repository: &'a Arc<Repository>,
    chains: Chains<'a>,
    picked: &'a Picked,
    /// First records of blobs that were sealed anew.
    written: Bits,
    blobs: AtomicU64,
    unreadable: AtomicU64,
    bytes: AtomicU64,
}

/// Seals anew what was picked; durable, vouched for and known on return.
///
/// # Errors
///
/// When the store fails; then nothing is relied on. A blob that cannot be read is told, and stays as it is.
pub(super) fn write(
    repository: &Arc<Repository>,
    index: &NumberedIndex,
    keeper: &Keeper<'_>,
    picked: &Picked,
) -> Result<Resealed, OpsError> {
    let sealing = Sealing {
        repository,
        chains: Chains { index, keeper },
        picked,
        written: Bits::new(index.len()),
        blobs: AtomicU64::new(0),
        unreadable: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    let passes = |blobs: u64| (blobs / BLOBS_AT_ONCE + 1).min(1 << 16);
    let rebased = passes(picked.rebased.count());
    for pass in 0..rebased {
        sealing.rebase(sealing.differences(pass, rebased))?;
    }
    let split = passes(picked.split.count());
    for pass in 0..split {
        sealing.store_whole(sealing.shared(pass, split))?;
    }
    let unreadable = sealing.unreadable.into_inner();
    if unreadable > TOLD_MAX {
        let more = unreadable - TOLD_MAX;
        repository.environment().observer.warn(&format!("{more} more cannot be read; `check` names them"));
    }
    Ok(Resealed {
        blobs: sealing.blobs.into_inner(),
        bytes: sealing.bytes.into_inner(),
        unreadable,
        ..Resealed::default()
    })
}

impl Sealing<'_> {
    /// Finds the differences of one pass whose bases go; those above one end are in one pass.
    fn differences(&self, pass: u64, passes: u64) -> Vec<Item> {
        let (chains, picked) = (self.chains, self.picked);
        let mut found: HashMap<(BlobClass, BlobId), Item> = HashMap::new();
        chains.index.for_each(|number, copy| {
            let record = &copy.record;
            if record.base.is_none() || !chains.is_chosen(number) || chains.is_held(number, &copy) {
                return;
            }
            let ends = chains.ends(&copy);
            let end = ends.iter().filter(|(end, _)| picked.ends.get(*end)).min_by_key(|(end, _)| *end);
            let Some((chain, end)) = end.filter(|(chain, _)| chain % passes == pass) else { return };
            let item = self.item(&copy, *chain, end.record.base);
            found.entry((record.class, record.id)).or_insert(item);
        });
        sorted(found.into_values().collect())
    }

    /// Finds the blobs of one pass that share frames with what is not needed.
    fn shared(&self, pass: u64, passes: u64) -> Vec<Item> {
        let (chains, picked) = (self.chains, self.picked);
        let mut found = Vec::new();
        chains.index.for_each(|number, copy| {
            let [a, b, ..] = *copy.pack.id.as_bytes();
            let is_now = u64::from(u16::from_be_bytes([a, b])) % passes == pass;
            if is_now && picked.split.get(number) && !picked.rebased.get(number) {
                found.push(self.item(&copy, 0, None));
            }
        });
        sorted(found)
    }

    fn item(&self, copy: &Located, chain: u64, near: Option<BlobId>) -> Item {
        let record = &copy.record;
        Item {
            place: (copy.pack.id, record.frame_offset, record.offset),
            class: record.class,
            id: record.id,
            is_held: !self.chains.keeper.is_reached(record.class, &record.id),
            chain,
            near,
        }
    }

    /// Stores one blob of each chain whole, where it does not end on one that is needed. Once these are known, the others
    /// are stored as what differs from them.
    fn rebase(&self, items: Vec<Item>) -> Result<(), OpsError> {
        let workers = workers_for(items.len());
        let parts = spread(items, workers, |_, item| (item.chain % workers as u64) as usize);
        let above = self.each(parts, |worker, items| {
            let mut lowest: HashMap<u64, BlobId> = HashMap::new();
            let mut above = Vec::new();
            for item in items {
                if item.near.is_some() || lowest.contains_key(&item.chain) {
                    above.push(item);
                } else if let Some(blob) = worker.read(&item)? {
                    worker.gather(&item, &blob)?;
                    lowest.insert(item.chain, item.id);
                }
            }
            Ok((above, lowest))
        })?;
        let above = above.into_iter().filter(|(above, _)| !above.is_empty()).collect();
        self.each(above, |worker, (above, lowest): (Vec<Item>, HashMap<u64, BlobId>)| {
            for item in above {
                let Some(blob) = worker.read(&item)? else { continue };
                let bases = [item.near, lowest.get(&item.chain).copied()];
                if worker.store_difference(&item, &blob, &bases)? {
                    self.note(&item);
                } else {
                    worker.gather(&item, &blob)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn store_whole(&self, items: Vec<Item>) -> Result<(), OpsError> {
        // Those that lie together stay together.
        let workers = workers_for(items.len());
        let each = items.len().div_ceil(workers);
        let parts = spread(items, workers, |number, _| number / each);
        self.each(parts, |worker, items| {
            for item in items {
                if let Some(blob) = worker.read(&item)? {
                    worker.gather(&item, &blob)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Gives each part to a worker of its own, all in one session: durable, vouched for and known on return.
    fn each<Part: Send, Done: Send>(
        &self,
        parts: Vec<Part>,
        work: impl Fn(&mut Worker<'_>, Part) -> Result<Done, OpsError> + Sync,
    ) -> Result<Vec<Done>, OpsError> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let session = WriteSession::begin_attesting(self.repository, METHOD)?;
        let run = |part| {
            let mut worker = Worker::new(self, &session)?;
            let done = work(&mut worker, part)?;
            worker.seal_all()?;
            Ok(done)
        };
        let done: Result<Vec<Done>, OpsError> = std::thread::scope(|scope| {
            let run = &run;
            let workers: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || run(part))).collect();
            // All are waited for, also where one has failed.
            let ended: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            let panicked = |_| {
                let (doing, why) = ("sealing blobs anew", "a worker ended without a result".to_owned());
                Err(RepoError::Internal { doing, why }.into())
            };
            ended.into_iter().map(|done| done.unwrap_or_else(panicked)).collect()
        });
        let done = done?;
        let finished = session.finish()?;
        let sealed = finished.counts().sealed_bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
        self.bytes.fetch_add(sealed, Ordering::Relaxed);
        Ok(done)
    }

    fn note(&self, item: &Item) {
        self.blobs.fetch_add(1, Ordering::Relaxed);
        if let Some((first, _)) = self.chains.index.first(item.class, &item.id) {
            self.written.set(first);
        }
    }
}

/// Seals blobs of its own part.
struct Worker<'a> {
    sealing: &'a Sealing<'a>,
    session: &'a WriteSession,
    reader: BlobReader,
    encoder: FrameEncoder,
    /// Tells what a blob would take by itself.
    compressor: Compressor,
    alone: Vec<u8>,
    /// By class, and whether they are only bases: what goes at different times is kept apart.
    gathered: [[Gathered; 2]; 2],
}

impl<'a> Worker<'a> {
    fn new(sealing: &'a Sealing<'a>, session: &'a WriteSession) -> Result<Self, OpsError> {
        Ok(Self {
            sealing,
            session,
            reader: BlobReader::new(sealing.repository)?,
            encoder: FrameEncoder::new(DEFAULT_LEVEL)?,
            compressor: Compressor::new(DEFAULT_LEVEL).map_err(compressing)?,
            alone: Vec::new(),
            gathered: Default::default(),
        })
    }

    /// Says whether a copy of this depth may take the place of all that are relied on: none of those is shallower, but
    /// for such as only claim to hold the blob.
    fn may_have_depth(&mut self, item: &Item, depth: u8) -> Result<bool, OpsError> {
        let mut shallower = Vec::new();
        self.sealing.chains.index.copies(item.class, &item.id, |number, copy| {
            if copy.record.depth < depth && self.sealing.chains.is_chosen(number) {
                shallower.push(copy);
            }
        });
        for copy in &shallower {
            match self.reader.read_copy(copy) {
                Ok(_) | Err(RepoError::Forbidden { .. }) => return Ok(false),
                Err(error @ RepoError::Interrupted) => return Err(error.into()),
                Err(error) if error.is_unanswered() => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(true)
    }

    /// Stores a blob as a difference against the first of these bases that there is and is worth it.
    fn store_difference(
        &mut self,
        item: &Item,
        blob: &Blob,
        bases: &[Option<BlobId>],
    ) -> Result<bool, OpsError> {
        if item.class != BlobClass::Content {
            return Ok(false);
        }
        let mut alone: Option<usize> = None;
        for base in bases.iter().flatten().filter(|base| **base != item.id) {
            let Some(copy) = self.sealing.repository.base(base) else { continue };
            if !self.may_have_depth(item, copy.record.depth.saturating_add(1))? {
                continue;
            }
            // From this copy and no other: the depth of what is stored against it follows from its own.
            let plain = match self.reader.read_copy(&copy) {
                Ok(plain) => plain,
                Err(error) if error.is_unanswered() => return Err(error.into()),
                Err(error @ RepoError::Interrupted) => return Err(error.into()),
                Err(_) => continue,
            };
            let most = match alone {
                Some(most) => most,
                None => *alone.insert(self.bytes_alone(blob)? / 4 * 3),
            };
            let base = Base { id: *base, plain: plain.bytes(), depth: copy.record.depth, thorough: false };
            if self.session.store_difference(&mut self.encoder, blob.bytes(), item.id, &base, most)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the bytes that a blob takes by itself.
    fn bytes_alone(&mut self, blob: &Blob) -> Result<usize, OpsError> {
        self.alone.clear();
        self.compressor.compress(blob.bytes(), &mut self.alone).map_err(compressing)?;
        Ok(self.alone.len())
    }

    /// Reads a blob from whatever copy serves; `None` where none does, or it was sealed anew already.
    fn read(&mut self, item: &Item) -> Result<Option<Blob>, OpsError> {
        let sealing = self.sealing;
        let observer = &sealing.repository.environment().observer;
        if observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        let first = sealing.chains.index.first(item.class, &item.id);
        if first.is_none_or(|(first, _)| sealing.written.get(first)) {
            return Ok(None);
        }
        match self.reader.read(item.class, noun(item.class), &item.id) {
            Ok(blob) => Ok(Some(blob)),
            Err(error @ RepoError::Interrupted) => Err(error.into()),
            Err(error) if error.is_unanswered() => Err(error.into()),
            Err(error) => {
                if sealing.unreadable.fetch_add(1, Ordering::Relaxed) < TOLD_MAX {
                    observer.warn(&format!(
                        "{} {} is not sealed anew, and what holds it stays: {}",
                        noun(item.class),
                        item.id.short(),
                        explain(&error)
                    ));
                }
                Ok(None)
            }
        }
    }

    /// Takes a blob into the frame that its like share, which is sealed when it is full.
    fn gather(&mut self, item: &Item, blob: &Blob) -> Result<(), OpsError> {
        let (number, full) = match item.class {
            BlobClass::Content => (0, FRAME_BYTES),
            BlobClass::Metadata => (1, METADATA_FRAME_BYTES),
        };
        let kind = usize::from(item.is_held);
        let gathered = &self.gathered[number][kind];
        let is_full = gathered.plain.len() + blob.bytes().len() > full
            || gathered.blobs.len() as u64 >= limits::FRAME_BLOBS_MAX;
        if is_full && !gathered.blobs.is_empty() {
            self.seal(item.class, kind)?;
        }
        let gathered = &mut self.gathered[number][kind];
        gathered.plain.extend_from_slice(blob.bytes());
        let length = u32::try_from(blob.bytes().len()).map_err(|_| RepoError::Internal {
            doing: "sealing a blob anew",
            why: "it is longer than 4 GiB".to_owned(),
        })?;
        gathered.blobs.push((item.id, length));
        self.sealing.note(item);
        Ok(())
    }

    fn seal(&mut self, class: BlobClass, kind: usize) -> Result<(), OpsError> {
        let number = usize::from(class == BlobClass::Metadata);
        let gathered = std::mem::take(&mut self.gathered[number][kind]);
        if !gathered.blobs.is_empty() {
            self.session.store_frame(&mut self.encoder, class, &gathered.plain, gathered.blobs)?;
        }
        Ok(())
    }

    fn seal_all(&mut self) -> Result<(), OpsError> {
        for class in [BlobClass::Content, BlobClass::Metadata] {
            for kind in [0, 1] {
                self.seal(class, kind)?;
            }
        }
        Ok(())
    }
}

/// Returns how many workers are worth their threads.
fn workers_for(blobs: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    blobs.div_ceil(BLOBS_EACH).clamp(1, cores.min(WORKERS_MAX))
}

/// Spreads blobs over workers, in their order, by their number and what they are; there is no part without any.
fn spread(items: Vec<Item>, workers: usize, part: impl Fn(usize, &Item) -> usize) -> Vec<Vec<Item>> {
    let mut parts: Vec<Vec<Item>> = (0..workers).map(|_| Vec::new()).collect();
    for (number, item) in items.into_iter().enumerate() {
        if let Some(part) = parts.get_mut(part(number, &item)) {
            part.push(item);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn compressing(why: crate::codec::CodecError) -> RepoError {
    RepoError::Internal { doing: "compressing a blob that is sealed anew", why: why.to_string() }
}

/// In the order in which they lie, so that each frame is read once.
fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_unstable_by_key(|item| item.place);
    items
}
