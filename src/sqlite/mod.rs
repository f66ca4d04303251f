//! SQLite databases: how to take a consistent copy.
//!
//! A copy of the file of a database in use is worthless: pages of several moments, and a journal that
//! belongs to them. SQLite's backup API reads all pages of one moment, while others go on writing.

use crate::base::{Classify, ErrorClass, Observer, Phase};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages copied between two looks at the observer.
const STEP_PAGES: i32 = 1024;
/// How often the copy may begin again because somebody wrote, before it takes all pages in one step,
/// which makes writers wait.
const RESTARTS_MAX: u32 = 3;
/// How long a lock is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a database could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// SQLite refused.
    #[error("cannot {doing} the SQLite database {}", path.display())]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database is locked by somebody for longer than is waited.
    #[error("the SQLite database {} is locked", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The target exists.
    #[error("{} exists already", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl Classify for SqliteError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::CannotOpen) => ErrorClass::NotFound,
                Some(ErrorCode::NotADatabase) => ErrorClass::Usage,
                Some(ErrorCode::DatabaseCorrupt) => ErrorClass::Corrupt,
                _ => ErrorClass::Fatal,
            },
            Self::Locked { .. } => ErrorClass::Transient,
            Self::Exists { .. } => ErrorClass::Usage,
            Self::Interrupted => ErrorClass::Interrupted,
        }
    }
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyReport {
    /// Length of the copy in bytes.
    pub bytes: u64,
    /// How often it began again because the database was written to.
    pub restarts: u32,
}

/// Copies the state of a database at one moment into a new file, while others may go on using it.
///
/// # Errors
///
/// When the source is no database or stays locked, the target exists, or the user stopped it; no
/// target is left behind then.
pub fn copy(source: &Path, target: &Path, observer: &dyn Observer) -> Result<CopyReport, SqliteError> {
    if target.exists() {
        return Err(SqliteError::Exists { path: target.to_owned() });
    }
    let report = copy_pages(source, target, observer);
    if report.is_err() {
        // What failed is being reported; a part of a copy must not be taken for one.
        let _ = std::fs::remove_file(target);
    }
    report
}

fn copy_pages(source: &Path, target: &Path, observer: &dyn Observer) -> Result<CopyReport, SqliteError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| SqliteError::Sqlite { doing, path, source }
    };
    // Not read-only: a database in write-ahead mode may need its shared memory file made.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(source, flags).map_err(failed("open", source))?;
    from.busy_timeout(BUSY_TIMEOUT).map_err(failed("open", source))?;
    let page_bytes: u32 =
        from.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed("read", source))?;
    let page_bytes = u64::from(page_bytes);
    let mut to = Connection::open(target).map_err(failed("write", target))?;
    let backup = Backup::new(&from, &mut to).map_err(failed("copy", source))?;
    let (mut done, mut restarts) = (0, 0);
    loop {
        if observer.interrupted() {
            return Err(SqliteError::Interrupted);
        }
        let pages = if restarts > RESTARTS_MAX { -1 } else { STEP_PAGES };
        let step = backup.step(pages).map_err(failed("copy", source))?;
        let progress = backup.progress();
        let copied = u64::try_from(progress.pagecount - progress.remaining).unwrap_or(0);
        // Without a restart every step copies something.
        if copied <= done {
            restarts += 1;
        } else {
            observer.advance(Phase::Backup, (copied - done) * page_bytes, 0);
        }
        done = copied;
        match step {
            StepResult::Done => return Ok(CopyReport { bytes: done * page_bytes, restarts }),
            StepResult::Busy | StepResult::Locked => {
                return Err(SqliteError::Locked { path: source.to_owned() });
            }
            _ => {}
        }
    }
}
