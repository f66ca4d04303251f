//! Writing past the page cache.
//!
//! Packs and restored files are long, written once, and rarely read again soon by this machine.
//! Through the page cache each byte is copied, takes a page from what a database server nearby had
//! cached, and is written back later by somebody else's time. [`DirectWriter`] gathers neighbouring
//! bytes in one aligned buffer and hands them to the disk itself (`O_DIRECT`); what is not whole
//! blocks, or too little to be worth a request, goes through the page cache as always. On file systems
//! that are not known to do this well, there is no writer and nothing changes.
//!
//! Neither way makes anything durable: the caller syncs.

use rustix::fs::{self, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;

/// What addresses, offsets and lengths of direct requests are multiples of: the largest block of the
/// file systems below, and a multiple of every usual disk's sector.
const BLOCK_BYTES: usize = 4096;
/// Longest request: measured, half or twice as much make no difference.
const BUFFER_BYTES: usize = 1 << 20;
/// Shorter stretches go through the page cache, which joins scattered ones into long requests.
const DIRECT_BYTES_MIN: usize = 256 << 10;
/// Files from this length on are worth a writer.
pub const WORTHWHILE_BYTES: u64 = 1 << 20;

/// ext2 to ext4, XFS and F2FS, by the numbers in Linux's `magic.h`. Network file systems would wait
/// for every request, and those that checksum or compress copy the bytes in any case.
const FILE_SYSTEMS: [u64; 3] = [0xef53, 0x5846_5342, 0xf2f5_2010];

/// Gathers what is written to one file.
///
/// Bytes may wait in it: [`DirectWriter::flush`] before anybody else looks at the file, and before its end.
pub struct DirectWriter {
    memory: Vec<u8>,
    /// Where in `memory` the aligned buffer begins.
    aligned: usize,
    /// Where in the file the gathered bytes belong: a multiple of [`BLOCK_BYTES`].
    offset: u64,
    filled: usize,
    flags: OFlags,
    /// Whether the file is open for direct requests at the moment.
    direct: bool,
    /// Set once the file system has said no.
    refused: bool,
}

impl fmt::Debug for DirectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are somebody's data.
        f.debug_struct("DirectWriter")
            .field("offset", &self.offset)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl DirectWriter {
    /// Prepares to write to a file, where its file system is one that gains by it.
    pub fn new(file: &File) -> Option<Self> {
        let kind = u64::try_from(fs::fstatfs(file).ok()?.f_type).ok()?;
        if !FILE_SYSTEMS.contains(&kind) {
            return None;
        }
        let flags = fs::fcntl_getfl(file).ok()?;
        let memory = vec![0; BUFFER_BYTES + BLOCK_BYTES];
        let aligned = memory.as_ptr().align_offset(BLOCK_BYTES);
        // The standard library may answer that it cannot tell.
        (aligned < BLOCK_BYTES).then_some(Self {
            memory,
            aligned,
            offset: 0,
            filled: 0,
            flags,
            direct: false,
            refused: false,
        })
    }

    /// Writes bytes at an offset, now or with those that follow. The file is always the same one.
    ///
    /// # Errors
    ///
    /// What the file system says, perhaps about bytes that were handed in earlier.
    pub fn write_at(&mut self, file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        if self.filled > 0 && self.offset.checked_add(self.filled as u64) != Some(offset) {
            self.flush(file)?;
        }
        while !bytes.is_empty() {
            if self.filled == 0 {
                let over = usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or(0);
                if over != 0 {
                    let (head, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - over));
                    self.set_direct(file, false)?;
                    file.write_all_at(head, offset)?;
                    offset += head.len() as u64;
                    bytes = rest;
                    continue;
                }
                self.offset = offset;
            }
            let from = self.aligned + self.filled;
            let mut room = self.memory.get_mut(from..self.aligned + BUFFER_BYTES).unwrap_or_default();
            let taken = room.write(bytes)?;
            self.filled += taken;
            offset += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.filled == BUFFER_BYTES {
                self.hand_on(file)?;
            }
        }
        Ok(())
    }

    /// Hands everything gathered to the file system; afterwards the file is open as it was at first.
    ///
    /// # Errors
    ///
    /// What the file system says; the gathered bytes are then forgotten.
    pub fn flush(&mut self, file: &File) -> io::Result<()> {
        let handed_on = self.hand_on(file);
        self.set_direct(file, false)?;
        handed_on
    }

    fn hand_on(&mut self, file: &File) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        let whole = filled - filled % BLOCK_BYTES;
        let mut done = 0;
        if whole >= DIRECT_BYTES_MIN && !self.refused {
            self.set_direct(file, true)?;
            done = self.write_blocks(file, whole)?;
        }
        if done < filled {
            self.set_direct(file, false)?;
            let rest = self.memory.get(self.aligned + done..self.aligned + filled).unwrap_or_default();
            file.write_all_at(rest, self.offset + done as u64)?;
        }
        Ok(())
    }

    /// Writes whole blocks directly; returns how many bytes are done, fewer where the file system
    /// turns out not to take them.
    fn write_blocks(&mut self, file: &File, whole: usize) -> io::Result<usize> {
        let mut done = 0;
        while done < whole && !self.refused {
            let blocks = self.memory.get(self.aligned + done..self.aligned + whole).unwrap_or_default();
            match file.write_at(blocks, self.offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    done += written;
                    // Half a block is the end of this way: the next request would not be aligned.
                    self.refused |= written % BLOCK_BYTES != 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    self.refused = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn set_direct(&mut self, file: &File, direct: bool) -> io::Result<()> {
        if direct == self.direct || (direct && self.refused) {
            return Ok(());
        }
        let flags = if direct { self.flags | OFlags::DIRECT } else { self.flags };
        match fs::fcntl_setfl(file, flags) {
            Ok(()) => self.direct = direct,
            Err(_) if direct => self.refused = true,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}
