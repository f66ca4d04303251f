//! Read-only memory maps of immutable files: one of the three modules with `unsafe` code.
//!
//! A map is sound only while nobody changes or truncates the mapped file. The files that are
//! mapped are cache segments: written under a temporary name, synced, renamed into place and
//! never written again; the program itself only ever unlinks them, which leaves maps intact. The
//! cache folder belongs to the user alone (mode 0700), so another writer would be the user's own
//! process tampering with its own memory.
//!
//! [`is_cached`] maps other files too, and never looks into the map; [`Room`] is memory of no file.

use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;

/// Bytes of a large page.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Bytes from which on a file is worth two threads.
const WORTH_HALVING: usize = 4 << 20;

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

/// Memory for many bytes that live as long as a short process. In pages of 2 MiB, where the system has them for who asks:
/// finding 4096 pages one by one takes longer than reading 16 MiB into them.
#[derive(Debug)]
pub struct Room {
    memory: memmap2::MmapMut,
    filled: usize,
}

impl Room {
    /// Reads what there is, at most `length` bytes.
    ///
    /// # Errors
    ///
    /// What the reader says, and where there is no memory.
    pub fn read(reader: &mut dyn io::Read, length: usize) -> io::Result<Self> {
        let mut memory = Self::find(length)?;
        let filled = fill(memory.get_mut(..length).unwrap_or_default(), |rest, _| reader.read(rest))?;
        Ok(Self { memory, filled })
    }

    /// Reads the beginning of a file, at most `length` bytes, each half of it by a thread of its own: most of the time
    /// goes into finding memory.
    ///
    /// # Errors
    ///
    /// As [`Room::read`].
    pub fn read_file(file: &File, length: usize) -> io::Result<Self> {
        let mut memory = Self::find(length)?;
        let all = memory.get_mut(..length).unwrap_or_default();
        let half =
            if length >= WORTH_HALVING { (length / 2).next_multiple_of(HUGE_PAGE_BYTES) } else { length };
        let (left, right) = all.split_at_mut_checked(half).unwrap_or_default();
        let wanted = left.len();
        let (left, right) = std::thread::scope(|scope| {
            let right = (!right.is_empty())
                .then(|| scope.spawn(|| fill(right, |rest, at| file.read_at(rest, (wanted + at) as u64))));
            let left = fill(left, |rest, at| file.read_at(rest, at as u64));
            let panicked = |_| Err(io::Error::other("a thread panicked"));
            (left, right.map_or(Ok(0), |right| right.join().unwrap_or_else(panicked)))
        });
        let left = left?;
        // Nothing stands behind the end.
        let filled = if left == wanted { left + right? } else { left };
        Ok(Self { memory, filled })
    }

    fn find(length: usize) -> io::Result<memmap2::MmapMut> {
        let memory = memmap2::MmapMut::map_anon(length.max(1))?;
        // Where it is refused, pages are as small as always.
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(memory)
    }
}

/// Fills memory by `read`, which is told how much is there already; returns how much there was.
fn fill(memory: &mut [u8], mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = memory.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest, filled) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Deref for Room {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(..self.filled).unwrap_or_default()
    }
}

/// Says whether a stretch of a file lies in the system's memory, most of it at least, so that reading it does not
/// wait for a disk. Where the system does not tell (it does of files that one may write), the answer is yes.
pub fn is_cached(file: &File, offset: u64, length: usize) -> bool {
    let page = rustix::param::page_size();
    let over = usize::try_from(offset % page as u64).unwrap_or(0);
    let Some(whole) = length.checked_add(over).filter(|whole| *whole > over) else { return true };
    let mut pages = vec![0_u8; whole.div_ceil(page)];
    let (protection, flags) = (ProtFlags::empty(), MapFlags::SHARED);
    // SAFETY: a new map at an address of the system's choice, that nobody reads or writes through: it only
    // stands for the pages that are asked about, and is gone before this returns.
    let counted = unsafe {
        let map =
            rustix::mm::mmap(std::ptr::null_mut(), whole, protection, flags, file, offset - over as u64);
        map.map(|map| {
            // There is room for a byte of each page.
            let told = libc::mincore(map, whole, pages.as_mut_ptr()) == 0;
            let _ = rustix::mm::munmap(map, whole);
            told
        })
    };
    let resident = pages.iter().filter(|page| **page & 1 != 0).count();
    !matches!(counted, Ok(true)) || resident * 4 >= pages.len() * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_by_two_as_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..(5_u32 << 18) + 9).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        for length in [0, 1, WORTH_HALVING - 1, WORTH_HALVING, WORTH_HALVING + 1, content.len(), 9 << 20] {
            let wanted = content.get(..length).unwrap_or(&content);
            assert!(*Room::read_file(&file, length).unwrap() == *wanted, "{length}");
            assert!(*Room::read(&mut content.as_slice(), length).unwrap() == *wanted, "{length}");
        }
        // One that ends before the second half.
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(*Room::read_file(&file, 16 << 20).unwrap(), *b"short");
    }
}
