//! PostgreSQL's client programs on this host: those of the right version.

use super::error::PostgresError;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder of client programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPrograms {
    /// The folder.
    pub folder: PathBuf,
    /// Their version, as they write it.
    pub version: String,
    /// Its first number.
    pub major: u32,
}

impl ClientPrograms {
    /// Finds the folder that holds a program, of the version wanted or else of the next newer one, and not
    /// older than another version.
    ///
    /// # Errors
    ///
    /// When there is none, or only older ones.
    pub fn find(
        candidates: &[PathBuf],
        program: &str,
        wanted: u32,
        at_least: u32,
    ) -> Result<Self, PostgresError> {
        let mut found: Vec<Self> = candidates.iter().filter_map(|folder| Self::of(folder, program)).collect();
        let oldest = wanted.max(at_least);
        // Of equal ones the first that was named counts.
        found.sort_by_key(|programs| programs.major);
        if let Some(programs) = found.iter().find(|programs| programs.major >= oldest) {
            return Ok(programs.clone());
        }
        let others: Vec<String> =
            found.iter().map(|p| format!("{} in {}", p.version, p.folder.display())).collect();
        let there = if others.is_empty() { "there is none".to_owned() } else { others.join(", ") };
        Err(PostgresError::refused(
            format!("{program} of PostgreSQL {oldest} or newer is needed, and was not found here: {there}"),
            format!("install postgresql-client-{oldest}, or name the folder of its programs with --programs"),
        ))
    }

    fn of(folder: &Path, program: &str) -> Option<Self> {
        let path = folder.join(program);
        // Debian's wrapper chooses a version by itself.
        let is_wrapper = path.canonicalize().is_ok_and(|real| real.ends_with("pg_wrapper"));
        if is_wrapper || !path.is_file() {
            return None;
        }
        let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output().ok()?;
        // `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
        let text = String::from_utf8(output.stdout).ok()?;
        let (_, version) = text.trim().split_once(") ")?;
        let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        Some(Self { folder: folder.to_owned(), version: version.to_owned(), major })
    }

    /// Returns a command that runs one of them.
    pub fn command(&self, program: &str) -> Command {
        Command::new(self.folder.join(program))
    }

    /// Says whether a program knows an option.
    pub fn knows(&self, program: &str, option: &str) -> bool {
        let help = self.command(program).arg("--help").stdin(Stdio::null()).output();
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(option))
    }
}
