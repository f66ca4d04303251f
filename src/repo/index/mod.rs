//! The index: which pack holds which blob.
//!
//! - `run`: the repository's own form, sealed and signed (`format-spec/index.md`);
//! - `segment`: the local form, memory-mapped, needing no loading;
//! - `numbered`: a number for every record, for operations over all of them;
//! - `set`: all segments together, kept in step with the repository's runs.

mod numbered;
mod run;
mod segment;
mod set;

pub use numbered::NumberedIndex;
pub use run::{RunOutline, decode_run, encode_run, outline_run};
pub use segment::{KnownPack, Located};
pub use set::{IndexSet, RunContent};
