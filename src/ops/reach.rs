//! What roots reach, and in which copies it is kept.
//!
//! A walk over trees and recipes names every blob that a root needs; for each the keeper chooses the copy
//! that is relied on, and with a difference a copy of its base of smaller depth, down to one without
//! ([CONCURRENCY-25]). Copies in packs that are not to be relied on are chosen only where there is no
//! other: those have to be rescued. What is remembered of blobs is a bit or two for every record of the
//! index.

use super::bits::Bits;
use super::error::OpsError;
use crate::base::{BlobId, KeyId, PackId};
use crate::format::pack::{BlobClass, ORIGIN_BYTES, Origin};
use crate::format::recipe::{RecipeEntry, RecipeNode, RecipeRoot};
use crate::format::tree::TreeNode;
use crate::repo::{BlobReader, KnownPack, Located, NumberedIndex, RepoError, Repository, SpoiltPacks};
use crate::storage::StorageError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// How far the copies in a pack can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// They stay.
    Stays(Said),
    /// They are there, but nobody should rely on them: a blob that is nowhere else is rescued.
    Goes(Said),
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
    /// They are reported as damaged and in a pack that goes: the last resort.
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

/// On whose word the copies in a pack are what they are said to be. A copy stands in for others of the same
/// word only, so that nobody who claims to hold a blob makes another's copy superfluous ([CONCURRENCY-29]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// One word is as good as another.
    ByAnybody,
    /// That of whoever sealed the frame, as far as those tell the truth who signed the pack: they may have
    /// copied it from there. `None` are keys that are believed whatever they copy.
    BySealer(Option<KeyId>),
}

/// A word: who signed, and a hash of the origin under which the frame was sealed.
type Word = Option<(Option<KeyId>, [u8; 32])>;

fn hash_of(origin: &Origin) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(ORIGIN_BYTES);
    origin.encode(&mut bytes);
    *blake3::hash(&bytes).as_bytes()
}

impl Trust {
    fn word(self, copy: &Located) -> Option<Word> {
        let (Self::Stays(said)
        | Self::Goes(said)
        | Self::Doubted(said)
        | Self::Failing(said)
        | Self::Lost(said)) = self
        else {
            return None;
        };
        Some(match said {
            Said::ByAnybody => None,
            Said::BySealer(signer) => {
                let origin = copy.pack.origins.get(usize::from(copy.record.origin));
                Some((signer, origin.map_or([0; 32], hash_of)))
            }
        })
    }
}

/// Frames by their packs, each with the signer of the index run that describes it, and their offsets.
pub(super) type Frames = BTreeMap<(PackId, KeyId), BTreeSet<u32>>;

/// Blobs that are named one by one when they are missing.
const MISSING_MAX: usize = 20;

/// Chooses copies.
pub(super) struct Keeper<'a> {
    index: &'a NumberedIndex,
    trust: Box<dyn Fn(&KnownPack) -> Trust + 'a>,
    doubts: Option<&'a Doubts>,
    known: HashMap<(PackId, KeyId), Trust>,
    visited: Bits,
    /// Records that are relied on.
    pub chosen: Bits,
    /// Those on which something else is built.
    bases: Bits,
    /// Frames that have to be copied.
    pub rescues: Frames,
    /// Blobs of which there is no copy at all.
    pub missing: Vec<(BlobClass, BlobId)>,
}

impl<'a> Keeper<'a> {
    /// Chooses among the copies of an index by how far their packs can be relied on.
    pub fn new(index: &'a NumberedIndex, trust: impl Fn(&KnownPack) -> Trust + 'a) -> Self {
        let bits = || Bits::new(index.len());
        Self {
            index,
            trust: Box::new(trust),
            doubts: None,
            known: HashMap::new(),
            visited: bits(),
            chosen: bits(),
            bases: bits(),
            rescues: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// Takes account of what is reported as damaged.
    #[must_use]
    pub fn doubting(self, doubts: &'a Doubts) -> Self {
        Self { doubts: Some(doubts), ..self }
    }

    fn trust(&mut self, pack: &KnownPack, blob: &BlobId) -> Trust {
        let trust = *self.known.entry((pack.id, pack.signer)).or_insert_with(|| (self.trust)(pack));
        let Some(doubts) = self.doubts else { return trust };
        let (named, rotten) = (doubts.spoilt.names(&pack.id, blob), doubts.rotten.contains(&pack.id));
        match trust {
            Trust::Stays(_) if named && rotten => Trust::Rotten,
            Trust::Stays(said) if rotten => Trust::Failing(said),
            Trust::Stays(said) if named => Trust::Doubted(said),
            Trust::Goes(said) if named || rotten => Trust::Lost(said),
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

    /// Says whether a copy of smaller depth stays, with all its bases.
    fn stays(&mut self, class: BlobClass, id: &BlobId, below: u8) -> bool {
        let copies = self.copies(class, id, below);
        copies.into_iter().any(|(_, copy, trust)| matches!(trust, Trust::Stays(_)) && self.has_bases(&copy))
    }

    fn has_bases(&mut self, copy: &Located) -> bool {
        let record = &copy.record;
        record.base.is_none_or(|base| self.stays(record.class, &base, record.depth))
    }

    /// Relies on one copy of every word under which there is one that stays; without any, on one of
    /// every word that is to be rescued.
    fn choose(&mut self, class: BlobClass, id: &BlobId, below: u8) {
        let copies = self.copies(class, id, below);
        let mut words = BTreeSet::new();
        for (number, copy, trust) in &copies {
            let stays = matches!(trust, Trust::Stays(_));
            let Some(word) = trust.word(copy).filter(|word| stays && !words.contains(word)) else { continue };
            if self.has_bases(copy) {
                words.insert(word);
                self.rely(*number, copy);
            }
        }
        // What is doubted is kept beside it, unless the same word stands for another copy.
        let sound = !words.is_empty();
        for (number, copy, trust) in &copies {
            let keep = match trust {
                Trust::Doubted(_) => trust.word(copy).is_some_and(|word| !words.contains(&word)),
                Trust::Failing(_) => trust.word(copy).is_some_and(|word| {
                    let believed = word.map(|(_, origin)| (None, origin));
                    !words.contains(&word) && !words.contains(&believed)
                }),
                Trust::Rotten => !sound,
                _ => false,
            };
            if keep {
                self.rely(*number, copy);
            }
        }
        if sound {
            return;
        }
        // A copy that stays, but whose base goes, is as good as any: its base is rescued.
        let is_doubted =
            |trust: &Trust| matches!(trust, Trust::Doubted(_) | Trust::Failing(_) | Trust::Rotten);
        let doubted = copies.iter().any(|(.., trust)| is_doubted(trust));
        for last_resort in [false, true] {
            for (number, copy, trust) in &copies {
                let fits = match trust {
                    Trust::Stays(_) | Trust::Goes(_) => !last_resort,
                    Trust::Lost(_) => last_resort,
                    _ => false,
                };
                let Some(word) = trust.word(copy).filter(|word| fits && !words.contains(word)) else {
                    continue;
                };
                words.insert(word);
                if matches!(trust, Trust::Goes(_) | Trust::Lost(_)) {
                    let place = (copy.pack.id, copy.pack.signer);
                    self.rescues.entry(place).or_default().insert(copy.record.frame_offset);
                }
                self.rely(*number, copy);
            }
            if doubted || !words.is_empty() {
                return;
            }
        }
        self.miss(class, id);
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

#[derive(Clone, Copy)]
enum Node {
    Tree(BlobId),
    Recipe(BlobId),
}

/// Walks over everything below roots and tells the keeper what they need.
///
/// # Errors
///
/// When a tree or recipe cannot be read: what lies below it is not known then.
pub(super) fn reach(
    repository: &Arc<Repository>,
    roots: impl IntoIterator<Item = BlobId>,
    keeper: &mut Keeper<'_>,
) -> Result<(), OpsError> {
    walk(repository, roots, keeper, Err)
}

/// Does the same below a root that nobody vouches for, as far as it can be read.
///
/// # Errors
///
/// When the store does not answer.
pub(super) fn reach_readable(
    repository: &Arc<Repository>,
    root: BlobId,
    keeper: &mut Keeper<'_>,
) -> Result<(), OpsError> {
    walk(repository, [root], keeper, |error| match error {
        error @ (RepoError::Storage(StorageError::Transient { .. }) | RepoError::Interrupted) => Err(error),
        _ => Ok(()),
    })
}

fn walk(
    repository: &Arc<Repository>,
    roots: impl IntoIterator<Item = BlobId>,
    keeper: &mut Keeper<'_>,
    failed: impl Fn(RepoError) -> Result<(), RepoError>,
) -> Result<(), OpsError> {
    let mut reader = BlobReader::new(repository)?;
    let mut nodes: Vec<Node> = roots.into_iter().map(Node::Tree).collect();
    while let Some(node) = nodes.pop() {
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        let (Node::Tree(id) | Node::Recipe(id)) = node;
        if keeper.need(BlobClass::Metadata, &id)
            && let Err(error) = below(&mut reader, node, &mut nodes, keeper)
        {
            failed(error)?;
        }
    }
    Ok(())
}

/// Reads a node and tells what lies right below it.
fn below(
    reader: &mut BlobReader,
    node: Node,
    nodes: &mut Vec<Node>,
    keeper: &mut Keeper<'_>,
) -> Result<(), RepoError> {
    match node {
        Node::Tree(id) => {
            let bytes = reader.read(BlobClass::Metadata, "tree", &id)?;
            match TreeNode::decode(bytes.bytes()).map_err(RepoError::damaged(format!("tree {id}")))? {
                TreeNode::Leaf { entries } => {
                    for entry in entries {
                        nodes.extend(entry.subtree.map(Node::Tree));
                        match entry.content.map(|content| content.recipe) {
                            Some(RecipeRoot::Node(id)) => nodes.push(Node::Recipe(id)),
                            Some(RecipeRoot::Inline(node)) => pieces(&node, nodes, keeper),
                            None => {}
                        }
                    }
                }
                TreeNode::Branch { parts, .. } => {
                    nodes.extend(parts.iter().map(|part| Node::Tree(part.id)));
                }
            }
        }
        Node::Recipe(id) => {
            let bytes = reader.read(BlobClass::Metadata, "recipe", &id)?;
            let node =
                RecipeNode::decode(bytes.bytes()).map_err(RepoError::damaged(format!("recipe {id}")))?;
            pieces(&node, nodes, keeper);
        }
    }
    Ok(())
}

fn pieces(node: &RecipeNode, nodes: &mut Vec<Node>, keeper: &mut Keeper<'_>) {
    match node {
        RecipeNode::Leaf { entries, .. } => {
            for entry in entries {
                if let RecipeEntry::Chunk { id, .. } = entry {
                    keeper.need(BlobClass::Content, id);
                }
            }
        }
        RecipeNode::Branch { children, .. } => {
            nodes.extend(children.iter().map(|child| Node::Recipe(child.id)));
        }
    }
}
