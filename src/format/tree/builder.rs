//! Makes the nodes of a folder while its entries come: one open node a level, however big the folder.

use super::entry::check_name;
use super::node::assemble;
use super::{TREE_SPLIT_BYTES_MAX, TREE_SPLIT_MAX, TREE_SPLIT_MIN, TreeEntry, TreePart};
use crate::base::{BlobId, limits};
use crate::format::FormatError;
use crate::format::bytes::{at_most, ensure};
use crate::format::cbor::Writer;

/// An open node: its items, encoded.
#[derive(Debug, Default)]
struct OpenNode {
    items: Vec<u8>,
    count: usize,
    first_name: Vec<u8>,
    last_part: Option<BlobId>,
}

impl OpenNode {
    /// Appends an encoded item.
    fn append(&mut self, name: &[u8], item: &[u8]) {
        if self.count == 0 {
            self.first_name = name.to_vec();
        }
        self.items.extend_from_slice(item);
        self.count += 1;
    }

    fn has_room_for(&self, item: &[u8]) -> bool {
        self.count == 0 || self.items.len() + item.len() <= TREE_SPLIT_BYTES_MAX
    }

    /// Says whether the node ends after the item with this name.
    fn closes_after(&self, name: &[u8], level: usize) -> bool {
        self.count >= TREE_SPLIT_MAX || (self.count >= TREE_SPLIT_MIN && marks_end(name, level))
    }

    /// Gives the node out and starts over; returns it as the node above lists it.
    fn close<E: From<FormatError>>(
        &mut self,
        level: usize,
        emit: &mut impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<TreePart, E> {
        let node = std::mem::take(self);
        let bytes = assemble(level as u8, node.count, &node.items)?;
        Ok(TreePart { first_name: node.first_name, id: emit(&bytes)? })
    }
}

/// Says whether a node of a level may end after an item with this name: true for 1 name in 128.
///
/// It depends on the name alone, so after a change the ends of nodes fall into step again; each level
/// looks at a byte of its own, or the ends of one would all be ends of the next.
fn marks_end(name: &[u8], level: usize) -> bool {
    blake3::hash(name).as_bytes().get(level).is_some_and(|byte| byte & 0x7F == 0x7F)
}

/// Takes the entries of a folder one by one, in strict order of their names, and gives out nodes as
/// they are complete.
///
/// `emit` stores a node as a blob of class metadata and returns its id. A node comes after all that it
/// lists.
#[derive(Debug)]
pub struct TreeBuilder {
    levels: Vec<OpenNode>,
    last_name: Vec<u8>,
    item: Vec<u8>,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeBuilder {
    /// Begins a folder.
    pub fn new() -> Self {
        Self { levels: vec![OpenNode::default()], last_name: Vec::new(), item: Vec::new() }
    }

    /// Appends an entry, whose name comes after all before it.
    pub fn push<E: From<FormatError>>(
        &mut self,
        entry: &TreeEntry,
        mut emit: impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        check_name(&entry.name)?;
        ensure(self.last_name < entry.name, "tree entries", "are not in strict order")?;
        self.last_name.clone_from(&entry.name);
        let mut item = std::mem::take(&mut self.item);
        item.clear();
        entry.encode(Writer::new(&mut item))?;
        self.append(0, &entry.name, &item, &mut emit)?;
        self.item = item;
        Ok(())
    }

    /// Appends an item to the open node of a level, closing it before or after where the rules say so.
    fn append<E: From<FormatError>>(
        &mut self,
        level: usize,
        name: &[u8],
        item: &[u8],
        emit: &mut impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        at_most("tree levels", level as u64 + 1, u64::from(limits::LIST_LEVELS_MAX))?;
        if self.levels.len() == level {
            self.levels.push(OpenNode::default());
        }
        if self.levels.get(level).is_some_and(|node| !node.has_room_for(item)) {
            self.close(level, emit)?;
        }
        let Some(node) = self.levels.get_mut(level) else { return Ok(()) };
        node.append(name, item);
        if node.closes_after(name, level) {
            self.close(level, emit)?;
        }
        Ok(())
    }

    /// Closes the open node of a level and lists it in the level above.
    fn close<E: From<FormatError>>(
        &mut self,
        level: usize,
        emit: &mut impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        let Some(node) = self.levels.get_mut(level) else { return Ok(()) };
        let part = node.close(level, emit)?;
        let mut item = Vec::new();
        part.encode(Writer::new(&mut item));
        self.append(level + 1, &part.first_name, &item, emit)?;
        if let Some(parent) = self.levels.get_mut(level + 1) {
            parent.last_part = Some(part.id);
        }
        Ok(())
    }

    /// Gives out what is still open and returns the folder's topmost node.
    pub fn finish<E: From<FormatError>>(
        mut self,
        mut emit: impl FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<BlobId, E> {
        let mut level = 0;
        // Closing may open levels above, so the top is looked for anew each time.
        while level + 1 < self.levels.len() {
            if self.levels.get(level).is_some_and(|node| node.count > 0) {
                self.close(level, &mut emit)?;
            }
            level += 1;
        }
        match self.levels.last_mut() {
            Some(OpenNode { count: 1, last_part: Some(id), .. }) => Ok(*id),
            Some(root) => Ok(root.close(level, &mut emit)?.id),
            None => Err(FormatError::Truncated.into()),
        }
    }
}
