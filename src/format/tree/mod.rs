//! A tree node: one folder, or one part of a big one; a blob of class metadata in deterministic CBOR.
//!
//! Rooms: [`TreeEntry`] is one name in a folder with all that is known of it, [`Content`] says what a
//! file holds, `TreeNode` is a list of entries or of parts, `TreeBuilder` makes the nodes of a folder as its
//! entries come. Normative: `format-spec/tree.md`.

mod content;
mod entry;

pub use content::{Content, ContentDigest, ContentRecipe, CutKind};
pub use entry::{Device, EntryKind, ExtendedAttribute, TreeEntry};
