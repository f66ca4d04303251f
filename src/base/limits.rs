//! Every bound of the format in one place, tied together by assertions.
//!
//! A decoder checks a bound before it allocates; an encoder checks it before it writes.
//! The normative text is `format-spec/limits.md`.

use super::units::{KIB, MIB};

/// Longest plain blob (chunk, recipe node or tree node).
pub const BLOB_BYTES_MAX: u64 = 8 * MIB;
/// Longest plain content of one frame (one or several blobs).
pub const FRAME_PLAIN_BYTES_MAX: u64 = 8 * MIB;
/// Longest sealed frame, tag included; compression may expand a little.
pub const FRAME_SEALED_BYTES_MAX: u64 = FRAME_PLAIN_BYTES_MAX + 64 * KIB;
/// Most blobs that share a frame.
pub const FRAME_BLOBS_MAX: u64 = 4096;
/// Longest pack.
pub const PACK_BYTES_MAX: u64 = 256 * MIB;
/// Most frames in a pack.
pub const PACK_FRAMES_MAX: u64 = 1 << 20;
/// Most blobs in a pack.
pub const PACK_BLOBS_MAX: u64 = 1 << 21;
/// Most origins in a pack.
pub const PACK_ORIGINS_MAX: u64 = 4096;
/// Longest chain of differences: depth 0 stands alone.
pub const DEPTH_MAX: u8 = 32;
/// Most records in one index run: a reader holds one run in memory while it opens it.
pub const INDEX_RECORDS_MAX: u64 = 1 << 20;
/// Longest index run as stored.
pub const INDEX_RUN_BYTES_MAX: u64 = 256 * MIB;
/// Most records in one sealed block of an index run.
pub const INDEX_BLOCK_RECORDS_MAX: u64 = 4096;
/// Most packs that one index run describes.
pub const INDEX_PACKS_MAX: u64 = 1 << 20;
/// Most origins of all packs that one index run describes.
pub const INDEX_ORIGINS_MAX: u64 = 1 << 20;
/// Most blocks in one index run.
pub const INDEX_BLOCKS_MAX: u64 = 1 << 20;
/// Longest sealed block of an index run.
pub const INDEX_BLOCK_STORED_BYTES_MAX: u64 = 512 * KIB;
/// Longest directory of an index run, plain or sealed.
pub const INDEX_DIRECTORY_BYTES_MAX: u64 = 256 * MIB;
/// Longest file or stream.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Most entries in one node of a recipe.
pub const RECIPE_NODE_ENTRIES_MAX: u64 = 4096;
/// Most entries of a recipe that stands in the tree entry itself.
pub const RECIPE_INLINE_ENTRIES_MAX: u64 = 64;
/// Most entries in one node of a tree.
pub const TREE_NODE_ENTRIES_MAX: u64 = 4096;
/// Most extended attributes of one tree entry.
pub const ENTRY_ATTRIBUTES_MAX: u64 = 1024;
/// Longest digest of a whole file or stream.
pub const DIGEST_BYTES_MAX: u64 = 64;
/// Most sources of one snapshot.
pub const SNAPSHOT_SOURCES_MAX: u64 = 1 << 16;
/// Most tags that one snapshot is made with.
pub const SNAPSHOT_TAGS_MAX: u64 = 1024;
/// Most facts that an engine notes in one snapshot.
pub const SNAPSHOT_FACTS_MAX: u64 = 4096;
/// Longest structured object (snapshot, registry, annotation, session, slot) before sealing.
pub const STRUCTURED_BYTES_MAX: u64 = 16 * MIB;
/// Longest catalogue or condemnation before sealing; what is longer is cut into several.
pub const LISTING_BYTES_MAX: u64 = 64 * MIB;
/// Most ids, names or entries in one list of a structured object.
pub const LIST_IDS_MAX: u64 = 1 << 20;
/// Most facts (texts with keys) in one structured object.
pub const FACTS_MAX: u64 = 1024;
/// Longest time that a session may promise between two renewals.
pub const SESSION_PROMISE_SECONDS_MAX: u64 = 24 * 60 * 60;
/// Longest grace of a condemnation.
pub const GRACE_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// Longest stored record of a log segment: an envelope.
pub const LOG_RECORD_BYTES_MAX: u64 = MIB;
/// Most records in one log pack.
pub const LOG_PACK_RECORDS_MAX: u64 = 1 << 17;
/// Most plain bytes that one record stands for; a longer segment is stored in pieces.
pub const LOG_PIECE_BYTES_MAX: u64 = 128 * MIB;
/// Most shards of one sort in a parity object.
pub const PARITY_SHARDS_MAX: u64 = 1 << 15;
/// Longest shard.
pub const PARITY_SHARD_BYTES_MAX: u64 = 16 * MIB;
/// Longest plain-text configuration.
pub const CONFIG_BYTES_MAX: u64 = 64 * KIB;
/// Longest key slot.
pub const SLOT_BYTES_MAX: u64 = 64 * KIB;
/// Most keys in the registry of trust, and grants in one of its epochs.
pub const TRUST_KEYS_MAX: u64 = 4096;
/// Most epochs in the registry of trust.
pub const TRUST_EPOCHS_MAX: u64 = 4096;
/// Most patterns in one list of what a key may write.
pub const TRUST_PATTERNS_MAX: u64 = 256;
/// Most single objects that a revocation accepts.
pub const TRUST_ACCEPTED_MAX: u64 = 1 << 16;
/// Longest wrapped bundle of secrets.
pub const TRUST_GRANT_BYTES_MAX: u64 = 4096;
/// Longest name of one path component, host, label, tag key or tag value.
pub const NAME_BYTES_MAX: u64 = 4096;
/// Longest symbolic link target or extended attribute value.
pub const VALUE_BYTES_MAX: u64 = 64 * KIB;
/// Deepest nesting of folders.
pub const TREE_DEPTH_MAX: usize = 1024;
/// Most levels of a recipe or of the parts of one folder.
pub const LIST_LEVELS_MAX: u8 = 8;
/// Argon2id: bounds on what a slot may ask of the machine that reads it.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Argon2id: most passes.
pub const ARGON2_PASSES_MAX: u32 = 64;
/// Argon2id: most lanes.
pub const ARGON2_LANES_MAX: u32 = 64;

const _: () = assert!(BLOB_BYTES_MAX <= FRAME_PLAIN_BYTES_MAX);
const _: () = assert!(FRAME_SEALED_BYTES_MAX < PACK_BYTES_MAX);
const _: () = assert!(PACK_BYTES_MAX <= u32::MAX as u64, "offsets in packs are 32 bits");
const _: () = assert!(FRAME_PLAIN_BYTES_MAX <= u32::MAX as u64, "lengths in frames are 32 bits");
const _: () = assert!(INDEX_BLOCK_RECORDS_MAX * (72 + 32) + 64 * KIB <= INDEX_BLOCK_STORED_BYTES_MAX);
const _: () = assert!(
    INDEX_PACKS_MAX * 48 + INDEX_ORIGINS_MAX * 104 + INDEX_BLOCKS_MAX * 48 < INDEX_DIRECTORY_BYTES_MAX
);
const _: () =
    assert!(LOG_PIECE_BYTES_MAX * 2 <= PACK_BYTES_MAX, "a piece fits a pack however badly it shrinks");
const _: () = assert!(16 + RECIPE_NODE_ENTRIES_MAX * 48 <= BLOB_BYTES_MAX);
