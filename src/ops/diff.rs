//! What differs between two trees.
//!
//! Both are walked side by side in order of names; folders with the same content id are equal and
//! not entered.

use super::error::OpsError;
use super::listing::Unreadable;
use crate::base::BlobId;
use crate::base::limits::TREE_DEPTH_MAX;
use crate::format::tree::{Content, ContentDigest, TreeEntry};
use crate::repo::{BlobReader, FolderEntries, RepoError, Repository};
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

/// One difference; paths are below what was compared.
#[derive(Debug)]
pub enum Change<'a> {
    /// Only the second tree has it.
    Added(&'a TreeEntry),
    /// Only the first tree has it.
    Removed(&'a TreeEntry),
    /// Both have it, and it differs.
    Changed {
        /// As the first tree has it.
        before: &'a TreeEntry,
        /// As the second tree has it.
        after: &'a TreeEntry,
        /// In what.
        how: Changed,
    },
}

/// In what an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// It is another kind of thing.
    pub kind: bool,
    /// Its bytes, or where a link points, or which device it is.
    pub content: bool,
    /// Mode, owner, modification time or attributes.
    pub metadata: bool,
}

impl Changed {
    fn between(before: &TreeEntry, after: &TreeEntry) -> Self {
        let what = |entry: &TreeEntry| (entry.target.clone(), entry.device_numbers);
        let content = match (&before.content, &after.content) {
            (Some(before), Some(after)) => !same_content(before, after),
            (None, None) => what(before) != what(after),
            _ => true,
        };
        let facts = |entry: &TreeEntry| {
            (entry.mode, entry.user_id, entry.group_id, entry.user_name.clone(), entry.group_name.clone())
        };
        // Times at which the entry was read or renamed, and where it lies, say nothing about it.
        let metadata = facts(before) != facts(after)
            || before.attributes != after.attributes
            || before.modified != after.modified;
        Self { kind: before.kind != after.kind, content, metadata }
    }

    /// Says whether there is no difference.
    pub fn nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The same bytes, as far as that shows without reading them.
fn same_content(before: &Content, after: &Content) -> bool {
    let digest = |content: &Content| match &content.digest {
        Some(ContentDigest::Blake3(digest)) => Some(*digest),
        _ => None,
    };
    before.length == after.length
        && match (digest(before), digest(after)) {
            (Some(before), Some(after)) => before == after,
            _ => before.recipe == after.recipe,
        }
}

/// Figures of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffCounts {
    /// Entries that only the second tree has.
    pub added: u64,
    /// Their bytes.
    pub added_bytes: u64,
    /// Entries that only the first tree has.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Entries whose content differs.
    pub changed_content: u64,
    /// Entries of which only the metadata differs.
    pub changed_metadata: u64,
}

/// What a comparison found besides the changes that were visited.
#[derive(Debug, Default)]
pub struct DiffReport {
    /// Figures.
    pub counts: DiffCounts,
    /// Folders that could not be compared.
    pub unreadable: Vec<Unreadable>,
}

/// One folder of one of the trees, with the entry that comes next.
#[derive(Default)]
struct Side {
    entries: Option<FolderEntries>,
    next: Option<TreeEntry>,
    /// It cannot be read: what the other side has may well be here too.
    broken: bool,
}

/// What the walk does with a folder once its entry has been told.
struct Level {
    before: Side,
    after: Side,
    path_length: usize,
}

struct Walk<'a, V> {
    reader: BlobReader,
    path: Vec<u8>,
    report: DiffReport,
    visit: V,
    repository: &'a Arc<Repository>,
}

/// Compares two folders and calls `visit` with every difference in order of paths; it ends the
/// comparison by breaking.
///
/// # Errors
///
/// When memory is short, or the user stopped it.
pub fn diff(
    repository: &Arc<Repository>,
    before: &BlobId,
    after: &BlobId,
    visit: impl FnMut(&[u8], &Change<'_>) -> ControlFlow<()>,
) -> Result<DiffReport, OpsError> {
    repository.load_index()?;
    let mut walk = Walk {
        reader: BlobReader::new(repository)?,
        path: Vec::new(),
        report: DiffReport::default(),
        visit,
        repository,
    };
    if before != after {
        let first = walk.level(Some(*before), Some(*after));
        walk.run(first)?;
    }
    Ok(walk.report)
}

impl<V: FnMut(&[u8], &Change<'_>) -> ControlFlow<()>> Walk<'_, V> {
    fn run(&mut self, first: Level) -> Result<(), OpsError> {
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            if self.repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            self.path.truncate(level.path_length);
            if level.before.broken || level.after.broken {
                levels.pop();
                continue;
            }
            let order = match (&level.before.next, &level.after.next) {
                (None, None) => {
                    levels.pop();
                    continue;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(before), Some(after)) => before.name.cmp(&after.name),
            };
            let before = if order.is_le() { self.take(&mut level.before) } else { None };
            let after = if order.is_ge() { self.take(&mut level.after) } else { None };
            if let Some(entry) = before.as_ref().or(after.as_ref()) {
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&entry.name);
            }
            if self.tell(before.as_ref(), after.as_ref()).is_break() {
                return Ok(());
            }
            let content = |entry: &Option<TreeEntry>| entry.as_ref().and_then(|entry| entry.subtree);
            let (before, after) = (content(&before), content(&after));
            if before != after {
                if levels.len() >= TREE_DEPTH_MAX {
                    return Err(OpsError::Differs {
                        what: "a tree".to_owned(),
                        why: "it is deeper than any file system".to_owned(),
                    });
                }
                levels.push(self.level(before, after));
            }
        }
        Ok(())
    }

    fn tell(&mut self, before: Option<&TreeEntry>, after: Option<&TreeEntry>) -> ControlFlow<()> {
        let length = |entry: &TreeEntry| entry.content.as_ref().map_or(0, |content| content.length);
        let counts = &mut self.report.counts;
        let change = match (before, after) {
            (Some(before), Some(after)) => {
                let how = Changed::between(before, after);
                if how.nothing() {
                    return ControlFlow::Continue(());
                }
                if how.kind || how.content {
                    counts.changed_content += 1;
                } else {
                    counts.changed_metadata += 1;
                }
                Change::Changed { before, after, how }
            }
            (Some(entry), None) => {
                counts.removed += 1;
                counts.removed_bytes += length(entry);
                Change::Removed(entry)
            }
            (None, Some(entry)) => {
                counts.added += 1;
                counts.added_bytes += length(entry);
                Change::Added(entry)
            }
            (None, None) => return ControlFlow::Continue(()),
        };
        (self.visit)(&self.path, &change)
    }

    fn level(&mut self, before: Option<BlobId>, after: Option<BlobId>) -> Level {
        Level { before: self.open(before), after: self.open(after), path_length: self.path.len() }
    }

    fn open(&mut self, content: Option<BlobId>) -> Side {
        let mut side = Side::default();
        let Some(content) = content else { return side };
        match FolderEntries::open(&mut self.reader, &content) {
            Ok(entries) => side.entries = Some(entries),
            Err(error) => self.broken(&mut side, error),
        }
        self.take(&mut side);
        side
    }

    /// Returns the entry at hand and fetches the one after it.
    fn take(&mut self, side: &mut Side) -> Option<TreeEntry> {
        let next = match side.entries.as_mut().map(|entries| entries.next(&mut self.reader)) {
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                self.broken(side, error);
                None
            }
            None => None,
        };
        std::mem::replace(&mut side.next, next)
    }

    fn broken(&mut self, side: &mut Side, error: RepoError) {
        side.broken = true;
        self.report.unreadable.push(Unreadable { path: self.path.clone(), error });
    }
}
