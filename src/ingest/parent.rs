//! The parent's recipe beside the new stream: which stored chunk an unknown one probably resembles.
//!
//! A stream's new version mostly holds what the old one held, in nearly the same order. So the recipe of
//! the old one is walked in step with the new stream, and a window of it is kept: the chunks some GiB
//! before and after the present place, by their sketches and by their offsets. A dump of a terabyte
//! needs no more memory than one of a few gigabytes.
//!
//! [`ParentWalk`] belongs to the feeder, which knows how far the stream has come; [`ParentWindow`] is
//! what the workers ask. What a window proposes is a hint: the base's content is read and verified, and
//! a difference is kept only where it pays.

use super::batch::Known;
use crate::base::BlobId;
use crate::chunker::Sketch;
use crate::format::recipe::RecipeEntry;
use crate::format::tree::{Content, CutKind};
use crate::repo::{BlobReader, Pieces};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// How far the window reaches before and after the present place.
const REACH_BYTES: u64 = 4 << 30;
/// Chunks in the window at most, some 100 bytes of memory each.
const CHUNKS_MAX: usize = 1 << 17;
/// The window moves in steps of this many bytes.
const STEP_BYTES: u64 = 16 << 20;
/// Chunks with the same super-feature that are looked at, the latest of them.
const LOOKED_AT_MAX: usize = 32;

/// A chunk of the parent that may serve as a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The blob.
    pub id: BlobId,
    /// Where it stands in the parent's stream.
    pub offset: u64,
}

struct Held {
    candidate: Candidate,
    length: u32,
    sketch: Sketch,
    /// For each super-feature the number of the chunk before that has the same one.
    earlier: [Option<u64>; 3],
}

impl Held {
    fn standing(&self) -> Standing {
        let known = Known { id: self.candidate.id, sketch: self.sketch };
        Standing { known, offset: self.candidate.offset, length: self.length }
    }
}

#[derive(Default)]
struct Chunks {
    /// Number of the first chunk held; the chunks of a stream are numbered from 0.
    first: u64,
    held: VecDeque<Held>,
    /// For each place of a sketch: the last chunk with this super-feature.
    latest: [HashMap<u32, u64>; 3],
}

impl Chunks {
    fn get(&self, number: u64) -> Option<&Held> {
        self.held.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Returns the chunk that stood at a place.
    fn at(&self, place: u64) -> Option<&Held> {
        let after = self.held.partition_point(|held| held.candidate.offset <= place);
        let held = self.held.get(after.checked_sub(1)?)?;
        let end = held.candidate.offset.saturating_add(u64::from(held.length));
        (place < end).then_some(held)
    }

    fn push(&mut self, candidate: Candidate, length: u32, sketch: Sketch) {
        let number = self.first + self.held.len() as u64;
        let mut earlier = [None; 3];
        for (place, feature) in sketch.features() {
            if let (Some(latest), Some(earlier)) = (self.latest.get_mut(place), earlier.get_mut(place)) {
                *earlier = latest.insert(feature, number);
            }
        }
        self.held.push_back(Held { candidate, length, sketch, earlier });
    }

    fn pop(&mut self) {
        let Some(gone) = self.held.pop_front() else { return };
        for (place, feature) in gone.sketch.features() {
            if let Some(latest) = self.latest.get_mut(place)
                && latest.get(&feature) == Some(&self.first)
            {
                latest.remove(&feature);
            }
        }
        self.first += 1;
    }
}

/// A chunk of the parent, for whoever cuts along it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// What it is.
    pub known: Known,
    /// Where it stands in the parent's stream,
    pub offset: u64,
    /// and its length in bytes.
    pub length: u32,
}

/// The part of a parent's recipe around the present place of a stream.
pub struct ParentWindow {
    chunks: RwLock<Chunks>,
    /// How much further on the parent had what the new stream has now, as the last match showed.
    drift: AtomicI64,
    /// The same where the stream is cut ahead, which is further on.
    drift_ahead: AtomicI64,
    /// How the parent was cut.
    cut: CutKind,
}

impl std::fmt::Debug for ParentWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParentWindow").field("drift", &self.drift()).finish_non_exhaustive()
    }
}

impl ParentWindow {
    fn over(chunks: Chunks, cut: CutKind) -> Self {
        let drift = || AtomicI64::new(0);
        Self { chunks: RwLock::new(chunks), drift: drift(), drift_ahead: drift(), cut }
    }

    #[cfg(test)]
    pub(super) fn of(standing: impl IntoIterator<Item = Standing>) -> Self {
        let mut chunks = Chunks::default();
        for Standing { known: Known { id, sketch }, offset, length } in standing {
            chunks.push(Candidate { id, offset }, length, sketch);
        }
        Self::over(chunks, CutKind::Stream)
    }

    /// Returns how much further on the parent had what stands here.
    pub(super) fn drift(&self) -> i64 {
        self.drift.load(Ordering::Relaxed)
    }

    /// Notes what a match at `offset` of the stream says about the places of the next chunks.
    pub(super) fn matched(&self, offset: u64, candidate: &Candidate) -> i64 {
        let drift = i64::try_from(i128::from(candidate.offset) - i128::from(offset)).unwrap_or(0);
        self.drift.store(drift, Ordering::Relaxed);
        drift
    }

    /// Returns how much further on the parent had what stands where the stream is cut ahead.
    pub(super) fn drift_ahead(&self) -> i64 {
        self.drift_ahead.load(Ordering::Relaxed)
    }

    /// Notes the drift that cutting along the parent came to; where it met nothing of it, what the
    /// workers know, who find by sketches what has moved far.
    pub(super) fn cut_to(&self, met: Option<i64>) {
        self.drift_ahead.store(met.unwrap_or_else(|| self.drift()), Ordering::Relaxed);
    }

    /// Says how the parent was cut.
    pub(super) fn cut(&self) -> CutKind {
        self.cut
    }

    /// Returns the first chunk that begins at a place of the parent or behind it.
    pub(super) fn first_from(&self, place: u64) -> Option<Standing> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        let before = chunks.held.partition_point(|held| held.candidate.offset < place);
        chunks.held.get(before).map(Held::standing)
    }

    /// Returns the chunk that begins nearest to a place of the parent.
    pub(super) fn nearest(&self, place: u64) -> Option<Standing> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        let after = chunks.held.partition_point(|held| held.candidate.offset < place);
        let beside = [after.checked_sub(1), Some(after)].into_iter().flatten();
        let held = beside.filter_map(|number| chunks.held.get(number));
        held.min_by_key(|held| held.candidate.offset.abs_diff(place)).map(Held::standing)
    }

    /// Returns the chunk that shares most super-features, of several the one nearest to `place` in the
    /// parent.
    pub(super) fn similar(&self, sketch: Sketch, place: u64) -> Option<Candidate> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        let mut best: Option<(usize, u64, Candidate)> = None;
        for (at, feature) in sketch.features() {
            let mut number = chunks.latest.get(at).and_then(|latest| latest.get(&feature)).copied();
            for _ in 0..LOOKED_AT_MAX {
                let Some(held) = number.and_then(|number| chunks.get(number)) else { break };
                let shared = held.sketch.shared(sketch);
                let far = held.candidate.offset.abs_diff(place);
                if best.is_none_or(|(most, nearest, _)| (shared, nearest) > (most, far)) {
                    best = Some((shared, far, held.candidate));
                }
                number = held.earlier.get(at).copied().flatten();
            }
        }
        best.map(|(.., candidate)| candidate)
    }

    /// Returns the chunk that stood at a place of the parent.
    pub(super) fn at(&self, place: u64) -> Option<Candidate> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        chunks.at(place).map(|held| held.candidate)
    }

    /// Returns the sketch of the chunk that stood at a place of the parent, if it is this one and has a sketch.
    pub(super) fn sketch_of(&self, id: &BlobId, place: u64) -> Option<Sketch> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        let same = chunks.at(place).filter(|held| held.candidate.id == *id);
        same.map(|held| held.sketch).filter(|sketch| *sketch != Sketch::NONE)
    }
}

/// Walks a parent's recipe, a window ahead of the stream.
pub(super) struct ParentWalk {
    window: Arc<ParentWindow>,
    /// `None` once the recipe has ended or cannot be read further: hints are not worth an error.
    pieces: Option<Pieces>,
    read_to: u64,
    moved_at: Option<u64>,
}

impl ParentWalk {
    /// Begins at the start of the parent's file.
    pub fn new(reader: &mut BlobReader, parent: &Content) -> Self {
        let pieces = Pieces::open(reader, parent).ok();
        let window = ParentWindow::over(Chunks::default(), parent.cut);
        Self { window: Arc::new(window), pieces, read_to: 0, moved_at: None }
    }

    /// Returns what the workers ask.
    pub fn window(&self) -> &Arc<ParentWindow> {
        &self.window
    }

    /// Moves the window to a place of the stream.
    pub fn advance(&mut self, reader: &mut BlobReader, offset: u64) {
        if self.moved_at.is_some_and(|at| offset < at.saturating_add(STEP_BYTES)) {
            return;
        }
        self.moved_at = Some(offset);
        let place = offset.saturating_add_signed(self.window.drift());
        // A match far ahead may be chance, so what is near the stream's own place stays as well.
        let from = place.min(offset).saturating_sub(REACH_BYTES);
        let to = place.saturating_add(REACH_BYTES);
        let mut next = Vec::new();
        while self.read_to < to && next.len() < CHUNKS_MAX / 2 {
            let Some(pieces) = &mut self.pieces else { break };
            let Ok(Some(piece)) = pieces.next(reader) else {
                self.pieces = None;
                break;
            };
            if let RecipeEntry::Chunk { id, length, sketch } = piece {
                next.push((Candidate { id, offset: self.read_to }, length, sketch));
            }
            self.read_to = self.read_to.saturating_add(piece.length());
        }
        let mut chunks = self.window.chunks.write().unwrap_or_else(PoisonError::into_inner);
        let spare = (chunks.held.len() + next.len()).saturating_sub(CHUNKS_MAX);
        for _ in 0..spare {
            chunks.pop();
        }
        while chunks.held.front().is_some_and(|held| held.candidate.offset < from) {
            chunks.pop();
        }
        for (candidate, length, sketch) in next {
            chunks.push(candidate, length, sketch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> BlobId {
        BlobId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn window(sketches: &[[u32; 3]]) -> ParentWindow {
        ParentWindow::of((0..).zip(sketches).map(|(number, sketch)| {
            let known = Known { id: id(number), sketch: Sketch(*sketch) };
            Standing { known, offset: number * 100, length: 100 }
        }))
    }

    #[test]
    fn most_shared_features_win_then_the_nearest() {
        let window = window(&[[1, 2, 3], [1, 9, 9], [1, 2, 9], [1, 2, 3], [7, 7, 7]]);
        let found = |sketch, place| window.similar(Sketch(sketch), place).map(|found| found.offset);
        assert_eq!(found([1, 2, 3], 0), Some(0));
        assert_eq!(found([1, 2, 3], 290), Some(300));
        assert_eq!(found([1, 2, 5], 190), Some(200));
        assert_eq!(found([5, 9, 5], 0), Some(100));
        assert_eq!(found([5, 5, 5], 0), None);
        // Zero is no feature, and a feature counts at its own place only.
        assert_eq!(found([0, 0, 0], 0), None);
        assert_eq!(found([2, 1, 1], 0), None);
    }

    #[test]
    fn what_left_the_window_is_not_found_and_leaves_nothing_behind() {
        let window = window(&[[1, 2, 3], [1, 2, 4], [5, 6, 7]]);
        for held in [3_usize, 2, 1] {
            window.chunks.write().unwrap().pop();
            assert_eq!(window.chunks.read().unwrap().held.len(), held - 1);
            let found = window.similar(Sketch([1, 2, 3]), 0).map(|found| found.offset);
            assert_eq!(found, (held == 3).then_some(100));
        }
        assert!(window.chunks.read().unwrap().latest.iter().all(HashMap::is_empty));
    }

    #[test]
    fn places_are_found_by_offset_and_moved_by_matches() {
        let window = window(&[[1, 2, 3], [4, 5, 6]]);
        assert_eq!(window.at(0).map(|found| found.offset), Some(0));
        assert_eq!(window.at(199).map(|found| found.offset), Some(100));
        assert_eq!(window.at(200), None);
        assert_eq!(window.sketch_of(&id(1), 150), Some(Sketch([4, 5, 6])));
        assert_eq!(window.sketch_of(&id(1), 50), None);
        let candidate = window.at(0).unwrap();
        assert_eq!(window.matched(70, &candidate), -70);
        assert_eq!(window.drift(), -70);
    }
}
