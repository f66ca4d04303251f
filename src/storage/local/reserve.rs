//! Room that is kept back for the day when the disk is full.
//!
//! Whoever forgets and prunes has to write first: what is forgotten, that a prune is under way, what will be deleted. On
//! a disk without room none of that is possible, and nothing could be deleted ever again. So a file of zeros stands in
//! the folder of temporaries, which who writes in order to delete may make shorter, by as much as it takes. It is no
//! object, and nobody lists it.

use super::super::names::TEMPORARY_FOLDER;
use super::LocalStore;
use rustix::fs::{self, FallocateFlags, Mode, OFlags};

/// Name of the file in the folder of temporaries.
pub(super) const RESERVE_NAME: &str = "reserve";
/// Room that is kept back: the condemnations of some ten thousand packs, and what belongs to them.
const MOST_BYTES: u64 = 4 << 20;
/// Less would not do even for small repositories.
const LEAST_BYTES: u64 = 256 << 10;
/// Part of the room there is that is kept back at most.
const PART: u64 = 16;
/// What a file takes besides its bytes: what the file system knows of it, and of its folder.
const AROUND_BYTES: u64 = 32 << 10;

impl LocalStore {
    /// Makes the reserve as long as the room on the disk permits; never shorter. Whatever stands against it, nothing else
    /// depends on it.
    pub(super) fn make_reserve(&self) {
        let _ = fs::mkdirat(&self.root, TEMPORARY_FOLDER, Mode::RWXU);
        let Some((file, length)) = self.open_reserve(OFlags::CREATE) else { return };
        let free = fs::fstatvfs(&self.root).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
        let wanted = (free.saturating_add(length) / PART).min(MOST_BYTES);
        if wanted < LEAST_BYTES || wanted <= length {
            return;
        }
        if fs::fallocate(&file, FallocateFlags::empty(), 0, wanted).is_err() {
            // What was taken before the disk was full belongs to others.
            let _ = fs::ftruncate(&file, length);
        }
    }

    /// Gives so much of the reserve up that an object of this many bytes fits; returns whether there was any.
    pub(super) fn give_reserve(&self, bytes: usize) -> bool {
        let Some((file, length)) = self.open_reserve(OFlags::empty()).filter(|(_, length)| *length > 0)
        else {
            return false;
        };
        let left = length.saturating_sub((bytes as u64).saturating_add(AROUND_BYTES));
        fs::ftruncate(&file, left).is_ok()
    }

    fn open_reserve(&self, how: OFlags) -> Option<(rustix::fd::OwnedFd, u64)> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | how;
        let path = format!("{TEMPORARY_FOLDER}/{RESERVE_NAME}");
        let file = fs::openat(&self.root, path, flags, Mode::RUSR | Mode::WUSR).ok()?;
        let length = u64::try_from(fs::fstat(&file).ok()?.st_size).ok()?;
        Some((file, length))
    }
}
