//! What a server needs so that its log is archived: looked at, set, and proved.

use super::archive::{push_bytes, push_histories};
use super::connection::Server;
use super::error::PostgresError;
use super::history::HISTORY_BYTES_MAX;
use super::lineage::{Archiver, ClusterName, stream_of};
use super::segment::{LogFile, SegmentName};
use crate::base::explain;
use crate::repo::{FoundLog, Repository};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The oldest server whose log can be archived with what is set here.
const MAJOR_MIN: u32 = 13;
const ASK: &str = "ask";
/// Longer segments are not asked for: an answer of the server is held in memory, there and here.
const SEGMENT_BYTES_READ_MAX: u64 = 256 << 20;

/// A setting, as it is and as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What the server has.
    pub found: String,
    /// What it needs; `None` where what it has will do.
    pub wanted: Option<String>,
    /// Whether the server must be started anew for it.
    pub restart: bool,
}

impl Setting {
    /// Writes the statement that sets it.
    pub fn statement(&self) -> Option<String> {
        let value = self.wanted.as_ref()?.replace('\'', "''");
        Some(format!("ALTER SYSTEM SET {} = '{value}'", self.name))
    }
}

/// What was found of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Tells the cluster apart from all others.
    pub system_identifier: u64,
    /// The server's version, as it writes it.
    pub version: String,
    /// Whether it is a standby, which does not archive.
    pub standby: bool,
    /// Whether this user may change settings.
    pub may_set: bool,
    /// The settings that matter.
    pub settings: Vec<Setting>,
    /// Another command that archives already.
    pub other_command: Option<String>,
}

impl Setup {
    /// Says whether everything is set as it must be.
    pub fn is_ready(&self) -> bool {
        self.settings.iter().all(|setting| setting.wanted.is_none())
    }

    /// Says whether the server must be started anew once everything is set.
    pub fn needs_restart(&self) -> bool {
        self.settings.iter().any(|setting| setting.restart && setting.wanted.is_some())
    }
}

/// What archiving has come to, by the server's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverState {
    /// Files that could not be archived since the statistics began.
    pub failed: u64,
    /// The last of them.
    pub last_failed: Option<String>,
    /// The last file that was archived.
    pub last_archived: Option<String>,
}

/// Looks at a server; `command` is what its `archive_command` should be.
///
/// # Errors
///
/// When the server does not answer, or is too old.
pub fn look(server: &mut Server, command: &str) -> Result<Setup, PostgresError> {
    let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
        current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(), \
        (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)";
    let rows = server.query(ASK, sql, &[])?;
    let row = rows.first().ok_or_else(|| server.odd(ASK))?;
    let identifier: String = row.get(0);
    let version: String = row.get(1);
    let number: i32 = row.get(2);
    if u32::try_from(number).unwrap_or(0) / 10_000 < MAJOR_MIN {
        return Err(PostgresError::refused(
            format!("the server has version {version}, and its log can be archived from {MAJOR_MIN} on"),
            "upgrade the server",
        ));
    }
    let mut setup = Setup {
        system_identifier: identifier.parse().map_err(|_| server.odd(ASK))?,
        version,
        standby: row.get(3),
        may_set: row.get::<_, Option<bool>>(4).unwrap_or(false),
        settings: Vec::new(),
        other_command: None,
    };
    let names = ["wal_level", "archive_mode", "archive_command", "archive_library", "full_page_writes"];
    let sql = "SELECT name, setting, context = 'postmaster' FROM pg_settings WHERE name = ANY($1)";
    let wanted: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let rows = server.query(ASK, sql, &[&wanted])?;
    for name in names {
        // One that the server does not know needs no value.
        let Some(row) = rows.iter().find(|row| row.get::<_, String>(0) == name) else { continue };
        let found: String = row.get(1);
        let wanted = match name {
            "wal_level" if found == "minimal" => Some("replica".to_owned()),
            // `always` would archive a standby's log a second time (A10).
            "archive_mode" if found != "on" => Some("on".to_owned()),
            "archive_library" if !found.is_empty() => Some(String::new()),
            "full_page_writes" if found != "on" => Some("on".to_owned()),
            "archive_command" if found != command => Some(command.to_owned()),
            _ => None,
        };
        let taken = name == "archive_command" && !matches!(found.as_str(), "" | "(disabled)");
        if wanted.is_some() && (taken || name == "archive_library") {
            setup.other_command = Some(found.clone());
        }
        setup.settings.push(Setting { name, found, wanted, restart: row.get(2) });
    }
    Ok(setup)
}

/// Sets what is not as it must be, and lets the server read it.
///
/// # Errors
///
/// When the user may not, or something else archives already and `force` is not given (A14).
pub fn apply(server: &mut Server, setup: &Setup, force: bool) -> Result<(), PostgresError> {
    if !setup.may_set {
        return Err(PostgresError::refused(
            "this user may not change the server's settings",
            "connect as a superuser, or have somebody run the statements that `pg setup` shows",
        ));
    }
    if let Some(other) = setup.other_command.as_ref().filter(|_| !force) {
        return Err(PostgresError::refused(
            format!("the server's log is archived in another way already: {other}"),
            "see that nobody needs that any more; --force replaces it",
        ));
    }
    for statement in setup.settings.iter().filter_map(Setting::statement) {
        server.execute("change the settings of", &statement)?;
    }
    server.query("reload the settings of", "SELECT pg_reload_conf()", &[])?;
    Ok(())
}

/// The user that a server on this host runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUser {
    /// Its number.
    pub user: u32,
    /// The numbers of its groups.
    pub groups: Vec<u32>,
}

/// Finds the user that a server runs as; `None` where it is not on this host, or does not tell this role
/// enough to be sure of that.
///
/// # Errors
///
/// When the server does not answer.
pub fn server_user(server: &mut Server) -> Result<Option<ServerUser>, PostgresError> {
    let sql = "SELECT pg_backend_pid(), current_setting('data_directory', true)";
    // Who may not see where the data is gets an error.
    let Ok(rows) = server.query(ASK, sql, &[]) else { return Ok(None) };
    let row = rows.first().ok_or_else(|| server.odd(ASK))?;
    let (process, folder): (i32, Option<String>) = (row.get(0), row.get(1));
    let works_in = fs::read_link(format!("/proc/{process}/cwd")).ok();
    let is_here =
        folder.and_then(|folder| fs::canonicalize(folder).ok()).is_some_and(|f| Some(f) == works_in);
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok().filter(|_| is_here);
    Ok(status.and_then(|status| ServerUser::parse(&status)))
}

impl ServerUser {
    fn parse(status: &str) -> Option<Self> {
        let numbers = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        };
        // The second is the one that counts for access.
        let mut groups = numbers("Groups:")?;
        groups.push(*numbers("Gid:")?.get(1)?);
        Some(Self { user: *numbers("Uid:")?.get(1)?, groups })
    }

    /// Says whether the user can read a file, by the modes of it and of the folders on the way.
    pub fn may_read(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        let may = |path: &Path, bit: u32| {
            let Ok(found) = fs::metadata(path) else { return false };
            let shift = if found.uid() == self.user {
                6
            } else if self.groups.contains(&found.gid()) {
                3
            } else {
                0
            };
            self.user == 0 || found.mode() >> shift & bit != 0
        };
        may(&path, 0o4) && path.ancestors().skip(1).all(|folder| may(folder, 0o1))
    }
}

/// Writes something into the log, ends its segment, and returns the segment's name: it must come into the
/// archive now.
///
/// # Errors
///
/// When the server refuses.
pub fn switch_segment(server: &mut Server) -> Result<SegmentName, PostgresError> {
    const DOING: &str = "end a segment of the log of";
    // A segment in which nothing was written since the last switch is not ended.
    server.query(DOING, "SELECT pg_create_restore_point('chronolith pg setup --check')", &[])?;
    let rows = server.query(DOING, "SELECT pg_walfile_name(pg_switch_wal())", &[])?;
    let name: String = rows.first().map(|row| row.get(0)).ok_or_else(|| server.odd(DOING))?;
    Ok(name.parse()?)
}

/// What a server of its own log never handed over, and what of that is archived by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// Histories that were archived now.
    pub histories: Vec<String>,
    /// Whole segments that were archived now.
    pub segments: Vec<SegmentName>,
    /// Segments that are too long to be read here.
    pub left: Vec<SegmentName>,
}

/// Archives what a server that was promoted while it did not archive never hands over: the history of its timeline, and
/// of its log what it has of the time since then. Of the log nothing that the server means to archive itself, or has.
///
/// # Errors
///
/// When this role may not read the server's log, which the error says how to do without; when this key may not archive,
/// or the store fails.
pub fn catch_up(
    server: &mut Server,
    repository: &Repository,
    archiver: &Archiver,
    system_identifier: u64,
    with_segments: bool,
) -> Result<CaughtUp, PostgresError> {
    let rows = server.query(ASK, "SELECT pg_walfile_name(pg_current_wal_lsn())", &[])?;
    let current: String = rows.first().map(|row| row.get(0)).ok_or_else(|| server.odd(ASK))?;
    let current: SegmentName = current.parse()?;
    let Some(timeline) = u32::try_from(current.timeline()).ok().filter(|timeline| *timeline > 1) else {
        return Ok(CaughtUp::default());
    };
    let unread = |error: PostgresError| {
        let name = LogFile::History { timeline };
        PostgresError::failed(
            format!(
                "whether {name} is archived, without which no recovery finds this timeline, cannot be made sure of: {}",
                explain(&error)
            ),
            format!(
                "connect as a superuser, or run as the server's user: chronolith pg archive-push --cluster {} \
                 DIR/pg_wal/{name}",
                archiver.cluster
            ),
        )
    };
    let mut read = |timeline| {
        let name = LogFile::History { timeline }.to_string();
        read_log_file(server, &name, HISTORY_BYTES_MAX).map_err(&unread)
    };
    let histories = push_histories(repository, archiver, system_identifier, timeline, &mut read)?;
    let mut done = CaughtUp { histories, ..CaughtUp::default() };
    if !with_segments {
        return Ok(done);
    }
    // What has a status there the server archives, or has archived.
    let sql = "SELECT name, size FROM pg_ls_waldir() AS w WHERE length(name) = 24 AND name < $1 \
        AND left(name, 8) = left($1, 8) AND NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() AS s \
        WHERE s.name IN (w.name || '.ready', w.name || '.done')) ORDER BY name";
    for row in server.query(ASK, sql, &[&current.to_string()]).map_err(&unread)? {
        let (name, size): (String, i64) = (row.get(0), row.get(1));
        let Ok(segment) = name.parse::<SegmentName>() else { continue };
        if is_archived(repository, &archiver.cluster, system_identifier, segment)? {
            continue;
        }
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if size > SEGMENT_BYTES_READ_MAX {
            done.left.push(segment);
            continue;
        }
        let Some(content) = read_log_file(server, &name, size).map_err(&unread)? else { continue };
        push_bytes(repository, archiver, system_identifier, &name, &content)?;
        done.segments.push(segment);
    }
    Ok(done)
}

/// Reads a file of a server's log through the server; `None` where it has none of that name.
fn read_log_file(
    server: &mut Server,
    name: &str,
    limit_bytes: u64,
) -> Result<Option<Vec<u8>>, PostgresError> {
    let path = format!("pg_wal/{name}");
    let limit = i64::try_from(limit_bytes).unwrap_or(i64::MAX);
    let sql = "SELECT pg_read_binary_file($1, 0, $2, true)";
    let rows = server.query("read the log of", sql, &[&path, &limit])?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Says whether a segment is in the archive, whole.
///
/// # Errors
///
/// When the repository cannot be read.
pub fn is_archived(
    repository: &Repository,
    cluster: &ClusterName,
    system_identifier: u64,
    name: SegmentName,
) -> Result<bool, PostgresError> {
    let listing = repository.search_log(&stream_of(cluster, system_identifier), &name.to_string())?;
    let is_whole = |found: &FoundLog| found.record.piece_offset.is_none() || found.record.whole.is_some();
    Ok(listing.found.iter().any(is_whole))
}

/// Asks the server how its archiving goes.
///
/// # Errors
///
/// When the server does not answer.
pub fn archiver_state(server: &mut Server) -> Result<ArchiverState, PostgresError> {
    let sql = "SELECT failed_count, last_failed_wal, last_archived_wal FROM pg_stat_archiver";
    let rows = server.query(ASK, sql, &[])?;
    let row = rows.first().ok_or_else(|| server.odd(ASK))?;
    Ok(ArchiverState {
        failed: u64::try_from(row.get::<_, i64>(0)).unwrap_or(0),
        last_failed: row.get(1),
        last_archived: row.get(2),
    })
}
