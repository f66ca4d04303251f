//! Repositories for tests, and snapshots of trees that no file system could hold.

use super::{ManualClock, SeededEntropy};
use chronolith::base::{BlobId, Observer, Quiet, SecretBytes, SnapshotId, Timestamp};
use chronolith::chunker::CutParameters;
use chronolith::crypto::{PasswordParameters, Suite};
use chronolith::format::cbor::Extra;
use chronolith::format::snapshot::{Snapshot, SnapshotMode, SnapshotSummary};
use chronolith::format::tree::{CutKind, EntryKind, TreeEntry};
use chronolith::ingest::{Effort, Event, FeedError, Feeder, FileEnd, IngestOptions, ingest};
use chronolith::ops::OpsError;
use chronolith::ops::backup::{BackupOptions, BackupReport, Source, backup};
use chronolith::repo::{
    Credential, Environment, InitOptions, NewSlot, NoKeyCache, RepoError, Repository, WriteSession, init,
    open,
};
use chronolith::storage::{MemoryStore, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

static SEED: AtomicU64 = AtomicU64::new(1);

/// The key file of every repository that [`make`] makes.
pub fn key_file() -> SecretBytes {
    SecretBytes::new(vec![7; 32])
}

pub fn environment(store: Arc<dyn Store>) -> Environment {
    environment_with(store, Arc::new(Quiet))
}

pub fn environment_with(store: Arc<dyn Store>, observer: Arc<dyn Observer>) -> Environment {
    Environment {
        store,
        clock: Arc::new(ManualClock::at_seconds(1_700_000_000)),
        entropy: Arc::new(SeededEntropy::new(SEED.fetch_add(1 << 32, Ordering::Relaxed))),
        observer,
        cache: None,
        key_cache: Arc::new(NoKeyCache),
    }
}

/// Makes a repository with small chunks in an empty store and opens it as its owner.
pub fn make(store: Arc<dyn Store>) -> Arc<Repository> {
    let environment = environment(store);
    let key = key_file();
    let options = InitOptions {
        suite: Suite::ChaCha20Poly1305,
        cut: CutParameters::new(1 << 10, 4 << 10, 16 << 10).unwrap(),
        page_chunk_bytes: 64 << 10,
        password: PasswordParameters::new(64, 1, 1).unwrap(),
        key_name: "test".to_owned(),
    };
    init(&environment, &options, &NewSlot::KeyFile(&key)).unwrap();
    open(environment, &Credential::KeyFile(key)).unwrap()
}

/// Makes a repository in memory.
pub fn in_memory() -> (Arc<MemoryStore>, Arc<Repository>) {
    let store = Arc::new(MemoryStore::new());
    (store.clone(), make(store))
}

/// Opens the repository in a store anew, as its owner.
pub fn reopen(store: Arc<dyn Store>) -> Result<Arc<Repository>, RepoError> {
    open(environment(store), &Credential::KeyFile(key_file()))
}

/// Bytes that do not compress; the same seed, the same bytes.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    chronolith::base::Entropy::fill(&SeededEntropy::new(seed), &mut bytes);
    bytes
}

/// A part of a file.
#[derive(Clone)]
pub enum Part {
    Data(Vec<u8>),
    Hole(u64),
}

/// A tree in memory, as hostile as the format permits.
#[derive(Clone)]
pub enum Node {
    Folder(TreeEntry, Vec<Node>),
    File(TreeEntry, Vec<Part>),
    Other(TreeEntry),
}

pub fn entry(name: impl AsRef<[u8]>, kind: EntryKind) -> TreeEntry {
    let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    TreeEntry::new(name.as_ref().to_vec(), kind, mode, Timestamp::from_nanoseconds(1_600_000_000_000_000_007))
}

pub fn folder(name: impl AsRef<[u8]>, children: Vec<Node>) -> Node {
    Node::Folder(entry(name, EntryKind::Directory), children)
}

pub fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Node {
    Node::File(entry(name, EntryKind::File), vec![Part::Data(content.as_ref().to_vec())])
}

pub fn sparse(name: impl AsRef<[u8]>, parts: Vec<Part>) -> Node {
    Node::File(entry(name, EntryKind::File), parts)
}

pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Node {
    Node::Other(TreeEntry { target: Some(target.as_ref().to_vec()), ..entry(name, EntryKind::Symlink) })
}

impl Node {
    pub fn entry(&mut self) -> &mut TreeEntry {
        match self {
            Self::Folder(entry, _) | Self::File(entry, _) | Self::Other(entry) => entry,
        }
    }

    fn name(&self) -> &[u8] {
        match self {
            Self::Folder(entry, _) | Self::File(entry, _) | Self::Other(entry) => &entry.name,
        }
    }

    /// Changes what is known of the entry.
    pub fn with(mut self, change: impl FnOnce(&mut TreeEntry)) -> Self {
        change(self.entry());
        self
    }

    /// Makes it one of several names of one file.
    pub fn linked(self, inode: u64, links: u64) -> Self {
        self.with(|entry| {
            entry.device = Some(1);
            entry.inode = Some(inode);
            entry.links = Some(links);
        })
    }
}

fn feed(feeder: &mut Feeder, nodes: Vec<Node>) -> Result<(), FeedError> {
    let mut nodes = nodes;
    nodes.sort_by_key(|node| node.name().to_vec());
    for node in nodes {
        match node {
            Node::Folder(entry, children) => {
                feeder.event(Event::Folder(Box::new(entry)))?;
                feed(feeder, children)?;
                feeder.event(Event::Close)?;
            }
            Node::Other(entry) => feeder.event(Event::Node(Box::new(entry)))?,
            Node::File(entry, parts) => feed_file(feeder, entry, parts)?,
        }
    }
    Ok(())
}

fn feed_file(feeder: &mut Feeder, entry: TreeEntry, parts: Vec<Part>) -> Result<(), FeedError> {
    feeder.file(Box::new(entry), None)?;
    let (mut digest, mut length) = (blake3::Hasher::new(), 0);
    for part in parts {
        match part {
            Part::Data(bytes) => {
                length += feeder.data(&mut &bytes[..], CutKind::Stream, u64::MAX, &mut digest)?;
            }
            Part::Hole(hole) => {
                digest.update(&vec![0; usize::try_from(hole).unwrap()]);
                feeder.event(Event::Hole(hole))?;
                length += hole;
            }
        }
    }
    let digest = Some(*digest.finalize().as_bytes());
    let read = Some(Timestamp::default());
    let end = FileEnd { length, digest, cut: CutKind::Stream, read };
    Ok(feeder.event(Event::End(end))?)
}

/// Stores a tree and commits a snapshot of it; returns its id and root.
pub fn store_tree(repository: &Arc<Repository>, label: &str, nodes: Vec<Node>) -> (SnapshotId, BlobId) {
    repository.load_index().unwrap();
    let session = WriteSession::begin(repository).unwrap();
    let options =
        IngestOptions { effort: Effort::default(), differences: true, frame_bytes: 32 << 10, workers: 2 };
    let ingested = ingest(&session, &options, |feeder| feed(feeder, nodes).map_err(OpsError::from)).unwrap();
    session.finish().unwrap();
    let (trust_sequence, trust) = repository.registry().head();
    let now = repository.environment().clock.now();
    let snapshot = Snapshot {
        host: "host".to_owned(),
        label: label.to_owned(),
        user: "tester".to_owned(),
        started: now,
        ended: now,
        parent: None,
        mode: SnapshotMode::Full,
        sources: vec!["/".to_owned()],
        root: ingested.root,
        summary: SnapshotSummary {
            files: ingested.counts.files,
            directories: ingested.counts.directories,
            others: ingested.counts.others,
            bytes: ingested.counts.bytes,
            ..SnapshotSummary::default()
        },
        program: "tests".to_owned(),
        tags: BTreeMap::new(),
        trust_sequence,
        trust,
        kind: "files".to_owned(),
        facts: BTreeMap::new(),
        extra: Extra::new(),
    };
    (repository.commit(&snapshot).unwrap(), ingested.root)
}

pub fn backup_options(label: &str) -> BackupOptions {
    BackupOptions {
        label: Some(label.to_owned()),
        workers: 2,
        ..BackupOptions::new("host", "tester", "tests")
    }
}

/// Backs up a folder or file of this machine.
pub fn backup_path(repository: &Arc<Repository>, path: &Path) -> BackupReport {
    backup(repository, vec![Source::Path(path.to_owned())], &backup_options("files")).unwrap()
}

/// The names of a path, as operations take it.
pub fn names(path: &str) -> Vec<Vec<u8>> {
    path.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect()
}
