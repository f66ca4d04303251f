//! The one error of this layer: what was being done, to which object, and why it failed.

use crate::base::{Classify, ErrorClass};
use rustix::io::Errno;
use std::error::Error;
use std::fmt;

/// What lies under a storage error.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What was being done when an error came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Making or opening the store itself.
    Open,
    /// Storing a new object.
    Put,
    /// Storing an object in place of another.
    Replace,
    /// Reading a whole object.
    Get,
    /// Reading a part of an object.
    GetRange,
    /// Asking for length and time.
    Head,
    /// Listing names.
    List,
    /// Removing an object.
    Delete,
    /// Removing what dead writers left.
    Clean,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Put => "write",
            Self::Replace => "replace",
            Self::Get | Self::GetRange => "read",
            Self::Head => "look up",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Clean => "clean up",
        })
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// There is no object of this name.
    #[error("cannot {operation} {name}: it does not exist")]
    NotFound {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
    },
    /// The object ends before the bytes that were asked for.
    #[error("cannot {operation} {name}: it ends at byte {length_bytes}, byte {wanted_bytes} is needed")]
    Truncated {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
        /// Where the object ends.
        length_bytes: u64,
        /// Where it would have to end at least.
        wanted_bytes: u64,
    },
    /// The object is longer than the caller can use.
    #[error("cannot {operation} {name}: it has {length_bytes} bytes, at most {limit_bytes} can be right")]
    TooLarge {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
        /// Its length.
        length_bytes: u64,
        /// The caller's limit.
        limit_bytes: u64,
    },
    /// Other bytes stand under a name that belongs to one content.
    #[error("cannot {operation} {name}: other bytes stand under this name")]
    Conflict {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
    },
    /// The request itself is wrong: a bad name, an empty object, a place that can be no repository.
    #[error("cannot {operation} {name:?}: {why}")]
    Invalid {
        /// What was being done.
        operation: Operation,
        /// The object or place.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The store is full, or a quota is used up.
    #[error("cannot {operation} {name}: the store is full")]
    NoSpace {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
        /// What the system said.
        source: Cause,
    },
    /// The store does not permit this.
    #[error("cannot {operation} {name}: permission denied")]
    Denied {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
        /// What the system said.
        source: Cause,
    },
    /// It may succeed when tried again.
    #[error("cannot {operation} {name} at the moment")]
    Transient {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
        /// What the system said.
        source: Cause,
    },
    /// It will not succeed by trying again.
    #[error("cannot {operation} {name}")]
    Fatal {
        /// What was being done.
        operation: Operation,
        /// The object.
        name: String,
        /// What the system said.
        source: Cause,
    },
}

impl StorageError {
    /// Takes what a local system call said.
    ///
    /// Only the errors of overloaded machines are transient; an I/O error is not, because after a
    /// failed write-back a second try reports success for data that is lost.
    pub(crate) fn from_errno(operation: Operation, name: &str, errno: Errno) -> Self {
        let name = name.to_owned();
        let source: Cause = Box::new(std::io::Error::from(errno));
        match errno {
            Errno::NOENT => Self::NotFound { operation, name },
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { operation, name, source },
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Denied { operation, name, source },
            Errno::AGAIN | Errno::NFILE | Errno::MFILE | Errno::NOMEM | Errno::INTR => {
                Self::Transient { operation, name, source }
            }
            _ => Self::Fatal { operation, name, source },
        }
    }

    /// Returns what was being done.
    pub fn operation(&self) -> Operation {
        match self {
            Self::NotFound { operation, .. }
            | Self::Truncated { operation, .. }
            | Self::TooLarge { operation, .. }
            | Self::Conflict { operation, .. }
            | Self::Invalid { operation, .. }
            | Self::NoSpace { operation, .. }
            | Self::Denied { operation, .. }
            | Self::Transient { operation, .. }
            | Self::Fatal { operation, .. } => *operation,
        }
    }

    /// Returns the object it was done to.
    pub fn name(&self) -> &str {
        match self {
            Self::NotFound { name, .. }
            | Self::Truncated { name, .. }
            | Self::TooLarge { name, .. }
            | Self::Conflict { name, .. }
            | Self::Invalid { name, .. }
            | Self::NoSpace { name, .. }
            | Self::Denied { name, .. }
            | Self::Transient { name, .. }
            | Self::Fatal { name, .. } => name,
        }
    }
}

impl Classify for StorageError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Truncated { .. } | Self::TooLarge { .. } | Self::Conflict { .. } => ErrorClass::Corrupt,
            Self::Invalid { .. } => ErrorClass::Usage,
            Self::Transient { .. } => ErrorClass::Transient,
            Self::NoSpace { .. } | Self::Denied { .. } | Self::Fatal { .. } => ErrorClass::Fatal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_have_their_classes() {
        let class = |errno| StorageError::from_errno(Operation::Put, "packs/x", errno).class();
        assert_eq!(class(Errno::NOENT), ErrorClass::NotFound);
        assert_eq!(class(Errno::AGAIN), ErrorClass::Transient);
        for errno in [Errno::NOSPC, Errno::ACCESS, Errno::ROFS, Errno::IO] {
            assert_eq!(class(errno), ErrorClass::Fatal, "{errno}");
        }
    }

    #[test]
    fn a_message_names_operation_and_object_and_leaves_the_rest_to_its_source() {
        let error = StorageError::from_errno(Operation::Put, "packs/x", Errno::NOSPC);
        assert_eq!(error.to_string(), "cannot write packs/x: the store is full");
        assert!(error.source().unwrap().to_string().contains("No space left"));
        assert_eq!((error.operation(), error.name()), (Operation::Put, "packs/x"));
    }
}
