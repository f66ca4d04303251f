//! Archived logs: write-ahead log segments, binary logs, and what is known of them.
//!
//! Rooms: [`LogRecord`] is what a segment, a piece of one, a gap, a conflict or a merge is known by: signed
//! and sealed in an envelope of its own; [`LogPackFront`] is what a log pack opens with: head, origins and
//! records; [`LogPackView`] is a whole log pack, [`LogPackTail`] its end, whose frames and tail are those of a content pack.
//! Normative: `format-spec/log-pack.md`.

mod front;
mod record;
mod view;

pub use front::{LOG_HEAD_BYTES, LogPackFront, LogPackHead};
pub use record::{LogChunk, LogContent, LogDigest, LogRecord, LogRecordKind, LogRun};
pub use view::{LogPackTail, LogPackView, contents_associated_data, encode_trailer};

#[cfg(test)]
mod tests;
