//! PostgreSQL: names and positions of its write-ahead log, how it is archived and how it comes back.
//!
//! The rules are those of the server's manual and source; each test names the one that it proves.
//!
//! - `segment`: names of files in the log, and their positions
//! - `history`: where timelines branch off

mod history;
mod segment;

pub use history::{HISTORY_BYTES_MAX, HistoryError, read_history};
pub use segment::{LogFile, Lsn, SegmentError, SegmentName, SegmentSize};
