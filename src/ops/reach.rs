//! What roots reach: a walk over trees and recipes names every blob that a root needs.

use super::error::OpsError;
use super::keeper::Keeper;
use crate::base::BlobId;
use crate::format::pack::BlobClass;
use crate::format::recipe::{RecipeEntry, RecipeNode, RecipeRoot};
use crate::format::tree::TreeNode;
use crate::repo::{BlobReader, RepoError, Repository};
use crate::storage::StorageError;
use std::sync::Arc;

#[derive(Clone, Copy)]
enum Node {
    Tree(BlobId),
    Recipe(BlobId),
}

/// Walks over everything below roots and tells the keeper what they need.
///
/// # Errors
///
/// When a tree or recipe cannot be read: what lies below it is not known then.
pub(super) fn reach(
    repository: &Arc<Repository>,
    roots: impl IntoIterator<Item = BlobId>,
    keeper: &mut Keeper<'_>,
) -> Result<(), OpsError> {
    walk(repository, roots, keeper, Err)
}

/// Does the same below a root that nobody vouches for, as far as it can be read.
///
/// # Errors
///
/// When the store does not answer.
pub(super) fn reach_readable(
    repository: &Arc<Repository>,
    root: BlobId,
    keeper: &mut Keeper<'_>,
) -> Result<(), OpsError> {
    walk(repository, [root], keeper, |error| match error {
        error @ (RepoError::Storage(StorageError::Transient { .. }) | RepoError::Interrupted) => Err(error),
        _ => Ok(()),
    })
}

fn walk(
    repository: &Arc<Repository>,
    roots: impl IntoIterator<Item = BlobId>,
    keeper: &mut Keeper<'_>,
    failed: impl Fn(RepoError) -> Result<(), RepoError>,
) -> Result<(), OpsError> {
    let mut reader = BlobReader::new(repository)?;
    let mut nodes: Vec<Node> = roots.into_iter().map(Node::Tree).collect();
    while let Some(node) = nodes.pop() {
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        let (Node::Tree(id) | Node::Recipe(id)) = node;
        if keeper.need(BlobClass::Metadata, &id)
            && let Err(error) = below(&mut reader, node, &mut nodes, keeper)
        {
            failed(error)?;
        }
    }
    Ok(())
}

/// Reads a node and tells what lies right below it.
fn below(
    reader: &mut BlobReader,
    node: Node,
    nodes: &mut Vec<Node>,
    keeper: &mut Keeper<'_>,
) -> Result<(), RepoError> {
    match node {
        Node::Tree(id) => {
            let bytes = reader.read(BlobClass::Metadata, "tree", &id)?;
            match TreeNode::decode(bytes.bytes()).map_err(RepoError::damaged(format!("tree {id}")))? {
                TreeNode::Leaf { entries } => {
                    for entry in entries {
                        nodes.extend(entry.subtree.map(Node::Tree));
                        match entry.content.map(|content| content.recipe) {
                            Some(RecipeRoot::Node(id)) => nodes.push(Node::Recipe(id)),
                            Some(RecipeRoot::Inline(node)) => pieces(&node, nodes, keeper),
                            None => {}
                        }
                    }
                }
                TreeNode::Branch { parts, .. } => {
                    nodes.extend(parts.iter().map(|part| Node::Tree(part.id)));
                }
            }
        }
        Node::Recipe(id) => {
            let bytes = reader.read(BlobClass::Metadata, "recipe", &id)?;
            let node =
                RecipeNode::decode(bytes.bytes()).map_err(RepoError::damaged(format!("recipe {id}")))?;
            pieces(&node, nodes, keeper);
        }
    }
    Ok(())
}

fn pieces(node: &RecipeNode, nodes: &mut Vec<Node>, keeper: &mut Keeper<'_>) {
    match node {
        RecipeNode::Leaf { entries, .. } => {
            for entry in entries {
                if let RecipeEntry::Chunk { id, .. } = entry {
                    keeper.need(BlobClass::Content, id);
                }
            }
        }
        RecipeNode::Branch { children, .. } => {
            nodes.extend(children.iter().map(|child| Node::Recipe(child.id)));
        }
    }
}
