//! The snapshot that a backup is compared with.

use super::super::error::OpsError;
use super::super::snapshots::{SnapshotView, Snapshots};
use crate::base::{BlobId, SnapshotId};
use crate::format::snapshot::SnapshotMode;
use crate::format::tree::TreeEntry;
use crate::repo::{BlobReader, FolderEntries, RepoError, Repository};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A parent.
pub(in crate::ops) struct Parent {
    pub id: SnapshotId,
    /// The host it was made on: devices and inodes of another host say nothing here.
    pub host: String,
    root: BlobId,
}

impl Parent {
    /// Finds the parent that a mode asks for; a full backup has none.
    pub fn find(
        repository: &Arc<Repository>,
        host: &str,
        label: &str,
        mode: SnapshotMode,
        wanted: Option<SnapshotId>,
    ) -> Result<Option<Self>, OpsError> {
        if mode == SnapshotMode::Full {
            return Ok(None);
        }
        let snapshots = Snapshots::load(repository)?;
        for (name, error) in &snapshots.refused {
            repository.environment().observer.warn(&format!("{name} is passed over: {error}"));
        }
        let found = match wanted {
            Some(id) => Some(snapshots.get(&id).ok_or_else(|| RepoError::NoSnapshot(id.to_string()))?),
            // A forgotten one may be swept while the backup runs.
            None => snapshots.iter().rev().find(|view| {
                view.snapshot.host == host
                    && view.snapshot.label == label
                    && (mode != SnapshotMode::Differential || view.snapshot.mode == SnapshotMode::Full)
            }),
        };
        Ok(found.map(Self::of))
    }

    /// Takes this snapshot.
    pub fn of(view: &SnapshotView) -> Self {
        Self { id: view.id, host: view.snapshot.host.clone(), root: view.snapshot.root }
    }

    /// Begins a walk over its tree, in step with the walk over the sources.
    pub fn cursor(&self, repository: &Arc<Repository>) -> Result<Cursor, RepoError> {
        let mut reader = BlobReader::new(repository)?;
        let root = Level::open(&mut reader, &self.root);
        Ok(Cursor { reader, levels: vec![root] })
    }
}

/// One folder of the parent; `None` where the parent has no such folder or it cannot be read.
struct Level {
    entries: Option<FolderEntries>,
    next: Option<TreeEntry>,
    /// All entries that are not asked for yet, where they are asked for in any order.
    all: Option<BTreeMap<Vec<u8>, TreeEntry>>,
}

impl Level {
    fn open(reader: &mut BlobReader, root: &BlobId) -> Self {
        // A parent that cannot be read costs reading the files again, no more.
        Self { entries: FolderEntries::open(reader, root).ok(), next: None, all: None }
    }

    const fn nothing() -> Self {
        Self { entries: None, next: None, all: None }
    }

    /// Reads all entries, as far as they can be read.
    fn read_all(&mut self, reader: &mut BlobReader) {
        let mut all = BTreeMap::new();
        all.extend(self.next.take().map(|entry| (entry.name.clone(), entry)));
        while let Some(Ok(Some(entry))) = self.entries.as_mut().map(|entries| entries.next(reader)) {
            all.insert(entry.name.clone(), entry);
        }
        self.all = Some(all);
    }

    fn find(&mut self, reader: &mut BlobReader, name: &[u8]) -> Option<TreeEntry> {
        if let Some(all) = &mut self.all {
            return all.remove(name);
        }
        loop {
            if self.next.is_none() {
                self.next = self.entries.as_mut()?.next(reader).ok()?;
            }
            match self.next.as_ref()?.name.as_slice().cmp(name) {
                Ordering::Less => self.next = None,
                Ordering::Equal => return self.next.take(),
                Ordering::Greater => return None,
            }
        }
    }
}

/// A place in the parent's tree. Names are asked for in ascending order within a folder, but for folders of
/// which it was said that they are asked for in any.
pub(in crate::ops) struct Cursor {
    pub reader: BlobReader,
    levels: Vec<Level>,
}

impl Cursor {
    /// Returns the parent's entry of this name in the present folder.
    pub fn find(&mut self, name: &[u8]) -> Option<TreeEntry> {
        self.levels.last_mut()?.find(&mut self.reader, name)
    }

    /// Goes down into the folder of this name, whether the parent has it or not.
    pub fn enter(&mut self, name: &[u8]) {
        let level = match self.find(name).and_then(|entry| entry.subtree) {
            Some(subtree) => Level::open(&mut self.reader, &subtree),
            None => Level::nothing(),
        };
        self.levels.push(level);
    }

    /// Lets the names of the present folder be asked for in any order.
    pub fn any_order(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.read_all(&mut self.reader);
        }
    }

    /// Goes back up.
    pub fn leave(&mut self) {
        self.levels.pop();
    }
}
