//! Setting metadata, in the order that lets nothing undo what came before: owner (which clears
//! setuid and capabilities), attributes, mode, and the times last.

use super::attributes::{self, Attributes, path_through};
use super::error::LocalError;
use super::metadata::{FileKind, Metadata};
use super::target::{Ownership, Shared};
use crate::base::Timestamp;
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// A file whose metadata is being set.
struct Subject<'a> {
    handle: BorrowedFd<'a>,
    /// The handle only names the file (it is a link, a pipe, a device) and cannot be read.
    path_only: bool,
    path: &'a [u8],
    problems: Vec<LocalError>,
}

/// Sets all metadata through an open handle; what this user or system cannot set is returned.
pub(super) fn apply(
    handle: BorrowedFd<'_>,
    path_only: bool,
    wanted: &Metadata,
    shared: &Shared,
    path: &[u8],
) -> Result<Vec<LocalError>, LocalError> {
    let failed = |errno| LocalError::system("set the metadata of", path, errno);
    let found = fs::fstat(handle).map_err(failed)?;
    let mut subject = Subject { handle, path_only, path, problems: Vec::new() };
    let (user_is_right, group_is_right) = match owner(wanted, shared) {
        Some(owner) => subject.set_owner(&found, owner),
        None => (wanted.uid == found.st_uid, wanted.gid == found.st_gid),
    };
    subject.set_attributes(&wanted.attributes)?;
    let found = fs::fstat(handle).map_err(failed)?;
    subject.set_mode(&found, safe_mode(wanted, user_is_right, group_is_right))?;
    subject.set_times(&found, wanted)?;
    Ok(subject.problems)
}

/// Says whether nothing would be set: a file with several names is then left alone.
pub(super) fn is_applied(handle: BorrowedFd<'_>, wanted: &Metadata, shared: &Shared) -> bool {
    let Ok(stat) = fs::fstat(handle) else { return false };
    let owner = owner(wanted, shared);
    let (uid, gid) = owner.unwrap_or((wanted.uid, wanted.gid));
    let (user_is_right, group_is_right) = (uid == stat.st_uid, gid == stat.st_gid);
    (owner.is_none() || (user_is_right && group_is_right))
        && safe_mode(wanted, user_is_right, group_is_right) == stat.st_mode & 0o7777
        && times_of(&stat).1 == Some(wanted.modified)
        && attributes::read_path(&path_through(handle, None), true)
            .is_ok_and(|attributes| attributes == wanted.attributes)
}

/// Gives the owner of a folder all permissions, without following a link that takes its place.
pub(super) fn permit_owner(folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = fs::openat(folder, name, flags, Mode::empty())?;
    let mode = Mode::from_raw_mode(fs::fstat(&handle)?.st_mode & 0o7777);
    if mode.contains(Mode::RWXU) {
        return Err(Errno::ACCESS);
    }
    fs::chmod(path_through(handle.as_fd(), None), mode | Mode::RWXU)
}

/// Returns the numbers of the wanted owner and group here; `None` where they are not set.
fn owner(wanted: &Metadata, shared: &Shared) -> Option<(u32, u32)> {
    let by_name = || {
        let uid = wanted.user.as_deref().and_then(|user| shared.owners.uid(user));
        let gid = wanted.group.as_deref().and_then(|group| shared.owners.gid(group));
        (uid.unwrap_or(wanted.uid), gid.unwrap_or(wanted.gid))
    };
    match shared.options.ownership {
        Ownership::ByName => Some(by_name()),
        Ownership::ByNumber => Some((wanted.uid, wanted.gid)),
        Ownership::Own => None,
    }
}

/// A program must not run with the rights of somebody whose it is not.
fn safe_mode(wanted: &Metadata, user_is_right: bool, group_is_right: bool) -> u32 {
    let mut mode = wanted.mode;
    if wanted.kind != FileKind::Directory {
        if !user_is_right {
            mode &= !0o4000;
        }
        if !group_is_right {
            mode &= !0o2000;
        }
    }
    mode
}

fn times_of(stat: &Stat) -> (Option<Timestamp>, Option<Timestamp>) {
    let time = |seconds, nanoseconds| Timestamp::from_parts(seconds, u32::try_from(nanoseconds).unwrap_or(0));
    (time(stat.st_atime, stat.st_atime_nsec), time(stat.st_mtime, stat.st_mtime_nsec))
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds(), tv_nsec: time.subsecond_nanoseconds().into() }
}

impl Subject<'_> {
    fn failed(&self, errno: Errno) -> LocalError {
        LocalError::system("set the metadata of", self.path, errno)
    }

    fn missing(&mut self, what: String) {
        self.problems.push(LocalError::NotRestored { path: self.path.to_owned(), what });
    }

    /// Returns whether user and group are what they should be.
    fn set_owner(&mut self, found: &Stat, owner: (u32, u32)) -> (bool, bool) {
        let (uid, gid) = owner;
        if (uid, gid) == (found.st_uid, found.st_gid) {
            return (true, true);
        }
        let set = |uid: Option<u32>, gid: Option<u32>| {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            fs::chownat(self.handle, "", uid, gid, AtFlags::EMPTY_PATH)
        };
        // The number of all ones means "leave it" to the system, and a hostile snapshot may name it.
        if uid != u32::MAX && gid != u32::MAX {
            if set(Some(uid), Some(gid)).is_ok() {
                return (true, true);
            }
            // Who is not root may still give a file to another of his groups.
            if uid == found.st_uid && set(None, Some(gid)).is_ok() {
                return (true, true);
            }
        }
        self.missing(format!("its owner {uid}:{gid}"));
        (uid == found.st_uid, gid == found.st_gid)
    }

    fn set_attributes(&mut self, wanted: &Attributes) -> Result<(), LocalError> {
        let path = path_through(self.handle, None);
        let found = attributes::read_path(&path, true).map_err(|errno| self.failed(errno))?;
        for (name, _) in &found {
            // Others are the system's own business (labels, for example) and come by themselves.
            let ours = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
            if ours && !wanted.iter().any(|(wanted, _)| wanted == name) {
                match fs::removexattr(&path, name.as_slice()) {
                    Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
                    Err(errno) => return Err(self.failed(errno)),
                }
            }
        }
        for (name, value) in wanted {
            if found.iter().any(|(found, present)| found == name && present == value) {
                continue;
            }
            if let Err(errno) = fs::setxattr(&path, name.as_slice(), value, XattrFlags::empty()) {
                match errno {
                    Errno::IO | Errno::ROFS => return Err(self.failed(errno)),
                    _ => self.missing(format!("its attribute {}", super::printable(name))),
                }
            }
        }
        Ok(())
    }

    fn set_mode(&mut self, found: &Stat, mode: u32) -> Result<(), LocalError> {
        let kind = fs::FileType::from_raw_mode(found.st_mode);
        if kind.is_symlink() || found.st_mode & 0o7777 == mode {
            return Ok(());
        }
        let wanted = Mode::from_raw_mode(mode);
        let result = if self.path_only {
            fs::chmod(path_through(self.handle, None), wanted)
        } else {
            fs::fchmod(self.handle, wanted)
        };
        match result {
            Ok(()) => Ok(()),
            Err(Errno::PERM | Errno::NOTSUP) => {
                self.missing(format!("its mode {mode:o}"));
                Ok(())
            }
            Err(errno) => Err(self.failed(errno)),
        }
    }

    fn set_times(&mut self, found: &Stat, wanted: &Metadata) -> Result<(), LocalError> {
        if times_of(found) == (Some(wanted.accessed), Some(wanted.modified)) {
            return Ok(());
        }
        let times = Timestamps {
            last_access: timespec(wanted.accessed),
            last_modification: timespec(wanted.modified),
        };
        let result = if self.path_only {
            fs::utimensat(self.handle, "", &times, AtFlags::EMPTY_PATH)
        } else {
            fs::futimens(self.handle, &times)
        };
        match result {
            Ok(()) => Ok(()),
            Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {
                self.missing("its times".to_owned());
                Ok(())
            }
            Err(errno) => Err(self.failed(errno)),
        }
    }
}
