//! A long stream is cut along its parent: where it holds what it held, it need not be scanned.
//!
//! Where a chunk ends follows from its own bytes and the one behind them ([CHUNKING-4]). So where a chunk begins and
//! the bytes are those of a chunk of the parent, and behind them stand those of the chunk that followed it there, it ends
//! where it ended there. That the bytes are the same is known by their ids, which a worker would have to compute
//! anyway. Everything else is scanned: the cut points are the same as ever.
//!
//! The parent's recipe is believed to be cut by the rules. If a hostile writer made one that is not, then
//! what was stored that way is found again that way, and nothing else changes.

use super::batch::Known;
use super::parent::{ParentWindow, Standing};
use crate::chunker::{CutParameters, Cutter};
use crate::crypto::IdKey;
use crate::format::tree::CutKind;
use std::ops::Range;
use std::sync::Arc;

/// Chunks of the parent that may prove not to stand where they are looked for before a region is scanned to its end, each
/// at the price of a hash in vain. What was in vain is earned back by those that do.
const CREDIT_FIRST: u32 = 4;
const CREDIT_MOST: u32 = 8;

/// What a stream held before, beside a region of it.
pub(super) struct Before {
    window: Arc<ParentWindow>,
    /// Where the region begins in its file.
    offset: u64,
}

impl Before {
    /// Makes it for a region that begins at `offset`; `None` if the parent was cut in another way.
    pub fn new(window: &Arc<ParentWindow>, offset: u64) -> Option<Self> {
        (window.cut() == CutKind::Stream).then(|| Self { window: window.clone(), offset })
    }
}

/// Cuts along parents; one per thread.
pub(super) struct Along<'a> {
    cutter: &'a Cutter<'a>,
    parameters: CutParameters,
    ids: &'a IdKey,
}

impl<'a> Along<'a> {
    pub fn new(cutter: &'a Cutter<'a>, parameters: CutParameters, ids: &'a IdKey) -> Self {
        Self { cutter, parameters, ids }
    }

    /// Returns where in a region the first chunk of the parent that begins there is to be expected, and how much further on it
    /// stands in the parent.
    fn begin(&self, region: &[u8], before: &Before) -> Option<(usize, i64)> {
        let drift = before.window.drift_ahead();
        let place = before.offset.checked_add_signed(drift).unwrap_or(0);
        let first = before.window.first_from(place)?;
        let offset = first.offset.checked_add_signed(drift.checked_neg()?)?;
        let begin = usize::try_from(offset.checked_sub(before.offset)?).ok()?;
        (begin < region.len().min(self.parameters.maximum() as usize)).then_some((begin, drift))
    }

    /// Cuts a region, beginning where a chunk of the parent begins; `None` if none does.
    ///
    /// Returns what [`Cutter::join`] wants, and what the chunks are that end at each place, as far as they
    /// were met.
    pub fn cut(&self, region: &[u8], before: &Before) -> Option<(Vec<usize>, Vec<Option<Known>>)> {
        let Some((begin, drift)) = self.begin(region, before) else {
            before.window.cut_to(None);
            return None;
        };
        let mut walk = Walk { along: self, region, before, drift, credit: CREDIT_FIRST, last: None };
        let (mut cuts, mut known) = (vec![begin], vec![None]);
        let (mut at, mut length_before) = (begin, 0);
        let mut here = walk.meet(at);
        loop {
            let next = here.and_then(|here| walk.meet(at + here.length as usize));
            let follows = match (&here, &next) {
                (Some(here), Some(next)) => next.offset == here.offset.saturating_add(u64::from(here.length)),
                _ => false,
            };
            let expected = here.map(|here| here.length as usize);
            let length = match expected.filter(|_| follows) {
                Some(length) => length,
                None => match self.cutter.cut_after(region, at, length_before, false) {
                    Some(length) => length,
                    None => break,
                },
            };
            let is_met = expected == Some(length);
            at += length;
            length_before = length;
            cuts.push(at);
            known.push(here.filter(|_| is_met).map(|here| here.known));
            here = if is_met { next } else { walk.meet(at) };
        }
        before.window.cut_to(walk.last.map(|_| walk.drift));
        Some((cuts, known))
    }
}

/// The way through a region, beside the parent.
struct Walk<'a> {
    along: &'a Along<'a>,
    region: &'a [u8],
    before: &'a Before,
    /// How much further on the parent had what stands here.
    drift: i64,
    credit: u32,
    /// The last chunk that was met.
    last: Option<(Range<usize>, Known)>,
}

impl Walk<'_> {
    /// Returns the chunk of the parent that is to be expected at a place of the region, if that is what stands there.
    fn meet(&mut self, at: usize) -> Option<Standing> {
        if self.credit == 0 {
            return None;
        }
        let offset = self.before.offset.saturating_add(at as u64);
        let place = offset.checked_add_signed(self.drift)?;
        let found = self.before.window.nearest(place)?;
        let parameters = self.along.parameters;
        // Further away another one would begin. The last chunk of a file may be shorter and proves nothing.
        let is_likely = found.offset.abs_diff(place) < u64::from(parameters.minimum() / 2)
            && (parameters.minimum()..=parameters.maximum()).contains(&found.length);
        let range = at..at + found.length as usize;
        let bytes = self.region.get(range.clone()).filter(|_| is_likely)?;
        let is_same = match &self.last {
            // What repeats itself is compared.
            Some((last, known)) if *known == found.known => self.region.get(last.clone()) == Some(bytes),
            _ => self.along.ids.blob_id(bytes) == found.known.id,
        };
        if !is_same {
            self.credit -= 1;
            return None;
        }
        self.credit = CREDIT_MOST.min(self.credit + 1);
        self.drift = i64::try_from(i128::from(found.offset) - i128::from(offset)).ok()?;
        self.last = Some((range, found.known));
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Secret;
    use crate::chunker::{GearTable, Sketch};
    use proptest::prelude::*;

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_derive_key("chronolith test along")
            .update(&[seed])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn parameters() -> CutParameters {
        CutParameters::new(256, 1024, 4096).unwrap()
    }

    fn in_turn(cutter: &Cutter<'_>, data: &[u8]) -> Vec<usize> {
        let (mut at, mut cuts) = (0, vec![0]);
        while let Some(length) = cutter.cut(data.get(at..).unwrap(), true) {
            at += length;
            cuts.push(at);
        }
        cuts
    }

    /// Cuts `new` in regions along a parent that held `old`; returns where chunks end, and how many of them were met.
    fn cut_along(old: &[u8], new: &[u8], region: usize) -> (Vec<usize>, usize) {
        let table = GearTable::derive(&Secret::new([7; 32]));
        let cutter = Cutter::new(&table, parameters());
        let ids = IdKey::new(Secret::new([8; 32]));
        let cuts = in_turn(&cutter, old);
        let chunks = cuts.windows(2).map(|ends| {
            let known = Known { id: ids.blob_id(&old[ends[0]..ends[1]]), sketch: Sketch([1; 3]) };
            Standing { known, offset: ends[0] as u64, length: (ends[1] - ends[0]) as u32 }
        });
        let window = Arc::new(ParentWindow::of(chunks));
        let along = Along::new(&cutter, parameters(), &ids);
        let (mut start, mut from, mut found, mut met) = (0, 0, vec![0], 0);
        while from < new.len() {
            let to = (from + region).min(new.len());
            let before = Before::new(&window, from as u64).unwrap();
            let cut = along.cut(&new[from..to], &before);
            let (cuts, known) = cut.unwrap_or_else(|| (cutter.cut_ahead(&new[from..to]), vec![]));
            cutter.join(&new[..to], start, from, &cuts, |end, number| {
                let known = number.and_then(|number| known.get(number).copied().flatten());
                if let Some(known) = known {
                    assert_eq!(known.id, ids.blob_id(&new[start..end]), "the chunk that ends here");
                    met += 1;
                }
                found.push(end);
                start = end;
            });
            from = to;
        }
        while let Some(length) = cutter.cut(&new[start..], true) {
            start += length;
            found.push(start);
        }
        (found, met)
    }

    #[test]
    fn what_stands_where_it_stood_is_met() {
        let old = noise(1, 400_000);
        let (cuts, met) = cut_along(&old, &old, 40_000);
        assert!(met * 10 > cuts.len() * 8, "{met} of {}", cuts.len());
        // Moved by less than half the shortest chunk, and changed every 30,000 bytes.
        let mut new = old.clone();
        for at in (0..400_000).step_by(30_000).skip(1).collect::<Vec<_>>().into_iter().rev() {
            new.splice(at..at + 5, *b"12345678");
        }
        let (cuts, met) = cut_along(&old, &new, 40_000);
        assert!(met * 10 > cuts.len() * 6, "{met} of {}", cuts.len());
        // Of something else nothing is.
        assert_eq!(cut_along(&old, &noise(2, 400_000), 40_000).1, 0);
    }

    #[test]
    fn a_place_far_from_the_parent_is_not_kept() {
        let table = GearTable::derive(&Secret::new([7; 32]));
        let cutter = Cutter::new(&table, parameters());
        let ids = IdKey::new(Secret::new([8; 32]));
        let old = noise(1, 40_000);
        let length = cutter.cut(&old, true).unwrap();
        let known = Known { id: ids.blob_id(&old[..length]), sketch: Sketch([1; 3]) };
        let window = Arc::new(ParentWindow::of([Standing { known, offset: 0, length: length as u32 }]));
        let along = Along::new(&cutter, parameters(), &ids);
        for far in [1 << 40, -(1 << 40), i64::MIN, i64::MAX] {
            window.cut_to(Some(far));
            let before = Before::new(&window, 0).unwrap();
            let first = along.cut(&old, &before);
            assert!(first.is_none_or(|(_, known)| known.iter().all(Option::is_none)), "{far}");
            let (cuts, known) = along.cut(&old, &before).unwrap();
            assert_eq!((cuts[..2].to_vec(), known[1].is_some()), (vec![0, length], true), "{far}");
        }
    }

    proptest! {
        /// Whatever is changed, and however the stream is divided into regions, the chunks are those of the scan.
        #[test]
        fn the_cuts_are_those_of_a_scan(
            stretches in proptest::collection::vec((0_u8..5, 1_usize..20_000), 1..8),
            edits in proptest::collection::vec((0_usize..100_000, 0_usize..300, 0_usize..300, any::<u8>()), 0..12),
            end in 0_usize..5000,
            region in 1_usize..30_000,
        ) {
            let mut old = vec![];
            for (kind, length) in stretches {
                match kind {
                    0 => old.extend(std::iter::repeat_n(0, length)),
                    1 => old.extend((0..length).map(|at| (at % 7) as u8)),
                    kind => old.extend(noise(kind, length)),
                }
            }
            let mut new = old.clone();
            for (at, removed, added, seed) in edits {
                let at = at % (new.len() + 1);
                let to = (at + removed).min(new.len());
                new.splice(at..to, noise(seed, added));
            }
            let length = new.len();
            new.truncate(length - end.min(length) * (end % 2));
            let table = GearTable::derive(&Secret::new([7; 32]));
            let cutter = Cutter::new(&table, parameters());
            prop_assert_eq!(cut_along(&old, &new, region).0, in_turn(&cutter, &new));
            // Also where the parent ended in the middle of what is here now.
            let longer = [new.as_slice(), &noise(9, end)].concat();
            prop_assert_eq!(cut_along(&new, &longer, region).0, in_turn(&cutter, &longer));
        }
    }
}
