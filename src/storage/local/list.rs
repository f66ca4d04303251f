//! Listing: walks the folders that can hold names with the prefix. Whatever has no valid name
//! (temporaries, hidden files, a file system's own folders) is no object and is passed over.

use super::super::names::{NAME_BYTES_MAX, TEMPORARY_FOLDER, segment_is_valid};
use super::super::{ObjectInfo, Operation, StorageError};
use super::reserve::RESERVE_NAME;
use super::{LocalStore, length, modified};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

impl LocalStore {
    pub(super) fn list_from(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let start = prefix.rfind('/').map_or("", |slash| prefix.get(..slash).unwrap_or(""));
        let mut objects = Vec::new();
        let mut folders = vec![start.to_owned()];
        while let Some(folder) = folders.pop() {
            self.list_folder(&folder, prefix, &mut objects, &mut folders)
                .map_err(|errno| StorageError::from_errno(Operation::List, &folder, errno))?;
        }
        objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Lists the folder of unfinished writes.
    pub(super) fn list_unfinished(&self) -> Result<Vec<ObjectInfo>, StorageError> {
        let failed = |errno| StorageError::from_errno(Operation::List, TEMPORARY_FOLDER, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match fs::openat(&self.root, TEMPORARY_FOLDER, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            result => result.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Finished or removed since the folder was read.
            let Ok(stat) = fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_reserve = entry.file_name().to_bytes() == RESERVE_NAME.as_bytes();
            if FileType::from_raw_mode(stat.st_mode).is_file() && !is_reserve {
                let name = format!("{TEMPORARY_FOLDER}/{}", entry.file_name().to_string_lossy());
                found.push(ObjectInfo { name, length: length(&stat), modified: modified(&stat) });
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn list_folder(
        &self,
        folder: &str,
        prefix: &str,
        objects: &mut Vec<ObjectInfo>,
        folders: &mut Vec<String>,
    ) -> Result<(), Errno> {
        let path = if folder.is_empty() { "." } else { folder };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = match fs::openat(&self.root, path, flags, Mode::empty()) {
            // Never made, or a file of that name: no object lies under it.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            result => result?,
        };
        for entry in Dir::read_from(&handle)? {
            let entry = entry?;
            let segment = entry.file_name().to_bytes();
            let valid =
                segment_is_valid(segment) && !(folder.is_empty() && segment == TEMPORARY_FOLDER.as_bytes());
            let (true, Ok(segment)) = (valid, entry.file_name().to_str()) else { continue };
            let name = if folder.is_empty() { segment.to_owned() } else { format!("{folder}/{segment}") };
            if name.len() > NAME_BYTES_MAX || !(name.starts_with(prefix) || prefix.starts_with(&name)) {
                continue;
            }
            let stat = match fs::statat(&handle, entry.file_name(), AtFlags::empty()) {
                // Deleted since the folder was read.
                Err(Errno::NOENT) => continue,
                result => result?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => folders.push(name),
                FileType::RegularFile if name.starts_with(prefix) => {
                    objects.push(ObjectInfo { name, length: length(&stat), modified: modified(&stat) });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
