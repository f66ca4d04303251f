//! What can go wrong with a repository, by the object it went wrong with.

use crate::base::{Classify, ErrorClass, SnapshotId};
use crate::format::FormatError;
use crate::storage::StorageError;

/// Reasons that a message names.
const REASONS_TOLD: usize = 3;

/// Why no copy of a blob serves, in one line.
fn because(reasons: &[String]) -> String {
    let told: Vec<&str> = reasons.iter().take(REASONS_TOLD).map(String::as_str).collect();
    match reasons.len() {
        0 => "no pack holds it".to_owned(),
        count if count > REASONS_TOLD => format!("{}; and {} more", told.join("; "), count - REASONS_TOLD),
        _ => told.join("; "),
    }
}

/// The article before a role.
fn article(role: &str) -> &'static str {
    if role.starts_with(['a', 'o']) { "an" } else { "a" }
}

/// An error of the repository layer.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A stored object is not what it must be.
    #[error("{object} is damaged")]
    Damaged {
        /// The object's name in the store.
        object: String,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// A stored object is well-formed but must not be believed.
    #[error("{object} is not to be trusted: {why}")]
    Untrusted {
        /// The object's name in the store.
        object: String,
        /// Which rule it breaks.
        why: String,
    },
    /// An object proves that there were newer versions of the registry of trust than there are.
    #[error(
        "{object} is of epoch {epoch}, which the registry of trust does not have: its newest versions are lost, or \
         the store was set back"
    )]
    SetBack {
        /// The object's name in the store.
        object: String,
        /// The epoch.
        epoch: u32,
    },
    /// There is no repository here.
    #[error("there is no repository at {location}")]
    NoRepository {
        /// Where it was looked for.
        location: String,
    },
    /// Init found something there already.
    #[error("{location} is not empty: it holds {found}")]
    NotEmpty {
        /// Where the repository was to be made.
        location: String,
        /// One name that was found there.
        found: String,
    },
    /// No slot opens with what was given.
    #[error("no key slot opens with this {what}")]
    WrongKey {
        /// What was given: a password, a key file, a recovery sheet.
        what: &'static str,
    },
    /// The key opens the repository but its role does not permit this.
    #[error("{} {role} key may not {action}", article(role))]
    Forbidden {
        /// The role of the key.
        role: &'static str,
        /// What was to be done.
        action: String,
    },
    /// The repository needs a newer program.
    #[error("this repository needs a newer program: {0}")]
    TooNew(String),
    /// A blob that something refers to is in no readable pack.
    #[error("content is missing: no readable copy of {what} {id}: {}", because(reasons))]
    Missing {
        /// A chunk, a recipe, a tree.
        what: &'static str,
        /// The blob's id.
        id: crate::base::BlobId,
        /// Why the copies that the index names could not be read.
        reasons: Vec<String>,
    },
    /// A log holds other bytes under this name.
    #[error("the log {stream} holds other bytes under the name {name} already")]
    LogTaken {
        /// The stream.
        stream: String,
        /// Name of the segment.
        name: String,
    },
    /// No snapshot answers to this name.
    #[error("no snapshot answers to {0:?}")]
    NoSnapshot(String),
    /// Several snapshots do.
    #[error("{name:?} could be any of {candidates}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it could mean.
        candidates: String,
    },
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A snapshot exists but what it refers to cannot be read.
    #[error("snapshot {id} cannot be read")]
    Snapshot {
        /// The snapshot.
        id: SnapshotId,
        /// Why.
        #[source]
        source: Box<RepoError>,
    },
    /// A pure transform failed on data of our own.
    #[error("{doing} failed: {why}")]
    Internal {
        /// What was being done.
        doing: &'static str,
        /// What the transform said.
        why: String,
    },
    /// A local file could not be used.
    #[error("{doing} {path}")]
    Local {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl RepoError {
    /// Says whether the store gave no answer, so that what it holds is not known: neither lost nor damaged.
    pub const fn is_unanswered(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Transient { .. } | StorageError::Denied { .. }))
    }

    /// Names the object that a format error is about.
    pub fn damaged(object: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        let object = object.into();
        move |source| match source.class() {
            ErrorClass::TooNew => Self::TooNew(format!("{object}: {source}")),
            _ => Self::Damaged { object, source },
        }
    }
}

impl Classify for RepoError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Storage(source) => source.class(),
            Self::Damaged { .. } | Self::Untrusted { .. } | Self::SetBack { .. } | Self::Missing { .. } => {
                ErrorClass::Corrupt
            }
            Self::NoRepository { .. } | Self::NoSnapshot(_) => ErrorClass::NotFound,
            Self::NotEmpty { .. } | Self::Usage(_) | Self::Ambiguous { .. } => ErrorClass::Usage,
            Self::WrongKey { .. } => ErrorClass::WrongKey,
            Self::Forbidden { .. } => ErrorClass::Forbidden,
            Self::TooNew(_) => ErrorClass::TooNew,
            Self::Snapshot { source, .. } => source.class(),
            Self::Internal { .. } | Self::Local { .. } | Self::LogTaken { .. } => ErrorClass::Fatal,
            Self::Interrupted => ErrorClass::Interrupted,
        }
    }
}
