//! What can go wrong with an operation.

use crate::base::{Classify, ErrorClass};
use crate::localfs::LocalError;
use crate::repo::RepoError;

/// An error of an operation.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The local file system.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The request makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// A source as a whole cannot be read.
    #[error("{name} cannot be read")]
    Source {
        /// Which.
        name: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A producer did not say that it succeeded.
    #[error("the command {command:?} {how}{}", tail(last_lines))]
    Producer {
        /// The command.
        command: String,
        /// How it ended.
        how: String,
        /// What it said last on standard error.
        last_lines: Vec<String>,
    },
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Output(#[source] std::io::Error),
}

fn tail(lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        lines => format!("; it said last:\n    {}", lines.join("\n    ")),
    }
}

impl Classify for OpsError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Repo(error) => error.class(),
            Self::Local(error) => error.class(),
            Self::Usage(_) => ErrorClass::Usage,
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::Source { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorClass::NotFound
            }
            Self::Source { .. } | Self::Producer { .. } | Self::Output(_) => ErrorClass::Fatal,
        }
    }
}
