//! Names in snapshots.
//!
//! A folder in which nothing matched is remembered by the id of its content, so that the next
//! snapshots, which mostly hold the same folders, are searched quickly.

use super::error::OpsError;
use crate::base::{BlobId, SnapshotId};
use crate::format::tree::TreeEntry;
use crate::repo::{RepoError, Repository};
use crate::view::{TreeWalk, WalkEvent};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Folders without a match that are remembered at most (some MiB).
const REMEMBERED_MAX: usize = 1 << 17;

/// What to look for.
#[derive(Debug, Clone)]
pub struct Pattern {
    matcher: GlobMatcher,
    /// The pattern has a slash: it is about whole paths.
    of_paths: bool,
}

impl Pattern {
    /// Reads a pattern: without a slash it is about names, with one about whole paths (`**` spans
    /// folders, a slash in front is passed over).
    ///
    /// # Errors
    ///
    /// [`OpsError::Usage`] for what is no pattern.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self, OpsError> {
        let of_paths = pattern.contains('/');
        let matcher = GlobBuilder::new(pattern.trim_start_matches('/'))
            .literal_separator(true)
            .case_insensitive(ignore_case)
            .build()
            .map_err(|why| OpsError::Usage(format!("{pattern:?} is no pattern: {why}")))?
            .compile_matcher();
        Ok(Self { matcher, of_paths })
    }

    fn matches(&self, path: &[u8], entry: &TreeEntry) -> bool {
        let subject = if self.of_paths { path } else { &entry.name };
        self.matcher.is_match(OsStr::from_bytes(subject))
    }
}

/// A folder of a snapshot that could not be searched.
#[derive(Debug)]
pub struct Unsearched {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The folder.
    pub path: Vec<u8>,
    /// Why.
    pub error: RepoError,
}

/// Calls `visit` with every entry of the snapshots that matches; it ends the search by breaking.
///
/// # Errors
///
/// When memory is short, or the user stopped it.
pub fn find(
    repository: &Arc<Repository>,
    snapshots: impl IntoIterator<Item = (SnapshotId, BlobId)>,
    pattern: &Pattern,
    mut visit: impl FnMut(&SnapshotId, &[u8], &TreeEntry) -> ControlFlow<()>,
) -> Result<Vec<Unsearched>, OpsError> {
    repository.load_index()?;
    let mut unsearched = Vec::new();
    let mut barren: HashSet<BlobId> = HashSet::new();
    for (snapshot, root) in snapshots {
        if !pattern.of_paths && barren.contains(&root) {
            continue;
        }
        let mut walk = TreeWalk::new(repository, root)?;
        // Whether anything matched so far in each folder on the way down.
        let mut fruitful = vec![false];
        let mut whole = true;
        while let Some(event) = walk.next() {
            if repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            let entry: &TreeEntry = match &event {
                WalkEvent::Enter(entry) => entry,
                WalkEvent::Leaf(entry) => entry,
                WalkEvent::Leave(entry) => {
                    let found = fruitful.pop().unwrap_or(true);
                    remember(&mut barren, entry.subtree, !found && !pattern.of_paths && whole);
                    mark(&mut fruitful, found);
                    continue;
                }
                WalkEvent::Problem(_) => {
                    whole = false;
                    if let WalkEvent::Problem(error) = event {
                        unsearched.push(Unsearched { snapshot, path: walk.path().to_vec(), error });
                    }
                    continue;
                }
            };
            let found = pattern.matches(walk.path(), entry);
            mark(&mut fruitful, found);
            if found && visit(&snapshot, walk.path(), entry).is_break() {
                return Ok(unsearched);
            }
            if let WalkEvent::Enter(entry) = &event {
                fruitful.push(false);
                if entry.subtree.is_some_and(|content| barren.contains(&content)) {
                    walk.skip();
                }
            }
        }
        let found = fruitful.pop().unwrap_or(true);
        remember(&mut barren, Some(root), !found && !pattern.of_paths && whole);
    }
    Ok(unsearched)
}

fn mark(fruitful: &mut [bool], found: bool) {
    if let Some(folder) = fruitful.last_mut() {
        *folder |= found;
    }
}

fn remember(barren: &mut HashSet<BlobId>, content: Option<BlobId>, nothing: bool) {
    if nothing && barren.len() < REMEMBERED_MAX {
        barren.extend(content);
    }
}
