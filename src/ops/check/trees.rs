//! Trees: from every snapshot to every node, recipe and chunk, each distinct node read once.
//!
//! Two bits for each record of the index remember which nodes were walked and below which of them
//! something is lost; a second walk then goes only where something is, and names the paths.

use super::packs::{Fate, Packs};
use super::report::{AFFECTED_MAX, Affected, CheckReport, Findings, Gravity};
use crate::base::limits::{LIST_LEVELS_MAX, TREE_DEPTH_MAX};
use crate::base::{BlobId, PackId, SnapshotId, explain};
use crate::format::pack::BlobClass;
use crate::format::recipe::{RecipeChild, RecipeEntry, RecipeNode, RecipeRoot};
use crate::format::tree::{Content, TreeEntry, TreeNode, TreePart};
use crate::ops::bits::Bits;
use crate::ops::{OpsError, Snapshots};
use crate::repo::{BlobReader, FoundSnapshot, NumberedIndex, RepoError, Repository};
use crate::storage::StorageError;
use crate::view::{TreeWalk, WalkEvent};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Ranges of one file that are told one by one.
const RANGES_MAX: usize = 1000;
/// Damaged objects that are named of a forgotten snapshot.
const CULPRITS_MAX: usize = 3;

/// A node that is to be walked: a folder's topmost one, or a part of a big folder.
enum Child {
    Folder(BlobId),
    Part(u8, TreePart, Option<TreePart>),
}

/// A node whose children are being walked.
struct Level {
    number: Option<u64>,
    tainted: bool,
    children: std::vec::IntoIter<Child>,
}

/// Walks trees.
pub(super) struct Trees<'a> {
    repository: &'a Arc<Repository>,
    index: &'a NumberedIndex,
    packs: &'a Packs<'a>,
    findings: &'a Findings,
    reader: BlobReader,
    walked: Bits,
    tainted: Bits,
    nodes: u64,
    /// Nodes that cannot be read, and why, as long as it is open whether anybody misses them.
    unread: Option<Vec<(String, String)>>,
}

impl<'a> Trees<'a> {
    pub fn new(
        repository: &'a Arc<Repository>,
        index: &'a NumberedIndex,
        packs: &'a Packs<'a>,
        findings: &'a Findings,
    ) -> Result<Self, RepoError> {
        Ok(Self {
            repository,
            index,
            packs,
            findings,
            reader: BlobReader::new(repository)?,
            walked: Bits::new(index.len()),
            tainted: Bits::new(index.len()),
            nodes: 0,
            unread: None,
        })
    }

    /// Walks all snapshots, then names what is affected. Those that somebody seems to have forgotten come last: what only they
    /// need is missed by nobody.
    pub fn check(
        &mut self,
        snapshots: &[FoundSnapshot],
        perhaps_forgotten: &HashSet<SnapshotId>,
        report: &mut CheckReport,
    ) -> Result<(), OpsError> {
        let (last, first): (Vec<_>, Vec<_>) =
            snapshots.iter().partition(|found| perhaps_forgotten.contains(&found.id));
        let mut hurt = self.walk_each(&first)?;
        let mut missed = self.packs.take_missed();
        self.unread = Some(Vec::new());
        let mut forgotten = self.walk_each(&last)?;
        let unread = self.unread.take().unwrap_or_default();
        let missed_last = self.packs.take_missed();
        report.counts.snapshots += snapshots.len() as u64;
        report.counts.nodes = self.nodes;
        if !forgotten.is_empty() {
            let all = Snapshots::load_all(self.repository)?;
            let is_forgotten = |id: &SnapshotId| all.get(id).is_some_and(|view| view.forgotten);
            let (over, still): (Vec<_>, Vec<_>) = forgotten.into_iter().partition(|(id, _)| is_forgotten(id));
            let gravity = if still.is_empty() { Gravity::Warning } else { Gravity::Damage };
            unread.into_iter().for_each(|(object, what)| self.findings.add(gravity, object, what));
            if !still.is_empty() {
                missed.extend(&missed_last);
            }
            hurt.extend(still);
            forgotten = over;
        }
        for (id, root) in hurt {
            let mut named = Named::new(id, report.affected.len());
            self.name(root, &mut named)?;
            report.affected_more += named.more;
            report.hurt.push((id, named.paths));
            if !named.is_certain {
                report.hurt_perhaps.insert(id);
            }
            report.affected.append(&mut named.affected);
        }
        for (id, root) in forgotten {
            let mut named = Named::new(id, report.affected_forgotten.len());
            self.name(root, &mut named)?;
            let culprits: BTreeSet<&str> =
                named.affected.iter().flat_map(|affected| &affected.because).map(String::as_str).collect();
            let culprits = culprits.into_iter().take(CULPRITS_MAX).collect::<Vec<_>>().join(", ");
            let what = format!(
                "it is forgotten, and {} of its paths cannot be had whole any more ({culprits}): the next prune deletes it",
                named.paths
            );
            self.findings.add(Gravity::Warning, format!("snapshot {id}"), what);
            report.hurt_forgotten.push((id, named.paths));
            report.affected_forgotten.append(&mut named.affected);
        }
        let is_among = |packs: &HashSet<PackId>, name: &str| {
            name.rsplit('/').next().and_then(|id| id.parse().ok()).is_some_and(|id| packs.contains(&id))
        };
        self.findings.acquit(|name| match (is_among(&missed, name), is_among(&missed_last, name)) {
            (true, _) => (Gravity::Damage, ""),
            (false, true) => (Gravity::Warning, ", and only forgotten snapshots need it"),
            (false, false) => (Gravity::Note, ", and no snapshot needs it"),
        });
        Ok(())
    }

    /// Says whether nothing below the root of a snapshot that is not there is lost. Nothing is told of what is.
    pub fn would_be_whole(&mut self, root: &BlobId) -> Result<bool, OpsError> {
        let before = self.unread.replace(Vec::new());
        let is_hurt = self.walk(root);
        self.unread = before;
        self.packs.take_missed();
        is_hurt.map(|is_hurt| !is_hurt)
    }

    /// Walks snapshots; returns those of which something is lost, or may be.
    fn walk_each(&mut self, snapshots: &[&FoundSnapshot]) -> Result<Vec<(SnapshotId, BlobId)>, OpsError> {
        let mut hurt = Vec::new();
        for found in snapshots {
            if self.walk(&found.snapshot.root)? {
                hurt.push((found.id, found.snapshot.root));
            }
        }
        Ok(hurt)
    }

    /// Says whether a node was walked, and nothing below it is lost.
    pub fn is_whole(&self, id: &BlobId) -> bool {
        self.known(self.number(id)) == Some(false)
    }

    fn number(&self, id: &BlobId) -> Option<u64> {
        self.index.first(BlobClass::Metadata, id).map(|(number, _)| number)
    }

    /// What is known of a node without reading it: whether something below it is lost.
    fn known(&self, number: Option<u64>) -> Option<bool> {
        let number = number.filter(|number| self.walked.get(*number))?;
        Some(self.tainted.get(number))
    }

    /// Walks a tree; says whether something in it is lost.
    fn walk(&mut self, root: &BlobId) -> Result<bool, OpsError> {
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some(Child::Folder(*root));
        let mut lost = false;
        loop {
            if let Some(child) = next.take() {
                let tainted = match self.enter(&child, levels.len())? {
                    Entered::Known(tainted) => tainted,
                    Entered::Walk(level) => {
                        levels.push(level);
                        false
                    }
                };
                match levels.last_mut() {
                    Some(level) => level.tainted |= tainted,
                    None => lost |= tainted,
                }
            }
            let Some(level) = levels.last_mut() else { return Ok(lost) };
            next = level.children.next();
            if next.is_none()
                && let Some(level) = levels.pop()
            {
                if let (Some(number), true) = (level.number, level.tainted) {
                    self.tainted.set(number);
                }
                match levels.last_mut() {
                    Some(above) => above.tainted |= level.tainted,
                    None => lost |= level.tainted,
                }
            }
        }
    }

    fn enter(&mut self, child: &Child, depth: usize) -> Result<Entered, OpsError> {
        if self.repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        let id = match child {
            Child::Folder(id) => *id,
            Child::Part(_, part, _) => part.id,
        };
        let number = self.number(&id);
        if let Some(tainted) = self.known(number) {
            return Ok(Entered::Known(tainted));
        }
        if depth > TREE_DEPTH_MAX * usize::from(LIST_LEVELS_MAX) {
            self.findings.add(Gravity::Damage, format!("tree {id}"), "it is deeper than any file system");
            return Ok(Entered::Known(true));
        }
        if let Some(number) = number {
            self.walked.set(number);
        }
        self.nodes += 1;
        let decoded = self.reader.read(BlobClass::Metadata, "tree", &id).and_then(|bytes| {
            match child {
                Child::Folder(_) => TreeNode::decode(bytes.bytes()),
                Child::Part(level, part, next) => {
                    TreeNode::decode_part(bytes.bytes(), *level, part, next.as_ref())
                }
            }
            .map_err(RepoError::damaged(format!("tree {id}")))
        });
        let node = match decoded {
            Ok(node) => node,
            Err(error) => {
                self.lost(&id, error, number)?;
                return Ok(Entered::Known(true));
            }
        };
        let (mut tainted, mut children) = (false, Vec::new());
        match node {
            TreeNode::Leaf { entries } => {
                for entry in entries {
                    if let Some(content) = &entry.content {
                        tainted |= self.content(content)?;
                    }
                    children.extend(entry.subtree.map(Child::Folder));
                }
            }
            TreeNode::Branch { level, parts } => {
                let following = parts.iter().skip(1).cloned().map(Some).chain([None]).collect::<Vec<_>>();
                let pairs = parts.into_iter().zip(following);
                children.extend(pairs.map(|(part, next)| Child::Part(level, part, next)));
            }
        }
        Ok(Entered::Walk(Level { number, tainted, children: children.into_iter() }))
    }

    /// Tells that a node cannot be read, and remembers it.
    fn lost(&mut self, id: &BlobId, error: RepoError, number: Option<u64>) -> Result<(), OpsError> {
        let error = told(error)?;
        let object = match &error {
            RepoError::Missing { what, id, .. } => format!("{what} {id}"),
            RepoError::Damaged { object, .. } => object.clone(),
            _ => "a tree".to_owned(),
        };
        match &mut self.unread {
            Some(unread) => unread.push((object, reasons(&error))),
            None => self.findings.add(Gravity::Damage, object, reasons(&error)),
        }
        self.packs.miss(BlobClass::Metadata, id);
        if let Some(number) = number {
            self.tainted.set(number);
        }
        Ok(())
    }

    /// Says whether something of a file is lost.
    fn content(&mut self, content: &Content) -> Result<bool, OpsError> {
        match &content.recipe {
            RecipeRoot::Inline(node) => self.recipe_node(node, 0),
            RecipeRoot::Node(id) => {
                let length = content.length;
                self.recipe(id, 0, |bytes| {
                    let node = RecipeNode::decode(bytes)?;
                    let why = "is not that of the content";
                    let differs = crate::format::FormatError::Invalid { what: "recipe length", why };
                    if node.plain_bytes() == length { Ok(node) } else { Err(differs) }
                })
            }
        }
    }

    fn recipe(
        &mut self,
        id: &BlobId,
        depth: u8,
        decode: impl FnOnce(&[u8]) -> Result<RecipeNode, crate::format::FormatError>,
    ) -> Result<bool, OpsError> {
        let number = self.number(id);
        if let Some(tainted) = self.known(number) {
            return Ok(tainted);
        }
        if let Some(number) = number {
            self.walked.set(number);
        }
        self.nodes += 1;
        let node = self
            .reader
            .read(BlobClass::Metadata, "recipe", id)
            .and_then(|bytes| decode(bytes.bytes()).map_err(RepoError::damaged(format!("recipe {id}"))));
        let tainted = match node {
            Ok(node) => self.recipe_node(&node, depth)?,
            Err(error) => {
                self.lost(id, error, number)?;
                true
            }
        };
        if let (Some(number), true) = (number, tainted) {
            self.tainted.set(number);
        }
        Ok(tainted)
    }

    fn recipe_node(&mut self, node: &RecipeNode, depth: u8) -> Result<bool, OpsError> {
        let mut tainted = false;
        match node {
            RecipeNode::Leaf { entries, .. } => {
                for entry in entries {
                    if let RecipeEntry::Chunk { id, length, .. } = entry {
                        tainted |= self.packs.fate(BlobClass::Content, id, Some(*length)) != Fate::Whole;
                    }
                }
            }
            // The decoder bounds the level, and each node is one lower than its parent.
            RecipeNode::Branch { level, children } if depth <= LIST_LEVELS_MAX => {
                for child in children {
                    tainted |= self.child(*level, child, depth + 1)?;
                }
            }
            RecipeNode::Branch { .. } => tainted = true,
        }
        Ok(tainted)
    }

    fn child(&mut self, level: u8, child: &RecipeChild, depth: u8) -> Result<bool, OpsError> {
        self.recipe(&child.id, depth, |bytes| RecipeNode::decode_child(bytes, level, child))
    }

    /// Names every path of a snapshot that cannot be restored wholly.
    fn name(&mut self, root: BlobId, named: &mut Named) -> Result<(), OpsError> {
        let mut walk = TreeWalk::new(self.repository, root)?;
        while let Some(event) = walk.next() {
            if self.repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            match event {
                WalkEvent::Enter(entry) => {
                    let number = entry.subtree.and_then(|id| self.number(&id));
                    if self.known(number) == Some(false) {
                        walk.skip();
                    }
                }
                WalkEvent::Leaf(entry) => {
                    let (lost, doubtful) = self.file(&entry)?;
                    named.path(walk.path(), lost, doubtful);
                }
                WalkEvent::Leave(_) => {}
                WalkEvent::Problem(error) => {
                    let lost = Some((Vec::new(), self.because(&told(error)?)));
                    named.path(walk.path(), lost, None);
                }
            }
        }
        Ok(())
    }

    fn because(&self, error: &RepoError) -> BTreeSet<String> {
        match error {
            RepoError::Missing { id, .. } => {
                self.packs.culprits(BlobClass::Metadata, id).into_iter().collect()
            }
            other => BTreeSet::from([explain(other)]),
        }
    }

    /// Returns which bytes of a file are lost, and which may be, and for what reasons.
    fn file(&mut self, entry: &TreeEntry) -> Result<(Option<Loss>, Option<Loss>), OpsError> {
        let (mut lost, mut doubtful) = (None, None);
        let Some(content) = &entry.content else { return Ok((lost, doubtful)) };
        if let RecipeRoot::Node(id) = &content.recipe
            && self.known(self.number(id)) == Some(false)
        {
            return Ok((lost, doubtful));
        }
        let mut reader = BlobReader::new(self.repository)?;
        let mut offset = 0_u64;
        let mut pieces = match crate::repo::Pieces::open(&mut reader, content) {
            Ok(pieces) => pieces,
            Err(error) => {
                let because = self.because(&told(error)?);
                return Ok((Some((std::iter::once(0..content.length).collect(), because)), doubtful));
            }
        };
        loop {
            match pieces.next(&mut reader) {
                Ok(Some(piece)) => {
                    let end = offset.saturating_add(piece.length());
                    if let RecipeEntry::Chunk { id, length, .. } = piece {
                        let loss = match self.packs.fate(BlobClass::Content, &id, Some(length)) {
                            Fate::Whole => None,
                            Fate::Lost => Some(&mut lost),
                            Fate::Doubtful => Some(&mut doubtful),
                        };
                        if let Some(loss) = loss {
                            let (ranges, because) = loss.get_or_insert_with(Loss::default);
                            because.extend(self.packs.culprits(BlobClass::Content, &id));
                            add_range(ranges, offset..end);
                        }
                    }
                    offset = end;
                }
                Ok(None) => return Ok((lost, doubtful)),
                Err(error) => {
                    let (ranges, because) = lost.get_or_insert_with(Loss::default);
                    because.extend(self.because(&told(error)?));
                    add_range(ranges, offset..content.length);
                    return Ok((lost, doubtful));
                }
            }
        }
    }
}

/// Ranges of a file that cannot be had, and for what reasons.
type Loss = (Vec<Range<u64>>, BTreeSet<String>);

/// The paths of a snapshot that cannot be restored wholly.
struct Named {
    snapshot: SnapshotId,
    room: usize,
    paths: u64,
    is_certain: bool,
    affected: Vec<Affected>,
    more: u64,
}

impl Named {
    /// Begins, where so many of other snapshots are named already.
    fn new(snapshot: SnapshotId, before: usize) -> Self {
        let room = AFFECTED_MAX.saturating_sub(before);
        Self { snapshot, room, paths: 0, is_certain: false, affected: Vec::new(), more: 0 }
    }

    fn path(&mut self, path: &[u8], lost: Option<Loss>, doubtful: Option<Loss>) {
        self.paths += u64::from(lost.is_some() || doubtful.is_some());
        self.is_certain |= lost.is_some();
        for (loss, is_certain) in [(lost, true), (doubtful, false)] {
            let Some((ranges, because)) = loss else { continue };
            if self.affected.len() < self.room {
                let because = because.into_iter().collect();
                let (snapshot, path) = (self.snapshot, path.to_vec());
                self.affected.push(Affected { snapshot, path, ranges, because, is_certain });
            } else {
                self.more += 1;
            }
        }
    }
}

enum Entered {
    /// The node was walked before, or cannot be read.
    Known(bool),
    /// Its children come next.
    Walk(Level),
}

fn add_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    let room = ranges.len() < RANGES_MAX;
    match ranges.last_mut() {
        Some(last) if last.end == range.start || !room => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Passes on what is to be told of: not that the store did not answer, which is no damage.
fn told(error: RepoError) -> Result<RepoError, RepoError> {
    match error {
        RepoError::Interrupted | RepoError::Storage(StorageError::Transient { .. }) => Err(error),
        error => Ok(error),
    }
}

/// Says why a blob is missing, copy by copy.
fn reasons(error: &RepoError) -> String {
    match error {
        RepoError::Missing { reasons, .. } if reasons.is_empty() => "no pack holds it".to_owned(),
        RepoError::Missing { reasons, .. } => reasons.join("; "),
        other => explain(other),
    }
}
