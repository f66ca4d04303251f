//! From what a snapshot keeps of a file to what the local file system sets.

use crate::format::tree::{EntryKind, TreeEntry};
use crate::localfs::{FileKind, Metadata};
use std::sync::Arc;

/// Returns what is to be set on a restored entry. What the snapshot does not say (a stream has no
/// owner) is what a file made now would have.
pub(super) fn metadata_of(entry: &TreeEntry) -> Metadata {
    let name = |name: &Option<Vec<u8>>| {
        name.as_ref().and_then(|name| std::str::from_utf8(name).ok()).map(Arc::<str>::from)
    };
    Metadata {
        kind: match entry.kind {
            EntryKind::File => FileKind::File,
            EntryKind::Directory => FileKind::Directory,
            EntryKind::Symlink => FileKind::Symlink,
            EntryKind::Fifo => FileKind::Fifo,
            EntryKind::Socket => FileKind::Socket,
            EntryKind::CharacterDevice => FileKind::CharacterDevice,
            EntryKind::BlockDevice => FileKind::BlockDevice,
        },
        mode: entry.mode,
        uid: entry.user_id.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
        gid: entry.group_id.unwrap_or_else(|| rustix::process::getegid().as_raw()),
        user: name(&entry.user_name),
        group: name(&entry.group_name),
        modified: entry.modified,
        changed: entry.changed.unwrap_or(entry.modified),
        accessed: entry.accessed.unwrap_or(entry.modified),
        device: 0,
        inode: 0,
        links: 1,
        size: entry.content.as_ref().map_or(0, |content| content.length),
        allocated: 0,
        target: entry.target.clone(),
        device_number: entry.device_numbers.map(|device| (device.major, device.minor)),
        attributes: entry
            .attributes
            .iter()
            .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
            .collect(),
    }
}
