//! Walking what snapshots refer to: the entries of a folder, the pieces of a file.
//!
//! Nodes are read one at a time, however big the folder or long the file.

use super::blobs::BlobReader;
use super::error::RepoError;
use crate::base::{BlobId, limits};
use crate::chunker::{SKETCH_ALGORITHM, Sketch};
use crate::format::FormatError;
use crate::format::pack::BlobClass;
use crate::format::recipe::{RecipeChild, RecipeEntry, RecipeNode, RecipeRoot};
use crate::format::tree::{Content, TreeEntry, TreeNode, TreePart};

fn node_damaged(what: &'static str, id: &BlobId) -> impl FnOnce(FormatError) -> RepoError + use<> {
    RepoError::damaged(format!("{what} {}", id.short()))
}

enum Step<T> {
    Item(T),
    Failed(RepoError),
}

/// The entries of one folder in order of name.
pub struct FolderEntries {
    levels: Vec<(u8, Vec<TreePart>, usize)>,
    entries: std::vec::IntoIter<TreeEntry>,
    failed: bool,
}

impl FolderEntries {
    /// Begins with the folder's topmost node.
    ///
    /// # Errors
    ///
    /// When the node cannot be read or is damaged.
    pub fn open(reader: &mut BlobReader, root: &BlobId) -> Result<Self, RepoError> {
        let bytes = reader.read(BlobClass::Metadata, "tree", root)?;
        let node = TreeNode::decode(bytes.bytes()).map_err(node_damaged("tree", root))?;
        let mut folder = Self { levels: Vec::new(), entries: Vec::new().into_iter(), failed: false };
        folder.enter(node);
        Ok(folder)
    }

    fn enter(&mut self, node: TreeNode) {
        match node {
            TreeNode::Leaf { entries } => self.entries = entries.into_iter(),
            TreeNode::Branch { level, parts } => self.levels.push((level, parts, 0)),
        }
    }

    fn next_part(&mut self) -> Option<(u8, TreePart, Option<TreePart>)> {
        loop {
            let (level, parts, at) = self.levels.last_mut()?;
            if let Some(part) = parts.get(*at) {
                *at += 1;
                return Some((*level, part.clone(), parts.get(*at).cloned()));
            }
            self.levels.pop();
        }
    }

    /// Returns the next entry; after an error there is none.
    ///
    /// # Errors
    ///
    /// When a node cannot be read or is damaged.
    pub fn next(&mut self, reader: &mut BlobReader) -> Result<Option<TreeEntry>, RepoError> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            if self.failed {
                return Ok(None);
            }
            let Some((level, part, next)) = self.next_part() else { return Ok(None) };
            let node = reader.read(BlobClass::Metadata, "tree", &part.id).and_then(|bytes| {
                TreeNode::decode_part(bytes.bytes(), level, &part, next.as_ref())
                    .map_err(node_damaged("tree", &part.id))
            });
            match node {
                Ok(node) => self.enter(node),
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }
}

/// Finds one name in a folder, reading only the nodes on the way to it.
///
/// # Errors
///
/// When a node cannot be read or is damaged.
pub fn find_entry(
    reader: &mut BlobReader,
    root: &BlobId,
    name: &[u8],
) -> Result<Option<TreeEntry>, RepoError> {
    let mut id = *root;
    let mut expected: Option<(u8, TreePart, Option<TreePart>)> = None;
    for _ in 0..=limits::LIST_LEVELS_MAX {
        let bytes = reader.read(BlobClass::Metadata, "tree", &id)?;
        let node = match &expected {
            None => TreeNode::decode(bytes.bytes()),
            Some((level, part, next)) => TreeNode::decode_part(bytes.bytes(), *level, part, next.as_ref()),
        }
        .map_err(node_damaged("tree", &id))?;
        match node {
            TreeNode::Leaf { mut entries } => {
                return Ok(entries
                    .binary_search_by(|entry| entry.name.as_slice().cmp(name))
                    .ok()
                    .map(|at| entries.swap_remove(at)));
            }
            TreeNode::Branch { level, parts } => {
                let after = parts.partition_point(|part| part.first_name.as_slice() <= name);
                let Some(part) = after.checked_sub(1).and_then(|at| parts.get(at)) else { return Ok(None) };
                id = part.id;
                expected = Some((level, part.clone(), parts.get(after).cloned()));
            }
        }
    }
    Err(node_damaged("tree", root)(FormatError::Invalid { what: "tree level", why: "does not fall" }))
}

/// Finds what a path names under a root; the empty path names the root itself and gives `None`.
///
/// # Errors
///
/// When a node cannot be read or is damaged.
pub fn find_path(
    reader: &mut BlobReader,
    root: &BlobId,
    path: &[&[u8]],
) -> Result<Option<TreeEntry>, RepoError> {
    let mut folder = *root;
    let mut rest = path.iter();
    let Some(mut name) = rest.next() else { return Ok(None) };
    loop {
        let Some(entry) = find_entry(reader, &folder, name)? else { return Ok(None) };
        let Some(next) = rest.next() else { return Ok(Some(entry)) };
        let Some(subtree) = entry.subtree else { return Ok(None) };
        (folder, name) = (subtree, next);
    }
}

/// The pieces of one file or stream in order.
pub struct Pieces {
    levels: Vec<(u8, std::vec::IntoIter<RecipeChild>)>,
    entries: std::vec::IntoIter<RecipeEntry>,
    left: u64,
    failed: bool,
}

/// Takes the sketches of another algorithm away: here they say nothing, and must not go into a recipe of this one.
fn understood(sketch_algorithm: u8, mut entries: Vec<RecipeEntry>) -> Vec<RecipeEntry> {
    if sketch_algorithm != SKETCH_ALGORITHM {
        for entry in &mut entries {
            if let RecipeEntry::Chunk { sketch, .. } = entry {
                *sketch = Sketch::NONE;
            }
        }
    }
    entries
}

impl Pieces {
    /// Begins with the recipe of a file.
    ///
    /// # Errors
    ///
    /// When the topmost node cannot be read or is damaged, or covers another length than the content.
    pub fn open(reader: &mut BlobReader, content: &Content) -> Result<Self, RepoError> {
        let (node, what) = match &content.recipe {
            RecipeRoot::Inline(node) => (node.clone(), "the recipe of a short file".to_owned()),
            RecipeRoot::Node(id) => {
                let bytes = reader.read(BlobClass::Metadata, "recipe", id)?;
                let what = format!("recipe {}", id.short());
                (RecipeNode::decode(bytes.bytes()).map_err(RepoError::damaged(what.as_str()))?, what)
            }
        };
        if node.plain_bytes() != content.length {
            return Err(RepoError::damaged(what)(FormatError::Invalid {
                what: "recipe length",
                why: "is not that of the content",
            }));
        }
        let mut pieces =
            Self { levels: Vec::new(), entries: Vec::new().into_iter(), left: content.length, failed: false };
        pieces.enter(node);
        Ok(pieces)
    }

    fn enter(&mut self, node: RecipeNode) {
        match node {
            RecipeNode::Leaf { sketch_algorithm, entries } => {
                self.entries = understood(sketch_algorithm, entries).into_iter();
            }
            RecipeNode::Branch { level, children } => self.levels.push((level, children.into_iter())),
        }
    }

    fn step(&mut self, reader: &mut BlobReader) -> Option<Step<RecipeEntry>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Step::Item(entry));
            }
            if self.failed {
                return None;
            }
            let (level, children) = self.levels.last_mut()?;
            let level = *level;
            let Some(child) = children.next() else {
                self.levels.pop();
                continue;
            };
            let node = reader.read(BlobClass::Metadata, "recipe", &child.id).and_then(|bytes| {
                RecipeNode::decode_child(bytes.bytes(), level, &child)
                    .map_err(node_damaged("recipe", &child.id))
            });
            match node {
                Ok(node) => self.enter(node),
                Err(error) => {
                    self.failed = true;
                    return Some(Step::Failed(error));
                }
            }
        }
    }

    /// Returns the next piece; after an error there is none.
    ///
    /// # Errors
    ///
    /// When a node cannot be read or is damaged.
    pub fn next(&mut self, reader: &mut BlobReader) -> Result<Option<RecipeEntry>, RepoError> {
        match self.step(reader) {
            Some(Step::Item(entry)) => {
                self.left = self.left.saturating_sub(entry.length());
                Ok(Some(entry))
            }
            Some(Step::Failed(error)) => Err(error),
            None => Ok(None),
        }
    }

    /// Returns how many bytes are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketches_of_another_algorithm_say_nothing() {
        let chunk = |sketch| RecipeEntry::Chunk { id: BlobId::new([1; 32]), length: 7, sketch };
        let entries = vec![chunk(Sketch([1, 2, 3])), RecipeEntry::Hole { length: 9 }];
        assert_eq!(understood(SKETCH_ALGORITHM, entries.clone()), entries);
        let without = [chunk(Sketch::NONE), RecipeEntry::Hole { length: 9 }];
        assert_eq!(understood(SKETCH_ALGORITHM + 1, entries), without);
    }
}
