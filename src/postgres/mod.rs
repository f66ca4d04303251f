//! PostgreSQL: names and positions of its write-ahead log, how it is archived and how it comes back.
//!
//! The rules are those of the server's manual and source; each test names the one that it proves.
//!
//! - `segment`: names of files in the log, and their positions
//! - `history`: where timelines branch off
//! - `wal`: what stands in a segment
//! - `lineage`: which clusters have archived under a name
//! - `archive`: a server's log into the repository and back

pub mod archive;
mod history;
pub mod lineage;
mod segment;
pub mod wal;

pub use history::{HISTORY_BYTES_MAX, HistoryError, read_history};
pub use segment::{LogFile, Lsn, SegmentError, SegmentName, SegmentSize};
