//! What a path in a snapshot names, and what lies below it.

use super::error::OpsError;
use crate::base::BlobId;
use crate::format::tree::TreeEntry;
use crate::localfs::printable;
use crate::repo::{BlobReader, RepoError, Repository, find_path};
use crate::view::{TreeWalk, WalkEvent};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What a path in a snapshot names.
#[derive(Debug, Clone)]
pub enum Found {
    /// A folder, or the snapshot's root.
    Folder {
        /// The folder's entry; the root has none.
        entry: Option<Box<TreeEntry>>,
        /// The topmost node of its content.
        content: BlobId,
    },
    /// Anything else.
    Leaf(Box<TreeEntry>),
}

/// Joins the names of a path for people.
pub fn show_path(path: &[Vec<u8>]) -> String {
    printable(&path.join(&b'/'))
}

/// Finds what a path names in the tree under `root`; the empty path names the root.
///
/// # Errors
///
/// [`OpsError::NotFound`], or when a tree on the way cannot be read.
pub fn locate(repository: &Arc<Repository>, root: &BlobId, path: &[Vec<u8>]) -> Result<Found, OpsError> {
    repository.load_index()?;
    let mut reader = BlobReader::new(repository)?;
    if path.is_empty() {
        return Ok(Found::Folder { entry: None, content: *root });
    }
    let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
    let entry = find_path(&mut reader, root, &names)?;
    let entry = entry
        .ok_or_else(|| OpsError::NotFound(format!("there is no {:?} in this snapshot", show_path(path))))?;
    Ok(match entry.subtree {
        Some(content) => Found::Folder { entry: Some(Box::new(entry)), content },
        None => Found::Leaf(Box::new(entry)),
    })
}

/// Something in a snapshot that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The folder, as a path below what was walked.
    pub path: Vec<u8>,
    /// Why.
    pub error: RepoError,
}

/// Lists what lies in a folder, in order of names; with `recursive`, folders are followed by what
/// lies in them. Anything but a folder is listed alone.
///
/// `visit` gets paths below the folder and ends the listing by breaking. What cannot be read is
/// passed over and returned.
///
/// # Errors
///
/// When memory is short, or the user stopped it.
pub fn list(
    repository: &Arc<Repository>,
    found: &Found,
    recursive: bool,
    mut visit: impl FnMut(&[u8], &TreeEntry) -> ControlFlow<()>,
) -> Result<Vec<Unreadable>, OpsError> {
    let content = match found {
        Found::Folder { content, .. } => *content,
        Found::Leaf(entry) => {
            let _ = visit(&entry.name, entry);
            return Ok(Vec::new());
        }
    };
    let mut walk = TreeWalk::new(repository, content)?;
    let mut unreadable = Vec::new();
    while let Some(event) = walk.next() {
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        let flow = match event {
            WalkEvent::Enter(entry) => {
                let flow = visit(walk.path(), &entry);
                if !recursive {
                    walk.skip();
                }
                flow
            }
            WalkEvent::Leaf(entry) => visit(walk.path(), &entry),
            WalkEvent::Leave(_) => ControlFlow::Continue(()),
            WalkEvent::Problem(error) => {
                unreadable.push(Unreadable { path: walk.path().to_vec(), error });
                ControlFlow::Continue(())
            }
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(unreadable)
}
