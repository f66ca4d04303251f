//! Extended attributes, POSIX access control lists among them (`system.posix_acl_*`).
//!
//! There are no calls that take a folder's handle and a name, so paths go through the handle's
//! entry in `/proc/self/fd`; they cannot be led astray either.

use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Longest list of names and longest value that Linux knows.
const BYTES_MAX: usize = 1 << 16;

/// Names and values, sorted by name.
pub(super) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns a path to an entry of an open folder, or to the open file itself.
pub(super) fn path_through(handle: BorrowedFd<'_>, name: Option<&[u8]>) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", handle.as_raw_fd()).into_bytes();
    if let Some(name) = name {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// Reads all attributes of an entry of a folder, sorted by name; none where there is no such thing.
pub(super) fn read(folder: BorrowedFd<'_>, name: &[u8], follow: bool) -> Result<Attributes, Errno> {
    read_path(&path_through(folder, Some(name)), follow)
}

/// As [`read`], by a path from [`path_through`].
pub(super) fn read_path(path: &[u8], follow: bool) -> Result<Attributes, Errno> {
    let list = |buffer: &mut [u8]| if follow { listxattr(path, buffer) } else { llistxattr(path, buffer) };
    let names = match whole(list) {
        // No attributes on this file system, or no /proc.
        Err(Errno::NOTSUP | Errno::NOENT | Errno::NOSYS) => return Ok(Vec::new()),
        result => result?,
    };
    let mut attributes = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = whole(
            |buffer: &mut [u8]| {
                if follow { getxattr(path, name, buffer) } else { lgetxattr(path, name, buffer) }
            },
        );
        match value {
            Ok(value) => attributes.push((name.to_owned(), value)),
            // Removed since the list was read, or not for our eyes.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}

/// Reads into a small buffer first, as most files have no attributes at all.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match read(&mut small) {
        Err(Errno::RANGE) => {
            let mut large = vec![0; BYTES_MAX];
            let length = read(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        result => {
            let length = result?;
            Ok(small.get(..length).unwrap_or_default().to_vec())
        }
    }
}
