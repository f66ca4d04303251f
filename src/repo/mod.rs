//! The repository: open and init, keyring, packs, index, blobs, roots.
//!
//! - `environment`: what is passed in from outside
//! - `init`, `open`, `slots`, `sheet`, `seen`: how a repository comes to be and is unlocked
//! - `cache`: what is left in a client's own folder
//! - `registry`, `keyring`, `later`: who may do what, and what this client holds, of epochs that begin meanwhile too
//! - `amend`: an owner changes who may do what
//! - `sealed`, `frames`, `packs`: bytes that only the right keys open
//! - `index`: which pack holds which blob
//! - `known`: small objects that were opened before, kept locally
//! - `base_cache`: content kept locally, for differences of those who cannot read it elsewhere
//! - `blobs`, `walk`: reading content, trees and recipes
//! - `scan`: reading packs from end to end, to check them
//! - `session`: writing
//! - `presence`, `condemned`: relying on what others stored, while others delete
//! - `damaged`: what others found bad, and who is believed about it
//! - `copy`, `contest`: sealed frames move to new packs, unless packs disagree about them
//! - `mend`, `parity`: what repair needs
//! - `roots`: snapshots and annotations
//! - `rubbish`: what opens for nobody
//! - `logs`: archived segments of logs, each one object
//! - `memory`: what catalogues remember of them

mod amend;
mod base_cache;
mod blobs;
mod cache;
mod condemned;
mod contest;
mod copy;
mod damaged;
mod environment;
mod error;
mod frames;
mod index;
mod init;
mod keyring;
mod known;
mod later;
mod logs;
mod memory;
mod mend;
mod open;
mod packs;
mod parity;
mod presence;
mod registry;
mod repository;
mod roots;
mod rubbish;
mod scan;
mod sealed;
mod seen;
mod session;
mod sheet;
mod slots;
mod walk;

pub use amend::{
    NewEpoch, add_to_registry, amend_registry, begin_epoch, remove_from_registry, revoke_in_registry,
};
pub use base_cache::BaseCache;
pub use blobs::{Blob, BlobReader, FramePlace};
pub use condemned::{CondemnedListing, FoundCondemned, FoundSession, Sessions, UnreadableSessions};
pub use copy::{Copied, FrameCopier, NotCopied};
pub use damaged::{DamageListing, FoundDamage, Spoilt, SpoiltPacks, can_tell, may_cancel};
pub use environment::{Environment, KeyCache, NoKeyCache};
pub use error::RepoError;
pub use frames::{Base, FrameDecoder, FrameEncoder, FrameKey};
pub use index::{IndexSet, KnownPack, Located, NumberedIndex, RunContent, RunOutline, encode_run};
pub use init::{InitOptions, draw_identity, init};
pub use keyring::{EpochKeys, Identity, Keyring};
pub use logs::{
    FRESH_LOG_SECONDS, ForgottenLogs, FoundLog, LogEntry, LogOutline, LogPut, MERGED_BYTES,
    MERGED_LOG_SECONDS, MERGED_RECORDS, MergeFailure, OpenedLog, follows, holds_whole, joined, joined_length,
};
pub use memory::{
    Before, Committed, Memory, Remembered, Roots, RootsWanted, StoredRoot, Told, is_about_snapshots,
};
pub use mend::DescribedPack;
pub use open::{open, open_lent, open_with_sheet};
pub use packs::{OpenedPack, open_pack, pack_bytes, pack_name};
pub use parity::{ParityOutline, ParityShape};
pub use presence::Presence;
pub use registry::Registry;
pub use repository::{FIRST_GENERATION, Repository};
pub use roots::{FoundAnnotation, FoundSnapshot, Listing};
pub use scan::{FrameState, PackProblem, PackScanner, ScannedPack};
pub use sealed::Author;
pub use seen::Seen;
pub use session::{Finished, SessionCounts, WriteSession};
pub use sheet::RecoverySheet;
pub use slots::{
    Credential, FoundSlot, NewSlot, believe_slot, check_slot, list_slots, make_slot, open_slot, put_twice,
};
pub use walk::{FolderEntries, Pieces, find_entry, find_path};
