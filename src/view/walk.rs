//! The walk over a stored tree: folders before their content, entries in order of their names,
//! whatever cannot be read named and passed over.
//!
//! The walk holds one node of each folder on the way down to where it is, and nothing else.

use crate::base::BlobId;
use crate::base::limits::TREE_DEPTH_MAX;
use crate::format::FormatError;
use crate::format::tree::{EntryKind, TreeEntry};
use crate::repo::{BlobReader, FolderEntries, RepoError, Repository};
use std::sync::Arc;

/// One step of the walk; [`TreeWalk::path`] says where.
#[derive(Debug)]
pub enum WalkEvent {
    /// A folder; all that follows until its `Leave` lies in it.
    Enter(Arc<TreeEntry>),
    /// Anything but a folder.
    Leaf(Box<TreeEntry>),
    /// The end of the folder that was entered last and not left.
    Leave(Arc<TreeEntry>),
    /// The content of the innermost folder cannot be read, or not from here on.
    Problem(RepoError),
}

struct Level {
    /// `None` for a folder that is not walked: skipped, or unreadable.
    entries: Option<FolderEntries>,
    /// `None` for the root, which has no entry of its own.
    folder: Option<Arc<TreeEntry>>,
    path_length: usize,
}

/// Walks one tree, from any folder down.
pub struct TreeWalk {
    reader: BlobReader,
    start: Option<BlobId>,
    entering: Option<Arc<TreeEntry>>,
    skipping: bool,
    levels: Vec<Level>,
    path: Vec<u8>,
}

impl TreeWalk {
    /// Begins at the topmost node of a folder.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new(repository: &Arc<Repository>, root: BlobId) -> Result<Self, RepoError> {
        Ok(Self {
            reader: BlobReader::new(repository)?,
            start: Some(root),
            entering: None,
            skipping: false,
            levels: Vec::new(),
            path: Vec::new(),
        })
    }

    /// Returns the path, below the start and without a slash in front, of what the last event was about.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns a reader, for the recipes of what is found.
    pub fn reader(&mut self) -> &mut BlobReader {
        &mut self.reader
    }

    /// Passes over the content of the folder that was just entered; its `Leave` comes next.
    pub fn skip(&mut self) {
        self.skipping = true;
    }

    /// Returns the next step; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "`path` and `reader` are used between the steps")]
    pub fn next(&mut self) -> Option<WalkEvent> {
        if let Some(root) = self.start.take() {
            match FolderEntries::open(&mut self.reader, &root) {
                Ok(entries) => {
                    self.levels.push(Level { entries: Some(entries), folder: None, path_length: 0 });
                }
                Err(error) => return Some(WalkEvent::Problem(error)),
            }
        }
        if let Some(folder) = self.entering.take()
            && let Err(error) = self.descend(folder)
        {
            return Some(WalkEvent::Problem(error));
        }
        let level = self.levels.last_mut()?;
        self.path.truncate(level.path_length);
        let next = match &mut level.entries {
            Some(entries) => entries.next(&mut self.reader),
            None => Ok(None),
        };
        match next {
            Ok(Some(entry)) => {
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&entry.name);
                if entry.kind != EntryKind::Directory {
                    return Some(WalkEvent::Leaf(Box::new(entry)));
                }
                let folder = Arc::new(entry);
                self.entering = Some(folder.clone());
                Some(WalkEvent::Enter(folder))
            }
            Ok(None) => self.levels.pop()?.folder.map(WalkEvent::Leave),
            Err(error) => Some(WalkEvent::Problem(error)),
        }
    }

    fn descend(&mut self, folder: Arc<TreeEntry>) -> Result<(), RepoError> {
        let opened = match folder.subtree {
            _ if std::mem::take(&mut self.skipping) => Ok(None),
            Some(_) if self.levels.len() >= TREE_DEPTH_MAX => {
                let why = FormatError::Invalid { what: "tree", why: "is deeper than any file system" };
                Err(RepoError::damaged("a tree")(why))
            }
            Some(subtree) => FolderEntries::open(&mut self.reader, &subtree).map(Some),
            None => Ok(None),
        };
        let (entries, problem) = match opened {
            Ok(entries) => (entries, Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.levels.push(Level { entries, folder: Some(folder), path_length: self.path.len() });
        problem
    }
}
