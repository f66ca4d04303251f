//! Words: on whose say-so a copy of a blob is what it is said to be ([CONCURRENCY-47]).
//!
//! A writer cannot open content, so whoever holds a writer's key may claim that anything is some blob. A copy
//! stands in for another only where both rest on one word; what else stands in for what goes is told here.

use crate::base::KeyId;
use crate::format::pack::{ORIGIN_BYTES, Origin};
use crate::repo::{Located, NumberedIndex, Registry};
use std::collections::{BTreeSet, HashMap};

/// On whose word the copies in a pack are what they are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// One word is as good as another.
    ByAnybody,
    /// That of whoever sealed the frame, as far as those tell the truth who signed the pack: they may have
    /// copied it from there. `None` are keys that are believed whatever they copy.
    BySealer(Option<KeyId>),
}

impl Said {
    /// Returns whose word a pack rests on. Where nobody may write but who may do anything, nobody is protected
    /// from anybody.
    pub fn of(registry: &Registry, signer: &KeyId) -> Self {
        match registry.has_writers() {
            false => Self::ByAnybody,
            true => Self::BySealer((!registry.is_believed(signer)).then_some(*signer)),
        }
    }

    /// Returns the word of one copy in such a pack.
    pub fn word(self, copy: &Located) -> Word {
        Word(match self {
            Self::ByAnybody => None,
            Self::BySealer(signer) => Some((signer, frame_of(copy))),
        })
    }
}

/// Who signed, and which frame it is, wherever it was copied to: a hash of origin and counter, since nothing
/// else ties a claim to a frame. `None` where one word is as good as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word(Option<(Option<KeyId>, [u8; 32])>);

impl Word {
    /// The same frame on the word of keys that are believed: they copy none that two packs disagree about.
    fn believed(self) -> Self {
        Self(self.0.map(|(_, frame)| (None, frame)))
    }
}

fn frame_of(copy: &Located) -> [u8; 32] {
    let origin = copy.pack.origins.get(usize::from(copy.record.origin));
    let mut hasher = blake3::Hasher::new();
    hasher.update(&copy.record.counter.to_le_bytes());
    if let Some(origin) = origin {
        hasher.update(&encoded(origin));
    }
    *hasher.finalize().as_bytes()
}

fn encoded(origin: &Origin) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ORIGIN_BYTES);
    origin.encode(&mut bytes);
    bytes
}

/// The words of copies that are relied on.
#[derive(Default)]
pub(super) struct Words(BTreeSet<Word>);

impl Words {
    /// Adds a word; says whether it is new.
    pub fn add(&mut self, word: Word) -> bool {
        self.0.insert(word)
    }

    /// Says whether some copy rests on this word.
    pub fn hold(&self, word: Word) -> bool {
        self.0.contains(&word)
    }

    /// Says whether that very frame is relied on, on the same word or on that of a key that is believed.
    pub fn hold_frame(&self, word: Word) -> bool {
        self.hold(word) || self.hold(word.believed())
    }

    /// Says whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who signed packs with which origins. An origin that only one key ever used is its own: what it signed
/// there it has sealed and not copied from somebody.
pub(super) struct Sealers(HashMap<u64, Option<KeyId>>);

impl Sealers {
    /// Learns from all packs that the index describes.
    pub fn new(index: &NumberedIndex) -> Self {
        let mut sealers: HashMap<u64, Option<KeyId>> = HashMap::new();
        for pack in index.packs() {
            for origin in pack.origins.iter() {
                let known = sealers.entry(short(origin)).or_insert(Some(pack.signer));
                if *known != Some(pack.signer) {
                    *known = None;
                }
            }
        }
        Self(sealers)
    }

    /// Says whether whoever signed the pack of a copy has also sealed it, as far as can be told.
    pub fn is_sealer(&self, copy: &Located) -> bool {
        let origin = copy.pack.origins.get(usize::from(copy.record.origin));
        origin.is_some_and(|origin| self.0.get(&short(origin)) == Some(&Some(copy.pack.signer)))
    }
}

/// Two origins that are taken for one have several signers, which costs a copy that was not needed.
fn short(origin: &Origin) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&encoded(origin)).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
