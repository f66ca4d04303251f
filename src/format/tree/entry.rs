//! One name in a folder, with all that is known of it.

use super::Content;
use crate::base::{BlobId, Timestamp};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file, or a stream.
    File = 0,
    /// A folder.
    Directory = 1,
    /// A symbolic link.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A socket.
    Socket = 4,
    /// A character device.
    CharacterDevice = 5,
    /// A block device.
    BlockDevice = 6,
}

/// Numbers of a device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The device within the driver.
    pub minor: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedAttribute {
    /// Its name, namespace included.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// One name in a folder. What is not known is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The name: bytes, not empty, without `/` and NUL, neither `.` nor `..`.
    pub name: Vec<u8>,
    /// What it stands for.
    pub kind: EntryKind,
    /// Permission bits with set-user-id, set-group-id and sticky: the low twelve bits of the mode.
    pub mode: u32,
    /// Owner.
    pub user_id: Option<u32>,
    /// Group.
    pub group_id: Option<u32>,
    /// Owner's name on the source's host.
    pub user_name: Option<Vec<u8>>,
    /// Group's name on the source's host.
    pub group_name: Option<Vec<u8>>,
    /// When the content changed.
    pub modified: Timestamp,
    /// When the entry itself changed.
    pub changed: Option<Timestamp>,
    /// When the content was last read.
    pub accessed: Option<Timestamp>,
    /// The file system it lies on.
    pub device: Option<u64>,
    /// Its number there: with the device, what hard links share.
    pub inode: Option<u64>,
    /// How many names it has.
    pub links: Option<u64>,
    /// Size as the file system said; for files the content's length.
    pub size: Option<u64>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// Numbers of a device file.
    pub device_numbers: Option<Device>,
    /// Extended attributes, sorted strictly by name.
    pub attributes: Vec<ExtendedAttribute>,
    /// The folder's topmost tree node.
    pub subtree: Option<BlobId>,
    /// The file's content.
    pub content: Option<Content>,
    /// Fields of newer programs, kept as they were found.
    pub extra: Vec<(u64, Vec<u8>)>,
}
