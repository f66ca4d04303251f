//! The folder in which a client keeps what it knows of a repository.

use crate::base::Timestamp;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Age from which a file that is being written is taken for one whose writer is dead.
const STALE_AFTER_SECONDS: u64 = 24 * 60 * 60;

/// Removes files that dead processes did not finish. A folder that cannot be read or written is no
/// error, and a writer that slept for a day finds its file gone and does without the cache.
pub(super) fn remove_stale(folder: &Path, now: Timestamp) {
    let now_seconds = u64::try_from(now.nanoseconds() / 1_000_000_000).unwrap_or(0);
    for folder in [folder.to_owned(), folder.join("index")] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "partial") {
                continue;
            }
            let modified = entry.metadata().ok().filter(fs::Metadata::is_file);
            let modified = modified.and_then(|metadata| metadata.modified().ok());
            let age = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            if age.is_some_and(|since| now_seconds.saturating_sub(since.as_secs()) > STALE_AFTER_SECONDS) {
                let _ = fs::remove_file(path);
            }
        }
    }
}
