//! What stands in a segment of the write-ahead log.
//!
//! - `page`: the headers of pages: version, timeline, system identifier, length of segments
//! - `walk`: from record to record: times of commits, restore points, what is created
//!
//! Versions 13 to 18 are known; of any other only the header of the first page is read, whose form has not
//! changed since version 9.3.

mod page;
mod walk;

pub(super) use page::LONG_HEADER_BYTES;
pub use page::{FirstPage, PageError, WalVersion};
pub use walk::{Noted, walk, walk_behind, walk_from};
