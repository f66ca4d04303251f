//! Publishing and removing objects.
//!
//! The order of a `put`, and what a crash after each step leaves:
//!
//! 1. the folder is made and its parent synced, earlier where a put was expected: an empty folder;
//! 2. a temporary file is written under `tmp/`: a temporary, never listed, removed after a day;
//! 3. the file is synced: the same;
//! 4. it gets its name, without replacing: the whole object, perhaps not durable;
//! 5. the folder is synced: the whole object.
//!
//! A failed sync is final. The kernel reports a lost write-back once and then forgets it, so what
//! was written is thrown away and written anew, and after a failed sync of a folder this process
//! publishes nothing more.

use super::super::names::TEMPORARY_FOLDER;
use super::super::{Operation, PutOutcome, StorageError};
use super::reserve::RESERVE_NAME;
use super::{LocalStore, length};
use crate::direct::DirectWriter;
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Age from which a temporary file is taken for one whose writer is dead.
pub const STALE_AFTER_SECONDS: i64 = 24 * 60 * 60;

/// Objects from this length on are written past the page cache. Of a segment of a log, which has one to two MiB, the
/// memory for it and the second request for its end take longer than the copy: 2.1 ms instead of 1.4. Whoever follows
/// the log reads it soon, besides.
const DIRECT_FROM_BYTES: usize = 4 << 20;

/// Syncs a folder, where the file system knows how to.
pub(super) fn sync_folder(folder: impl AsFd) -> Result<(), Errno> {
    match fs::fsync(folder) {
        // File systems without such a thing (some network ones) say that the request is invalid.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        result => result,
    }
}

/// Writes an object into its empty file.
fn write_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let long = bytes.len() >= DIRECT_FROM_BYTES;
    match long.then(|| DirectWriter::new(file)).flatten() {
        Some(mut direct) => {
            direct.write_at(file, 0, bytes)?;
            direct.flush(file)
        }
        None => file.write_all(bytes),
    }
}

fn folder_of(name: &str) -> &str {
    name.rfind('/').and_then(|slash| name.get(..slash)).unwrap_or("")
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// An unfinished file, removed again unless it got a name.
struct Temporary<'a> {
    store: &'a LocalStore,
    path: String,
    published: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::unlinkat(&self.store.root, &self.path, AtFlags::empty());
        }
    }
}

impl LocalStore {
    pub(super) fn put_new(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        let operation = Operation::Put;
        if self.stands_already(operation, name, bytes)? {
            return Ok(PutOutcome::Existed);
        }
        self.publish(operation, name, bytes, |temporary| self.name_without_replacing(temporary, name))
            .or_else(|error| match self.stands_already(operation, name, bytes)? {
                true => Ok(PutOutcome::Existed),
                false => Err(error),
            })
    }

    pub(super) fn put_over(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let rename = |temporary: &mut Temporary<'_>| {
            fs::renameat(&self.root, &temporary.path, &self.root, name)?;
            temporary.published = true;
            Ok(())
        };
        self.publish(Operation::Replace, name, bytes, rename).map(|_| ())
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        match fs::unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) => self.sync(Operation::Delete, name, folder_of(name)),
            // Missing, or not a file and so no object.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => Ok(()),
            Err(errno) => Err(StorageError::from_errno(Operation::Delete, name, errno)),
        }
    }

    /// Removes temporaries that have not been touched for a day, and tells how many.
    ///
    /// Ages are taken by the file system's own clock, from a file made for the purpose. A writer
    /// that slept for longer than a day finds its temporary gone and writes it again.
    pub(super) fn remove_stale(&self) -> Result<usize, StorageError> {
        let failed = |errno| StorageError::from_errno(Operation::Clean, TEMPORARY_FOLDER, errno);
        let (probe, file) = self.temporary(Operation::Clean, TEMPORARY_FOLDER)?;
        let now = fs::fstat(&file).map_err(failed)?.st_mtime;
        drop((probe, file));
        let folder = self.open_folder(TEMPORARY_FOLDER).map_err(failed)?;
        let mut removed = 0;
        for entry in fs::Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(stat) = fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_file = fs::FileType::from_raw_mode(stat.st_mode).is_file();
            let is_reserve = entry.file_name().to_bytes() == RESERVE_NAME.as_bytes();
            if is_file && !is_reserve && now.saturating_sub(stat.st_mtime) > STALE_AFTER_SECONDS {
                match fs::unlinkat(&folder, entry.file_name(), AtFlags::empty()) {
                    Ok(()) => removed += 1,
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
        }
        Ok(removed)
    }

    /// Writes a temporary, gives it its name by `name_it`, and syncs in the order above; once more where the disk is
    /// full and there is room that was kept back for this.
    fn publish(
        &self,
        operation: Operation,
        name: &str,
        bytes: &[u8],
        name_it: impl Fn(&mut Temporary<'_>) -> Result<(), Errno>,
    ) -> Result<PutOutcome, StorageError> {
        match self.publish_once(operation, name, bytes, &name_it) {
            Err(StorageError::NoSpace { .. })
                if self.draws.load(Ordering::Relaxed) && self.give_reserve(bytes.len()) =>
            {
                self.publish_once(operation, name, bytes, &name_it)
            }
            published => published,
        }
    }

    fn publish_once(
        &self,
        operation: Operation,
        name: &str,
        bytes: &[u8],
        name_it: &impl Fn(&mut Temporary<'_>) -> Result<(), Errno>,
    ) -> Result<PutOutcome, StorageError> {
        let failed = |errno| StorageError::from_errno(operation, name, errno);
        let folder = folder_of(name);
        let mut attempts_left = 2;
        loop {
            attempts_left -= 1;
            self.make_folder(operation, name, folder)?;
            let attempt = self.temporary(operation, name).and_then(|(mut temporary, mut file)| {
                write_whole(&mut file, bytes).map_err(|error| failed(errno(&error)))?;
                fs::fsync(&file).map_err(failed)?;
                name_it(&mut temporary).map_err(failed)
            });
            match attempt {
                Ok(()) => break,
                // Somebody removed a folder, or the temporary of a writer that slept for days.
                Err(StorageError::NotFound { .. }) if attempts_left > 0 => self.forget_folders(),
                Err(error) => return Err(error),
            }
        }
        self.sync(operation, name, folder)?;
        Ok(PutOutcome::Created)
    }

    /// Gives a temporary its name in a way that fails if the name is taken.
    fn name_without_replacing(&self, temporary: &mut Temporary<'_>, name: &str) -> Result<(), Errno> {
        let root = &self.root;
        match fs::renameat_with(root, &temporary.path, root, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                temporary.published = true;
                Ok(())
            }
            // File systems without that flag have links, which never replace either; the temporary
            // name is removed when the temporary is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                fs::linkat(root, &temporary.path, root, name, AtFlags::empty())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Says whether these very bytes stand under the name, durably; other bytes are a conflict.
    fn stands_already(&self, operation: Operation, name: &str, bytes: &[u8]) -> Result<bool, StorageError> {
        let (mut file, stat) = match self.open_object(operation, name) {
            Ok(found) => found,
            Err(StorageError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let failed = |errno| StorageError::from_errno(operation, name, errno);
        let same = u64::try_from(bytes.len()) == Ok(length(&stat))
            && same_bytes(&mut file, bytes).map_err(|error| failed(errno(&error)))?;
        if !same {
            return Err(StorageError::Conflict { operation, name: name.to_owned() });
        }
        // Its writer may not have come to its own sync, or may have been another program.
        fs::fsync(&file).map_err(failed)?;
        self.make_folder(operation, name, folder_of(name))?;
        self.sync(operation, name, folder_of(name))?;
        Ok(true)
    }

    /// Makes a new file under `tmp/`; the number of the process and a counter keep writers apart,
    /// and a name that is taken (another machine's, a dead writer's) is passed over.
    fn temporary(&self, operation: Operation, name: &str) -> Result<(Temporary<'_>, File), StorageError> {
        self.make_folder(operation, name, TEMPORARY_FOLDER)?;
        let process = rustix::process::getpid().as_raw_pid();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            let number = self.counter.fetch_add(1, Ordering::Relaxed);
            let path = format!("{TEMPORARY_FOLDER}/{process}-{number}");
            match fs::openat(&self.root, &path, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok((Temporary { store: self, path, published: false }, File::from(file))),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(StorageError::from_errno(operation, name, errno)),
            }
        }
    }

    fn open_folder(&self, folder: &str) -> Result<OwnedFd, Errno> {
        let path = if folder.is_empty() { "." } else { folder };
        fs::openat(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Makes a folder and those above it, each name durable before anything is put into it.
    ///
    /// A folder that exists is synced as well when this process first meets it: its maker may have
    /// died between making and syncing.
    pub(super) fn make_folder(
        &self,
        operation: Operation,
        name: &str,
        folder: &str,
    ) -> Result<(), StorageError> {
        if folder.is_empty() || self.folders.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        self.make_folder(operation, name, folder_of(folder))?;
        match fs::mkdirat(&self.root, folder, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(StorageError::from_errno(operation, name, errno)),
        }
        // Temporaries may be lost, so may their folder.
        if folder != TEMPORARY_FOLDER {
            self.sync(operation, name, folder_of(folder))?;
        }
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    fn forget_folders(&self) {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes the names in a folder durable, or gives up on this store for good.
    fn sync(&self, operation: Operation, name: &str, folder: &str) -> Result<(), StorageError> {
        if self.distrusted.load(Ordering::Acquire) {
            let source =
                "a folder could not be synced earlier, so nothing written here can be trusted".into();
            return Err(StorageError::Fatal { operation, name: name.to_owned(), source });
        }
        self.open_folder(folder).and_then(sync_folder).map_err(|errno| {
            self.distrusted.store(true, Ordering::Release);
            StorageError::from_errno(operation, name, errno)
        })
    }
}

fn same_bytes(file: &mut File, mut bytes: &[u8]) -> std::io::Result<bool> {
    let mut buffer = vec![0; 1 << 17];
    while !bytes.is_empty() {
        let read = file.read(&mut buffer)?;
        match (buffer.get(..read), bytes.split_at_checked(read)) {
            (Some(found), Some((wanted, rest))) if read > 0 && found == wanted => bytes = rest,
            _ => return Ok(false),
        }
    }
    Ok(true)
}
