//! The folder in which a client keeps what it knows of a repository.

use crate::base::Timestamp;
use rusqlite::Connection;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// How long another process that writes is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Opens or begins a database of one table in a folder. A file that is none, or is of another version, is
/// begun anew: whatever was in it can be had again.
///
/// # Errors
///
/// When the folder or the file cannot be made.
pub(super) fn open_database(
    folder: &Path,
    file: &str,
    version: i64,
    page_bytes: u64,
    table: &str,
) -> io::Result<Connection> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(file);
    connect(&path, version, page_bytes, table)
        .or_else(|error| {
            // Another process may be at it.
            if !is_of_no_use(&error) {
                return Err(error);
            }
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(folder.join(format!("{file}{suffix}")));
            }
            connect(&path, version, page_bytes, table)
        })
        .map_err(io::Error::other)
}

/// Says whether a file is none of ours, or of another version: neither gets better with time.
fn is_of_no_use(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::InvalidQuery => true,
        error => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
    }
}

fn connect(path: &Path, version: i64, page_bytes: u64, table: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // Nothing in it is readable without the key; yet nobody else has any business with it.
    let _ = fs::set_permissions(path, Permissions::from_mode(0o600));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == version {
        connection.pragma_update(None, "synchronous", "OFF")?;
        return Ok(connection);
    }
    if found != 0 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    connection.pragma_update(None, "page_size", i64::try_from(page_bytes).unwrap_or(4096))?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.execute_batch(table)?;
    connection.pragma_update(None, "user_version", version)?;
    Ok(connection)
}

/// Bytes that the rows take, to a page.
pub(super) fn taken(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(pages.saturating_mul(number("PRAGMA page_size")?)).unwrap_or(0))
}
