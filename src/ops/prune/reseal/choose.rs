//! Which blobs are sealed anew: those that free most for what is written.
//!
//! Two things hold what nobody needs. A chain of differences holds the bases below it: once the lowest of its blobs that
//! is needed stands alone, and others as what differs from that, the bases go. A frame of several blobs holds those
//! that are not needed: once the others are sealed without them, it goes.
//!
//! What is remembered of blobs is a bit for every record of the index; chains and frames are looked at in several passes
//! where there are many.

use super::super::super::bits::Bits;
use super::super::super::keeper::Keeper;
use super::super::view::View;
use super::chains::{Chains, share};
use crate::base::PackId;
use crate::repo::{KnownPack, Located, NumberedIndex, Repository};
use std::collections::HashMap;
use std::sync::Arc;

/// Records whose chains or frames are remembered at once.
const RECORDS_AT_ONCE: u64 = 4 << 20;
/// Of what is freed, the most hundredths that may be written for it. Else a repository whose oldest snapshots are
/// forgotten one by one would be written again and again, since its newest are differences from them.
const WORTH: usize = 75;
/// Whatever costs more than it frees is taken for this.
const LOSS: usize = 100;

/// How much is to be freed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Sealed bytes that are held and are to go.
    pub bytes: u64,
    /// Whether that is done also where it frees nothing.
    pub at_any_cost: bool,
    /// Sealed bytes of the frames that may be taken apart.
    pub room: u64,
}

/// What is sealed anew.
pub(super) struct Picked {
    /// Copies that nothing differs from any more afterwards, at the ends of chains.
    pub ends: Bits,
    /// First records of blobs that are stored as differences and need not be.
    pub rebased: Bits,
    /// First records of blobs that share frames with what is not needed.
    pub split: Bits,
    /// Blobs in either.
    pub blobs: u64,
    /// Sealed bytes that they are expected to take.
    pub bytes: u64,
    /// Sealed bytes of frames that are expected to go.
    pub freed_bytes: u64,
}

/// Things that cost the same for what they free: what they hold, and the frames that they lie in.
#[derive(Debug, Clone, Copy, Default)]
struct Rung {
    held: u64,
    freed: u64,
}

/// All things by what they cost, in hundredths of what they free.
struct Ladder([Rung; LOSS + 1]);

/// Up to where things are taken.
struct Cut {
    /// Rungs below this one are taken whole, ...
    whole: usize,
    /// ... and of this one as much as is wanted, and has room.
    wanted: u64,
    room: u64,
}

/// What something holds, what it costs and what it frees, in sealed bytes.
#[derive(Debug, Clone, Copy)]
struct Deal {
    held: u64,
    written: u64,
    freed: u64,
}

impl Deal {
    fn rung(&self) -> usize {
        let hundredths = u128::from(self.written) * 100 / u128::from(self.freed.max(1));
        usize::try_from(hundredths).unwrap_or(LOSS).min(LOSS)
    }
}

impl Ladder {
    fn new() -> Self {
        Self([Rung::default(); LOSS + 1])
    }

    fn add(&mut self, deal: &Deal) {
        if let Some(rung) = self.0.get_mut(deal.rung()) {
            rung.held += deal.held;
            rung.freed += deal.freed;
        }
    }

    fn cut(&self, wanted: Wanted) -> Cut {
        let Wanted { bytes: mut left, at_any_cost, mut room } = wanted;
        let end = if at_any_cost { LOSS } else { WORTH } + 1;
        for (whole, rung) in self.0.iter().enumerate().take(end) {
            if rung.held >= left || rung.freed > room {
                return Cut { whole, wanted: left, room };
            }
            left -= rung.held;
            room -= rung.freed;
        }
        Cut { whole: end, wanted: 0, room }
    }
}

impl Cut {
    fn takes(&mut self, deal: &Deal) -> bool {
        let rung = deal.rung();
        if rung != self.whole {
            return rung < self.whole;
        }
        let taken = self.wanted > 0 && deal.freed <= self.room;
        if taken {
            self.wanted = self.wanted.saturating_sub(deal.held);
            self.room -= deal.freed;
        }
        taken
    }
}

/// Differences above one end of their chains.
#[derive(Default)]
struct Chain {
    /// Sealed bytes of the end.
    end: u64,
    /// Of those between it and what is needed.
    between: u64,
    /// Of the lowest ones that are needed.
    needed: u64,
    /// Whether some copy has to stay whatever is sealed anew.
    stays: bool,
}

impl Chain {
    /// One of those that are needed will stand alone, and take about what the end takes.
    fn deal(&self) -> Option<Deal> {
        let (written, held) = (self.end + self.needed, self.end + self.between);
        let is_free = !self.stays && self.needed > 0 && self.end > 0;
        is_free.then_some(Deal { held, written, freed: held + self.needed })
    }
}

/// A frame of several blobs.
struct Frame {
    sealed: u64,
    plain: u64,
    /// Plain bytes that are needed.
    kept: u64,
}

impl Frame {
    fn deal(&self) -> Option<Deal> {
        let written = self.sealed * self.kept.min(self.plain) / self.plain.max(1);
        let is_free = self.kept > 0 && self.kept < self.plain;
        is_free.then(|| Deal { held: self.sealed - written, written, freed: self.sealed })
    }
}

/// Which packs are the owner's to replace.
struct Packs<'a> {
    repository: &'a Repository,
    view: &'a View,
    known: HashMap<PackId, bool>,
}

impl Packs<'_> {
    /// Says whether a copy in this pack has to stay whatever is sealed anew: somebody may rely on it who does not rely
    /// on what owners of this domain store, it is doubted, or it goes anyway.
    fn stay(&mut self, pack: &KnownPack) -> bool {
        let (repository, view) = (self.repository, self.view);
        *self.known.entry(pack.id).or_insert_with(|| {
            let own = repository.keyring().identity.key;
            let is_whole = view.packs.get(&pack.id).is_some_and(|object| !view.may_be_in_use(pack, object));
            !is_whole
                || !view.listed.contains_key(&pack.id)
                || view.is_condemned(&pack.id)
                || view.unread.contains(&pack.id)
                || view.doubts.spoilt.packs().any(|spoilt| *spoilt == pack.id)
                || !repository.registry().shares_domain(&own, &pack.signer)
        })
    }
}

struct Choosing<'a> {
    chains: Chains<'a>,
    packs: Packs<'a>,
    picked: Picked,
    passes: u64,
}

impl Picked {
    /// Finds out what is worth sealing anew.
    pub fn choose(
        repository: &Repository,
        view: &View,
        index: &NumberedIndex,
        keeper: &Keeper<'_>,
        wanted: Wanted,
    ) -> Self {
        let bits = || Bits::new(index.len());
        let picked =
            Self { ends: bits(), rebased: bits(), split: bits(), blobs: 0, bytes: 0, freed_bytes: 0 };
        let passes = (index.len() / RECORDS_AT_ONCE + 1).min(256);
        let packs = Packs { repository, view, known: HashMap::new() };
        let mut choosing = Choosing { chains: Chains { index, keeper }, packs, picked, passes };
        let left = choosing.rebase(wanted);
        choosing.split(left);
        choosing.picked
    }
}

impl Choosing<'_> {
    /// Chooses ends of chains; returns what is wanted still.
    fn rebase(&mut self, wanted: Wanted) -> Wanted {
        let mut ladder = Ladder::new();
        for pass in 0..self.passes {
            self.look_at_chains(pass).values().filter_map(Chain::deal).for_each(|deal| ladder.add(&deal));
        }
        let (mut cut, mut left) = (ladder.cut(wanted), wanted);
        for pass in 0..self.passes {
            for (end, chain) in self.look_at_chains(pass) {
                let Some(deal) = chain.deal().filter(|deal| cut.takes(deal)) else { continue };
                self.picked.ends.set(end);
                self.picked.bytes += deal.written;
                self.picked.freed_bytes += deal.freed;
                left.bytes = left.bytes.saturating_sub(deal.held);
                left.room = left.room.saturating_sub(deal.freed);
            }
        }
        let (chains, picked) = (self.chains, &mut self.picked);
        chains.index.for_each(|number, copy| {
            let is_lowest = copy.record.base.is_some() && chains.is_chosen(number);
            if is_lowest
                && !chains.is_held(number, &copy)
                && chains.ends(&copy).iter().any(|(end, _)| picked.ends.get(*end))
                && let Some((first, _)) = chains.index.first(copy.record.class, &copy.record.id)
                && picked.rebased.set(first)
            {
                picked.blobs += 1;
            }
        });
        left
    }

    /// Adds up the differences above the ends of one pass.
    fn look_at_chains(&mut self, pass: u64) -> HashMap<u64, Chain> {
        let (chains, packs, passes) = (self.chains, &mut self.packs, self.passes);
        let mut found: HashMap<u64, Chain> = HashMap::new();
        chains.index.for_each(|number, copy| {
            if !chains.is_chosen(number) {
                return;
            }
            let is_held = chains.is_held(number, &copy);
            let ends = match is_held {
                true => chains.ends_from(number, &copy),
                false if copy.record.base.is_some() => chains.ends(&copy),
                false => return,
            };
            for (end, _) in ends.iter().filter(|(end, _)| end % passes == pass) {
                let chain = found.entry(*end).or_default();
                let bytes = match is_held {
                    true if *end == number => &mut chain.end,
                    true => &mut chain.between,
                    false => &mut chain.needed,
                };
                *bytes += share(&copy);
                chain.stays |= packs.stay(&copy.pack);
            }
        });
        found
    }

    /// Chooses frames of several blobs.
    fn split(&mut self, wanted: Wanted) {
        if wanted.bytes == 0 {
            return;
        }
        let mut ladder = Ladder::new();
        for pass in 0..self.passes {
            self.look_at_frames(pass).values().filter_map(Frame::deal).for_each(|deal| ladder.add(&deal));
        }
        let mut cut = ladder.cut(wanted);
        for pass in 0..self.passes {
            let mut frames = self.look_at_frames(pass);
            frames.retain(|_, frame| frame.deal().is_some_and(|deal| cut.takes(&deal)));
            self.picked.freed_bytes += frames.values().map(|frame| frame.sealed).sum::<u64>();
            let (index, picked) = (self.chains.index, &self.picked);
            let (mut blobs, mut bytes) = (0, 0);
            self.for_each_shared(pass, |copy| {
                let is_picked = frames.contains_key(&(copy.pack.id, copy.record.frame_offset));
                if is_picked
                    && let Some((first, _)) = index.first(copy.record.class, &copy.record.id)
                    && picked.split.set(first)
                    && !picked.rebased.get(first)
                {
                    blobs += 1;
                    bytes += share(copy);
                }
            });
            self.picked.blobs += blobs;
            self.picked.bytes += bytes;
        }
    }

    fn look_at_frames(&mut self, pass: u64) -> HashMap<(PackId, u32), Frame> {
        let mut found: HashMap<(PackId, u32), Frame> = HashMap::new();
        let mut packs: HashMap<PackId, Arc<KnownPack>> = HashMap::new();
        self.for_each_shared(pass, |copy| {
            let record = &copy.record;
            packs.entry(copy.pack.id).or_insert_with(|| copy.pack.clone());
            let frame = found.entry((copy.pack.id, record.frame_offset)).or_insert_with(|| {
                let (sealed, plain) = (u64::from(record.sealed_length), u64::from(record.plain_length));
                Frame { sealed, plain, kept: 0 }
            });
            frame.kept += u64::from(record.length);
        });
        found.retain(|(pack, _), _| packs.get(pack).is_some_and(|pack| !self.packs.stay(pack)));
        found
    }

    /// Calls `visit` with what is relied on in frames of several blobs, in packs of one pass, but for bases that go.
    fn for_each_shared(&self, pass: u64, mut visit: impl FnMut(&Located)) {
        let (chains, ends) = (self.chains, &self.picked.ends);
        chains.index.for_each(|number, copy| {
            let [byte, ..] = copy.pack.id.as_bytes();
            let is_shared = copy.record.length < copy.record.plain_length;
            if !is_shared || u64::from(*byte) % self.passes != pass || !chains.is_chosen(number) {
                return;
            }
            let goes = chains.is_held(number, &copy)
                && chains.ends_from(number, &copy).iter().all(|(end, _)| ends.get(*end));
            if !goes {
                visit(&copy);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deal(written: u64, freed: u64) -> Deal {
        Deal { held: freed - written, written, freed }
    }

    fn taken(deals: &[Deal], wanted: Wanted) -> Vec<bool> {
        let mut ladder = Ladder::new();
        deals.iter().for_each(|deal| ladder.add(deal));
        let mut cut = ladder.cut(wanted);
        deals.iter().map(|deal| cut.takes(deal)).collect()
    }

    #[test]
    fn what_frees_most_for_what_is_written_comes_first() {
        let deals = [deal(700, 1000), deal(100, 1000), deal(990, 1000), deal(100, 1000), deal(0, 0)];
        let usual = Wanted { bytes: 900, at_any_cost: false, room: u64::MAX };
        assert_eq!(taken(&deals, usual), [false, true, false, false, true]);
        assert_eq!(taken(&deals, Wanted { bytes: 901, ..usual }), [false, true, false, true, true]);
        assert_eq!(taken(&deals, Wanted { bytes: 1801, ..usual }), [true, true, false, true, true]);
        // What frees little is left, however much is wanted.
        assert_eq!(taken(&deals, Wanted { bytes: 5000, ..usual }), [true, true, false, true, true]);
        let all = Wanted { bytes: u64::MAX, at_any_cost: true, room: u64::MAX };
        assert_eq!(taken(&deals, all), [true; 5]);
        assert_eq!(taken(&deals, Wanted { room: 2500, ..all }), [false, true, false, true, true]);
        assert_eq!(taken(&deals, Wanted { room: 1500, ..all }), [false, true, false, false, true]);
        assert_eq!(taken(&deals, Wanted { room: 999, ..all }), [false, false, false, false, true]);
    }
}
