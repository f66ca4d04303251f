//! An open file of a source: read at offsets, with its holes, and watched for changes.

use super::error::LocalError;
use super::metadata::{FileKind, Metadata};
use super::owners::Owners;
use rustix::fs::{self, Advice, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

/// Opens one entry of a folder; without touching its access time where that is permitted.
///
/// Nothing is waited for (a pipe would hang), no terminal taken, no symbolic link followed unless
/// asked.
pub(super) fn open_entry(
    folder: BorrowedFd<'_>,
    name: &[u8],
    follow: bool,
    more: OFlags,
) -> Result<std::os::fd::OwnedFd, Errno> {
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    match fs::openat(folder, name, flags | OFlags::NOATIME, fs::Mode::empty()) {
        // Only the owner may ask for that.
        Err(Errno::PERM) => fs::openat(folder, name, flags, fs::Mode::empty()),
        result => result,
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    path: Vec<u8>,
    found: Metadata,
}

impl SourceFile {
    /// Takes an opened file, if it is still the one that was found.
    pub(super) fn new(file: File, path: Vec<u8>, found: Metadata) -> Result<Self, LocalError> {
        let source = Self { file, path, found };
        let now = source.metadata()?;
        if (now.device, now.inode, now.kind) != (source.found.device, source.found.inode, FileKind::File) {
            return Err(LocalError::Replaced { path: source.path });
        }
        // Only a hint to the kernel.
        let _ = fs::fadvise(&source.file, 0, None, Advice::Sequential);
        Ok(source)
    }

    /// Returns the length that the file had when it was found.
    pub fn size(&self) -> u64 {
        self.found.size
    }

    /// Reads at an offset until the buffer is full or the file ends; returns how much was read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, LocalError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(LocalError::System { operation: "read", path: self.path.clone(), source });
                }
            }
        }
        Ok(filled)
    }

    /// Returns the first range at or after `offset` that holds data, up to the next hole; `None`
    /// if nothing but a hole follows.
    ///
    /// Where the file system does not know, all is data. A hole reads as zeros either way.
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, LocalError> {
        if offset >= self.found.size {
            return Ok(None);
        }
        let failed = |errno| LocalError::system("find the holes of", &self.path, errno);
        let start = match fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP | Errno::SPIPE) => return Ok(Some(offset..self.found.size)),
            Err(errno) => return Err(failed(errno)),
        };
        let end = match fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(self.found.size),
            // The file became shorter; reading will find its end.
            Err(Errno::NXIO) => self.found.size,
            Err(errno) => return Err(failed(errno)),
        };
        Ok((start < self.found.size && start < end).then_some(start..end))
    }

    /// Says whether the file was written to since it was found; asked once all is read.
    ///
    /// A file whose time stands still while it changes (a memory-mapped one, a coarse clock) can
    /// hide it; content that is not of one moment is then the program's to repair, as after a crash.
    pub fn check_unchanged(&self) -> Result<(), LocalError> {
        let now = self.metadata()?;
        let what = if now.size != self.found.size {
            "its length"
        } else if now.modified != self.found.modified {
            "its modification time"
        } else if now.changed != self.found.changed {
            "its metadata"
        } else {
            return Ok(());
        };
        Err(LocalError::Changed { path: self.path.clone(), what })
    }

    fn metadata(&self) -> Result<Metadata, LocalError> {
        let failed = |errno| LocalError::system("look at", &self.path, errno);
        let stat = fs::fstat(&self.file).map_err(failed)?;
        Metadata::from_stat(&stat, &Owners::default()).ok_or_else(|| failed(Errno::NOTSUP))
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
