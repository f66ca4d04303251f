//! One node of a recipe.

use super::{RECIPE_HEAD_BYTES, RECIPE_MAGIC};
use crate::base::{BlobId, limits};
use crate::chunker::Sketch;
use crate::format::bytes::{Fields, at_most, ensure, invalid, is_zero, version_one};
use crate::format::error::FormatError;

/// Length of an entry of level 0 without a sketch.
const PLAIN_ENTRY_BYTES: usize = 36;
/// Length of an entry above level 0, and of one of level 0 with a sketch.
const ENTRY_BYTES: usize = 48;

/// A piece of a file or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeEntry {
    /// Bytes that are stored as a blob.
    Chunk {
        /// The blob.
        id: BlobId,
        /// Its length.
        length: u32,
        /// What it resembles; [`Sketch::NONE`] where that is not known.
        sketch: Sketch,
    },
    /// Zero bytes that the source does not store either.
    Hole {
        /// How many.
        length: u64,
    },
}

impl RecipeEntry {
    /// Returns how many bytes of the file or stream the piece covers.
    pub fn length(&self) -> u64 {
        match self {
            Self::Chunk { length, .. } => u64::from(*length),
            Self::Hole { length } => *length,
        }
    }

    fn check(&self) -> Result<(), FormatError> {
        ensure(self.length() > 0, "recipe entry", "covers nothing")?;
        match self {
            Self::Chunk { id, length, .. } => {
                at_most("chunk length", u64::from(*length), limits::BLOB_BYTES_MAX)?;
                ensure(!is_zero(id.as_bytes()), "recipe entry", "a chunk has the id of a hole")
            }
            Self::Hole { .. } => Ok(()),
        }
    }

    /// Appends the entry; a hole needs the place of a sketch.
    pub(super) fn encode(&self, sketch_algorithm: u8, out: &mut Vec<u8>) -> Result<(), FormatError> {
        self.check()?;
        match self {
            Self::Chunk { id, length, sketch } => {
                out.extend_from_slice(id.as_bytes());
                out.extend_from_slice(&length.to_le_bytes());
                if sketch_algorithm != 0 {
                    out.extend_from_slice(&sketch.to_bytes());
                }
            }
            Self::Hole { length } => {
                ensure(sketch_algorithm != 0, "recipe hole", "stands in a node without sketches")?;
                out.extend_from_slice(&[0; BlobId::LENGTH]);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&[0; 8]);
            }
        }
        Ok(())
    }

    fn decode(fields: &mut Fields<'_>, sketch_algorithm: u8) -> Result<Self, FormatError> {
        let id: [u8; 32] = fields.array()?;
        let length = fields.u32()?;
        let sketch = if sketch_algorithm == 0 { [0; 12] } else { fields.array()? };
        let entry = if is_zero(&id) {
            ensure(sketch_algorithm != 0, "recipe hole", "stands in a node without sketches")?;
            let [a, b, c, d, rest @ ..] = sketch;
            ensure(is_zero(&rest), "recipe hole", "reserved bytes are not zero")?;
            let high = u32::from_le_bytes([a, b, c, d]);
            Self::Hole { length: u64::from(high) << 32 | u64::from(length) }
        } else {
            Self::Chunk { id: BlobId::new(id), length, sketch: Sketch::from_bytes(sketch) }
        };
        entry.check()?;
        Ok(entry)
    }
}

/// A node of a recipe as its parent lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecipeChild {
    /// The node, a blob of class metadata.
    pub id: BlobId,
    /// How many bytes of the file or stream it covers.
    pub plain_bytes: u64,
    /// How many entries of level 0 lie under it.
    pub leaf_entries: u64,
}

impl RecipeChild {
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        self.check()?;
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.plain_bytes.to_le_bytes());
        out.extend_from_slice(&self.leaf_entries.to_le_bytes());
        Ok(())
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let id = BlobId::new(fields.array()?);
        let child = Self { id, plain_bytes: fields.u64()?, leaf_entries: fields.u64()? };
        child.check()?;
        Ok(child)
    }

    fn check(&self) -> Result<(), FormatError> {
        ensure(self.leaf_entries > 0, "recipe child", "has no entries")?;
        ensure(self.plain_bytes >= self.leaf_entries, "recipe child", "covers fewer bytes than entries")
    }
}

/// One node, decoded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeNode {
    /// Level 0: pieces of the file or stream.
    Leaf {
        /// How the sketches were made, 0 where there are none.
        sketch_algorithm: u8,
        /// The pieces in order.
        entries: Vec<RecipeEntry>,
    },
    /// A level above: nodes of the level below.
    Branch {
        /// Height above the pieces, from 1.
        level: u8,
        /// The nodes in order, at least one.
        children: Vec<RecipeChild>,
    },
}

impl RecipeNode {
    /// Appends the node.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FormatError> {
        self.check()?;
        let count = self.entry_count() as u32;
        match self {
            Self::Leaf { sketch_algorithm, entries } => {
                out.extend_from_slice(&head(0, *sketch_algorithm, count));
                entries.iter().try_for_each(|entry| entry.encode(*sketch_algorithm, out))
            }
            Self::Branch { level, children } => {
                out.extend_from_slice(&head(*level, 0, count));
                children.iter().try_for_each(|child| child.encode(out))
            }
        }
    }

    /// Reads a node from exactly its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        fields.magic(RECIPE_MAGIC)?;
        version_one(fields.u8()?, "recipe version")?;
        let level = fields.u8()?;
        let sketch_algorithm = fields.u8()?;
        fields.zeros(1, "recipe head")?;
        let count = fields.u32()?;
        fields.zeros(4, "recipe head")?;
        at_most("recipe entries", u64::from(count), limits::RECIPE_NODE_ENTRIES_MAX)?;
        check_level(level)?;
        let node = if level == 0 {
            let entries = (0..count).map(|_| RecipeEntry::decode(&mut fields, sketch_algorithm));
            Self::Leaf { sketch_algorithm, entries: entries.collect::<Result<_, _>>()? }
        } else {
            ensure(sketch_algorithm == 0, "recipe head", "only level 0 has sketches")?;
            let children = (0..count).map(|_| RecipeChild::decode(&mut fields));
            Self::Branch { level, children: children.collect::<Result<_, _>>()? }
        };
        fields.end("recipe node")?;
        node.check()?;
        Ok(node)
    }

    /// Reads a node and checks that it is what its parent says: one level lower, as long, with as
    /// many entries under it.
    pub fn decode_child(bytes: &[u8], parent_level: u8, child: &RecipeChild) -> Result<Self, FormatError> {
        let node = Self::decode(bytes)?;
        ensure(
            node.level().checked_add(1) == Some(parent_level),
            "recipe level",
            "is not one below its parent's",
        )?;
        ensure(
            (node.plain_bytes(), node.leaf_entries()) == (child.plain_bytes, child.leaf_entries),
            "recipe sums",
            "are not what the parent says",
        )?;
        Ok(node)
    }

    /// Returns the height above the pieces.
    pub fn level(&self) -> u8 {
        match self {
            Self::Leaf { .. } => 0,
            Self::Branch { level, .. } => *level,
        }
    }

    /// Returns how many entries the node has.
    pub fn entry_count(&self) -> usize {
        match self {
            Self::Leaf { entries, .. } => entries.len(),
            Self::Branch { children, .. } => children.len(),
        }
    }

    /// Returns how many bytes of the file or stream lie under the node.
    pub fn plain_bytes(&self) -> u64 {
        self.sums().map_or(u64::MAX, |(plain_bytes, _)| plain_bytes)
    }

    /// Returns how many entries of level 0 lie under the node.
    pub fn leaf_entries(&self) -> u64 {
        self.sums().map_or(u64::MAX, |(_, leaf_entries)| leaf_entries)
    }

    fn sums(&self) -> Option<(u64, u64)> {
        match self {
            Self::Leaf { entries, .. } => {
                let bytes = entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.length()))?;
                Some((bytes, entries.len() as u64))
            }
            Self::Branch { children, .. } => children.iter().try_fold((0_u64, 0_u64), |sums, child| {
                Some((sums.0.checked_add(child.plain_bytes)?, sums.1.checked_add(child.leaf_entries)?))
            }),
        }
    }

    fn check(&self) -> Result<(), FormatError> {
        at_most("recipe entries", self.entry_count() as u64, limits::RECIPE_NODE_ENTRIES_MAX)?;
        if let Self::Branch { level, children } = self {
            check_level(*level)?;
            ensure(*level > 0, "recipe level", "level 0 lists no nodes")?;
            ensure(!children.is_empty(), "recipe children", "there is none")?;
        }
        let (bytes, _) = self.sums().ok_or_else(|| invalid("recipe sums", "overflow"))?;
        at_most("recipe length", bytes, limits::FILE_BYTES_MAX)
    }
}

fn check_level(level: u8) -> Result<(), FormatError> {
    at_most("recipe levels", u64::from(level) + 1, u64::from(limits::LIST_LEVELS_MAX))
}

/// Returns what stands before the entries.
pub(super) fn head(level: u8, sketch_algorithm: u8, count: u32) -> [u8; RECIPE_HEAD_BYTES] {
    let [a, b, c, d] = RECIPE_MAGIC;
    let [e, f, g, h] = count.to_le_bytes();
    [a, b, c, d, 1, level, sketch_algorithm, 0, e, f, g, h, 0, 0, 0, 0]
}

const _: () = assert!(PLAIN_ENTRY_BYTES + Sketch::BYTES == ENTRY_BYTES);
