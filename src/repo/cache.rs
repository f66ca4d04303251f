//! The folder in which a client keeps what it knows of a repository.

use crate::base::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
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

/// Files that belong to a database, by what follows its name.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// What a database of one table is made of.
pub(super) struct Shape {
    /// The table's version; a file of another one is begun anew.
    pub version: i64,
    /// Length of its pages.
    pub page_bytes: u64,
    /// The statement that makes the table.
    pub table: &'static str,
}

/// A database of one table in the client's folder, of which everything can be had again.
///
/// What turns out damaged is removed, so that the next command begins anew. What another process keeps locked is
/// left alone. In both cases this process does without it from then on.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    given_up: bool,
}

impl Database {
    /// Opens or begins a database in a folder. A file that is none, is damaged, or is of another version, is begun
    /// anew: whatever was in it can be had again.
    ///
    /// # Errors
    ///
    /// When the folder or the file cannot be made, or another process keeps the file locked.
    pub fn open(folder: &Path, file: &str, shape: &Shape) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(file);
        let connection = connect(&path, shape)
            .or_else(|error| {
                // Another process may be at it.
                if !is_of_no_use(&error) {
                    return Err(error);
                }
                remove(&path);
                connect(&path, shape)
            })
            .map_err(io::Error::other)?;
        Ok(Self { connection, path, given_up: false })
    }

    /// Does something with the database; `None` where it cannot be used, or can be no more.
    pub fn attempt<T>(&mut self, does: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Option<T> {
        if self.given_up {
            return None;
        }
        match does(&mut self.connection) {
            Ok(done) => Some(done),
            Err(error) => {
                let damaged = is_of_no_use(&error);
                if damaged {
                    remove(&self.path);
                }
                // Each further attempt would wait as long for whoever holds the lock.
                self.given_up = damaged || is_busy(&error);
                None
            }
        }
    }
}

fn remove(path: &Path) {
    for suffix in SUFFIXES {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
}

/// Says whether a file is damaged, none of ours, or of another version: none of it gets better with time.
fn is_of_no_use(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::InvalidQuery => true,
        error => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

/// Says whether a database is ours; false where nothing is in it yet.
fn is_ours(connection: &Connection, shape: &Shape) -> rusqlite::Result<bool> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: Vec<String> = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'table'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    match tables.as_slice() {
        [] if version == 0 => Ok(false),
        [table] if version == shape.version && table == shape.table => Ok(true),
        _ => Err(rusqlite::Error::InvalidQuery),
    }
}

fn connect(path: &Path, shape: &Shape) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    // Nothing in it is readable without the key; yet nobody else has any business with it.
    let _ = fs::set_permissions(path, Permissions::from_mode(0o600));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if !is_ours(&connection, shape)? {
        connection.pragma_update(None, "page_size", i64::try_from(shape.page_bytes).unwrap_or(4096))?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        // Table and version in one step: of several that begin it at once one does.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !is_ours(&transaction, shape)? {
            transaction.execute_batch(shape.table)?;
            transaction.pragma_update(None, "user_version", shape.version)?;
        }
        transaction.commit()?;
    }
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}

/// Bytes that the rows take, to a page.
pub(super) fn taken(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(pages.saturating_mul(number("PRAGMA page_size")?)).unwrap_or(0))
}
