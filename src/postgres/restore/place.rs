//! Where a restore writes: what stands there, and whether it may be written to.

use super::RestoreOptions;
use crate::postgres::base::{Base, BaseFacts, read_control};
use crate::postgres::connection::ConnectionOptions;
use crate::postgres::error::PostgresError;
use crate::postgres::layout::tablespace_folder;
use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Says that a folder is being restored into: which snapshot, and which tablespaces with it.
pub(super) const MARKER: &str = ".chronolith-restore-marker";
/// Names in a data directory; one without `global/pg_control` that has no others is an unfinished restore.
const KNOWN: [&str; 6] = ["PG_VERSION", "base", "global", "backup_label", "tablespace_map", "postmaster.pid"];
/// Room that is left over beside what is restored.
const SPARE_BYTES: u64 = 64 << 20;

/// What stands where the data directory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Nothing,
    /// What an earlier restore left unfinished.
    Unfinished,
    /// A cluster, which is brought to the state of the backup.
    Cluster,
}

/// A tablespace and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespacePlace {
    /// Its number.
    pub oid: u32,
    /// Where it was.
    pub original: String,
    /// Where it goes.
    pub target: PathBuf,
}

fn is_empty(folder: &Path) -> Result<bool, PostgresError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(PostgresError::file("look into", folder)(error)),
    }
}

/// Reads the marker: its lines.
fn marker(folder: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(folder.join(MARKER)).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// Says whether a server runs on a data directory: its pid file names a process that is a server, or
/// somebody answers where it says that the server listens (B21).
fn is_running(folder: &Path) -> bool {
    let Ok(text) = fs::read_to_string(folder.join("postmaster.pid")) else { return false };
    let process = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    let name = process.and_then(|process| fs::read_to_string(format!("/proc/{process}/comm")).ok());
    if name.is_some_and(|name| name.starts_with("postgres") || name.starts_with("postmaster")) {
        return true;
    }
    let Some(options) = ConnectionOptions::of_data_directory(folder) else { return false };
    let (Some(host), Some(port)) = (options.host, options.port) else { return false };
    match host.starts_with('/') {
        true => UnixStream::connect(Path::new(&host).join(format!(".s.PGSQL.{port}"))).is_ok(),
        false => {
            let addresses = (host.as_str(), port).to_socket_addrs().into_iter().flatten();
            addresses.into_iter().any(|address| TcpStream::connect(address).is_ok())
        }
    }
}

/// Looks at what stands where the data directory is to be, and refuses what must not be written to.
pub(super) fn look(options: &RestoreOptions, base: &Base) -> Result<Standing, PostgresError> {
    let folder = &options.data_directory;
    if !folder.is_absolute() {
        return Err(PostgresError::refused(
            format!("{} is not an absolute path", folder.display()),
            "name the data directory with its whole path",
        ));
    }
    if fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir() && !folder.is_dir()) {
        return Err(PostgresError::refused(format!("{} is not a folder", folder.display()), ""));
    }
    if is_empty(folder)? {
        return Ok(Standing::Nothing);
    }
    if is_running(folder) {
        return Err(PostgresError::refused(
            format!("a server runs on {}", folder.display()),
            "stop it first: pg_ctl -D DIR -m fast stop",
        ));
    }
    if !folder.join("global/pg_control").exists() && (marker(folder).is_some() || is_leftover(folder)) {
        return Ok(Standing::Unfinished);
    }
    if !options.delta {
        return Err(PostgresError::refused(
            format!("{} is not empty", folder.display()),
            "name another folder; --delta restores over the same cluster and writes only what differs",
        ));
    }
    let theirs = read_control(folder).map(|(_, control)| control.system_identifier);
    match theirs {
        Ok(identifier) if identifier == base.facts.system_identifier => Ok(Standing::Cluster),
        Ok(identifier) if !options.force => Err(PostgresError::refused(
            format!(
                "{} holds another cluster: its system identifier is {identifier}, that of the backup {}",
                folder.display(),
                base.facts.system_identifier
            ),
            "name another folder; --force restores over it all the same",
        )),
        Err(error) if !options.force => Err(PostgresError::refused(
            format!("{} holds something else than a cluster ({error})", folder.display()),
            "name another folder; --force restores over it all the same",
        )),
        _ => Ok(Standing::Cluster),
    }
}

/// Says whether only names of a data directory stand in a folder, some of them certain ones.
fn is_leftover(folder: &Path) -> bool {
    let names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let known = |name: &String| {
        KNOWN.contains(&name.as_str())
            || name.starts_with("pg_")
            || name.starts_with("postgresql.")
            || name.starts_with(".chronolith-restore-")
    };
    names.iter().all(known) && names.iter().any(|name| name == "PG_VERSION" || name == "base")
}

/// Finds a place for each tablespace, and refuses those that hold something.
pub(super) fn tablespaces(
    options: &RestoreOptions,
    facts: &BaseFacts,
    standing: Standing,
) -> Result<Vec<TablespacePlace>, PostgresError> {
    let is_there =
        |old: &&String| facts.tablespaces.iter().any(|(oid, path)| path == *old || oid.to_string() == **old);
    if let Some(old) = options.tablespaces.keys().find(|old| !is_there(old)) {
        let there: Vec<&str> = facts.tablespaces.values().map(String::as_str).collect();
        return Err(PostgresError::refused(
            format!("the backup has no tablespace at {old}"),
            format!("its tablespaces are: {}", there.join(", ")),
        ));
    }
    let own = marker(&options.data_directory).unwrap_or_default();
    let version = tablespace_folder(facts.major, facts.catalog_version);
    let mut places: Vec<TablespacePlace> = Vec::new();
    for (oid, original) in &facts.tablespaces {
        let by_number = oid.to_string();
        let moved = options.tablespaces.get(original).or_else(|| options.tablespaces.get(&by_number));
        let target = moved.cloned().unwrap_or_else(|| PathBuf::from(original));
        if !target.is_absolute() || target.starts_with(&options.data_directory) {
            return Err(PostgresError::refused(
                format!("tablespace {oid} cannot go to {}", target.display()),
                "name an absolute path outside of the data directory: --tablespace-map OLD=NEW",
            ));
        }
        if places.iter().any(|place| place.target == target) {
            return Err(PostgresError::refused(
                format!("two tablespaces cannot both go to {}", target.display()),
                "give each a place of its own: --tablespace-map OLD=NEW",
            ));
        }
        // Of the same cluster, or left by an earlier attempt to restore here.
        let is_own = own.iter().any(|line| Path::new(line) == target)
            || (standing == Standing::Cluster && is_linked(&options.data_directory, *oid, &target));
        // An empty folder may be the tablespace of a server that runs here, without a table in it yet.
        if !is_own && target.join(&version).exists() {
            return Err(PostgresError::refused(
                format!("the place of tablespace {oid}, {}, is in use", target.display()),
                format!("another cluster may use it: name another place, --tablespace-map {original}=NEW"),
            ));
        }
        places.push(TablespacePlace { oid: *oid, original: original.clone(), target });
    }
    Ok(places)
}

/// Says whether the cluster that stands there has this tablespace at this place.
fn is_linked(data_directory: &Path, oid: u32, target: &Path) -> bool {
    fs::read_link(data_directory.join(format!("pg_tblspc/{oid}"))).is_ok_and(|link| link == target)
}

/// Refuses a restore for which there is certainly no room, where everything goes to one file system.
pub(super) fn check_room(
    options: &RestoreOptions,
    places: &[TablespacePlace],
    bytes: u64,
) -> Result<(), PostgresError> {
    use std::os::unix::fs::MetadataExt;
    let existing = |path: &Path| path.ancestors().find(|path| path.exists()).map(Path::to_owned);
    let Some(folder) = existing(&options.data_directory) else { return Ok(()) };
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let elsewhere =
        |place: &TablespacePlace| existing(&place.target).and_then(|path| device(&path)) != device(&folder);
    if places.iter().any(elsewhere) {
        return Ok(());
    }
    let Ok(room) = rustix::fs::statvfs(&folder) else { return Ok(()) };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let needed = bytes.saturating_add(SPARE_BYTES);
    if needed <= free {
        return Ok(());
    }
    Err(PostgresError::failed(
        format!(
            "there is no room in {}: {needed} bytes are needed, {free} are free",
            options.data_directory.display()
        ),
        "make room, or restore elsewhere",
    ))
}
