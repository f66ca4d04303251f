//! Room that is kept back for the day when the disk is full.
//!
//! Whoever forgets and prunes has to write first: what is forgotten, that a prune is under way, what will be deleted. On
//! a disk without room none of that is possible, and nothing could be deleted ever again. So a file of zeros stands in
//! the folder of temporaries, and who writes in order to delete may remove it. It is no object, and nobody lists it.

use super::super::names::TEMPORARY_FOLDER;
use super::LocalStore;
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags};

/// Name of the file in the folder of temporaries.
pub(super) const RESERVE_NAME: &str = "reserve";
/// Room that is kept back: the condemnations of some ten thousand packs, and what belongs to them.
const MOST_BYTES: u64 = 4 << 20;
/// Less would not do even for small repositories.
const LEAST_BYTES: u64 = 256 << 10;
/// Part of the room there is that is kept back at most.
const PART: u64 = 16;

fn path() -> String {
    format!("{TEMPORARY_FOLDER}/{RESERVE_NAME}")
}

impl LocalStore {
    /// Makes the reserve if it is not there and the disk has plenty of room. Whatever stands against it, nothing else
    /// depends on it.
    pub(super) fn make_reserve(&self) {
        if fs::statat(&self.root, path(), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return;
        }
        let room = fs::fstatvfs(&self.root).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
        let bytes = (room / PART).min(MOST_BYTES);
        if bytes < LEAST_BYTES {
            return;
        }
        let _ = fs::mkdirat(&self.root, TEMPORARY_FOLDER, Mode::RWXU);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(file) = fs::openat(&self.root, path(), flags, Mode::RUSR | Mode::WUSR) else { return };
        if fs::fallocate(&file, FallocateFlags::empty(), 0, bytes).is_err() {
            self.remove_reserve();
        }
    }

    /// Gives the reserve up; returns whether there was one.
    pub(super) fn remove_reserve(&self) -> bool {
        fs::unlinkat(&self.root, path(), AtFlags::empty()).is_ok()
    }
}
