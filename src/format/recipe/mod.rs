//! A recipe: the chunks of a file or stream in order, as a tree of nodes that are blobs themselves.
//!
//! A node of level 0 lists chunks and holes, a node above lists nodes. Where a node ends follows from
//! the ids in it, so two snapshots share the nodes of stretches that did not change.
//! Rooms: [`RecipeNode`] is one node, [`RecipeBuilder`] makes all nodes of a stream as it comes.
//! Normative: `format-spec/recipe.md`.

mod builder;
mod node;

pub use builder::{Recipe, RecipeBuilder, RecipeRoot};
pub use node::{RecipeChild, RecipeEntry, RecipeNode};

/// First bytes of a node.
pub const RECIPE_MAGIC: [u8; 4] = *b"RCPE";
/// Length of what stands before a node's entries.
pub const RECIPE_HEAD_BYTES: usize = 16;
/// A writer keeps recipes of at most so many entries in the tree entry itself.
pub const RECIPE_INLINE_ENTRIES: usize = 16;
/// A writer closes no node with fewer entries, but for the last of a level.
pub const RECIPE_SPLIT_MIN: usize = 128;
/// A writer closes a node that has this many entries.
pub const RECIPE_SPLIT_MAX: usize = 1024;

#[cfg(test)]
mod tests;
