//! An index run: sorted records in blocks that are sealed one by one, a directory, a signature.
//!
//! A run says of every blob in the packs of one signer where its bytes lie. Rooms: [`IndexHead`]
//! opens the run; [`IndexRecord`] is one copy of one blob; [`IndexBlock`] is the plain form of a
//! block, searched where it lies; [`Directory`] tells the packs and where each block begins.
//! Normative: `format-spec/index.md`.

mod block;
mod directory;
mod head;
mod record;

use super::kind::ObjectKind;

pub use crate::crypto::derive::context::INDEX_RUN as INDEX_CONTEXT;
pub use crate::crypto::seal::counter_nonce as block_nonce;
pub use block::{IndexBlock, encode_block, split_blocks};
pub use directory::{BlockEntry, Directory, PackEntry};
pub use head::{DIRECTORY_NUMBER, IndexHead};
pub use record::{IndexRecord, RecordOrder};

/// Object kind of index runs.
pub const KIND_INDEX: u8 = ObjectKind::IndexRun as u8;
/// Length of a run's head.
pub const INDEX_HEAD_BYTES: usize = 160;
/// How much of the head the seals of blocks and directory are bound to.
pub const INDEX_HEAD_BOUND_BYTES: usize = 112;
/// Length of one record.
pub const INDEX_RECORD_BYTES: usize = 72;
/// Records after which a writer begins a new block.
pub const INDEX_BLOCK_RECORDS: usize = 1024;

#[cfg(test)]
mod tests;
