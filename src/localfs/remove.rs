//! Removing what is not in the snapshot: whole folders, by handles, never across a file system.

use super::apply;
use super::error::LocalError;
use super::path::{check_component, join};
use super::scan::Names;
use super::target::TargetFolder;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A folder that is being emptied.
struct Level {
    handle: OwnedFd,
    name: Vec<u8>,
    path: Vec<u8>,
    names: Vec<Vec<u8>>,
}

impl TargetFolder {
    /// Removes an entry, with all that lies in it; one that is missing is no error.
    ///
    /// Links are removed, not followed. A folder on which another file system is mounted stops the
    /// removal before anything in it is touched.
    pub fn remove(&self, name: &[u8]) -> Result<(), LocalError> {
        check_component(name)?;
        let path = join(self.path(), name);
        if remove_file(self.handle(), name, &path)? {
            return Ok(());
        }
        let device = fs::fstat(self.handle())
            .map_err(|errno| LocalError::system("look at", self.path(), errno))?
            .st_dev;
        let Some(first) = open_level(self.handle(), name, path, device)? else { return Ok(()) };
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.names.pop() {
                let path = join(&level.path, &name);
                if !remove_file(level.handle.as_fd(), &name, &path)? {
                    let next = open_level(level.handle.as_fd(), &name, path, device)?;
                    levels.extend(next);
                }
            } else if let Some(done) = levels.pop() {
                let parent = levels.last().map_or(self.handle(), |level| level.handle.as_fd());
                match fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(LocalError::system("remove", &done.path, errno)),
                }
            }
        }
        Ok(())
    }
}

/// Removes anything but a folder; says whether it is gone.
fn remove_file(folder: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<bool, LocalError> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(LocalError::system("remove", path, errno)),
    }
}

/// Opens a folder to empty it; `None` if it is gone.
fn open_level(
    parent: BorrowedFd<'_>,
    name: &[u8],
    path: Vec<u8>,
    device: u64,
) -> Result<Option<Level>, LocalError> {
    let failed = |errno| LocalError::system("remove", &path, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || fs::openat(parent, name, flags, Mode::empty());
    let handle = match open() {
        Err(Errno::ACCESS) => {
            apply::permit_owner(parent, name).map_err(failed)?;
            open()
        }
        result => result,
    };
    let handle = match handle {
        Err(Errno::NOENT) => return Ok(None),
        result => result.map_err(failed)?,
    };
    if fs::fstat(&handle).map_err(failed)?.st_dev != device {
        return Err(LocalError::InTheWay { path, found: "on another file system" });
    }
    // It may be readable and yet not permit removals.
    let _ = apply::permit_owner(parent, name);
    let names = Names::read(&handle).map_err(failed)?.to_vec();
    Ok(Some(Level { handle, name: name.to_owned(), path, names }))
}
