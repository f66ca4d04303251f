//! Where a restore writes: what stands there, and whether it may be written to.

use super::{RestoreOptions, contained};
use crate::localfs::{RESTORE_MARKER, TEMPORARY_PREFIX};
use crate::postgres::base::{Base, BaseFacts, read_control};
use crate::postgres::connection::ConnectionOptions;
use crate::postgres::control::ControlFile;
use crate::postgres::error::PostgresError;
use crate::postgres::layout::tablespace_folder;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Begins the line of the marker that says where the old control file and log are being put.
pub(super) const PUT_ASIDE: &str = "put aside into ";
/// Folders that may stand aside from earlier restores.
pub(super) const ASIDE_MAX: u32 = 1000;
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

/// Says whether nothing stands in a folder; a marker of which only the beginning was written is nothing.
fn is_empty(folder: &Path) -> Result<bool, PostgresError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries
            .flatten()
            .all(|entry| entry.file_name().as_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(PostgresError::file("look into", folder)(error)),
    }
}

/// Reads the marker, which says that a folder is being restored into: from which snapshot, into which
/// tablespaces, and where an old cluster is being put aside.
fn marker(folder: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(folder.join(RESTORE_MARKER)).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// Returns the folder into which an attempt that was broken off was putting the old cluster.
pub(super) fn aside(folder: &Path) -> Option<PathBuf> {
    marker(folder)?.iter().find_map(|line| line.strip_prefix(PUT_ASIDE)).map(PathBuf::from)
}

/// Says whether a process is a server, by its name.
fn is_server(process: &str) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm"));
    name.is_ok_and(|name| name.starts_with("postgres") || name.starts_with("postmaster"))
}

/// Finds the processes of servers that work in a folder, whatever became of the pid file: servers and their
/// helpers stay in their data directory.
pub(in crate::postgres) fn servers_in(folder: &Path) -> Vec<i32> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let here = processes.filter(|entry| {
        let works_here = fs::read_link(entry.path().join("cwd")).is_ok_and(|place| place == folder);
        works_here && entry.file_name().to_str().is_some_and(is_server)
    });
    here.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Says whether a server runs on a data directory: one works in it, its pid file names a process that is
/// one, or somebody answers where it says that the server listens (B21).
fn is_running(folder: &Path) -> bool {
    if !servers_in(folder).is_empty() {
        return true;
    }
    let Ok(text) = fs::read_to_string(folder.join("postmaster.pid")) else { return false };
    let process = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
    if process.is_some_and(|process| is_server(&process.to_string())) {
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
    // What another program left half done, or is doing right now, has no marker and is not ours to write over.
    let is_ours = marker(folder).is_some();
    if !is_ours && is_empty(folder)? {
        return Ok(Standing::Nothing);
    }
    if is_running(folder) {
        return Err(PostgresError::refused(
            format!("a server runs on {}", folder.display()),
            "stop it first: pg_ctl -D DIR -m fast stop",
        ));
    }
    if is_ours && !folder.join("global/pg_control").exists() {
        return Ok(Standing::Unfinished);
    }
    if !options.delta {
        return Err(PostgresError::refused(
            format!("{} is not empty", folder.display()),
            "name another folder; --delta restores over the same cluster and writes only what differs",
        ));
    }
    check_aside(folder)?;
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

/// Refuses a cluster whose control file and log cannot be put aside, which is done by giving them other
/// names: that works only within one file system, and a link would become a folder.
fn check_aside(folder: &Path) -> Result<(), PostgresError> {
    let folder = folder.canonicalize().map_err(PostgresError::file("find", folder))?;
    let log = folder.join("pg_wal");
    let parent = folder.parent().unwrap_or(&folder);
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let is_elsewhere = |path: &Path| device(path) != device(parent) || is_mount(path);
    let why = if is_elsewhere(&folder) {
        format!("{} is a mount point", folder.display())
    } else if fs::symlink_metadata(&log).is_ok_and(|found| found.is_symlink()) {
        format!("{} is a link", log.display())
    } else if log.exists() && is_elsewhere(&log) {
        format!("{} is a mount point", log.display())
    } else {
        return Ok(());
    };
    Err(PostgresError::refused(
        format!("{why}: the old control file and log cannot be put aside beside the data directory"),
        "restore into another folder, or put the old cluster away yourself and restore into the empty folder",
    ))
}

/// Says whether a folder is the root of something mounted, also where that is of the same file system.
fn is_mount(path: &Path) -> bool {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
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
        let usual = || match &options.contained {
            Some(folder) => contained::tablespace(folder, *oid),
            None => PathBuf::from(original),
        };
        let target = moved.cloned().unwrap_or_else(usual);
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

/// Refuses a segment whose replay creates a tablespace where one of another cluster is: the server makes it at
/// its original path, whatever is there (B8).
pub(super) fn check_created(
    options: &RestoreOptions,
    facts: &BaseFacts,
    places: &[TablespacePlace],
    segment: &str,
    created: &[(u32, String)],
) -> Result<(), PostgresError> {
    let version = tablespace_folder(facts.major, facts.catalog_version);
    for (oid, path) in created {
        let target = Path::new(path);
        let is_own = places.iter().any(|place| place.oid == *oid && place.target == target)
            || is_linked(&options.data_directory, *oid, target)
            || was_linked(&options.data_directory, facts.system_identifier, *oid, target);
        // Without a path it lies in the data directory.
        if options.force || is_own || path.is_empty() || !target.join(&version).exists() {
            continue;
        }
        return Err(PostgresError::refused(
            format!(
                "segment {segment} of the log creates tablespace {oid} at {path}, which is in use here: the restored \
                 server would write into it"
            ),
            "restore on another host, or to a target before it; --force does it all the same",
        ));
    }
    Ok(())
}

/// Says whether the cluster that stands there has this tablespace at this place.
fn is_linked(data_directory: &Path, oid: u32, target: &Path) -> bool {
    fs::read_link(data_directory.join(format!("pg_tblspc/{oid}"))).is_ok_and(|link| link == target)
}

/// Says whether a cluster of this system had this tablespace at this place, which an earlier restore put aside: the
/// link went with what the backup does not have.
fn was_linked(data_directory: &Path, system_identifier: u64, oid: u32, target: &Path) -> bool {
    let is_same = |folder: &Path| {
        let control = fs::read(folder.join("pg_control"));
        let control = control.ok().and_then(|bytes| ControlFile::parse(&bytes).ok());
        control.is_some_and(|control| control.system_identifier == system_identifier)
    };
    let Ok(real) = data_directory.canonicalize() else { return false };
    let folders = (1..=ASIDE_MAX).map(|number| aside_folder(&real, number));
    let mut folders = folders.filter(|folder| is_linked(folder, oid, target));
    folders.any(|folder| is_same(&folder))
}

/// Returns where the control file and the log of a cluster are put that a restore goes over.
pub(super) fn aside_folder(data_directory: &Path, number: u32) -> PathBuf {
    let mut name = data_directory.file_name().unwrap_or_default().to_owned();
    name.push(format!(".before-restore-{number}"));
    data_directory.with_file_name(name)
}

/// Refuses a restore for which there is certainly no room, where everything goes to one file system.
pub(super) fn check_room(
    options: &RestoreOptions,
    places: &[TablespacePlace],
    bytes: u64,
) -> Result<(), PostgresError> {
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
