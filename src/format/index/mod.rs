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

pub use block::{IndexBlock, encode_block, split_blocks};
pub use directory::{BlockEntry, Directory, PackEntry};
pub use head::{DIRECTORY_NUMBER, IndexHead, block_nonce};
pub use record::{IndexRecord, RecordOrder};

/// Length of a run's head.
pub const INDEX_HEAD_BYTES: usize = 160;
/// How much of the head the seals of blocks and directory are bound to.
pub const INDEX_HEAD_BOUND_BYTES: usize = 112;
/// Length of one record.
pub const INDEX_RECORD_BYTES: usize = 72;
/// Records after which a writer begins a new block.
pub const INDEX_BLOCK_RECORDS: usize = 1024;
/// Context by which the key of a run is derived.
pub const INDEX_CONTEXT: &str = "chronolith v1 index run";
