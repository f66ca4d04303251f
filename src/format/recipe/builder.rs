//! Makes the nodes of a recipe while the stream comes: one open node a level, whatever the length.

use super::node::head;
use super::{
    RECIPE_HEAD_BYTES, RECIPE_INLINE_ENTRIES, RECIPE_SPLIT_MAX, RECIPE_SPLIT_MIN, RecipeChild, RecipeEntry,
    RecipeNode,
};
use crate::base::{BlobId, limits};
use crate::format::bytes::at_most;
use crate::format::error::FormatError;

/// Where a recipe begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeRoot {
    /// Short: the one node, of level 0, stands in the tree entry.
    Inline(RecipeNode),
    /// In blobs, of which this is the topmost.
    Node(BlobId),
}

/// A finished recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Where it begins.
    pub root: RecipeRoot,
    /// How many bytes the pieces cover.
    pub plain_bytes: u64,
    /// How many pieces there are.
    pub entries: u64,
}

/// An open node: its head with a count yet to be written, and its entries.
#[derive(Debug)]
struct OpenNode {
    bytes: Vec<u8>,
    count: usize,
    plain_bytes: u64,
    leaf_entries: u64,
    last_child: Option<BlobId>,
}

impl OpenNode {
    fn new(level: u8, sketch_algorithm: u8) -> Self {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&head(level, sketch_algorithm, 0));
        Self { bytes, count: 0, plain_bytes: 0, leaf_entries: 0, last_child: None }
    }

    fn account(&mut self, plain_bytes: u64, leaf_entries: u64) -> Result<(), FormatError> {
        self.count += 1;
        self.leaf_entries = self.leaf_entries.saturating_add(leaf_entries);
        self.plain_bytes = self.plain_bytes.saturating_add(plain_bytes);
        at_most("recipe length", self.plain_bytes, limits::FILE_BYTES_MAX)
    }

    /// Says whether the node ends after the entry with this id.
    fn closes_after(&self, id: Option<&BlobId>) -> bool {
        self.count >= RECIPE_SPLIT_MAX || (self.count >= RECIPE_SPLIT_MIN && id.is_some_and(marks_end))
    }

    fn append(&mut self, child: &RecipeChild) -> Result<(), FormatError> {
        child.encode(&mut self.bytes)?;
        self.last_child = Some(child.id);
        self.account(child.plain_bytes, child.leaf_entries)
    }

    /// Returns the node's bytes with the count written into the head, and starts over.
    fn take(&mut self) -> Vec<u8> {
        if let Some(place) = self.bytes.get_mut(8..12) {
            place.copy_from_slice(&(self.count as u32).to_le_bytes());
        }
        let head = self.bytes.get(..RECIPE_HEAD_BYTES).unwrap_or_default().to_vec();
        (self.count, self.plain_bytes, self.leaf_entries) = (0, 0, 0);
        std::mem::replace(&mut self.bytes, head)
    }

    /// Gives the node out and starts over; returns it as its parent lists it.
    fn close<E>(&mut self, emit: &mut impl FnMut(&[u8]) -> Result<BlobId, E>) -> Result<RecipeChild, E> {
        let (plain_bytes, leaf_entries) = (self.plain_bytes, self.leaf_entries);
        Ok(RecipeChild { id: emit(&self.take())?, plain_bytes, leaf_entries })
    }
}

/// Says whether a node may end after an entry with this id: true for 1 id in 256.
///
/// It depends on the id alone, so after a change the ends of nodes fall into step again.
fn marks_end(id: &BlobId) -> bool {
    id.as_bytes().last() == Some(&0xFF)
}

/// Takes the pieces of a file or stream one by one and gives out nodes as they are complete.
///
/// `emit` stores a node as a blob of class metadata and returns its id. Nodes of level 0 come in
/// order; a node comes after all that it lists.
#[derive(Debug)]
pub struct RecipeBuilder {
    sketch_algorithm: u8,
    levels: Vec<OpenNode>,
    plain_bytes: u64,
    entries: u64,
}

impl RecipeBuilder {
    /// Begins a recipe; with a sketch algorithm of 0 no sketches are kept, and no holes can be.
    pub fn new(sketch_algorithm: u8) -> Self {
        Self {
            sketch_algorithm,
            levels: vec![OpenNode::new(0, sketch_algorithm)],
            plain_bytes: 0,
            entries: 0,
        }
    }

    /// Appends a piece.
    pub fn push<E: From<FormatError>>(
        &mut self,
        entry: RecipeEntry,
        mut emit: impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        self.plain_bytes = self.plain_bytes.saturating_add(entry.length());
        self.entries += 1;
        at_most("recipe length", self.plain_bytes, limits::FILE_BYTES_MAX)?;
        let Some(leaf) = self.levels.first_mut() else { return Ok(()) };
        entry.encode(self.sketch_algorithm, &mut leaf.bytes)?;
        leaf.account(entry.length(), 1)?;
        let id = match &entry {
            RecipeEntry::Chunk { id, .. } => Some(id),
            RecipeEntry::Hole { .. } => None,
        };
        if leaf.closes_after(id) {
            self.close(&mut emit)?;
        }
        Ok(())
    }

    /// Closes the node of level 0, and those above that are complete with it.
    fn close<E: From<FormatError>>(
        &mut self,
        emit: &mut impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        for level in 0.. {
            if self.levels.len() == level + 1 {
                at_most("recipe levels", level as u64 + 2, u64::from(limits::LIST_LEVELS_MAX))?;
                self.levels.push(OpenNode::new(level as u8 + 1, 0));
            }
            let ([.., node], [parent, ..]) = self.levels.split_at_mut(level + 1) else { break };
            let child = node.close(emit)?;
            parent.append(&child)?;
            if !parent.closes_after(Some(&child.id)) {
                break;
            }
        }
        Ok(())
    }

    /// Gives out what is still open and returns the recipe.
    pub fn finish<E: From<FormatError>>(
        mut self,
        mut emit: impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<Recipe, E> {
        let root = match self.levels.as_mut_slice() {
            [leaf] if leaf.count <= RECIPE_INLINE_ENTRIES => {
                RecipeRoot::Inline(RecipeNode::decode(&leaf.take())?)
            }
            levels => RecipeRoot::Node(Self::finish_levels(levels, &mut emit)?),
        };
        Ok(Recipe { root, plain_bytes: self.plain_bytes, entries: self.entries })
    }

    /// Closes every level from the lowest; returns the root, above which a node would list one alone.
    fn finish_levels<E: From<FormatError>>(
        levels: &mut [OpenNode],
        emit: &mut impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<BlobId, E> {
        for level in 1..levels.len() {
            let ([.., node], [parent, ..]) = levels.split_at_mut(level) else { break };
            if node.count > 0 {
                parent.append(&node.close(emit)?)?;
            }
        }
        match levels {
            [_, .., OpenNode { count: 1, last_child: Some(id), .. }] => Ok(*id),
            [.., root] => Ok(root.close(emit)?.id),
            [] => Err(FormatError::Truncated.into()),
        }
    }
}
