//! Read-only memory maps of immutable files: the one module with `unsafe` code.
//!
//! A map is sound only while nobody changes or truncates the mapped file. The files that are
//! mapped are cache segments: written under a temporary name, synced, renamed into place and
//! never written again; the program itself only ever unlinks them, which leaves maps intact. The
//! cache folder belongs to the user alone (mode 0700), so another writer would be the user's own
//! process tampering with its own memory.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// The bytes of an immutable file, mapped read-only.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps a whole file that nobody will change while the map lives.
    ///
    /// # Errors
    ///
    /// What the operating system says: an empty file or a file system without maps among others.
    pub fn open(file: &File) -> io::Result<Self> {
        // SAFETY: the module's documentation says why no one changes the file under the map.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
