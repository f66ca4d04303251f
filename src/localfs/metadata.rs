//! All that is known of a file without reading its content.

use super::attributes;
use super::error::LocalError;
use super::owners::Owners;
use super::path::join;
use crate::base::Timestamp;
use rustix::fs::{self, AtFlags, Stat};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// What kind of thing a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket; only its metadata can be kept.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

impl FileKind {
    pub(super) fn of(stat: &Stat) -> Option<Self> {
        Some(match fs::FileType::from_raw_mode(stat.st_mode) {
            fs::FileType::RegularFile => Self::File,
            fs::FileType::Directory => Self::Directory,
            fs::FileType::Symlink => Self::Symlink,
            fs::FileType::Fifo => Self::Fifo,
            fs::FileType::Socket => Self::Socket,
            fs::FileType::CharacterDevice => Self::CharacterDevice,
            fs::FileType::BlockDevice => Self::BlockDevice,
            _ => return None,
        })
    }

    /// Names the kind for people, with its article.
    pub fn describe(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Directory => "a folder",
            Self::Symlink => "a symbolic link",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
        }
    }
}

/// Everything about a file but its name and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Name of the owner, where this machine knows one.
    pub user: Option<Arc<str>>,
    /// Name of the group, where this machine knows one.
    pub group: Option<Arc<str>>,
    /// When the content was last written.
    pub modified: Timestamp,
    /// When content or metadata last changed. Nobody can set this one at will.
    pub changed: Timestamp,
    /// When the content was last read.
    pub accessed: Timestamp,
    /// Number of the file system.
    pub device: u64,
    /// Number of the file on its file system.
    pub inode: u64,
    /// How many names the file has.
    pub links: u64,
    /// Length in bytes.
    pub size: u64,
    /// Bytes it occupies on disk.
    pub allocated: u64,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device_number: Option<(u32, u32)>,
    /// Extended attributes with POSIX access control lists, sorted by name.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    /// Reads the metadata of one entry of a folder. A symbolic link is followed only if asked.
    pub(super) fn read(
        folder: BorrowedFd<'_>,
        folder_path: &[u8],
        name: &[u8],
        follow: bool,
        owners: &Owners,
    ) -> Result<Self, LocalError> {
        let failed = |errno| LocalError::reading("look at", &join(folder_path, name), errno);
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let stat = fs::statat(folder, name, flags).map_err(failed)?;
        let mut metadata = Self::from_stat(&stat, owners).ok_or_else(|| failed(Errno::NOTSUP))?;
        if metadata.kind == FileKind::Symlink {
            let target = fs::readlinkat(folder, name, Vec::new()).map_err(failed)?;
            metadata.target = Some(target.into_bytes());
        }
        metadata.attributes = attributes::read(folder, name, follow).map_err(failed)?;
        Ok(metadata)
    }

    /// Takes what a `stat` holds: all but attributes and the target of a link.
    #[allow(clippy::useless_conversion, reason = "the widths of these fields differ between machines")]
    pub(super) fn from_stat(stat: &Stat, owners: &Owners) -> Option<Self> {
        let kind = FileKind::of(stat)?;
        let time =
            |seconds, nanoseconds: u64| Timestamp::from_parts(seconds, u32::try_from(nanoseconds).ok()?);
        let is_device = matches!(kind, FileKind::CharacterDevice | FileKind::BlockDevice);
        Some(Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            user: owners.user(stat.st_uid),
            group: owners.group(stat.st_gid),
            modified: time(stat.st_mtime, stat.st_mtime_nsec.into()).unwrap_or_default(),
            changed: time(stat.st_ctime, stat.st_ctime_nsec.into()).unwrap_or_default(),
            accessed: time(stat.st_atime, stat.st_atime_nsec.into()).unwrap_or_default(),
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            links: stat.st_nlink.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            target: None,
            device_number: is_device.then(|| (fs::major(stat.st_rdev), fs::minor(stat.st_rdev))),
            attributes: Vec::new(),
        })
    }

    /// Says whether the file occupies less than its length, and so has holes (or is compressed).
    pub fn may_have_holes(&self) -> bool {
        self.kind == FileKind::File && self.allocated < self.size
    }
}
