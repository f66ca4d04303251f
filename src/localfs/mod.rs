//! The local file system: scanning, metadata, sparse files, durable restore writes.
//!
//! Paths and names are bytes. Everything is reached through open directories, one component at a
//! time and without following symbolic links, so that nobody who changes a tree while it is read
//! or written can lead the program out of it.
//!
//! | room | holds |
//! |---|---|
//! | `metadata`, `attributes`, `owners` | all that is known of a file without its content |
//! | `handles` | how many files may be open at once |
//! | `excludes`, `scan` | the walk over a source, in the order of a tree |
//! | `source` | an open file that notices when it changes while it is read |
//! | `target`, `writer`, `special`, `apply`, `remove` | writing a tree, content first, metadata last |

mod apply;
mod attributes;
mod error;
mod excludes;
mod handles;
mod metadata;
mod owners;
mod path;
mod remove;
mod scan;
mod source;
mod special;
mod target;
mod writer;

pub use error::LocalError;
pub use excludes::Excludes;
pub use handles::permit_many_handles;
pub use metadata::{FileKind, Metadata};
pub use owners::Owners;
pub use path::{check_component, path_text, printable};
pub use scan::{Entry, Scan, ScanEvent, ScanOptions};
pub use source::SourceFile;
pub use target::{Durability, Ownership, RESTORE_MARKER, RestoreOptions, TEMPORARY_PREFIX, TargetFolder};
pub use writer::{FileWriter, StandingFile};
