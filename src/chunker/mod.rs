//! Where content is cut: cut points, recognition of database files, similarity sketches.
//!
//! Bytes in, positions out: nothing here reads, hashes for identity or compresses.
//!
//! - `cutter`: content-defined cut points for streams, fixed ones for database files
//! - `sketch`: which chunks resemble each other, without comparing them
//! - `database`: is this file a database file, and what is its page?
//! - `compressed`: is this content already compressed, so that nothing can be saved?

mod compressed;
mod cutter;
mod database;
mod error;
mod sketch;

pub use compressed::{CompressedKind, compressed_kind};
pub use cutter::{CutParameters, Cutter, GearTable, PageCutter};
pub use database::{DatabaseFile, DatabaseKind, RECOGNISE_BYTES, recognise};
pub use error::ChunkerError;
pub use sketch::{SKETCH_ALGORITHM, Sketch, Sketcher};
