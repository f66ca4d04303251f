//! The operations through the public API.

mod ahead;
mod base_cache;
mod cat;
mod catalogue;
mod check;
mod copy;
mod diff;
mod differences;
mod find;
mod forget;
mod in_place;
mod listing;
mod logs;
mod marks;
mod mirror;
mod order;
mod pieces;
mod restore;
mod retention;
mod stats;

#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path below a folder, from bytes.
pub fn below(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

/// A folder on a file system with attributes and holes.
pub fn scratch() -> tempfile::TempDir {
    tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
