//! Restoring what has no content: symbolic links, pipes, devices, and the note about sockets.

use super::apply;
use super::error::LocalError;
use super::metadata::{FileKind, Metadata};
use super::path::{check_component, join};
use super::target::{TargetFolder, is_special, temporary_name};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

impl TargetFolder {
    /// Makes a symbolic link, a pipe or a device, in place of what has the name now, with all its
    /// metadata. Returns what this system or this user could not make or set; a socket is always
    /// that, because only the program that listens on it can make it.
    pub fn create_special(&self, name: &[u8], metadata: &Metadata) -> Result<Vec<LocalError>, LocalError> {
        check_component(name)?;
        let missing =
            |what: String| Ok(vec![LocalError::NotRestored { path: join(self.path(), name), what }]);
        if metadata.kind == FileKind::Socket {
            return missing("a socket".to_owned());
        }
        if !is_special(metadata.kind) {
            return Err(self.failed("make", name)(Errno::INVAL));
        }
        if self.stands(name, metadata)? {
            let handle = self.open_special(name)?;
            // With other names elsewhere its metadata is not ours alone to change.
            let alone = fs::fstat(&handle).map_err(self.failed("look at", name))?.st_nlink == 1;
            if alone || apply::is_applied(handle.as_fd(), metadata, &self.shared) {
                return self.apply_special(&handle, name, metadata);
            }
        }
        let temporary = temporary_name(name);
        self.unlink(&temporary)?;
        match self.make_special(&temporary, metadata) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => {
                return missing(metadata.kind.describe().to_owned());
            }
            Err(errno) => return Err(self.failed("make", name)(errno)),
        }
        let handle = self.open_special(&temporary)?;
        let problems = self.apply_special(&handle, name, metadata)?;
        self.publish(&temporary, name)?;
        Ok(problems)
    }

    /// Says whether the right thing stands there already, but for its metadata.
    fn stands(&self, name: &[u8], metadata: &Metadata) -> Result<bool, LocalError> {
        Ok(self.status(name)?.is_some_and(|found| {
            found.kind == metadata.kind
                && found.target == metadata.target
                && found.device_number == metadata.device_number
        }))
    }

    fn make_special(&self, name: &[u8], metadata: &Metadata) -> Result<(), Errno> {
        let (major, minor) = metadata.device_number.unwrap_or_default();
        let device = fs::makedev(major, minor);
        let node = |kind| {
            // Nobody else may use it before its owner and mode are set.
            let device = if kind == FileType::Fifo { 0 } else { device };
            fs::mknodat(self.handle(), name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        match metadata.kind {
            FileKind::Symlink => {
                let target = metadata.target.as_deref().unwrap_or_default();
                fs::symlinkat(target, self.handle(), name)
            }
            FileKind::Fifo => node(FileType::Fifo),
            FileKind::CharacterDevice => node(FileType::CharacterDevice),
            FileKind::BlockDevice => node(FileType::BlockDevice),
            FileKind::File | FileKind::Directory | FileKind::Socket => Err(Errno::INVAL),
        }
    }

    /// Gets hold of a thing without opening it: no device notices, no link is followed.
    fn open_special(&self, name: &[u8]) -> Result<OwnedFd, LocalError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(self.handle(), name, flags, Mode::empty()).map_err(self.failed("look at", name))
    }

    fn apply_special(
        &self,
        handle: &OwnedFd,
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<Vec<LocalError>, LocalError> {
        let path = join(self.path(), name);
        let stat = fs::fstat(handle).map_err(self.failed("look at", name))?;
        if FileKind::of(&stat) != Some(metadata.kind) {
            return Err(LocalError::Replaced { path });
        }
        apply::apply(handle.as_fd(), true, metadata, &self.shared, &path)
    }

    /// Says whether something stands under the name and is a folder.
    pub(super) fn is_folder(&self, name: &[u8]) -> bool {
        fs::statat(self.handle(), name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
    }
}
