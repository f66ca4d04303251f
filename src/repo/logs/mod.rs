//! Archived logs: a segment is one object, and one put commits it.
//!
//! - `write`: a segment becomes a log pack; `sealing`: its bytes, in frames that were read back
//! - `pieces`: a segment that is archived while it grows
//! - `merge`: many log packs become one
//! - `merged`, `spans`, `sums`, `frames`: what merged log packs hold: their records, the names, what sums them up, the bytes
//! - `find`: what the store holds of a segment, of a stream, of all streams
//! - `read`: the bytes of a segment; `windows`: by several threads into their place, never whole in memory
//! - `forgotten`: which of them are roots no more
//!
//! Neither index nor session takes part: a log pack relies on no other object.
//! Normative: `format-spec/log-pack.md`.

mod find;
mod forgotten;
mod frames;
mod merge;
mod merged;
mod pieces;
mod read;
mod sealing;
mod spans;
mod sums;
mod windows;
mod write;

pub use find::FoundLog;
pub use forgotten::{FRESH_LOG_SECONDS, ForgottenLogs};
pub use merge::{MERGED_BYTES, MERGED_RECORDS, MergeFailure};
pub use merged::{LogOutline, MergedLogs};
pub use pieces::{holds_whole, joined, joined_length};
pub use read::OpenedLog;
pub use spans::MERGED_LOG_SECONDS;
pub use sums::follows;
pub use write::{LogEntry, LogPut};

use super::repository::Repository;
use crate::base::BlobId;

impl Repository {
    /// Returns the folder of a stream, without a slash at its end. The store learns a keyed hash only.
    pub fn log_stream_folder(&self, stream: &str) -> String {
        format!("logs/{}", self.log_hash(&[b"log stream\0", stream.as_bytes()]))
    }

    /// Returns the folder of a segment, without a slash at its end.
    pub fn log_segment_folder(&self, stream: &str, name: &str) -> String {
        // No text is longer than a record may be, so the length always fits.
        let length = u32::try_from(stream.len()).unwrap_or(u32::MAX).to_le_bytes();
        let segment = self.log_hash(&[b"log segment\0", &length, stream.as_bytes(), name.as_bytes()]);
        format!("{}/{segment}", self.log_stream_folder(stream))
    }

    fn log_hash(&self, parts: &[&[u8]]) -> BlobId {
        self.keyring().metadata_hash(&parts.concat())
    }
}
