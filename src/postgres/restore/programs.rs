//! The server's programs on this host: whether they are of the right version (B21), and starting one.

use crate::base::Observer;
use crate::postgres::base::read_control;
use crate::postgres::control::ClusterState;
use crate::postgres::error::PostgresError;
use crate::repo::RepoError;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Lines of the server's log that are shown when it does not start, and characters of each: a statement in it may
/// be of any length.
const LINES_SHOWN: usize = 12;
const CHARACTERS_SHOWN: usize = 400;
/// The server's log where its place is in the data directory.
const LOG_INSIDE: &str = "restore.log";
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

/// What a restored server is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// It is past its recovery.
    Promotion,
    /// It can be read, and recovers on, or waits at its target.
    Reading,
    /// It has shut itself down at its target.
    Shutdown,
}

/// Starts a restored server and waits until it has come to where it is to come. Returns the file that it logs into
/// until it is started anew: beside the data directory, so that no backup takes it and nobody reads an old one.
///
/// # Errors
///
/// When it does not start, with what it said last.
pub fn start(
    programs: &Path,
    data_directory: &Path,
    awaited: Awaited,
    observer: &dyn Observer,
) -> Result<PathBuf, PostgresError> {
    let log = new_log(data_directory)?;
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
            // It may be at its target before anybody could have seen it run.
            Some(_) if awaited == Awaited::Shutdown && is_shut_down(data_directory)? => return Ok(log),
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
    if awaited == Awaited::Reading {
        return Ok(log);
    }
    loop {
        let ended = !data_directory.join("postmaster.pid").exists();
        let (_, control) = read_control(data_directory)?;
        match awaited {
            Awaited::Shutdown if ended && is_shut_down(data_directory)? => return Ok(log),
            Awaited::Promotion if control.state == ClusterState::Production => return Ok(log),
            _ if ended => return Err(not_started(&log)),
            _ => {}
        }
        if observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Says whether a server came to its target and shut down there, as it was told.
fn is_shut_down(data_directory: &Path) -> Result<bool, PostgresError> {
    Ok(read_control(data_directory)?.1.state == ClusterState::ShutDownInRecovery)
}

/// Makes an empty file for what a server says that is started: beside its data directory, else, where its owner may
/// not write, in it, where base backups leave it out.
fn new_log(data_directory: &Path) -> Result<PathBuf, PostgresError> {
    let inside = data_directory.join(LOG_INSIDE);
    let real = data_directory.canonicalize().unwrap_or_else(|_| data_directory.to_owned());
    let mut name = real.file_name().unwrap_or_default().to_owned();
    name.push(".restore.log");
    let beside = real.with_file_name(name);
    let found = std::fs::metadata(&real).map_err(PostgresError::file("look at", &real))?;
    let make = |path: &Path| {
        // Whoever else may write there could have put a link in its place.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        match rustix::process::geteuid().is_root() {
            true => fchown(&file, Some(found.uid()), Some(found.gid())),
            false => Ok(()),
        }
    };
    // One of an earlier program may lie about.
    let _ = std::fs::remove_file(&inside);
    match make(&beside) {
        Ok(()) => Ok(beside),
        Err(_) => make(&inside).map(|()| inside.clone()).map_err(PostgresError::file("write", &inside)),
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
