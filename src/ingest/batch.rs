//! What travels through the pipeline.

use super::parent::ParentWindow;
use crate::base::{BlobId, Timestamp};
use crate::chunker::Sketch;
use crate::format::tree::{CutKind, TreeEntry};
use crossbeam_channel::Sender;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// What is known of a file's content once it has been read.
#[derive(Debug, Clone, Copy)]
pub struct FileEnd {
    /// Its length in bytes, holes included.
    pub length: u64,
    /// BLAKE3 of all its bytes; `None` of a copy of which something was lost.
    pub digest: Option<[u8; 32]>,
    /// How it was cut.
    pub cut: CutKind,
    /// When its reading began; `None` where nobody is to take the file for unchanged.
    pub read: Option<Timestamp>,
}

/// A chunk that the parent held too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What these bytes were found to be.
    pub id: BlobId,
    /// The sketch that the parent's recipe has of them, or none.
    pub sketch: Sketch,
}

/// One step of the walk over the sources, in order.
#[derive(Debug)]
pub enum Event {
    /// A chunk.
    Chunk {
        /// Its range of the batch's bytes.
        range: Range<usize>,
        /// Where it stands in its file.
        offset: u64,
        /// Whether it was cut at a fixed place, as database files are.
        pages: bool,
        /// What whoever cut it found it to be.
        known: Option<Known>,
    },
    /// Bytes of a file that are not stored because they are a hole.
    Hole(u64),
    /// A folder opens; what follows is in it.
    Folder(Box<TreeEntry>),
    /// The entries of the innermost folder come in any order; they are kept in memory until it closes.
    AnyOrder,
    /// The innermost folder closes.
    Close,
    /// A file opens; its chunks follow.
    File {
        /// The file.
        entry: Box<TreeEntry>,
        /// What it held before.
        parent: Option<Arc<ParentWindow>>,
    },
    /// The file is complete.
    End(FileEnd),
    /// The file that was opened is not kept after all.
    Drop,
    /// Something complete in itself: a link, a device, a file that is known to be unchanged.
    Node(Box<TreeEntry>),
}

/// The bytes of a batch, at which several threads look; the last to let go of them gives them back.
pub(super) struct Shared {
    bytes: Vec<u8>,
    free: Sender<Vec<u8>>,
}

impl Shared {
    /// Shares bytes that are to be filled again by whoever reads from `free`.
    pub fn new(bytes: Vec<u8>, free: Sender<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self { bytes, free })
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The feeder has stopped if nobody takes them. There is room for all that there are.
        let _ = self.free.try_send(std::mem::take(&mut self.bytes));
    }
}

/// Bytes and the events they belong to.
pub(super) struct Batch {
    /// Position in the order of all batches.
    pub sequence: u64,
    /// The bytes; their length is fixed and used again.
    pub bytes: Arc<Shared>,
    /// The events in order.
    pub events: Vec<Event>,
    /// The parent of the file that is open where the batch begins.
    pub parent: Option<Arc<ParentWindow>>,
}

/// What a worker made of an event.
pub(super) enum Outcome {
    /// A chunk is stored or known.
    Chunk { id: BlobId, length: u32, sketch: Sketch },
    /// Everything else passes through.
    Event(Event),
}

/// What a worker made of a batch.
pub(super) struct Processed {
    pub sequence: u64,
    pub outcomes: Vec<Outcome>,
}
