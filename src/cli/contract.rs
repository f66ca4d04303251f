//! What exit codes mean to whoever starts the program. Two commands are started by a PostgreSQL server, which
//! reads the codes its own way; their contract holds before a single argument is understood.
//!
//! - `archive_command`: 0 if and only if the file is safe; 1 to 125 otherwise. What is greater, or a signal,
//!   makes the server's archiver start anew without counting a failure (A5).
//! - `restore_command`: 0 if the file is there; 1 to 125 mean that it is not in the archive, on which recovery
//!   ends and the server is promoted; whatever else went wrong must be greater (R2, R3).

use super::fault::exit;
use std::ffi::OsStr;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic ends with where nobody cares.
const PANICKED: u8 = 101;
/// What the server takes for "stop the recovery".
const STOP: u8 = 126;
/// The greatest code that the archiver counts as a failure.
const FAILURE_MAX: u8 = 125;

/// The contract of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// `docs/exit-codes.md`.
    Usual,
    /// That of an `archive_command`.
    Push,
    /// That of a `restore_command`.
    Get,
}

impl Contract {
    /// Tells the contract from the bare arguments, whatever else is wrong with them.
    pub fn of<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let mut family = false;
        for argument in arguments.into_iter().skip(1) {
            match argument.as_ref().to_str() {
                Some("pg" | "postgres") => family = true,
                Some("archive-push") if family => return Self::Push,
                Some("archive-get") if family => return Self::Get,
                _ => {}
            }
        }
        Self::Usual
    }

    /// Returns the code for a run that ended with this fault's code.
    pub fn failed(self, code: u8) -> u8 {
        match self {
            Self::Usual => code,
            Self::Push if (1..=FAILURE_MAX).contains(&code) => code,
            Self::Push => exit::FAILED,
            Self::Get => STOP,
        }
    }

    /// Returns the code for a command that ended with a code of its own.
    fn ended(self, code: u8) -> u8 {
        match self {
            Self::Get if code <= 1 => code,
            Self::Get => STOP,
            Self::Push if code == exit::DONE => code,
            _ => self.failed(code),
        }
    }

    /// Runs something; a panic ends as the contract says, too.
    pub fn run(self, body: impl FnOnce() -> u8) -> u8 {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(code) => self.ended(code),
            Err(_) => {
                // What it was has been said where it happened.
                let _ = writeln!(
                    std::io::stderr(),
                    "chronolith: this is a flaw of the program; please report it"
                );
                self.failed(PANICKED)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_told_from_bare_arguments() {
        let of = |line: &str| Contract::of(line.split(' '));
        assert_eq!(of("chronolith pg archive-push x"), Contract::Push);
        assert_eq!(of("chronolith -r /x pg --json archive-get x y --frobnicate"), Contract::Get);
        assert_eq!(of("chronolith postgres archive-get"), Contract::Get);
        assert_eq!(of("chronolith pg timeline"), Contract::Usual);
        assert_eq!(of("chronolith backup archive-get"), Contract::Usual);
        assert_eq!(of("archive-get"), Contract::Usual);
    }

    /// A5: nothing but success is 0, and nothing is above 125; a panic neither.
    #[test]
    fn a_push_fails_between_1_and_125() {
        for code in 0..=255 {
            let ended = Contract::Push.run(|| code);
            assert_eq!(ended == 0, code == 0);
            assert!(ended <= 125, "{code}");
        }
        assert!((1..=125).contains(&Contract::Push.run(|| panic!("a test"))));
        assert!((1..=125).contains(&Contract::Push.failed(exit::INTERRUPTED)));
    }

    /// R2, R3: only the command itself says "absent"; every fault and every panic is above 125.
    #[test]
    fn a_get_that_fails_stops_the_recovery() {
        assert_eq!([0, 1].map(|code| Contract::Get.run(|| code)), [0, 1]);
        for code in 2..=255 {
            assert_eq!(Contract::Get.run(|| code), 126);
        }
        for code in 0..=255 {
            assert_eq!(Contract::Get.failed(code), 126);
        }
        assert_eq!(Contract::Get.run(|| panic!("a test")), 126);
    }
}
