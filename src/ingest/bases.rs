//! Which base an unknown chunk is stored against, and whether that is worth it.

use super::parent::{Candidate, ParentWindow};
use crate::base::BlobId;
use crate::chunker::Sketch;
use crate::codec::Encoding;
use crate::repo::{Base, BlobReader, FrameEncoder, Located, RepoError, WriteSession};
use std::sync::Arc;

/// A chunk whose chain is this long is no base itself; the whole chunk at the end of its chain is.
///
/// Measured on a series of daily backups (`docs/differences.md`).
const CHAIN_MAX: u8 = 4;
/// A difference is kept if it takes at most this part of what the chunk would take by itself; the rest
/// pays for the base being read at every restore.
const WORTH: (usize, usize) = (3, 4);
/// After so many bases in a row that could not be read nothing more is tried: something is wrong with
/// the parent's packs, and to find out costs more each time than a difference saves.
const UNREADABLE_MAX: u32 = 4;
/// After so many bases by place in a row that were of no use, only one place in as many is tried.
const FRUITLESS_MAX: u32 = 8;

/// Where a chunk stands and what it looks like.
pub(super) struct Unknown<'a> {
    pub id: BlobId,
    pub bytes: &'a [u8],
    pub sketch: Sketch,
    /// Its offset in its file.
    pub offset: u64,
    /// Whether its file is cut at fixed places, where the same place most likely means the same page.
    pub pages: bool,
}

/// A base that may be built on, and what the chunk is expected to take without one.
struct Chosen {
    /// The copy that a reader will find: one that is deeper than it says would be of no use.
    copy: Located,
    /// Sealed and plain bytes of the frame that holds the whole chunk at the end of the base's chain.
    whole: (u32, u32),
}

/// Finds and reads bases; one per worker.
pub(super) struct Bases<'a> {
    session: &'a WriteSession,
    reader: BlobReader,
    window: Option<Arc<ParentWindow>>,
    drift: i64,
    unreadable: u32,
    fruitless: u32,
}

impl<'a> Bases<'a> {
    pub fn new(session: &'a WriteSession) -> Result<Self, RepoError> {
        let reader = BlobReader::new(session.repository())?;
        Ok(Self { session, reader, window: None, drift: 0, unreadable: 0, fruitless: 0 })
    }

    /// Goes on with a file, at its start or somewhere in it.
    pub fn enter(&mut self, window: Option<Arc<ParentWindow>>) {
        self.drift = window.as_ref().map_or(0, |window| window.drift());
        self.window = window;
    }

    /// Returns the sketch of a chunk that stands where it stood in the parent: there it need not be computed again.
    pub fn sketch_of(&self, id: &BlobId, offset: u64) -> Option<Sketch> {
        self.window.as_ref()?.sketch_of(id, self.place(offset))
    }

    /// Learns from a chunk that is stored already where in the parent the stream is.
    pub fn known(&mut self, id: &BlobId, sketch: Sketch, offset: u64) {
        if self.session.repository().base_cache().is_some() {
            // So that it stays in the cache.
            let chain = self.session.repository().base(id).and_then(|copy| self.chain(copy));
            let _ = chain.is_some_and(|chain| self.are_at_hand(&chain));
        }
        let Some(window) = &self.window else { return };
        // The same chunk may stand in many places; the one where it is expected says nothing new.
        if window.at(self.place(offset)).is_some_and(|here| here.id == *id) {
            return;
        }
        if let Some(same) = window.similar(sketch, self.place(offset)).filter(|found| found.id == *id) {
            self.drift = window.matched(offset, &same);
        }
    }

    fn place(&self, offset: u64) -> u64 {
        offset.saturating_add_signed(self.drift)
    }

    /// Stores a chunk as a difference, if a base is found that makes that worth it.
    ///
    /// # Errors
    ///
    /// When sealing or an earlier upload failed; a base that cannot be read is only passed over.
    pub fn store(&mut self, encoder: &mut FrameEncoder, chunk: &Unknown<'_>) -> Result<bool, RepoError> {
        let Some(window) = self.window.clone() else { return Ok(false) };
        let place = self.place(chunk.offset);
        let (here, similar) = (window.at(place), window.similar(chunk.sketch, place));
        let other = |of: Option<Candidate>| move |found: &Candidate| of.is_none_or(|of| of.id != found.id);
        if chunk.pages {
            return Ok(self.attempt(encoder, chunk, here, false)?
                || self.attempt(encoder, chunk, similar.filter(other(here)), false)?);
        }
        if let Some(similar) = similar
            && self.attempt(encoder, chunk, Some(similar), false)?
        {
            self.drift = window.matched(chunk.offset, &similar);
            return Ok(true);
        }
        if self.fruitless >= FRUITLESS_MAX && !self.fruitless.is_multiple_of(FRUITLESS_MAX) {
            self.fruitless += 1;
            return Ok(false);
        }
        let stored = self.attempt(encoder, chunk, here.filter(other(similar)), false)?
            // Where nothing was of use for long, the stream has gone its own way, and this costs most.
            || (self.fruitless < FRUITLESS_MAX
                && (self.store_beside(encoder, chunk, &window, [here, similar])?
                    || self.attempt(encoder, chunk, similar.or(here), true)?));
        self.fruitless = if stored { 0 } else { self.fruitless + 1 };
        Ok(stored)
    }

    /// Tries the chunks before and after the one that stood at this place: rows that were inserted or removed
    /// since the last match have moved what is here by less than a chunk.
    fn store_beside(
        &mut self,
        encoder: &mut FrameEncoder,
        chunk: &Unknown<'_>,
        window: &ParentWindow,
        tried: [Option<Candidate>; 2],
    ) -> Result<bool, RepoError> {
        let (place, length) = (self.place(chunk.offset), chunk.bytes.len() as u64);
        for place in [place.saturating_add(length), place.saturating_sub(length)] {
            let beside =
                window.at(place).filter(|beside| tried.iter().flatten().all(|tried| tried.id != beside.id));
            if self.attempt(encoder, chunk, beside, false)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn attempt(
        &mut self,
        encoder: &mut FrameEncoder,
        chunk: &Unknown<'_>,
        candidate: Option<Candidate>,
        thorough: bool,
    ) -> Result<bool, RepoError> {
        // A chunk that the parent has and nobody may adopt is stored whole, or it would never be.
        let candidate = candidate.filter(|candidate| candidate.id != chunk.id);
        if self.unreadable >= UNREADABLE_MAX {
            return Ok(false);
        }
        let Some(chosen) = candidate.and_then(|candidate| self.choose(candidate.id)) else {
            return Ok(false);
        };
        let record = &chosen.copy.record;
        if record.id == chunk.id {
            return Ok(false);
        }
        // From this copy and no other: the depth of what is stored against it follows from its own.
        let plain = match self.reader.read_copy(&chosen.copy) {
            Ok(plain) => plain,
            Err(RepoError::Interrupted) => return Err(RepoError::Interrupted),
            Err(_) => {
                self.unreadable += 1;
                return Ok(false);
            }
        };
        self.unreadable = 0;
        let base = Base { id: record.id, plain: plain.bytes(), depth: record.depth, thorough };
        let alone = chunk.bytes.len() as u64 * u64::from(chosen.whole.0) / u64::from(chosen.whole.1.max(1));
        let worth = usize::try_from(alone).unwrap_or(usize::MAX) / WORTH.1 * WORTH.0;
        self.session.store_difference(encoder, chunk.bytes, chunk.id, &base, worth)
    }

    /// Returns the candidate, or the end of its chain if that is long.
    fn choose(&self, candidate: BlobId) -> Option<Chosen> {
        let chain = self.chain(self.session.repository().base(&candidate)?)?;
        let (nearest, last) = (chain.first()?, chain.last()?);
        let whole = (last.record.sealed_length, last.record.plain_length);
        let (copy, rests_on) = if nearest.record.depth < CHAIN_MAX {
            (nearest, chain.as_slice())
        } else {
            (last, std::slice::from_ref(last))
        };
        // What others wrote may be deeper than anything here.
        (copy.record.depth < CHAIN_MAX && self.are_at_hand(rests_on))
            .then(|| Chosen { copy: copy.clone(), whole })
    }

    /// Returns a copy, its base, the base of that, and so on.
    fn chain(&self, copy: Located) -> Option<Vec<Located>> {
        let mut chain = vec![copy];
        // Depth falls with every step, so this ends.
        while let Some(last) = chain.last()
            && let Some(base) = last.record.base.filter(|_| last.record.encoding == Encoding::Difference)
        {
            let base = self.session.repository().base(&base);
            let base = base.filter(|base| base.record.depth < last.record.depth)?;
            chain.push(base);
        }
        Some(chain)
    }

    /// Says whether copies can be read without asking the store for them, where that is what is wanted.
    fn are_at_hand(&self, copies: &[Located]) -> bool {
        let cache = self.session.repository().base_cache();
        // All are looked at, since looking notes that they are of use.
        cache.is_none_or(|cache| copies.iter().filter(|copy| !cache.holds(copy)).count() == 0)
    }
}
