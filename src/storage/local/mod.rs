//! A repository in a directory of this machine.
//!
//! Durability is the point of this store. What stands under an object's name was complete and
//! synced before it got the name, and the name is synced before `put` returns; so a crash leaves
//! the object or nothing, never a part. Symbolic links inside the directory are followed: whoever
//! can place them there can do anything else to the repository too.
//!
//! All paths are resolved from one open handle of the directory, so that moving or remounting it
//! while the program runs can't split the repository in two.

mod list;
mod reserve;
mod write;

use super::{
    Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store, check_name, check_prefix, names,
};
use crate::base::Timestamp;
use rustix::buffer::spare_capacity;
use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use write::STALE_AFTER_SECONDS;

/// Keeps objects as files.
pub struct LocalStore {
    path: PathBuf,
    root: OwnedFd,
    /// Folders that exist and whose names are durable, as far as this process knows.
    folders: Mutex<HashSet<String>>,
    /// Numbers the temporary files of this process.
    counter: AtomicU64,
    /// Whether writes may use the reserve.
    draws: AtomicBool,
    /// Set once a folder could not be synced: from then on nothing can be promised any more.
    distrusted: AtomicBool,
}

impl LocalStore {
    /// Opens the store in an existing directory.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match fs::open(&path, flags, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::NOTDIR) => return Err(unsuitable(&path, "it is not a directory")),
            Err(errno) => return Err(failed_at(&path, errno)),
        };
        Ok(Self {
            path,
            root,
            folders: Mutex::new(HashSet::new()),
            counter: AtomicU64::new(0),
            draws: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
        })
    }

    /// Makes the directory, its missing parents included, or takes an empty one.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        make_folders(&path)?;
        let store = Self::open(path)?;
        let mut entries = fs::Dir::read_from(&store.root).map_err(|errno| failed_at(&store.path, errno))?;
        // A file system of its own has this folder from the start.
        let at_home: [&[u8]; 3] = [b".", b"..", b"lost+found"];
        if entries.any(|entry| entry.map_or(true, |e| !at_home.contains(&e.file_name().to_bytes()))) {
            return Err(unsuitable(&store.path, "the directory is not empty"));
        }
        Ok(store)
    }

    /// Says whether the directory is on a network or user-space file system, by the numbers in Linux's
    /// `magic.h`.
    fn is_distant(&self) -> bool {
        const FILE_SYSTEMS: [u64; 7] =
            [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x00c3_6400, 0x6573_5546];
        let kind = fs::fstatfs(&self.root).ok().and_then(|found| u64::try_from(found.f_type).ok());
        kind.is_some_and(|kind| FILE_SYSTEMS.contains(&kind))
    }

    fn open_object(&self, operation: Operation, name: &str) -> Result<(File, Stat), StorageError> {
        check_name(operation, name)?;
        let failed = |errno| match errno {
            Errno::NOTDIR => StorageError::from_errno(operation, name, Errno::NOENT),
            errno => StorageError::from_errno(operation, name, errno),
        };
        // Without NONBLOCK a pipe that someone put there would hang the reader.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = fs::openat(&self.root, name, flags, Mode::empty()).map_err(failed)?;
        let stat = fs::fstat(&file).map_err(failed)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(failed(Errno::NOENT));
        }
        Ok((File::from(file), stat))
    }
}

/// Makes a directory and its missing parents, each durable before the next.
fn make_folders(path: &Path) -> Result<(), StorageError> {
    match fs::mkdir(path, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOENT) => {
            let parent = path.parent().ok_or_else(|| failed_at(path, Errno::NOENT))?;
            make_folders(parent)?;
            fs::mkdir(path, Mode::RWXU).map_err(|errno| failed_at(path, errno))?;
        }
        Err(errno) => return Err(failed_at(path, errno)),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let sync = |parent| write::sync_folder(&fs::open(parent, flags, Mode::empty())?);
    sync(parent).map_err(|errno| failed_at(path, errno))
}

fn failed_at(path: &Path, errno: Errno) -> StorageError {
    StorageError::from_errno(Operation::Open, &path.display().to_string(), errno)
}

fn unsuitable(path: &Path, why: &'static str) -> StorageError {
    StorageError::Invalid { operation: Operation::Open, name: path.display().to_string(), why }
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn modified(stat: &Stat) -> Option<Timestamp> {
    Timestamp::from_parts(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).ok()?)
}

impl Store for LocalStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        names::check_object(Operation::Put, name, bytes)?;
        self.put_new(name, bytes)
    }

    fn expect_put(&self, folder: &str) {
        if check_name(Operation::Put, folder).is_ok() {
            // What goes wrong here goes wrong again when the object is put, and is told then.
            let _ = self.make_folder(Operation::Put, folder, folder);
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        names::check_object(Operation::Replace, name, bytes)?;
        self.put_over(name, bytes)
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let operation = Operation::Get;
        let (file, stat) = self.open_object(operation, name)?;
        let length_bytes = length(&stat);
        let capacity = usize::try_from(length_bytes).ok().filter(|_| length_bytes <= limit_bytes);
        let Some(capacity) = capacity else {
            return Err(StorageError::TooLarge {
                operation,
                name: name.to_owned(),
                length_bytes,
                limit_bytes,
            });
        };
        let mut bytes = Vec::with_capacity(capacity);
        let mut offset = 0;
        while offset < length_bytes {
            match rustix::io::pread(&file, spare_capacity(&mut bytes), offset) {
                Ok(0) => {
                    let (name, wanted_bytes) = (name.to_owned(), length_bytes);
                    return Err(StorageError::Truncated {
                        operation,
                        name,
                        length_bytes: offset,
                        wanted_bytes,
                    });
                }
                Ok(_) => offset = u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(StorageError::from_errno(operation, name, errno)),
            }
        }
        // The allocator may have given more room than asked for, and the file may have grown.
        bytes.truncate(capacity);
        Ok(bytes)
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length_wanted: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let operation = Operation::GetRange;
        let (file, stat) = self.open_object(operation, name)?;
        let wanted_bytes = offset.saturating_add(u64::try_from(length_wanted).unwrap_or(u64::MAX));
        let truncated = |length_bytes| StorageError::Truncated {
            operation,
            name: name.to_owned(),
            length_bytes,
            wanted_bytes,
        };
        if wanted_bytes > length(&stat) {
            return Err(truncated(length(&stat)));
        }
        let before = out.len();
        out.resize(before + length_wanted, 0);
        let result = out.get_mut(before..).map_or(Ok(()), |target| file.read_exact_at(target, offset));
        result.map_err(|error| {
            out.truncate(before);
            match error.raw_os_error() {
                Some(code) => StorageError::from_errno(operation, name, Errno::from_raw_os_error(code)),
                None => truncated(fs::fstat(&file).map_or(0, |stat| length(&stat))),
            }
        })
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        let (_, stat) = self.open_object(Operation::Head, name)?;
        Ok(ObjectInfo { name: name.to_owned(), length: length(&stat), modified: modified(&stat) })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        check_prefix(prefix)?;
        self.list_from(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        check_name(Operation::Delete, name)?;
        self.remove(name)
    }

    fn unfinished(&self) -> Result<Vec<ObjectInfo>, StorageError> {
        self.list_unfinished()
    }

    fn clean(&self) -> Result<usize, StorageError> {
        self.remove_stale()
    }

    fn keep_reserve(&self) {
        self.make_reserve();
    }

    fn draw_on_reserve(&self, may: bool) {
        self.draws.store(may, Ordering::Relaxed);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exclusive_put: true,
            consistent_list: true,
            modified_times: true,
            retry: false,
            distant: self.is_distant(),
        }
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }
}
