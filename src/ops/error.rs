//! What can go wrong with an operation.

use crate::base::{Classify, ErrorClass, Observer, SnapshotId, explain};
use crate::ingest::FeedError;
use crate::localfs::LocalError;
use crate::repo::RepoError;
use crate::storage::StorageError;
use std::io;

/// Why an operation could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// The repository failed.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A local file failed.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The request itself makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// A source stopped giving bytes, or a command that makes one failed.
    #[error("{name} {why}")]
    Source {
        /// The source, as the user named it.
        name: String,
        /// How it ended.
        why: String,
        /// The last lines of what it said.
        lines: Vec<String>,
    },
    /// A source could not be read.
    #[error("cannot read {name}")]
    Read {
        /// The source, as the user named it.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The output could not be written.
    #[error("cannot write to {name}")]
    Write {
        /// The output.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A snapshot is committed, but what it relies on could not be looked at afterwards.
    #[error(
        "snapshot {snapshot} is committed, but whether all that it needs stays could not be made sure of"
    )]
    Unsettled {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why not.
        source: Box<OpsError>,
    },
    /// Going on might destroy what somebody needs.
    #[error("{why}")]
    Stopped {
        /// What stands in the way.
        why: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// Others changed meanwhile what this rests on: nothing is wrong, and it can be done again.
    #[error("{0}")]
    Overtaken(&'static str),
    /// What was read is not what was backed up.
    #[error("{what} does not have the content that was backed up: {why}")]
    Differs {
        /// What was read.
        what: String,
        /// What shows it.
        why: String,
    },
}

impl From<StorageError> for OpsError {
    fn from(error: StorageError) -> Self {
        Self::Repo(error.into())
    }
}

impl From<FeedError> for OpsError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Pipeline(error) => Self::Repo(error),
            FeedError::Source(source) => Self::Read { name: "the source".to_owned(), source },
        }
    }
}

/// Lets what could not be noted in the repository be a warning: who may not write there still learns what was found.
/// An interruption is passed on.
pub(super) fn unless_unnoted<T>(
    noted: Result<T, impl Into<OpsError>>,
    observer: &dyn Observer,
    what: &str,
) -> Result<Option<T>, OpsError> {
    match noted.map_err(Into::into) {
        Ok(noted) => Ok(Some(noted)),
        Err(error) if error.class() == ErrorClass::Interrupted => Err(error),
        Err(error) => {
            observer.warn(&format!("{what}: {}", explain(&error)));
            Ok(None)
        }
    }
}

impl Classify for OpsError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Repo(error) => error.class(),
            Self::Unsettled { source, .. } => source.class(),
            Self::Local(error) => error.class(),
            Self::Usage(_) => ErrorClass::Usage,
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::Overtaken(_) => ErrorClass::Transient,
            Self::Differs { .. } | Self::Stopped { .. } => ErrorClass::Corrupt,
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::Source { .. } | Self::Read { .. } | Self::Write { .. } => ErrorClass::Fatal,
        }
    }
}
