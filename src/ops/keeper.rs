//! In which copies what roots need is kept.
//!
//! For each blob the keeper chooses the copies that are relied on, one of every word, and with a difference a
//! copy of its base of smaller depth, down to one without ([CONCURRENCY-25]). What only packs hold that
//! go has to be rescued, and so has a copy in such a pack where none stays on its word: who falsely claims to
//! hold a blob brings nobody to delete a true copy, whatever was condemned before. Where an owner has read a blob and
//! sealed it anew, that copy takes the place of all others ([CONCURRENCY-57]). What is remembered of blobs is a bit or
//! two for every record of the index.

use super::bits::Bits;
use super::vouched::Vouched;
use super::words::{Said, Sealers, Word, Words};
use crate::base::{BlobId, KeyId, PackId};
use crate::format::pack::BlobClass;
use crate::repo::{KnownPack, Located, NumberedIndex, Registry, SpoiltPacks};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// How far the copies in a pack can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// They stay.
    Stays(Said),
    /// They are there, and go: a blob that is nowhere else on their word is rescued.
    Goes(Said),
    /// They are there, and nobody relies on them: a blob that is nowhere else is rescued.
    Aside(Said),
    /// They are not there, or not to be believed.
    Gone,
    /// They are reported as damaged. They stand in for nobody, and stay until another copy of the same word
    /// stays: who reports falsely destroys nothing ([DAMAGED-9]).
    Doubted(Said),
    /// They lie in a pack that is damaged for all to see, beside what is bad in it. As before, but the same frame
    /// copied by a key that is believed takes their place too.
    Failing(Said),
    /// They are reported as damaged, and are for all to see: they stay only where there is nothing else.
    Rotten,
    /// They are reported as damaged and in a pack that goes: it is held where no copy of the same word stays.
    Suspect(Said),
    /// They are damaged for all to see and in a pack that goes, or were not to be relied on: the last resort.
    Lost(Said),
}

/// What is reported as damaged.
#[derive(Default)]
pub(super) struct Doubts {
    /// Blobs that cannot be had from packs.
    pub spoilt: SpoiltPacks,
    /// Of those packs, the ones whose bytes are not those that they are named for.
    pub rotten: HashSet<PackId>,
}

impl Trust {
    fn word(self, copy: &Located) -> Option<Word> {
        match self {
            Self::Stays(said)
            | Self::Goes(said)
            | Self::Aside(said)
            | Self::Doubted(said)
            | Self::Failing(said)
            | Self::Suspect(said)
            | Self::Lost(said) => Some(said.word(copy)),
            Self::Gone | Self::Rotten => None,
        }
    }
}

/// Frames by their packs, each with the signer of the index run that describes it, and their offsets.
pub(super) type Frames = BTreeMap<(PackId, KeyId), BTreeSet<u32>>;

/// Blobs that are named one by one when they are missing.
const MISSING_MAX: usize = 20;

/// Chooses copies.
pub(super) struct Keeper<'a> {
    index: &'a NumberedIndex,
    trust: Box<dyn Fn(&KnownPack) -> Trust + Sync + 'a>,
    doubts: Option<&'a Doubts>,
    vouched: Option<(&'a Vouched, &'a Registry)>,
    /// The key whose copies stand in for all that goes.
    own: Option<KeyId>,
    known: HashMap<(PackId, KeyId), Trust>,
    sealers: Option<Sealers>,
    visited: Bits,
    /// Records that are relied on.
    pub chosen: Bits,
    /// Those on which something else is built.
    bases: Bits,
    /// Frames that have to be copied.
    pub rescues: Frames,
    /// Packs that go and must not, since nobody knows what a copy of what is needed of them would be.
    pub held: BTreeSet<PackId>,
    /// Blobs of which there is no copy at all.
    pub missing: Vec<(BlobClass, BlobId)>,
}

impl<'a> Keeper<'a> {
    /// Chooses among the copies of an index by how far their packs can be relied on.
    pub fn new(index: &'a NumberedIndex, trust: impl Fn(&KnownPack) -> Trust + Sync + 'a) -> Self {
        let bits = || Bits::new(index.len());
        Self {
            index,
            trust: Box::new(trust),
            doubts: None,
            vouched: None,
            own: None,
            known: HashMap::new(),
            sealers: None,
            visited: bits(),
            chosen: bits(),
            bases: bits(),
            rescues: BTreeMap::new(),
            held: BTreeSet::new(),
            missing: Vec::new(),
        }
    }

    /// Takes account of what is reported as damaged.
    #[must_use]
    pub fn doubting(self, doubts: &'a Doubts) -> Self {
        Self { doubts: Some(doubts), ..self }
    }

    /// Takes copies that owners vouch for in place of others.
    #[must_use]
    pub fn believing(self, vouched: &'a Vouched, registry: &'a Registry) -> Self {
        Self { vouched: Some((vouched, registry)), ..self }
    }

    /// Takes what this key, a writer's own, has signed and stays for as good as anything that goes.
    #[must_use]
    pub fn relying_on(self, own: Option<KeyId>) -> Self {
        Self { own, ..self }
    }

    fn trust(&mut self, pack: &KnownPack, blob: &BlobId) -> Trust {
        let trust = *self.known.entry((pack.id, pack.signer)).or_insert_with(|| (self.trust)(pack));
        let Some(doubts) = self.doubts else { return trust };
        let (named, rotten) = (doubts.spoilt.names(&pack.id, blob), doubts.rotten.contains(&pack.id));
        match trust {
            Trust::Stays(_) if named && rotten => Trust::Rotten,
            Trust::Stays(said) if rotten => Trust::Failing(said),
            Trust::Stays(said) if named => Trust::Doubted(said),
            Trust::Goes(said) | Trust::Aside(said) if rotten => Trust::Lost(said),
            Trust::Goes(said) if named => Trust::Suspect(said),
            Trust::Aside(said) if named => Trust::Lost(said),
            trust => trust,
        }
    }

    /// Notes that a blob is needed; says whether that is new.
    pub fn need(&mut self, class: BlobClass, id: &BlobId) -> bool {
        let Some((number, _)) = self.index.first(class, id) else {
            return self.miss(class, id);
        };
        if !self.visited.set(number) {
            return false;
        }
        self.choose(class, id, u8::MAX);
        true
    }

    /// Says whether roots themselves need a blob, apart from what differs from it.
    pub fn is_reached(&self, class: BlobClass, id: &BlobId) -> bool {
        self.index.first(class, id).is_some_and(|(number, _)| self.visited.get(number))
    }

    /// Says whether anything needs a blob.
    pub fn is_needed(&self, class: BlobClass, id: &BlobId) -> bool {
        let mut needed = self.index.first(class, id).is_some_and(|(number, _)| self.visited.get(number));
        self.index.copies(class, id, |number, _| needed |= self.chosen.get(number));
        needed
    }

    /// Calls `found` with the packs of the copies of a blob that are relied on.
    pub fn packs_of(&self, class: BlobClass, id: &BlobId, mut found: impl FnMut(PackId)) {
        self.index.copies(class, id, |number, copy| {
            if self.chosen.get(number) {
                found(copy.pack.id);
            }
        });
    }

    fn miss(&mut self, class: BlobClass, id: &BlobId) -> bool {
        if self.missing.len() < MISSING_MAX && !self.missing.contains(&(class, *id)) {
            self.missing.push((class, *id));
        }
        true
    }

    fn copies(&mut self, class: BlobClass, id: &BlobId, below: u8) -> Vec<(u64, Located, Trust)> {
        let mut copies = Vec::new();
        self.index.copies(class, id, |number, copy| {
            if copy.record.depth < below {
                copies.push((number, copy));
            }
        });
        let mut copies: Vec<(u64, Located, Trust)> = copies
            .into_iter()
            .map(|(number, copy)| {
                let trust = self.trust(&copy.pack, id);
                (number, copy, trust)
            })
            .collect();
        // What is relied on anyway comes first; then whatever needs fewer others.
        copies.sort_by_key(|(number, copy, _)| {
            (!self.chosen.get(*number), copy.record.depth, copy.pack.id, copy.record.frame_offset)
        });
        copies
    }

    /// Relies on a copy that an owner vouches for, where one stays with all its bases, and leaves of the others those
    /// that it does not make up for: whoever relies on these may not rely on the owner's.
    fn choose_vouched(&mut self, copies: &mut Vec<(u64, Located, Trust)>) -> Option<Located> {
        let (vouched, registry) = self.vouched?;
        let found = copies.iter().find(|(_, copy, trust)| {
            matches!(trust, Trust::Stays(_)) && vouched.names(&copy.pack) && self.has_bases(copy)
        });
        let (number, copy, _) = found?.clone();
        self.rely(number, &copy);
        copies.retain(|(other, held, trust)| {
            let is_reported = !matches!(trust, Trust::Stays(_) | Trust::Goes(_) | Trust::Aside(_));
            *other != number && (is_reported || !registry.shares_domain(&held.pack.signer, &copy.pack.signer))
        });
        Some(copy)
    }

    /// Says whether a copy of smaller depth stays, with all its bases.
    fn stays(&mut self, class: BlobClass, id: &BlobId, below: u8) -> bool {
        let copies = self.copies(class, id, below);
        copies.into_iter().any(|(_, copy, trust)| matches!(trust, Trust::Stays(_)) && self.has_bases(&copy))
    }

    fn has_bases(&mut self, copy: &Located) -> bool {
        let record = &copy.record;
        record.base.is_none_or(|base| self.stays(record.class, &base, record.depth))
    }

    /// Relies on one copy of every word: on one that stays, or else on one that has to be rescued.
    fn choose(&mut self, class: BlobClass, id: &BlobId, below: u8) {
        let mut copies = self.copies(class, id, below);
        let vouched = self.choose_vouched(&mut copies);
        let mut words = Words::default();
        let mut stay: Vec<&Located> = Vec::new();
        if let Some(copy) = &vouched {
            let trust = self.trust(&copy.pack, id);
            trust.word(copy).into_iter().for_each(|word| _ = words.add(word));
            stay.push(copy);
        }
        for (number, copy, trust) in &copies {
            let is_safe = matches!(trust, Trust::Stays(_));
            let Some(word) = trust.word(copy).filter(|word| is_safe && !words.hold(*word)) else { continue };
            if self.has_bases(copy) {
                words.add(word);
                stay.push(copy);
                self.rely(*number, copy);
            }
        }
        // What is doubted is kept beside it, unless the same word stands for another copy.
        let sound = !stay.is_empty();
        for (number, copy, trust) in &copies {
            let word = trust.word(copy);
            let keep = match trust {
                Trust::Doubted(_) => word.is_some_and(|word| !words.hold(word)),
                Trust::Failing(_) => word.is_some_and(|word| !words.hold_frame(word)),
                Trust::Rotten => !sound,
                _ => false,
            };
            if keep {
                self.rely(*number, copy);
            }
        }
        // A copy that stays, but whose base goes, is as good as any: its base is rescued.
        for (number, copy, trust) in &copies {
            let fits = match trust {
                Trust::Stays(_) | Trust::Goes(_) => true,
                Trust::Aside(_) => !sound,
                _ => false,
            };
            let Some(word) = trust.word(copy).filter(|word| fits && !words.hold_frame(*word)) else {
                continue;
            };
            if !self.is_made_up_for(copy, &stay) {
                words.add(word);
                self.rescue(*number, copy, *trust);
            }
        }
        let is_doubted =
            |trust: &Trust| matches!(trust, Trust::Doubted(_) | Trust::Failing(_) | Trust::Rotten);
        let is_kept = !words.is_empty() || copies.iter().any(|(.., trust)| is_doubted(trust));
        for (number, copy, trust) in &copies {
            let fits = match trust {
                Trust::Suspect(_) => true,
                Trust::Lost(_) => !is_kept,
                _ => false,
            };
            let Some(word) = trust.word(copy).filter(|word| fits && !words.hold_frame(*word)) else {
                continue;
            };
            if !is_kept {
                words.add(word);
                self.rescue(*number, copy, *trust);
            } else if !self.is_made_up_for(copy, &stay) {
                self.held.insert(copy.pack.id);
                self.rely(*number, copy);
            }
        }
        if words.is_empty() && !is_kept {
            self.miss(class, id);
        }
    }

    /// Says whether copies that stay make up for one that goes: those that its own signer has sealed anew, or
    /// whatever this client itself has signed.
    fn is_made_up_for(&mut self, goes: &Located, stay: &[&Located]) -> bool {
        let signer = goes.pack.signer;
        if stay.iter().any(|copy| Some(copy.pack.signer) == self.own) {
            return true;
        }
        let trust = self.trust(&goes.pack, &goes.record.id);
        let (Trust::Goes(Said::BySealer(Some(_))) | Trust::Suspect(Said::BySealer(Some(_)))) = trust else {
            return false;
        };
        let mut again = stay.iter().filter(|copy| copy.pack.signer == signer).peekable();
        if again.peek().is_none() {
            return false;
        }
        let sealers = self.sealers.get_or_insert_with(|| Sealers::new(self.index));
        again.any(|copy| sealers.is_sealer(copy))
    }

    fn rescue(&mut self, number: u64, copy: &Located, trust: Trust) {
        if !matches!(trust, Trust::Stays(_)) {
            let place = (copy.pack.id, copy.pack.signer);
            self.rescues.entry(place).or_default().insert(copy.record.frame_offset);
        }
        self.rely(number, copy);
    }

    fn rely(&mut self, number: u64, copy: &Located) {
        let record = &copy.record;
        if self.chosen.set(number)
            && let Some(base) = record.base
        {
            self.choose(record.class, &base, record.depth);
            let (index, bases, chosen) = (self.index, &self.bases, &self.chosen);
            index.copies(record.class, &base, |number, _| {
                if chosen.get(number) {
                    bases.set(number);
                }
            });
        }
    }

    /// Says whether a copy is relied on for nothing but what differs from it.
    pub fn is_only_base(&self, number: u64, copy: &Located) -> bool {
        let first = || self.index.first(copy.record.class, &copy.record.id);
        self.bases.get(number) && first().is_some_and(|(first, _)| !self.visited.get(first))
    }
}
