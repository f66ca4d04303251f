//! The frames of merged log packs: of a segment in one its own are read, and no others.

use super::find::FoundLog;
use super::merged::{MergedPack, at_most, broken};
use super::read::{Decoding, OpenedLog};
use crate::base::BlobId;
use crate::format::FormatError;
use crate::format::log::{LogContent, LogPackFront, LogPackTail, contents_associated_data};
use crate::format::pack::{FrameRecord, TRAILER_BYTES};
use crate::repo::error::RepoError;
use crate::repo::packs::unseal_contents;
use crate::repo::repository::Repository;
use crate::storage::ObjectInfo;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes of the end that are read at once: trailer, origins and table of contents of some hundred frames.
const TAIL_BYTES: u64 = 64 << 10;
/// Bytes between two frames that are read along, so that they are one request.
const HOLE_BYTES: u32 = 64 << 10;

/// The frames of a merged log pack by the blobs that they hold.
pub(super) struct Frames {
    frames: Vec<FrameRecord>,
    holding: HashMap<BlobId, Vec<usize>>,
}

impl Repository {
    /// Reads what a record in a merged log pack stands for: its own frames and no others.
    pub(super) fn read_merged(&self, log: &FoundLog, content: &LogContent) -> Result<Decoding, RepoError> {
        let name = log.object.clone();
        let pack = self.merged_pack(&ObjectInfo { name, length: log.length, modified: log.stored })?;
        let frames = match pack.frames.get() {
            Some(frames) => frames,
            None => {
                let frames = self.read_frames(&pack)?;
                pack.frames.get_or_init(|| frames)
            }
        };
        let mut problem = None;
        for way in frames.ways(content) {
            let read = self.fetch_frames(&pack, way).and_then(|opened| opened.read(self, content));
            match read {
                Ok(decoding) => return Ok(decoding),
                Err(error @ RepoError::Storage(_)) => return Err(error),
                Err(error) => drop(problem.get_or_insert(error)),
            }
        }
        let why = "a record names a blob that it does not hold";
        Err(problem.unwrap_or_else(|| broken(&log.object, why)))
    }

    /// Reads the table of contents of a merged log pack.
    fn read_frames(&self, pack: &MergedPack) -> Result<Frames, RepoError> {
        let (name, length) = (pack.merge.object.as_str(), pack.merge.length);
        let store = &self.environment().store;
        let damaged = || RepoError::damaged(name);
        let front = LogPackFront::parse(&pack.front).map_err(damaged())?;
        let short = || RepoError::damaged(name)(FormatError::Truncated);
        let mut end = Vec::new();
        let guess = length.min(TAIL_BYTES);
        store.get_range(name, length - guess, at_most(guess, usize::MAX), &mut end)?;
        let needed = LogPackTail::length(end.last_chunk::<TRAILER_BYTES>().ok_or_else(short)?, length);
        let needed = needed.map_err(damaged())?;
        let mut tail = Vec::new();
        if let Some(rest) = needed.checked_sub(guess).filter(|rest| *rest > 0) {
            let at = length.checked_sub(needed).ok_or_else(short)?;
            store.get_range(name, at, at_most(rest, usize::MAX), &mut tail)?;
            tail.append(&mut end);
        } else {
            tail.append(&mut end.split_off(at_most(guess - needed, usize::MAX)));
        }
        let tail = LogPackTail::parse(&tail, length).map_err(damaged())?;
        let bound = contents_associated_data(self.id(), tail.trailer.contents_plain_length);
        let plain = unseal_contents(name, self.keyring(), &tail.trailer, &bound, tail.contents_sealed)?;
        let frames = tail.contents(&front, &plain).map_err(damaged())?.frames;
        Ok(Frames::new(frames))
    }

    /// Fetches frames, those that lie near each other in one request.
    fn fetch_frames(&self, pack: &MergedPack, mut own: Vec<&FrameRecord>) -> Result<OpenedLog, RepoError> {
        let name = pack.merge.object.as_str();
        let front = LogPackFront::parse(&pack.front).map_err(RepoError::damaged(name))?;
        own.sort_unstable_by_key(|frame| frame.offset);
        let end_of = |frame: &FrameRecord| frame.offset.saturating_add(frame.sealed_length);
        let near = |a: &FrameRecord, b: &FrameRecord| b.offset.saturating_sub(end_of(a)) <= HOLE_BYTES;
        let mut bytes = Vec::new();
        let mut placed = Vec::with_capacity(own.len());
        for group in own.chunk_by(|a, b| near(a, b)) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let (from, at) = (first.offset, bytes.len());
            let length = end_of(last) - from;
            self.environment().store.get_range(name, u64::from(from), length as usize, &mut bytes)?;
            placed.extend(group.iter().map(|frame| FrameRecord {
                // Bounded by the length of a pack.
                offset: u32::try_from(at).unwrap_or(u32::MAX).saturating_add(frame.offset - from),
                ..(*frame).clone()
            }));
        }
        Ok(OpenedLog::of_frames(name, bytes, pack.merge.signer, placed, front.origins))
    }
}

impl Frames {
    pub fn new(frames: Vec<FrameRecord>) -> Self {
        let mut holding: HashMap<BlobId, Vec<usize>> = HashMap::new();
        for (number, frame) in frames.iter().enumerate() {
            for (id, _) in &frame.blobs {
                holding.entry(*id).or_default().push(number);
            }
        }
        Self { frames, holding }
    }

    /// Returns all frames, in the order in which they lie.
    pub fn all(&self) -> &[FrameRecord] {
        &self.frames
    }

    /// Says whether all blobs of a content are there, with the same lengths.
    pub fn hold(&self, content: &LogContent) -> bool {
        let held =
            |id: &BlobId| self.holding.get(id).into_iter().flatten().filter_map(|at| self.frames.get(*at));
        content.chunks.iter().all(|chunk| {
            let blob = (chunk.id, chunk.length);
            held(&chunk.id).any(|frame| frame.blobs.contains(&blob))
        })
    }

    /// Returns the frames that a content may be read from, in ways of which each is enough. A segment was
    /// sealed under one origin; another that claims to hold the same blobs may lie, so that each is tried.
    pub fn ways<'a>(&'a self, content: &'a LogContent) -> impl Iterator<Item = Vec<&'a FrameRecord>> {
        let first = content.chunks.first().and_then(|chunk| self.holding.get(&chunk.id));
        let origins = first.into_iter().flatten().filter_map(|number| self.frames.get(*number));
        let origins: BTreeSet<u16> = origins.map(|frame| frame.origin).collect();
        let tried = origins.into_iter().map(Some).chain([None]);
        tried.filter_map(|origin| self.choose(content, origin))
    }

    /// Returns the frames that hold a content under one origin, or under any, with their bases.
    fn choose(&self, content: &LogContent, origin: Option<u16>) -> Option<Vec<&FrameRecord>> {
        let mut chosen: BTreeMap<usize, &FrameRecord> = BTreeMap::new();
        let mut queue: Vec<(BlobId, u8)> = content.chunks.iter().map(|chunk| (chunk.id, u8::MAX)).collect();
        let mut seen: BTreeSet<(BlobId, u8)> = BTreeSet::new();
        while let Some((id, below)) = queue.pop() {
            if !seen.insert((id, below)) {
                continue;
            }
            let held = self.holding.get(&id)?.iter();
            let held = held.filter_map(|number| Some((*number, self.frames.get(*number)?)));
            let fits = |frame: &FrameRecord| {
                (below == u8::MAX || frame.depth < below) && origin.is_none_or(|own| frame.origin == own)
            };
            let (number, frame) =
                held.filter(|(_, frame)| fits(frame)).min_by_key(|(_, frame)| frame.depth)?;
            chosen.insert(number, frame);
            queue.extend(frame.base.map(|base| (base, frame.depth)));
        }
        Some(chosen.into_values().collect())
    }
}
