//! A tree node: one folder, or one part of a big one; a blob of class metadata in deterministic CBOR.
//!
//! Rooms: [`TreeEntry`] is one name in a folder with all that is known of it, [`Content`] says what a
//! file holds, [`TreeNode`] is a list of entries or of parts, [`TreeBuilder`] makes the nodes of a
//! folder as its entries come. Normative: `format-spec/tree.md`.

mod builder;
mod content;
mod entry;
mod node;

pub use builder::TreeBuilder;
pub use content::{Content, ContentDigest, CutKind};
pub use entry::{Device, EntryKind, ExtendedAttribute, TreeEntry};
pub use node::{TreeNode, TreePart};

/// A writer closes no node with fewer entries, but for the last of a level.
pub const TREE_SPLIT_MIN: usize = 64;
/// A writer closes a node that has this many entries.
pub const TREE_SPLIT_MAX: usize = 1024;
/// A writer closes a node rather than let its entries grow beyond this; one entry alone may.
pub const TREE_SPLIT_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests;
