//! The write path: cut, identify, look up, encode, seal, pack; the caller commits.
//!
//! ```text
//! caller's thread        workers (one a core)              assembler        store threads
//! Feeder: read, cut  ->  identify, look up, group,     ->  recipes, trees
//!   (batches of bytes)   compress, seal, verify  ----------------------->  packs, index runs
//! ```
//!
//! A batch is a few MiB of bytes with a list of events: chunks of these bytes between the marks
//! that open and close folders and files. One worker does everything to a batch while its bytes
//! are in the cache; the assembler puts the outcomes back in order. So a stream, a thousand small
//! files and several producers are one case. The number of batches is fixed, which bounds memory
//! whatever is read.
//!
//! Where there is more than one worker the feeder has long streams cut ahead, region by region (`ahead`), and digested by a
//! thread of its own (`digests`).
//!
//! Where the file or stream has a parent, its recipe is walked alongside (`parent`): an unknown chunk
//! that resembles one of the parent's is stored as its difference, and where a long stream holds what it
//! held, it is cut where it was cut, without being scanned (`along`).

mod ahead;
mod along;
mod assembler;
mod bases;
mod batch;
mod digests;
mod effort;
mod feeder;
mod metadata;
mod parent;
mod pipeline;
mod worker;

pub use assembler::TreeCounts;
pub use batch::{Event, FileEnd, Known};
pub use effort::Effort;
pub use feeder::{FeedError, Feeder, StreamEnd};
pub use metadata::{METADATA_FRAME_BYTES, MetadataWriter};
pub use parent::ParentWindow;
pub use pipeline::{IngestOptions, Ingested, ingest, ingest_file};
