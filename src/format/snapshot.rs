//! A snapshot: the commit object of a backup, the payload of an envelope in deterministic CBOR.
//! Normative: `format-spec/snapshot.md`.

use crate::base::{BlobId, SnapshotId, Timestamp, TrustId};

/// How a backup used its parent. Whatever it says, the snapshot is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SnapshotMode {
    /// Everything was read, no parent was used.
    Full = 0,
    /// Against the newest snapshot.
    Incremental = 1,
    /// Against the newest full one.
    Differential = 2,
}

/// Figures of a backup, for people and for reports; nothing relies on them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotSummary {
    /// Files and streams in the snapshot.
    pub files: u64,
    /// Folders in the snapshot.
    pub directories: u64,
    /// Other entries: links, pipes, sockets, devices.
    pub others: u64,
    /// Bytes of all files and streams.
    pub bytes: u64,
    /// Blobs that had to be stored.
    pub new_blobs: u64,
    /// Plain bytes of these.
    pub new_bytes: u64,
    /// Bytes that the store grew by, packs only.
    pub stored_bytes: u64,
    /// Files that could not be read, or changed or vanished while they were.
    pub unreadable: u64,
    /// Files taken from the parent without reading.
    pub unchanged_files: u64,
    /// Figures of newer programs, kept as they were found.
    pub extra: Vec<(u64, Vec<u8>)>,
}

/// A backup as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The host whose data it is.
    pub host: String,
    /// The label that the user gave, by which parents are found; may be empty.
    pub label: String,
    /// Who ran the backup; may be empty.
    pub user: String,
    /// When it began.
    pub started: Timestamp,
    /// When the commit was made.
    pub ended: Timestamp,
    /// The snapshot that it was compared with.
    pub parent: Option<SnapshotId>,
    /// How the parent was used.
    pub mode: SnapshotMode,
    /// What was asked to be backed up: paths, names of streams.
    pub sources: Vec<String>,
    /// The topmost tree node.
    pub root: BlobId,
    /// Figures.
    pub summary: SnapshotSummary,
    /// Name and version of the program.
    pub program: String,
    /// Tags given at the start, with their values; sorted strictly by key. Annotations add more.
    pub tags: Vec<(String, Option<String>)>,
    /// Sequence of the registry of trust that the writer knew.
    pub trust_sequence: u64,
    /// Id of that registry.
    pub trust: TrustId,
    /// What kind of backup: `files`, `stream`, `commands`, an engine's name.
    pub kind: String,
    /// Facts that an engine needs to bring a database back; sorted strictly by key.
    pub facts: Vec<(String, String)>,
    /// Fields of newer programs, kept as they were found.
    pub extra: Vec<(u64, Vec<u8>)>,
}
