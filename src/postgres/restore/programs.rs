//! The server's programs on this host: whether they are of the right version (B21), and starting one.

use crate::base::Observer;
use crate::postgres::base::read_control;
use crate::postgres::control::ClusterState;
use crate::postgres::error::PostgresError;
use crate::repo::RepoError;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Lines of the server's log that are shown when it does not start, and characters of each: a statement in it may
/// be of any length.
const LINES_SHOWN: usize = 12;
const CHARACTERS_SHOWN: usize = 400;
/// How often is looked whether the server has come to its target.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the server is waited for by `pg_ctl`, which asks in steps so that the user can stop.
const WAIT_SECONDS: &str = "2147483";

/// Finds the folder that holds the programs of a major version, among those where they may be.
///
/// # Errors
///
/// When there are none, or only of other versions.
pub fn find_programs(candidates: &[PathBuf], major: u32) -> Result<PathBuf, PostgresError> {
    let mut others = Vec::new();
    for folder in candidates.iter().filter(|folder| folder.join("pg_ctl").is_file()) {
        match version_of(&folder.join("postgres")) {
            Some(found) if found == major => return Ok(folder.clone()),
            Some(found) => others.push(format!("{found} in {}", folder.display())),
            None => {}
        }
    }
    others.dedup();
    let there = if others.is_empty() { "there are none".to_owned() } else { others.join(", ") };
    Err(PostgresError::refused(
        format!("the backup is of PostgreSQL {major}, and its programs were not found here: {there}"),
        format!(
            "install postgresql-{major}, or name the folder of its programs with --programs; --force restores without them"
        ),
    ))
}

fn version_of(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    // `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`
    let text = String::from_utf8(output.stdout).ok()?;
    let (_, version) = text.split_once(") ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A command that works in a data directory, as its owner where this is root: servers refuse to run as root.
pub(in crate::postgres) fn as_owner(program: &Path, data_directory: &Path) -> Result<Command, PostgresError> {
    let owner = std::fs::metadata(data_directory).map_err(PostgresError::file("look at", data_directory))?;
    let mut command = Command::new(program);
    command.current_dir(data_directory);
    if rustix::process::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    Ok(command)
}

/// Starts a restored server and waits until it is up: past its recovery, or at its target where it is to
/// pause there.
///
/// # Errors
///
/// When it does not start, with what it said last.
pub fn start(
    programs: &Path,
    data_directory: &Path,
    until_promoted: bool,
    observer: &dyn Observer,
) -> Result<(), PostgresError> {
    let log = data_directory.join("restore.log");
    let mut command = as_owner(&programs.join("pg_ctl"), data_directory)?;
    command.arg("start").arg("-D").arg(data_directory).arg("-l").arg(&log).args([
        "-w",
        "-s",
        "-t",
        WAIT_SECONDS,
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(PostgresError::file("run", &programs.join("pg_ctl")))?;
    loop {
        match child.try_wait().map_err(PostgresError::file("run", &programs.join("pg_ctl")))? {
            Some(status) if status.success() => break,
            Some(_) => return Err(not_started(&log)),
            None if observer.interrupted() => {
                // The server goes on; only the waiting ends.
                let _ = child.kill();
                let _ = child.wait();
                return Err(RepoError::Interrupted.into());
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
    if !until_promoted {
        return Ok(());
    }
    loop {
        let (_, control) = read_control(data_directory)?;
        if control.state == ClusterState::Production {
            return Ok(());
        }
        if !data_directory.join("postmaster.pid").exists() {
            return Err(not_started(&log));
        }
        if observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn not_started(log: &Path) -> PostgresError {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let short = |line: &str| line.chars().take(CHARACTERS_SHOWN).collect::<String>();
    let lines: Vec<String> = text.lines().rev().take(LINES_SHOWN).map(short).collect();
    let said = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
    PostgresError::failed(
        format!("everything is restored, but the server did not come up; it said last: {said}"),
        format!("{} holds all that it said", log.display()),
    )
}
