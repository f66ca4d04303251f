//! What can go wrong with a server, its files, or a backup of them.

use super::segment::SegmentError;
use super::tls::TlsFailure;
use crate::base::{Classify, ErrorClass};
use crate::ops::OpsError;
use crate::repo::RepoError;
use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be done with a PostgreSQL server or its data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// An operation of the repository failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// The server could not be reached, or refused.
    #[error("cannot {doing} the server at {server}: {why}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// Where the server is; never with a password.
        server: String,
        /// What it said, in one line.
        why: String,
        /// The class of its error, by the five signs of the server's manual; `None` where it said nothing.
        code: Option<String>,
    },
    /// A file of the cluster could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done, as a verb.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it must.
    #[error("{what} {why}")]
    Damaged {
        /// Which file.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The request makes no sense, or would destroy something.
    #[error("{why}")]
    Refused {
        /// Why it was refused.
        why: String,
        /// What to try.
        cure: String,
    },
    /// It cannot be done now, for a reason outside of this program.
    #[error("{why}")]
    Failed {
        /// Why.
        why: String,
        /// What to try.
        cure: String,
    },
    /// There is nothing that could be restored.
    #[error("{why}")]
    NotFound {
        /// What is missing.
        why: String,
        /// What to try.
        cure: String,
    },
}

impl PostgresError {
    /// A request that is refused before anything is done.
    pub fn refused(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), cure: cure.into() }
    }

    /// Something that failed outside of this program.
    pub fn failed(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Failed { why: why.into(), cure: cure.into() }
    }

    /// An encrypted connection that did not come about.
    pub(super) fn tls(doing: &str, server: &str, failure: TlsFailure) -> Self {
        Self::failed(format!("cannot {doing} the server at {server}: {}", failure.why), failure.cure)
    }

    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }

    /// Says what to try, where this layer knows better than the class of the error.
    pub fn cure(&self) -> Option<&str> {
        match self {
            Self::Refused { cure, .. } | Self::Failed { cure, .. } | Self::NotFound { cure, .. } => {
                Some(cure)
            }
            Self::Server { code: Some(code), .. } => Some(cure_of(code)),
            Self::Server { .. } => Some(UNREACHED),
            _ => None,
        }
    }
}

const UNREACHED: &str = "check that the server runs and where it listens: --host (a folder of sockets, or a name), --port, --user";

/// Says what to try about an error of a server, by its class: whoever was answered has reached it.
fn cure_of(code: &str) -> &'static str {
    match code {
        "42501" => {
            "give the role what it lacks (GRANT, ALTER ROLE ... REPLICATION; docs/postgres.md says what each command \
             needs), or connect as another one with --user"
        }
        "3D000" => "name a database that is there: --dbname",
        "53300" => "the server has no connection left: end others, or raise max_connections",
        "53400" | "53100" | "53200" => "the server is short of something: its own log says more",
        // No copy is made of what is damaged, but for one that knows and tells where.
        "XX001" | "XX002" => {
            "the server found its own data damaged: its log and the warnings say where; a base backup that is taken on \
             the server's host, without --remote, holds the rest and names the pages"
        }
        _ => match code.get(..2) {
            Some("28") => {
                "check the role (--user), its password (~/.pgpass, PGPASSFILE, PGPASSWORD) and the server's pg_hba.conf"
            }
            Some("08") => UNREACHED,
            Some("57") => "the server starts, stops, or ended it: wait until it is up, and run it again",
            Some("55") => "the server was not in a state for it, or changed while it went on: run it again",
            _ => "the server's own log says more",
        },
    }
}

impl From<RepoError> for PostgresError {
    fn from(error: RepoError) -> Self {
        Self::Ops(error.into())
    }
}

impl From<SegmentError> for PostgresError {
    fn from(error: SegmentError) -> Self {
        Self::Damaged { what: "the cluster".to_owned(), why: error.to_string() }
    }
}

impl Classify for PostgresError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Ops(error) => error.class(),
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Refused { .. } => ErrorClass::Usage,
            Self::Damaged { .. } => ErrorClass::Corrupt,
            Self::Server { .. } | Self::File { .. } | Self::Failed { .. } => ErrorClass::Fatal,
        }
    }
}
