//! The one error of this layer. It names what was being done and the path, shown on one line.

use super::printable;
use crate::base::{Classify, ErrorClass};
use rustix::io::Errno;
use std::io;

/// Why something could not be done with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The system refused.
    #[error("cannot {operation} {}", printable(path))]
    System {
        /// What was being done, as a verb.
        operation: &'static str,
        /// To which file.
        path: Vec<u8>,
        /// What the system said.
        source: io::Error,
    },
    /// The file was there a moment ago and is gone.
    #[error("{} vanished while it was being read", printable(path))]
    Vanished {
        /// Which file.
        path: Vec<u8>,
    },
    /// Another file stands where one was found a moment ago.
    #[error("{} was replaced by another file while it was being read", printable(path))]
    Replaced {
        /// Which file.
        path: Vec<u8>,
    },
    /// The file was written to while it was being read.
    #[error("{} changed while it was being read ({what})", printable(path))]
    Changed {
        /// Which file.
        path: Vec<u8>,
        /// What shows it.
        what: &'static str,
    },
    /// Folders lie in each other deeper than a snapshot can hold.
    #[error("{} lies too deep", printable(path))]
    TooDeep {
        /// Which folder.
        path: Vec<u8>,
    },
    /// A folder contains itself.
    #[error("{} is one of the folders it lies in", printable(path))]
    Loop {
        /// Which folder.
        path: Vec<u8>,
    },
    /// A pattern for files to leave out cannot be read.
    #[error("{pattern:?} is no pattern for files to leave out")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A name from a snapshot could lead out of the target.
    #[error("\"{}\" cannot be the name of a file", printable(name))]
    InvalidName {
        /// The name.
        name: Vec<u8>,
    },
    /// Something stands where another thing must be written.
    #[error("{} is in the way: it is {found}", printable(path))]
    InTheWay {
        /// Which file.
        path: Vec<u8>,
        /// What it is.
        found: &'static str,
    },
    /// Another restore is writing the same file.
    #[error("{} is being written by another restore", printable(path))]
    Busy {
        /// Which file.
        path: Vec<u8>,
    },
    /// Something of the snapshot that this system or this user cannot make.
    #[error("{}: {what} could not be restored", printable(path))]
    NotRestored {
        /// Which file.
        path: Vec<u8>,
        /// What is missing.
        what: String,
    },
}

impl LocalError {
    pub(super) fn system(operation: &'static str, path: &[u8], errno: Errno) -> Self {
        Self::System { operation, path: path.to_owned(), source: errno.into() }
    }

    /// As [`LocalError::system`] for reading, where a missing file has vanished since it was found.
    pub(super) fn reading(operation: &'static str, path: &[u8], errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Vanished { path: path.to_owned() },
            errno => Self::system(operation, path, errno),
        }
    }
}

impl LocalError {
    /// Returns the path it is about, where there is one.
    pub fn path(&self) -> Option<&[u8]> {
        match self {
            Self::System { path, .. }
            | Self::Vanished { path }
            | Self::Replaced { path }
            | Self::Changed { path, .. }
            | Self::TooDeep { path }
            | Self::Loop { path }
            | Self::InTheWay { path, .. }
            | Self::Busy { path }
            | Self::NotRestored { path, .. } => Some(path),
            Self::InvalidName { name } => Some(name),
            Self::Pattern { .. } => None,
        }
    }
}

impl Classify for LocalError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::System { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::Vanished { .. } => ErrorClass::NotFound,
            Self::Pattern { .. } | Self::InTheWay { .. } => ErrorClass::Usage,
            Self::InvalidName { .. } => ErrorClass::Corrupt,
            Self::Changed { .. } | Self::Replaced { .. } | Self::Busy { .. } => ErrorClass::Transient,
            _ => ErrorClass::Fatal,
        }
    }
}
