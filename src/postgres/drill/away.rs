//! How a throw-away server and its folder are made and thrown away: also by another process, when the one that made
//! them was killed.

use crate::base::Entropy;
use crate::postgres::error::PostgresError;
use crate::postgres::restore::servers_in;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Begins the name of every such folder; nothing else is ever thrown away.
pub const FOLDER_PREFIX: &str = "chronolith-drill-";
/// Longest path of a socket, and what is added to that of the folder.
const SOCKET_BYTES_MAX: usize = 107;
const SOCKET: &str = "socket/.s.PGSQL.5432.lock";
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often is looked before a server is killed that does not end, and how often a folder is removed anew into
/// which the last of its processes wrote.
const LOOKS_MAX: u32 = 1500;
const REMOVALS_MAX: u32 = 100;

/// Makes a private folder for a throw-away server.
///
/// # Errors
///
/// When it cannot be made, or its path is too long for a socket.
pub fn new_folder(parent: &Path, entropy: &dyn Entropy) -> Result<PathBuf, PostgresError> {
    let random = entropy.draw();
    let name = random.iter().take(6).fold(FOLDER_PREFIX.to_owned(), |name, byte| format!("{name}{byte:02x}"));
    // The server's own paths must not lead through links.
    let parent = parent.canonicalize().map_err(PostgresError::file("find", parent))?;
    let folder = parent.join(name);
    if folder.join(SOCKET).as_os_str().len() > SOCKET_BYTES_MAX {
        return Err(PostgresError::refused(
            format!("{} is too long a path for a socket", parent.display()),
            "name another folder with --folder DIR",
        ));
    }
    DirBuilder::new().mode(0o700).create(&folder).map_err(PostgresError::file("make the folder", &folder))?;
    Ok(folder)
}

/// Ends all servers that work in a data directory, at once or (`orderly`) after a last checkpoint.
pub(super) fn stop(data: &Path, orderly: bool) {
    let signal = |signal: Signal| {
        for process in servers_in(data).into_iter().filter_map(Pid::from_raw) {
            // One that has ended meanwhile needs none.
            let _ = kill_process(process, signal);
        }
    };
    let main = fs::read_to_string(data.join("postmaster.pid")).ok();
    let main = main.and_then(|text| Pid::from_raw(text.lines().next()?.trim().parse().ok()?));
    match main.filter(|main| orderly && servers_in(data).contains(&main.as_raw_pid())) {
        Some(main) => drop(kill_process(main, Signal::INT)),
        None => signal(Signal::QUIT),
    }
    for _ in 0..LOOKS_MAX {
        if servers_in(data).is_empty() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    signal(Signal::KILL);
}

/// Stops the server of a drill and removes its folder. Doing it twice does no harm.
///
/// # Errors
///
/// When the folder is none of a drill, or cannot be removed.
pub fn throw_away(folder: &Path) -> Result<(), PostgresError> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.starts_with(FOLDER_PREFIX) || !folder.is_absolute() {
        return Err(PostgresError::refused(format!("{} is no folder of a drill", folder.display()), ""));
    }
    stop(&folder.join("data"), false);
    let mut removed = fs::remove_dir_all(folder);
    for _ in 0..REMOVALS_MAX {
        match &removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                std::thread::sleep(LOOK_EVERY);
                removed = fs::remove_dir_all(folder);
            }
            _ => return Ok(()),
        }
    }
    removed.map_err(PostgresError::file("remove", folder))
}
