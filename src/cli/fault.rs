//! Errors as the user meets them: what was being done, why it failed, what to try; and exit codes.

use crate::base::{Classify, ErrorClass};
pub use crate::base::{explain, system_words as system};
use crate::ops::OpsError;
use crate::postgres::PostgresError;
use crate::repo::RepoError;
use crate::storage::StorageError;
use std::io;

/// Exit codes. Documented in `docs/exit-codes.md`, tested in `tests/cli/`.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed.
    pub const FAILED: u8 = 1;
    /// The request itself was wrong.
    pub const USAGE: u8 = 2;
    /// Done, but something could not be read, or a check found damage.
    pub const INCOMPLETE: u8 = 3;
    /// No such repository, snapshot or file.
    pub const NOT_FOUND: u8 = 4;
    /// Wrong password or key.
    pub const WRONG_KEY: u8 = 5;
    /// The role of the key does not permit it.
    pub const FORBIDDEN: u8 = 6;
    /// The repository needs a newer program.
    pub const TOO_NEW: u8 = 7;
    /// Interrupted.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command failed.
#[derive(Debug)]
pub enum Fault {
    /// An operation said so.
    Ops(OpsError),
    /// The command itself noticed.
    Plain {
        /// The class, from which the exit code follows.
        class: ErrorClass,
        /// Why it failed.
        why: String,
        /// What to try; empty where the class has better advice.
        advice: String,
    },
    /// Whoever read the output has gone. Not worth a word.
    Closed,
}

impl Fault {
    /// A request that makes no sense.
    pub fn usage(why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Plain { class: ErrorClass::Usage, why: why.into(), advice: advice.into() }
    }

    /// A failure with advice.
    pub fn failed(why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Plain { class: ErrorClass::Fatal, why: why.into(), advice: advice.into() }
    }

    /// A local file that could not be used.
    pub fn file(doing: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let class = match error.kind() {
            io::ErrorKind::NotFound => ErrorClass::NotFound,
            _ => ErrorClass::Fatal,
        };
        let why = format!("cannot {doing} {}: {}", path.display(), system(error));
        let advice = match class {
            ErrorClass::NotFound => PATH_ADVICE.to_owned(),
            _ => String::new(),
        };
        Self::Plain { class, why, advice }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Ops(error) => error.class(),
            Self::Plain { class, .. } => *class,
            Self::Closed => ErrorClass::Fatal,
        }
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        match self.class() {
            ErrorClass::Usage => exit::USAGE,
            ErrorClass::NotFound => exit::NOT_FOUND,
            ErrorClass::WrongKey => exit::WRONG_KEY,
            ErrorClass::Forbidden => exit::FORBIDDEN,
            ErrorClass::TooNew => exit::TOO_NEW,
            ErrorClass::Interrupted => exit::INTERRUPTED,
            ErrorClass::Corrupt | ErrorClass::Transient | ErrorClass::Fatal => exit::FAILED,
        }
    }

    /// Says why it failed, causes included, in one line.
    pub fn why(&self) -> String {
        match self {
            Self::Ops(error) => match error {
                OpsError::Source { lines, .. } if !lines.is_empty() => {
                    format!("{}; it said last: {}", explain(error), lines.join(" | "))
                }
                error => explain(error),
            },
            Self::Plain { why, .. } => why.clone(),
            Self::Closed => "the output was closed".to_owned(),
        }
    }

    /// Says what to try.
    pub fn advice(&self) -> String {
        let known = match self {
            Self::Ops(OpsError::Repo(error)) => of_repository(error),
            Self::Ops(OpsError::Unsettled { source, .. }) => match **source {
                OpsError::Stopped { cure, .. } => Some(cure),
                _ => Some("run the backup again: what was stored already is not stored twice"),
            },
            Self::Ops(OpsError::Stopped { cure, .. }) => Some(*cure),
            Self::Ops(error @ (OpsError::Local(_) | OpsError::Read { .. }))
                if matches!(error.class(), ErrorClass::NotFound) =>
            {
                Some(PATH_ADVICE)
            }
            Self::Plain { advice, .. } if !advice.is_empty() => return advice.clone(),
            _ => None,
        };
        known.unwrap_or_else(|| of_class(self.class())).to_owned()
    }
}

impl From<PostgresError> for Fault {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Ops(error) => Self::Ops(error),
            error => Self::Plain {
                class: error.class(),
                why: explain(&error),
                advice: error.cure().unwrap_or_default().to_owned(),
            },
        }
    }
}

/// For files of this machine.
const PATH_ADVICE: &str = "check the path";

fn of_class(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Usage => "`chronolith help COMMAND` shows what can be asked for",
        ErrorClass::NotFound => {
            "check the name; `chronolith snapshots` and `chronolith ls SNAP` show what there is"
        }
        ErrorClass::WrongKey => {
            "check the password or key file; `-r` may name another repository than you think"
        }
        ErrorClass::Forbidden => {
            "use a key whose role permits it; `chronolith key list` shows keys and roles"
        }
        ErrorClass::TooNew => "install a newer chronolith",
        ErrorClass::Interrupted => "run it again",
        ErrorClass::Corrupt => "restore what is whole; a copy of the repository elsewhere may hold the rest",
        ErrorClass::Transient => "try again",
        ErrorClass::Fatal => "remove the cause and run it again",
    }
}

fn of_repository(error: &RepoError) -> Option<&'static str> {
    Some(match error {
        RepoError::NoRepository { .. } => {
            "check the path after -r, or make one there: chronolith init -r PATH"
        }
        RepoError::NotEmpty { .. } => {
            "give a folder that is empty or does not exist; where an init was broken off nothing is stored yet: \
             delete what it left"
        }
        RepoError::NoSnapshot(_) => "`chronolith snapshots` shows what there is",
        RepoError::Ambiguous { .. } => "give one of them",
        RepoError::Snapshot { source, .. } => return of_repository(source),
        RepoError::Storage(error) => match error {
            StorageError::NoSpace { .. } => {
                "make room and run it again: what was stored already is not stored twice"
            }
            StorageError::Denied { .. } => "check who owns the repository and as whom this runs",
            _ => return None,
        },
        _ => return None,
    })
}

impl<E: Into<OpsError>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            OpsError::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Self::Closed,
            error => Self::Ops(error),
        }
    }
}

/// What writing to standard output said.
pub fn output(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Fault::Closed,
        _ => Fault::failed(format!("cannot write the output: {}", system(&error)), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SnapshotId;

    #[test]
    fn what_stopped_a_backup_at_its_end_has_its_own_cure() {
        let unsettled = |source| {
            let source = Box::new(source);
            Fault::Ops(OpsError::Unsettled { snapshot: SnapshotId::new([1; 32]), source }).advice()
        };
        let stopped = OpsError::Stopped { why: "the key is out of service".to_owned(), cure: "use another" };
        assert_eq!(unsettled(stopped), "use another");
        let other = unsettled(OpsError::NotFound("a session".to_owned()));
        assert!(other.starts_with("run the backup again"), "{other}");
    }
}
