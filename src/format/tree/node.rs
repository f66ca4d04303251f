//! One node of a tree: the entries of a folder, or the parts of a big one.

use super::TreeEntry;
use super::entry::check_name;
use crate::base::{BlobId, limits};
use crate::format::FormatError;
use crate::format::bytes::{at_most, ensure, invalid};
use crate::format::cbor::{Extra, Field, Reader, Writer, decode_map, required};

/// A part of a big folder, as the node above lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePart {
    /// The first name in the part.
    pub first_name: Vec<u8>,
    /// The part's node, a blob of class metadata.
    pub id: BlobId,
}

impl TreePart {
    pub(super) fn encode(&self, out: Writer<'_>) {
        out.map(&Extra::new(), |map| {
            map.at(0).bytes(&self.first_name);
            map.at(1).bytes(self.id.as_bytes());
        });
    }

    fn decode(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut first_name, mut id) = (None, None);
        let unknown = reader.map(|number, value| {
            match number {
                0 => first_name = Some(value.bytes(limits::NAME_BYTES_MAX)?.to_vec()),
                1 => id = Some(BlobId::new(value.fixed()?)),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        closed(&unknown)?;
        let first_name = required(first_name, "tree part name")?;
        check_name(&first_name)?;
        Ok(Self { first_name, id: required(id, "tree part id")? })
    }
}

/// One node, decoded and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeNode {
    /// Level 0: the entries of a folder, or of a part of it, sorted strictly by name.
    Leaf {
        /// The entries.
        entries: Vec<TreeEntry>,
    },
    /// A level above: parts of a big folder, sorted strictly by their first names.
    Branch {
        /// Height above the entries, from 1.
        level: u8,
        /// The parts, at least one.
        parts: Vec<TreePart>,
    },
}

impl TreeNode {
    /// Encodes the node; refuses one that no reader would accept.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let mut items = Vec::new();
        let (level, count) = match self {
            Self::Leaf { entries } => {
                entries.iter().try_for_each(|entry| entry.encode(Writer::new(&mut items)))?;
                (0, entries.len())
            }
            Self::Branch { level, parts } => {
                parts.iter().for_each(|part| part.encode(Writer::new(&mut items)));
                (*level, parts.len())
            }
        };
        assemble(level, count, &items)
    }

    /// Reads a node from exactly its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most("tree node length", bytes.len() as u64, limits::BLOB_BYTES_MAX)?;
        let (mut level, mut entries, mut parts) = (None, None, None);
        let unknown = decode_map("tree node", bytes, |number, value| {
            match (number, level) {
                (0, _) => {
                    let read: u8 = value.small()?;
                    check_level(read)?;
                    level = Some(read);
                }
                (1, Some(0)) => {
                    entries = Some(value.array(limits::TREE_NODE_ENTRIES_MAX, TreeEntry::decode)?)
                }
                (1, None) => return Err(invalid("tree node", "has no level before its entries")),
                (1, Some(_)) => parts = Some(value.array(limits::TREE_NODE_ENTRIES_MAX, TreePart::decode)?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        closed(&unknown)?;
        let node = match (level, entries, parts) {
            (Some(0), Some(entries), None) => Self::Leaf { entries },
            (Some(level), None, Some(parts)) => Self::Branch { level, parts },
            _ => return Err(invalid("tree node", "has no level or no entries")),
        };
        node.check()?;
        Ok(node)
    }

    /// Reads a part and checks that it is what the node above says: one level lower, beginning with
    /// the name given there, and ending before the next part's first name.
    pub fn decode_part(
        bytes: &[u8],
        parent_level: u8,
        part: &TreePart,
        next: Option<&TreePart>,
    ) -> Result<Self, FormatError> {
        let node = Self::decode(bytes)?;
        ensure(
            node.level().checked_add(1) == Some(parent_level),
            "tree level",
            "is not one below the node's above",
        )?;
        ensure(
            node.first_name() == Some(&part.first_name),
            "tree part",
            "does not begin with the name that the node above says",
        )?;
        let ends = next.is_none_or(|next| node.last_name() < Some(&next.first_name));
        ensure(ends, "tree part", "does not end before the next one")?;
        Ok(node)
    }

    /// Returns the height above the entries.
    pub fn level(&self) -> u8 {
        match self {
            Self::Leaf { .. } => 0,
            Self::Branch { level, .. } => *level,
        }
    }

    /// Returns the first name under the node.
    pub fn first_name(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf { entries } => entries.first().map(|entry| entry.name.as_slice()),
            Self::Branch { parts, .. } => parts.first().map(|part| part.first_name.as_slice()),
        }
    }

    /// Returns the greatest name that the node itself shows.
    fn last_name(&self) -> Option<&[u8]> {
        match self {
            Self::Leaf { entries } => entries.last().map(|entry| entry.name.as_slice()),
            Self::Branch { parts, .. } => parts.last().map(|part| part.first_name.as_slice()),
        }
    }

    fn check(&self) -> Result<(), FormatError> {
        match self {
            Self::Leaf { entries } => {
                at_most("tree entries", entries.len() as u64, limits::TREE_NODE_ENTRIES_MAX)?;
                let sorted = entries.is_sorted_by(|a, b| a.name < b.name);
                ensure(sorted, "tree entries", "are not in strict order")
            }
            Self::Branch { level, parts } => {
                check_level(*level)?;
                ensure(*level > 0, "tree level", "level 0 has no parts")?;
                ensure(!parts.is_empty(), "tree parts", "there is none")?;
                at_most("tree parts", parts.len() as u64, limits::TREE_NODE_ENTRIES_MAX)?;
                let sorted = parts.is_sorted_by(|a, b| a.first_name < b.first_name);
                ensure(sorted, "tree parts", "are not in strict order")
            }
        }
    }
}

/// Entries grow by new fields; nodes and parts do not, so that a folder is never shown without some of it.
fn closed(unknown: &Extra) -> Result<(), FormatError> {
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(FormatError::Unsupported { what: "field of a tree node" }),
    }
}

fn check_level(level: u8) -> Result<(), FormatError> {
    at_most("tree levels", u64::from(level) + 1, u64::from(limits::LIST_LEVELS_MAX))
}

/// Puts a node together from its encoded items.
pub(super) fn assemble(level: u8, count: usize, items: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut out = Vec::with_capacity(items.len() + 8);
    Writer::new(&mut out).map(&Extra::new(), |map| {
        map.at(0).unsigned(u64::from(level));
        map.at(1).encoded_array(count as u64, items);
    });
    at_most("tree node length", out.len() as u64, limits::BLOB_BYTES_MAX)?;
    Ok(out)
}
