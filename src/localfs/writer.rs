//! Writing the content of one file, at any offsets, from any threads.
//!
//! A new file is written under a temporary name and renamed when it is complete, so that no half
//! file ever has the final name. The temporary name is the same in every run: a restore that was
//! interrupted leaves it, and the next one reads what is there ([`FileWriter::read_at`]) and writes
//! only what differs. A file that stands there already is the starting point likewise, and is
//! written in place; one that has other names too is first copied, because those names are not
//! part of the restore.

use super::apply;
use super::error::LocalError;
use super::metadata::Metadata;
use super::path::{check_component, join};
use super::source::open_entry;
use super::target::{Durability, TargetFolder, temporary_name};
use crate::direct::{DirectFile, DirectReader, DirectWriter, WORTHWHILE_BYTES};
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Zeros are looked for in blocks of this length, that of most file systems.
const BLOCK_BYTES: usize = 4096;
/// Shorter files are not worth allocating ahead.
const PREALLOCATE_BYTES_MIN: u64 = 1 << 20;
/// Longest piece that is copied or zeroed at once.
const PIECE_BYTES: usize = 1 << 20;

/// Where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Into a file that has no name yet but its temporary one.
    Temporary,
    /// Into the file that stood there.
    Standing,
    /// The file that stood there may only be read: it has other names, or cannot be written.
    ReadOnly,
}

#[derive(Debug, Clone)]
struct Current {
    file: Arc<File>,
    place: Place,
}

/// A file that is being restored. Dropping it keeps what was written for the next attempt.
#[derive(Debug)]
pub struct FileWriter {
    folder: TargetFolder,
    name: Vec<u8>,
    length: u64,
    existing_length: u64,
    identity: (u64, u64),
    current: RwLock<Current>,
    written: AtomicBool,
    /// Gathers what is written to a long file; `None` where that would not help.
    gathered: Mutex<Option<DirectWriter>>,
}

impl TargetFolder {
    /// Begins to restore a file of this length. Its space is taken at once, unless it has holes.
    pub fn create_file(&self, name: &[u8], length: u64, has_holes: bool) -> Result<FileWriter, LocalError> {
        check_component(name)?;
        let current = match self.open_unfinished(name)? {
            Some(unfinished) => unfinished,
            None => match self.open_standing(name)? {
                Some(standing) => standing,
                None => self.make_temporary(name)?,
            },
        };
        let failed = self.failed("look at", name);
        let stat = fs::fstat(&current.file).map_err(failed)?;
        let existing_length = u64::try_from(stat.st_size).unwrap_or(0);
        let is_new = current.place == Place::Temporary;
        let writer = FileWriter {
            folder: self.clone(),
            name: name.to_owned(),
            length,
            existing_length,
            identity: (stat.st_dev, stat.st_ino),
            current: RwLock::new(current),
            written: AtomicBool::new(is_new),
            gathered: Mutex::new(None),
        };
        if !has_holes && !self.shared.options.sparse {
            writer.preallocate()?;
        }
        Ok(writer)
    }

    /// Opens what [`TargetFolder::create_file`] would begin with, to be compared first. Nothing is
    /// made or changed.
    pub fn standing_file(&self, name: &[u8]) -> Result<Option<StandingFile>, LocalError> {
        check_component(name)?;
        match self.open_to_look(&temporary_name(name), is_ours)? {
            Some(unfinished) => Ok(Some(unfinished)),
            None => self.open_to_look(name, is_file),
        }
    }

    /// Opens the file that stands under a name, to read it.
    pub fn finished_file(&self, name: &[u8]) -> Result<Option<StandingFile>, LocalError> {
        check_component(name)?;
        self.open_to_look(name, is_file)
    }

    fn open_to_look(
        &self,
        name: &[u8],
        fits: impl Fn(&fs::Stat) -> bool,
    ) -> Result<Option<StandingFile>, LocalError> {
        // Devices and pipes are not even opened: that could have effects.
        let looked = fs::statat(self.handle(), name, AtFlags::SYMLINK_NOFOLLOW);
        if !looked.is_ok_and(|stat| fits(&stat)) {
            return Ok(None);
        }
        let Ok(file) = open_entry(self.handle(), name, false, OFlags::empty()) else { return Ok(None) };
        let stat = fs::fstat(&file).map_err(self.failed("look at", name))?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        let again = |flags| open_entry(self.handle(), name, false, flags).ok().map(File::from);
        Ok(fits(&stat).then(|| StandingFile {
            file: DirectFile::new(File::from(file), length, again),
            path: join(self.path(), name),
            length,
            identity: (stat.st_dev, stat.st_ino),
        }))
    }

    /// Finds what an interrupted restore left, if nobody else can have touched it.
    fn open_unfinished(&self, name: &[u8]) -> Result<Option<Current>, LocalError> {
        let temporary = temporary_name(name);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let stat = match fs::statat(self.handle(), &temporary, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(self.failed("look at", name))?,
        };
        if is_ours(&stat)
            && let Ok(file) = fs::openat(self.handle(), &temporary, flags, Mode::empty())
            && fs::fstat(&file).is_ok_and(|stat| is_ours(&stat))
        {
            let file = File::from(file);
            self.lock(&file, name)?;
            return Ok(Some(Current { file: Arc::new(file), place: Place::Temporary }));
        }
        self.unlink(&temporary)?;
        Ok(None)
    }

    /// Opens the file that stands under the final name, for writing if that is harmless.
    fn open_standing(&self, name: &[u8]) -> Result<Option<Current>, LocalError> {
        // Devices and pipes are not even opened: that could have effects.
        let stat = match fs::statat(self.handle(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(self.failed("look at", name))?,
        };
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Ok(None);
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = match fs::openat(self.handle(), name, flags, Mode::empty()) {
            Ok(file) => Ok((file, Place::Standing)),
            Err(_) => {
                open_entry(self.handle(), name, false, OFlags::empty()).map(|file| (file, Place::ReadOnly))
            }
        };
        // What cannot even be read is replaced.
        let Ok((file, place)) = opened else { return Ok(None) };
        let stat = fs::fstat(&file).map_err(self.failed("look at", name))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Ok(None);
        }
        let place = if stat.st_nlink == 1 { place } else { Place::ReadOnly };
        Ok(Some(Current { file: Arc::new(File::from(file)), place }))
    }

    fn make_temporary(&self, name: &[u8]) -> Result<Current, LocalError> {
        if self.is_folder(name) && !self.shared.options.replace_folders {
            let empty = fs::unlinkat(self.handle(), name, AtFlags::REMOVEDIR).is_ok();
            if !empty && self.is_folder(name) {
                let found = "a folder with content";
                return Err(LocalError::InTheWay { path: join(self.path(), name), found });
            }
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(self.handle(), temporary_name(name), flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                let file = File::from(file);
                self.lock(&file, name)?;
                Ok(Current { file: Arc::new(file), place: Place::Temporary })
            }
            Err(Errno::EXIST) => Err(LocalError::Busy { path: join(self.path(), name) }),
            Err(errno) => Err(self.failed("make", name)(errno)),
        }
    }

    /// Keeps two restores from writing one unfinished file.
    fn lock(&self, file: &File, name: &[u8]) -> Result<(), LocalError> {
        match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => Err(LocalError::Busy { path: join(self.path(), name) }),
            // Where locks do not exist, two restores at once are the user's affair.
            _ => Ok(()),
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // Whoever wants to know whether it was all written finishes the file.
        let _ = self.flush();
    }
}

impl FileWriter {
    /// Returns how much of an earlier file there is to compare with; 0 if there is none.
    pub fn existing_length(&self) -> u64 {
        self.existing_length
    }

    /// Reads what stands at an offset now, until the buffer is full or the file ends.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, LocalError> {
        self.flush()?;
        read_full(&self.current().file, offset, buffer).map_err(|source| self.io("read", source))
    }

    /// Returns device and inode of the file that this one began with.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Writes bytes at an offset, within the length of the file.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), LocalError> {
        let end = u64::try_from(bytes.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > self.length) {
            return Err(self.failed(Errno::FBIG));
        }
        let file = self.writable()?;
        if !self.folder.shared.options.sparse {
            return self.put(&file, offset, bytes);
        }
        for (start, piece) in runs(offset, bytes) {
            if is_zero(piece) {
                let length = u64::try_from(piece.len()).unwrap_or(0);
                self.hole(start, length)?;
            } else {
                self.put(&file, start, piece)?;
            }
        }
        Ok(())
    }

    fn put(&self, file: &File, offset: u64, bytes: &[u8]) -> Result<(), LocalError> {
        let written = if self.length < WORTHWHILE_BYTES {
            file.write_all_at(bytes, offset)
        } else {
            let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            if gathered.is_none() {
                *gathered = DirectWriter::new(file);
            }
            match gathered.as_mut() {
                Some(direct) => direct.write_at(file, offset, bytes),
                None => file.write_all_at(bytes, offset),
            }
        };
        written.map_err(|source| self.io("write", source))
    }

    /// Hands what was gathered to the system, so that the file shows all that was written.
    fn flush(&self) -> Result<(), LocalError> {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = gathered.as_mut().map_or(Ok(()), |direct| direct.flush(&self.current().file));
        flushed.map_err(|source| self.io("write", source))
    }

    /// Makes a range read as zeros, without occupying disk where the file system can do that.
    pub fn hole(&self, offset: u64, length: u64) -> Result<(), LocalError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| self.failed(Errno::FBIG))?;
        self.flush()?;
        if !self.has_data(&self.current().file, offset, end)? {
            return Ok(());
        }
        let file = self.writable()?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fs::fallocate(&file, punch, offset, length) {
            Ok(()) => return Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {}
            Err(errno) => return Err(self.failed(errno)),
        }
        let zeros = vec![0; PIECE_BYTES];
        let mut at = offset;
        while at < end {
            let piece = usize::try_from(end - at).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
            let zeros = zeros.get(..piece).unwrap_or_default();
            file.write_all_at(zeros, at).map_err(|source| self.io("write", source))?;
            at += u64::try_from(piece).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Completes the file: its length, its metadata, its durability, its name, in this order.
    ///
    /// Returns what of the metadata this system or this user could not set.
    pub fn finish(self, metadata: &Metadata) -> Result<Vec<LocalError>, LocalError> {
        self.flush()?;
        let size = fs::fstat(&self.current().file).map_err(|errno| self.failed(errno))?.st_size;
        if u64::try_from(size) != Ok(self.length) {
            fs::ftruncate(self.writable()?, self.length).map_err(|errno| self.failed(errno))?;
        }
        let mut current = self.current();
        if current.place == Place::ReadOnly && !self.may_change_metadata(&current.file, metadata)? {
            self.writable()?;
            current = self.current();
        }
        let (shared, path) = (&self.folder.shared, join(self.folder.path(), &self.name));
        let problems = apply::apply(current.file.as_fd(), false, metadata, shared, &path)?;
        if shared.options.durability == Durability::EachFile {
            fs::fsync(&current.file).map_err(|errno| LocalError::system("sync", &path, errno))?;
        }
        if current.place == Place::Temporary {
            self.folder.publish(&temporary_name(&self.name), &self.name)?;
        }
        Ok(problems)
    }

    /// Stops before the file is whole and keeps what was written, under its unfinished name, for the
    /// next attempt or for whoever can use a part; returns where that is. What was not written reads
    /// as zeros.
    pub fn keep(self) -> Result<Vec<u8>, LocalError> {
        self.flush()?;
        let place = self.current().place;
        if place != Place::Temporary {
            return Ok(join(self.folder.path(), &self.name));
        }
        Ok(join(self.folder.path(), &temporary_name(&self.name)))
    }

    /// Gives up: an unfinished file is removed; one that was being written in place stays as it is.
    pub fn discard(self) -> Result<(), LocalError> {
        match self.current().place {
            Place::Temporary => self.folder.unlink(&temporary_name(&self.name)),
            Place::Standing | Place::ReadOnly => Ok(()),
        }
    }

    /// Says whether anything was written: false means that so far a file stands there that was
    /// only read.
    pub fn was_written(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, errno: Errno) -> LocalError {
        self.folder.failed("write", &self.name)(errno)
    }

    fn io(&self, operation: &'static str, source: std::io::Error) -> LocalError {
        LocalError::System { operation, path: join(self.folder.path(), &self.name), source }
    }

    /// Returns the file to write to, after making a copy of one that must not be written to.
    fn writable(&self) -> Result<Arc<File>, LocalError> {
        self.written.store(true, Ordering::Relaxed);
        let current = self.current();
        if current.place != Place::ReadOnly {
            return Ok(current.file);
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.place == Place::ReadOnly {
            let copy = self.folder.make_temporary(&self.name)?;
            self.copy(&current.file, &copy.file)?;
            *current = copy;
        }
        Ok(current.file.clone())
    }

    /// A file with one name is the restore's own; that of several is only touched where that
    /// changes nothing.
    fn may_change_metadata(&self, file: &File, metadata: &Metadata) -> Result<bool, LocalError> {
        let alone = fs::fstat(file).map_err(|errno| self.failed(errno))?.st_nlink == 1;
        Ok(alone || apply::is_applied(file.as_fd(), metadata, &self.folder.shared))
    }

    fn copy(&self, from: &File, to: &File) -> Result<(), LocalError> {
        // Shares the blocks where the file system can, else copies what is not a hole.
        if fs::ioctl_ficlone(to, from).is_ok() {
            return Ok(());
        }
        let size = u64::try_from(fs::fstat(from).map_err(|errno| self.failed(errno))?.st_size).unwrap_or(0);
        let size = size.min(self.length);
        let mut buffer = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < size
            && let Some(start) = self.next_data(from, at)?.filter(|start| *start < size)
        {
            let piece = usize::try_from(size - start).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES));
            let target = buffer.get_mut(..piece).unwrap_or_default();
            let read = from.read_at(target, start).map_err(|source| self.io("read", source))?;
            if read == 0 {
                break;
            }
            let target = target.get(..read).unwrap_or_default();
            to.write_all_at(target, start).map_err(|source| self.io("write", source))?;
            at = start + u64::try_from(read).unwrap_or(u64::MAX);
        }
        fs::ftruncate(to, size).map_err(|errno| self.failed(errno))
    }

    /// Returns where data begins at or after an offset; `None` if only a hole follows.
    fn next_data(&self, file: &File, offset: u64) -> Result<Option<u64>, LocalError> {
        match fs::seek(file, SeekFrom::Data(offset)) {
            Ok(start) => Ok(Some(start)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(Some(offset)),
            Err(errno) => Err(self.failed(errno)),
        }
    }

    fn has_data(&self, file: &File, offset: u64, end: u64) -> Result<bool, LocalError> {
        Ok(offset < end && self.next_data(file, offset)?.is_some_and(|start| start < end))
    }

    /// Takes the space of a long file at once: it lies together, and a full disk is noticed first.
    fn preallocate(&self) -> Result<(), LocalError> {
        let current = self.current();
        let more = self.length.saturating_sub(self.existing_length);
        if current.place == Place::ReadOnly || more < PREALLOCATE_BYTES_MIN {
            return Ok(());
        }
        match fs::fallocate(&current.file, FallocateFlags::KEEP_SIZE, self.existing_length, more) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(self.failed(errno)),
            _ => Ok(()),
        }
    }
}

/// A file that stands in a target already, read to see what of it can stay.
#[derive(Debug)]
pub struct StandingFile {
    file: DirectFile,
    path: Vec<u8>,
    length: u64,
    identity: (u64, u64),
}

impl StandingFile {
    /// Returns its length.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns its device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Reads at an offset until the buffer is full or the file ends.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, LocalError> {
        read_full(self.file.plain(), offset, buffer).map_err(|source| self.failed_to_read(source))
    }

    /// Reads `length` bytes at an offset, or as many as there are before the file ends: what the system does not
    /// hold in memory comes past it from the disk.
    pub fn read_once<'a>(
        &self,
        offset: u64,
        length: usize,
        reader: &'a mut DirectReader,
    ) -> Result<&'a [u8], LocalError> {
        reader.read(&self.file, offset, length).map_err(|source| self.failed_to_read(source))
    }

    fn failed_to_read(&self, source: std::io::Error) -> LocalError {
        LocalError::System { operation: "read", path: self.path.clone(), source }
    }

    /// Asks the system to forget what it holds of the file in memory, so that reading it again reads
    /// the disk. Only what is durable already can be forgotten.
    pub fn forget_cached(&self) {
        // Only a hint to the kernel.
        let _ = fs::fadvise(self.file.plain(), 0, None, fs::Advice::DontNeed);
    }
}

fn read_full(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn is_file(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file()
}

/// An unfinished file of this user, that nobody else can have written to.
fn is_ours(stat: &fs::Stat) -> bool {
    is_file(stat)
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_nlink == 1
        && stat.st_mode & 0o022 == 0
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}

/// Splits bytes into runs of blocks that are all zero and runs of blocks that are not; blocks lie
/// where they lie in the file.
fn runs(offset: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let block = u64::try_from(BLOCK_BYTES).unwrap_or(1);
    let misaligned = usize::try_from(offset % block).unwrap_or(0);
    let head = if misaligned == 0 { 0 } else { (BLOCK_BYTES - misaligned).min(bytes.len()) };
    let (head, rest) = bytes.split_at(head);
    let mut runs: Vec<(u64, &[u8])> = Vec::new();
    let mut start = 0;
    let mut at = head.len();
    let mut zero = is_zero(head) && !head.is_empty();
    let mut cut = |from: usize, to: usize| {
        if let Some(piece) = bytes.get(from..to).filter(|piece| !piece.is_empty()) {
            runs.push((offset.saturating_add(u64::try_from(from).unwrap_or(u64::MAX)), piece));
        }
    };
    for piece in rest.chunks(BLOCK_BYTES) {
        let piece_zero = is_zero(piece);
        if piece_zero != zero {
            cut(start, at);
            start = at;
            zero = piece_zero;
        }
        at += piece.len();
    }
    cut(start, at);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_everything_once_and_tell_zeros_apart() {
        let mut bytes = vec![0; 5 * BLOCK_BYTES + 100];
        bytes[2 * BLOCK_BYTES + 7] = 1;
        for offset in [0, 4096, 1, 4095, 8192 + 50] {
            let mut at = offset;
            for (start, piece) in runs(offset, &bytes) {
                assert_eq!(start, at);
                at += piece.len() as u64;
            }
            assert_eq!(at, offset + bytes.len() as u64);
        }
        let lengths = |offset, bytes| -> Vec<(usize, bool)> {
            runs(offset, bytes).into_iter().map(|(_, piece)| (piece.len(), is_zero(piece))).collect()
        };
        assert_eq!(lengths(0, &bytes), [(8192, true), (4096, false), (8292, true)]);
        assert_eq!(lengths(0, &bytes[..100]), [(100, true)]);
        assert!(lengths(0, &[]).is_empty());
        assert_eq!(lengths(10, &[0; 20]), [(20, true)]);
    }
}
