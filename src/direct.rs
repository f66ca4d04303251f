//! Writing and reading past the page cache.
//!
//! Packs and restored files are long, written once, and rarely read again soon by this machine.
//! Through the page cache each byte is copied, takes a page from what a database server nearby had
//! cached, and is written back later by somebody else's time. [`DirectWriter`] gathers neighbouring
//! bytes in one aligned buffer and hands them to the disk itself (`O_DIRECT`); what is not whole
//! blocks, or too little to be worth a request, goes through the page cache as always. On file systems
//! that are not known to do this well, there is no writer and nothing changes.
//!
//! Neither way makes anything durable: the caller syncs.
//!
//! [`DirectReader`] is the same for files that are read once, from their beginning to their end: what the
//! system holds in memory is copied from there, the rest comes from the disk itself and takes nobody's
//! page. Where the system has to find memory for the pages first, as a virtual machine that gives back
//! what it does not use, this takes half of the time.

use crate::mapping;
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
    buffer: Aligned,
    /// Where in the file the gathered bytes belong: a multiple of [`BLOCK_BYTES`].
    offset: u64,
    filled: usize,
    flags: OFlags,
    /// Whether the file is open for direct requests at the moment.
    direct: bool,
    /// Set once the file system has said no.
    refused: bool,
}

/// Whole blocks of memory that begin at a multiple of their size.
struct Aligned {
    memory: Vec<u8>,
    /// Where in `memory` the first block begins.
    begin: usize,
}

impl Aligned {
    /// Takes this many bytes, a multiple of [`BLOCK_BYTES`].
    fn new(bytes: usize) -> Option<Self> {
        let memory = vec![0; bytes + BLOCK_BYTES];
        let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
        // The standard library may answer that it cannot tell.
        (begin < BLOCK_BYTES).then_some(Self { memory, begin })
    }

    fn len(&self) -> usize {
        self.memory.len() - BLOCK_BYTES
    }

    fn get(&self, from: usize, to: usize) -> &[u8] {
        self.memory.get(self.begin + from..self.begin + to).unwrap_or_default()
    }

    fn get_mut(&mut self, from: usize, to: usize) -> &mut [u8] {
        self.memory.get_mut(self.begin + from..self.begin + to).unwrap_or_default()
    }
}

/// Says whether a file lies on a file system of a disk of this machine on which this is worth it.
pub fn is_on_disk(file: &File) -> bool {
    let kind = fs::fstatfs(file).ok().and_then(|found| u64::try_from(found.f_type).ok());
    kind.is_some_and(|kind| FILE_SYSTEMS.contains(&kind))
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
        if !is_on_disk(file) {
            return None;
        }
        let flags = fs::fcntl_getfl(file).ok()?;
        let buffer = Aligned::new(BUFFER_BYTES)?;
        Some(Self { buffer, offset: 0, filled: 0, flags, direct: false, refused: false })
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
            let mut room = self.buffer.get_mut(self.filled, BUFFER_BYTES);
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
            file.write_all_at(self.buffer.get(done, filled), self.offset + done as u64)?;
        }
        Ok(())
    }

    /// Writes whole blocks directly; returns how many bytes are done, fewer where the file system
    /// turns out not to take them.
    fn write_blocks(&mut self, file: &File, whole: usize) -> io::Result<usize> {
        let mut done = 0;
        while done < whole && !self.refused {
            match file.write_at(self.buffer.get(done, whole), self.offset + done as u64) {
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

/// A file opened for [`DirectReader`] in both ways.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    /// The same file, open for direct requests, where they are worth it.
    past: Option<File>,
}

impl DirectFile {
    /// Takes an open file of this length; `again` opens the same one with `O_DIRECT`, and is not asked where that
    /// is not worth it.
    pub fn new(file: File, length: u64, again: impl FnOnce(OFlags) -> Option<File>) -> Self {
        let is_worth = length >= WORTHWHILE_BYTES && is_on_disk(&file);
        let place = |file: &File| fs::fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino));
        let past = if is_worth { again(OFlags::DIRECT) } else { None };
        // The name may mean another file by now.
        let past = past.filter(|past| place(past).is_some() && place(past) == place(&file));
        Self { file, past }
    }

    /// The file, open as always.
    pub fn plain(&self) -> &File {
        &self.file
    }
}

/// Reads stretches of files into one buffer that is used again and again.
#[derive(Default)]
pub struct DirectReader {
    buffer: Option<Aligned>,
}

impl fmt::Debug for DirectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are somebody's data.
        f.debug_struct("DirectReader").finish_non_exhaustive()
    }
}

impl DirectReader {
    /// Reads `length` bytes at an offset, or as many as there are before the file ends.
    ///
    /// # Errors
    ///
    /// What the file system says, and [`io::ErrorKind::OutOfMemory`] where no buffer of that length can be had.
    pub fn read(&mut self, file: &DirectFile, offset: u64, length: usize) -> io::Result<&[u8]> {
        // What is asked for, within whole blocks.
        let over = usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or(0);
        let blocks = over.saturating_add(length).next_multiple_of(BLOCK_BYTES);
        if self.buffer.as_ref().is_none_or(|buffer| buffer.len() < blocks) {
            self.buffer = Aligned::new(blocks.max(BUFFER_BYTES));
        }
        let Some(buffer) = &mut self.buffer else { return Err(io::ErrorKind::OutOfMemory.into()) };
        let begin = offset - over as u64;
        let mut filled = 0;
        if let Some(past) = &file.past
            && blocks >= DIRECT_BYTES_MIN
            && !mapping::is_cached(&file.file, begin, blocks)
        {
            filled = read_blocks(past, begin, buffer.get_mut(0, blocks));
        }
        // What the direct request has not brought: all of it, its end, or nothing.
        let mut from = filled.max(over);
        while from < over + length {
            match file.file.read_at(buffer.get_mut(from, over + length), begin + from as u64) {
                Ok(0) => break,
                Ok(read) => from += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(buffer.get(over, from.min(over + length)))
    }
}

/// Reads whole blocks directly; returns how many bytes that brought. Whatever goes wrong is found out by
/// whoever reads the rest in the usual way.
fn read_blocks(file: &File, offset: u64, blocks: &mut [u8]) -> usize {
    let mut filled = 0;
    while let Some(rest) = blocks.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                // The end of the file, or a request that was cut: the next one would not be aligned.
                if read % BLOCK_BYTES != 0 {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder beside this program: on a disk, where temporary files may be in memory.
    fn folder() -> tempfile::TempDir {
        tempfile::TempDir::new_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
    }

    /// Whatever is asked for, wherever it lies: the same bytes as by ordinary reading, from memory and from the disk.
    #[test]
    fn reading_past_the_cache_gives_the_same_bytes() {
        let folder = folder();
        let path = folder.path().join("file");
        let bytes: Vec<u8> =
            (0..3_000_123_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut file = File::create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        let file = File::open(&path).unwrap();
        let again = |flags: OFlags| {
            fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC | flags, fs::Mode::empty()).ok().map(File::from)
        };
        let file = DirectFile::new(file, bytes.len() as u64, again);
        let mut reader = DirectReader::default();
        let stretches = [
            (0, 1),
            (0, 4096),
            (1, 300_000),
            (4096, 1 << 20),
            (4097, (1 << 20) + 5),
            (0, 4_000_000),
            (2_999_000, 400_000),
            (3_000_123, 10),
            (9_000_000, 300_000),
        ];
        for cached in [true, false] {
            for (offset, length) in stretches {
                if !cached {
                    let _ = fs::fadvise(file.plain(), 0, None, fs::Advice::DontNeed);
                }
                let to = bytes.len().min(offset + length);
                let expected = bytes.get(offset..to).unwrap_or_default();
                let read = reader.read(&file, offset as u64, length).unwrap();
                assert!(read == expected, "{length} bytes at {offset}, cached: {cached}");
            }
        }
    }

    #[test]
    fn a_name_that_means_another_file_by_now_is_not_read() {
        let folder = folder();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        std::fs::write(&other, vec![2; 1 << 20]).unwrap();
        let file = DirectFile::new(File::open(&path).unwrap(), 1 << 20, |_| File::open(&other).ok());
        let _ = fs::fadvise(file.plain(), 0, None, fs::Advice::DontNeed);
        let mut reader = DirectReader::default();
        assert!(reader.read(&file, 0, 1 << 20).unwrap().iter().all(|byte| *byte == 1));
    }
}
