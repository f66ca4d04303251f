//! How much snapshots hold: as they would be restored, without repetition, and as stored.
//!
//! Blobs are counted by marking their records in the index, a bit each, so that memory does not
//! grow with what the repository holds. A blob that is kept because others are differences
//! against it belongs to whoever needs those.

use super::bits::Bits;
use super::error::OpsError;
use crate::base::{BlobId, SnapshotId, explain};
use crate::format::index::IndexRecord;
use crate::format::pack::BlobClass;
use crate::format::recipe::{RecipeEntry, RecipeNode, RecipeRoot};
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeNode;
use crate::repo::{BlobReader, NumberedIndex, RepoError, Repository};
use std::collections::BTreeMap;
use std::sync::Arc;

/// By what snapshots are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Each by itself.
    Snapshot,
    /// Those of one label.
    Label,
    /// Those of one host.
    Host,
}

/// Figures of some snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many snapshots.
    pub snapshots: u64,
    /// Bytes of all their files and streams, as they would be restored.
    pub raw_bytes: u64,
    /// Plain bytes of their distinct chunks.
    pub unique_bytes: u64,
    /// Plain bytes of their distinct trees and recipes.
    pub metadata_bytes: u64,
    /// What chunks, trees and recipes take in packs.
    pub stored_bytes: u64,
    /// Plain bytes of chunks that they need only as bases of differences.
    pub base_bytes: u64,
    /// What those take in packs; part of the stored bytes.
    pub base_stored_bytes: u64,
    /// Plain bytes that no snapshot but these needs.
    pub alone_bytes: u64,
    /// What those take in packs: about what forgetting these snapshots would free.
    pub alone_stored_bytes: u64,
}

/// Figures of a repository.
#[derive(Debug, Clone, Default)]
pub struct StatsReport {
    /// All snapshots together.
    pub total: Figures,
    /// As they were asked for, by name.
    pub groups: Vec<(String, Figures)>,
    /// Packs in the store.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Bytes of index runs.
    pub index_bytes: u64,
    /// Log packs and records of logs.
    pub logs: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Bytes of everything else.
    pub other_bytes: u64,
    /// Trees and recipes that could not be read: the figures lack what they hold.
    pub unreadable: Vec<String>,
}

/// Unreadable nodes that are told one by one.
const UNREADABLE_MAX: usize = 100;

#[derive(Clone, Copy)]
enum Node {
    Tree(BlobId),
    Recipe(BlobId),
}

struct Walk<'a> {
    index: &'a NumberedIndex,
    reader: BlobReader,
    repository: &'a Arc<Repository>,
    /// What the snapshots at hand need.
    current: Bits,
    /// What they need for itself, not only as a base.
    direct: Bits,
    /// What any snapshots so far need.
    seen: Bits,
    /// What more than one group of them needs.
    shared: Arc<Bits>,
    /// What any snapshots need for itself.
    ever_direct: Bits,
    unreadable: Vec<String>,
}

/// What a blob takes in its pack: its share of the frame.
fn stored(record: &IndexRecord) -> u64 {
    u64::from(record.sealed_length) * u64::from(record.length) / u64::from(record.plain_length.max(1))
}

impl Figures {
    fn count(&mut self, record: &IndexRecord) {
        self.stored_bytes += stored(record);
        match record.class {
            BlobClass::Content => self.unique_bytes += u64::from(record.length),
            BlobClass::Metadata => self.metadata_bytes += u64::from(record.length),
        }
    }
}

impl Walk<'_> {
    /// Marks a blob that is needed for itself, and its bases. Says whether that is new, and hands every
    /// record that is needed for the first time to `count`.
    fn mark(
        &self,
        class: BlobClass,
        id: &BlobId,
        figures: &mut Figures,
        count: &mut impl FnMut(&mut Figures, u64, &IndexRecord),
    ) -> bool {
        let Some((number, copy)) = self.index.first(class, id) else { return true };
        let new = self.direct.set(number);
        if self.current.set(number) {
            count(figures, number, &copy.record);
        } else if new {
            // So far it was needed as a base only.
            figures.base_bytes = figures.base_bytes.saturating_sub(u64::from(copy.record.length));
            figures.base_stored_bytes = figures.base_stored_bytes.saturating_sub(stored(&copy.record));
        }
        let mut base = copy.record.base;
        while let Some((number, copy)) = base.and_then(|base| self.index.first(class, &base)) {
            if !self.current.set(number) {
                break;
            }
            count(figures, number, &copy.record);
            figures.base_bytes += u64::from(copy.record.length);
            figures.base_stored_bytes += stored(&copy.record);
            base = copy.record.base;
        }
        new
    }

    /// Marks everything under a root; below nodes that `skip` names nothing is looked at.
    fn walk(
        &mut self,
        root: &BlobId,
        figures: &mut Figures,
        skip: impl Fn(&Self, u64) -> bool,
        mut count: impl FnMut(&mut Figures, u64, &IndexRecord),
    ) -> Result<(), OpsError> {
        let mut nodes = vec![Node::Tree(*root)];
        while let Some(node) = nodes.pop() {
            if self.repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            let (Node::Tree(id) | Node::Recipe(id)) = node;
            if self.index.first(BlobClass::Metadata, &id).is_some_and(|(number, _)| skip(self, number))
                || !self.mark(BlobClass::Metadata, &id, figures, &mut count)
            {
                continue;
            }
            let what = match node {
                Node::Tree(_) => "tree",
                Node::Recipe(_) => "recipe",
            };
            let read = self.reader.read(BlobClass::Metadata, what, &id).and_then(|bytes| {
                let damaged = RepoError::damaged(format!("{what} {id}"));
                match node {
                    Node::Tree(_) => TreeNode::decode(bytes.bytes()).map(Read::Tree).map_err(damaged),
                    Node::Recipe(_) => RecipeNode::decode(bytes.bytes()).map(Read::Recipe).map_err(damaged),
                }
            });
            match read {
                Ok(Read::Tree(TreeNode::Leaf { entries })) => {
                    for entry in entries {
                        nodes.extend(entry.subtree.map(Node::Tree));
                        match entry.content.map(|content| content.recipe) {
                            Some(RecipeRoot::Node(id)) => nodes.push(Node::Recipe(id)),
                            Some(RecipeRoot::Inline(node)) => {
                                self.pieces(&node, &mut nodes, figures, &mut count);
                            }
                            None => {}
                        }
                    }
                }
                Ok(Read::Tree(TreeNode::Branch { parts, .. })) => {
                    nodes.extend(parts.iter().map(|part| Node::Tree(part.id)));
                }
                Ok(Read::Recipe(node)) => self.pieces(&node, &mut nodes, figures, &mut count),
                Err(error @ RepoError::Interrupted) => return Err(error.into()),
                Err(error) if self.unreadable.len() < UNREADABLE_MAX => {
                    let what = explain(&error);
                    if !self.unreadable.contains(&what) {
                        self.unreadable.push(what);
                    }
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn pieces(
        &self,
        node: &RecipeNode,
        nodes: &mut Vec<Node>,
        figures: &mut Figures,
        count: &mut impl FnMut(&mut Figures, u64, &IndexRecord),
    ) {
        match node {
            RecipeNode::Leaf { entries, .. } => {
                for entry in entries {
                    if let RecipeEntry::Chunk { id, .. } = entry {
                        self.mark(BlobClass::Content, id, figures, count);
                    }
                }
            }
            RecipeNode::Branch { children, .. } => {
                nodes.extend(children.iter().map(|child| Node::Recipe(child.id)));
            }
        }
    }
}

enum Read {
    Tree(TreeNode),
    Recipe(RecipeNode),
}

/// Counts what snapshots hold, all together and, if asked, put together by something.
///
/// # Errors
///
/// When the store cannot be listed or read, or the user stopped it.
pub fn stats<'a>(
    repository: &Arc<Repository>,
    snapshots: impl IntoIterator<Item = (SnapshotId, &'a Snapshot)>,
    by: Option<By>,
) -> Result<StatsReport, OpsError> {
    repository.load_index()?;
    let mut report = StatsReport::default();
    let mut groups: BTreeMap<String, (Figures, Vec<BlobId>)> = BTreeMap::new();
    for (id, snapshot) in snapshots {
        let name = match by {
            None => String::new(),
            Some(By::Snapshot) => id.to_string(),
            Some(By::Label) => snapshot.label.clone(),
            Some(By::Host) => snapshot.host.clone(),
        };
        let (figures, roots) = groups.entry(name).or_default();
        for figures in [figures, &mut report.total] {
            figures.snapshots += 1;
            figures.raw_bytes += snapshot.summary.bytes;
        }
        roots.push(snapshot.root);
    }
    let index = repository.index().numbered();
    let bits = || Bits::new(index.len());
    let shared = Arc::new(bits());
    let mut walk = Walk {
        index: &index,
        reader: BlobReader::new(repository)?,
        repository,
        current: bits(),
        direct: bits(),
        seen: bits(),
        shared: shared.clone(),
        ever_direct: bits(),
        unreadable: Vec::new(),
    };
    let unused = bits();
    for (figures, roots) in groups.values_mut() {
        for root in roots.iter() {
            walk.walk(root, figures, |_, _| false, |figures, _, record| figures.count(record))?;
        }
        walk.seen.unite(&walk.current, &walk.shared);
        walk.ever_direct.unite(&walk.direct, &unused);
        walk.current.clear();
        walk.direct.clear();
    }
    for (figures, roots) in groups.values_mut() {
        // Figures of this walk alone: what it marks was counted before.
        let mut alone = Figures::default();
        for root in roots.iter() {
            let skip = |walk: &Walk<'_>, number| walk.shared.get(number);
            walk.walk(root, &mut alone, skip, |alone, number, record| {
                if !shared.get(number) {
                    alone.alone_bytes += u64::from(record.length);
                    alone.alone_stored_bytes += stored(record);
                }
            })?;
        }
        (figures.alone_bytes, figures.alone_stored_bytes) = (alone.alone_bytes, alone.alone_stored_bytes);
        walk.current.clear();
        walk.direct.clear();
    }
    let total = &mut report.total;
    index.for_each(|number, copy| {
        if walk.seen.get(number) {
            total.count(&copy.record);
            if !walk.ever_direct.get(number) {
                total.base_bytes += u64::from(copy.record.length);
                total.base_stored_bytes += stored(&copy.record);
            }
        }
    });
    total.alone_bytes = total.unique_bytes + total.metadata_bytes;
    total.alone_stored_bytes = total.stored_bytes;
    for object in repository.environment().store.list("")? {
        match object.name.split('/').next() {
            Some("packs") => {
                report.packs += 1;
                report.pack_bytes += object.length;
            }
            Some("index") => report.index_bytes += object.length,
            Some("logs") => {
                report.logs += 1;
                report.log_bytes += object.length;
            }
            _ => report.other_bytes += object.length,
        }
    }
    if by.is_some() {
        report.groups = groups.into_iter().map(|(name, (figures, _))| (name, figures)).collect();
    }
    report.unreadable = walk.unreadable;
    Ok(report)
}
